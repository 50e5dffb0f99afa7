//! Which Stripe customer a subject is.

use crate::door;
use crate::postgres::error::{Failure, SqlState};
use crate::postgres::spi::Statement;
use crate::postgres::{lock, sealed};
use crate::stripe_errors::failure;
use ledger::Fields;
use serde_json::{Value, json};
use stripe::{Client, Environment, Subject};

/// The customer who is billed for a subject: one who completed a checkout for it or was linked to
/// it. Of several, the one with a live subscription, then the newest. Reads as the tables' owner.
pub fn mapped(environment: Environment, subject: &Subject) -> Result<Option<String>, Failure> {
    // Mostly there is one, or none, and nothing to choose.
    static SOME: Statement = Statement::new(
        "select mapping.stripe_customer_id
           from payments.customer_mappings as mapping
           left join payments.customers as customer
             on customer.environment = mapping.environment
            and customer.stripe_customer_id = mapping.stripe_customer_id
          where mapping.environment = $1
            and mapping.subject_type = $2
            and mapping.subject_id = $3
            and customer.deleted is not true
          limit 2",
    );
    static FIRST: Statement = Statement::new(
        "select mapping.stripe_customer_id
           from payments.customer_mappings as mapping
           left join payments.customers as customer
             on customer.environment = mapping.environment
            and customer.stripe_customer_id = mapping.stripe_customer_id
          where mapping.environment = $1
            and mapping.subject_type = $2
            and mapping.subject_id = $3
            and customer.deleted is not true
          order by exists (
                    select
                      from payments.subscriptions as subscription
                     where subscription.environment = mapping.environment
                       and subscription.stripe_customer_id = mapping.stripe_customer_id
                       and subscription.subject_type = mapping.subject_type
                       and subscription.subject_id = mapping.subject_id
                       and subscription.status in ('active', 'trialing', 'past_due')
                   ) desc,
                   coalesce(customer.stripe_created_at, mapping.created_at) desc,
                   mapping.stripe_customer_id desc
          limit 1",
    );
    let mut some = all_of(&SOME, environment, subject)?;
    match some.len() {
        2.. => Ok(all_of(&FIRST, environment, subject)?.into_iter().next()),
        _ => Ok(some.pop()),
    }
}

/// The subscription that a customer pays for a subject, the newest that has not ended.
pub fn live_subscription(
    environment: Environment,
    subject: &Subject,
    customer: &str,
) -> Result<Option<String>, Failure> {
    static LIVE: Statement = Statement::new(
        "select stripe_subscription_id
           from payments.subscriptions
          where environment = $1
            and subject_type = $2
            and subject_id = $3
            and stripe_customer_id = $4
            and status not in ('canceled', 'incomplete_expired')
          order by created_at desc, stripe_subscription_id desc
          limit 1",
    );
    let (kind, id) = (subject.kind.as_str(), subject.id.as_str());
    LIVE.first(
        &[
            environment.as_str().into(),
            kind.into(),
            id.into(),
            customer.into(),
        ],
        |row| row.required(1),
    )
}

/// The customer that an earlier checkout of the subject made, though nobody completed it.
fn reserved(environment: Environment, subject: &Subject) -> Result<Option<String>, Failure> {
    static RESERVED: Statement = Statement::new(
        "select session.stripe_customer_id
           from payments.checkout_sessions as session
           left join payments.customers as customer
             on customer.environment = session.environment
            and customer.stripe_customer_id = session.stripe_customer_id
          where session.environment = $1
            and session.subject_type = $2
            and session.subject_id = $3
            and session.stripe_customer_id is not null
            and customer.deleted is not true
          order by session.created_at desc
          limit 1",
    );
    Ok(all_of(&RESERVED, environment, subject)?.into_iter().next())
}

fn all_of(
    statement: &'static Statement,
    environment: Environment,
    subject: &Subject,
) -> Result<Vec<String>, Failure> {
    let (kind, id) = (subject.kind.as_str(), subject.id.as_str());
    statement.rows(
        &[environment.as_str().into(), kind.into(), id.into()],
        |row| row.required(1),
    )
}

