//! Checkout sessions that started here.

use serde_json::{Map, Value, json};
use uuid::Uuid;

use super::{body, created, own_metadata};
use crate::body::Body;
use crate::mirror::Object;
use crate::rows::CheckoutSession;

/// The row of ours that a session names, if it names one at all. Payment Links and other
/// people's sessions do not: they are mirrored and no more.
pub(crate) fn row_of(session: &Object) -> Option<Uuid> {
    session.links.session_row
}

/// The session's row: what was asked for, from the row that is there, and what became of it.
///
/// The row may be gone: the transaction that made the session rolled back after Stripe had
/// answered, and the buyer paid all the same. It is then built from the session's metadata,
/// provided that the metadata is `authentic`.
pub(crate) fn checkout_session(
    environment: &str,
    session: &Object,
    existing: Option<CheckoutSession>,
    authentic: impl FnOnce(&Map<String, Value>) -> bool,
) -> Option<CheckoutSession> {
    let body = body(session);
    let asked = match existing {
        Some(row) => Some(row).filter(|row| is_its_session(row, session))?,
        None => asked_for(environment, session, authentic)?,
    };
    let links = &session.links;
    let status = match body.text("status").as_deref() {
        Some("complete") => "completed",
        Some("expired") => "expired",
        _ => "open",
    };
    Some(CheckoutSession {
        status: Some(status.to_owned()),
        payment_status: body.text("payment_status"),
        stripe_checkout_session_id: Some(session.key.id.clone()),
        stripe_customer_id: links.customer.clone(),
        stripe_payment_intent_id: links.payment_intent.clone(),
        stripe_subscription_id: links.subscription.clone(),
        url: body.text("url").filter(|_| status == "open"),
        last_error: None,
        expires_at: body.time("expires_at"),
        updated_at: asked.created_at.max(created(session)),
        ..asked
    })
}

/// A row stands for one session, or for the session that Stripe let the buyer recover it with.
/// <https://docs.stripe.com/payments/checkout/abandoned-carts>
///
/// Never for a session that was made for another request: an id is derived from the caller's key,
/// and a request that was rolled back may be followed by another cart under the same key.
fn is_its_session(row: &CheckoutSession, session: &Object) -> bool {
    let requested = body(session).text("metadata.payments_request_hash");
    if let (Some(requested), Some(ours)) = (requested, &row.request_hash)
        && requested != *ours
    {
        return false;
    }
    match &row.stripe_checkout_session_id {
        None => true,
        Some(id) => {
            *id == session.key.id || body(session).id("recovered_from").as_ref() == Some(id)
        }
    }
}

/// What was asked for, as the session itself remembers it.
fn asked_for(
    environment: &str,
    session: &Object,
    authentic: impl FnOnce(&Map<String, Value>) -> bool,
) -> Option<CheckoutSession> {
    let body = body(session);
    let mode = body
        .text("mode")
        .filter(|mode| mode == "payment" || mode == "subscription")?;
    let metadata = body.map("metadata")?;
    let id = row_of(session)?;
    if !authentic(metadata) {
        return None;
    }
    let ours = Body::Part(metadata);
    let line_items: Vec<Value> = body
        .list("line_items")
        .filter_map(|item| {
            Some(json!({
                "stripe_price_id": item.id("price")?,
                "quantity": item.int("quantity").unwrap_or(1),
            }))
        })
        .collect();
    Some(CheckoutSession {
        id,
        environment: environment.to_owned(),
        mode: Some(mode),
        status: None,
        payment_status: None,
        subject_type: ours.text("payments_subject_type"),
        subject_id: ours.text("payments_subject_id"),
        customer_email: body
            .text("customer_email")
            .or_else(|| body.text("customer_details.email")),
        line_items: Some(Value::Array(line_items)),
        success_url: body.text("success_url"),
        cancel_url: body.text("cancel_url"),
        idempotency_key: ours.text("payments_idempotency_key"),
        metadata: Some(Value::Object(own_metadata(metadata))),
        stripe_checkout_session_id: None,
        stripe_customer_id: None,
        stripe_payment_intent_id: None,
        stripe_subscription_id: None,
        url: None,
        last_error: None,
        expires_at: None,
        requested_by: ours.text("payments_requested_by"),
        request_hash: ours.text("payments_request_hash"),
        generation: ours
            .text("payments_generation")
            .and_then(|text| text.parse().ok()),
        created_at: created(session),
        updated_at: None,
    })
}
