//! Disputes.

use super::{body, created};
use crate::mirror::Object;
use crate::rows::Dispute;

pub(crate) fn dispute(environment: &str, object: &Object) -> Dispute {
    let body = body(object);
    let created_at = created(object);
    Dispute {
        environment: environment.to_owned(),
        stripe_dispute_id: object.key.id.clone(),
        stripe_charge_id: object.links.charge.clone(),
        stripe_payment_intent_id: object.links.payment_intent.clone(),
        amount: body.int("amount"),
        currency: body.text("currency"),
        reason: body.text("reason"),
        status: body.text("status"),
        evidence_due_by: body.time("evidence_details.due_by"),
        metadata: body.json("metadata"),
        created_at,
        updated_at: created_at,
    }
}
