//! Where each type of object is found, and which lists of them there are.

use percent_encoding::utf8_percent_encode;

use crate::form::ENCODED;

/// A list of Stripe's that can be read from end to end.
#[derive(Debug, PartialEq, Eq)]
pub struct List {
    /// Its name, as in Stripe's paths but for `/`, which is `_`: `payment_intents`.
    pub name: &'static str,
    /// The type of its objects: `payment_intent`.
    pub object_type: &'static str,
    /// Whether it shows canceled objects only to who asks for `status=all`.
    pub hides_canceled: bool,
}

/// The lists that a whole account is read from, in the order in which to read them: what says whom
/// an object is for, or what a payment pays, comes before the object.
pub const LISTS: [List; 11] = [
    list("products", "product"),
    list("prices", "price"),
    list("customers", "customer"),
    list("checkout_sessions", "checkout.session"),
    List {
        hides_canceled: true,
        ..list("subscriptions", "subscription")
    },
    list("invoices", "invoice"),
    list("invoice_payments", "invoice_payment"),
    list("charges", "charge"),
    list("payment_intents", "payment_intent"),
    list("refunds", "refund"),
    list("disputes", "dispute"),
];

/// Events of the last 30 days. <https://docs.stripe.com/api/events>
pub const EVENTS: List = list("events", "event");

const fn list(name: &'static str, object_type: &'static str) -> List {
    List {
        name,
        object_type,
        hides_canceled: false,
    }
}

impl List {
    /// The path under which it is listed.
    pub fn path(&self) -> String {
        format!("/v1/{}", collection(self.object_type).unwrap_or(self.name))
    }
}

/// The path of one object; None for a type that cannot be asked for by id alone.
pub fn path(object_type: &str, id: &str) -> Option<String> {
    // Merchants choose the ids of products and coupons themselves.
    let id = utf8_percent_encode(id, ENCODED);
    Some(format!("/v1/{}/{id}", collection(object_type)?))
}

/// The types of objects that [`path`] knows.
pub const TYPES: [&str; 16] = [
    "charge",
    "checkout.session",
    "coupon",
    "customer",
    "dispute",
    "event",
    "invoice",
    "invoice_payment",
    "payment_intent",
    "payment_method",
    "price",
    "product",
    "refund",
    "setup_intent",
    "subscription",
    "subscription_item",
];

fn collection(object_type: &str) -> Option<&'static str> {
    Some(match object_type {
        "charge" => "charges",
        "checkout.session" => "checkout/sessions",
        "coupon" => "coupons",
        "customer" => "customers",
        "dispute" => "disputes",
        "event" => "events",
        "invoice" => "invoices",
        "invoice_payment" => "invoice_payments",
        "payment_intent" => "payment_intents",
        "payment_method" => "payment_methods",
        "price" => "prices",
        "product" => "products",
        "refund" => "refunds",
        "setup_intent" => "setup_intents",
        "subscription" => "subscriptions",
        "subscription_item" => "subscription_items",
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_type_has_a_path() {
        assert_eq!(
            path("checkout.session", "cs_1").as_deref(),
            Some("/v1/checkout/sessions/cs_1")
        );
        assert!(
            TYPES
                .iter()
                .all(|object_type| path(object_type, "x").is_some())
        );
        let chosen = path("product", "a/b?c d");
        assert_eq!(chosen.as_deref(), Some("/v1/products/a%2Fb%3Fc%20d"));
        assert_eq!(path("topup", "tu_1"), None);
    }

    #[test]
    fn every_list_has_the_path_of_its_objects() {
        for list in LISTS.iter().chain([&EVENTS]) {
            assert!(TYPES.contains(&list.object_type), "{}", list.name);
            assert_eq!(
                list.path().replace("checkout/", "checkout_"),
                format!("/v1/{}", list.name)
            );
        }
    }
}
