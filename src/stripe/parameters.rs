//! Parameters of Stripe's that an administrator may name besides ours.

use serde_json::{Map, Value};

use crate::checkout::RESERVED_PREFIX;
use crate::input::{Invalid, snake_case};

/// Adds parameters in Stripe's own names to those that have an argument of their own. `own` are the
/// latter, with dots where they lie inside others: they cannot be overridden, not even those unset.
///
/// # Errors
/// When `further` is no object, or has one of `own`.
pub(crate) fn with_further(
    named: Map<String, Value>,
    own: &[&str],
    further: Option<&Value>,
) -> Result<Value, Invalid> {
    let mut parameters = named;
    match further {
        None => {}
        Some(Value::Object(further)) => add(&mut parameters, "", own, further)?,
        Some(_) => return Err(Invalid::new("params", "params must be a JSON object")),
    }
    Ok(parameters.into())
}

fn add(
    into: &mut Map<String, Value>,
    prefix: &str,
    own: &[&str],
    further: &Map<String, Value>,
) -> Result<(), Invalid> {
    for (name, value) in further {
        let path = format!("{prefix}{name}");
        if own.contains(&path.as_str()) {
            let message = format!("params.{path} has an argument of its own");
            return Err(Invalid::new("params", message));
        }
        match value {
            Value::Object(fields) => {
                let below = into.entry(name).or_insert_with(|| Map::new().into());
                if let Value::Object(below) = below {
                    add(below, &format!("{path}."), own, fields)?;
                }
            }
            value => {
                into.insert(name.clone(), value.clone());
            }
        }
    }
    Ok(())
}

/// Reads what is to be changed: Stripe's own names, in snake_case or camelCase, where null clears;
/// so does an empty array, of which a form would carry nothing.
///
/// # Errors
/// When it is no object, names nothing, or names something in both spellings.
pub(crate) fn changes(
    argument: &'static str,
    value: &Value,
) -> Result<Map<String, Value>, Invalid> {
    let invalid = |what: String| Invalid::new(argument, format!("{argument} {what}"));
    let object = value
        .as_object()
        .ok_or_else(|| invalid("must be a JSON object".into()))?;
    let mut changes = Map::new();
    for (key, value) in object {
        let value = match value {
            Value::Array(values) if values.is_empty() => Value::Null,
            value => value.clone(),
        };
        if changes.insert(snake_case(key), value).is_some() {
            return Err(invalid(format!("has the key {key:?} in two spellings")));
        }
    }
    if changes.is_empty() {
        return Err(invalid("must name at least one thing to change".into()));
    }
    Ok(changes)
}

/// Checks metadata: strings, because a number would come back from Stripe as one; a null deletes
/// its key. How long it may be, Stripe says. <https://docs.stripe.com/api/metadata>
///
/// # Errors
/// When it is no object, or has other values, or keys that are ours.
pub(crate) fn check_metadata(argument: &'static str, value: &Value) -> Result<(), Invalid> {
    let object = value
        .as_object()
        .ok_or_else(|| Invalid::new(argument, "metadata must be a JSON object"))?;
    for (key, value) in object {
        if key.starts_with(RESERVED_PREFIX) {
            let message = format!("metadata key {key:?} is reserved");
            return Err(Invalid::new(argument, message)
                .hint("Keys that start with payments_ are set by this extension."));
        }
        if !matches!(value, Value::String(_) | Value::Null) {
            let message = format!("metadata value of {key:?} must be a string");
            return Err(Invalid::new(argument, message));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn message<T>(result: Result<T, Invalid>) -> Option<String> {
        result.err().map(|invalid| invalid.message)
    }

    fn named() -> Map<String, Value> {
        let named = json!({"currency": "usd", "recurring": {"interval": "month"}});
        named.as_object().cloned().expect("an object")
    }

    const OWN: &[&str] = &["currency", "recurring.interval", "metadata"];

    #[test]
    fn further_parameters_go_beside_and_into_the_named_ones() {
        let further = json!({"nickname": "a", "recurring": {"usage_type": "metered"}, "tiers": [{"up_to": 1}]});
        assert_eq!(
            with_further(named(), OWN, Some(&further)),
            Ok(json!({
                "currency": "usd",
                "recurring": {"interval": "month", "usage_type": "metered"},
                "nickname": "a",
                "tiers": [{"up_to": 1}],
            }))
        );
        assert_eq!(with_further(named(), OWN, None), Ok(named().into()));
    }

    #[test]
    fn named_ones_cannot_be_overridden() {
        for (further, path) in [
            (json!({"currency": "eur"}), "currency"),
            (
                json!({"recurring": {"interval": "day"}}),
                "recurring.interval",
            ),
            (
                json!({"metadata": {"payments_subject_id": "1"}}),
                "metadata",
            ),
        ] {
            assert_eq!(
                message(with_further(named(), OWN, Some(&further))),
                Some(format!("params.{path} has an argument of its own"))
            );
        }
        let list = json!([]);
        assert_eq!(
            message(with_further(named(), OWN, Some(&list))),
            Some("params must be a JSON object".into())
        );
    }

    #[test]
    fn changes_have_one_spelling_and_say_what_to_clear() {
        assert_eq!(
            changes(
                "changes",
                &json!({"lookupKey": null, "images": [], "a_b": {"cD": 1}})
            )
            .map(Value::from),
            Ok(json!({"lookup_key": null, "images": null, "a_b": {"cD": 1}}))
        );
        assert_eq!(
            message(changes(
                "changes",
                &json!({"lookupKey": 1, "lookup_key": 2})
            )),
            Some(r#"changes has the key "lookup_key" in two spellings"#.into())
        );
        assert_eq!(
            message(changes("changes", &json!({}))),
            Some("changes must name at least one thing to change".into())
        );
        assert_eq!(
            message(changes("changes", &json!("x"))),
            Some("changes must be a JSON object".into())
        );
    }

    #[test]
    fn metadata_is_strings_under_keys_that_are_not_ours() {
        assert_eq!(
            check_metadata("metadata", &json!({"a": "b", "c": null})),
            Ok(())
        );
        for value in [
            json!({"payments_x": "1"}),
            json!({"a": 1}),
            json!([]),
            json!(null),
        ] {
            assert!(check_metadata("metadata", &value).is_err(), "{value}");
        }
    }
}
