//! More is told of one second than is kept.

use std::fs;
use std::sync::LazyLock;
use std::time::{Duration, Instant};

use payments_ledger::{Mirrored, Observation};
use serde_json::{Value, json};

use crate::observed::{event, fetched, join, through_the_table, update};

/// How much of a second is told apart.
const LIMIT: usize = 16;

fn body(name: usize) -> Value {
    json!({
        "object": "product", "id": "prod_1", "created": 1, "name": name, "active": true,
        "description": "A cup of tea, as it is served at four o'clock.", "metadata": {"order": name},
        "images": ["https://shop.example/tea.png"], "default_price": null, "url": null,
    })
}

/// The updates of one second, each from the name before.
fn updates(count: usize) -> Vec<Observation> {
    let update = |name: usize| {
        let was = json!({"name": name - 1, "metadata": {"order": name - 1}});
        update(
            &format!("evt_{name}"),
            10,
            "product.updated",
            body(name),
            was,
        )
    };
    (1..=count).map(update).collect()
}

/// How long this thread has been running. Not by the clock where that can be helped: the
/// neighbours on the machine would count.
fn running() -> Duration {
    static STARTED: LazyLock<Instant> = LazyLock::new(Instant::now);
    let told = fs::read_to_string("/proc/thread-self/schedstat").unwrap_or_default();
    let nanoseconds = told.split(' ').next().and_then(|first| first.parse().ok());
    nanoseconds.map_or_else(|| STARTED.elapsed(), Duration::from_nanos)
}

#[test]
fn a_thousand_updates_in_one_second_take_less_than_two() {
    let mut updates = updates(1000).into_iter().map(Mirrored::of);
    let began = running();
    let mut joined = updates.next().expect("a thousand");
    for update in updates {
        let stored = joined.to_stored();
        assert!(
            stored
                .evidence
                .as_ref()
                .is_none_or(|evidence| evidence.len() < 8_000)
        );
        joined = Mirrored::from_stored(joined.key().clone(), stored)
            .expect("what was stored can be read")
            .join(update);
    }
    let took = running() - began;
    assert!(took < Duration::from_secs(2), "{took:?}");
    assert!(joined.object().undecided);
}

#[test]
fn all_that_fits_is_chained() {
    let chained = join(&updates(LIMIT - 1)).object();
    assert_eq!(chained.body["name"], LIMIT - 1);
    assert!(!chained.undecided);
    assert!(join(&updates(LIMIT)).object().undecided);
}

#[test]
fn the_same_told_twice_is_no_crowd() {
    let mut told = updates(LIMIT - 1);
    told.push(event(9, "product.updated", body(0)));
    let joined = join(&told);
    assert_eq!(joined.clone().join(joined.clone()), joined);
}

#[test]
fn the_order_of_a_crowd_does_not_matter() {
    let told = updates(200);
    let joined = join(&told);
    let backwards: Vec<_> = told.iter().rev().cloned().collect();
    assert_eq!(join(&backwards), joined);
    let (first, last) = told.split_at(90);
    assert_eq!(join(last).join(join(first)), joined);
    assert_eq!(joined.clone().join(join(&told[40..60])), joined);
}

#[test]
fn the_end_of_a_life_stands_out_of_a_crowd() {
    let with_status = |status: &str, quantity: usize| json!({"object": "subscription", "id": "sub_1", "created": 1, "status": status, "quantity": quantity});
    let mut told: Vec<_> = (1..100)
        .map(|quantity| {
            update(
                &format!("evt_{quantity}"),
                10,
                "customer.subscription.updated",
                with_status("active", quantity),
                json!({"quantity": quantity - 1}),
            )
        })
        .collect();
    told.insert(
        50,
        event(
            10,
            "customer.subscription.deleted",
            with_status("canceled", 99),
        ),
    );
    let object = join(&told).object();
    assert_eq!(object.body["status"], "canceled");
    assert!(!object.undecided, "nothing comes after it");
}

#[test]
fn asking_settles_a_crowd() {
    let crowd = join(&updates(100));
    for (second, settles) in [(10, false), (11, true)] {
        let asked = fetched(second, body(7), Some(crowd.mark()));
        let object = through_the_table(&crowd.clone().join(Mirrored::of(asked))).object();
        assert_eq!(object.body["name"], 7, "asked in second {second}");
        assert_eq!(object.undecided, !settles, "asked in second {second}");
    }
    let next = event(11, "product.updated", body(101));
    let object = crowd.join(Mirrored::of(next)).object();
    assert_eq!(object.body["name"], 101);
    assert!(!object.undecided);
}

#[test]
fn what_only_one_of_a_crowd_has_is_not_lost() {
    let mut rare = body(0);
    rare["rare"] = "only here".into();
    for place in [0, 50, 100] {
        let mut told = updates(100);
        told.insert(place, event(10, "product.updated", rare.clone()));
        assert_eq!(join(&told).object().body["rare"], "only here");
    }
}
