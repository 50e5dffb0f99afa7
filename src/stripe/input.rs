//! What callers hand over, checked before Stripe sees it: Stripe's own errors name its parameters,
//! not the caller's, and come after a row and a round trip.

use std::collections::BTreeMap;

use serde_json::Value;
use ureq::http::Uri;

/// Stripe takes URLs up to this many characters.
const MAX_URL: usize = 5000;

/// An argument that cannot be used, with what is wrong and what to do. The message names the
/// place: `line_items[0].quantity must be …`.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct Invalid {
    /// The name of the SQL argument.
    pub argument: &'static str,
    pub message: String,
    pub hint: Option<String>,
}

impl Invalid {
    pub(crate) fn new(argument: &'static str, message: impl Into<String>) -> Self {
        Self {
            argument,
            message: message.into(),
            hint: None,
        }
    }

    pub(crate) fn hint(self, hint: impl Into<String>) -> Self {
        Self {
            hint: Some(hint.into()),
            ..self
        }
    }
}

/// A JSON object in an argument. Its keys are snake_case, as everything in SQL, or the camelCase
/// of JavaScript; a null is as good as absent.
pub(crate) struct Object<'a> {
    argument: &'static str,
    path: String,
    fields: BTreeMap<String, &'a Value>,
}

impl<'a> Object<'a> {
    /// Reads the object at `path`, which may have the fields `known`.
    ///
    /// # Errors
    /// When it is no object, or has a field that is unknown or spelt both ways. A misspelt field
    /// that was ignored would be found out by a customer.
    pub fn read(
        argument: &'static str,
        path: impl Into<String>,
        value: &'a Value,
        known: &[&str],
    ) -> Result<Self, Invalid> {
        let path = path.into();
        let object = value.as_object();
        let object = object
            .ok_or_else(|| Invalid::new(argument, format!("{path} must be a JSON object")))?;
        let mut fields = BTreeMap::new();
        for (key, value) in object {
            let name = snake_case(key);
            if !known.contains(&name.as_str()) {
                let hint = format!("It can have {}.", known.join(", "));
                return Err(
                    Invalid::new(argument, format!("{path} has an unknown key {key:?}")).hint(hint),
                );
            }
            if fields.insert(name, value).is_some() {
                let message = format!("{path} has the key {key:?} in two spellings");
                return Err(Invalid::new(argument, message));
            }
        }
        fields.retain(|_, value| !value.is_null());
        Ok(Self {
            argument,
            path,
            fields,
        })
    }

    pub fn get(&self, name: &str) -> Option<&'a Value> {
        self.fields.get(name).copied()
    }

    /// A text, without the spaces around it.
    pub fn text(&self, name: &str) -> Result<Option<&'a str>, Invalid> {
        let Some(value) = self.get(name) else {
            return Ok(None);
        };
        let text = value.as_str().map(str::trim);
        text.map(Some)
            .ok_or_else(|| self.invalid(name, "must be a string"))
    }

    /// A text of 1 to `max` characters, without the spaces around it.
    pub fn text_up_to(&self, name: &str, max: usize) -> Result<Option<&'a str>, Invalid> {
        let text = self.text(name)?;
        if text.is_some_and(|text| !has_length(text, max)) {
            return Err(self.invalid(name, &format!("must have 1 to {max} characters")));
        }
        Ok(text)
    }

    pub fn required<T>(&self, name: &str, value: Option<T>) -> Result<T, Invalid> {
        value.ok_or_else(|| self.invalid(name, "is missing"))
    }

    pub fn invalid(&self, name: &str, what: &str) -> Invalid {
        Invalid::new(self.argument, format!("{}.{name} {what}", self.path))
    }

    pub fn path_to(&self, name: &str) -> String {
        format!("{}.{name}", self.path)
    }
}

/// Whether a text has 1 to `max` characters.
pub(crate) fn has_length(text: &str, max: usize) -> bool {
    (1..=max).contains(&text.chars().count())
}

/// Checks an absolute `http` or `https` URL, and returns it as it is: Stripe replaces a literal
/// `{CHECKOUT_SESSION_ID}` in it. <https://docs.stripe.com/payments/checkout/custom-success-page>
///
/// User names are refused, because `https://shop.example@evil.example` passes for the shop's own;
/// so is a backslash, which browsers read as a slash.
pub(crate) fn url(argument: &'static str, path: &str, text: &str) -> Result<String, Invalid> {
    let invalid = |what: &str| Invalid::new(argument, format!("{path} {what}"));
    if !has_length(text, MAX_URL) {
        return Err(invalid(&format!("must have 1 to {MAX_URL} characters")));
    }
    let uri = text.parse::<Uri>().ok().filter(|_| {
        let strange = |c: char| c.is_whitespace() || c.is_control() || c == '\\';
        !text.contains(strange)
    });
    let absolute = uri
        .as_ref()
        .and_then(|uri| Some((uri.scheme_str()?, uri.authority()?)));
    match absolute {
        Some((scheme, host))
            if ["http", "https"]
                .iter()
                .any(|known| scheme.eq_ignore_ascii_case(known))
                && !host.host().is_empty() =>
        {
            if host.as_str().contains('@') {
                return Err(invalid("must not have a user name in it"));
            }
            Ok(text.to_owned())
        }
        _ => Err(invalid("must be an absolute http or https URL")
            .hint("For example https://shop.example/thanks?session={CHECKOUT_SESSION_ID}.")),
    }
}

