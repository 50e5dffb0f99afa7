//! Stripe's Events API: what webhooks would have told, or were not there to hear.
//!
//! Events are recorded as pending, a page a transaction, and then settled one by one, each in a
//! transaction of its own like a webhook's. An event that also comes by webhook is done once: both
//! find the other's row.
//!
//! The list of events is eventually consistent: one can show up behind events that were seen already
//! (<https://docs.stripe.com/api/events/list>). So what was read counts up to a minute ago, and the
//! next poll looks five minutes further back than that.

use super::apply::Teller;
use super::due::{self, Order};
use super::look::look;
use super::run::{DUE, Progress, Run};
use super::{ASKED, Stop, attempt, passing, show};
use crate::connection::{self, as_owner};
use crate::door;
use crate::events::{Incoming, Receipt};
use crate::postgres::error::{Failure, surface};
use crate::postgres::spi::{Composite, Statement};
use crate::postgres::{lock, subtransaction};
use crate::stripe_errors::failure;
use ledger::{Key, Observation};
use pgrx::pg_extern;
use serde::Deserialize;
use serde_json::Value;
use serde_json::value::RawValue;
use std::collections::HashMap;
use std::time::Duration;
use stripe::event::sanitize;
use stripe::resources::{self, EVENTS};
use stripe::{Client, Environment, Event, Walk};

/// How young events are that may still miss companions.
const LAG: i64 = 60;

/// How far back a poll looks into what was read before, in seconds.
const OVERLAP: i64 = 300;

/// For how long Stripe keeps events, in seconds.
const KEPT: i64 = 30 * 86_400;

/// The oldest version whose objects we read. <https://docs.stripe.com/changelog>
const OLDEST_VERSION: &str = "2020-08-27";

/// How long an event waits for whatever is at work on the same thing, before it is left for later.
const LONGEST_WAIT: Duration = Duration::from_secs(4);

/// The same where earlier events of the transaction hold locks already: shorter than Postgres takes
/// to notice a deadlock, so that a webhook never falls victim to it.
const SHORT_WAIT: Duration = Duration::from_millis(200);

/// How many events one `poll_step` settles.
const MOST: usize = 100;

/// `payments.poll_page(environment, begin)`.
#[pg_extern(sql = false)]
fn poll_page(environment: Option<&str>, begin: Option<bool>) -> Option<Composite> {
    surface(|| {
        let environment = connection::parse_environment(environment)?;
        read_page(environment, begin.unwrap_or(true))?
            .map(|run| as_owner(|| run.row()))
            .transpose()
            .map(Option::flatten)
    })
}

/// `payments.poll_event(environment, after)`.
#[pg_extern(sql = false)]
fn poll_event(environment: Option<&str>, after: Option<&str>) -> Option<Composite> {
    surface(|| {
        door::require_read_committed()?;
        door::fire_callers_deferred_triggers()?;
        let environment = connection::parse_environment(environment)?;
        let settled = lock::waiting_at_most(LONGEST_WAIT, || settle_next(environment, after))?;
        settled
            .map(|settled| settled.receipt.composite())
            .transpose()
    })
}

/// `payments.poll_due(environment)`.
#[pg_extern(sql = false)]
fn poll_due(environment: Option<&str>) -> i64 {
    surface(|| {
        door::require_read_committed()?;
        door::fire_callers_deferred_triggers()?;
        let environment = connection::parse_environment(environment)?;
        settle_due(environment)?;
        left_due(environment)
    })
}

/// `payments.poll_step(environment)`.
#[pg_extern(sql = false)]
fn poll_step(environment: Option<&str>) -> Option<Composite> {
    surface(|| {
        let environment = connection::parse_environment(environment)?;
        let Some(run) = read_page(environment, true)? else {
            return Ok(None);
        };
        // Never both: nothing is asked of Stripe while webhooks may wait for us.
        if !settle_some(environment)? {
            settle_due(environment)?;
        }
        as_owner(|| run.row())
    })
}

/// Settles pending events, as many as a step may; false if there are none.
fn settle_some(environment: Environment) -> Result<bool, Failure> {
    let mut after = None;
    for _ in 0..MOST {
        let settled =
            lock::waiting_at_most(SHORT_WAIT, || settle_next(environment, after.as_deref()))?;
        match settled {
            Some(settled) if settled.asked_stripe => return Ok(true),
            Some(settled) => after = Some(settled.event_id),
            None => break,
        }
    }
    Ok(after.is_some())
}

