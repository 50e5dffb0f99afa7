//! Events: record, observe, project, in one transaction.
//!
//! The row of `webhook_events` is written outside the subtransaction in which the ledger and the
//! app's triggers work, so that it stays when they fail.

use crate::door;
use crate::postgres::error::Failure;
use crate::postgres::spi::{Composite, Statement};
use crate::postgres::subtransaction::{self, CapturedError};
use crate::postgres::writer::{Writer, Written};
use crate::postgres::{constraints, settings};
use crate::store::{self, Tables};
use ledger::{Fields, Lock, Observation, Source, mirror, projects};
use pgrx::JsonB;
use pgrx::datum::{JsonString, clock_timestamp};
use serde_json::value::RawValue;
use serde_json::{Value, json};
use std::sync::LazyLock;
use stripe::{Environment, Event};

/// How many times a gateway's answer asks Stripe to send a failing event again. After that the
/// event waits here, and Stripe does not disable the endpoint because of one broken trigger.
const ASKED_AGAIN: i32 = 5;

/// The columns of an event's row.
const COLUMNS: [&str; 17] = [
    "environment",
    "stripe_event_id",
    "event_type",
    "livemode",
    "stripe_account_id",
    "api_version",
    "object_type",
    "object_id",
    "source",
    "processing_status",
    "attempt_count",
    "last_error",
    "error",
    "payload",
    "stripe_created_at",
    "received_at",
    "processed_at",
];

/// A verified event. Works as the tables' owner.
pub struct Incoming<'a> {
    /// Whose event it is.
    pub environment: Environment,
    /// Where it comes from, as triggers are told: `webhook`, `poll`, `replay`, `simulate`.
    pub source: &'static str,
    /// What was read of it.
    pub event: &'a Event<'a>,
    /// How it came, byte for byte.
    pub payload: &'a str,
}

