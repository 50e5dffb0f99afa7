//! One live subscription a subject, and one trial.
//!
//! What has not been heard of yet counts as well: webhooks may be late, or none come at all, and a
//! checkout that was rolled back left a session behind that somebody may be paying right now. So
//! Stripe is asked, and in this order: first no session of the subject can be completed any more,
//! then its subscriptions are counted.

use super::text;
use crate::customers;
use crate::door;
use crate::postgres::error::{Failure, SqlState};
use crate::postgres::lock;
use crate::postgres::spi::Statement;
use crate::stripe_errors::{failure, is_missing};
use ledger::{Observation, Source};
use serde_json::{Value, json};
use stripe::{Client, Environment, Subject};

/// Makes other checkouts of a subscription for this subject wait until this transaction ends. To be
/// taken before any other lock of a checkout: they would wait for each other otherwise.
pub fn make_others_wait(environment: Environment, subject: &Subject) {
    let name = [
        "subscription of",
        environment.as_str(),
        &subject.kind,
        &subject.id,
    ];
    lock::exclusive(&name);
}

/// Refuses a second subscription of a subject beside a live one, and closes every other session that
/// could become one. `ours` is the id of the row that a session is wanted for. As the tables' owner.
///
/// # Errors
/// 23505 `already_subscribed`; those of calls to Stripe.
pub fn refuse_second(
    client: &Client,
    environment: Environment,
    subject: &Subject,
    customer: &str,
    ours: &str,
) -> Result<(), Failure> {
    let open = json!({"customer": customer, "status": "open", "limit": 100});
    for session in listed(client, environment, "/v1/checkout/sessions", &open)? {
        let is_theirs = text(&session, "/mode") == Some("subscription")
            && text(&session, "/metadata/payments_subject_type") == Some(&subject.kind)
            && text(&session, "/metadata/payments_subject_id") == Some(&subject.id)
            && text(&session, "/metadata/payments_checkout_session_id") != Some(ours);
        if let Some(id) = text(&session, "/id").filter(|_| is_theirs) {
            expire(client, environment, id)?;
        }
    }
    look(client, environment, customer)?;
    for subscription in live(environment, subject)? {
        if is_live(client, environment, subject, &subscription)? {
            return Err(already_subscribed());
        }
    }
    Ok(())
}

/// Can the subject still have its trial? As the tables' owner.
///
/// # Errors
/// Those of calls to Stripe.
pub fn can_have_trial(
    client: &Client,
    environment: Environment,
    subject: &Subject,
    customer: &str,
) -> Result<bool, Failure> {
    static TRIED: Statement = Statement::new(
        "select
           from payments.subscriptions
          where environment = $1
            and subject_type = $2
            and subject_id = $3
            and trial_start is not null
          limit 1",
    );
    let had_one = || {
        let (kind, id) = (subject.kind.as_str(), subject.id.as_str());
        let tried = TRIED.execute(&[environment.as_str().into(), kind.into(), id.into()])?;
        Ok::<_, Failure>(tried > 0)
    };
    if had_one()? {
        return Ok(false);
    }
    look(client, environment, customer)?;
    Ok(!had_one()?)
}

/// Closes a session. One that was completed just now is taken as such.
fn expire(client: &Client, environment: Environment, id: &str) -> Result<(), Failure> {
    let path = format!("/v1/checkout/sessions/{id}/expire");
    match client.post(&path, &Value::Null, &uuid::Uuid::new_v4().to_string()) {
        Ok(answer) => door::take_answer(client, environment, "checkout.session", answer).map(drop),
        Err(stripe::Error::Refused(_)) => {
            let session = door::fetch(client, environment, "checkout.session", id)?;
            match session.get("status").and_then(Value::as_str) {
                Some("complete") => Err(already_subscribed()),
                _ => Ok(()),
            }
        }
        Err(error) => Err(failure(error)),
    }
}

/// Asks Stripe for the subscriptions of a customer.
fn look(client: &Client, environment: Environment, customer: &str) -> Result<(), Failure> {
    let all = json!({"customer": customer, "status": "all", "limit": 100});
    listed(client, environment, "/v1/subscriptions", &all).map(drop)
}

/// The first page of a list, the newest first, which the ledger takes in. That of a customer who was
/// deleted is empty.
fn listed(
    client: &Client,
    environment: Environment,
    path: &str,
    parameters: &Value,
) -> Result<Vec<Value>, Failure> {
    let answer = match client.get(path, parameters) {
        Ok(answer) => answer,
        Err(error) if customers::is_unknown(&error) => return Ok(Vec::new()),
        Err(error) => return Err(failure(error)),
    };
    let Value::Array(page) = answer.body().map_err(failure)?["data"].take() else {
        return Ok(Vec::new());
    };
    let observations: Vec<_> = page
        .iter()
        .rev()
        .filter_map(|object| {
            let body = object.as_object()?.clone();
            Observation::new(body, answer.as_of, Source::Listing)
        })
        .collect();
    door::enter(environment, "api", &observations)?;
    Ok(page)
}

/// The subscriptions of a subject that go on, as far as known.
fn live(environment: Environment, subject: &Subject) -> Result<Vec<String>, Failure> {
    static LIVE: Statement = Statement::new(
        "select stripe_subscription_id
           from payments.subscriptions
          where environment = $1
            and subject_type = $2
            and subject_id = $3
            and status not in ('canceled', 'incomplete', 'incomplete_expired')",
    );
    let (kind, id) = (subject.kind.as_str(), subject.id.as_str());
    LIVE.rows(
        &[environment.as_str().into(), kind.into(), id.into()],
        |row| row.required(1),
    )
}

/// Asks Stripe whether a subscription still goes on for the subject: a list says nothing about the
/// second of the last event, in which it may have ended.
fn is_live(
    client: &Client,
    environment: Environment,
    subject: &Subject,
    subscription: &str,
) -> Result<bool, Failure> {
    match door::fetch(client, environment, "subscription", subscription) {
        Ok(_) => {
            let live = live(environment, subject)?;
            Ok(live.iter().any(|id| id == subscription))
        }
        Err(failure) if is_missing(&failure) => Ok(false),
        Err(failure) => Err(failure),
    }
}

fn already_subscribed() -> Failure {
    Failure::new(
        SqlState::UNIQUE_VIOLATION,
        "already_subscribed",
        "this subject has a subscription already",
    )
    .hint("Changes to it are made in the customer portal: payments.create_customer_portal_session.")
}
