//! What a restricted key must be allowed to do.

use crate::Environment;

/// The permissions that this product needs of a restricted key, as Stripe's 403s spell them.
/// Refunds go with charges. <https://docs.stripe.com/keys/restricted-api-keys>
pub const REQUIRED: [&str; 13] = [
    "rak_accounts_kyc_basic_read",
    "rak_charge_write",
    "rak_checkout_session_write",
    "rak_customer_portal_write",
    "rak_customer_write",
    "rak_dispute_read",
    "rak_event_read",
    "rak_invoice_read",
    "rak_payment_intent_read",
    "rak_plan_write",
    "rak_product_write",
    "rak_subscription_write",
    "rak_webhook_write",
];

/// A page of the Dashboard that makes a new restricted key with these permissions already ticked.
pub fn link(environment: Environment, permissions: &[impl AsRef<str>]) -> String {
    let mode = if environment.livemode() { "" } else { "test/" };
    let mut link = format!("https://dashboard.stripe.com/{mode}apikeys/create?name=payments");
    for permission in permissions {
        link.push_str("&permissions[]=");
        link.push_str(permission.as_ref());
    }
    link
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_link_ticks_every_permission_in_the_right_mode() {
        assert_eq!(
            link(Environment::Test, &["rak_a", "rak_b"]),
            "https://dashboard.stripe.com/test/apikeys/create?name=payments\
             &permissions[]=rak_a&permissions[]=rak_b"
        );
        let live = link(Environment::Live, &REQUIRED);
        assert!(live.starts_with("https://dashboard.stripe.com/apikeys/create?"));
        assert_eq!(live.matches("permissions[]=rak_").count(), REQUIRED.len());
    }
}
