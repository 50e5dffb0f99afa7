//! The connection of each environment to a Stripe account.

mod account;
mod keys;
mod signing;
mod status;

pub use crate::install::tables_owner as owner;
pub use signing::{no_signing_secret, signing_secrets};

use crate::postgres::error::{Failure, SqlState, surface};
use crate::postgres::spi::{Composite, Statement};
use crate::postgres::{agent, identity, interrupt, settings};
use crate::secrets;
use pgrx::pg_sys::panic::ErrorReport;
use pgrx::prelude::*;
use stripe::client::{Client, Config};
use stripe::{Environment, SecretKey};

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
    environment
        .parse()
        .map_err(|error: stripe::environment::UnknownEnvironment| {
            Failure::argument("unknown_environment", error.to_string())
                .with("argument", "environment")
        })
}

/// The environment that a caller means and may use.
///
/// Roles of the app get the one that is open, and may leave it out: a browser that could choose
/// `test` would pay with the card 4242 4242 4242 4242 and be served. Who has the privileges of the
/// tables' owner, or may open environments, can name either.
///
/// # Errors
/// 42501 `environment_closed`; 22023 when an administrator names none and none is open, or a word
/// that is no environment.
pub fn environment_for_caller(requested: Option<&str>) -> Result<Environment, Failure> {
    static OPEN: Statement = Statement::new(
        "select (select c.environment from payments.stripe_connections as c where c.open_to_apps),
                has_function_privilege($1, 'payments.open_to_apps(text)', 'execute')",
    );
    let caller = identity::current_user();
    let owner = owner()?;
    let (open, may_open) = identity::as_user(owner, || {
        let read = OPEN.rows(&[caller.into()], |row| {
            Ok((row.get::<String>(1)?, row.required::<bool>(2)?))
        })?;
        Ok::<_, Failure>(read.into_iter().next().unwrap_or_default())
    })?;
    let is_admin = may_open || identity::has_privileges_of(caller, owner);

    match (requested, open.as_deref()) {
        (None, Some(open)) => parse_environment(Some(open)),
        (None, None) if is_admin => Err(Failure::argument(
            "environment_required",
            "no environment is open to apps, so one must be named",
        )
        .with("argument", "environment")
        .hint("Name \"test\" or \"live\", or open one: SELECT payments.open_to_apps('live');")),
        (Some(requested), open) if is_admin || open == Some(requested) => {
            parse_environment(Some(requested))
        }
        (requested, _) => {
            let environment = requested
                .map(|_| parse_environment(requested))
                .transpose()?;
            Err(closed(environment))
        }
    }
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

/// Asks Stripe with the key of an environment, which is wiped from memory afterwards. The time that
/// all the asking may take starts now.
///
/// # Errors
/// 55000 `not_configured`, `secret_missing` (after a restore) or `secret_unreadable`; and those of
/// `conversation`.
pub fn with_client<R>(
    environment: Environment,
    conversation: impl FnOnce(&Client) -> Result<R, Failure>,
) -> Result<R, Failure> {
    let secret = secrets::stripe_key(environment)?;
    let secret = secret.ok_or_else(|| no_key(environment))?;
    with_key(&keys::open(&secret)?, conversation)
}

fn with_key<R>(
    key: &SecretKey,
    conversation: impl FnOnce(&Client) -> Result<R, Failure>,
) -> Result<R, Failure> {
    conversation(&Client::new(Config {
        agent: agent::agent(),
        base: &settings::stripe_api_base(),
        key,
        budget: settings::http_timeout(),
        max_response: settings::http_max_response_size(),
        pause: interrupt::pause,
    }))
}

fn no_key(environment: Environment) -> Failure {
    let hint =
        format!("SELECT payments.set_stripe_key('{environment}', $1);  -- the key bound to $1");
    let (code, message) = match is_connected(environment) {
        Ok(true) => (
            "secret_missing",
            format!(
                "the Stripe key of the environment \"{environment}\" is not in this database: \
                 secrets are in no dump"
            ),
        ),
        Ok(false) => (
            "not_configured",
            format!("the environment \"{environment}\" has no Stripe key"),
        ),
        Err(failure) => return failure,
    };
    Failure::new(SqlState::PREREQUISITE_STATE, code, message)
        .with("environment", environment.as_str())
        .hint(hint)
}

fn is_connected(environment: Environment) -> Result<bool, Failure> {
    static CONNECTED: Statement = Statement::new(
        "select
           from payments.stripe_connections as c
          where c.environment = $1
            and c.status <> 'unconfigured'",
    );
    let found = as_owner(|| CONNECTED.execute(&[environment.as_str().into()]))?;
    Ok(found > 0)
}

/// The connection of an environment, as SQL is to see it.
fn row(environment: Environment) -> Result<Composite, Failure> {
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

/// `payments.open_to_apps(environment)`.
#[pg_extern(sql = false)]
fn open_to_apps(environment: Option<&str>) -> Option<Composite> {
    surface(|| {
        let environment = environment
            .map(|word| parse_environment(Some(word)))
            .transpose()?;
        open(environment)
    })
}

fn open(environment: Option<Environment>) -> Result<Option<Composite>, Failure> {
    static CLOSE: Statement = Statement::new(
        "update payments.stripe_connections as c
            set open_to_apps = false, updated_at = now()
          where c.open_to_apps
            and c.environment <> coalesce($1, '')",
    );
    static OPEN: Statement = Statement::new(
        "update payments.stripe_connections as c
            set open_to_apps = true, updated_at = now()
          where not c.open_to_apps
            and c.environment = $1",
    );
    for either in Environment::ALL {
        lock(either)?;
    }
    if environment == Some(Environment::Live) && secrets::stripe_key(Environment::Live)?.is_none() {
        return Err(no_key(Environment::Live));
    }
    let name = environment.map(Environment::as_str);
    as_owner(|| {
        CLOSE.execute(&[name.into()])?;
        OPEN.execute(&[name.into()])
    })?;
    let Some(environment) = environment else {
        return Ok(None);
    };
    if environment == Environment::Test && is_connected(Environment::Live)? {
        tell(
            PgLogLevel::WARNING,
            "apps now take test cards for payment, and live is closed to them".into(),
            Some("SELECT payments.open_to_apps('live');".into()),
        );
    }
    row(environment).map(Some)
}
