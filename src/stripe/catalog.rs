//! Products and prices: what may be asked for, and how Stripe is asked.
//! <https://docs.stripe.com/api/products>, <https://docs.stripe.com/api/prices>

use serde_json::{Map, Value, json};

use crate::ids::Kind;
use crate::input::{Invalid, has_length};
use crate::parameters::{changes, check_metadata, with_further};

/// The arguments of `create_product`, as they came.
#[derive(Clone, Copy, Debug, Default)]
pub struct NewProduct<'a> {
    pub name: &'a str,
    pub description: Option<&'a str>,
    pub active: Option<bool>,
    pub metadata: Option<&'a Value>,
    /// Further parameters of Stripe's.
    pub params: Option<&'a Value>,
}

/// The arguments of `create_price`, as they came.
#[derive(Clone, Copy, Debug, Default)]
pub struct NewPrice<'a> {
    pub product: &'a str,
    /// A three-letter ISO code, in either case.
    pub currency: &'a str,
    /// In the currency's minor unit. `None` for a price in `params`: by tiers, with decimals, or
    /// chosen by the buyer.
    pub unit_amount: Option<i64>,
    pub recurring_interval: Option<&'a str>,
    pub recurring_interval_count: Option<i32>,
    pub lookup_key: Option<&'a str>,
    pub active: Option<bool>,
    pub tax_behavior: Option<&'a str>,
    pub metadata: Option<&'a Value>,
    /// Further parameters of Stripe's.
    pub params: Option<&'a Value>,
}

impl NewProduct<'_> {
    /// The parameters of `POST /v1/products`. A default price made along with the product is asked
    /// for, because the answer would only have its id.
    ///
    /// # Errors
    /// The first argument that cannot be used.
    pub fn parameters(&self) -> Result<Value, Invalid> {
        if self.name.trim().is_empty() {
            return Err(Invalid::new("name", "name must not be empty"));
        }
        let mut named = Map::new();
        named.insert("name".into(), self.name.into());
        insert(&mut named, "description", self.description);
        insert(&mut named, "active", self.active);
        insert(&mut named, "metadata", metadata(self.metadata)?);
        if self
            .params
            .is_some_and(|params| params.get("default_price_data").is_some())
        {
            named.insert("expand".into(), json!(["default_price"]));
        }
        let own = ["name", "description", "active", "metadata", "expand"];
        with_further(named, &own, self.params)
    }
}

impl NewPrice<'_> {
    /// The parameters of `POST /v1/prices`.
    ///
    /// # Errors
    /// The first argument that cannot be used.
    pub fn parameters(&self) -> Result<Value, Invalid> {
        let product = Kind::Product.check(self.product).map_err(|error| {
            let message = format!("stripe_product_id is {error}");
            Invalid::new("stripe_product_id", message)
        })?;
        let mut named = Map::new();
        named.insert("product".into(), product.into());
        named.insert("currency".into(), currency(self.currency)?.into());
        if self.unit_amount.is_some_and(|amount| amount < 0) {
            let message = "unit_amount must not be negative";
            return Err(Invalid::new("unit_amount", message));
        }
        insert(&mut named, "unit_amount", self.unit_amount);
        if let Some(recurring) = self.recurring()? {
            named.insert("recurring".into(), recurring);
        }
        if let Some(key) = self.lookup_key {
            check_lookup_key("lookup_key", key)?;
            named.insert("lookup_key".into(), key.into());
        }
        insert(&mut named, "active", self.active);
        insert(&mut named, "tax_behavior", self.tax_behavior);
        insert(&mut named, "metadata", metadata(self.metadata)?);
        let own = [
            "product",
            "currency",
            "unit_amount",
            "recurring.interval",
            "recurring.interval_count",
            "lookup_key",
            "active",
            "tax_behavior",
            "metadata",
            "expand",
        ];
        with_further(named, &own, self.params)
    }

    fn recurring(&self) -> Result<Option<Value>, Invalid> {
        let count = self.recurring_interval_count;
        let invalid = |message: &str| Err(Invalid::new("recurring_interval_count", message));
        if count.is_some_and(|count| count < 1) {
            return invalid("recurring_interval_count must be at least 1");
        }
        match (self.recurring_interval, count) {
            (None, None) => Ok(None),
            (None, Some(_)) => invalid("recurring_interval_count needs a recurring_interval"),
            (Some(interval @ ("day" | "week" | "month" | "year")), count) => {
                let mut recurring = Map::new();
                recurring.insert("interval".into(), interval.into());
                insert(&mut recurring, "interval_count", count);
                Ok(Some(recurring.into()))
            }
            (Some(_), _) => Err(Invalid::new(
                "recurring_interval",
                "recurring_interval must be \"day\", \"week\", \"month\" or \"year\"",
            )),
        }
    }
}

/// The parameters of `POST /v1/products/{id}`.
///
/// # Errors
/// When `changes` cannot be used.
pub fn product_changes(value: &Value) -> Result<Value, Invalid> {
    checked_changes(value).map(Value::from)
}

/// The parameters of `POST /v1/prices/{id}`.
///
/// # Errors
/// When `changes` cannot be used.
pub fn price_changes(value: &Value) -> Result<Value, Invalid> {
    let changes = checked_changes(value)?;
    match changes.get("lookup_key") {
        None | Some(Value::Null) => {}
        Some(Value::String(key)) => check_lookup_key("changes", key)?,
        Some(_) => {
            let message = "changes.lookup_key must be a string or null";
            return Err(Invalid::new("changes", message));
        }
    }
    Ok(changes.into())
}

