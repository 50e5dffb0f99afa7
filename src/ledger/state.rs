//! Which state of an object a body shows, as one digest, and what it showed before a change.

use std::fmt;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use serde_json::{Map, Value};
use sha2::{Digest as _, Sha256};

use crate::canonical::{write_scalar, write_value};
use crate::fields::Fields;
use crate::spelling::spell_without_nulls;

/// 128 bits of SHA-256. Stored beside the objects, so it must never change between versions.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Digest(u128);

impl Digest {
    pub(crate) fn of(text: impl AsRef<[u8]>) -> Digest {
        let hash: [u8; 32] = Sha256::digest(text.as_ref()).into();
        Digest(
            hash.iter()
                .take(16)
                .fold(0, |digest, byte| digest << 8 | u128::from(*byte)),
        )
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

impl Serialize for Digest {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Digest {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Digest, D::Error> {
        let text = String::deserialize(deserializer)?;
        u128::from_str_radix(&text, 16)
            .map(Digest)
            .map_err(de::Error::custom)
    }
}

/// Which state of the object a body shows. Nulls are left out: `previous_attributes` says null
/// for a field that was null and for one that was absent.
pub(crate) fn state(body: &Fields) -> Digest {
    state_before(body, &Map::new())
}

/// Which state a body showed before a change.
pub(crate) fn state_before(body: &Fields, previous: &Map<String, Value>) -> Digest {
    let gone = previous.keys().filter(|name| !body.contains(name));
    let gone = gone.map(|name| (name.as_str(), "null"));
    let mut fields: Vec<(&str, &str)> = body.raws().chain(gone).collect();
    fields.sort_unstable();
    let mut out = vec![b'{'];
    for (name, raw) in fields {
        let was = previous.get(name).map(|was| undone(body.get(name), was));
        if was.as_ref().map_or(raw == "null", Value::is_null) {
            continue;
        }
        if out.len() > 1 {
            out.push(b',');
        }
        write_scalar(name, &mut out);
        out.push(b':');
        match was {
            Some(was) => write_value(&was, false, &mut out),
            // Most fields have no null inside. A number beyond Rust's, that somebody wrote into a
            // row, says nothing.
            None if raw.contains(":null") => {
                let value = spell_without_nulls(raw);
                out.extend_from_slice(value.as_deref().unwrap_or(b"null"));
            }
            None => out.extend_from_slice(raw.as_bytes()),
        }
    }
    out.push(b'}');
    Digest::of(&out)
}

/// A value before a change, as the event names it.
pub(crate) fn undone(is: Option<&Value>, was: &Value) -> Value {
    match (is, was) {
        (Some(Value::Object(is)), Value::Object(was)) => {
            let mut is = is.clone();
            merge(&mut is, was);
            is.into()
        }
        _ => was.clone(),
    }
}

/// Undoes a change: lays the values an event names as previous over the body it carries. Objects
/// merge, everything else (lists too) is replaced.
pub(crate) fn merge(body: &mut Map<String, Value>, previous: &Map<String, Value>) {
    for (name, value) in previous {
        match (body.get_mut(name), value) {
            (Some(Value::Object(inner)), Value::Object(value)) => merge(inner, value),
            _ => {
                body.insert(name.clone(), value.clone());
            }
        }
    }
}

/// The reverse of [`merge`]: what must be laid over `after` to get `before` (up to nulls).
pub(crate) fn difference(
    before: &Map<String, Value>,
    after: &Map<String, Value>,
) -> Map<String, Value> {
    let mut previous = Map::new();
    for (name, was) in before {
        match (was, after.get(name)) {
            (was, Some(is)) if was == is => {}
            (Value::Object(was), Some(Value::Object(is))) => {
                previous.insert(name.clone(), difference(was, is).into());
            }
            _ => {
                previous.insert(name.clone(), was.clone());
            }
        }
    }
    for name in after.keys().filter(|name| !before.contains_key(*name)) {
        previous.insert(name.clone(), Value::Null);
    }
    previous
}
