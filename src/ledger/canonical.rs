//! One text for equal JSON, whatever order or shape it arrived in.

use serde::Serialize;
use serde_json::{Map, Value};

/// Compact JSON with sorted keys. Sorted here, not left to `serde_json`: any crate in the build
/// that turns on its `preserve_order` would make rows differ by order of arrival.
pub(crate) fn text(value: &Value) -> String {
    let mut out = Vec::new();
    write_value(value, true, &mut out);
    into_text(out)
}

/// Compact JSON of a value of ours, whose maps are [`crate::fields::Fields`].
pub(crate) fn json(value: &impl Serialize) -> String {
    serde_json::to_string(value).expect("string keys and finite numbers")
}

/// Writes compact JSON with sorted keys; with or without the fields that are null.
pub(crate) fn write_value(value: &Value, nulls: bool, out: &mut Vec<u8>) {
    match value {
        Value::Object(members) => write_object(members, nulls, out),
        Value::Array(elements) => {
            out.push(b'[');
            for (index, element) in elements.iter().enumerate() {
                if index > 0 {
                    out.push(b',');
                }
                write_value(element, nulls, out);
            }
            out.push(b']');
        }
        scalar => write_scalar(scalar, out),
    }
}

fn write_object(object: &Map<String, Value>, nulls: bool, out: &mut Vec<u8>) {
    let mut members: Vec<_> = object
        .iter()
        .filter(|(_, value)| nulls || !value.is_null())
        .collect();
    members.sort_unstable_by_key(|(name, _)| *name);
    out.push(b'{');
    for (index, (name, value)) in members.into_iter().enumerate() {
        if index > 0 {
            out.push(b',');
        }
        write_scalar(name, out);
        out.push(b':');
        write_value(value, nulls, out);
    }
    out.push(b'}');
}

pub(crate) fn into_text(json: Vec<u8>) -> String {
    String::from_utf8(json).expect("JSON is text")
}

pub(crate) fn write_scalar(value: &(impl Serialize + ?Sized), out: &mut Vec<u8>) {
    // Writing to memory cannot fail.
    let _ = serde_json::to_writer(out, value);
}
