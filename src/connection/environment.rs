//! Which environment apps may use: one, which an administrator opens.

use super::keys::{self, is_connected};
use super::{as_owner, lock, owner, parse_environment, row, tell};
use crate::postgres::error::{Failure, SqlState, surface};
use crate::postgres::identity;
use crate::postgres::spi::{Composite, Statement};
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
    match (requested, open_to_all()?) {
        (None, Some(open)) => Ok(open),
        (Some(requested), Some(open)) if requested == open => Ok(open),
        (Some(requested), _) if caller_is_admin()? => Ok(requested),
        (None, None) if caller_is_admin()? => Err(Failure::argument(
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

fn open_to_all() -> Result<Option<Environment>, Failure> {
    static OPEN: Statement = Statement::new(
        "select c.environment
           from payments.stripe_connections as c
          where c.open_to_apps",
    );
    let open = as_owner(|| OPEN.first(&[], |row| row.required::<String>(1)))?;
    optional(open.as_deref())
}

/// May the caller name an environment that is not open?
fn caller_is_admin() -> Result<bool, Failure> {
    static MAY_OPEN: Statement = Statement::new(
        "select has_function_privilege($1, 'payments.open_to_apps(text)', 'execute')",
    );
    let caller = identity::current_user();
    let may_open = as_owner(|| MAY_OPEN.first(&[caller.into()], |row| row.required(1)))?;
    Ok(may_open.unwrap_or(false) || identity::has_privileges_of(caller, owner()?))
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