impl Incoming<'_> {
    /// Records the event, and brings the tables in step. A failure of the app's own triggers is
    /// recorded and told in the receipt.
    ///
    /// # Errors
    /// What concerns the whole transaction, such as a cancel; then nothing is recorded.
    pub fn process(&self) -> Result<Receipt, Failure> {
        let observation = self.observation()?;
        let status = self.status_if_nothing_fails(observation.as_ref());
        if self.record(status)? {
            let outcome = self.apply(&[], observation)?;
            return self.receipt(outcome, status, 1);
        }
        let earlier = self.earlier()?;
        // While an endpoint is replaced by one of a newer version both send every event, each in
        // its own shapes: what one leaves out the other may have.
        if earlier.is_done() && earlier.api_version == self.event.api_version {
            return Ok(earlier.receipt(self));
        }
        self.carry_out(&[], observation, status, earlier.attempts + 1)
    }

    /// Does what the event says once more, whatever became of it before.
    ///
    /// # Errors
    /// As [`Incoming::process`].
    pub fn replay(&self) -> Result<Receipt, Failure> {
        self.replay_holding(&[])
    }

    /// The same under locks that are held already.
    ///
    /// # Errors
    /// As [`Incoming::process`].
    pub fn replay_holding(&self, locks: &[Lock]) -> Result<Receipt, Failure> {
        self.settle_holding(locks, self.observation()?)
    }

    /// Has the recorded event be this observation: what it says, or what Stripe says of its object
    /// now.
    ///
    /// # Errors
    /// As [`Incoming::process`].
    pub fn settle(&self, observation: Option<Observation>) -> Result<Receipt, Failure> {
        self.settle_holding(&[], observation)
    }

    fn settle_holding(
        &self,
        locks: &[Lock],
        observation: Option<Observation>,
    ) -> Result<Receipt, Failure> {
        let status = self.status_if_nothing_fails(observation.as_ref());
        let attempts = self.earlier()?.attempts;
        self.carry_out(locks, observation, status, attempts + 1)
    }

    /// Records the event, for [`Incoming::replay`] to do what it says; false if it is there already.
    pub fn file(&self) -> Result<bool, Failure> {
        self.record(Status::Pending)
    }

    /// The receipt of a recorded event that is left for later.
    pub fn left_pending(&self) -> Receipt {
        Receipt {
            environment: self.environment,
            event_id: self.event.id.clone(),
            event_type: self.event.kind.clone(),
            status: Status::Pending,
            duplicate: false,
            attempts: 0,
            error: None,
        }
    }

    fn status_if_nothing_fails(&self, observation: Option<&Observation>) -> Status {
        match observation {
            Some(observation) if projects(&observation.key.object_type) => Status::Processed,
            _ => Status::Ignored,
        }
    }

    /// Applies the event, which was recorded before, and has its row say what became of it.
    fn carry_out(
        &self,
        locks: &[Lock],
        observation: Option<Observation>,
        status: Status,
        attempt: i32,
    ) -> Result<Receipt, Failure> {
        let outcome = self.apply(locks, observation)?;
        if outcome.is_ok() {
            self.record_success(attempt, status)?;
        }
        self.receipt(outcome, status, attempt)
    }

    /// What became of the event; its row says so if it failed.
    fn receipt(
        &self,
        outcome: Result<(), CapturedError>,
        status: Status,
        attempt: i32,
    ) -> Result<Receipt, Failure> {
        let error = outcome.err();
        if let Some(error) = &error {
            self.record_failure(attempt, error)?;
        }
        Ok(Receipt {
            environment: self.environment,
            event_id: self.event.id.clone(),
            event_type: self.event.kind.clone(),
            status: if error.is_some() {
                Status::Failed
            } else {
                status
            },
            duplicate: false,
            attempts: attempt,
            error,
        })
    }

    /// What the event says; None where there is nothing to mirror: an upcoming invoice has no id,
    /// a connected account's objects are not ours, and a plan is its price under the same id.
    fn observation(&self) -> Result<Option<Observation>, Failure> {
        if self.event.account.is_some() || self.event.object_type.as_deref() == Some("plan") {
            return Ok(None);
        }
        let previous_attributes = self.event.previous_attributes.map(RawValue::get);
        let previous_attributes = previous_attributes.map(serde_json::from_str).transpose();
        let source = Source::Event {
            id: self.event.id.clone(),
            event_type: self.event.kind.clone(),
            previous_attributes: previous_attributes.map_err(malformed)?,
        };
        let object = Fields::parse(self.event.object.get()).map_err(malformed)?;
        Ok(Observation::new(object, self.event.created, source))
    }

    /// Writes the event's row as it will be if nothing fails, or as pending; false if it is there
    /// already. A twin that is being processed is waited for.
    fn record(&self, status: Status) -> Result<bool, Failure> {
        static WRITER: LazyLock<Writer> = LazyLock::new(|| Writer::new("webhook_events", COLUMNS));
        static RECORD: LazyLock<Statement> = LazyLock::new(|| {
            let columns = COLUMNS.join(", ");
            let places: Vec<_> = (1..=COLUMNS.len())
                .map(|place| format!("${place}"))
                .collect();
            let places = places.join(", ");
            Statement::composed(format!(
                "insert into payments.webhook_events ({columns})
                 values ({places})
                 on conflict do nothing"
            ))
        });
        let event = self.event;
        let now = clock_timestamp();
        let is_done = status != Status::Pending;
        let values = [
            self.environment.as_str().into(),
            event.id.as_str().into(),
            event.kind.as_str().into(),
            event.livemode.into(),
            event.account.as_deref().into(),
            event.api_version.as_deref().into(),
            event.object_type.as_deref().into(),
            event.object_id.as_deref().into(),
            self.source.into(),
            status.as_str().into(),
            i32::from(is_done).into(),
            None::<String>.into(),
            None::<JsonB>.into(),
            JsonString(self.payload.to_owned()).into(),
            store::time(event.created.saturating_mul(1_000_000))?.into(),
            now.into(),
            is_done.then_some(now).into(),
        ];
        match WRITER.insert(&values)? {
            Written::ByStatement => Ok(RECORD.execute(&values)? == 1),
            written => Ok(written == Written::Yes),
        }
    }

    /// The row that an earlier delivery left, locked.
    fn earlier(&self) -> Result<Earlier, Failure> {
        static EARLIER: Statement = Statement::new(
            "select processing_status, attempt_count, api_version
               from payments.webhook_events
              where environment = $1
                and stripe_event_id = $2
                for update",
        );
        let arguments = [
            self.environment.as_str().into(),
            self.event.id.as_str().into(),
        ];
        let found = EARLIER.first(&arguments, |row| {
            Ok(Earlier {
                status: row.required(1)?,
                attempts: row.required(2)?,
                api_version: row.get(3)?,
            })
        })?;
        found.ok_or_else(|| Failure::internal("an event's row is gone"))
    }

    /// Mirrors and projects, with the app's triggers, the deferred ones too. If that fails, all of
    /// it is undone but what the mirror learns.
    fn apply(
        &self,
        locks: &[Lock],
        observation: Option<Observation>,
    ) -> Result<Result<(), CapturedError>, Failure> {
        let Some(observation) = observation else {
            return Ok(Ok(()));
        };
        let observations = [observation];
        let applied = settings::with_source(self.source, || {
            door::persist(|more, contended| {
                let locks = [locks, more].concat();
                subtransaction::attempt(|| {
                    door::observe_once(
                        &mut Tables::of(self.environment),
                        &observations,
                        &locks,
                        contended,
                    )?;
                    constraints::set_all_immediate();
                    Ok(())
                })
            })
        })?;
        if applied.is_err() {
            mirror(&mut Tables::of(self.environment), observations.to_vec())?;
        }
        Ok(applied)
    }

    fn record_success(&self, attempt: i32, status: Status) -> Result<(), Failure> {
        static SUCCEEDED: Statement = Statement::new(
            "update payments.webhook_events
                set processing_status = $4,
                    attempt_count = $3,
                    last_error = null,
                    error = null,
                    processed_at = pg_catalog.clock_timestamp()
              where environment = $1
                and stripe_event_id = $2",
        );
        SUCCEEDED.execute(&[
            self.environment.as_str().into(),
            self.event.id.as_str().into(),
            attempt.into(),
            status.as_str().into(),
        ])?;
        Ok(())
    }

    fn record_failure(&self, attempt: i32, error: &CapturedError) -> Result<(), Failure> {
        static FAILED: Statement = Statement::new(
            "update payments.webhook_events
                set processing_status = 'failed',
                    attempt_count = $3,
                    last_error = $4,
                    error = $5,
                    processed_at = null
              where environment = $1
                and stripe_event_id = $2",
        );
        FAILED.execute(&[
            self.environment.as_str().into(),
            self.event.id.as_str().into(),
            attempt.into(),
            error.message.as_str().into(),
            JsonB(error_json(error)).into(),
        ])?;
        Ok(())
    }
}