/// The customer to bill at a checkout of the subject; made at Stripe when there is none.
///
/// Two first checkouts at once make one customer: the second waits for the first, and if that is
/// rolled back, Stripe answers it with the same customer, by the idempotency key.
pub fn for_checkout(
    client: &Client,
    environment: Environment,
    subject: &Subject,
    email: Option<&str>,
) -> Result<String, Failure> {
    let known = || match mapped(environment, subject)? {
        Some(customer) => Ok(Some(customer)),
        None => reserved(environment, subject),
    };
    if let Some(customer) = known()? {
        return Ok(customer);
    }
    wait_for_others(environment, subject);
    match known()? {
        Some(customer) => Ok(customer),
        None => create(client, environment, subject, email),
    }
}

/// Makes other checkouts of the subject that would make a customer wait for this transaction.
fn wait_for_others(environment: Environment, subject: &Subject) {
    lock::exclusive(&[
        "customer of",
        environment.as_str(),
        &subject.kind,
        &subject.id,
    ]);
}

/// Stripe may remember, under an idempotency key, a failure or a customer who was deleted since; then
/// the next key makes another. The last key is nobody's, so that it remembers nothing.
const KEYS_PER_CALL: u32 = 3;

fn create(
    client: &Client,
    environment: Environment,
    subject: &Subject,
    email: Option<&str>,
) -> Result<String, Failure> {
    let parameters = json!({
        "email": email,
        "metadata": {
            "payments_subject_type": subject.kind,
            "payments_subject_id": subject.id,
        },
    });
    for attempt in 1..=KEYS_PER_CALL {
        let is_last = attempt == KEYS_PER_CALL;
        let key = match is_last {
            true => uuid::Uuid::new_v4().to_string(),
            false => derived_key(environment, subject, email, attempt)?,
        };
        let key = format!("payments-customer-{key}");
        let customer = match client.post("/v1/customers", &without_nulls(&parameters), &key) {
            Ok(answer) => door::take_answer(client, environment, "customer", answer)?,
            Err(error) if error.is_replayed() && !is_last => continue,
            Err(error) => return Err(failure(error)),
        };
        if !says_deleted(&customer) {
            return door::id_of(&customer);
        }
    }
    Err(Failure::new(
        SqlState::BAD_GATEWAY,
        "no_customer_made",
        "every customer that Stripe made for this subject was deleted at once",
    ))
}

/// The e-mail is part of the key, because Stripe refuses a key with other parameters.
fn derived_key(
    environment: Environment,
    subject: &Subject,
    email: Option<&str>,
    attempt: u32,
) -> Result<String, Failure> {
    let attempt = attempt.to_string();
    let parts = [
        environment.as_str(),
        &subject.kind,
        &subject.id,
        email.unwrap_or_default(),
        &attempt,
    ];
    let key = sealed::derive("customer", &parts)?;
    Ok(hex::encode(&key[..16]))
}

/// Does Stripe not know the customer that a request named?
pub fn is_unknown(error: &stripe::Error) -> bool {
    let param = error.refusal().and_then(|refusal| refusal.param.as_deref());
    error.resource_missing() && param == Some("customer")
}

/// Asks Stripe whether a subject's customer was deleted, and keeps the answer.
///
/// Whoever makes a customer comes by the deleted one while others wait: in the other order, two
/// would wait for each other.
pub fn is_deleted(
    client: &Client,
    environment: Environment,
    subject: &Subject,
    customer: &str,
) -> Result<bool, Failure> {
    wait_for_others(environment, subject);
    let customer = door::fetch(client, environment, "customer", customer)?;
    Ok(says_deleted(&customer))
}

fn says_deleted(customer: &Fields) -> bool {
    customer.get("deleted").and_then(Value::as_bool) == Some(true)
}

/// A null would clear a field rather than leave it out.
fn without_nulls(parameters: &Value) -> Value {
    let kept = parameters.as_object().into_iter().flatten();
    kept.filter(|(_, value)| !value.is_null())
        .map(|(name, value)| (name.clone(), value.clone()))
        .collect()
}
