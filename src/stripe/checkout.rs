//! Checkout sessions: what may be asked for, and how Stripe is asked.
//! <https://docs.stripe.com/api/checkout/sessions/create>

use std::collections::BTreeMap;

use serde::Serialize;
use serde_json::{Map, Value, json};
use sha2::{Digest, Sha256};

use crate::ids::Kind;
use crate::input::{self, Invalid, Object, has_length};
use crate::subject::Subject;

/// Metadata keys with this prefix are ours.
pub const RESERVED_PREFIX: &str = "payments_";

/// Stripe's limit of metadata keys is 50. Ten are kept for us.
const MAX_METADATA: usize = 40;
const MAX_LINE_ITEMS: usize = 100;
const MAX_QUANTITY: u64 = 999;
/// A subscription starts with at most so many recurring prices, and as many one-time ones.
const MAX_OF_A_KIND: usize = 20;

/// What the session is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Mode {
    Payment,
    Subscription,
}

/// How a caller names a price.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum PriceRef {
    StripePriceId(String),
    /// A name that the same price has in both environments.
    /// <https://docs.stripe.com/products-prices/manage-prices#lookup-keys>
    LookupKey(String),
}

/// One thing to buy.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct LineItem {
    #[serde(flatten)]
    pub price: PriceRef,
    /// 1 to 999.
    pub quantity: u64,
}

/// What must be known of a price to sell it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Price {
    pub id: String,
    pub recurring: bool,
    /// Billed by usage: it has no quantity. <https://docs.stripe.com/billing/subscriptions/usage-based>
    pub metered: bool,
}

/// The arguments of `create_checkout_session`, as they came.
#[derive(Clone, Copy, Debug)]
pub struct Arguments<'a> {
    pub mode: &'a str,
    pub line_items: &'a Value,
    pub success_url: &'a str,
    pub cancel_url: &'a str,
    pub subject: Option<&'a Value>,
    pub customer_email: Option<&'a str>,
    pub metadata: Option<&'a Value>,
    pub idempotency_key: Option<&'a str>,
}

/// A checked request for a checkout session. Its serialized form is what
/// [`Request::canonical_hash`] hashes: a field added later must be left out while it is unset, or
/// every key in use would seem to be reused with other parameters.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Request {
    pub mode: Mode,
    pub line_items: Vec<LineItem>,
    pub success_url: String,
    pub cancel_url: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub subject: Option<Subject>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub customer_email: Option<String>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub metadata: BTreeMap<String, String>,
    /// Not part of what it protects.
    #[serde(skip)]
    pub idempotency_key: Option<String>,
}

impl Mode {
    /// `payment` or `subscription`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Payment => "payment",
            Self::Subscription => "subscription",
        }
    }

    pub(crate) fn parse(text: &str) -> Result<Self, Invalid> {
        match text {
            "payment" => Ok(Self::Payment),
            "subscription" => Ok(Self::Subscription),
            _ => Err(Invalid::new(
                "mode",
                "mode must be \"payment\" or \"subscription\"",
            )),
        }
    }
}

impl Price {
    /// Reads a price object of Stripe's.
    pub fn from_object(price: &Value) -> Option<Self> {
        let recurring = price
            .get("recurring")
            .filter(|recurring| recurring.is_object());
        let usage = recurring.and_then(|recurring| recurring.get("usage_type")?.as_str());
        Some(Self {
            id: price.get("id")?.as_str()?.to_owned(),
            recurring: recurring.is_some(),
            metered: usage == Some("metered"),
        })
    }
}

impl Request {
    /// Checks the arguments against Stripe's limits and our own.
    ///
    /// # Errors
    /// The first argument that cannot be used.
    pub fn parse(arguments: Arguments) -> Result<Self, Invalid> {
        let mode = Mode::parse(arguments.mode)?;
        let subject = arguments
            .subject
            .map(|value| Subject::parse("subject", value))
            .transpose()?;
        if mode == Mode::Subscription && subject.is_none() {
            return Err(Invalid::new("subject", "a subscription needs a subject")
                .hint("Say who subscribes: {\"type\": \"user\", \"id\": \"…\"}."));
        }
        Ok(Self {
            mode,
            line_items: line_items(arguments.line_items)?,
            success_url: input::url("success_url", "success_url", arguments.success_url)?,
            cancel_url: input::url("cancel_url", "cancel_url", arguments.cancel_url)?,
            subject,
            customer_email: arguments.customer_email.map(email).transpose()?,
            metadata: arguments
                .metadata
                .map(metadata)
                .transpose()?
                .unwrap_or_default(),
            idempotency_key: arguments.idempotency_key.map(idempotency_key).transpose()?,
        })
    }

