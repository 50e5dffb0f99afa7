//! `create_checkout_session`: the caller's own INSERT, then Stripe.
//!
//! A caller's idempotency key names a *slot*. The rows of a slot are its generations: a completed
//! payment keeps its slot for ever, a session that expired or failed, or a subscription that ended,
//! makes room for the next generation.

use crate::checkout_settings;
use crate::connection::{self, as_owner};
use crate::customers;
use crate::door;
use crate::guard;
use crate::postgres::error::{Failure, SqlState, surface};
use crate::postgres::settings::{self, OnError};
use crate::postgres::spi::{Composite, Row, Statement};
use crate::postgres::{identity, lock, sealed};
use crate::prices;
use crate::proof;
use crate::stripe_errors::{failure, is_missing};
use pgrx::{JsonB, Uuid, pg_extern};
use serde_json::json;
use std::collections::BTreeMap;
use stripe::checkout::{Arguments, Mode, Request};
use stripe::settings::Settings;
use stripe::{Client, Environment, Invalid, Subject};

#[pg_extern(sql = false)]
#[allow(
    clippy::too_many_arguments,
    reason = "the arguments are the SQL signature"
)]
fn create_checkout_session(
    environment: Option<&str>,
    mode: Option<&str>,
    line_items: Option<JsonB>,
    success_url: Option<&str>,
    cancel_url: Option<&str>,
    subject: Option<JsonB>,
    customer_email: Option<&str>,
    metadata: Option<JsonB>,
    idempotency_key: Option<&str>,
) -> Option<Composite> {
    surface(|| {
        door::require_read_committed()?;
        let environment = connection::environment_for_caller(environment)?;
        let request = Request::parse(Arguments {
            mode: required("mode", mode)?,
            line_items: &required("line_items", line_items.as_ref())?.0,
            success_url: required("success_url", success_url)?,
            cancel_url: required("cancel_url", cancel_url)?,
            subject: subject.as_ref().map(|json| &json.0),
            customer_email,
            metadata: metadata.as_ref().map(|json| &json.0),
            idempotency_key,
        })
        .map_err(refused_argument)?;
        let settings = checkout_settings::of(environment)?;
        checkout_settings::admit_url(&settings, "success_url", &request.success_url)?;
        checkout_settings::admit_url(&settings, "cancel_url", &request.cancel_url)?;
        let checkout = Checkout {
            environment,
            settings,
            requested_by: identity::requester(),
            request_hash: request.canonical_hash(),
            request,
        };
        let (row, failed) = lock::or_busy("Try again: the key then gets its answer.", || {
            lock::waiting_at_most(settings::http_timeout(), || checkout.run())
        })?;
        if let Some(failure) = failed {
            door::respond_with(&failure)?;
        }
        Ok(Some(row))
    })
}

/// An argument that only looks optional: SQL wants defaults behind defaults, and a caller through a
/// gateway may leave out `environment`, the first.
pub fn required<T>(argument: &'static str, value: Option<T>) -> Result<T, Failure> {
    value.ok_or_else(|| {
        Failure::argument("invalid_argument", format!("{argument} is missing"))
            .with("argument", argument)
    })
}

/// What a bad argument looks like to the caller.
pub fn refused_argument(invalid: Invalid) -> Failure {
    let failure =
        Failure::argument("invalid_argument", invalid.message).with("argument", invalid.argument);
    match invalid.hint {
        Some(hint) => failure.hint(hint),
        None => failure,
    }
}

/// Each generation costs a request to Stripe, and the call has one budget.
const GENERATIONS_PER_CALL: u32 = 6;

struct Checkout {
    environment: Environment,
    settings: Settings,
    request: Request,
    requested_by: String,
    request_hash: String,
}

/// A row of ours, as far as the next step depends on it.
struct Session {
    id: Uuid,
    generation: i32,
    status: String,
    payment_status: Option<String>,
    request_hash: Option<String>,
    stripe_session: Option<String>,
    stripe_subscription: Option<String>,
    stripe_payment_intent: Option<String>,
}

/// What became of one generation.
enum Outcome {
    /// It is what the caller gets: this row.
    Settled(Composite),
    /// It is what the caller gets, marked as failed.
    Recorded(Failure),
    /// It is over: the next one is to be tried.
    Over,
}

