//! Observations in few words.

use payments_ledger::{Mark, Mirrored, Object, Observation, Source};
use serde_json::{Map, Value};

pub fn map(value: Value) -> Map<String, Value> {
    match value {
        Value::Object(map) => map,
        other => panic!("{other} is not an object"),
    }
}

/// An event that does not say what it changed.
pub fn event(second: i64, event_type: &str, body: Value) -> Observation {
    told(
        &format!("evt_{second}_{event_type}"),
        second,
        event_type,
        body,
        None,
    )
}

/// An event that says what it changed.
pub fn update(id: &str, second: i64, event_type: &str, body: Value, was: Value) -> Observation {
    told(id, second, event_type, body, Some(was))
}

fn told(id: &str, second: i64, event_type: &str, body: Value, was: Option<Value>) -> Observation {
    observe(
        second,
        body,
        Source::Event {
            id: id.to_owned(),
            event_type: event_type.to_owned(),
            previous_attributes: was.map(map),
        },
    )
}

pub fn listed(second: i64, body: Value) -> Observation {
    observe(second, body, Source::Listing)
}

pub fn fetched(second: i64, body: Value, after: Option<Mark>) -> Observation {
    observe(second, body, Source::Fetch { after })
}

pub fn answered(second: i64, body: Value, after: Option<Mark>) -> Observation {
    observe(second, body, Source::Answer { after })
}

fn observe(second: i64, body: Value, source: Source) -> Observation {
    Observation::new(map(body), second, source).expect("a body with object and id")
}

/// Joins one after the other, by way of the table each time.
pub fn join(observations: &[Observation]) -> Mirrored {
    let mut joined: Option<Mirrored> = None;
    for observation in observations {
        let one = Mirrored::of(observation.clone());
        let all = match joined {
            Some(before) => before.join(one),
            None => one,
        };
        joined = Some(through_the_table(&all));
    }
    joined.expect("at least one observation")
}

pub fn through_the_table(mirrored: &Mirrored) -> Mirrored {
    let stored = mirrored.to_stored();
    let key = mirrored.object().key;
    let back = Mirrored::from_stored(key, stored.clone()).expect("what was stored can be read");
    assert_eq!(&back, mirrored, "{stored:#?}");
    back
}

/// The object after the observations arrived in every order, which must all agree.
pub fn in_every_order(observations: &[Observation]) -> Object {
    let expected = join(observations);
    permutations(observations.len(), &mut |order| {
        let arrived: Vec<_> = order
            .iter()
            .map(|place| observations[*place].clone())
            .collect();
        assert_eq!(join(&arrived), expected, "in the order {order:?}");
    });
    expected.object()
}

fn permutations(length: usize, each: &mut impl FnMut(&[usize])) {
    fn go(order: &mut Vec<usize>, from: usize, each: &mut impl FnMut(&[usize])) {
        if from == order.len() {
            return each(order);
        }
        for other in from..order.len() {
            order.swap(from, other);
            go(order, from + 1, each);
            order.swap(from, other);
        }
    }
    go(&mut (0..length).collect(), 0, each);
}
