//! Which events can be asked for, and the life-cycle that each is part of.

use super::Host;
use super::objects::Attempt::{Fails, Pends, Succeeds};
use super::story::Story;

type Life<'h, H> = fn(&mut Story<'h, H>) -> Result<(), <H as Host>::Error>;

/// Every event type that can be simulated. <https://docs.stripe.com/api/events/types>
#[rustfmt::skip]
pub(super) fn all<'h, H: Host>() -> Vec<(&'static str, Life<'h, H>)> {
    vec![
        ("charge.dispute.closed", |s| s.close_dispute("lost")),
        ("charge.dispute.created", |s| s.open_dispute().map(drop)),
        ("charge.dispute.funds_reinstated", |s| s.close_dispute("won")),
        ("charge.dispute.funds_withdrawn", |s| s.open_dispute().map(drop)),
        ("charge.dispute.updated", |s| s.update_dispute()),
        ("charge.failed", |s| s.try_to_pay(Fails)),
        ("charge.pending", |s| s.try_to_pay(Pends)),
        ("charge.refunded", |s| s.refund("succeeded").map(drop)),
        ("charge.succeeded", |s| s.try_to_pay(Succeeds)),
        ("checkout.session.async_payment_failed", |s| s.settle(false)),
        ("checkout.session.async_payment_succeeded", |s| s.settle(true)),
        ("checkout.session.completed", |s| s.check_out()),
        ("checkout.session.expired", |s| s.expire()),
        ("customer.created", |s| s.new_customer().map(drop)),
        ("customer.deleted", |s| s.delete_customer()),
        ("customer.subscription.created", |s| s.subscribe_anew()),
        ("customer.subscription.deleted", |s| s.end_subscription()),
        ("customer.subscription.paused", |s| s.set_subscription("paused")),
        ("customer.subscription.resumed", |s| s.set_subscription("active")),
        ("customer.subscription.updated", |s| s.update_subscription()),
        ("customer.updated", |s| s.update_customer()),
        ("invoice.finalized", |s| s.finalize_invoice()),
        ("invoice.marked_uncollectible", |s| s.close_invoice("uncollectible", "marked_uncollectible_at")),
        ("invoice.paid", |s| s.pay_invoice()),
        ("invoice.payment_failed", |s| s.fail_invoice()),
        ("invoice.payment_succeeded", |s| s.pay_invoice()),
        ("invoice.voided", |s| s.close_invoice("void", "voided_at")),
        ("invoice_payment.paid", |s| s.pay_invoice()),
        ("payment_intent.canceled", |s| s.cancel_intent()),
        ("payment_intent.created", |s| s.create_intent()),
        ("payment_intent.payment_failed", |s| s.try_to_pay(Fails)),
        ("payment_intent.processing", |s| s.try_to_pay(Pends)),
        ("payment_intent.succeeded", |s| s.try_to_pay(Succeeds)),
        ("price.created", |s| s.create_price()),
        ("price.deleted", |s| s.delete_price()),
        ("price.updated", |s| s.update_price()),
        ("product.created", |s| s.new_product().map(drop)),
        ("product.deleted", |s| s.delete_product()),
        ("product.updated", |s| s.update_product()),
        ("refund.created", |s| s.refund("succeeded").map(drop)),
        ("refund.failed", |s| s.fail_refund()),
        ("refund.updated", |s| s.settle_refund()),
    ]
}
