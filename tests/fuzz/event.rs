use std::ops::Range;

use arbitrary::{Result, Unstructured};
use payments_ledger::{Fields, Mirrored, Observation, Source};
use payments_stripe::event::{Event, sanitize};
use serde_json::json;
use serde_json::value::RawValue;

use crate::LIVES;
use crate::world::{self, SHAPES};

/// A body is refused, or read into what a table can hold: no panic, no NUL, and cleaning what is
/// clean changes nothing.
pub fn event(data: &[u8]) {
    let mut u = Unstructured::new(data);
    let text = any_text(&mut u).unwrap_or_else(|_| String::from_utf8_lossy(data).into_owned());
    let clean = sanitize(&text);
    assert_eq!(sanitize(&clean), clean);
    let Ok(event) = Event::parse(&clean) else {
        return;
    };
    let previous_attributes = event.previous_attributes.map(RawValue::get);
    let (Ok(object), Ok(previous_attributes)) = (
        Fields::parse(event.object.get()),
        previous_attributes.map(serde_json::from_str).transpose(),
    ) else {
        return;
    };
    let source = Source::Event {
        id: event.id,
        event_type: event.kind,
        previous_attributes,
    };
    let Some(observation) = Observation::new(object, event.created, source) else {
        return;
    };
    let mirrored = Mirrored::of(observation.clone());
    let stored = mirrored.to_stored();
    assert_eq!(sanitize(&stored.body), stored.body);
    let read = Mirrored::from_stored(mirrored.key().clone(), stored);
    assert_eq!(read.expect("what was stored can be read"), mirrored);
    world::deliver(&mut world::empty(), vec![observation]);
}

/// An event of Stripe's, with anything written over some of it.
fn any_text(u: &mut Unstructured<'_>) -> Result<String> {
    let (_, _, world) = u.choose(&LIVES)?;
    let happening = u.choose(&world.told)?;
    let told = happening.event("evt_1", *u.choose(&SHAPES)?);
    let previous_attributes = match told.source {
        Source::Event {
            previous_attributes,
            ..
        } => previous_attributes,
        _ => None,
    };
    let mut text = json!({
        "id": "evt_1", "object": "event", "type": happening.event_type, "created": told.as_of,
        "livemode": false, "api_version": "2026-10-28.endive",
        "data": {"object": told.body.to_map(), "previous_attributes": previous_attributes},
    })
    .to_string()
    .into_bytes();
    for _ in 0..u.int_in_range(0..=4)? {
        let range = any_range(u, text.len())?;
        let new: Vec<u8> = match u.int_in_range(0..=3)? {
            0 => Vec::new(),
            1 => text[any_range(u, text.len())?].to_vec(),
            2 => u
                .choose(&[
                    &b"\\u0000"[..],
                    b"\\ud800",
                    b"\\",
                    b"\"",
                    b"{",
                    b"[[[[",
                    b"null",
                    b"1e400",
                ])?
                .to_vec(),
            _ => u.arbitrary()?,
        };
        text.splice(range, new);
    }
    Ok(String::from_utf8_lossy(&text).into_owned())
}

fn any_range(u: &mut Unstructured<'_>, length: usize) -> Result<Range<usize>> {
    let start = u.int_in_range(0..=length)?;
    let end = (start + u.int_in_range(0..=40)?).min(length);
    Ok(start..end)
}
