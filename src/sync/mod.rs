//! In step with Stripe without webhooks: `sync`, which reads whole lists, and `poll_events`.
//!
//! Both work in steps, each a transaction that asks Stripe, applies the answer and keeps how far it
//! came. So a step can be killed at any point, and the next one goes on from there; a scheduler or a
//! gateway can take them one by one; and memory holds one page, whatever the account's size. The
//! procedures in `sync.sql` do nothing but take steps and commit.
//!
//! Stripe is asked before anything is locked but the list itself. So webhooks wait for a page to be
//! written, never for Stripe.

mod apply;
mod due;
mod look;
mod poll;
mod run;

use crate::connection::{self, as_owner};
use crate::door;
use crate::postgres::error::{Failure, surface};
use crate::postgres::lock;
use crate::postgres::spi::{Composite, Statement};
use crate::stripe_errors::failure;
use apply::{Teller, is_history};
use due::Order;
use ledger::{Key, Observation, Source};
use look::look;
use pgrx::pg_extern;
use run::{DUE, Progress, Run};
use serde_json::{Map, Value};
use std::time::Duration;
use stripe::resources::{self, List};
use stripe::{Client, Environment, Error, Page, Walk};

/// How many objects a step asks for one by one, if Stripe is quick.
const ASKED: usize = 20;

/// Why a step got no further.
enum Stop {
    /// Stripe refused or failed.
    Stripe(Error),
    /// Anything else.
    Failed(Failure),
}

impl From<Error> for Stop {
    fn from(error: Error) -> Stop {
        Stop::Stripe(error)
    }
}

impl From<Failure> for Stop {
    fn from(failure: Failure) -> Stop {
        Stop::Failed(failure)
    }
}

/// The lists that a sync reads.
fn lists() -> impl Iterator<Item = &'static List> {
    resources::LISTS.iter()
}

/// `payments.sync_step(environment, objects)`.
#[pg_extern(sql = false)]
fn sync_step(environment: Option<&str>, objects: Option<Vec<Option<String>>>) -> Option<Composite> {
    surface(|| {
        door::require_read_committed()?;
        let environment = connection::parse_environment(environment)?;
        let objects = chosen(objects)?;
        if !lock::try_exclusive(&["sync", environment.as_str()]) {
            return Ok(None);
        }
        as_owner(|| Run::begin(environment, &objects))?;
        step(environment, &objects)
    })
}

/// `payments.sync_next(environment, objects)`.
#[pg_extern(sql = false)]
fn sync_next(environment: Option<&str>, objects: Option<Vec<Option<String>>>) -> Option<Composite> {
    surface(|| {
        door::require_read_committed()?;
        let environment = connection::parse_environment(environment)?;
        let objects = chosen(objects)?;
        lock::exclusive(&["sync", environment.as_str()]);
        step(environment, &objects)
    })
}

/// The lists that a caller names, or all of them, in the order in which they are read.
fn chosen(objects: Option<Vec<Option<String>>>) -> Result<Vec<&'static str>, Failure> {
    let known = || lists().map(|list| list.name);
    match objects {
        None => Ok(known().collect()),
        Some(objects) => {
            let objects: Vec<String> = objects.into_iter().flatten().collect();
            if let Some(unknown) = objects.iter().find(|name| !known().any(|k| k == *name)) {
                let names: Vec<&str> = known().collect();
                return Err(Failure::argument(
                    "unknown_object",
                    format!("there is no list \"{unknown}\" to sync"),
                )
                .with("argument", "objects")
                .hint(format!("There are {}.", names.join(", "))));
            }
            let chosen = known().filter(|name| objects.iter().any(|object| object == name));
            Ok(chosen.collect())
        }
    }
}

/// One step of what is unfinished, what is due last; None when nothing is.
fn step(environment: Environment, lists: &[&str]) -> Result<Option<Composite>, Failure> {
    let objects = [lists, &[DUE]].concat();
    door::fire_callers_deferred_triggers()?;
    let Some(mut run) = as_owner(|| Run::unfinished(environment, &objects))? else {
        return Ok(None);
    };
    if !run.is_resting {
        attempt(environment, &mut run, |client, run| {
            match run.progress.clone() {
                Progress::Listing(walk) => list(client, environment, run, walk),
                Progress::Asking(after) if run.object == DUE => {
                    ask_due(client, environment, run, after)
                }
                Progress::Asking(after) => ask_missing(client, environment, run, after),
                Progress::Complete => Ok(()),
            }
        })?;
    }
    as_owner(|| run.row())
}

/// Does some of a list, and keeps how far it came, or that Stripe is to be left alone for a while.
fn attempt(
    environment: Environment,
    run: &mut Run,
    work: impl FnOnce(&Client, &mut Run) -> Result<(), Stop>,
) -> Result<(), Failure> {
    let outcome = connection::with_client(environment, |client| Ok(work(client, run)))?;
    match outcome {
        Ok(()) => run.went_well(),
        Err(Stop::Failed(failure)) => return Err(failure),
        Err(Stop::Stripe(error)) => {
            let Some(rest) = passing(&error) else {
                return Err(failure(error));
            };
            let failure = failure(error);
            if !run.rests(rest, failure.message.clone()) {
                return Err(failure);
            }
        }
    }
    as_owner(|| run.save())
}

/// For a failure that passes by itself: the least time to wait.
fn passing(error: &Error) -> Option<Duration> {
    match error {
        Error::RateLimited { retry_after, .. } => Some(retry_after.unwrap_or_default()),
        Error::Conflict(_)
        | Error::Unavailable(_)
        | Error::Unreachable(_)
        | Error::TimedOut { .. } => Some(Duration::ZERO),
        _ => None,
    }
}

