//! What an administrator allows in a checkout, and adds to each: parameters of Stripe's, in its own
//! names, that a caller cannot choose.
//!
//! Stripe refuses a parameter in the wrong mode, and some without or with a customer. A setting must
//! not turn away the returning customer whom nobody tried it with, so each goes only where Stripe
//! takes it, together with what Stripe asks for beside it.

mod parameters;
mod shape;

use serde_json::{Map, Value, json};

use crate::ids::Kind;
use crate::input::{Invalid, Object};
use crate::origin::Origin;
use parameters::{PARAMETERS, Parameter, Scope};
use shape::Shape;

/// Checked settings.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Settings {
    allowed_origins: Option<Vec<Origin>>,
    /// The prices that can be bought.
    pub allowed_prices: Option<AllowedPrices>,
    allowed_portal_configurations: Option<Vec<String>>,
    /// Whether a subject can have one subscription at a time.
    pub one_live_subscription: bool,
    /// The days that the first subscription of a subject is free.
    pub trial_period_days: Option<u64>,
    parameters: Map<String, Value>,
}

/// The prices that can be bought.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AllowedPrices {
    /// Those that are active, of a product that is.
    Active,
    /// Those with these ids or lookup keys.
    Listed(Vec<String>),
}

const OWN: [&str; 5] = [
    "allowed_origins",
    "allowed_portal_configurations",
    "allowed_prices",
    "one_live_subscription",
    "trial_period_days",
];

impl Settings {
    /// Checks settings as they are handed over, or stored.
    ///
    /// # Errors
    /// For a name that is no setting, a value of the wrong form, and settings that contradict each
    /// other.
    pub fn parse(value: &Value) -> Result<Self, Invalid> {
        let names = PARAMETERS.iter().map(|parameter| parameter.name);
        let known: Vec<_> = OWN.into_iter().chain(names).collect();
        let given = Object::read("settings", "settings", value, &known)?;
        let read = |name: &str, shape: Shape| {
            let value = given.get(name);
            let value = value.map(|value| shape.read(&given.path_to(name), value));
            value.transpose()
        };
        let mut parameters = Map::new();
        for Parameter { name, shape, .. } in PARAMETERS {
            if let Some(value) = given.get(name) {
                let value = shape.read(&given.path_to(name), value)?;
                parameters.insert((*name).to_owned(), value);
            }
        }
        let days = read("trial_period_days", Shape::Whole(730))?;
        let one = read("one_live_subscription", Shape::Boolean)?;
        let settings = Self {
            allowed_origins: given.get("allowed_origins").map(origins).transpose()?,
            allowed_prices: given.get("allowed_prices").map(prices).transpose()?,
            allowed_portal_configurations: given
                .get("allowed_portal_configurations")
                .map(configurations)
                .transpose()?,
            one_live_subscription: one == Some(Value::Bool(true)),
            trial_period_days: days.and_then(|days| days.as_u64()).filter(|days| *days > 0),
            parameters,
        };
        settings.refuse_contradictions()?;
        Ok(settings)
    }

    fn refuse_contradictions(&self) -> Result<(), Invalid> {
        let is = |path: &str, value: Value| self.at(path) == Some(&value);
        let has = |path: &str| self.at(path).is_some();
        let invalid = |message: &str| Err(Invalid::new("settings", message));
        if is("allow_promotion_codes", json!(true)) && has("discounts") {
            return invalid("allow_promotion_codes and discounts exclude each other");
        }
        if has("discounts/0/coupon") == has("discounts/0/promotion_code") && has("discounts") {
            return invalid("discounts[0] needs either coupon or promotion_code");
        }
        if has("subscription_data/trial_settings") && self.trial_period_days.is_none() {
            return invalid("subscription_data.trial_settings needs trial_period_days");
        }
        if is("customer_update/shipping", json!("auto")) && !has("shipping_address_collection") {
            return invalid("customer_update.shipping needs shipping_address_collection");
        }
        for (field, reason) in self.needed_updates() {
            if is(&format!("customer_update/{field}"), json!("never")) {
                return invalid(&format!(
                    "{reason} needs customer_update.{field} to be auto"
                ));
            }
        }
        let fields = self.at("custom_fields").and_then(Value::as_array);
        let mut keys: Vec<_> = fields
            .into_iter()
            .flatten()
            .map(|field| &field["key"])
            .collect();
        keys.sort_unstable_by_key(|key| key.to_string());
        if keys.windows(2).any(|pair| pair[0] == pair[1]) {
            return invalid("custom_fields have the same key");
        }
        for field in fields.into_iter().flatten() {
            for kind in ["dropdown", "numeric", "text"] {
                if field["type"] != kind && field.get(kind).is_some() {
                    return invalid(&format!("a custom field has {kind}, which is not its type"));
                }
            }
            if field["type"] == "dropdown" && field.get("dropdown").is_none() {
                return invalid("a custom field of the type dropdown needs dropdown.options");
            }
        }
        Ok(())
    }

    fn at(&self, path: &str) -> Option<&Value> {
        let (name, rest) = path.split_at(path.find('/').unwrap_or(path.len()));
        self.parameters.get(name)?.pointer(rest)
    }

