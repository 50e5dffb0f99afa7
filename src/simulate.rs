//! Events for developers who have no Stripe account yet, and their removal.

use crate::checkout::{refused_argument, required};
use crate::connection::as_owner;
use crate::door;
use crate::events::Incoming;
use crate::postgres::error::{Failure, SqlState, surface};
use crate::postgres::spi::{Composite, Statement};
use crate::postgres::{constraints, identity, sealed, settings};
use crate::proof;
use crate::store::Tables;
use ledger::{Lock, Observation, SESSION_ROW, Scope, Source, Store};
use pgrx::{JsonB, pg_extern};
use serde_json::{Map, Value};
use std::time::{SystemTime, UNIX_EPOCH};
use stripe::checkout::Mode;
use stripe::simulation::{self, Host, SIMULATED, Telling};
use stripe::{Environment, Event, Invalid, Subject};

/// Nothing simulated is ever in the other one.
const ENVIRONMENT: Environment = Environment::Test;

/// What triggers are told.
const SOURCE: &str = "simulate";

/// `payments.simulate_event(type, overrides)`.
#[pg_extern(sql = false)]
fn simulate_event(kind: Option<&str>, overrides: Option<JsonB>) -> Option<Composite> {
    surface(|| {
        door::require_read_committed()?;
        let kind = required("type", kind)?;
        let overrides = overrides.map_or_else(|| Value::Object(Map::new()), |json| json.0);
        refuse_beside_stripe()?;
        let requested_by = identity::requester();
        door::fire_callers_deferred_triggers()?;
        as_owner(|| {
            let now = SystemTime::now().duration_since(UNIX_EPOCH);
            let now = now.map_err(|_| Failure::internal("the clock is before 1970"))?;
            let mut mirror = Mirror { requested_by };
            let tellings = simulation::simulate(kind, &overrides, now, &mut mirror)?;
            tell(tellings).map(Some)
        })
    })
}

/// Takes the tellings in as if they came from Stripe, and returns the receipt of the wanted event.
fn tell(tellings: Vec<Telling>) -> Result<Composite, Failure> {
    let mut receipt = None;
    for telling in tellings {
        match telling {
            Telling::Answer { object, as_of } => {
                let source = Source::Answer { after: None };
                let observation = Observation::new(object, as_of, source)
                    .ok_or_else(|| Failure::internal("an answer is no object"))?;
                door::enter(ENVIRONMENT, SOURCE, &[observation])?;
            }
            Telling::Event { payload, wanted } => {
                let event = Event::parse(&payload)
                    .map_err(|error| Failure::argument("malformed_event", error.to_string()))?;
                let incoming = Incoming {
                    environment: ENVIRONMENT,
                    source: SOURCE,
                    event: &event,
                    payload: &payload,
                };
                let told = incoming.process()?;
                if wanted {
                    receipt = Some(told);
                } else if let Some(error) = told.error() {
                    pgrx::warning!("the event {} that goes with it failed: {error}", event.kind);
                }
            }
        }
    }
    receipt
        .ok_or_else(|| Failure::internal("the event was not told"))?
        .composite()
}

/// Where Stripe itself tells of payments, a simulated one could be taken for real, by triggers that
/// do not look at the environment or by people. A stand-in for Stripe is no danger.
fn refuse_beside_stripe() -> Result<(), Failure> {
    static CONNECTED: Statement = Statement::new(
        "select environment
           from payments.stripe_connections
          where status <> 'unconfigured'
          order by environment desc
          limit 1",
    );
    if settings::stripe_is_local() {
        return Ok(());
    }
    match as_owner(|| CONNECTED.first(&[], |row| row.required::<String>(1)))? {
        None => Ok(()),
        Some(environment) => Err(Failure::new(
            SqlState::PREREQUISITE_STATE,
            "connected",
            format!(
                "the environment \"{environment}\" is connected to Stripe: simulated payments \
                 would stand beside real ones"
            ),
        )
        .with("environment", environment)
        .hint("Have Stripe send test events: stripe trigger checkout.session.completed")),
    }
}

/// Refuses to go on while anything simulated is left.
///
/// # Errors
/// 55000 `simulated`.
pub fn refuse_beside_simulated() -> Result<(), Failure> {
    static ANY: Statement = Statement::new(
        "select
           from payments.stripe_objects
          where environment = $1
            and object_id ~ $2
          limit 1",
    );
    if settings::stripe_is_local() {
        return Ok(());
    }
    let arguments = [ENVIRONMENT.as_str().into(), SIMULATED.into()];
    match as_owner(|| ANY.execute(&arguments))? {
        0 => Ok(()),
        _ => Err(Failure::new(
            SqlState::PREREQUISITE_STATE,
            "simulated",
            "the environment \"test\" has simulated payments, beside which real ones must not stand",
        )
        .hint("SELECT payments.remove_simulated();")),
    }
}

/// What was simulated before, as the mirror has it. Read as the tables' owner.
struct Mirror {
    requested_by: String,
}

impl Host for Mirror {
    type Error = Failure;