impl Checkout {
    /// The row to return, and the failure that it records.
    fn run(&self) -> Result<(Composite, Option<Failure>), Failure> {
        if let Some(subject) = self
            .subscriber()
            .filter(|_| self.settings.one_live_subscription)
        {
            checkout_settings::make_others_wait(self.environment, subject);
        }
        let first = match self.latest()? {
            Some(latest) => latest,
            None => (self.derived(1)?, 1),
        };
        let mut session = self.claim(first)?;
        if session.is_paid() {
            return Ok((as_owner(|| self.row(session.id))?, None));
        }
        connection::with_client(self.environment, |client| {
            for tries_left in (0..GENERATIONS_PER_CALL).rev() {
                let is_last = tries_left == 0;
                match as_owner(|| self.settle(client, &session, is_last))? {
                    Outcome::Settled(row) => return Ok((row, None)),
                    Outcome::Recorded(failure) => {
                        let row = as_owner(|| self.row(session.id))?;
                        return Ok((row, Some(failure)));
                    }
                    Outcome::Over => session = self.claim(self.next(&session, tries_left)?)?,
                }
            }
            Err(Failure::new(
                SqlState::BAD_GATEWAY,
                "no_session",
                "every session that Stripe made for this was closed at once",
            ))
        })
    }

    /// The generation after this one; a twin that we waited for may have made it already.
    ///
    /// The last one that a call tries is nobody's: an outage leaves stored errors under one derived
    /// id after the other, and a key that only led to those would be of no use for a day.
    fn next(&self, session: &Session, tries_left: u32) -> Result<(Uuid, i32), Failure> {
        if let Some(latest) = self.latest()?
            && latest.1 > session.generation
        {
            return Ok(latest);
        }
        let number = session.generation + 1;
        let id = match tries_left {
            ..=1 => random(),
            _ => self.derived(number)?,
        };
        Ok((id, number))
    }

    /// Makes the row of a generation the caller's, if their policies allow it, or finds it made by
    /// an equal request.
    fn claim(&self, generation: (Uuid, i32)) -> Result<Session, Failure> {
        if self.insert(generation)? {
            return Ok(Session::new(generation));
        }
        let (session, _) = as_owner(|| self.session(generation.0))?;
        self.require_same_request(&session)?;
        Ok(session)
    }

    /// The newest generation of the slot, by the columns that are stored, so that a restore under
    /// another sealing key, which derives other ids, forgets none.
    fn latest(&self) -> Result<Option<(Uuid, i32)>, Failure> {
        // Many subjects may use the same key: `is not distinct from` would read the sessions of all.
        static OF_SUBJECT: Statement = Statement::new(
            "select id, generation
               from payments.checkout_sessions
              where environment = $1
                and idempotency_key = $2
                and subject_type = $3
                and subject_id = $4
              order by generation desc
              limit 1",
        );
        static OF_REQUESTER: Statement = Statement::new(
            "select id, generation
               from payments.checkout_sessions
              where environment = $1
                and idempotency_key = $2
                and subject_type is null
                and subject_id is null
                and requested_by = $3
              order by generation desc
              limit 1",
        );
        let Some(key) = self.request.idempotency_key.as_deref() else {
            return Ok(None);
        };
        let environment = self.environment.as_str();
        let read = |row: &Row| Ok((row.required(1)?, row.required(2)?));
        as_owner(|| match self.subject() {
            (Some(kind), Some(id)) => OF_SUBJECT.first(
                &[environment.into(), key.into(), kind.into(), id.into()],
                read,
            ),
            _ => OF_REQUESTER.first(
                &[
                    environment.into(),
                    key.into(),
                    self.requested_by.as_str().into(),
                ],
                read,
            ),
        })
    }

    /// The id of a generation. It is an HMAC, so that nobody can insert a row in its place first.
    fn derived(&self, generation: i32) -> Result<Uuid, Failure> {
        let Some(key) = self.request.idempotency_key.as_deref() else {
            return Ok(random());
        };
        let slot = match self.subject() {
            (Some(kind), Some(id)) => ["subject", kind, id],
            _ => ["requester", &self.requested_by, ""],
        };
        let [owner, kind, id] = slot;
        let number = generation.to_string();
        let parts = [self.environment.as_str(), owner, kind, id, key, &number];
        let derived = sealed::derive("checkout session", &parts)?;
        let mut id = [0; 16];
        id.copy_from_slice(&derived[..16]);
        let id = uuid::Builder::from_custom_bytes(id).into_uuid();
        Ok(Uuid::from_bytes(*id.as_bytes()))
    }

