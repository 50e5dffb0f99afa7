//! The one door: whatever Stripe tells us enters the ledger here, as the owner of the tables.

use crate::connection::as_owner;
use crate::postgres::error::{Failure, SqlState};
use crate::postgres::spi::{self, Statement};
use crate::postgres::{constraints, identity, settings, subtransaction, table};
use crate::store::Tables;
use crate::stripe_errors::{failure, failure_of};
use ledger::rows::TABLES;
use ledger::{
    Changes, Fields, Key, Lock, Mark, Observation, Outcome, Scope, Source, Store, observe,
};
use pgrx::Uuid;
use serde_json::{Value, json};
use stripe::{Answer, Client, Environment, resources};

/// Refuses transactions in which the ledger could go wrong without a sign: at REPEATABLE READ two
/// webhooks of one payment, each blind to the other, both commit, and the later one's row is stale.
pub fn require_read_committed() -> Result<(), Failure> {
    let refused = |sqlstate, message: &str, hint: &str| {
        Err(Failure::new(sqlstate, "wrong_transaction", message).hint(hint))
    };
    if !identity::isolation_is_read_committed() {
        return refused(
            SqlState::WRONG_TRANSACTION_STATE,
            "payments works at isolation level READ COMMITTED only",
            "Begin the transaction with: begin isolation level read committed",
        );
    }
    if identity::transaction_is_read_only() {
        return refused(
            SqlState::READ_ONLY_TRANSACTION,
            "payments cannot write in a read-only transaction",
            "Through a gateway, call the function with POST; on a standby, connect to the primary.",
        );
    }
    Ok(())
}

/// Takes the answer to a POST that made something into the ledger and returns the object.
///
/// An answer that Stripe repeats from an earlier request is old news: the object is fetched.
pub fn take_answer(
    client: &Client,
    environment: Environment,
    object_type: &str,
    answer: Answer,
) -> Result<Fields, Failure> {
    let body = asked_for(&answer, object_type, None)?;
    if answer.replayed {
        return fetch(client, environment, object_type, &id_of(&body)?);
    }
    take(
        environment,
        body,
        answer.as_of,
        Source::Answer { after: None },
    )
}

/// How much is mirrored of an object that Stripe is about to be asked to change.
pub fn mark(
    environment: Environment,
    object_type: &str,
    id: &str,
) -> Result<Option<Mark>, Failure> {
    let key = Key {
        object_type: object_type.to_owned(),
        id: id.to_owned(),
    };
    as_owner(|| Tables::of(environment).mark(&key))
}

/// Takes the answer to a request that changed an object, like [`take_answer`]. It outranks what was
/// mirrored `after` which the request was sent: an event of the same second that we had already
/// seen would else hide from the caller what the caller did.
pub fn take_change(
    client: &Client,
    environment: Environment,
    (object_type, id): (&str, &str),
    answer: Answer,
    after: Option<Mark>,
) -> Result<Fields, Failure> {
    let body = asked_for(&answer, object_type, Some(id))?;
    if answer.replayed {
        return fetch(client, environment, object_type, id);
    }
    take(environment, body, answer.as_of, Source::Answer { after })
}

/// Asks Stripe for an object, takes it into the ledger and returns it.
pub fn fetch(
    client: &Client,
    environment: Environment,
    object_type: &str,
    id: &str,
) -> Result<Fields, Failure> {
    let path = resources::path(object_type, id)
        .ok_or_else(|| Failure::internal("nothing says where these objects are fetched from"))?;
    let after = mark(environment, object_type, id)?;
    let answer = client
        .get(&path, &json!({}))
        .map_err(|error| failure_of(object_type, error))?;
    take(
        environment,
        asked_for(&answer, object_type, Some(id))?,
        answer.as_of,
        Source::Fetch { after },
    )
}

/// Takes one object that we were told into the ledger.
pub fn take(
    environment: Environment,
    body: impl Into<Fields>,
    as_of: i64,
    source: Source,
) -> Result<Fields, Failure> {
    let body = body.into();
    let observation = Observation::new(body.clone(), as_of, source).ok_or_else(malformed)?;
    enter(environment, "api", &[observation])?;
    Ok(body)
}

/// Makes webhooks about a session of ours, which may overtake its row, wait for this transaction.
pub fn reserve_session(environment: Environment, id: Uuid) -> Result<(), Failure> {
    let session = Scope::Session(uuid::Uuid::from_bytes(*id.as_bytes()));
    // The environment comes first in the order of locks: a rebuild that held it already, and came
    // to wait for the row, would otherwise be waited for by us.
    Tables::of(environment).lock(&[
        Lock {
            scope: Scope::Environment,
            exclusive: false,
        },
        Lock {
            scope: session,
            exclusive: true,
        },
    ])
}

/// Takes observations into the ledger in one piece, and fires the triggers they set off.
pub fn enter(
    environment: Environment,
    source: &str,
    observations: &[Observation],
) -> Result<Changes, Failure> {
    enter_into(Tables::of(environment), source, observations)
}

/// The same, but no trigger fires on what is written.
pub fn enter_silently(
    environment: Environment,
    source: &str,
    observations: &[Observation],
) -> Result<Changes, Failure> {
    enter_into(Tables::of(environment).silently(), source, observations)
}

