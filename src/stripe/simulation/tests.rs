use std::collections::BTreeMap;

use serde_json::json;

use super::*;
use crate::{Event, event};

/// A host that remembers what it was told.
#[derive(Clone, Default)]
struct Memory {
    objects: BTreeMap<String, Value>,
    customers: BTreeMap<String, String>,
    rows: usize,
}

impl Host for Memory {
    type Error = Invalid;

    fn find(&mut self, object_type: &str, fields: &[(&str, &str)]) -> Result<Vec<Value>, Invalid> {
        let newest_first = self.objects.values().rev();
        let found = newest_first.filter(|object| {
            object["object"] == object_type
                && fields.iter().all(|(path, text)| {
                    let pointer = format!("/{}", path.replace('.', "/"));
                    object.pointer(&pointer).and_then(Value::as_str) == Some(*text)
                })
        });
        Ok(found.cloned().collect())
    }

    fn customer_of(&mut self, subject: &Subject) -> Result<Option<String>, Invalid> {
        Ok(self.customers.get(&subject.id).cloned())
    }

    fn marks(&mut self, _: Mode, subject: Option<&Subject>) -> Result<Map<String, Value>, Invalid> {
        let mut marks = Map::new();
        self.rows += 1;
        let row = format!("row {}", self.rows);
        marks.insert("payments_checkout_session_id".into(), row.into());
        if let Some(subject) = subject {
            marks.insert("payments_subject_type".into(), subject.kind.clone().into());
            marks.insert("payments_subject_id".into(), subject.id.clone().into());
        }
        Ok(marks)
    }
}

/// What an event said, by its type.
struct Told {
    kind: String,
    object: Value,
    previous: Option<Value>,
    wanted: bool,
}

impl Memory {
    fn simulate(&mut self, kind: &str, overrides: Value) -> Result<Vec<Told>, Invalid> {
        let now = Duration::from_micros(1_790_000_000_000_000 + self.objects.len() as u64);
        let mut told = Vec::new();
        for telling in simulate(kind, &overrides, now, self)? {
            let object = match telling {
                Telling::Answer { object, .. } => Value::Object(object),
                Telling::Event { payload, wanted } => {
                    assert_eq!(event::sanitize(&payload), payload);
                    let event = Event::parse(&payload).expect("an event");
                    assert!(!event.livemode && is_simulated(&event.id), "{payload}");
                    let object: Value =
                        serde_json::from_str(event.object.get()).expect("an object");
                    told.push(Told {
                        kind: event.kind,
                        object: object.clone(),
                        previous: event
                            .previous_attributes
                            .map(|raw| serde_json::from_str(raw.get()).expect("an object")),
                        wanted,
                    });
                    object
                }
            };
            assert_eq!(object["livemode"], false);
            let id = object["id"].as_str().expect("an id").to_owned();
            assert!(is_simulated(&id), "{id}");
            let gone = told.last().is_some_and(|told| {
                told.object["id"] == id
                    && told.kind.ends_with(".deleted")
                    && object["object"] != "subscription"
            });
            match gone {
                true => self.objects.remove(&id),
                false => self.objects.insert(id, object),
            };
        }
        Ok(told)
    }

    /// The object of the event that was asked for.
    fn wanted(&mut self, kind: &str, overrides: Value) -> Value {
        let told = self.simulate(kind, overrides).expect("a story");
        let mut wanted = told.into_iter().filter(|told| told.wanted);
        let one = wanted.next().expect("the event");
        assert_eq!(one.kind, kind);
        assert!(wanted.next().is_none(), "twice {kind}");
        one.object
    }
}

fn kinds() -> Vec<&'static str> {
    let all = lives::all::<Memory>();
    all.iter().map(|(kind, _)| *kind).collect()
}

#[test]
fn every_event_can_be_asked_for_first_and_again() {
    for kind in kinds() {
        let mut memory = Memory::default();
        for _ in 0..3 {
            memory.wanted(kind, json!({}));
        }
    }
}

#[test]
fn any_event_can_follow_any_other() {
    for first in kinds() {
        let mut memory = Memory::default();
        memory.wanted(first, json!({}));
        for second in kinds() {
            memory.clone().wanted(second, json!({}));
        }
    }
}