    /// SHA-256, in hex, over everything that is asked for, metadata included and the idempotency
    /// key left out. Equal requests have equal hashes, however they were spelt.
    pub fn canonical_hash(&self) -> String {
        let canonical = serde_json::to_vec(self).expect("strings and numbers serialize");
        hex::encode(Sha256::digest(canonical))
    }

    /// The line items in one spelling, quantities filled in, as the session's row keeps them.
    pub fn line_items_json(&self) -> Value {
        serde_json::to_value(&self.line_items).expect("strings and numbers serialize")
    }

    /// Every price that the request names, each once.
    pub fn prices(&self) -> Vec<&PriceRef> {
        let mut prices: Vec<_> = self.line_items.iter().map(|item| &item.price).collect();
        prices.sort_unstable();
        prices.dedup();
        prices
    }

    /// The parameters of `POST /v1/checkout/sessions`. `prices` are the prices named, resolved;
    /// `reference` is our row's id; `ours` is metadata with [`RESERVED_PREFIX`], at most ten keys.
    /// The metadata goes to the session, and to the payment intent or subscription that comes of
    /// it, because their events do not carry the session's.
    ///
    /// # Errors
    /// When a price was not found, or prices and mode do not go together.
    pub fn session_parameters(
        &self,
        prices: &BTreeMap<PriceRef, Price>,
        customer: Option<&str>,
        reference: &str,
        ours: &BTreeMap<String, String>,
    ) -> Result<Value, Invalid> {
        debug_assert!(
            ours.len() + MAX_METADATA <= 50,
            "too many metadata keys of our own"
        );
        let mut metadata = self.metadata.clone();
        metadata.extend(ours.clone());
        let mut parameters = Map::new();
        let mut set = |name: &str, value: Value| parameters.insert(name.to_owned(), value);
        set("mode", self.mode.as_str().into());
        set("line_items", self.line_item_parameters(prices)?);
        set("success_url", self.success_url.as_str().into());
        set("cancel_url", self.cancel_url.as_str().into());
        set("client_reference_id", reference.into());
        // Stripe takes one of the two: a customer's e-mail is their own.
        if let Some(customer) = customer {
            set(input::customer_parameter(customer), customer.into());
        } else if let Some(email) = &self.customer_email {
            set("customer_email", email.as_str().into());
        }
        let offspring = match self.mode {
            Mode::Payment => "payment_intent_data",
            Mode::Subscription => "subscription_data",
        };
        set(offspring, json!({ "metadata": metadata }));
        set("metadata", json!(metadata));
        Ok(parameters.into())
    }

    fn line_item_parameters(&self, prices: &BTreeMap<PriceRef, Price>) -> Result<Value, Invalid> {
        let (mut recurring, mut one_time) = (0, 0);
        let mut parameters = Vec::with_capacity(self.line_items.len());
        for (index, item) in self.line_items.iter().enumerate() {
            let invalid =
                |what: &str| Invalid::new("line_items", format!("line_items[{index}] {what}"));
            let price = prices.get(&item.price).ok_or_else(|| {
                invalid(&format!(
                    "names a price that does not exist: {}",
                    item.price.as_str()
                ))
                .hint("Prices differ between test and live; a lookup key can be the same in both.")
            })?;
            match price.recurring {
                true => recurring += 1,
                false => one_time += 1,
            }
            if price.recurring && self.mode == Mode::Payment {
                return Err(invalid("is a recurring price, which cannot be paid once")
                    .hint("Use the mode \"subscription\" or a one-time price."));
            }
            if price.metered && item.quantity != 1 {
                return Err(invalid("is billed by usage and cannot have a quantity"));
            }
            parameters.push(match price.metered {
                true => json!({"price": price.id}),
                false => json!({"price": price.id, "quantity": item.quantity}),
            });
        }
        if self.mode == Mode::Subscription {
            let invalid = |message: &str| Err(Invalid::new("line_items", message));
            if recurring == 0 {
                return invalid("line_items of a subscription need a recurring price");
            }
            if recurring > MAX_OF_A_KIND {
                return invalid(
                    "line_items of a subscription can have at most 20 recurring prices",
                );
            }
            if one_time > MAX_OF_A_KIND {
                return invalid("line_items of a subscription can have at most 20 one-time prices");
            }
        }
        Ok(parameters.into())
    }
}

