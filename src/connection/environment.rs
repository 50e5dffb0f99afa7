//! Which environment apps may use: one, which an administrator opens.

use super::keys::{self, is_connected};
use super::{as_owner, lock, owner, parse_environment, row, tell};
use crate::postgres::error::{Failure, SqlState, surface};
use crate::postgres::identity;
use crate::postgres::spi::{Composite, Statement};
use pgrx::pg_sys::Oid;
use pgrx::prelude::*;
use stripe::Environment;

/// The environment that a caller means and may use.
///
/// Roles of the app get the one that is open, and may leave it out: a browser that could choose
/// `test` would pay with the card 4242 4242 4242 4242 and be served. Who has the privileges of the
/// tables' owner, or may open environments, can name either.
///
/// # Errors
/// 42501 `environment_closed`; 22023 for a word that is no environment, and when an administrator
/// names none and none is open.
pub fn environment_for_caller(requested: Option<&str>) -> Result<Environment, Failure> {
    let requested = optional(requested)?;
    let caller = identity::current_user();
    let (open, is_admin) = open_to(caller)?;
    match (requested, open) {
        (Some(requested), open) if is_admin || open == Some(requested) => Ok(requested),
        (None, Some(open)) => Ok(open),
        (None, None) if is_admin => Err(Failure::argument(
            "environment_required",
            "no environment is open to apps, so one must be named",
        )
        .with("argument", "environment")
        .hint("Name \"test\" or \"live\", or open one: SELECT payments.open_to_apps('live');")),
        (requested, _) => Err(closed(requested)),
    }
}

fn optional(environment: Option<&str>) -> Result<Option<Environment>, Failure> {
    environment
        .map(|word| parse_environment(Some(word)))
        .transpose()
}

/// The open environment, and whether the caller may name the other one all the same.
fn open_to(caller: Oid) -> Result<(Option<Environment>, bool), Failure> {
    static OPEN: Statement = Statement::new(
        "select (select c.environment
                   from payments.stripe_connections as c
                  where c.open_to_apps),
                has_function_privilege($1, 'payments.open_to_apps(text)', 'execute')",
    );
    let owner = owner()?;
    let found = identity::as_user(owner, || {
        OPEN.first(&[caller.into()], |row| {
            let open = row.get::<String>(1)?;
            Ok((optional(open.as_deref())?, row.required(2)?))
        })
    })?;
    let (open, may_open) = found.unwrap_or_default();
    let is_admin = may_open || identity::has_privileges_of(caller, owner);
    Ok((open, is_admin))
}

fn closed(environment: Option<Environment>) -> Failure {
    let code = "environment_closed";
    let state = SqlState::INSUFFICIENT_PRIVILEGE;
    match environment {
        Some(environment) => {
            let message = format!("the environment \"{environment}\" is not open to apps");
            Failure::new(state, code, message)
                .with("environment", environment.as_str())
                .hint("Leave the environment out to use the one that is open.")
        }
        None => Failure::new(state, code, "no environment is open to apps")
            .hint("An administrator opens one with payments.open_to_apps."),
    }
}

/// `payments.open_to_apps(environment)`.
#[pg_extern(sql = false)]
fn open_to_apps(environment: Option<&str>) -> Option<Composite> {
    surface(|| match optional(environment)? {
        Some(environment) => {
            open(environment)?;
            row(environment).map(Some)
        }
        None => close_others_than(None).map(|()| None),
    })
}

fn open(environment: Environment) -> Result<(), Failure> {
    static OPEN: Statement = Statement::new(
        "update payments.stripe_connections as c
            set open_to_apps = true, updated_at = now()
          where not c.open_to_apps
            and c.environment = $1",
    );
    close_others_than(Some(environment))?;
    if environment == Environment::Live {
        keys::of(environment)?;
    }
    as_owner(|| OPEN.execute(&[environment.as_str().into()]))?;
    if environment == Environment::Test && is_connected(Environment::Live)? {
        tell(
            PgLogLevel::WARNING,
            "apps now take test cards for payment, and live is closed to them".into(),
            Some("SELECT payments.open_to_apps('live');".into()),
        );
    }
    Ok(())
}

fn close_others_than(environment: Option<Environment>) -> Result<(), Failure> {
    static CLOSE: Statement = Statement::new(
        "update payments.stripe_connections as c
            set open_to_apps = false, updated_at = now()
          where c.open_to_apps
            and c.environment is distinct from $1",
    );
    // Both, also those that need no change: two who open at once must not pass each other by.
    for each in Environment::ALL {
        lock(each)?;
    }
    as_owner(|| CLOSE.execute(&[environment.map(Environment::as_str).into()]))?;
    Ok(())
}
