//! Invoices.

use super::subject::{Owners, Subject};
use super::{body, created};
use crate::links::subscription_metadata;
use crate::mirror::Object;
use crate::rows::Invoice;
use crate::table::Time;

/// Whom an invoice is for: whom its subscription named when it was made, else whom the
/// subscription serves, else the customer's only subject.
pub(crate) fn subject(object: &Object, owners: &Owners) -> Option<Subject> {
    let links = &object.links;
    subscription_metadata(body(object))
        .and_then(Subject::in_metadata)
        .or_else(|| owners.of_subscription(links.subscription.as_deref()))
        .or_else(|| owners.of_customer(links.customer.as_deref()))
}

/// The newest moment that the invoice itself tells of.
pub(crate) fn updated(object: &Object) -> Option<Time> {
    [
        "finalized_at",
        "marked_uncollectible_at",
        "paid_at",
        "voided_at",
    ]
    .into_iter()
    .map(|step| body(object).time(&format!("status_transitions.{step}")))
    .fold(created(object), Option::max)
}

pub(crate) fn invoice(environment: &str, object: &Object, owners: &Owners) -> Invoice {
    let body = body(object);
    let links = &object.links;
    let (subject_type, subject_id) = Subject::columns(subject(object, owners));
    Invoice {
        environment: environment.to_owned(),
        stripe_invoice_id: object.key.id.clone(),
        stripe_customer_id: links.customer.clone(),
        stripe_subscription_id: links.subscription.clone(),
        subject_type,
        subject_id,
        number: body.text("number"),
        status: body.text("status"),
        billing_reason: body.text("billing_reason"),
        currency: body.text("currency"),
        subtotal: body.int("subtotal"),
        total: body.int("total"),
        amount_due: body.int("amount_due"),
        amount_paid: body.int("amount_paid"),
        amount_remaining: body.int("amount_remaining"),
        attempt_count: body
            .int("attempt_count")
            .and_then(|count| count.try_into().ok()),
        next_payment_attempt: body.time("next_payment_attempt"),
        period_start: body.time("period_start"),
        period_end: body.time("period_end"),
        due_date: body.time("due_date"),
        hosted_invoice_url: body.text("hosted_invoice_url"),
        invoice_pdf: body.text("invoice_pdf"),
        deleted: object.deleted,
        metadata: body.json("metadata"),
        finalized_at: body.time("status_transitions.finalized_at"),
        paid_at: body.time("status_transitions.paid_at"),
        voided_at: body.time("status_transitions.voided_at"),
        created_at: created(object),
        updated_at: updated(object),
    }
}
