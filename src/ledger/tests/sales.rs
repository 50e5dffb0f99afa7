//! A sale that began here: what its rows say, whoever arrives first, and whose they are.

mod world;

use ledger::memory::Memory;
use ledger::rows::{CheckoutSession, CustomerMapping, Invoice, Payment, Projected, Subscription};
use ledger::{Cell, Lock, Outcome, Scope, Time, observe, reproject};
use payments_ledger as ledger;
use serde_json::json;
use world::{Dice, Shape, World, deliver, empty, key, lives, our_row, text, with_our_row};

fn told(world: &World) -> Vec<ledger::Observation> {
    let events = world.told.iter().enumerate();
    events
        .map(|(n, happening)| happening.event(&format!("evt_{n}"), Shape::Endive))
        .collect()
}

fn tell(store: &mut Memory, world: &World) {
    told(world)
        .into_iter()
        .for_each(|event| deliver(store, vec![event]));
}

/// The moment at which the trigger that apps write fulfils an order: `after insert or update of
/// status on payments.payment_history`, for one-time payments that succeeded, looking up
/// `new.metadata ->> 'order_id'`.
fn fulfilled(store: &Memory) -> usize {
    let orders = store
        .fired
        .iter()
        .filter_map(|(_, row)| Payment::from_row(row));
    let succeeded = orders.filter(|row| {
        row.kind == "one_time_payment"
            && row.status == "succeeded"
            && row
                .metadata
                .as_ref()
                .is_some_and(|m| m["order_id"] == "order 7")
            && row.stripe_checkout_session_id.as_deref() == Some("cs_1")
    });
    succeeded.count()
}

#[test]
fn an_order_is_fulfilled_by_whichever_arrives_first() {
    let events = told(&lives::one_time());
    for first in ["payment_intent", "charge", "checkout.session"] {
        let mut store = with_our_row("payment");
        let last = events
            .iter()
            .rev()
            .find(|event| event.key.object_type == first);
        deliver(&mut store, vec![last.expect("an event").clone()]);
        assert_eq!(fulfilled(&store), 1, "{first}");
    }
}

#[test]
fn an_order_is_fulfilled_in_every_order_of_arrival() {
    let events = told(&lives::one_time());
    for seed in 0..200 {
        let mut store = with_our_row("payment");
        let mut events = events.clone();
        Dice::new(seed).shuffle(&mut events);
        events
            .into_iter()
            .for_each(|event| deliver(&mut store, vec![event]));
        assert!(fulfilled(&store) >= 1, "seed {seed}");
    }
}

/// create_checkout_session rolled back after Stripe had answered, and the buyer paid.
#[test]
fn a_session_whose_row_is_gone_is_built_from_its_metadata() {
    let mut with_row = with_our_row("payment");
    tell(&mut with_row, &lives::one_time());
    let expected = with_row.all::<CheckoutSession>().remove(0);
    for seed in 0..100 {
        let mut store = empty();
        let mut events = told(&lives::one_time());
        Dice::new(seed).shuffle(&mut events);
        events
            .into_iter()
            .for_each(|event| deliver(&mut store, vec![event]));
        let row = store.all::<CheckoutSession>().remove(0);
        let created = Time::from_seconds(100);
        let customer_email = Some("typed@example.com".to_owned());
        let line_items = Some(json!([]));
        assert_eq!(
            row,
            CheckoutSession {
                created_at: created,
                customer_email,
                line_items,
                ..expected.clone()
            }
        );
        let payment = store.all::<Payment>().remove(0);
        assert_eq!(payment.metadata, Some(json!({"order_id": "order 7"})));
        assert_eq!(payment.subject_id.as_deref(), Some("t1"));
    }
}

#[test]
fn what_the_caller_asked_for_is_never_overwritten() {
    let mut store = with_our_row("payment");
    let mut late = our_row("payment", Some("cs_1"));
    late.customer_email = Some("hint@example.com".into());
    store.insert(late.clone().into_row());
    tell(&mut store, &lives::one_time());
    let row = store.all::<CheckoutSession>().remove(0);
    assert_eq!(row.customer_email, late.customer_email);
    assert_eq!(row.line_items, late.line_items);
    assert_eq!(row.created_at, late.created_at);
    assert_eq!(row.status.as_deref(), Some("completed"));
    assert_eq!(row.url, None);
}