/// Reads a page of events and records those that are new; None when another session does.
fn read_page(environment: Environment, begin: bool) -> Result<Option<Run>, Failure> {
    door::require_read_committed()?;
    door::fire_callers_deferred_triggers()?;
    if !lock::try_exclusive(&["poll", environment.as_str()]) {
        return Ok(None);
    }
    let objects = [EVENTS.name];
    let found = as_owner(|| {
        let unfinished = Run::unfinished(environment, &objects)?;
        if unfinished.is_some() || !begin {
            return Ok(unfinished);
        }
        Run::begin_events(environment, since(environment)?)?;
        Run::unfinished(environment, &objects)
    })?;
    let Some(mut run) = found else {
        return Ok(None);
    };
    if !run.is_resting {
        attempt(environment, &mut run, |client, run| {
            let Progress::Listing(walk) = run.progress.clone() else {
                run.progress = Progress::Complete;
                return Ok(());
            };
            file(client, environment, run, walk)
        })?;
    }
    Ok(Some(run))
}

/// From when on events are to be read: where the last poll ended, or else when the environment was
/// connected or first synced. What was before comes by a sync, of which triggers hear nothing.
fn since(environment: Environment) -> Result<Option<i64>, Failure> {
    static SINCE: Statement = Statement::new(
        "select extract(epoch from coalesce(
                    (select run.read_until
                       from payments.sync_runs as run
                      where run.environment = $1
                        and run.object = $2),
                    least(
                        connection.key_set_at,
                        (select min(run.history_until)
                           from payments.sync_runs as run
                          where run.environment = $1)
                    )
                ))::bigint
           from payments.stripe_connections as connection
          where connection.environment = $1",
    );
    let arguments = [environment.as_str().into(), EVENTS.name.into()];
    let since = SINCE.first(&arguments, |row| row.get::<i64>(1))?.flatten();
    Ok(since.map(|since| since - OVERLAP))
}

/// Records a page of events.
fn file(
    client: &Client,
    environment: Environment,
    run: &mut Run,
    mut walk: Walk,
) -> Result<(), Stop> {
    let shown = show(client, &EVENTS, &mut walk)?;
    if run.began_at.is_none() {
        warn_of_gap(environment, run.read_until, shown.began_at)?;
    }
    let began_at = as_owner(|| run.began(shown.began_at))?;
    let payloads = payloads(&shown.text)?;
    for event in shown.objects {
        let id = event.get("id").and_then(Value::as_str);
        if let Some(payload) = payloads.get(id.ok_or_else(door::malformed)?) {
            run.listed += i64::from(as_owner(|| record(environment, payload))?);
        }
    }
    run.progress = match walk.is_over() {
        true => {
            run.read_until = Some(began_at - LAG);
            Progress::Complete
        }
        false => Progress::Listing(walk),
    };
    Ok(())
}

/// The events of an answer by their ids, as they stand there.
fn payloads(text: &str) -> Result<HashMap<String, &str>, Failure> {
    #[derive(Deserialize)]
    struct List<'a> {
        #[serde(borrow)]
        data: Vec<&'a RawValue>,
    }
    #[derive(Deserialize)]
    struct Named {
        id: String,
    }
    let list: List = serde_json::from_str(text).map_err(|_| door::malformed())?;
    let named = list.data.into_iter().map(|event| {
        let Named { id } = serde_json::from_str(event.get()).map_err(|_| door::malformed())?;
        Ok((id, event.get()))
    });
    named.collect()
}

/// Records an event as pending; false if it is known.
fn record(environment: Environment, payload: &str) -> Result<bool, Failure> {
    match Event::parse(payload) {
        Ok(event) => incoming(environment, &event, payload).file(),
        Err(error) => {
            pgrx::warning!("Stripe lists an event that is none: {error}");
            Ok(false)
        }
    }
}

fn incoming<'a>(environment: Environment, event: &'a Event<'a>, payload: &'a str) -> Incoming<'a> {
    Incoming {
        environment,
        source: "poll",
        event,
        payload,
    }
}

