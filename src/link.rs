//! Customers who were at Stripe before this extension was.

use crate::checkout::{refused_argument, required};
use crate::connection::{as_owner, parse_environment, with_client};
use crate::door;
use crate::postgres::error::{Failure, SqlState, surface};
use crate::postgres::spi::{Composite, Statement};
use crate::postgres::{settings, subtransaction};
use crate::store::Tables;
use crate::stripe_errors::failure;
use ledger::{Fields, Key, Lock, Outcome, Scope, Source, Store, reproject};
use pgrx::{JsonB, pg_extern};
use serde_json::Value;
use stripe::{Client, Environment, Subject, ids};

/// `payments.link_customer(environment, subject, stripe_customer_id)`.
#[pg_extern(sql = false)]
fn link_customer(
    environment: Option<&str>,
    subject: Option<JsonB>,
    stripe_customer_id: Option<&str>,
) -> Option<Composite> {
    surface(|| {
        door::require_read_committed()?;
        let environment = parse_environment(environment)?;
        let subject = required("subject", subject)?;
        let subject = Subject::parse("subject", &subject.0).map_err(refused_argument)?;
        let customer = required("stripe_customer_id", stripe_customer_id)?;
        let customer = ids::Kind::Customer.check(customer).map_err(|error| {
            Failure::argument("invalid_argument", error.to_string())
                .with("argument", "stripe_customer_id")
        })?;
        with_client(environment, |client| {
            link(client, environment, &subject, customer)
        })?;
        row(environment, &subject, customer)
    })
}

fn link(
    client: &Client,
    environment: Environment,
    subject: &Subject,
    customer: &str,
) -> Result<(), Failure> {
    let key = Key {
        object_type: "customer".into(),
        id: customer.into(),
    };
    let mark = as_owner(|| Tables::of(environment).mark(&key))?;
    let (body, as_of) = existing(client, customer)?;
    // The link before the customer: whatever locks the customer's rows turn out to need, they are
    // taken in order, with the customer's own released while they are waited for.
    as_owner(|| {
        settings::with_source("api", || {
            door::persist(|locks, contended| {
                subtransaction::undoable(|| keep(environment, subject, &key, locks, contended))
            })
        })
    })?;
    door::take(environment, body, as_of, Source::Fetch { after: mark })?;
    Ok(())
}

/// The customer as Stripe has it.
fn existing(client: &Client, customer: &str) -> Result<(Fields, i64), Failure> {
    let missing = |what: &str| {
        Failure::new(
            SqlState::NOT_FOUND,
            "no_such_customer",
            format!("the customer {customer} {what}"),
        )
        .with("stripe_customer_id", customer)
        .hint("The id and the environment must be of the same Stripe account and mode.")
    };
    let answer = match client.get(&format!("/v1/customers/{customer}"), &Value::Null) {
        Ok(answer) => answer,
        Err(error) if error.resource_missing() => return Err(missing("does not exist at Stripe")),
        Err(error) => return Err(failure(error)),
    };
    let body = door::asked_for(&answer, "customer", Some(customer))?;
    match body.get("deleted") {
        Some(Value::Bool(true)) => Err(missing("was deleted at Stripe")),
        _ => Ok((body, answer.as_of)),
    }
}

/// Writes the link down, and brings what depends on it in step.
fn keep(
    environment: Environment,
    subject: &Subject,
    customer: &Key,
    locks: &[Lock],
    contended: &mut Vec<Lock>,
) -> Result<(), Failure> {
    static KEEP: Statement = Statement::new(
        "insert into payments.customer_mappings as mapping
                (environment, subject_type, subject_id, stripe_customer_id,
                 linked_at, created_at, updated_at)
         values ($1, $2, $3, $4, now(), now(), now())
             on conflict (environment, subject_type, subject_id, stripe_customer_id) do update
            set linked_at = now()
          where mapping.linked_at is null",
    );
    let mut tables = Tables::of(environment);
    let mut locks = locks.to_vec();
    locks.push(Lock {
        scope: Scope::Environment,
        exclusive: false,
    });
    locks.push(Lock {
        scope: Scope::Customer(customer.id.clone()),
        exclusive: true,
    });
    locks.sort();
    tables.lock(&locks)?;
    KEEP.execute(&[
        environment.as_str().into(),
        subject.kind.as_str().into(),
        subject.id.as_str().into(),
        customer.id.as_str().into(),
    ])?;
    match reproject(&mut tables, std::slice::from_ref(customer), &locks)? {
        Outcome::Settled(_) => Ok(()),
        Outcome::Contended(more) => {
            contended.extend(more);
            Err(Failure::internal("locks are held by another transaction"))
        }
    }
}

fn row(
    environment: Environment,
    subject: &Subject,
    customer: &str,
) -> Result<Option<Composite>, Failure> {
    static ROW: Statement = Statement::new(
        "select jsonb_populate_record(null::payments.customer_mapping, to_jsonb(mapping))
           from payments.customer_mappings as mapping
          where mapping.environment = $1
            and mapping.subject_type = $2
            and mapping.subject_id = $3
            and mapping.stripe_customer_id = $4",
    );
    let arguments = [
        environment.as_str().into(),
        subject.kind.as_str().into(),
        subject.id.as_str().into(),
        customer.into(),
    ];
    let row = as_owner(|| ROW.first(&arguments, |row| row.composite(1)))?;
    Ok(row.flatten())
}
