//! Which other objects an object names, in whatever API version it was written.
//!
//! Stripe moved these names about (a payment intent's `invoice` became an object of its own, an
//! invoice's `subscription` went under `parent`), and even a pinned version leaves old paths
//! empty for newer kinds of billing. So every path is tried, and the first that says something
//! is believed; the version string never is.
//! <https://docs.stripe.com/changelog/basil>

use serde_json::{Map, Value};
use uuid::Uuid;

use crate::body::Body;
use crate::fields::Fields;
use crate::observation::Key;

/// A column of the mirror by which objects of one group find each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Link {
    PaymentIntent,
    Charge,
    Invoice,
    Subscription,
}

impl Link {
    /// The mirror's column.
    pub fn column(self) -> &'static str {
        match self {
            Self::PaymentIntent => "payment_intent_id",
            Self::Charge => "charge_id",
            Self::Invoice => "invoice_id",
            Self::Subscription => "subscription_id",
        }
    }
}

/// The objects that an object names. Never itself.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Links {
    pub payment_intent: Option<String>,
    pub charge: Option<String>,
    pub invoice: Option<String>,
    pub subscription: Option<String>,
    /// The customer, or the account that takes a customer's place. Not kept in the mirror: the
    /// projected tables find rows by customer.
    pub customer: Option<String>,
    /// The row of ours whose id travelled to Stripe in the object's metadata.
    pub session_row: Option<Uuid>,
}

/// The key of our own row's id in a session's metadata, and in what the session's metadata was
/// copied to.
pub const SESSION_ROW: &str = "payments_checkout_session_id";

impl Links {
    /// What an object names. Types that no payment or subscription is made of name nothing, so
    /// that an invoice of a thousand items does not drag them all into its group.
    pub(crate) fn of(key: &Key, body: &Fields) -> Self {
        let (body, id) = (Body::Whole(body), key.id.as_str());
        let customer = body.id("customer").or_else(|| body.id("customer_account"));
        let session_row = body.map("metadata").and_then(row_named_in);
        let own = Self {
            customer,
            session_row,
            ..Self::default()
        };
        match key.object_type.as_str() {
            "payment_intent" => Self {
                charge: body
                    .id("latest_charge")
                    .or_else(|| body.list("charges").find_map(|charge| charge.id("id"))),
                invoice: body.id("invoice"),
                ..own
            },
            "charge" => Self {
                payment_intent: body.id("payment_intent"),
                invoice: body.id("invoice"),
                ..own
            },
            "refund" | "dispute" => Self {
                payment_intent: body.id("payment_intent"),
                charge: body.id("charge"),
                ..own
            },
            "invoice" => Self {
                payment_intent: body.id("payment_intent"),
                charge: body.id("charge"),
                subscription: invoice_subscription(body),
                session_row: subscription_metadata(body)
                    .and_then(row_named_in)
                    .or(own.session_row),
                ..own
            },
            "invoice_payment" => Self {
                payment_intent: body.id("payment.payment_intent"),
                charge: body.id("payment.charge"),
                invoice: body.id("invoice"),
                ..own
            },
            "invoice_payment_list" if id.starts_with("in_") => Self {
                invoice: Some(id.to_owned()),
                ..own
            },
            "invoice_payment_list" => Self {
                payment_intent: Some(id.to_owned()),
                ..own
            },
            "checkout.session" => Self {
                payment_intent: body.id("payment_intent"),
                invoice: body.id("invoice"),
                subscription: body.id("subscription"),
                ..own
            },
            "subscription" => own,
            "subscription_item" => Self {
                subscription: body.id("subscription"),
                ..own
            },
            _ => Self::default(),
        }
    }

    /// The links as the mirror keeps them.
    pub fn columns(&self) -> [(Link, Option<&str>); 4] {
        [
            (Link::PaymentIntent, self.payment_intent.as_deref()),
            (Link::Charge, self.charge.as_deref()),
            (Link::Invoice, self.invoice.as_deref()),
            (Link::Subscription, self.subscription.as_deref()),
        ]
    }
}

fn row_named_in(metadata: &Map<String, Value>) -> Option<Uuid> {
    Body::Part(metadata).text(SESSION_ROW)?.parse().ok()
}

/// The subscription that an invoice bills. Since 2025-03-31.basil `parent` says it; some
/// invoices rendered for older versions say it on their lines alone.
fn invoice_subscription(invoice: Body) -> Option<String> {
    invoice
        .id("parent.subscription_details.subscription")
        .or_else(|| invoice.id("subscription"))
        .or_else(|| {
            // A one-off invoice may pick up a subscription's pending items without being its
            // bill, so lines are believed only where the invoice says that a subscription made it.
            let made_by = invoice.text("billing_reason")?;
            made_by.starts_with("subscription").then(|| {
                invoice.list("lines").find_map(|line| {
                    line.id("parent.subscription_item_details.subscription")
                        .or_else(|| line.id("subscription"))
                })
            })?
        })
}

/// The subscription's metadata as it was when the invoice was made.
pub(crate) fn subscription_metadata(invoice: Body<'_>) -> Option<&Map<String, Value>> {
    invoice
        .map("parent.subscription_details.metadata")
        .or_else(|| invoice.map("subscription_details.metadata"))
}

/// Whether an invoice is a subscription's bill, even if it does not say whose.
pub(crate) fn bills_subscription(invoice: Body) -> bool {
    invoice_subscription(invoice).is_some()
        || invoice
            .text("billing_reason")
            .is_some_and(|r| r.starts_with("subscription"))
}