    /// The caller's own INSERT, which needs no more than the INSERT right and an INSERT policy that
    /// passes, also when the row is there already. Waits for a twin that is not committed yet.
    ///
    /// A conflict target or RETURNING would ask for SELECT too.
    fn insert(&self, (id, generation): (Uuid, i32)) -> Result<bool, Failure> {
        static INSERT: Statement = Statement::new(
            "insert into payments.checkout_sessions (
                 id, environment, mode, subject_type, subject_id, customer_email, line_items,
                 success_url, cancel_url, idempotency_key, metadata, requested_by, request_hash,
                 generation
             )
             values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14)
             on conflict do nothing",
        );
        let (subject_type, subject_id) = self.subject();
        let request = &self.request;
        door::reserve_session(self.environment, id)?;
        let _allowed = guard::allow(id);
        let inserted = INSERT.execute(&[
            id.into(),
            self.environment.as_str().into(),
            request.mode.as_str().into(),
            subject_type.into(),
            subject_id.into(),
            request.customer_email.as_deref().into(),
            JsonB(request.line_items_json()).into(),
            request.success_url.as_str().into(),
            request.cancel_url.as_str().into(),
            request.idempotency_key.as_deref().into(),
            JsonB(json!(request.metadata)).into(),
            self.requested_by.as_str().into(),
            self.request_hash.as_str().into(),
            generation.into(),
        ])?;
        Ok(inserted == 1)
    }

    /// A session as it stands, and its whole row for the caller. As the tables' owner.
    fn session(&self, id: Uuid) -> Result<(Session, Composite), Failure> {
        static SESSION: Statement = Statement::new(
            "select id, generation, status, payment_status, request_hash,
                    stripe_checkout_session_id, stripe_subscription_id, stripe_payment_intent_id,
                    row(
                        id, environment, mode, status, payment_status, subject_type, subject_id,
                        customer_email, line_items, success_url, cancel_url, idempotency_key,
                        metadata, stripe_checkout_session_id, stripe_customer_id,
                        stripe_payment_intent_id, stripe_subscription_id, url, last_error,
                        expires_at, requested_by, request_hash, generation, created_at, updated_at
                    )::payments.checkout_session
               from payments.checkout_sessions
              where environment = $1
                and id = $2",
        );
        let read = |row: &Row| {
            let session = Session {
                id: row.required(1)?,
                generation: row.get(2)?.unwrap_or(1),
                status: row.required(3)?,
                payment_status: row.get(4)?,
                request_hash: row.get(5)?,
                stripe_session: row.get(6)?,
                stripe_subscription: row.get(7)?,
                stripe_payment_intent: row.get(8)?,
            };
            Ok((session, row.composite(9)?))
        };
        match SESSION.first(&[self.environment.as_str().into(), id.into()], read)? {
            Some((session, Some(row))) => Ok((session, row)),
            _ => Err(Failure::new(
                SqlState::PREREQUISITE_STATE,
                "row_skipped",
                "the row was not inserted: a trigger or a unique index of your own on \
                 payments.checkout_sessions kept it out",
            )),
        }
    }

    fn row(&self, id: Uuid) -> Result<Composite, Failure> {
        self.session(id).map(|(_, row)| row)
    }

    fn require_same_request(&self, session: &Session) -> Result<(), Failure> {
        match &session.request_hash {
            Some(hash) if *hash != self.request_hash => Err(Failure::new(
                SqlState::UNIQUE_VIOLATION,
                "key_reused",
                "this idempotency key was used before, with other parameters",
            )
            .hint("Use one key for one purchase: a changed cart needs another key.")),
            _ => Ok(()),
        }
    }

    /// Brings a generation to where it can be returned, or says that it is over.
    fn settle(
        &self,
        client: &Client,
        session: &Session,
        is_last: bool,
    ) -> Result<Outcome, Failure> {
        match session.status.as_str() {
            "initialized" => match self.start(client, session, is_last) {
                Err(failure) => self.give_up(session, failure),
                outcome => outcome,
            },
            "open" => self.look_again(client, session),
            "completed" => self.completed(client, session),
            _ => Ok(Outcome::Over),
        }
    }

    /// Without webhooks an open row may have been paid or have expired long ago.
    ///
    /// If Stripe does not say, that is raised in any case: the row is as good as before, and marked
    /// as failed it would make room for a second session beside one that can be paid.
    fn look_again(&self, client: &Client, session: &Session) -> Result<Outcome, Failure> {
        let Some(stripe_session) = &session.stripe_session else {
            return Ok(Outcome::Over);
        };
        match door::fetch(client, self.environment, "checkout.session", stripe_session) {
            Ok(_) => self.settled_as_it_stands(client, session.id),
            // Test data can be deleted as a whole.
            Err(failure) if is_missing(&failure) => {
                record_failure(self.environment, session.id, &failure.message)?;
                Ok(Outcome::Over)
            }
            Err(failure) => Err(failure),
        }
    }

    fn settled_as_it_stands(&self, client: &Client, id: Uuid) -> Result<Outcome, Failure> {
        let (session, row) = self.session(id)?;
        match session.status.as_str() {
            "open" => Ok(Outcome::Settled(row)),
            "completed" => self.completed(client, &session),
            _ => Ok(Outcome::Over),
        }
    }

    /// What is paid stays paid for its key. A bank may refuse days after the checkout, and a
    /// subscription may end: then there is something to buy again.
    fn completed(&self, client: &Client, session: &Session) -> Result<Outcome, Failure> {
        let is_over = match session.stripe_subscription.as_deref() {
            Some(subscription) => self.has_ended(client, subscription)?,
            None => !session.is_paid() && self.payment_failed(session)?,
        };
        Ok(match is_over {
            true => Outcome::Over,
            false => Outcome::Settled(self.row(session.id)?),
        })
    }

    /// Has the subscription ended? Stripe is asked unless a webhook has told.
    fn has_ended(&self, client: &Client, subscription: &str) -> Result<bool, Failure> {
        static ENDED: Statement = Statement::new(
            "select
               from payments.subscriptions
              where environment = $1
                and stripe_subscription_id = $2
                and status in ('canceled', 'incomplete_expired')",
        );
        let is_known = || {
            let found = ENDED.execute(&[self.environment.as_str().into(), subscription.into()])?;
            Ok::<_, Failure>(found > 0)
        };
        if is_known()? {
            return Ok(true);
        }
        match door::fetch(client, self.environment, "subscription", subscription) {
            Ok(_) => is_known(),
            Err(failure) if is_missing(&failure) => Ok(true),
            Err(failure) => Err(failure),
        }
    }

    /// The session itself stays complete and unpaid, whatever becomes of the payment.
    fn payment_failed(&self, session: &Session) -> Result<bool, Failure> {
        static FAILED: Statement = Statement::new(
            "select
               from payments.payment_history
              where environment = $1
                and stripe_payment_intent_id = $2
                and type = 'one_time_payment'
                and status = 'failed'",
        );
        let Some(intent) = session.stripe_payment_intent.as_deref() else {
            return Ok(false);
        };
        let found = FAILED.execute(&[self.environment.as_str().into(), intent.into()])?;
        Ok(found > 0)
    }

    /// Has Stripe make the session.
    fn start(&self, client: &Client, session: &Session, is_last: bool) -> Result<Outcome, Failure> {
        let customer = self.customer(client)?;
        let prices = prices::resolve(client, self.environment, self.request.prices())?;
        let (environment, settings) = (self.environment, &self.settings);
        checkout_settings::admit_prices(client, environment, settings, prices.values())?;
        let mut parameters = self
            .request
            .session_parameters(
                &prices,
                customer.as_deref(),
                &session.id.to_string(),
                &self.marks(session)?,
            )
            .map_err(refused_argument)?;
        let trial = self.can_have_trial(client, session, customer.as_deref())?;
        self.settings.add_to(&mut parameters, trial);
        let key = format!("payments-checkout-{}", session.id);
        let error = match client.post("/v1/checkout/sessions", &parameters, &key) {
            Ok(answer) => {
                door::take_answer(client, self.environment, "checkout.session", answer)?;
                return self.settled_as_it_stands(client, session.id);
            }
            Err(error) => error,
        };
        let is_gone = match (&self.request.subject, &customer) {
            (Some(subject), Some(customer)) if customers::is_unknown(&error) => {
                customers::is_deleted(client, self.environment, subject, customer)?
            }
            _ => false,
        };
        // Only another key can get another answer than the one Stripe remembers, or ask for another
        // customer than one that was deleted.
        if is_last || !(is_gone || is_stuck(&error)) {
            return Err(failure(error));
        }
        record_failure(self.environment, session.id, &error.to_string())?;
        Ok(Outcome::Over)
    }

    /// Sees to it that a subscription is the only one of its subject, where that is the rule, and
    /// says whether it can begin with a trial.
    fn can_have_trial(
        &self,
        client: &Client,
        session: &Session,
        customer: Option<&str>,
    ) -> Result<bool, Failure> {
        let (Some(subject), Some(customer)) = (self.subscriber(), customer) else {
            return Ok(false);
        };
        if self.settings.one_live_subscription {
            let ours = session.id.to_string();
            checkout_settings::refuse_second(client, self.environment, subject, customer, &ours)?;
        }
        match self.settings.trial_period_days {
            Some(_) => {
                checkout_settings::can_have_trial(client, self.environment, subject, customer)
            }
            None => Ok(false),
        }
    }

    /// Who is to have a subscription, if it is about one.
    fn subscriber(&self) -> Option<&Subject> {
        let subject = self.request.subject.as_ref();
        subject.filter(|_| self.request.mode == Mode::Subscription)
    }

    fn customer(&self, client: &Client) -> Result<Option<String>, Failure> {
        let Some(subject) = &self.request.subject else {
            return Ok(None);
        };
        let email = self.request.customer_email.as_deref();
        customers::for_checkout(client, self.environment, subject, email).map(Some)
    }

    /// What travels to Stripe in the session's metadata, so that its completion finds our row, or
    /// makes it again if the transaction was rolled back.
    fn marks(&self, session: &Session) -> Result<BTreeMap<String, String>, Failure> {
        let mut marks = BTreeMap::from([
            (
                "payments_checkout_session_id".to_owned(),
                session.id.to_string(),
            ),
            (
                "payments_checkout_mode".to_owned(),
                self.request.mode.as_str().to_owned(),
            ),
            (
                "payments_generation".to_owned(),
                session.generation.to_string(),
            ),
            (
                "payments_request_hash".to_owned(),
                self.request_hash.clone(),
            ),
            (
                "payments_requested_by".to_owned(),
                self.requested_by.clone(),
            ),
        ]);
        if let Some(subject) = &self.request.subject {
            marks.insert("payments_subject_type".to_owned(), subject.kind.clone());
            marks.insert("payments_subject_id".to_owned(), subject.id.clone());
        }
        if let Some(key) = &self.request.idempotency_key {
            marks.insert("payments_idempotency_key".to_owned(), key.clone());
        }
        let proof = proof::of(self.environment, |name| marks.get(name).map(String::as_str))?;
        marks.insert(proof::PROOF.to_owned(), proof);
        Ok(marks)
    }

    /// Raises the failure, or keeps it in the row where the caller chose that.
    fn give_up(&self, session: &Session, failure: Failure) -> Result<Outcome, Failure> {
        let recordable = failure.sqlstate.as_str().starts_with("PT");
        if settings::on_stripe_error() == OnError::Raise || !recordable {
            return Err(failure);
        }
        record_failure(self.environment, session.id, &failure.message)?;
        Ok(Outcome::Recorded(failure))
    }

    fn subject(&self) -> (Option<&str>, Option<&str>) {
        let subject = self.request.subject.as_ref();
        (
            subject.map(|subject| subject.kind.as_str()),
            subject.map(|subject| subject.id.as_str()),
        )
    }
}

