//! What an object has inside it, observed for itself.
//!
//! Stripe writes other objects into an object: always (the items of a subscription), in some API
//! versions (the refunds of a charge, the charges of a payment intent), or because a request
//! asked it to expand them. Each is known by its own id, so that it makes no difference where it
//! was seen.
//!
//! Prices and plans inside items and lines stay where they are. They are read from there, but to
//! observe them would write a row for every event of every subscription, and their own events
//! tell of every change.

use std::collections::HashMap;

use serde_json::{Map, Value};

use crate::fields::Fields;
use crate::observation::Observation;

/// Lists of whole objects, by the type that has them. They stay in the body: which objects they
/// list is news too.
const LISTS: &[(&str, &str)] = &[
    ("charge", "refunds"),
    ("customer", "subscriptions"),
    ("invoice", "payments"),
    ("invoice_payment_list", "data"),
    ("payment_intent", "charges"),
    ("subscription", "items"),
];

/// Where an id stands unless the request asked for the object itself.
const REFERENCES: &[&[&str]] = &[
    &["charge"],
    &["customer"],
    &["default_payment_method"],
    &["default_price"],
    &["invoice"],
    &["latest_charge"],
    &["latest_invoice"],
    &["parent", "subscription_details", "subscription"],
    &["payment", "charge"],
    &["payment", "payment_intent"],
    &["payment_intent"],
    &["payment_method"],
    &["product"],
    &["setup_intent"],
    &["subscription"],
];

/// An observation and those of everything inside it, each body with ids in place of the objects
/// that were expanded in it: a fetched body then equals the one that an event carries.
pub(crate) fn split(mut observation: Observation) -> Vec<Observation> {
    let mut found = listed(&observation);
    for path in REFERENCES {
        if let Some(body) = contract(&mut observation.body, path) {
            found.extend(observation.embedded(body, None));
        }
    }
    let mut all = vec![observation];
    all.extend(found.into_iter().flat_map(split));
    all
}

/// The members of an object's lists, each with what it was before the change that the event tells.
fn listed(observation: &Observation) -> Vec<Observation> {
    let own_type = observation.key.object_type.as_str();
    let list = LISTS
        .iter()
        .find(|(object_type, _)| *object_type == own_type);
    let Some((_, list)) = list else {
        return Vec::new();
    };
    let members = members(observation.body.get(list));
    if members.is_empty() {
        return Vec::new();
    }
    let before = observation.before(list);
    let were: HashMap<_, _> = self::members(before.as_deref())
        .into_iter()
        .filter_map(|was| Some((was.get("id")?.as_str()?, was)))
        .collect();
    members
        .into_iter()
        .filter_map(|member| {
            let id = member.get("id").and_then(Value::as_str);
            let was = id.and_then(|id| were.get(id).copied());
            observation.embedded(member.clone(), was)
        })
        .collect()
}

/// The objects in a list, or in an array that stands for one.
fn members(list: Option<&Value>) -> Vec<&Map<String, Value>> {
    let data = list
        .and_then(|list| list.get("data"))
        .or(list)
        .and_then(Value::as_array);
    data.into_iter()
        .flatten()
        .filter_map(Value::as_object)
        .collect()
}

/// Takes an expanded object out of a body and leaves its id.
fn contract(body: &mut Fields, path: &[&str]) -> Option<Map<String, Value>> {
    let (first, rest) = path.split_first()?;
    // Mostly it is an id, or there is nothing, and need not be parsed.
    body.raw(first).filter(|raw| raw.starts_with('{'))?;
    let is = body.get(first)?;
    let there = rest.iter().try_fold(is, |value, key| value.get(*key))?;
    let expanded = there.as_object()?.clone();
    let id = expanded.get("id")?.clone();
    expanded.get("object")?;
    let mut contracted = is.clone();
    let mut rest = rest.iter();
    *rest.try_fold(&mut contracted, |value, key| value.get_mut(*key))? = id;
    *body = body.with(first, &contracted);
    Some(expanded)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::observation::Source;

    fn observe(body: Value) -> Vec<Observation> {
        let body = body.as_object().cloned().expect("an object");
        split(Observation::new(body, 10, Source::Listing).expect("a key"))
    }

    fn ids(observations: &[Observation]) -> Vec<&str> {
        observations.iter().map(|o| o.key.id.as_str()).collect()
    }

    #[test]
    fn an_expanded_object_leaves_its_id_behind() {
        let all = observe(json!({
            "id": "pi_1", "object": "payment_intent",
            "customer": {"id": "cus_1", "object": "customer"},
            "latest_charge": {
                "id": "ch_1", "object": "charge", "payment_intent": "pi_1",
                "refunds": {"object": "list", "data": [{"id": "re_1", "object": "refund"}]},
            },
        }));
        assert_eq!(ids(&all), ["pi_1", "cus_1", "ch_1", "re_1"]);
        assert_eq!(all[0].body["customer"], "cus_1");
        assert_eq!(all[0].body["latest_charge"], "ch_1");
        assert_eq!(all[2].body["refunds"]["data"][0]["id"], "re_1");
    }

    #[test]
    fn an_id_is_not_an_expanded_object() {
        let all = observe(json!({"id": "ch_1", "object": "charge", "customer": "cus_1"}));
        assert_eq!(ids(&all), ["ch_1"]);
    }

    #[test]
    fn prices_inside_items_are_not_observed() {
        let all = observe(json!({
            "id": "sub_1", "object": "subscription",
            "items": {"object": "list", "data": [
                {"id": "si_1", "object": "subscription_item", "price": {"id": "price_1", "object": "price"}},
            ]},
        }));
        assert_eq!(ids(&all), ["sub_1", "si_1"]);
    }

    #[test]
    fn the_payments_of_an_answer_are_observed() {
        let all = observe(json!({
            "id": "pi_1", "object": "invoice_payment_list", "data": [
                {"id": "inpay_1", "object": "invoice_payment", "invoice": {"id": "in_1", "object": "invoice"}},
            ],
        }));
        assert_eq!(ids(&all), ["pi_1", "inpay_1", "in_1"]);
    }
}
