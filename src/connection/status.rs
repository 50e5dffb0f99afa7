//! `payments.status()`: how both environments are doing, and what to do next.

use super::{as_owner, keys, owner};
use crate::postgres::error::{Failure, surface};
use crate::postgres::spi::{Composite, Row, Statement};
use crate::secrets::{self, Secret};
use pgrx::datum::TimestampWithTimeZone;
use pgrx::prelude::*;
use stripe::Environment;
use stripe::client::API_VERSION;
use stripe::resources::LISTS;

/// `payments.status()`.
#[pg_extern(sql = false)]
fn status() -> SetOfIterator<'static, Composite> {
    let rows = surface(|| {
        owner()?;
        Environment::ALL
            .into_iter()
            .map(row)
            .collect::<Result<Vec<_>, _>>()
    });
    SetOfIterator::new(rows)
}

/// What the secrets table alone knows.
struct Secrets {
    /// Whether the key is there and opens.
    key_readable: bool,
    /// How many signing secrets are accepted and open.
    signing: i32,
    /// When the next of them expires.
    signing_expires_at: Option<TimestampWithTimeZone>,
}

impl Secrets {
    fn of(environment: Environment) -> Result<Secrets, Failure> {
        let key = secrets::stripe_key(environment)?;
        let signing: Vec<Secret> = secrets::signing_secrets()?
            .into_iter()
            .filter(|secret| secret.environment == environment && secret.open().is_ok())
            .collect();
        Ok(Secrets {
            key_readable: key.is_some_and(|key| keys::open(&key).is_ok()),
            signing: signing.len() as i32,
            signing_expires_at: signing.iter().filter_map(|secret| secret.expires_at).min(),
        })
    }
}

static HEALTH: Statement = Statement::new(include_str!("status.sql"));

fn row(environment: Environment) -> Result<Composite, Failure> {
    let row = health(environment, |row| row.composite(1))?;
    row.flatten().ok_or_else(super::row_gone)
}

/// The one thing to do next for an environment, in a sentence with the SQL; None when there is
/// nothing to do.
pub(super) fn next_step(environment: Environment) -> Result<Option<String>, Failure> {
    Ok(health(environment, |row| row.get(2))?.flatten())
}

fn health<T>(
    environment: Environment,
    read: impl FnMut(&Row<'_>) -> Result<T, Failure>,
) -> Result<Option<T>, Failure> {
    let secrets = Secrets::of(environment)?;
    as_owner(|| {
        HEALTH.first(
            &[
                environment.as_str().into(),
                secrets.key_readable.into(),
                secrets.signing.into(),
                secrets.signing_expires_at.into(),
                API_VERSION.into(),
                (LISTS.len() as i32).into(),
                env!("CARGO_PKG_VERSION").into(),
            ],
            read,
        )
    })
}
