//! The connection of each environment to a Stripe account.

mod account;
mod endpoint;
mod environment;
mod keys;
mod signing;
mod status;

pub use crate::install::tables_owner as owner;
pub use environment::environment_for_caller;
pub use keys::with_client;
pub use signing::{no_signing_secret, signing_secrets};

use crate::postgres::error::{Failure, SqlState};
use crate::postgres::identity;
use crate::postgres::spi::{Composite, Statement};
use pgrx::pg_sys::panic::ErrorReport;
use pgrx::prelude::*;
use stripe::Environment;
use stripe::environment::UnknownEnvironment;

/// Acts as the owner of the tables, past row-level security.
///
/// # Errors
/// As [`owner`], and those of `stretch`.
pub fn as_owner<R>(stretch: impl FnOnce() -> Result<R, Failure>) -> Result<R, Failure> {
    identity::as_user(owner()?, stretch)
}

/// An argument that names an environment.
///
/// # Errors
/// 22023 when it is missing or neither `test` nor `live`.
pub fn parse_environment(environment: Option<&str>) -> Result<Environment, Failure> {
    let environment = environment.unwrap_or_default();
    environment.parse().map_err(|error: UnknownEnvironment| {
        Failure::argument("unknown_environment", error.to_string()).with("argument", "environment")
    })
}

/// The connection of an environment, as SQL is to see it.
pub fn row(environment: Environment) -> Result<Composite, Failure> {
    // By name, because a table that users added columns to has others than the type.
    static ROW: Statement = Statement::new(
        "select jsonb_populate_record(
                    null::payments.connection,
                    to_jsonb(c))
           from payments.stripe_connections as c
          where c.environment = $1",
    );
    let row = as_owner(|| ROW.first(&[environment.as_str().into()], |row| row.composite(1)))?;
    row.flatten().ok_or_else(row_gone)
}

fn row_gone() -> Failure {
    Failure::new(
        SqlState::PREREQUISITE_STATE,
        "not_installed",
        "a row of payments.stripe_connections is gone",
    )
    .hint("SELECT payments.install() puts it back.")
}

/// Makes other changes of an environment's connection wait until this transaction ends.
fn lock(environment: Environment) -> Result<(), Failure> {
    static LOCK: Statement = Statement::new(
        "select
           from payments.stripe_connections as c
          where c.environment = $1
            for update",
    );
    match as_owner(|| LOCK.execute(&[environment.as_str().into()]))? {
        0 => Err(row_gone()),
        _ => Ok(()),
    }
}

/// Tells the caller something, and what to do next.
fn tell(level: PgLogLevel, message: String, hint: Option<String>) {
    let code = match level {
        PgLogLevel::WARNING => PgSqlErrorCode::ERRCODE_WARNING,
        _ => PgSqlErrorCode::ERRCODE_SUCCESSFUL_COMPLETION,
    };
    let report = ErrorReport::new(code, message, "payments");
    match hint {
        Some(hint) => report.set_hint(hint),
        None => report,
    }
    .report(level);
}
