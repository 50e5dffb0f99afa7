//! The webhook endpoint that an environment has at Stripe: made, kept as wanted, replaced, removed.
//!
//! Stripe is asked before this transaction ends, which may yet be rolled back. So each step leaves
//! things in which no event is lost, and from which the same call goes on: an endpoint is made
//! under an idempotency key that a retry derives again, and so gets the same one with its secret;
//! and what it replaces goes last, while the secret of that stays good for a day.

use super::keys::refuse_read_only;
use super::status::next_step;
use super::{as_owner, lock, parse_environment, row, tell, with_client};
use crate::checkout::{refused_argument, required};
use crate::postgres::error::{Failure, SqlState, surface};
use crate::postgres::spi::{Composite, Statement};
use crate::postgres::{lock as named_lock, sealed, settings};
use crate::secrets::{self, Kind, Secret};
use crate::stripe_errors::{failure, is_missing};
use pgrx::prelude::*;
use serde_json::{Value, json};
use stripe::client::Client;
use stripe::endpoint::{Endpoint, Wanted};
use stripe::{Environment, ids};
use uuid::Uuid;
use zeroize::{Zeroize, Zeroizing};

/// `payments.configure_webhook(environment, url, enabled_events)`.
#[pg_extern(sql = false)]
fn configure_webhook(
    environment: Option<&str>,
    url: Option<&str>,
    enabled_events: Option<Vec<Option<String>>>,
) -> Composite {
    surface(|| {
        let environment = parse_environment(environment)?;
        let url = required("url", url)?;
        let wanted = match &enabled_events {
            Some(events) => Wanted::new(url, events.iter().flatten().map(String::as_str)),
            None => Wanted::new(url, ledger::EVENTS),
        };
        let wanted = wanted.map_err(refused_argument)?;
        refuse_read_only()?;
        named_lock::waiting_at_most(settings::http_timeout(), || configure(environment, &wanted))?;
        say_what_is_left_out(&wanted);
        tell(
            PgLogLevel::NOTICE,
            format!(
                "Stripe sends the webhooks of the environment \"{environment}\" to {}",
                wanted.url
            ),
            next_step(environment)?,
        );
        row(environment)
    })
}

fn configure(environment: Environment, wanted: &Wanted) -> Result<(), Failure> {
    lock(environment)?;
    with_client(environment, |client| {
        let ours = ours(client, environment)?;
        let endpoint = match usable(environment, &ours)? {
            Some(endpoint) => adjusted(client, endpoint, wanted)?,
            None => made(client, environment, wanted)?,
        };
        secrets::prefer_endpoint(environment, &endpoint.id)?;
        record(environment, &endpoint)?;
        for older in ours.iter().filter(|older| older.id != endpoint.id) {
            retire(client, environment, older)?;
        }
        Ok(())
    })
}

/// The endpoints that this database made. Others are not ours to touch: a copy of a production
/// database, restored elsewhere, must leave production's alone, though it knows its id.
fn ours(client: &Client, environment: Environment) -> Result<Vec<Endpoint>, Failure> {
    let owner = owner_mark(environment)?;
    let mut endpoints: Vec<Endpoint> = Vec::new();
    let mut parameters = json!({"limit": 100});
    loop {
        let answer = client.get(PATH, &parameters);
        let answer = answer.and_then(|answer| answer.body()).map_err(failure)?;
        let page = answer.get("data").and_then(Value::as_array);
        let page = page.ok_or_else(malformed)?;
        endpoints.extend(page.iter().filter_map(Endpoint::from_object));
        let last = page.last().and_then(|endpoint| endpoint.get("id"));
        match (answer.get("has_more").and_then(Value::as_bool), last) {
            (Some(true), Some(last)) => parameters["starting_after"] = last.clone(),
            _ => break,
        }
    }
    endpoints.retain(|endpoint| endpoint.is_of(&owner));
    Ok(endpoints)
}

const PATH: &str = "/v1/webhook_endpoints";

fn path_of(id: &str) -> Result<String, Failure> {
    let id = ids::Kind::WebhookEndpoint.check(id);
    Ok(format!("{PATH}/{}", id.map_err(|_| malformed())?))
}

fn malformed() -> Failure {
    Failure::new(
        SqlState::BAD_GATEWAY,
        "malformed_answer",
        "Stripe's answer does not describe webhook endpoints",
    )
}

/// What an endpoint of this database is marked with: nothing that a dump carries.
fn owner_mark(environment: Environment) -> Result<String, Failure> {
    static DATABASE: Statement = Statement::new("select current_database()::text");
    let database: Option<String> = DATABASE.first(&[], |row| row.required(1))?;
    let parts = [environment.as_str(), &database.unwrap_or_default()];
    let mark = sealed::derive("webhook endpoint", &parts)?;
    Ok(hex::encode(&mark[..16]))
}

