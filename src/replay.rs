//! Events that were received before, done once more, and forgotten at last.

use crate::checkout::required;
use crate::connection::{self, as_owner};
use crate::door;
use crate::events::Incoming;
use crate::postgres::error::{Failure, SqlState, surface};
use crate::postgres::spi::{Composite, Statement};
use pgrx::datum::Interval;
use pgrx::iter::SetOfIterator;
use pgrx::pg_extern;
use stripe::Event;
use stripe::event::sanitize;

#[pg_extern(sql = false)]
fn replay_event(environment: Option<&str>, stripe_event_id: Option<&str>) -> Option<Composite> {
    surface(|| {
        door::require_read_committed()?;
        let environment = connection::parse_environment(environment)?;
        let id = required("stripe_event_id", stripe_event_id)?;
        door::fire_callers_deferred_triggers()?;
        as_owner(|| {
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
            incoming.replay()?.composite().map(Some)
        })
    })
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
    static FAILED: Statement = Statement::new(
        "select stripe_event_id
           from payments.webhook_events
          where environment = $1
            and processing_status = 'failed'
          order by stripe_created_at, received_at, stripe_event_id",
    );
    let failed = surface(|| {
        let environment = connection::parse_environment(environment)?;
        as_owner(|| FAILED.rows(&[environment.as_str().into()], |row| row.required(1)))
    });
    SetOfIterator::new(failed)
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
