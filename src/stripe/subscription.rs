//! Changes of a subscription: what may be asked for, and how Stripe is asked.
//! <https://docs.stripe.com/api/subscriptions/update>

use std::collections::BTreeMap;

use serde_json::{Map, Value};

use crate::checkout::{Price, PriceRef};
use crate::ids::Kind;
use crate::input::{Invalid, has_length};
use crate::parameters::{changes, check_metadata};

const ARGUMENT: &str = "changes";

/// Checked changes of a subscription.
#[derive(Clone, Debug, PartialEq)]
pub struct Changes {
    /// Parameters in Stripe's words, without the items.
    parameters: Map<String, Value>,
    items: Vec<Item>,
}

#[derive(Clone, Debug, PartialEq)]
struct Item {
    /// Where in the changes it stands, for messages.
    path: String,
    /// It is the subscription's only item, whose id is still to be found.
    only: bool,
    price: Option<PriceRef>,
    /// Parameters in Stripe's words, without the price.
    parameters: Map<String, Value>,
}

impl Changes {
    /// Reads `{"quantity": 2}`, `{"lookup_key": …}` or `{"stripe_price_id": …}` for a subscription
    /// of one item, `{"items": [{"stripe_subscription_item_id": …, …}]}` for any, and whatever else
    /// Stripe takes, in its words.
    ///
    /// # Errors
    /// What cannot be used.
    pub fn parse(value: &Value) -> Result<Self, Invalid> {
        let mut parameters = changes(ARGUMENT, value)?;
        if let Some(metadata) = parameters.get("metadata") {
            // A null would clear our own keys, by which the subscription has its subject.
            check_metadata(ARGUMENT, metadata)?;
        }
        if !matches!(
            parameters.get("cancel_at_period_end"),
            None | Some(Value::Bool(_))
        ) {
            return Err(invalid("cancel_at_period_end", "must be true or false"));
        }
        let listed = parameters.remove("items");
        let mut only = Map::new();
        for name in ["quantity", "stripe_price_id", "lookup_key"] {
            only.extend(
                parameters
                    .remove(name)
                    .map(|value| (name.to_owned(), value)),
            );
        }
        let items = match (listed, only.is_empty()) {
            (None, true) => Vec::new(),
            (None, false) => vec![Item::read(String::new(), true, only)?],
            (Some(Value::Array(items)), true) => items
                .iter()
                .enumerate()
                .map(|(index, item)| {
                    let path = format!("items[{index}]");
                    let fields = changes(ARGUMENT, item)
                        .map_err(|_| invalid(&path, "must be an object that names something"))?;
                    Item::read(format!("{path}."), false, fields)
                })
                .collect::<Result<_, _>>()?,
            (Some(_), true) => return Err(invalid("items", "must be an array of objects")),
            (Some(_), false) => {
                return Err(invalid(
                    "items",
                    "goes without quantity, stripe_price_id and lookup_key beside it",
                ));
            }
        };
        Ok(Self { parameters, items })
    }

    /// Every price that the changes name, each once.
    pub fn prices(&self) -> Vec<&PriceRef> {
        let mut prices: Vec<_> = self
            .items
            .iter()
            .filter_map(|item| item.price.as_ref())
            .collect();
        prices.sort_unstable();
        prices.dedup();
        prices
    }

    /// The parameters of `POST /v1/subscriptions/{id}`. `subscription` is the object as it is now,
    /// `prices` are the prices named, resolved.
    ///
    /// # Errors
    /// When a price was not found, or the only item is meant of a subscription that has several.
    pub fn parameters(
        &self,
        subscription: &Map<String, Value>,
        prices: &BTreeMap<PriceRef, Price>,
    ) -> Result<Value, Invalid> {
        let mut parameters = self.parameters.clone();
        let is_resumed = parameters.get("cancel_at_period_end") == Some(&Value::Bool(false));
        if is_resumed && !parameters.contains_key("cancel_at") && ends_by_date(subscription) {
            parameters.remove("cancel_at_period_end");
            parameters.insert("cancel_at".into(), Value::Null);
        }
        if !self.items.is_empty() {
            let items = self
                .items
                .iter()
                .map(|item| item.parameters(subscription, prices));
            parameters.insert("items".into(), items.collect::<Result<_, _>>()?);
        }
        Ok(parameters.into())
    }
}