impl PriceRef {
    /// The id or the lookup key.
    pub fn as_str(&self) -> &str {
        match self {
            Self::StripePriceId(text) | Self::LookupKey(text) => text,
        }
    }
}

fn line_items(value: &Value) -> Result<Vec<LineItem>, Invalid> {
    let items = value
        .as_array()
        .filter(|items| (1..=MAX_LINE_ITEMS).contains(&items.len()));
    let items = items.ok_or_else(|| {
        Invalid::new(
            "line_items",
            "line_items must be a JSON array of 1 to 100 items",
        )
    })?;
    items
        .iter()
        .enumerate()
        .map(|(index, item)| line_item(index, item))
        .collect()
}

fn line_item(index: usize, value: &Value) -> Result<LineItem, Invalid> {
    let path = format!("line_items[{index}]");
    let known = ["stripe_price_id", "lookup_key", "quantity"];
    let item = Object::read("line_items", path.as_str(), value, &known)?;
    let price = match (
        item.text("stripe_price_id")?,
        item.text_up_to("lookup_key", 200)?,
    ) {
        (Some(id), None) => {
            let id = Kind::Price.check(id);
            let id = id.map_err(|error| item.invalid("stripe_price_id", &format!("is {error}")))?;
            PriceRef::StripePriceId(id.to_owned())
        }
        (None, Some(key)) => PriceRef::LookupKey(key.to_owned()),
        _ => {
            let message = format!("{path} needs either stripe_price_id or lookup_key");
            return Err(Invalid::new("line_items", message));
        }
    };
    let quantity = item.get("quantity").map_or(Some(1), Value::as_u64);
    let quantity = quantity.filter(|quantity| (1..=MAX_QUANTITY).contains(quantity));
    let quantity =
        quantity.ok_or_else(|| item.invalid("quantity", "must be a whole number from 1 to 999"))?;
    Ok(LineItem { price, quantity })
}

/// Stripe's limits, and strings only: a number would come back as one from us and as a string
/// from Stripe. <https://docs.stripe.com/metadata#data>
pub(crate) fn metadata(value: &Value) -> Result<BTreeMap<String, String>, Invalid> {
    let invalid = |message: String| Invalid::new("metadata", message);
    let object = value.as_object();
    let object = object.ok_or_else(|| invalid("metadata must be a JSON object".into()))?;
    if object.len() > MAX_METADATA {
        return Err(invalid(format!(
            "metadata can have at most {MAX_METADATA} keys"
        )));
    }
    let mut metadata = BTreeMap::new();
    for (key, value) in object {
        if !has_length(key, 40) || key.contains(['[', ']']) {
            return Err(invalid(format!(
                "metadata key {key:?} must have 1 to 40 characters and no square brackets"
            )));
        }
        if key.starts_with(RESERVED_PREFIX) {
            return Err(invalid(format!("metadata key {key:?} is reserved"))
                .hint("Keys that start with payments_ are set by this extension."));
        }
        let text = value.as_str().filter(|text| text.chars().count() <= 500);
        let text = text.ok_or_else(|| {
            invalid(format!(
                "metadata value of {key:?} must be a string of at most 500 characters"
            ))
        })?;
        metadata.insert(key.clone(), text.to_owned());
    }
    Ok(metadata)
}

/// A plausible e-mail address; only a message to it proves more.
fn email(text: &str) -> Result<String, Invalid> {
    let text = text.trim();
    let strange = |c: char| c.is_whitespace() || c.is_control();
    let plausible = text.rsplit_once('@').is_some_and(|(user, host)| {
        !user.is_empty()
            && host.split('.').count() > 1
            && host.split('.').all(|part| !part.is_empty())
    });
    if !plausible || text.contains(strange) || !has_length(text, 254) {
        return Err(Invalid::new(
            "customer_email",
            "customer_email must be an e-mail address",
        ));
    }
    Ok(text.to_owned())
}

fn idempotency_key(text: &str) -> Result<String, Invalid> {
    let text = text.trim();
    if !has_length(text, 200) {
        let message = "idempotency_key must have 1 to 200 characters";
        return Err(Invalid::new("idempotency_key", message));
    }
    Ok(text.to_owned())
}

#[cfg(test)]
mod tests;