fn checked_changes(value: &Value) -> Result<Map<String, Value>, Invalid> {
    let changes = changes("changes", value)?;
    if let Some(metadata) = changes.get("metadata").filter(|value| !value.is_null()) {
        check_metadata("changes", metadata)?;
    }
    Ok(changes)
}

fn metadata(value: Option<&Value>) -> Result<Option<Value>, Invalid> {
    value
        .map(|value| check_metadata("metadata", value).map(|()| value.clone()))
        .transpose()
}

fn currency(text: &str) -> Result<String, Invalid> {
    let currency = text.trim().to_ascii_lowercase();
    if currency.len() != 3 || !currency.bytes().all(|b| b.is_ascii_lowercase()) {
        let message = "currency must be a three-letter ISO code, such as \"usd\"";
        return Err(Invalid::new("currency", message));
    }
    Ok(currency)
}

fn check_lookup_key(argument: &'static str, key: &str) -> Result<(), Invalid> {
    match has_length(key, 200) {
        true => Ok(()),
        false => Err(Invalid::new(
            argument,
            "lookup_key must have 1 to 200 characters",
        )),
    }
}

fn insert(into: &mut Map<String, Value>, name: &str, value: Option<impl Into<Value>>) {
    if let Some(value) = value {
        into.insert(name.to_owned(), value.into());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(result: Result<Value, Invalid>) -> String {
        result.expect_err("refused").message
    }

    #[test]
    fn what_is_not_given_is_not_sent() {
        let product = NewProduct {
            name: "Tea",
            ..Default::default()
        };
        assert_eq!(product.parameters(), Ok(json!({"name": "Tea"})));
        let price = NewPrice {
            product: "prod_1",
            currency: " USD ",
            unit_amount: Some(0),
            ..Default::default()
        };
        assert_eq!(
            price.parameters(),
            Ok(json!({"product": "prod_1", "currency": "usd", "unit_amount": 0}))
        );
    }

    #[test]
    fn everything_given_is_sent() {
        let price = NewPrice {
            product: "prod_1",
            currency: "eur",
            unit_amount: Some(900),
            recurring_interval: Some("month"),
            recurring_interval_count: Some(3),
            lookup_key: Some("pro"),
            active: Some(false),
            tax_behavior: Some("inclusive"),
            metadata: Some(&json!({"a": "b"})),
            params: Some(&json!({"nickname": "n", "recurring": {"usage_type": "licensed"}})),
        };
        assert_eq!(
            price.parameters(),
            Ok(json!({
                "product": "prod_1", "currency": "eur", "unit_amount": 900,
                "recurring": {"interval": "month", "interval_count": 3, "usage_type": "licensed"},
                "lookup_key": "pro", "active": false, "tax_behavior": "inclusive",
                "metadata": {"a": "b"}, "nickname": "n",
            }))
        );
    }

    #[test]
    fn a_default_price_is_shown_in_the_answer() {
        let params = json!({"default_price_data": {"currency": "usd", "unit_amount": 1}});
        let product = NewProduct {
            name: "Tea",
            params: Some(&params),
            ..Default::default()
        };
        let parameters = product.parameters().expect("parameters");
        assert_eq!(parameters["expand"], json!(["default_price"]));
    }

    #[test]
    fn bad_arguments_are_named() {
        let good = NewPrice {
            product: "prod_1",
            currency: "usd",
            unit_amount: Some(1),
            ..Default::default()
        };
        for (price, said) in [
            (
                NewPrice {
                    product: "a/b",
                    ..good
                },
                "stripe_product_id is not a Stripe product id",
            ),
            (
                NewPrice {
                    currency: "us",
                    ..good
                },
                "currency must be a three-letter ISO code, such as \"usd\"",
            ),
            (
                NewPrice {
                    unit_amount: Some(-1),
                    ..good
                },
                "unit_amount must not be negative",
            ),
            (
                NewPrice {
                    recurring_interval: Some("decade"),
                    ..good
                },
                "recurring_interval must be \"day\", \"week\", \"month\" or \"year\"",
            ),
            (
                NewPrice {
                    recurring_interval_count: Some(2),
                    ..good
                },
                "recurring_interval_count needs a recurring_interval",
            ),
            (
                NewPrice {
                    recurring_interval: Some("day"),
                    recurring_interval_count: Some(0),
                    ..good
                },
                "recurring_interval_count must be at least 1",
            ),
            (
                NewPrice {
                    lookup_key: Some(""),
                    ..good
                },
                "lookup_key must have 1 to 200 characters",
            ),
            (
                NewPrice {
                    metadata: Some(&json!({"payments_a": "b"})),
                    ..good
                },
                "metadata key \"payments_a\" is reserved",
            ),
        ] {
            assert_eq!(message(price.parameters()), said);
        }
        assert_eq!(
            message(NewProduct::default().parameters()),
            "name must not be empty"
        );
    }

    #[test]
    fn a_null_clears_and_reserved_keys_are_refused_in_changes() {
        assert_eq!(
            price_changes(&json!({"lookupKey": null, "active": false})),
            Ok(json!({"lookup_key": null, "active": false}))
        );
        assert_eq!(
            product_changes(&json!({"description": null, "metadata": null, "images": []})),
            Ok(json!({"description": null, "metadata": null, "images": null}))
        );
        assert_eq!(
            message(product_changes(&json!({"metadata": {"payments_a": null}}))),
            "metadata key \"payments_a\" is reserved"
        );
        assert_eq!(
            message(price_changes(&json!({"lookup_key": 5}))),
            "changes.lookup_key must be a string or null"
        );
    }
}
