use arbitrary::{Result, Unstructured};
use payments_ledger::{Mirrored, Observation, Source};
use serde_json::{Map, Value, json};

use crate::any;

const TYPES: &[&str] = &[
    "product",
    "subscription",
    "dispute",
    "charge",
    "checkout.session",
];

/// Whatever is observed of an object, in whatever order and grouping and however often it is
/// joined: the same comes of it, also by way of the table.
pub fn join(data: &[u8]) {
    // Too few bytes for a case are one, too.
    let _ = any_order(&mut Unstructured::new(data));
}

fn any_order(u: &mut Unstructured<'_>) -> Result<()> {
    let object_type = *u.choose(TYPES)?;
    let mut told: Vec<Observation> = Vec::new();
    for _ in 0..u.int_in_range(2..=48)? {
        let one = observation(u, object_type, &told)?;
        told.extend(one);
    }
    let Some(joined) = told
        .iter()
        .cloned()
        .map(Mirrored::of)
        .reduce(through_the_table)
    else {
        return Ok(());
    };
    let mut parts: Vec<Mirrored> = told.into_iter().map(Mirrored::of).collect();
    while parts.len() > 1 {
        let one = parts.swap_remove(u.choose_index(parts.len())?);
        let other = parts.swap_remove(u.choose_index(parts.len())?);
        let mut both = through_the_table(one.clone(), other);
        if u.ratio(1, 4)? {
            both = both.join(one);
        }
        parts.push(both);
    }
    assert_eq!(parts[0], joined);
    assert_eq!(parts[0].to_stored(), joined.to_stored());
    assert_eq!(parts[0].object(), joined.object());
    Ok(())
}

fn through_the_table(one: Mirrored, other: Mirrored) -> Mirrored {
    let joined = one.join(other);
    let read = Mirrored::from_stored(joined.key().clone(), joined.to_stored());
    let read = read.expect("what was stored can be read");
    assert_eq!(read, joined);
    read
}

/// Few values, so that states, seconds and shapes coincide all the time; now and then any.
fn observation(
    u: &mut Unstructured<'_>,
    object_type: &str,
    told: &[Observation],
) -> Result<Option<Observation>> {
    let mut body = fields(u)?;
    if u.ratio(4, 5)? {
        body.insert("created".into(), (*u.choose(&[8, 8, 8, 10])?).into());
    } else if u.ratio(1, 4)? {
        body.insert("deleted".into(), true.into());
    }
    if u.ratio(1, 16)? {
        body.insert(any::name(u)?, any::value(u)?);
    }
    body.insert("object".into(), object_type.into());
    body.insert("id".into(), "x_1".into());
    let second = u.int_in_range(8..=11)?;
    let source = match u.int_in_range(0..=9)? {
        0 => Source::Listing,
        1..=3 => {
            let mut known = None;
            for one in told {
                if u.ratio(1, 4)? {
                    let one = Mirrored::of(one.clone());
                    known = Some(match known {
                        Some(known) => one.join(known),
                        None => one,
                    });
                }
            }
            let after = known.map(|known| known.mark());
            match u.arbitrary()? {
                true => Source::Answer { after },
                false => Source::Fetch { after },
            }
        }
        _ => Source::Event {
            id: format!("evt_{}", u.int_in_range(0..=20)?),
            event_type: format!(
                "{object_type}.{}",
                u.choose(&["created", "updated", "updated", "updated", "deleted"])?
            ),
            previous_attributes: u.ratio(2, 3)?.then(|| fields(u)).transpose()?,
        },
    };
    Ok(Observation::new(body, second, source))
}

fn fields(u: &mut Unstructured<'_>) -> Result<Map<String, Value>> {
    let values = [
        json!(null),
        json!(0),
        json!(1),
        json!({}),
        json!({"order": 1}),
        json!({"order": null}),
    ];
    let mut fields = Map::new();
    for name in ["a", "b", "metadata"] {
        if u.ratio(2, 3)? {
            fields.insert(name.into(), u.choose(&values)?.clone());
        }
    }
    if u.ratio(1, 2)? {
        let status = *u.choose(&["active", "lost", "canceled", "succeeded", "complete"])?;
        fields.insert("status".into(), status.into());
    }
    Ok(fields)
}