/// Stripe forgets events: what happened while nobody listened for so long comes only by a sync.
fn warn_of_gap(environment: Environment, read_until: Option<i64>, now: i64) -> Result<(), Failure> {
    static SYNCED: Statement = Statement::new(
        "select
           from payments.sync_runs
          where environment = $1
            and object = $2
            and completed_at > to_timestamp($3)",
    );
    let Some(gap) = read_until.filter(|read_until| *read_until < now - KEPT) else {
        return Ok(());
    };
    let arguments = [environment.as_str().into(), DUE.into(), (gap as f64).into()];
    if as_owner(|| SYNCED.execute(&arguments))? == 0 {
        pgrx::warning!(
            "Stripe keeps events for 30 days, and the last were read before: run CALL payments.sync('{environment}')"
        );
    }
    Ok(())
}

/// An event that was looked at.
struct Settled {
    event_id: String,
    /// Whether Stripe was asked for its object.
    asked_stripe: bool,
    receipt: Receipt,
}

/// Settles the oldest pending event after another one; None when there is none that nobody else
/// settles.
fn settle_next(environment: Environment, after: Option<&str>) -> Result<Option<Settled>, Failure> {
    static NEXT: Statement = Statement::new(
        "select stripe_event_id, payload::text
           from payments.webhook_events as event
          where environment = $1
            and processing_status = 'pending'
            and ($2 is null or (stripe_created_at, stripe_event_id) > (
                    select after.stripe_created_at, after.stripe_event_id
                      from payments.webhook_events as after
                     where after.environment = $1
                       and after.stripe_event_id = $2
                ))
          order by stripe_created_at, stripe_event_id
          limit 1
            for update skip locked",
    );
    let arguments = [environment.as_str().into(), after.into()];
    let next = as_owner(|| {
        NEXT.first(&arguments, |row| {
            Ok((row.required::<String>(1)?, row.required::<String>(2)?))
        })
    })?;
    let Some((event_id, payload)) = next else {
        return Ok(None);
    };
    let clean = sanitize(&payload);
    let event = Event::parse(&clean)
        .map_err(|error| Failure::argument("malformed_event", error.to_string()))?;
    let incoming = incoming(environment, &event, &payload);
    let now = notice_of(&event)
        .map(|key| ask(environment, &key))
        .transpose()?;
    let asked_stripe = now.is_some();
    let settled = as_owner(|| {
        subtransaction::unless_busy(|| match &now {
            Some(observation) => incoming.settle(observation.clone()),
            None => incoming.replay(),
        })
    })?;
    Ok(Some(Settled {
        event_id,
        asked_stripe,
        receipt: settled.unwrap_or_else(|| incoming.left_pending()),
    }))
}

/// The object to ask for, where the event is in a version too old to read: then all it says is that
/// something happened.
fn notice_of(event: &Event) -> Option<Key> {
    let is_old = event.api_version.as_deref()? < OLDEST_VERSION && event.account.is_none();
    let object_type = event.object_type.as_deref()?;
    (is_old && resources::TYPES.contains(&object_type)).then_some(Key {
        object_type: object_type.to_owned(),
        id: event.object_id.clone()?,
    })
}

fn ask(environment: Environment, key: &Key) -> Result<Option<Observation>, Failure> {
    connection::with_client(environment, |client| {
        look(client, environment, key).map_err(|stop| match stop {
            Stop::Stripe(error) => failure(error),
            Stop::Failed(failure) => failure,
        })
    })
}

/// Asks about some of what is due. When Stripe fails, that is for the next time.
fn settle_due(environment: Environment) -> Result<(), Failure> {
    if left_due(environment)? == 0 {
        return Ok(());
    }
    let asked = connection::with_client(environment, |client| {
        Ok(due::ask(client, environment, Order::Any, ASKED))
    })?;
    let answers = match asked {
        Ok(answers) => answers,
        Err(Stop::Stripe(error)) if passing(&error).is_some() => {
            pgrx::warning!("{}", failure(error).message);
            return Ok(());
        }
        Err(Stop::Stripe(error)) => return Err(failure(error)),
        Err(Stop::Failed(failure)) => return Err(failure),
    };
    let teller = Teller {
        environment,
        source: "poll",
        is_silent: answers.are_history,
    };
    lock::waiting_at_most(LONGEST_WAIT, || teller.tell(&answers.observations))?;
    Ok(())
}

fn left_due(environment: Environment) -> Result<i64, Failure> {
    static LEFT: Statement = Statement::new(
        "select count(*)
           from payments.stripe_objects
          where environment = $1
            and due is not null
            and not deleted",
    );
    let left = as_owner(|| LEFT.first(&[environment.as_str().into()], |row| row.required(1)))?;
    Ok(left.unwrap_or_default())
}