impl Item {
    fn read(path: String, only: bool, fields: Map<String, Value>) -> Result<Self, Invalid> {
        let mut parameters = fields;
        let invalid = |name: &str, what: &str| invalid(&format!("{path}{name}"), what);
        let mut text = |name: &str| match parameters.remove(name) {
            None => Ok(None),
            Some(Value::String(text)) => Ok(Some(text)),
            Some(_) => Err(invalid(name, "must be a string")),
        };
        let id = text("stripe_subscription_item_id")?;
        let price = match (text("stripe_price_id")?, text("lookup_key")?) {
            (None, None) => None,
            (Some(id), None) => {
                let id = Kind::Price
                    .check(&id)
                    .map_err(|error| invalid("stripe_price_id", &format!("is {error}")))?;
                Some(PriceRef::StripePriceId(id.to_owned()))
            }
            (None, Some(key)) if has_length(&key, 200) => Some(PriceRef::LookupKey(key)),
            (None, Some(_)) => {
                return Err(invalid("lookup_key", "must have 1 to 200 characters"));
            }
            (Some(_), Some(_)) => {
                return Err(invalid(
                    "lookup_key",
                    "goes without stripe_price_id beside it",
                ));
            }
        };
        if let Some(id) = id {
            let id = Kind::SubscriptionItem
                .check(&id)
                .map_err(|error| invalid("stripe_subscription_item_id", &format!("is {error}")))?;
            parameters.insert("id".into(), id.into());
        }
        if parameters
            .get("quantity")
            .is_some_and(|quantity| quantity.as_u64().is_none())
        {
            return Err(invalid("quantity", "must be a whole number, 0 or more"));
        }
        Ok(Self {
            path,
            only,
            price,
            parameters,
        })
    }

    fn parameters(
        &self,
        subscription: &Map<String, Value>,
        prices: &BTreeMap<PriceRef, Price>,
    ) -> Result<Value, Invalid> {
        let mut parameters = self.parameters.clone();
        if self.only {
            parameters.insert("id".into(), only_item(subscription)?.into());
        }
        if let Some(name) = &self.price {
            let price = prices.get(name).ok_or_else(|| {
                let what = format!("does not exist: {}", name.as_str());
                invalid(&format!("{}price", self.path), &what).hint(
                    "Prices differ between test and live; a lookup key can be the same in both.",
                )
            })?;
            parameters.insert("price".into(), price.id.as_str().into());
        }
        Ok(parameters.into())
    }
}

/// The portal ends a subscription with flexible billing by a date, which Stripe does not clear with
/// the flag. <https://docs.stripe.com/billing/subscriptions/cancel>
fn ends_by_date(subscription: &Map<String, Value>) -> bool {
    let field = |name: &str| subscription.get(name).unwrap_or(&Value::Null);
    !field("cancel_at").is_null() && field("cancel_at_period_end") != &Value::Bool(true)
}

fn only_item(subscription: &Map<String, Value>) -> Result<&str, Invalid> {
    let items = subscription
        .get("items")
        .and_then(|items| items.get("data")?.as_array());
    match items.map(Vec::as_slice) {
        Some([item]) => item.get("id").and_then(Value::as_str),
        _ => None,
    }
    .ok_or_else(|| {
        let message = "changes must say which item they are about: the subscription has several";
        Invalid::new(ARGUMENT, message).hint(
            "Name them: {\"items\": [{\"stripe_subscription_item_id\": \"si_…\", \"quantity\": 2}]}.",
        )
    })
}