    /// Whether buyers can be sent to this URL.
    pub fn allows_url(&self, url: &str) -> bool {
        match &self.allowed_origins {
            Some(allowed) => Origin::of(url).is_some_and(|origin| allowed.contains(&origin)),
            None => true,
        }
    }

    /// The portal configuration to use when a caller asks for this one, or for none: then it is the
    /// first that is allowed. None if the one asked for is not allowed.
    pub fn portal_configuration<'a>(&'a self, asked: Option<&'a str>) -> Option<Option<&'a str>> {
        match (&self.allowed_portal_configurations, asked) {
            (None, asked) => Some(asked),
            (Some(allowed), None) => Some(allowed.first().map(String::as_str)),
            (Some(allowed), Some(asked)) => {
                allowed.iter().any(|id| id == asked).then_some(Some(asked))
            }
        }
    }

    /// Adds the settings to the parameters of `POST /v1/checkout/sessions`, as far as they go with
    /// what is sold to whom. `trial`: whether this subject can still have its trial.
    pub fn add_to(&self, session: &mut Value, trial: bool) {
        let Value::Object(session) = session else {
            return;
        };
        let is_subscription = session.get("mode").and_then(Value::as_str) == Some("subscription");
        let has_customer =
            session.contains_key("customer") || session.contains_key("customer_account");
        let goes = |scope| match scope {
            Scope::Every => true,
            Scope::Payment => !is_subscription,
            Scope::Subscription => is_subscription,
            Scope::Guest => !is_subscription && !has_customer,
            Scope::Customer => has_customer,
        };
        for Parameter { name, scope, .. } in PARAMETERS {
            if let Some(value) = self.parameters.get(*name).filter(|_| goes(*scope)) {
                add(session, name, value.clone());
            }
        }
        if has_customer {
            for (field, _) in self.needed_updates() {
                add(session, "customer_update", json!({field: "auto"}));
            }
        }
        if let Some(Value::Object(data)) = session.get_mut("subscription_data") {
            match self.trial_period_days.filter(|_| trial) {
                Some(days) => drop(data.insert("trial_period_days".to_owned(), days.into())),
                // Stripe takes them with a trial only.
                None => drop(data.remove("trial_settings")),
            }
        }
    }

    /// What a returning customer's record must be open to, and for what: the buyer types in what
    /// tax depends on, and Stripe wants to keep it.
    /// <https://docs.stripe.com/tax/checkout#existing-customers>
    fn needed_updates(&self) -> Vec<(&'static str, &'static str)> {
        let is_enabled = |name: &str| self.at(&format!("{name}/enabled")) == Some(&json!(true));
        let mut updates = Vec::new();
        if is_enabled("automatic_tax") {
            updates.push(("address", "automatic_tax"));
            if self.parameters.contains_key("shipping_address_collection") {
                updates.push(("shipping", "automatic_tax with shipping_address_collection"));
            }
        }
        if is_enabled("tax_id_collection") {
            updates.push(("name", "tax_id_collection"));
        }
        updates
    }
}

/// Sets a parameter; fields of one that is there already join it.
fn add(session: &mut Map<String, Value>, name: &str, value: Value) {
    match (session.get_mut(name), value) {
        (Some(Value::Object(present)), Value::Object(more)) => present.extend(more),
        (_, value) => drop(session.insert(name.to_owned(), value)),
    }
}

fn origins(value: &Value) -> Result<Vec<Origin>, Invalid> {
    texts("allowed_origins", value)?
        .iter()
        .map(|text| {
            Origin::parse(text).ok_or_else(|| {
                Invalid::new(
                    "settings",
                    format!("allowed_origins has {text:?}, which is no origin"),
                )
                .hint("An origin is https://app.example, with a port if it has one, and no path.")
            })
        })
        .collect()
}

fn prices(value: &Value) -> Result<AllowedPrices, Invalid> {
    match value.as_str() {
        Some("active") => Ok(AllowedPrices::Active),
        Some(_) => Err(
            Invalid::new("settings", "allowed_prices must be \"active\" or a list")
                .hint("A list has ids of prices, or lookup keys."),
        ),
        None => texts("allowed_prices", value).map(AllowedPrices::Listed),
    }
}

fn configurations(value: &Value) -> Result<Vec<String>, Invalid> {
    let ids = texts("allowed_portal_configurations", value)?;
    for id in &ids {
        Kind::PortalConfiguration.check(id).map_err(|error| {
            let message = format!("allowed_portal_configurations has {id:?}, which is {error}");
            Invalid::new("settings", message)
        })?;
    }
    Ok(ids)
}

/// A list of what is allowed. An empty one would allow nothing, which nobody means.
fn texts(name: &str, value: &Value) -> Result<Vec<String>, Invalid> {
    let list = Shape::List(1000, &Shape::Text(255)).read(name, value)?;
    let texts = list.as_array().into_iter().flatten();
    Ok(texts.filter_map(Value::as_str).map(str::to_owned).collect())
}

#[cfg(test)]
mod tests;