/// The parameter that takes this customer: an account of Accounts v2 can be one, too.
/// <https://docs.stripe.com/connect/use-accounts-as-customers>
pub(crate) fn customer_parameter(customer: &str) -> &'static str {
    if customer.starts_with("acct_") {
        "customer_account"
    } else {
        "customer"
    }
}

pub(crate) fn snake_case(key: &str) -> String {
    let mut name = String::with_capacity(key.len() + 4);
    for c in key.chars() {
        if c.is_ascii_uppercase() {
            name.push('_');
        }
        name.push(c.to_ascii_lowercase());
    }
    name
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    #[test]
    fn both_spellings_are_one_field() {
        let value = json!({"stripePriceId": "a", "quantity": null});
        let object = Object::read("x", "x", &value, &["stripe_price_id", "quantity"]);
        let object = object.expect("an object");
        assert_eq!(object.text("stripe_price_id"), Ok(Some("a")));
        assert_eq!(object.get("quantity"), None);
    }

    #[test]
    fn unknown_doubled_and_misplaced_fields_are_named() {
        let message = |value: Value| {
            let read = Object::read("x", "x[0]", &value, &["return_url"]);
            read.map(|_| ()).map_err(|invalid| invalid.message)
        };
        assert_eq!(
            message(json!({"retrunUrl": 1})),
            Err(r#"x[0] has an unknown key "retrunUrl""#.into())
        );
        assert_eq!(
            message(json!({"return_url": "a", "returnUrl": "b"})),
            Err(r#"x[0] has the key "return_url" in two spellings"#.into())
        );
        assert_eq!(message(json!([])), Err("x[0] must be a JSON object".into()));
    }

    #[test]
    fn texts_are_trimmed_and_measured_in_characters() {
        let value = json!({"a": "  éé ", "b": 5, "c": "  "});
        let object = Object::read("x", "x", &value, &["a", "b", "c"]).expect("an object");
        assert_eq!(object.text_up_to("a", 2), Ok(Some("éé")));
        let message = |name, max| {
            object
                .text_up_to(name, max)
                .map_err(|invalid| invalid.message)
        };
        assert_eq!(
            message("a", 1),
            Err("x.a must have 1 to 1 characters".into())
        );
        assert_eq!(message("b", 1), Err("x.b must be a string".into()));
        assert_eq!(
            message("c", 1),
            Err("x.c must have 1 to 1 characters".into())
        );
        assert_eq!(message("d", 1), Ok(None));
    }

    #[test]
    fn absolute_urls_pass_as_they_are() {
        for text in [
            "https://shop.example",
            "http://localhost:3000/thanks",
            "https://shop.example/a?s={CHECKOUT_SESSION_ID}&x=1#frag",
            "https://shop.example/{CHECKOUT_SESSION_ID}",
            "https://shop.example/#/thanks?s={CHECKOUT_SESSION_ID}",
            "HTTPS://SHOP.EXAMPLE/",
            "https://[::1]:3000/",
            "https://shop.example/é?q=a@b",
        ] {
            assert_eq!(url("success_url", "success_url", text), Ok(text.into()));
        }
    }

    #[test]
    fn other_urls_are_refused() {
        for text in [
            "",
            "/thanks",
            "shop.example/thanks",
            "//shop.example",
            "javascript:alert(1)",
            "ftp://shop.example/",
            "https://",
            "https:///thanks",
            "https://:80/",
            " https://shop.example",
            "https://shop.example/a b",
            "https://shop.example\\@evil.example",
            "https://shop.example/#a\nb",
            "https://user:pw@shop.example/",
            "https://shop.example@evil.example/",
        ] {
            let refused = url("success_url", "success_url", text);
            assert_eq!(
                refused.map_err(|invalid| invalid.argument),
                Err("success_url"),
                "{text}"
            );
        }
        let long = format!("https://shop.example/{}", "a".repeat(MAX_URL));
        assert!(url("success_url", "success_url", &long).is_err());
    }

    #[test]
    fn an_account_can_be_a_customer() {
        assert_eq!(customer_parameter("cus_1"), "customer");
        assert_eq!(customer_parameter("acct_1"), "customer_account");
    }

    proptest! {
        #[test]
        fn any_url_is_taken_or_refused_without_panic(text in "(https?://)?.{0,60}") {
            if let Ok(taken) = url("x", "x", &text) {
                prop_assert_eq!(taken, text);
            }
        }
    }
}