#[test]
fn a_row_stands_for_one_session() {
    let mut store = empty();
    store.insert(our_row("payment", Some("cs_other")).into_row());
    tell(&mut store, &lives::one_time());
    let row = store.all::<CheckoutSession>().remove(0);
    assert_eq!(row.stripe_checkout_session_id.as_deref(), Some("cs_other"));
    assert_eq!(row.status.as_deref(), Some("open"));
}

#[test]
fn a_recovered_session_takes_over_the_row() {
    let mut store = empty();
    store.insert(our_row("payment", Some("cs_0")).into_row());
    let mut world = lives::one_time();
    for happening in &mut world.told {
        if happening.body["object"] == "checkout.session" {
            happening
                .body
                .insert("recovered_from".into(), json!("cs_0"));
        }
    }
    tell(&mut store, &world);
    let row = store.all::<CheckoutSession>().remove(0);
    assert_eq!(row.stripe_checkout_session_id.as_deref(), Some("cs_1"));
    assert_eq!(row.status.as_deref(), Some("completed"));
}

#[test]
fn foreign_sessions_are_mirrored_only() {
    for patch in [json!({"metadata": {}}), json!({"mode": "setup"})] {
        let mut store = empty();
        let mut world = World::default();
        world.change(
            1,
            "cs_1",
            json!({"status": "complete", "mode": "payment", "metadata": {}}),
        );
        world.tell(2, "checkout.session.completed", "cs_1", patch);
        tell(&mut store, &world);
        assert_eq!(store.rows().len(), 0);
        assert_eq!(store.keys(), [key("checkout.session", "cs_1")]);
    }
}

/// A subscription of which nothing here knows the subject.
fn silent() -> World {
    let mut world = lives::silent();
    world
        .told
        .retain(|happening| happening.body["object"] != "checkout.session");
    world
}

fn mapping(subject: &str) -> CustomerMapping {
    CustomerMapping {
        environment: "test".into(),
        subject_type: "team".into(),
        subject_id: subject.into(),
        stripe_customer_id: "cus_1".into(),
        linked_at: Time::from_seconds(50),
        created_at: Time::from_seconds(50),
        updated_at: Time::from_seconds(50),
    }
}

fn subjects(store: &Memory) -> Vec<Option<String>> {
    let subscriptions = store
        .all::<Subscription>()
        .into_iter()
        .map(|row| row.subject_id);
    let invoices = store.all::<Invoice>().into_iter().map(|row| row.subject_id);
    let payments = store.all::<Payment>().into_iter().map(|row| row.subject_id);
    subscriptions.chain(invoices).chain(payments).collect()
}

/// `link_customer`: the row, then everything of the customer's.
fn link(store: &mut Memory, subject: &str) {
    store.insert(mapping(subject).into_row());
    let mut locks: Vec<Lock> = Vec::new();
    loop {
        let savepoint = store.clone();
        match reproject(store, &[key("customer", "cus_1")], &locks).expect("memory does not fail") {
            Outcome::Settled(_) => return store.commit(),
            Outcome::Contended(more) => locks.extend(more),
        }
        *store = savepoint;
    }
}

#[test]
fn linking_a_customer_reaches_everything_of_theirs() {
    for start in [empty(), empty().jealous()] {
        let mut after = start.clone();
        tell(&mut after, &silent());
        assert_eq!(subjects(&after), [None, None, None, None, None]);
        link(&mut after, "t9");
        assert_eq!(subjects(&after), vec![Some("t9".to_owned()); 5]);

        let mut before = start;
        link(&mut before, "t9");
        tell(&mut before, &silent());
        assert_eq!(text(&after), text(&before));
    }
}

#[test]
fn where_several_subjects_share_a_customer_nobody_is_guessed() {
    let mut store = empty();
    tell(&mut store, &silent());
    link(&mut store, "t8");
    link(&mut store, "t9");
    assert_eq!(subjects(&store), [None, None, None, None, None]);
    assert_eq!(store.all::<CustomerMapping>().len(), 2);
    // What names its subject itself is not touched by that.
    tell(&mut store, &lives::subscribed());
    assert_eq!(
        store.all::<Subscription>()[0].subject_id.as_deref(),
        Some("t1")
    );
}