    fn find(&mut self, object_type: &str, fields: &[(&str, &str)]) -> Result<Vec<Value>, Failure> {
        static FOUND: Statement = Statement::new(
            "select object.body::text
               from payments.stripe_objects as object
              where object.environment = $1
                and object.object_type = $2
                and object.object_id ~ $3
                and not object.deleted
                and not exists (
                        select
                          from unnest($4::text[], $5::text[]) as wanted (path, value)
                         where object.body #>> string_to_array(wanted.path, '.')
                                   is distinct from wanted.value
                    )
              order by object.object_id collate \"C\" desc
              limit 100",
        );
        let (paths, texts): (Vec<&str>, Vec<&str>) = fields.iter().copied().unzip();
        let arguments = [
            ENVIRONMENT.as_str().into(),
            object_type.into(),
            SIMULATED.into(),
            paths.into(),
            texts.into(),
        ];
        FOUND.rows(&arguments, |row| {
            let body: String = row.required(1)?;
            serde_json::from_str(&body).map_err(|error| {
                Failure::internal(format!("a body in payments.stripe_objects: {error}"))
            })
        })
    }

    fn customer_of(&mut self, subject: &Subject) -> Result<Option<String>, Failure> {
        static CUSTOMER: Statement = Statement::new(
            "select stripe_customer_id
               from payments.customer_mappings
              where environment = $1
                and subject_type = $2
                and subject_id = $3
                and stripe_customer_id ~ $4
              order by stripe_customer_id collate \"C\" desc
              limit 1",
        );
        let arguments = [
            ENVIRONMENT.as_str().into(),
            subject.kind.as_str().into(),
            subject.id.as_str().into(),
            SIMULATED.into(),
        ];
        CUSTOMER.first(&arguments, |row| row.required(1))
    }

    fn marks(
        &mut self,
        mode: Mode,
        subject: Option<&Subject>,
    ) -> Result<Map<String, Value>, Failure> {
        let mut marks = Map::new();
        let mut mark = |name: &str, text: &str| marks.insert(name.to_owned(), text.into());
        mark(SESSION_ROW, &uuid::Uuid::new_v4().to_string());
        mark("payments_checkout_mode", mode.as_str());
        mark("payments_generation", "1");
        mark("payments_requested_by", &self.requested_by);
        if let Some(subject) = subject {
            mark("payments_subject_type", &subject.kind);
            mark("payments_subject_id", &subject.id);
        }
        sealed::prepare()?;
        let proof = proof::of(ENVIRONMENT, |name| marks.get(name).and_then(Value::as_str))?;
        marks.insert(proof::PROOF.to_owned(), proof.into());
        Ok(marks)
    }
}

impl From<Invalid> for Failure {
    fn from(invalid: Invalid) -> Failure {
        refused_argument(invalid)
    }
}

/// `payments.remove_simulated()`.
#[pg_extern(sql = false)]
fn remove_simulated() -> i64 {
    surface(|| {
        door::require_read_committed()?;
        door::fire_callers_deferred_triggers()?;
        let removed = as_owner(|| settings::with_source(SOURCE, remove))?;
        Ok(removed as i64)
    })
}

/// Deletes what names anything simulated, payments first and what they refer to last, as an app's
/// foreign keys and triggers would have it.
fn remove() -> Result<u64, Failure> {
    static PAYMENTS: Statement = Statement::new(
        "delete from payments.payment_history
          where environment = $1
            and (stripe_payment_intent_id ~ $2
                 or stripe_charge_id ~ $2
                 or stripe_refund_id ~ $2
                 or stripe_invoice_id ~ $2
                 or stripe_checkout_session_id ~ $2)",
    );
    static DISPUTES: Statement = Statement::new(
        "delete from payments.disputes where environment = $1 and stripe_dispute_id ~ $2",
    );
    static INVOICES: Statement = Statement::new(
        "delete from payments.invoices where environment = $1 and stripe_invoice_id ~ $2",
    );
    static ITEMS: Statement = Statement::new(
        "delete from payments.subscription_items
          where environment = $1
            and stripe_subscription_item_id ~ $2",
    );
    static SUBSCRIPTIONS: Statement = Statement::new(
        "delete from payments.subscriptions where environment = $1 and stripe_subscription_id ~ $2",
    );
    static SESSIONS: Statement = Statement::new(
        "delete from payments.checkout_sessions
          where environment = $1
            and stripe_checkout_session_id ~ $2",
    );
    static MAPPINGS: Statement = Statement::new(
        "delete from payments.customer_mappings where environment = $1 and stripe_customer_id ~ $2",
    );
    static CUSTOMERS: Statement = Statement::new(
        "delete from payments.customers where environment = $1 and stripe_customer_id ~ $2",
    );
    static PRICES: Statement = Statement::new(
        "delete from payments.prices where environment = $1 and stripe_price_id ~ $2",
    );
    static PRODUCTS: Statement = Statement::new(
        "delete from payments.products where environment = $1 and stripe_product_id ~ $2",
    );
    static OBJECTS: Statement = Statement::new(
        "delete from payments.stripe_objects where environment = $1 and object_id ~ $2",
    );
    static EVENTS: Statement = Statement::new(
        "delete from payments.webhook_events where environment = $1 and stripe_event_id ~ $2",
    );
    // Nobody writes meanwhile: what another transaction is about to simulate would stay in part.
    Tables::of(ENVIRONMENT).lock(&[Lock::exclusive(Scope::Environment)])?;
    let all = [
        &PAYMENTS,
        &DISPUTES,
        &INVOICES,
        &ITEMS,
        &SUBSCRIPTIONS,
        &SESSIONS,
        &MAPPINGS,
        &CUSTOMERS,
        &PRICES,
        &PRODUCTS,
        &OBJECTS,
        &EVENTS,
    ];
    let mut removed = 0;
    for statement in all {
        removed += statement.execute(&[ENVIRONMENT.as_str().into(), SIMULATED.into()])?;
    }
    constraints::set_all_immediate();
    Ok(removed)
}
