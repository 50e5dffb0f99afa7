//! The shapes of Stripe's ids.

/// Ids are at most this long, in characters. <https://docs.stripe.com/upgrades>
const MAX_LENGTH: usize = 255;

/// A kind of Stripe object that callers name by its id.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    Account,
    Charge,
    CheckoutSession,
    Customer,
    Dispute,
    Event,
    Invoice,
    PaymentIntent,
    PortalConfiguration,
    Price,
    Product,
    Refund,
    Subscription,
    SubscriptionItem,
    WebhookEndpoint,
}

/// The text is not an id of the kind asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a Stripe {} id{}", .0.name(), .0.example())]
pub struct NotAnId(pub Kind);

impl Kind {
    /// Returns `id` if it can be one of this kind. What passes holds nothing but letters, digits,
    /// `_`, `-` and inner dots, so it can stand in a path as it is.
    ///
    /// # Errors
    /// When the prefix is another one, or the id is too long or has other characters.
    pub fn check(self, id: &str) -> Result<&str, NotAnId> {
        let prefixes = self.prefixes();
        let rest = prefixes.iter().find_map(|prefix| id.strip_prefix(prefix));
        let rest = if prefixes.is_empty() { Some(id) } else { rest };
        let well_formed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.');
        rest.filter(|rest| !rest.is_empty() && !rest.starts_with('.'))
            .filter(|rest| id.len() <= MAX_LENGTH && rest.chars().all(well_formed))
            .map(|_| id)
            .ok_or(NotAnId(self))
    }

    /// What an id of this kind starts with: nothing fixed where merchants choose ids themselves.
    fn prefixes(self) -> &'static [&'static str] {
        match self {
            Self::Account => &["acct_"],
            Self::Charge => &["ch_", "py_"],
            Self::CheckoutSession => &["cs_test_", "cs_live_"],
            Self::Customer => &["cus_"],
            Self::Dispute => &["dp_", "du_"],
            Self::Event => &["evt_"],
            Self::Invoice => &["in_"],
            Self::PaymentIntent => &["pi_"],
            Self::PortalConfiguration => &["bpc_"],
            Self::Price => &["price_", "plan_"],
            Self::Product => &[],
            Self::Refund => &["re_", "pyr_"],
            Self::Subscription => &["sub_"],
            Self::SubscriptionItem => &["si_"],
            Self::WebhookEndpoint => &["we_"],
        }
    }

    fn name(self) -> &'static str {
        match self {
            Self::Account => "account",
            Self::Charge => "charge",
            Self::CheckoutSession => "checkout session",
            Self::Customer => "customer",
            Self::Dispute => "dispute",
            Self::Event => "event",
            Self::Invoice => "invoice",
            Self::PaymentIntent => "payment intent",
            Self::PortalConfiguration => "portal configuration",
            Self::Price => "price",
            Self::Product => "product",
            Self::Refund => "refund",
            Self::Subscription => "subscription",
            Self::SubscriptionItem => "subscription item",
            Self::WebhookEndpoint => "webhook endpoint",
        }
    }

    fn example(self) -> String {
        self.prefixes()
            .first()
            .map_or_else(String::new, |prefix| format!(" ({prefix}…)"))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn ids_of_the_kind_pass() {
        for (kind, id) in [
            (Kind::Price, "price_1PgafmB7WZ01zgkW6dKueIc5"),
            (Kind::Price, "plan_Abc"),
            (Kind::Customer, "cus_9s6XKzkNRiz8i3"),
            (Kind::PortalConfiguration, "bpc_1"),
            (Kind::CheckoutSession, "cs_test_a1b2"),
            (Kind::Charge, "py_1"),
            (Kind::Product, "gold.plan-2"),
        ] {
            assert_eq!(kind.check(id), Ok(id));
        }
    }

    #[test]
    fn other_shapes_are_refused() {
        for id in [
            "",
            "price_",
            "prod_1",
            "Price_1",
            " price_1",
            "price_1/../x",
            "price_1?a",
            "price_é",
        ] {
            assert_eq!(Kind::Price.check(id), Err(NotAnId(Kind::Price)), "{id}");
        }
        for id in ["", ".", "..", "a/b", "a b", "a%2fb"] {
            assert_eq!(Kind::Product.check(id), Err(NotAnId(Kind::Product)), "{id}");
        }
        assert!(
            Kind::Price
                .check(&format!("price_{}", "a".repeat(249)))
                .is_ok()
        );
        assert!(
            Kind::Price
                .check(&format!("price_{}", "a".repeat(250)))
                .is_err()
        );
    }

    #[test]
    fn the_message_shows_the_shape() {
        assert_eq!(
            NotAnId(Kind::Price).to_string(),
            "not a Stripe price id (price_…)"
        );
        assert_eq!(
            NotAnId(Kind::Product).to_string(),
            "not a Stripe product id"
        );
    }

    proptest! {
        #[test]
        fn what_passes_is_one_path_segment(id in "(price_|cus_)?.{0,20}") {
            for kind in [Kind::Price, Kind::Customer, Kind::Product] {
                if kind.check(&id).is_ok() {
                    prop_assert!(!id.contains(['/', '?', '#', '%', '\\', ' ', '\r', '\n']));
                    prop_assert!(id != "." && id != "..");
                }
            }
        }
    }
}
