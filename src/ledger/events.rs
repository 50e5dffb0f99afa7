//! The events that bring what the projections are made of.

/// The types of events that a webhook endpoint should be sent: all that change an object that
/// [`projects`](crate::projects), but
/// - `invoice.created`: Stripe waits up to three days for its answer before it finalises the
///   invoice, so that trouble here would hold up money there
///   (<https://docs.stripe.com/billing/subscriptions/webhooks>);
/// - `invoice.payment_succeeded`, which `invoice.paid` always accompanies;
/// - `invoice.upcoming` and `invoice.will_be_due`, which tell of nothing that has happened.
///
/// <https://docs.stripe.com/api/events/types>
pub const EVENTS: [&str; 59] = [
    "charge.captured",
    "charge.dispute.closed",
    "charge.dispute.created",
    "charge.dispute.funds_reinstated",
    "charge.dispute.funds_withdrawn",
    "charge.dispute.updated",
    "charge.expired",
    "charge.failed",
    "charge.pending",
    "charge.refund.updated",
    "charge.refunded",
    "charge.succeeded",
    "charge.updated",
    "checkout.session.async_payment_failed",
    "checkout.session.async_payment_succeeded",
    "checkout.session.completed",
    "checkout.session.expired",
    "customer.created",
    "customer.deleted",
    "customer.subscription.created",
    "customer.subscription.deleted",
    "customer.subscription.paused",
    "customer.subscription.pending_update_applied",
    "customer.subscription.pending_update_expired",
    "customer.subscription.resumed",
    "customer.subscription.trial_will_end",
    "customer.subscription.updated",
    "customer.updated",
    "invoice.deleted",
    "invoice.finalization_failed",
    "invoice.finalized",
    "invoice.marked_uncollectible",
    "invoice.overdue",
    "invoice.overpaid",
    "invoice.paid",
    "invoice.payment_action_required",
    "invoice.payment_attempt_required",
    "invoice.payment_failed",
    "invoice.sent",
    "invoice.updated",
    "invoice.voided",
    "invoice_payment.paid",
    "payment_intent.amount_capturable_updated",
    "payment_intent.canceled",
    "payment_intent.created",
    "payment_intent.partially_funded",
    "payment_intent.payment_failed",
    "payment_intent.processing",
    "payment_intent.requires_action",
    "payment_intent.succeeded",
    "price.created",
    "price.deleted",
    "price.updated",
    "product.created",
    "product.deleted",
    "product.updated",
    "refund.created",
    "refund.failed",
    "refund.updated",
];

#[cfg(test)]
mod tests {
    use super::*;

    /// The type of the object that an event is about, as its name says.
    fn object_type(event: &str) -> &str {
        match event.rsplit_once('.') {
            Some(("charge.dispute", _)) => "dispute",
            Some(("charge.refund", _)) => "refund",
            Some(("customer.subscription", _)) => "subscription",
            Some((object_type, _)) => object_type,
            None => "",
        }
    }

    #[test]
    fn every_event_is_about_something_that_is_projected() {
        for event in EVENTS {
            assert!(crate::projects(object_type(event)), "{event}");
        }
    }

    #[test]
    fn they_stand_in_order_and_once() {
        assert!(EVENTS.is_sorted_by(|one, other| one < other));
    }
}