impl Session {
    /// One that was inserted just now.
    fn new((id, generation): (Uuid, i32)) -> Session {
        Session {
            id,
            generation,
            status: "initialized".to_owned(),
            payment_status: None,
            request_hash: None,
            stripe_session: None,
            stripe_subscription: None,
            stripe_payment_intent: None,
        }
    }

    /// Is it a purchase that is over and done with?
    fn is_paid(&self) -> bool {
        let paid = matches!(
            self.payment_status.as_deref(),
            Some("paid" | "no_payment_required")
        );
        self.status == "completed" && self.stripe_subscription.is_none() && paid
    }
}

fn random() -> Uuid {
    Uuid::from_bytes(*uuid::Uuid::new_v4().as_bytes())
}

/// Marks a session's row as failed. As the tables' owner.
fn record_failure(environment: Environment, id: Uuid, message: &str) -> Result<(), Failure> {
    static FAILED: Statement = Statement::new(
        "update payments.checkout_sessions
            set status = 'failed',
                last_error = $3,
                updated_at = pg_catalog.now()
          where environment = $1
            and id = $2",
    );
    FAILED.execute(&[environment.as_str().into(), id.into(), message.into()])?;
    Ok(())
}

/// Will Stripe give the same answer for this idempotency key until it forgets it?
fn is_stuck(error: &stripe::Error) -> bool {
    error.is_replayed() || matches!(error, stripe::Error::IdempotencyMismatch(_))
}
