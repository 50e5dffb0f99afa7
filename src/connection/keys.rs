//! The Stripe key of an environment: set, used, removed.

use super::account::{self, Account};
use super::status::next_step;
use super::{as_owner, endpoint, lock, parse_environment, row, tell};
use crate::postgres::error::{Failure, SqlState, surface};
use crate::postgres::spi::{Composite, Statement};
use crate::postgres::{agent, identity, interrupt, settings};
use crate::secrets::{self, Kind, Secret};
use crate::simulate;
use pgrx::prelude::*;
use stripe::client::{Client, Config};
use stripe::{Environment, SecretKey, permission};

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
    with_key(&of(environment)?, conversation)
}

/// The key of an environment.
pub(super) fn of(environment: Environment) -> Result<SecretKey, Failure> {
    match secrets::stripe_key(environment)? {
        Some(secret) => open(&secret),
        None => Err(no_key(environment)),
    }
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

/// Was a key set, whether or not it is still here?
pub(super) fn is_connected(environment: Environment) -> Result<bool, Failure> {
    static CONNECTED: Statement = Statement::new(
        "select
           from payments.stripe_connections as c
          where c.environment = $1
            and c.status <> 'unconfigured'",
    );
    let found = as_owner(|| CONNECTED.execute(&[environment.as_str().into()]))?;
    Ok(found > 0)
}

/// Opens a stored key.
pub(super) fn open(secret: &Secret) -> Result<SecretKey, Failure> {
    let opened = secret.open()?;
    parse(
        secret.environment,
        std::str::from_utf8(&opened).unwrap_or_default(),
    )
}

fn parse(environment: Environment, text: &str) -> Result<SecretKey, Failure> {
    SecretKey::parse(environment, text).map_err(|error| {
        let hint = error.hint();
        Failure::argument("not_a_stripe_key", error.to_string())
            .with("argument", "secret_key")
            .hint(hint)
    })
}

/// `payments.set_stripe_key(environment, secret_key)`.
#[pg_extern(sql = false)]
fn set_stripe_key(environment: Option<&str>, secret_key: Option<&str>) -> Composite {
    surface(|| set(environment, secret_key).map_err(Failure::hiding_statement))
}

fn set(environment: Option<&str>, secret_key: Option<&str>) -> Result<Composite, Failure> {
    let environment = parse_environment(environment)?;
    let key = parse(environment, secret_key.unwrap_or_default())?;
    refuse_read_only()?;
    simulate::refuse_beside_simulated()?;
    let account = with_key(&key, |client| account::of(client, &key))?;

    lock(environment)?;
    refuse_other_account(environment, &account)?;
    let is_new = !is_stored(environment, &key)?;
    if is_new {
        let secret = Secret::seal(environment, Kind::StripeKey, key.expose())?;
        secrets::forget_stripe_key(environment)?;
        secret.store()?;
    }
    connect(environment, &key, &account, is_new)?;
    with_key(&key, |client| endpoint::look(client, environment))?;
    say_connected(environment, &account)?;
    row(environment)
}

/// Rather before Stripe is asked than after.
pub(super) fn refuse_read_only() -> Result<(), Failure> {
    match identity::transaction_is_read_only() {
        false => Ok(()),
        true => Err(Failure::new(
            SqlState::new("25006"),
            "read_only_transaction",
            "a connection to Stripe cannot be changed in a read-only transaction",
        )),
    }
}

/// Objects of two accounts in one environment could never be told apart again.
fn refuse_other_account(environment: Environment, account: &Account) -> Result<(), Failure> {
    static BEFORE: Statement = Statement::new(
        "select c.stripe_account_id
           from payments.stripe_connections as c
          where c.environment = $1
            and (exists (
                    select
                      from payments.stripe_objects as o
                     where o.environment = $1)
                 or exists (
                    select
                      from payments.checkout_sessions as s
                     where s.environment = $1))",
    );
    let before: Option<String> = as_owner(|| {
        let found = BEFORE.first(&[environment.as_str().into()], |row| row.get(1))?;
        Ok(found.flatten())
    })?;
    let Some(before) = before.filter(|before| account.id.as_ref() != Some(before)) else {
        return Ok(());
    };
    let message = match &account.id {
        Some(id) => format!(
            "the key belongs to the Stripe account {id}, and the environment \"{environment}\" \
             has the data of {before}"
        ),
        None => format!(
            "Stripe does not tell whose key this is, and the environment \"{environment}\" has \
             the data of {before}"
        ),
    };
    Err(
        Failure::new(SqlState::PREREQUISITE_STATE, "other_account", message)
            .with("environment", environment.as_str())
            .with("stripe_account_id", account.id.as_deref())
            .with("data_of", before.as_str())
            .hint(format!(
                "Set a key of {before}, or use another database for another account."
            )),
    )
}

fn is_stored(environment: Environment, key: &SecretKey) -> Result<bool, Failure> {
    let stored = secrets::stripe_key(environment)?;
    // One that does not open is replaced.
    let stored = stored.and_then(|secret| open(&secret).ok());
    Ok(stored.is_some_and(|stored| stored.expose() == key.expose()))
}

fn connect(
    environment: Environment,
    key: &SecretKey,
    account: &Account,
    is_new: bool,
) -> Result<(), Failure> {
    static CONNECT: Statement = Statement::new(
        "update payments.stripe_connections as c
            set status = 'connected',
                stripe_account_id = $2,
                stripe_account_email = $3,
                account_livemode = $4,
                masked_key = $5,
                missing_permissions = $6,
                key_set_at = case when $7 then now() else c.key_set_at end,
                updated_at = now()
          where c.environment = $1",
    );
    let missing = Some(account.missing_permissions.clone()).filter(|missing| !missing.is_empty());
    as_owner(|| {
        CONNECT.execute(&[
            environment.as_str().into(),
            account.id.as_deref().into(),
            account.email.as_deref().into(),
            environment.livemode().into(),
            key.masked().into(),
            missing.into(),
            is_new.into(),
        ])
    })?;
    Ok(())
}

fn was_synced(environment: Environment) -> Result<bool, Failure> {
    static SYNCED: Statement = Statement::new(
        "select
           from payments.sync_runs as run
          where run.environment = $1
            and run.object <> 'events'
            and run.completed_at is not null
          limit 1",
    );
    Ok(as_owner(|| SYNCED.execute(&[environment.as_str().into()]))? > 0)
}

fn say_connected(environment: Environment, account: &Account) -> Result<(), Failure> {
    let whose = account
        .id
        .as_deref()
        .unwrap_or("a Stripe account that it does not name");
    tell(
        PgLogLevel::NOTICE,
        format!("the environment \"{environment}\" is connected to {whose}"),
        next_step(environment)?,
    );
    if !was_synced(environment)? {
        let call = format!("CALL payments.sync('{environment}')");
        tell(
            PgLogLevel::NOTICE,
            format!("what the account has from before comes in by {call}"),
            None,
        );
    }
    if !account.missing_permissions.is_empty() {
        tell(
            PgLogLevel::WARNING,
            format!(
                "the restricted key lacks {}",
                account.missing_permissions.join(", ")
            ),
            Some(format!(
                "Make a key with all that is needed at {}",
                permission::link(environment, &permission::REQUIRED)
            )),
        );
    }
    Ok(())
}

/// `payments.remove_stripe_key(environment)`.
#[pg_extern(sql = false)]
fn remove_stripe_key(environment: Option<&str>) -> Composite {
    surface(|| {
        let environment = parse_environment(environment)?;
        remove(environment)?;
        row(environment)
    })
}

fn remove(environment: Environment) -> Result<(), Failure> {
    static KNOWN: Statement = Statement::new(
        "select c.webhook_endpoint_id
           from payments.stripe_connections as c
          where c.environment = $1",
    );
    // The account stays: it says whose data the tables hold.
    static DISCONNECT: Statement = Statement::new(
        "update payments.stripe_connections as c
            set status = 'unconfigured',
                masked_key = null,
                key_set_at = null,
                missing_permissions = null,
                open_to_apps = false,
                webhook_endpoint_id = null,
                webhook_endpoint_url = null,
                webhook_endpoint_status = null,
                webhook_api_version = null,
                webhook_configured_at = null,
                webhook_seen_at = null,
                updated_at = now()
          where c.environment = $1",
    );
    lock(environment)?;
    let known: Option<Option<String>> =
        as_owner(|| KNOWN.first(&[environment.as_str().into()], |row| row.get(1)))?;
    let stored = secrets::stripe_key(environment)?;
    secrets::forget_stripe_key(environment)?;
    secrets::forget_signing_secrets(environment)?;
    as_owner(|| DISCONNECT.execute(&[environment.as_str().into()]))?;
    // Last, because it is what no rollback would undo.
    match (
        known.flatten(),
        stored.and_then(|secret| open(&secret).ok()),
    ) {
        (Some(known), Some(key)) => {
            with_key(&key, |client| endpoint::remove(client, environment, &known))
        }
        _ => Ok(()),
    }
}