/// The one of ours that can go on: its events have the version that we read, and its secret, which
/// Stripe shows but once, is here.
fn usable(environment: Environment, ours: &[Endpoint]) -> Result<Option<&Endpoint>, Failure> {
    let secrets = secrets::signing_secrets()?;
    let is_usable = |endpoint: &Endpoint| {
        let mut secrets = secrets.iter();
        endpoint.is_current()
            && secrets.any(|secret| {
                secret.environment == environment
                    && secret.endpoint.as_deref() == Some(endpoint.id.as_str())
                    && secret.open().is_ok()
            })
    };
    Ok(ours.iter().find(|endpoint| is_usable(endpoint)))
}

/// Changes what differs.
fn adjusted(client: &Client, endpoint: &Endpoint, wanted: &Wanted) -> Result<Endpoint, Failure> {
    let Some(changes) = endpoint.changes(wanted) else {
        return Ok(endpoint.clone());
    };
    let path = path_of(&endpoint.id)?;
    let answer = client.post(&path, &changes, &Uuid::new_v4().to_string());
    let body = answer.and_then(|answer| answer.body()).map_err(failure)?;
    Endpoint::from_object(&body).ok_or_else(malformed)
}

/// Stripe remembers an idempotency key for a day, also that it failed, or that it made what has
/// been removed since; then the next key makes another. The last key is nobody's, so that it
/// remembers nothing.
const KEYS_PER_CALL: u32 = 3;

/// Makes an endpoint, and keeps its secret.
fn made(client: &Client, environment: Environment, wanted: &Wanted) -> Result<Endpoint, Failure> {
    let owner = owner_mark(environment)?;
    let parameters = wanted.parameters(&owner);
    for attempt in 1..=KEYS_PER_CALL {
        let is_last = attempt == KEYS_PER_CALL;
        let key = match is_last {
            true => Uuid::new_v4().to_string(),
            false => derived_key(environment, &parameters, attempt)?,
        };
        let key = format!("payments-webhook-{key}");
        let mut answer = match client.post(PATH, &parameters, &key) {
            Ok(answer) => answer,
            Err(error) if error.is_replayed() && !is_last => continue,
            Err(error) => return Err(failure(error)),
        };
        let mut body = answer.body().map_err(failure)?;
        answer.text.zeroize();
        let secret = secret_in(&mut body)?;
        let endpoint = Endpoint::from_object(&body).ok_or_else(malformed)?;
        if !answer.replayed || exists(client, &endpoint)? {
            let mut secret = Secret::seal(environment, Kind::SigningSecret, &secret)?;
            secret.endpoint = Some(endpoint.id.clone());
            secret.store()?;
            return Ok(endpoint);
        }
    }
    Err(Failure::new(
        SqlState::BAD_GATEWAY,
        "no_endpoint_made",
        "every webhook endpoint that Stripe made for this was deleted at once",
    ))
}

fn derived_key(
    environment: Environment,
    parameters: &Value,
    attempt: u32,
) -> Result<String, Failure> {
    let parts = [
        committed_state(environment)?,
        parameters.to_string(),
        attempt.to_string(),
    ];
    let parts = parts.each_ref().map(String::as_str);
    let key = sealed::derive("webhook endpoint made", &parts)?;
    Ok(hex::encode(&key[..16]))
}

/// What stays the same while calls are rolled back, and changes when one is committed.
fn committed_state(environment: Environment) -> Result<String, Failure> {
    static STATE: Statement = Statement::new(
        "select concat_ws(
                    ' ',
                    c.environment,
                    c.webhook_endpoint_id,
                    extract(epoch from c.webhook_configured_at),
                    extract(epoch from c.key_set_at))
           from payments.stripe_connections as c
          where c.environment = $1",
    );
    let state = as_owner(|| STATE.first(&[environment.as_str().into()], |row| row.required(1)))?;
    state.ok_or_else(super::row_gone)
}

/// Takes the secret out of the answer, so that it is wiped from memory with what is returned.
fn secret_in(answer: &mut Value) -> Result<Zeroizing<String>, Failure> {
    match answer.get_mut("secret").map(Value::take) {
        Some(Value::String(secret)) => Ok(Zeroizing::new(secret)),
        _ => Err(malformed()),
    }
}

fn exists(client: &Client, endpoint: &Endpoint) -> Result<bool, Failure> {
    match client.get(&path_of(&endpoint.id)?, &Value::Null) {
        Ok(_) => Ok(true),
        Err(error) if error.resource_missing() => Ok(false),
        Err(error) => Err(failure(error)),
    }
}

