//! Joining is commutative, associative and idempotent, and the table forgets nothing.

use crate::observed::{join, map, through_the_table};

use payments_ledger::{Mirrored, Observation, Source};
use std::ops::Range;

use proptest::collection::vec;
use proptest::prelude::*;
use serde_json::{Map, Value, json};

const TYPES: [&str; 4] = ["product", "subscription", "dispute", "charge"];

/// One observation, yet without what must be known of the others: a mark.
#[derive(Clone, Debug)]
struct Draft {
    body: Map<String, Value>,
    second: i64,
    teller: Teller,
}

#[derive(Clone, Debug)]
enum Teller {
    Event {
        id: u8,
        name: &'static str,
        previous: Option<Map<String, Value>>,
    },
    Answer {
        fresh: bool,
        known: Option<Vec<bool>>,
    },
    Listing,
}

/// Few values, so that states, seconds and shapes coincide all the time.
fn fields() -> impl Strategy<Value = Map<String, Value>> {
    let status = prop_oneof![
        Just("active"),
        Just("lost"),
        Just("canceled"),
        Just("succeeded")
    ];
    let loose = || {
        prop_oneof![
            3 => Just(None),
            1 => Just(Some(Value::Null)),
            4 => (0..2).prop_map(|number| Some(json!(number))),
        ]
    };
    let metadata = prop_oneof![
        Just(None),
        Just(Some(json!({}))),
        Just(Some(json!({"order": 1}))),
        Just(Some(json!({"order": null}))),
    ];
    (proptest::option::of(status), loose(), loose(), metadata).prop_map(
        |(status, a, b, metadata)| {
            [
                ("status", status.map(Value::from)),
                ("a", a),
                ("b", b),
                ("metadata", metadata),
            ]
            .into_iter()
            .filter_map(|(name, value)| Some((name.to_owned(), value?)))
            .collect()
        },
    )
}

fn teller(ids: Range<u8>) -> impl Strategy<Value = Teller> {
    let name = prop_oneof![
        1 => Just("created"),
        6 => Just("updated"),
        1 => Just("deleted"),
    ];
    prop_oneof![
        6 => (ids, name, proptest::option::weighted(0.7, fields()))
            .prop_map(|(id, name, previous)| Teller::Event { id, name, previous }),
        3 => (any::<bool>(), proptest::option::of(vec(any::<bool>(), 8)))
            .prop_map(|(fresh, known)| Teller::Answer { fresh, known }),
        1 => Just(Teller::Listing),
    ]
}

fn draft(ids: Range<u8>) -> impl Strategy<Value = Draft> {
    let created = prop_oneof![
        6 => Just(json!({"created": 8})),
        1 => Just(json!({"created": 10})),
        1 => Just(json!({})),
        1 => Just(json!({"created": null})),
        1 => Just(json!({"deleted": true})),
    ];
    (fields(), created, 8..12i64, teller(ids)).prop_map(|(mut body, created, second, teller)| {
        body.extend(map(created));
        Draft {
            body,
            second,
            teller,
        }
    })
}

/// Observations of one object, each answer marked with what some of the earlier ones made known.
fn observations() -> impl Strategy<Value = Vec<Observation>> {
    told(vec(draft(0..4), 3..10))
}

/// More of them than are kept of one second.
fn crowd() -> impl Strategy<Value = Vec<Observation>> {
    told(vec(draft(0..255), 40..120))
}

