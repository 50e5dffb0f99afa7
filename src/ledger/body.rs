//! Reading Stripe's JSON: what is absent, null or of another type than expected is `None`,
//! because payloads of many API versions arrive and none of them may fail an event.

use serde_json::{Map, Value};

use crate::fields::Fields;
use crate::table::Time;

/// An object's body, or a part of one.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Body<'a> {
    Whole(&'a Fields),
    Part(&'a Map<String, Value>),
}

impl<'a> Body<'a> {
    fn get(self, key: &str) -> Option<&'a Value> {
        match self {
            Self::Whole(fields) => fields.get(key),
            Self::Part(map) => map.get(key),
        }
    }

    /// The value at a path of keys, dots between them. `None` where it is absent or null.
    pub fn at(self, path: &str) -> Option<&'a Value> {
        // To split it by a pattern takes longer than to look the keys up: most paths are one key.
        let value = match path.bytes().position(|byte| byte == b'.') {
            None => self.get(path)?,
            Some(dot) => {
                let (first, rest) = (&path[..dot], &path[dot + 1..]);
                Body::Part(self.get(first)?.as_object()?).at(rest)?
            }
        };
        (!value.is_null()).then_some(value)
    }

    /// Whether the top-level key is there, be it null: tells "none" from "not said".
    pub fn says(self, key: &str) -> bool {
        match self {
            Self::Whole(fields) => fields.contains(key),
            Self::Part(map) => map.contains_key(key),
        }
    }

    /// Whether the top-level key is there and null: Stripe says "none".
    pub fn says_none(self, key: &str) -> bool {
        self.get(key).is_some_and(Value::is_null)
    }

    pub fn map(self, path: &str) -> Option<&'a Map<String, Value>> {
        self.at(path)?.as_object()
    }

    pub fn part(self, path: &str) -> Option<Body<'a>> {
        self.map(path).map(Body::Part)
    }

    pub fn text(self, path: &str) -> Option<String> {
        self.at(path)?
            .as_str()
            .filter(|text| !text.is_empty())
            .map(str::to_owned)
    }

    /// The id of another object, which may be expanded in its place.
    pub fn id(self, path: &str) -> Option<String> {
        id_of(self.at(path)?)
    }

    pub fn int(self, path: &str) -> Option<i64> {
        self.at(path)?.as_i64()
    }

    pub fn boolean(self, path: &str) -> Option<bool> {
        self.at(path)?.as_bool()
    }

    pub fn time(self, path: &str) -> Option<Time> {
        Time::from_seconds(self.int(path)?)
    }

    /// A JSON object as it stands.
    pub fn json(self, path: &str) -> Option<Value> {
        self.at(path).filter(|value| value.is_object()).cloned()
    }

    /// The objects of a list (`{"object": "list", "data": […]}`).
    pub fn list(self, path: &str) -> impl Iterator<Item = Body<'a>> + use<'a> {
        self.part(path)
            .and_then(|list| list.at("data"))
            .and_then(Value::as_array)
            .into_iter()
            .flatten()
            .filter_map(Value::as_object)
            .map(Body::Part)
    }
}

/// The id that a value is, or that the object in its place has.
pub(crate) fn id_of(value: &Value) -> Option<String> {
    value
        .as_str()
        .or_else(|| value.get("id")?.as_str())
        .filter(|id| !id.is_empty())
        .map(str::to_owned)
}
