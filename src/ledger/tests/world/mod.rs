//! A small Stripe for tests: it keeps objects, writes down every change as the event that Stripe
//! would send, and shows each in the shape of whichever API version is asked for.

#![allow(dead_code, reason = "every test binary uses another part of it")]

pub mod lives;

use std::collections::BTreeMap;

use ledger::memory::Memory;
use ledger::rows::{CheckoutSession, Projected};
use ledger::{Key, Lock, Observation, Outcome, Source, Time, observe};
use payments_ledger as ledger;
use serde_json::{Map, Value, json};
use uuid::Uuid;

/// Which API version an endpoint was made with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shape {
    /// 2020-08-27
    Old,
    /// 2025-03-31.basil
    Basil,
    /// 2026-10-28.endive
    Endive,
}

pub const SHAPES: [Shape; 3] = [Shape::Old, Shape::Basil, Shape::Endive];

/// One event.
#[derive(Clone, Debug)]
pub struct Happening {
    pub at: i64,
    pub event_type: String,
    pub body: Map<String, Value>,
    pub before: Option<Map<String, Value>>,
}

/// Stripe's state, and what it told.
#[derive(Clone, Debug, Default)]
pub struct World {
    now: BTreeMap<String, Map<String, Value>>,
    pub told: Vec<Happening>,
}

impl World {
    /// Creates an object, or patches it, and tells.
    pub fn tell(&mut self, at: i64, event_type: &str, id: &str, patch: Value) {
        self.change(at, id, patch);
        self.retell(at, event_type, id);
    }

    /// Changes an object without an event of its own.
    pub fn change(&mut self, at: i64, id: &str, patch: Value) {
        let body = self.now.entry(id.to_owned()).or_insert_with(|| {
            let fresh = json!({"id": id, "object": object_type(id), "created": at});
            fresh.as_object().cloned().expect("an object")
        });
        for (key, value) in patch.as_object().expect("a patch") {
            body.insert(key.clone(), value.clone());
        }
    }

    /// Tells of an object as it is.
    pub fn retell(&mut self, at: i64, event_type: &str, id: &str) {
        let body = self.now[id].clone();
        let earlier = self.told.iter().rev().find(|h| h.body["id"] == id);
        let before = event_type
            .ends_with(".updated")
            .then_some(earlier)
            .flatten();
        let before = before.map(|h| h.body.clone());
        self.told.push(Happening {
            at,
            event_type: event_type.to_owned(),
            body,
            before,
        });
    }

    pub fn body(&self, id: &str) -> &Map<String, Value> {
        &self.now[id]
    }
}

fn object_type(id: &str) -> &'static str {
    match id.split('_').next().unwrap_or_default() {
        "cus" => "customer",
        "cs" => "checkout.session",
        "pi" => "payment_intent",
        "ch" => "charge",
        "re" => "refund",
        "dp" => "dispute",
        "sub" => "subscription",
        "in" => "invoice",
        "inpay" => "invoice_payment",
        "prod" => "product",
        "price" => "price",
        other => panic!("no object has the prefix {other}"),
    }
}

impl Happening {
    /// Whether an endpoint of this version is sent the event at all.
    pub fn reaches(&self, shape: Shape) -> bool {
        match self.event_type.as_str() {
            "invoice_payment.paid" => shape != Shape::Old,
            "refund.created" | "refund.updated" | "refund.failed" => shape != Shape::Old,
            "charge.refund.updated" => shape == Shape::Old,
            _ => true,
        }
    }

    /// The event as an endpoint of this version gets it.
    pub fn event(&self, id: &str, shape: Shape) -> Observation {
        let body = render(&self.body, shape);
        let previous_attributes = self.before.as_ref().map(|before| {
            let before = render(before, shape);
            let was = |(key, now): (&String, &Value)| {
                let was = before.get(key).cloned().unwrap_or(Value::Null);
                (was != *now).then(|| (key.clone(), was))
            };
            body.iter().filter_map(was).collect()
        });
        let event_type = self.event_type.clone();
        let source = Source::Event {
            id: id.to_owned(),
            event_type,
            previous_attributes,
        };
        Observation::new(body, self.at, source).expect("a key")
    }

    /// The object on a page that was asked for at this moment.
    pub fn listed(&self, at: i64, shape: Shape) -> Observation {
        let body = render(&self.body, shape);
        Observation::new(body, at, Source::Listing).expect("a key")
    }
}

/// What a version shows of an object that has everything.
fn render(body: &Map<String, Value>, shape: Shape) -> Map<String, Value> {
    let mut body = body.clone();
    let (gone, moved): (&[&str], &[&str]) = match body["object"].as_str().unwrap_or_default() {
        "payment_intent" => (&["charges", "invoice"], &["latest_charge"]),
        "charge" => (&["refunds", "invoice"], &[]),
        "invoice" => (
            &[
                "subscription",
                "payment_intent",
                "charge",
                "paid",
                "subscription_details",
            ],
            &["parent"],
        ),
        "subscription" => (&["current_period_start", "current_period_end"], &[]),
        "refund" if shape != Shape::Endive => (&[], &["customer"]),
        _ => (&[], &[]),
    };
    let hidden = if shape == Shape::Old { moved } else { gone };
    hidden.iter().for_each(|key| drop(body.remove(*key)));
    for item in list(&mut body, "items") {
        let hidden: &[&str] = match shape {
            Shape::Old => &["current_period_start", "current_period_end"],
            _ => &["plan"],
        };
        hidden.iter().for_each(|key| drop(item.remove(*key)));
    }
    for line in list(&mut body, "lines") {
        let hidden: &[&str] = if shape == Shape::Old {
            &["pricing"]
        } else {
            &["price"]
        };
        hidden.iter().for_each(|key| drop(line.remove(*key)));
    }
    for charge in list(&mut body, "charges") {
        *charge = render(charge, shape);
    }
    body
}