#[test]
fn what_an_object_names_was_told_or_is_told_in_the_same_breath() {
    fn named<'v>(value: &'v Value, ids: &mut Vec<&'v str>) {
        match value {
            Value::String(text) if is_simulated(text) => ids.push(text),
            Value::Array(values) => values.iter().for_each(|value| named(value, ids)),
            Value::Object(fields) => fields.values().for_each(|value| named(value, ids)),
            _ => {}
        }
    }
    for kind in kinds()
        .into_iter()
        .filter(|kind| !kind.ends_with(".deleted"))
    {
        let mut memory = Memory::default();
        memory.wanted(kind, json!({}));
        for object in memory.objects.values() {
            let mut ids = Vec::new();
            named(object, &mut ids);
            for id in ids {
                let nested = ["item_simulated", "si_simulated", "il_simulated"];
                let embedded = nested.iter().any(|prefix| id.starts_with(prefix));
                // A session's page has the session's id in its address.
                let known =
                    id.contains("://") || id.contains('/') || memory.objects.contains_key(id);
                assert!(embedded || known, "{kind}: {id} in {object}");
            }
        }
    }
}

#[test]
fn a_checkout_brings_what_it_names() {
    let mut memory = Memory::default();
    let told = memory.simulate(
        "checkout.session.completed",
        json!({
            "subject": {"type": "team", "id": "red"}, "metadata": {"order_id": "7"},
            "amount": 1900, "quantity": 2, "currency": "EUR", "locale": "de",
        }),
    );
    let told = told.expect("a story");
    let kinds: Vec<_> = told.iter().map(|told| told.kind.as_str()).collect();
    assert_eq!(
        kinds,
        [
            "product.created",
            "price.created",
            "customer.created",
            "payment_intent.created",
            "charge.succeeded",
            "payment_intent.succeeded",
            "checkout.session.completed",
        ]
    );
    let [.., charge, intent, session] = &told[..] else {
        panic!("a sale");
    };
    let (charge, intent, session) = (&charge.object, &intent.object, &session.object);
    assert_eq!(session["amount_total"], 3800);
    assert_eq!(
        (&session["currency"], &session["locale"]),
        (&json!("eur"), &json!("de"))
    );
    assert_eq!(session["payment_intent"], intent["id"]);
    assert_eq!(intent["latest_charge"], charge["id"]);
    for object in [charge, intent, session] {
        assert_eq!(object["metadata"]["order_id"], "7");
        assert_eq!(object["metadata"]["payments_subject_id"], "red");
    }
}

#[test]
fn a_subscription_goes_on_where_it_was() {
    let mut memory = Memory::default();
    let subject = json!({"type": "user", "id": "ann"});
    let made = memory.wanted("customer.subscription.created", json!({"subject": subject}));
    memory.wanted(
        "customer.subscription.created",
        json!({"subject": {"type": "user", "id": "bob"}}),
    );
    let failed = memory.wanted("invoice.payment_failed", json!({"subject": subject}));
    assert_eq!(
        failed["parent"]["subscription_details"]["subscription"],
        made["id"]
    );
    assert_eq!(
        memory.objects[made["id"].as_str().expect("an id")]["status"],
        "past_due"
    );
    let paid = memory.wanted("invoice.paid", json!({"subscription": made["id"]}));
    assert_eq!(paid["id"], failed["id"]);
    let told = memory.simulate(
        "customer.subscription.updated",
        json!({"subject": subject, "quantity": 5, "cancel_at_period_end": true}),
    );
    let updated = told.expect("a story").pop().expect("an event");
    assert_eq!(updated.object["items"]["data"][0]["quantity"], 5);
    assert!(updated.object["cancel_at"].is_i64());
    let previous = updated.previous.expect("what it was");
    assert_eq!(previous["items"]["data"][0]["quantity"], 1);
    assert_eq!(previous["cancel_at_period_end"], false);
    let ended = memory.wanted("customer.subscription.deleted", json!({"id": made["id"]}));
    assert_eq!(
        (&ended["id"], &ended["status"]),
        (&made["id"], &json!("canceled"))
    );
    let refused = memory.simulate("customer.subscription.deleted", json!({"id": made["id"]}));
    assert!(refused.is_err());
}

