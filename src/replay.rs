//! Events that were received before, done once more, and forgotten at last.

use crate::checkout::required;
use crate::connection::{self, as_owner};
use crate::door;
use crate::events::{Incoming, Receipt};
use crate::postgres::error::{Failure, SqlState, surface};
use crate::postgres::memory;
use crate::postgres::spi::{Composite, Statement};
use crate::store::Tables;
use ledger::{Lock, Scope, Store};
use pgrx::datum::Interval;
use pgrx::iter::SetOfIterator;
use pgrx::pg_extern;
use stripe::event::sanitize;
use stripe::{Environment, Event};

#[pg_extern(sql = false)]
fn replay_event(environment: Option<&str>, stripe_event_id: Option<&str>) -> Option<Composite> {
    surface(|| {
        door::require_read_committed()?;
        let environment = connection::parse_environment(environment)?;
        let id = required("stripe_event_id", stripe_event_id)?;
        door::fire_callers_deferred_triggers()?;
        as_owner(|| replay(environment, id, &[])?.composite().map(Some))
    })
}

/// Does everything under one lock: each event by itself takes several, and the server has no room
/// for those of a day on which all failed.
#[pg_extern(sql = false)]
fn replay_failed(environment: Option<&str>) -> SetOfIterator<'static, Composite> {
    let receipts = surface(|| {
        door::require_read_committed()?;
        let environment = connection::parse_environment(environment)?;
        door::fire_callers_deferred_triggers()?;
        as_owner(|| {
            let alone = [Lock::exclusive(Scope::Environment)];
            Tables::of(environment).lock(&alone)?;
            failed(environment)?
                .iter()
                .map(|id| {
                    door::defer_again()?;
                    memory::scratch(|| replay(environment, id, &alone))?.composite()
                })
                .collect::<Result<Vec<_>, Failure>>()
        })
    });
    SetOfIterator::new(receipts)
}

fn replay(environment: Environment, id: &str, locks: &[Lock]) -> Result<Receipt, Failure> {
    let payload = payload(environment.as_str(), id)?;
    let clean = sanitize(&payload);
    let event = Event::parse(&clean)
        .map_err(|error| Failure::argument("malformed_event", error.to_string()))?;
    let incoming = Incoming {
        environment,
        source: "replay",
        event: &event,
        payload: &payload,
    };
    incoming.replay_holding(locks)
}

fn payload(environment: &str, id: &str) -> Result<String, Failure> {
    static PAYLOAD: Statement = Statement::new(
        "select payload::text
           from payments.webhook_events
          where environment = $1
            and stripe_event_id = $2",
    );
    PAYLOAD
        .first(&[environment.into(), id.into()], |row| row.required(1))?
        .ok_or_else(|| {
            Failure::new(
                SqlState::NOT_FOUND,
                "no_event",
                "no such event was received",
            )
            .with("stripe_event_id", id)
            .hint("Events that were pruned are still at Stripe for 30 days.")
        })
}

#[pg_extern(sql = false)]
fn failed_events(environment: Option<&str>) -> SetOfIterator<'static, String> {
    SetOfIterator::new(surface(|| {
        let environment = connection::parse_environment(environment)?;
        as_owner(|| failed(environment))
    }))
}

/// The ids of the events that failed, in the order in which they happened.
fn failed(environment: Environment) -> Result<Vec<String>, Failure> {
    static FAILED: Statement = Statement::new(
        "select stripe_event_id
           from payments.webhook_events
          where environment = $1
            and processing_status = 'failed'
          order by stripe_created_at, received_at, stripe_event_id",
    );
    FAILED.rows(&[environment.as_str().into()], |row| row.required(1))
}

#[pg_extern(sql = false)]
fn prune_webhook_events(older_than: Option<Interval>) -> i64 {
    static PRUNE: Statement = Statement::new(
        "delete from payments.webhook_events
          where received_at < pg_catalog.now() - $1
            and processing_status in ('processed', 'ignored')",
    );
    surface(|| {
        let older_than = required("older_than", older_than)?;
        let pruned = as_owner(|| PRUNE.execute(&[older_than.into()]))?;
        Ok(pruned as i64)
    })
}