fn list<'a>(body: &'a mut Map<String, Value>, key: &str) -> Vec<&'a mut Map<String, Value>> {
    let data = body.get_mut(key).and_then(|list| list.get_mut("data"));
    let data = data.and_then(Value::as_array_mut);
    data.into_iter()
        .flatten()
        .filter_map(Value::as_object_mut)
        .collect()
}

/// The id of the row of ours that the sessions in these tests are of.
pub const ROW: Uuid = Uuid::from_u128(0x5e55_1017);

/// The caller's metadata and ours, as they travel to Stripe.
pub fn our_metadata() -> Value {
    json!({
        "order_id": "order 7",
        "payments_checkout_session_id": ROW.to_string(),
        "payments_subject_type": "team",
        "payments_subject_id": "t1",
        "payments_idempotency_key": "order:7",
        "payments_request_hash": "abc",
        "payments_generation": "1",
        "payments_requested_by": "user 1",
        "payments_proof": "true",
    })
}

fn authentic(metadata: &Map<String, Value>) -> bool {
    metadata.get("payments_proof") == Some(&json!("true"))
}

/// An empty store.
pub fn empty() -> Memory {
    Memory::new("test", authentic)
}

/// Our row, as create_checkout_session leaves it.
pub fn our_row(mode: &str, session: Option<&str>) -> CheckoutSession {
    CheckoutSession {
        id: ROW,
        environment: "test".into(),
        mode: Some(mode.into()),
        status: Some(
            if session.is_some() {
                "open"
            } else {
                "initialized"
            }
            .into(),
        ),
        payment_status: None,
        subject_type: Some("team".into()),
        subject_id: Some("t1".into()),
        customer_email: None,
        line_items: Some(json!([{"stripe_price_id": "price_1", "quantity": 1}])),
        success_url: Some("https://app.example/ok".into()),
        cancel_url: Some("https://app.example/no".into()),
        idempotency_key: Some("order:7".into()),
        metadata: Some(json!({"order_id": "order 7"})),
        stripe_checkout_session_id: session.map(str::to_owned),
        stripe_customer_id: None,
        stripe_payment_intent_id: None,
        stripe_subscription_id: None,
        url: None,
        last_error: None,
        expires_at: None,
        requested_by: Some("user 1".into()),
        request_hash: Some("abc".into()),
        generation: Some(1),
        created_at: Time::from_seconds(1),
        updated_at: Time::from_seconds(1),
    }
}

/// A store with our row in it.
pub fn with_our_row(mode: &str) -> Memory {
    let mut store = empty();
    store.insert(our_row(mode, Some("cs_1")).into_row());
    store
}

/// Observes as a caller does: one transaction, begun again with more locks while it must be.
pub fn deliver(store: &mut Memory, observations: Vec<Observation>) {
    let mut locks: Vec<Lock> = Vec::new();
    for _ in 0..20 {
        let savepoint = store.clone();
        match observe(store, observations.clone(), &locks).expect("memory does not fail") {
            Outcome::Settled(_) => return store.commit(),
            Outcome::Contended(more) => locks.extend(more),
        }
        *store = savepoint;
    }
    panic!("no end of locks");
}

/// Rows as text, for comparing and for reading when they differ.
pub fn text(store: &Memory) -> String {
    let mut out = String::new();
    for row in store.rows() {
        out.push_str(&format!("{}\n", row.table.name));
        for (column, cell) in row.table.columns.iter().zip(&row.cells) {
            out.push_str(&format!("  {} = {cell:?}\n", column.name));
        }
    }
    out
}

/// The lines that differ.
pub fn diff(expected: &str, found: &str) -> String {
    let (mut a, mut b) = (expected.lines(), found.lines());
    let mut out = String::new();
    loop {
        match (a.next(), b.next()) {
            (None, None) => return out,
            (a, b) if a == b => {}
            (a, b) => out.push_str(&format!("- {}\n+ {}\n", a.unwrap_or(""), b.unwrap_or(""))),
        }
    }
}

/// The same store as a rebuild makes it: nothing but the mirror and our own rows.
pub fn rebuilt(store: &Memory) -> Memory {
    let mut store = store.clone();
    for table in ledger::rows::TABLES {
        if !["checkout_sessions", "customer_mappings"].contains(&table.name) {
            store.forget(table.name);
        }
    }
    for stage in ledger::STAGES {
        let mut keys = store.keys();
        keys.retain(|key| stage.objects.contains(&key.object_type.as_str()));
        for key in keys {
            assert!(ledger::rebuild(&mut store, &[key], Vec::new()).is_ok());
            store.commit();
        }
    }
    store
}

pub fn key(object_type: &str, id: &str) -> Key {
    Key {
        object_type: object_type.into(),
        id: id.into(),
    }
}

/// A dice that falls the same way every time.
pub struct Dice(u64);

impl Dice {
    pub fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    pub fn roll(&mut self, sides: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 11) as usize % sides
    }

    pub fn shuffle<T>(&mut self, values: &mut [T]) {
        for i in (1..values.len()).rev() {
            values.swap(i, self.roll(i + 1));
        }
    }
}