#[test]
fn a_second_card_pays_the_session_that_the_first_did_not() {
    let mut memory = Memory::default();
    let declined = memory.wanted("payment_intent.payment_failed", json!({}));
    let paid = memory.wanted("payment_intent.succeeded", json!({"id": declined["id"]}));
    assert_eq!(paid["id"], declined["id"]);
    let sessions = memory.find("checkout.session", &[]).expect("sessions");
    let [session] = &sessions[..] else {
        panic!("one session");
    };
    assert_eq!(
        (&session["payment_intent"], &session["status"]),
        (&paid["id"], &json!("complete"))
    );
    let refused = memory.simulate("payment_intent.succeeded", json!({"id": declined["id"]}));
    assert!(refused.is_err());
}

#[test]
fn refunds_take_what_is_left() {
    let mut memory = Memory::default();
    let first = memory.wanted("charge.refunded", json!({"amount": 500}));
    assert_eq!(
        (&first["amount"], &first["amount_refunded"]),
        (&json!(2000), &json!(500))
    );
    let second = memory.wanted("charge.refunded", json!({}));
    assert_eq!(second["id"], first["id"]);
    assert_eq!(
        (&second["refunded"], &second["amount_refunded"]),
        (&json!(true), &json!(2000))
    );
    let large = memory.wanted("charge.refunded", json!({"amount": 5000}));
    assert_eq!(
        (&large["amount"], &large["refunded"]),
        (&json!(5000), &json!(true))
    );
    let too_much = memory.simulate("charge.refunded", json!({"charge": first["id"]}));
    assert!(too_much.is_err());
}

#[test]
fn what_cannot_be_meant_is_refused() {
    let id = format!("cus_simulated_{}", "0".repeat(24));
    for (kind, overrides, message) in [
        (
            "invoice.created",
            json!({}),
            "the event type \"invoice.created\" cannot be simulated",
        ),
        (
            "charge.refunded",
            json!([]),
            "overrides must be a JSON object",
        ),
        (
            "charge.refunded",
            json!({"amount": 0}),
            "overrides.amount must be at least 1",
        ),
        (
            "charge.refunded",
            json!({"amount": "5"}),
            "overrides.amount must be a whole number from 0 to 999999999999",
        ),
        (
            "charge.refunded",
            json!({"charge": "ch_3PqR"}),
            "overrides.charge must be the id of a simulated object",
        ),
        (
            "customer.updated",
            json!({"customer": id}),
            &format!("there is no customer {id}"),
        ),
        (
            "product.created",
            json!({"customer": id}),
            &format!("the customer {id} has no part in this event"),
        ),
        (
            "customer.created",
            json!({"livemode": true}),
            "overrides.livemode cannot be set",
        ),
        (
            "checkout.session.completed",
            json!({"subject": {"type": "user"}}),
            "overrides.subject.id is missing",
        ),
        (
            "checkout.session.completed",
            json!({"metadata": {"payments_subject_id": "1"}}),
            "overrides.metadata key \"payments_subject_id\" is reserved",
        ),
        (
            "payment_intent.succeeded",
            json!({"amount": 0}),
            "with these overrides there is no payment_intent.succeeded",
        ),
    ] {
        let refused = Memory::default().simulate(kind, overrides);
        let refused = refused.map(|_| ()).map_err(|invalid| invalid.message);
        assert_eq!(refused, Err(message.to_owned()));
    }
    let unknown = Memory::default().simulate("invoice.created", json!({}));
    let hint = unknown.map(|_| ()).expect_err("refused").hint;
    assert!(hint.is_some_and(|hint| kinds().iter().all(|kind| hint.contains(kind))));
}

#[test]
fn ids_say_what_they_are_and_sort_by_age() {
    assert!(is_simulated("cs_test_simulated_0123456789abcdef01234567"));
    for id in [
        "",
        "cus_9s6XKzkNRiz8i3",
        "prod_simulated_",
        "prod_simulated_0123456789ABCDEF01234567",
        "simulated_0123456789abcdef01234567",
        "cus_simulated_0123456789abcdef012345678",
    ] {
        assert!(!is_simulated(id), "{id}");
    }
    let mut memory = Memory::default();
    let older = memory.wanted("customer.created", json!({}));
    let newer = memory.wanted("customer.created", json!({}));
    assert!(older["id"].as_str() < newer["id"].as_str());
}
