//! Subscriptions that are changed or cancelled by whoever runs the payments.

use crate::catalog::{checked, new_key, row};
use crate::checkout::{refused_argument, required};
use crate::connection::{parse_environment, with_client};
use crate::door;
use crate::postgres::error::{Failure, surface};
use crate::postgres::spi::{Composite, Statement};
use crate::prices;
use crate::stripe_errors::{failure, is_gone};
use ledger::Fields;
use pgrx::{JsonB, pg_extern};
use serde_json::{Value, json};
use stripe::ids::Kind;
use stripe::subscription::Changes;
use stripe::{Client, Environment, Error};

/// `payments.cancel_subscription(environment, id, at_period_end)`.
#[pg_extern(sql = false)]
fn cancel_subscription(
    environment: Option<&str>,
    id: Option<&str>,
    at_period_end: Option<bool>,
) -> Option<Composite> {
    surface(|| {
        door::require_read_committed()?;
        let environment = parse_environment(environment)?;
        let id = checked(Kind::Subscription, "id", id)?;
        let at_period_end = at_period_end.unwrap_or(true);
        with_client(environment, |client| {
            cancel(client, environment, id, at_period_end)
        })?;
        subscription_row(environment, id)
    })
}

/// `payments.update_subscription(environment, id, changes)`.
#[pg_extern(sql = false)]
fn update_subscription(
    environment: Option<&str>,
    id: Option<&str>,
    changes: Option<JsonB>,
) -> Option<Composite> {
    surface(|| {
        door::require_read_committed()?;
        let environment = parse_environment(environment)?;
        let id = checked(Kind::Subscription, "id", id)?;
        let changes = Changes::parse(&required("changes", changes)?.0).map_err(refused_argument)?;
        with_client(environment, |client| {
            change(client, environment, id, &changes)
        })?;
        subscription_row(environment, id)
    })
}

fn cancel(
    client: &Client,
    environment: Environment,
    id: &str,
    at_period_end: bool,
) -> Result<(), Failure> {
    let after = door::mark(environment, "subscription", id)?;
    let answer = match at_period_end {
        true => {
            let parameters = json!({"cancel_at_period_end": true});
            client.post(&path(id), &parameters, &new_key())
        }
        false => client.delete(&path(id), &Value::Null),
    };
    match answer {
        Ok(answer) => {
            door::take_change(client, environment, ("subscription", id), answer, after).map(drop)
        }
        // What has ended cannot be cancelled; the answer to an earlier attempt can have been lost.
        Err(error) if is_gone(&error) || matches!(error, Error::Refused(_)) => {
            let subscription = door::fetch(client, environment, "subscription", id)?;
            match has_ended(&subscription) {
                true => Ok(()),
                false => Err(failure(error)),
            }
        }
        Err(error) => Err(failure(error)),
    }
}

fn change(
    client: &Client,
    environment: Environment,
    id: &str,
    changes: &Changes,
) -> Result<(), Failure> {
    let subscription = door::fetch(client, environment, "subscription", id)?;
    let prices = prices::resolve(client, environment, changes.prices())?;
    let parameters = changes
        .parameters(&subscription.to_map(), &prices)
        .map_err(refused_argument)?;
    let after = door::mark(environment, "subscription", id)?;
    let answer = client
        .post(&path(id), &parameters, &new_key())
        .map_err(failure)?;
    door::take_change(client, environment, ("subscription", id), answer, after)?;
    Ok(())
}

fn path(id: &str) -> String {
    format!("/v1/subscriptions/{id}")
}

fn has_ended(subscription: &Fields) -> bool {
    let status = subscription.get("status").and_then(Value::as_str);
    matches!(status, Some("canceled" | "incomplete_expired"))
}

fn subscription_row(environment: Environment, id: &str) -> Result<Option<Composite>, Failure> {
    static ROW: Statement = Statement::new(
        "select jsonb_populate_record(null::payments.subscription, to_jsonb(subscription))
           from payments.subscriptions as subscription
          where subscription.environment = $1
            and subscription.stripe_subscription_id = $2",
    );
    row(&ROW, environment, id)
}