fn told(drafts: impl Strategy<Value = Vec<Draft>>) -> impl Strategy<Value = Vec<Observation>> {
    (0..TYPES.len(), drafts).prop_map(|(object_type, drafts)| {
        let object_type = TYPES[object_type];
        let mut all: Vec<Observation> = Vec::new();
        for Draft {
            mut body,
            second,
            teller,
        } in drafts
        {
            body.extend(map(json!({"object": object_type, "id": "x_1"})));
            let source = match teller {
                Teller::Event { id, name, previous } => Source::Event {
                    id: format!("evt_{id}"),
                    event_type: format!("{object_type}.{name}"),
                    previous_attributes: previous,
                },
                Teller::Answer { fresh, known } => {
                    let known = known.unwrap_or_default();
                    let known = all.iter().zip(known).filter(|(_, known)| *known);
                    let after = known
                        .map(|(observation, _)| Mirrored::of(observation.clone()))
                        .reduce(Mirrored::join)
                        .map(|known| known.mark());
                    if fresh {
                        Source::Answer { after }
                    } else {
                        Source::Fetch { after }
                    }
                }
                Teller::Listing => Source::Listing,
            };
            all.extend(Observation::new(body, second, source));
        }
        all
    })
}

/// Joins in any order and grouping: each choice says which two parts become one, and whether one
/// of them is joined twice.
fn join_somehow(observations: &[Observation], choices: &[(usize, usize, bool)]) -> Mirrored {
    let mut parts: Vec<Mirrored> = observations.iter().cloned().map(Mirrored::of).collect();
    let mut choices = choices.iter().cycle();
    while parts.len() > 1 {
        let (first, second, again) = choices.next().expect("at least one choice");
        let one = parts.swap_remove(first % parts.len());
        let other = parts.swap_remove(second % parts.len());
        let mut joined = one.clone().join(other);
        if *again {
            joined = joined.join(one);
        }
        parts.push(through_the_table(&joined));
    }
    parts.remove(0)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 500, ..ProptestConfig::default() })]

    #[test]
    fn joining_is_commutative(all in observations(), cut in 0..8usize) {
        let (a, b) = all.split_at(1 + cut % (all.len() - 1));
        let (a, b) = (join(a), join(b));
        prop_assert_eq!(a.clone().join(b.clone()), b.join(a));
    }

    #[test]
    fn joining_is_associative(all in observations(), cuts in (0..8usize, 0..8usize)) {
        let first = 1 + cuts.0 % (all.len() - 2);
        let second = first + 1 + cuts.1 % (all.len() - first - 1);
        let a = join(&all[..first]);
        let b = join(&all[first..second]);
        let c = join(&all[second..]);
        prop_assert_eq!(a.clone().join(b.clone()).join(c.clone()), a.join(b.join(c)));
    }

    #[test]
    fn joining_again_changes_nothing(all in observations(), again in any::<prop::sample::Index>()) {
        let joined = join(&all);
        prop_assert_eq!(&joined.clone().join(joined.clone()), &joined);
        let part = Mirrored::of(all[again.index(all.len())].clone());
        prop_assert_eq!(&joined.clone().join(part), &joined);
    }

    #[test]
    fn order_and_grouping_do_not_matter(
        all in observations(),
        choices in vec((0..8usize, 0..8usize, any::<bool>()), 1..16),
    ) {
        let joined = join_somehow(&all, &choices);
        prop_assert_eq!(&joined, &join(&all));
        prop_assert_eq!(joined.to_stored(), join(&all).to_stored());
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 16, ..ProptestConfig::default() })]

    #[test]
    fn a_crowd_keeps_the_laws(
        all in crowd(),
        cuts in (any::<prop::sample::Index>(), any::<prop::sample::Index>()),
        choices in vec((0..120usize, 0..120usize, any::<bool>()), 1..16),
    ) {
        let joined = join(&all);
        let (a, b) = all.split_at(1 + cuts.0.index(all.len() - 1));
        let (a, b) = (join(a), join(b));
        prop_assert_eq!(&a.clone().join(b.clone()), &joined);
        prop_assert_eq!(&b.join(a), &joined);
        prop_assert_eq!(&joined.clone().join(joined.clone()), &joined);
        let again = Mirrored::of(all[cuts.1.index(all.len())].clone());
        prop_assert_eq!(&joined.clone().join(again), &joined);
        prop_assert_eq!(&join_somehow(&all, &choices), &joined);
        prop_assert_eq!(join_somehow(&all, &choices).to_stored(), joined.to_stored());
    }
}