/// Reads a page of a list, and applies it, the oldest object first.
///
/// A page is applied up to where it changes from history to news or back, and the next one goes on
/// from there: the app's triggers hear of the one and not of the other.
fn list(
    client: &Client,
    environment: Environment,
    run: &mut Run,
    mut walk: Walk,
) -> Result<(), Stop> {
    let Some(list) = lists().find(|list| list.name == run.object) else {
        run.progress = Progress::Complete;
        return Ok(());
    };
    let shown = show(client, list, &mut walk)?;
    as_owner(|| run.began(shown.began_at))?;
    let Shown {
        mut objects, as_of, ..
    } = shown;

    let horizon = run.history_until.filter(|_| !run.completed_before);
    let is_silent =
        |object: &Map<String, Value>| horizon.is_some_and(|until| is_history(object, until, as_of));
    let first_is_silent = objects.first().is_some_and(is_silent);
    if let Some(turn) = objects.iter().position(|o| is_silent(o) != first_is_silent) {
        objects.truncate(turn);
        objects
            .last()
            .into_iter()
            .for_each(|last| walk.resume_after(last));
    }
    run.listed += objects.len() as i64;
    let observations: Vec<Observation> = objects
        .into_iter()
        .filter_map(|object| Observation::new(object, as_of, Source::Listing))
        .collect();
    let teller = Teller {
        environment,
        source: "sync",
        is_silent: first_is_silent,
    };
    run.failed += teller.tell(&observations)?;
    run.progress = match walk.is_over() {
        true => Progress::Asking(None),
        false => Progress::Listing(walk),
    };
    Ok(())
}

/// What a list shows.
struct Shown {
    /// The objects of a page, the oldest first.
    objects: Vec<Map<String, Value>>,
    /// The time before it was asked for, on Stripe's clock.
    as_of: i64,
    /// The same of the first request.
    began_at: i64,
    /// The whole answer.
    text: String,
}

/// Asks for pages until one shows anything, which none does before the oldest is found; or until
/// half of the step's time is over.
fn show(client: &Client, list: &List, walk: &mut Walk) -> Result<Shown, Stop> {
    let half = client.remaining() / 2;
    let mut began_at = None;
    loop {
        let mut parameters = walk.parameters();
        if list.hides_canceled {
            parameters.insert("status".to_owned(), "all".into());
        }
        match client.get(&list.path(), &Value::Object(parameters)) {
            Ok(answer) => {
                let page = Page::of(answer.body()?).ok_or_else(door::malformed)?;
                let began_at = *began_at.get_or_insert(answer.as_of);
                let objects = walk.take(page);
                if !objects.is_empty() || walk.is_over() || client.remaining() < half {
                    return Ok(Shown {
                        objects,
                        as_of: answer.as_of,
                        began_at,
                        text: answer.text,
                    });
                }
            }
            // The object from which to go on is gone.
            Err(error) if error.resource_missing() && walk.lose_place() => {}
            Err(Error::TooLarge { .. }) if walk.ask_for_less() => {}
            Err(error) => return Err(error.into()),
        }
    }
}

/// Asks for what the mirror has and the list did not show. Absence from a list proves nothing; only
/// Stripe's answer about the object itself does.
fn ask_missing(
    client: &Client,
    environment: Environment,
    run: &mut Run,
    after: Option<(String, String)>,
) -> Result<(), Stop> {
    let list = lists().find(|list| list.name == run.object);
    let (Some(list), Some(began_at)) = (list, run.began_at) else {
        run.progress = Progress::Complete;
        return Ok(());
    };
    let after = after.map(|(_, id)| id).unwrap_or_default();
    let missing = as_owner(|| missing(environment, list, began_at, &after))?;
    let half = client.remaining() / 2;
    let mut observations = Vec::new();
    let mut reached = None;
    let mut is_all = missing.len() < ASKED;
    for id in missing {
        if reached.is_some() && client.remaining() < half {
            is_all = false;
            break;
        }
        let key = Key {
            object_type: list.object_type.to_owned(),
            id,
        };
        match look(client, environment, &key) {
            Err(Stop::Stripe(_)) if reached.is_some() => {
                is_all = false;
                break;
            }
            found => observations.extend(found?),
        }
        run.asked += 1;
        reached = Some((key.object_type, key.id));
    }
    let teller = Teller {
        environment,
        source: "sync",
        is_silent: false,
    };
    run.failed += teller.tell(&observations)?;
    run.progress = match is_all {
        true => Progress::Complete,
        false => Progress::Asking(reached),
    };
    Ok(())
}

fn missing(
    environment: Environment,
    list: &List,
    began_at: i64,
    after: &str,
) -> Result<Vec<String>, Failure> {
    static MISSING: Statement = Statement::new(
        "select object_id
           from payments.stripe_objects
          where environment = $1
            and object_type = $2
            and not deleted
            and as_of < to_timestamp($3)
            and object_id > $4
          order by object_id
          limit $5",
    );
    let arguments = [
        environment.as_str().into(),
        list.object_type.into(),
        (began_at as f64).into(),
        after.into(),
        (ASKED as i64).into(),
    ];
    MISSING.rows(&arguments, |row| row.required(1))
}

/// Asks about some of what is due.
fn ask_due(
    client: &Client,
    environment: Environment,
    run: &mut Run,
    after: Option<(String, String)>,
) -> Result<(), Stop> {
    let order = Order::After(after.unwrap_or_default());
    let answers = due::ask(client, environment, order, ASKED)?;
    let teller = Teller {
        environment,
        source: "sync",
        is_silent: answers.are_history,
    };
    run.failed += teller.tell(&answers.observations)?;
    run.asked += answers.asked;
    run.progress = match answers.reached {
        Some(reached) => Progress::Asking(Some(reached)),
        None => Progress::Complete,
    };
    Ok(())
}
