//! The secrets with which Stripe signs webhooks.

use super::status::next_step;
use super::{as_owner, lock, parse_environment, row, tell};
use crate::postgres::error::{Failure, SqlState, surface};
use crate::postgres::spi::{Composite, Statement};
use crate::secrets::{self, Kind, Secret};
use pgrx::prelude::*;
use std::cell::RefCell;
use stripe::{Environment, SigningSecret};
use uuid::Uuid;

thread_local! {
    /// What was opened last, so that a webhook costs no decryption: a row that has not changed
    /// opens to the same secret. One that is gone is forgotten here, and so wiped.
    static OPENED: RefCell<Vec<(Secret, SigningSecret)>> = const { RefCell::new(Vec::new()) };
}

/// The signing secrets that are accepted now, of both environments; never none.
///
/// # Errors
/// 55000 `not_configured` when none was set, `secret_missing` after a restore, and
/// `secret_unreadable` when none of them opens.
pub fn signing_secrets() -> Result<Vec<(Environment, Uuid, SigningSecret)>, Failure> {
    let stored = secrets::signing_secrets()?;
    if stored.is_empty() {
        return Err(no_signing_secret(None));
    }
    OPENED.with_borrow_mut(|opened| {
        opened.retain(|(known, _)| stored.contains(known));
        let mut refused = None;
        for secret in stored {
            if opened.iter().any(|(known, _)| *known == secret) {
                continue;
            }
            match open(&secret) {
                Ok(signing) => opened.push((secret, signing)),
                Err(failure) => refused = Some(failure),
            }
        }
        match refused {
            // One that opens is enough to go on with; status() tells of the others.
            Some(failure) if opened.is_empty() => Err(failure),
            _ => opened
                .iter()
                .map(|(secret, signing)| {
                    Ok((secret.environment, secret.id, parse(signing.expose())?))
                })
                .collect(),
        }
    })
}

fn open(secret: &Secret) -> Result<SigningSecret, Failure> {
    let opened = secret.open()?;
    parse(std::str::from_utf8(&opened).unwrap_or_default())
}

fn parse(text: &str) -> Result<SigningSecret, Failure> {
    SigningSecret::parse(text).map_err(|error| {
        let hint = error.hint();
        Failure::argument("not_a_signing_secret", error.to_string())
            .with("argument", "signing_secret")
            .hint(hint)
    })
}

/// There is no signing secret: for one environment, or for either.
pub fn no_signing_secret(environment: Option<Environment>) -> Failure {
    let configured = |environment| was_configured(environment).unwrap_or(false);
    let lost = Environment::ALL
        .into_iter()
        .find(|&each| environment.is_none_or(|wanted| wanted == each) && configured(each));
    let (code, message) = match lost {
        Some(environment) => (
            "secret_missing",
            format!(
                "the webhook signing secret of the environment \"{environment}\" is not in this \
                 database: secrets are in no dump"
            ),
        ),
        None => ("not_configured", "no webhook signing secret is set".into()),
    };
    let environment = lost.or(environment);
    let failure = Failure::new(SqlState::PREREQUISITE_STATE, code, message);
    let failure = match environment {
        Some(environment) => failure.with("environment", environment.as_str()),
        None => failure,
    };
    let environment = environment.unwrap_or(Environment::Test);
    failure.hint(format!(
        "SELECT payments.set_webhook_secret('{environment}', $1);  -- whsec_… bound to $1"
    ))
}

fn was_configured(environment: Environment) -> Result<bool, Failure> {
    static CONFIGURED: Statement = Statement::new(
        "select
           from payments.stripe_connections as c
          where c.environment = $1
            and c.webhook_configured_at is not null",
    );
    let found = as_owner(|| CONFIGURED.execute(&[environment.as_str().into()]))?;
    Ok(found > 0)
}

/// `payments.set_webhook_secret(environment, signing_secret)`.
#[pg_extern(sql = false)]
fn set_webhook_secret(environment: Option<&str>, signing_secret: Option<&str>) -> Composite {
    surface(|| set(environment, signing_secret).map_err(Failure::hiding_statement))
}

fn set(environment: Option<&str>, signing_secret: Option<&str>) -> Result<Composite, Failure> {
    static CONFIGURED: Statement = Statement::new(
        "update payments.stripe_connections as c
            set webhook_configured_at = now(), updated_at = now()
          where c.environment = $1",
    );
    let environment = parse_environment(environment)?;
    let signing = parse(signing_secret.unwrap_or_default())?;
    lock(environment)?;
    let known = secrets::signing_secrets()?.into_iter().find(|secret| {
        let same = open(secret).is_ok_and(|known| known.expose() == signing.expose());
        secret.environment == environment && same
    });
    let id = match known {
        Some(secret) => secret.id,
        None => {
            let secret = Secret::seal(environment, Kind::SigningSecret, signing.expose())?;
            secret.store()?;
            secret.id
        }
    };
    secrets::prefer_signing_secret(environment, id)?;
    as_owner(|| CONFIGURED.execute(&[environment.as_str().into()]))?;
    tell(
        PgLogLevel::NOTICE,
        format!("webhooks of the environment \"{environment}\" are accepted"),
        next_step(environment)?,
    );
    row(environment)
}
