//! Stripe's request encoding: forms with brackets.

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::{Map, Value};

/// What stays readable: the unreserved characters of RFC 3986 §2.3 and, as in Stripe's own SDKs,
/// brackets.
pub(crate) const ENCODED: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'-')
    .remove(b'.')
    .remove(b'_')
    .remove(b'~')
    .remove(b'[')
    .remove(b']');

/// Encodes parameters as `application/x-www-form-urlencoded` the way Stripe reads it:
/// `line_items[0][price]=…`. `null` becomes the empty string, which clears a field; empty arrays
/// and objects, like in Stripe's SDKs, become nothing; so does anything that is not an object.
/// Equal parameters encode to equal text, because Stripe refuses an idempotency key that comes
/// with different ones. <https://docs.stripe.com/api/idempotent_requests>
pub fn encode(parameters: &Value) -> String {
    let mut form = String::new();
    let mut path = String::new();
    for (name, value) in parameters.as_object().map(sorted).unwrap_or_default() {
        path.push_str(name);
        append(&mut form, &mut path, value);
        path.clear();
    }
    form
}

/// Appends what lies at a path, which is longer only meanwhile.
fn append(form: &mut String, path: &mut String, value: &Value) {
    match value {
        Value::Object(fields) => {
            for (field, value) in sorted(fields) {
                append_below(form, path, field, value);
            }
        }
        Value::Array(values) => {
            for (index, value) in values.iter().enumerate() {
                append_below(form, path, &index.to_string(), value);
            }
        }
        Value::Null => append_pair(form, path, ""),
        Value::Bool(value) => append_pair(form, path, if *value { "true" } else { "false" }),
        Value::Number(value) => append_pair(form, path, &value.to_string()),
        Value::String(value) => append_pair(form, path, value),
    }
}

fn append_below(form: &mut String, path: &mut String, name: &str, value: &Value) {
    let length = path.len();
    path.extend(["[", name, "]"]);
    append(form, path, value);
    path.truncate(length);
}

fn append_pair(form: &mut String, name: &str, value: &str) {
    if !form.is_empty() {
        form.push('&');
    }
    form.extend(utf8_percent_encode(name, ENCODED));
    form.push('=');
    form.extend(utf8_percent_encode(value, ENCODED));
}

/// By name, whatever order serde_json keeps: any crate of a build can switch its maps to
/// insertion order.
fn sorted(fields: &Map<String, Value>) -> Vec<(&String, &Value)> {
    let mut fields: Vec<_> = fields.iter().collect();
    fields.sort_unstable_by_key(|(name, _)| *name);
    fields
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use percent_encoding::percent_decode_str;
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    #[test]
    fn nested_parameters_are_bracketed_and_indexed() {
        assert_eq!(
            encode(&json!({
                "mode": "payment",
                "line_items": [{"price": "price_1", "quantity": 2}, {"price": "price_2"}],
                "payment_intent_data": {"metadata": {"order id": "a&b=c"}},
                "expand": ["customer"],
            })),
            "expand[0]=customer\
             &line_items[0][price]=price_1&line_items[0][quantity]=2\
             &line_items[1][price]=price_2\
             &mode=payment\
             &payment_intent_data[metadata][order%20id]=a%26b%3Dc"
        );
    }

    #[test]
    fn scalars_are_spelt_as_stripe_reads_them() {
        assert_eq!(
            encode(&json!({"a": null, "b": true, "c": -5, "d": 0.25})),
            "a=&b=true&c=-5&d=0.25"
        );
        assert_eq!(encode(&json!({"n": u64::MAX})), "n=18446744073709551615");
        assert_eq!(
            encode(&json!({"empty": [], "none": {}, "list": [null]})),
            "list[0]="
        );
        assert_eq!(encode(&json!({})), "");
    }

    #[test]
    fn bytes_are_encoded_as_stripe_node_encodes_them() {
        assert_eq!(
            encode(&json!({"u": "https://a.b/?s={CHECKOUT_SESSION_ID}&x=[1]~!*()'+ é\u{1F600}"})),
            "u=https%3A%2F%2Fa.b%2F%3Fs%3D%7BCHECKOUT_SESSION_ID%7D%26x%3D[1]~%21%2A%28%29%27%2B\
             %20%C3%A9%F0%9F%98%80"
        );
    }

    #[test]
    fn names_come_in_order_however_they_were_given() {
        let one: Value = serde_json::from_str(r#"{"b":1,"a":{"d":2,"c":3}}"#).expect("json");
        assert_eq!(encode(&one), "a[c]=3&a[d]=2&b=1");
    }

    /// A form as a server sees it: decoded names, brackets included, and values.
    fn decoded(form: &str) -> BTreeMap<String, String> {
        let text = |part| {
            percent_decode_str(part)
                .decode_utf8()
                .expect("utf-8")
                .into_owned()
        };
        form.split('&')
            .filter(|pair| !pair.is_empty())
            .map(|pair| pair.split_once('=').expect("a pair has ="))
            .map(|(name, value)| (text(name), text(value)))
            .collect()
    }

    fn flat(name: String, value: &Value, into: &mut BTreeMap<String, String>) {
        match value {
            Value::Object(fields) => {
                for (field, value) in fields {
                    flat(format!("{name}[{field}]"), value, into);
                }
            }
            Value::Array(values) => {
                for (index, value) in values.iter().enumerate() {
                    flat(format!("{name}[{index}]"), value, into);
                }
            }
            Value::String(value) => {
                into.insert(name, value.clone());
            }
            Value::Null => {
                into.insert(name, String::new());
            }
            other => {
                into.insert(name, other.to_string());
            }
        }
    }

    fn parameter() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<i64>().prop_map(Value::from),
            ".{0,12}".prop_map(Value::from),
        ];
        leaf.prop_recursive(3, 24, 4, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
                prop::collection::btree_map("[^\\[\\]]{1,6}", inner, 0..4)
                    .prop_map(|fields| fields.into_iter().collect::<Map<_, _>>().into()),
            ]
        })
    }

    proptest! {
        #[test]
        fn a_form_decodes_to_what_was_encoded(
            parameters in prop::collection::btree_map("[^\\[\\]]{1,6}", parameter(), 0..5)
        ) {
            let mut expected = BTreeMap::new();
            for (name, value) in &parameters {
                flat(name.clone(), value, &mut expected);
            }
            let form = encode(&Value::Object(parameters.into_iter().collect()));
            prop_assert!(form.is_ascii());
            prop_assert_eq!(decoded(&form), expected);
        }
    }
}