fn record(environment: Environment, endpoint: &Endpoint) -> Result<(), Failure> {
    static RECORD: Statement = Statement::new(
        "update payments.stripe_connections as c
            set webhook_endpoint_id = $2,
                webhook_endpoint_url = $3,
                webhook_endpoint_status = $4,
                webhook_api_version = $5,
                webhook_configured_at = case
                        when c.webhook_endpoint_id is distinct from $2
                        then now()
                        else c.webhook_configured_at
                    end,
                webhook_seen_at = now(),
                updated_at = now()
          where c.environment = $1",
    );
    as_owner(|| {
        RECORD.execute(&[
            environment.as_str().into(),
            endpoint.id.as_str().into(),
            endpoint.url.as_str().into(),
            endpoint.status.as_str().into(),
            endpoint.api_version.as_deref().into(),
        ])
    })?;
    Ok(())
}

/// Removes an endpoint. It is no trouble where it stays, since events that come twice are done
/// once: so what has been achieved is kept.
fn retire(client: &Client, environment: Environment, older: &Endpoint) -> Result<(), Failure> {
    let answer = client.delete(&path_of(&older.id)?, &Value::Null);
    match answer.map_err(failure) {
        Ok(_) => Ok(()),
        Err(failure) if is_missing(&failure) => Ok(()),
        Err(failure) if failure.is_interrupted() => Err(failure),
        Err(failure) => {
            tell(
                PgLogLevel::WARNING,
                format!(
                    "the webhook endpoint {} is still at Stripe: {}",
                    older.id, failure.message
                ),
                Some(format!(
                    "Delete it at {}, or repeat the call.",
                    dashboard(environment)
                )),
            );
            Ok(())
        }
    }
}

fn dashboard(environment: Environment) -> String {
    let mode = if environment.livemode() { "" } else { "test/" };
    format!("https://dashboard.stripe.com/{mode}webhooks")
}

fn say_what_is_left_out(wanted: &Wanted) {
    let missing: Vec<&str> = ledger::EVENTS
        .into_iter()
        .filter(|event| !wanted.enabled_events.iter().any(|wanted| wanted == event))
        .collect();
    if !missing.is_empty() {
        tell(
            PgLogLevel::WARNING,
            format!(
                "the tables fall behind Stripe without {}",
                missing.join(", ")
            ),
            Some("Leave enabled_events out for all that they are made of.".into()),
        );
    }
}

/// Removes the endpoint `known`, and whatever else this database has at Stripe, as far as Stripe
/// lets it.
///
/// # Errors
/// An interrupt only; for the rest there is a warning.
pub fn remove(client: &Client, environment: Environment, known: &str) -> Result<(), Failure> {
    let ours = match ours(client, environment) {
        Err(failure) if failure.is_interrupted() => return Err(failure),
        Err(failure) => {
            tell(
                PgLogLevel::WARNING,
                format!(
                    "the webhook endpoint {known} may still be at Stripe: {}",
                    failure.message
                ),
                Some(format!("Delete it at {}.", dashboard(environment))),
            );
            return Ok(());
        }
        Ok(ours) => ours,
    };
    for endpoint in &ours {
        retire(client, environment, endpoint)?;
    }
    Ok(())
}

/// Asks how the endpoint is doing, and keeps the answer for `payments.status()`: Stripe disables
/// one that has failed for days, and then nothing comes to tell of it. If Stripe does not say, what
/// was seen last stands.
///
/// # Errors
/// An interrupt only.
pub fn look(client: &Client, environment: Environment) -> Result<(), Failure> {
    static KNOWN: Statement = Statement::new(
        "select c.webhook_endpoint_id
           from payments.stripe_connections as c
          where c.environment = $1",
    );
    static GONE: Statement = Statement::new(
        "update payments.stripe_connections as c
            set webhook_endpoint_status = 'deleted',
                webhook_seen_at = now(),
                updated_at = now()
          where c.environment = $1",
    );
    let id: Option<Option<String>> =
        as_owner(|| KNOWN.first(&[environment.as_str().into()], |row| row.get(1)))?;
    let Some(id) = id.flatten() else {
        return Ok(());
    };
    let answer = client.get(&path_of(&id)?, &Value::Null);
    match answer.and_then(|answer| answer.body()).map_err(failure) {
        Ok(body) => match Endpoint::from_object(&body) {
            Some(endpoint) => record(environment, &endpoint),
            None => Ok(()),
        },
        Err(failure) if is_missing(&failure) => {
            as_owner(|| GONE.execute(&[environment.as_str().into()]))?;
            Ok(())
        }
        Err(failure) if failure.is_interrupted() => Err(failure),
        Err(_) => Ok(()),
    }
}