/// An object in an event is JSON, but may hold a number beyond any that Rust has.
fn malformed(error: serde_json::Error) -> Failure {
    Failure::argument("malformed_event", error.to_string())
}

/// An error as it is kept: every field that the client would have seen.
fn error_json(error: &CapturedError) -> Value {
    let fields = json!({
        "sqlstate": error.sqlstate.as_str(),
        "message": error.message,
        "detail": error.detail,
        "hint": error.hint,
        "context": error.context,
        "schema": error.schema,
        "table": error.table,
        "column": error.column,
        "constraint": error.constraint,
    });
    let fields = fields.as_object().into_iter().flatten();
    fields
        .filter(|(_, value)| !value.is_null())
        .map(|(name, value)| (name.clone(), value.clone()))
        .collect()
}

/// What became of an event.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Status {
    Pending,
    Processed,
    Ignored,
    Failed,
}

impl Status {
    fn as_str(self) -> &'static str {
        match self {
            Status::Pending => "pending",
            Status::Processed => "processed",
            Status::Ignored => "ignored",
            Status::Failed => "failed",
        }
    }
}

/// What an earlier delivery of the same event left.
struct Earlier {
    status: String,
    attempts: i32,
    api_version: Option<String>,
}

impl Earlier {
    fn is_done(&self) -> bool {
        matches!(self.status.as_str(), "processed" | "ignored")
    }

    fn receipt(&self, incoming: &Incoming) -> Receipt {
        Receipt {
            environment: incoming.environment,
            event_id: incoming.event.id.clone(),
            event_type: incoming.event.kind.clone(),
            status: match self.status.as_str() {
                "processed" => Status::Processed,
                _ => Status::Ignored,
            },
            duplicate: true,
            attempts: self.attempts,
            error: None,
        }
    }
}

/// What the caller is told.
pub struct Receipt {
    environment: Environment,
    event_id: String,
    event_type: String,
    status: Status,
    duplicate: bool,
    attempts: i32,
    error: Option<CapturedError>,
}

impl Receipt {
    /// Is Stripe to be asked to send the event again?
    ///
    /// Never for `invoice.created`: until its endpoints have said 2xx, Stripe waits up to three
    /// days before it finalises the invoice
    /// (<https://docs.stripe.com/billing/subscriptions/webhooks>).
    pub fn wants_another_delivery(&self) -> bool {
        self.status == Status::Failed
            && self.attempts <= ASKED_AGAIN
            && self.event_type != "invoice.created"
    }

    /// What went wrong, if something did.
    pub fn error(&self) -> Option<&str> {
        self.error.as_ref().map(|error| error.message.as_str())
    }

    /// As SQL is to see it.
    pub fn composite(self) -> Result<Composite, Failure> {
        let error = self.error.as_ref();
        Composite::new(
            c"webhook_receipt",
            &[
                self.environment.as_str().into(),
                self.event_id.as_str().into(),
                self.event_type.as_str().into(),
                self.status.as_str().into(),
                self.duplicate.into(),
                self.attempts.into(),
                error.map(|error| error.message.as_str()).into(),
                error.map(|error| JsonB(error_json(error))).into(),
            ],
        )
    }
}