fn enter_into(
    mut tables: Tables,
    source: &str,
    observations: &[Observation],
) -> Result<Changes, Failure> {
    as_owner(|| {
        settings::with_source(source, || {
            persist(|locks, contended| {
                subtransaction::undoable(|| {
                    let changes = observe_once(&mut tables, observations, locks, contended)?;
                    fire_deferred_triggers_of_ours()?;
                    Ok(changes)
                })
            })
        })
    })
}

/// Runs `work`, which undoes itself when a lock that it found out to need is held by somebody else,
/// until it has them all: the next time it takes them first, in order.
pub fn persist<T>(
    mut work: impl FnMut(&[Lock], &mut Vec<Lock>) -> Result<T, Failure>,
) -> Result<T, Failure> {
    let mut locks = Vec::new();
    loop {
        let mut contended = Vec::new();
        let outcome = work(&locks, &mut contended);
        if contended.is_empty() {
            return outcome;
        }
        locks.append(&mut contended);
    }
}

/// Observes with these locks held, or says in `contended` which others it takes, and fails.
pub fn observe_once(
    tables: &mut Tables,
    observations: &[Observation],
    locks: &[Lock],
    contended: &mut Vec<Lock>,
) -> Result<Changes, Failure> {
    match observe(tables, observations.to_vec(), locks)? {
        Outcome::Settled(changes) => Ok(changes),
        Outcome::Contended(more) => {
            contended.extend(more);
            Err(Failure::internal("locks are held by another transaction"))
        }
    }
}

/// Has what was left for the end of the transaction happen now, by the caller, before the owner
/// takes over: until Postgres 17 a deferred trigger runs as whoever has it fire.
///
/// # Errors
/// What those triggers raise.
pub fn fire_callers_deferred_triggers() -> Result<(), Failure> {
    if !identity::transaction_has_written() {
        return Ok(());
    }
    constraints::set_all_immediate();
    defer_again()
}

/// Defers what is to be deferred, as in a transaction that only begins, after what was deferred so
/// far has fired: so each of several events has its own end.
pub fn defer_again() -> Result<(), Failure> {
    static DEFERRED: Statement = Statement::new(
        "select string_agg(distinct format('%I.%I', nspname, conname), ', ')
           from pg_catalog.pg_constraint
           join pg_catalog.pg_namespace
             on pg_namespace.oid = connamespace
          where condeferred
            and not pg_is_other_temp_schema(connamespace)",
    );
    // The extension's owner may look into every schema; nothing fires by this.
    identity::as_user(identity::extension_owner()?, || {
        if let Some(Some(names)) = DEFERRED.first(&[], |row| row.get::<String>(1))? {
            spi::execute(&format!("set constraints {names} deferred"), &[])?;
        }
        Ok(())
    })
}

/// Fires now, as the owner, the triggers on our tables that wait for the end of the transaction.
///
/// There they would run as whoever commits, and after a failure there would be nobody left to
/// record it. Only ours are named, because a caller may rely on constraints of its own waiting.
fn fire_deferred_triggers_of_ours() -> Result<(), Failure> {
    static DEFERRED: Statement = Statement::new(
        "select string_agg(distinct format('payments.%I', conname), ', ')
           from pg_catalog.pg_constraint
          where connamespace = 'payments'::regnamespace
            and condeferrable",
    );
    // Mostly none waits, and the queue knows: the catalog would be searched from end to end.
    let tables = TABLES.iter().map(|table| table.name);
    let waits = |name| table::oid(c"payments", name).is_some_and(constraints::wait_on);
    if !tables.chain(["stripe_objects"]).any(waits) {
        return Ok(());
    }
    if let Some(Some(names)) = DEFERRED.first(&[], |row| row.get::<String>(1))? {
        spi::execute(&format!("set constraints {names} immediate"), &[])?;
    }
    Ok(())
}

/// Tells the gateway which HTTP status to answer with, when rows are to be kept despite it.
pub fn respond_with_status(status: u16) -> Result<(), Failure> {
    static RESPOND: Statement =
        Statement::new("select pg_catalog.set_config('response.status', $1, true)");
    RESPOND.execute(&[status.to_string().into()])?;
    Ok(())
}

/// Tells the gateway the HTTP status of a failure that is recorded rather than raised.
pub fn respond_with(failure: &Failure) -> Result<(), Failure> {
    match failure
        .sqlstate
        .as_str()
        .strip_prefix("PT")
        .and_then(|status| status.parse().ok())
    {
        Some(status) => respond_with_status(status),
        None => Ok(()),
    }
}

/// The id of an object.
pub fn id_of(object: &Fields) -> Result<String, Failure> {
    Ok(object
        .get("id")
        .and_then(Value::as_str)
        .ok_or_else(malformed)?
        .to_owned())
}

/// An answer that is an object of this type, and of this id where one was named: whatever stands in
/// Stripe's place may answer anything.
pub fn asked_for(answer: &Answer, object_type: &str, id: Option<&str>) -> Result<Fields, Failure> {
    let body = Fields::parse(&answer.text).map_err(|error| failure(answer.malformed(&error)))?;
    let says = |name: &str, text: &str| body.get(name).and_then(Value::as_str) == Some(text);
    let is_it = says("object", object_type) && id.is_none_or(|id| says("id", id));
    is_it.then_some(body).ok_or_else(malformed)
}

/// An answer that is not what was asked for.
pub fn malformed() -> Failure {
    Failure::new(
        SqlState::BAD_GATEWAY,
        "malformed_answer",
        "Stripe's answer is not the object that was asked for",
    )
}
