//! An object lives, Stripe tells of it, and what is told arrives in any order: once everything has
//! arrived the mirror shows how the object really is, or says that it cannot know.

use crate::observed::{answered, event, fetched, join, listed, update};
use payments_ledger::{Mark, Mirrored, Observation};
use proptest::collection::vec;
use proptest::prelude::*;
use serde_json::{Value, json};

#[derive(Clone, Debug)]
struct Step {
    seconds_later: i64,
    state: u8,
    what: What,
}

#[derive(Clone, Debug)]
enum What {
    /// Something changes; maybe Stripe tells it in two events.
    Change { twice: bool },
    /// We change something, knowing some of what was told. Stripe's `Date` has no fractions, so
    /// the answer can be stamped a second early.
    Post { known: Vec<bool>, early: i64 },
    /// We look.
    Get {
        known: Option<Vec<bool>>,
        early: i64,
    },
    /// A page is read.
    List { early: i64 },
}

fn what() -> impl Strategy<Value = What> {
    let known = || vec(any::<bool>(), 24);
    prop_oneof![
        6 => any::<bool>().prop_map(|twice| What::Change { twice }),
        2 => (known(), 0..2i64).prop_map(|(known, early)| What::Post { known, early }),
        1 => (proptest::option::of(known()), 0..2i64)
            .prop_map(|(known, early)| What::Get { known, early }),
        1 => (0..3i64).prop_map(|early| What::List { early }),
    ]
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let seconds_later = prop_oneof![3 => Just(0i64), 1 => Just(1), 1 => Just(2)];
    let step = (seconds_later, 0..4u8, what()).prop_map(|(seconds_later, state, what)| Step {
        seconds_later,
        state,
        what,
    });
    vec(step, 1..9)
}

fn body(state: u8) -> Value {
    json!({"object": "product", "id": "prod_1", "created": 100, "name": state, "tags": [state % 2]})
}

/// All that is told of a life, in the order it happened, and how it ended.
fn live(steps: &[Step]) -> (Vec<Observation>, u8) {
    let (mut now, mut state) = (100, 0);
    let mut told = vec![event(now, "product.created", body(state))];
    for (
        number,
        Step {
            seconds_later,
            state: next,
            what,
        },
    ) in steps.iter().enumerate()
    {
        now += seconds_later;
        let mark = |known: &[bool], told: &[Observation]| -> Option<Mark> {
            let known = told.iter().zip(known).filter(|(_, known)| **known);
            let known = known.map(|(observation, _)| Mirrored::of(observation.clone()));
            known.reduce(Mirrored::join).map(|known| known.mark())
        };
        let change = |number: String| {
            let was = json!({"name": state, "tags": [state % 2]});
            update(&number, now, "product.updated", body(*next), was)
        };
        match what {
            What::Change { twice } if *next != state => {
                told.push(change(format!("evt_{number}")));
                if *twice {
                    told.push(change(format!("evt_{number}_again")));
                }
                state = *next;
            }
            What::Post { known, early } if *next != state => {
                let after = mark(known, &told);
                told.push(change(format!("evt_{number}")));
                told.push(answered(now - early, body(*next), after));
                state = *next;
            }
            What::Change { .. } | What::Post { .. } => {}
            What::Get { known, early } => {
                let after = known.as_deref().and_then(|known| mark(known, &told));
                told.push(fetched(now - early, body(state), after));
            }
            What::List { early } => told.push(listed(now - early, body(state))),
        }
    }
    (told, state)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 500, ..ProptestConfig::default() })]

    #[test]
    fn the_mirror_shows_the_truth_or_says_that_it_cannot(
        (truth, told, arrived) in steps().prop_flat_map(|steps| {
            let (told, truth) = live(&steps);
            (Just(truth), Just(told.clone()), Just(told).prop_shuffle())
        }),
    ) {
        let object = join(&arrived).object();
        prop_assert_eq!(&object, &join(&told).object());
        prop_assert!(
            object.undecided || object.body["name"] == truth,
            "{} instead of {truth}", object.body["name"],
        );
    }
}