fn invalid(path: &str, what: &str) -> Invalid {
    Invalid::new(ARGUMENT, format!("{ARGUMENT}.{path} {what}"))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn subscription(items: &[&str], more: Value) -> Map<String, Value> {
        let items: Vec<_> = items.iter().map(|id| json!({ "id": id })).collect();
        let mut body = json!({"id": "sub_1", "items": {"data": items}});
        let body = body.as_object_mut().expect("an object");
        body.extend(more.as_object().cloned().unwrap_or_default());
        body.clone()
    }

    fn worded(value: Value, subscription: &Map<String, Value>) -> Result<Value, String> {
        let pro = Price {
            id: "price_pro".into(),
            recurring: true,
            metered: false,
        };
        let prices = BTreeMap::from([(PriceRef::LookupKey("pro".into()), pro)]);
        Changes::parse(&value)
            .and_then(|changes| changes.parameters(subscription, &prices))
            .map_err(|invalid| invalid.message)
    }

    #[test]
    fn the_only_item_needs_no_name() {
        let one = subscription(&["si_1"], json!({}));
        assert_eq!(
            worded(
                json!({"quantity": 3, "lookupKey": "pro", "proration_behavior": "none"}),
                &one
            ),
            Ok(json!({
                "items": [{"id": "si_1", "quantity": 3, "price": "price_pro"}],
                "proration_behavior": "none",
            }))
        );
        let two = subscription(&["si_1", "si_2"], json!({}));
        assert_eq!(
            worded(json!({"quantity": 3}), &two),
            Err("changes must say which item they are about: the subscription has several".into())
        );
    }

    #[test]
    fn items_are_changed_added_and_removed() {
        let two = subscription(&["si_1", "si_2"], json!({}));
        let items = json!([
            {"stripe_subscription_item_id": "si_1", "quantity": 0},
            {"lookup_key": "pro", "quantity": 2},
            {"id": "si_2", "deleted": true},
        ]);
        assert_eq!(
            worded(json!({ "items": items }), &two),
            Ok(json!({"items": [
                {"id": "si_1", "quantity": 0},
                {"price": "price_pro", "quantity": 2},
                {"id": "si_2", "deleted": true},
            ]}))
        );
    }

    #[test]
    fn resuming_clears_whatever_ends_it() {
        let resume = json!({"cancel_at_period_end": false});
        let flagged = json!({"cancel_at_period_end": true, "cancel_at": 5});
        assert_eq!(
            worded(resume.clone(), &subscription(&["si_1"], flagged)),
            Ok(resume.clone())
        );
        let dated = json!({"cancel_at_period_end": false, "cancel_at": 5});
        assert_eq!(
            worded(resume, &subscription(&["si_1"], dated)),
            Ok(json!({"cancel_at": null}))
        );
    }

    #[test]
    fn what_cannot_be_used_is_named() {
        let one = subscription(&["si_1"], json!({}));
        for (value, said) in [
            (json!([]), "changes must be a JSON object"),
            (
                json!({"quantity": -1}),
                "changes.quantity must be a whole number, 0 or more",
            ),
            (
                json!({"quantity": null}),
                "changes.quantity must be a whole number, 0 or more",
            ),
            (
                json!({"lookup_key": "gold"}),
                "changes.price does not exist: gold",
            ),
            (
                json!({"stripe_price_id": "prod_1"}),
                "changes.stripe_price_id is not a Stripe price id (price_…)",
            ),
            (
                json!({"stripe_price_id": "price_1", "lookup_key": "pro"}),
                "changes.lookup_key goes without stripe_price_id beside it",
            ),
            (
                json!({"items": {}}),
                "changes.items must be an array of objects",
            ),
            (
                json!({"items": [1]}),
                "changes.items[0] must be an object that names something",
            ),
            (
                json!({"items": [{"quantity": "2"}]}),
                "changes.items[0].quantity must be a whole number, 0 or more",
            ),
            (
                json!({"items": [{"quantity": 2}], "quantity": 2}),
                "changes.items goes without quantity, stripe_price_id and lookup_key beside it",
            ),
            (
                json!({"cancel_at_period_end": "no"}),
                "changes.cancel_at_period_end must be true or false",
            ),
            (json!({"metadata": null}), "metadata must be a JSON object"),
            (
                json!({"metadata": {"payments_subject_id": "2"}}),
                "metadata key \"payments_subject_id\" is reserved",
            ),
        ] {
            assert_eq!(worded(value, &one), Err(said.into()));
        }
    }
}