#[test]
fn a_subject_may_have_several_customers() {
    let mut store = empty();
    link(&mut store, "t9");
    let other = CustomerMapping {
        stripe_customer_id: "cus_2".into(),
        ..mapping("t9")
    };
    store.insert(other.into_row());
    tell(&mut store, &silent());
    assert_eq!(subjects(&store), vec![Some("t9".to_owned()); 5]);
}

#[test]
fn a_subscription_that_changes_hands_takes_its_mapping_along() {
    let mut world = lives::subscribed();
    world
        .told
        .retain(|happening| happening.body["object"] != "checkout.session");
    let given = json!({"metadata": {"payments_subject_type": "team", "payments_subject_id": "t2"}});
    world.tell(700, "customer.subscription.updated", "sub_1", given);
    for seed in 0..60 {
        let mut store = empty();
        let mut events = told(&world);
        Dice::new(seed).shuffle(&mut events);
        events
            .into_iter()
            .for_each(|event| deliver(&mut store, vec![event]));
        let mapped: Vec<_> = store
            .all::<CustomerMapping>()
            .into_iter()
            .map(|row| row.subject_id)
            .collect();
        assert_eq!(mapped, ["t2"]);
        assert_eq!(
            store.all::<Subscription>()[0].subject_id.as_deref(),
            Some("t2")
        );
        // The bill was made for the subject of its day.
        assert_eq!(store.all::<Payment>()[0].subject_id.as_deref(), Some("t1"));
    }
}

#[test]
fn rows_are_written_in_the_order_in_which_triggers_look_them_up() {
    let mut store = with_our_row("payment");
    store.fired.clear();
    deliver(&mut store, told(&lives::one_time()));
    let tables: Vec<_> = store.fired.iter().map(|(_, row)| row.table.name).collect();
    assert_eq!(
        tables,
        [
            "customers",
            "checkout_sessions",
            "customer_mappings",
            "payment_history"
        ]
    );
}

#[test]
fn a_trigger_sees_a_row_once_and_whole() {
    let mut store = with_our_row("subscription");
    store.fired.clear();
    deliver(&mut store, told(&lives::subscribed()));
    let mut keys: Vec<_> = store
        .fired
        .iter()
        .map(|(_, row)| (row.table.name, row.key()))
        .collect();
    let all = keys.len();
    keys.dedup();
    assert_eq!(keys.len(), all);
    let row = store
        .fired
        .iter()
        .find(|(_, row)| row.table.name == "subscriptions");
    let row = &row.expect("a subscription").1;
    assert_eq!(row.get("status"), &Cell::Text("active".into()));
    assert_eq!(row.get("subject_id"), &Cell::Text("t1".into()));
}

#[test]
fn a_lock_that_another_holds_is_handed_to_the_caller() {
    let world = lives::subscribed();
    let mut store = empty();
    tell(&mut store, &world);
    let mut store = store.jealous();
    let charge = told(&world)
        .into_iter()
        .find(|event| event.key.object_type == "charge");
    let charge = vec![charge.expect("a charge")];
    let savepoint = store.clone();
    let outcome = observe(&mut store, charge.clone(), &[]).expect("memory does not fail");
    let Outcome::Contended(locks) = outcome else {
        panic!("nothing was contended")
    };
    assert!(locks.contains(&Lock::exclusive(Scope::Invoice("in_1".into()))));
    assert_eq!(store.fired, savepoint.fired);
    store = savepoint;
    deliver(&mut store, charge);
}

#[test]
fn a_webhook_takes_few_round_trips() {
    let world = lives::renewed_and_canceled();
    let mut store = with_our_row("subscription");
    tell(&mut store, &world);
    let trips = |store: &mut Memory, object_type: &str| {
        let event = told(&world)
            .into_iter()
            .rev()
            .find(|e| e.key.object_type == object_type);
        let outcome = observe(store, vec![event.expect("an event")], &[]);
        assert!(matches!(outcome, Ok(Outcome::Settled(_))));
        let trips = store.round_trips;
        store.commit();
        trips
    };
    assert_eq!(
        trips(&mut store, "subscription"),
        4,
        "lock, merge, find, write"
    );
    assert_eq!(trips(&mut store, "customer"), 3, "lock, merge, write");
    assert!(trips(&mut store, "payment_intent") <= 10);
}
