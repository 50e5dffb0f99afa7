//! How far along its life an object is, for the seconds that nothing else orders.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::fields::Fields;

/// Of two states of one second the further along is the later one: nothing leaves a terminal
/// state but by a change that its event names.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(crate) struct Standing(u8, i64);

impl Standing {
    /// The part that is never left for a lesser one; always the same where there is none.
    pub(crate) fn stage(self, object_type: &str) -> u8 {
        match is_reversible(object_type) {
            true => 0,
            false => self.0,
        }
    }
}

/// Where a body stands in the life of its type (the states are those of the API reference,
/// <https://docs.stripe.com/api>); types not named here have no order.
pub(crate) fn standing(object_type: &str, body: &Fields) -> Standing {
    let text = |name| body.get(name).and_then(Value::as_str).unwrap_or_default();
    let number = |name| body.get(name).and_then(Value::as_i64).unwrap_or_default();
    let status = text("status");
    match object_type {
        "charge" => {
            let captured = body.get("captured") == Some(&Value::Bool(true));
            let stage = match status {
                "failed" => 2,
                "succeeded" if captured => 2,
                "succeeded" => 1,
                _ => 0,
            };
            Standing(stage, number("amount_refunded"))
        }
        // A session is complete before a delayed payment is settled.
        "checkout.session" => {
            let stage = match status {
                "complete" => 2,
                "expired" => 1,
                _ => 0,
            };
            let settled = matches!(text("payment_status"), "paid" | "no_payment_required");
            Standing(stage, i64::from(settled))
        }
        // Money that is on its way back can still be refused by the bank, not the reverse.
        "refund" | "payout" => match status {
            "failed" | "canceled" => Standing(2, 0),
            "succeeded" | "paid" => Standing(1, 0),
            _ => Standing(0, 0),
        },
        // Finalized and refused at once is common: both open, but one was attempted.
        "invoice" => {
            let stage = match status {
                "paid" | "void" => 3,
                "uncollectible" => 2,
                "open" => 1,
                _ => 0,
            };
            Standing(stage, number("attempt_count"))
        }
        "subscription" => match status {
            "canceled" | "incomplete_expired" => Standing(2, 0),
            "incomplete" => Standing(0, 0),
            _ => Standing(1, 0),
        },
        _ => Standing(u8::from(is_terminal(object_type, status)), 0),
    }
}

fn is_terminal(object_type: &str, status: &str) -> bool {
    match object_type {
        "payment_intent" | "setup_intent" => matches!(status, "succeeded" | "canceled"),
        "dispute" => {
            matches!(
                status,
                "won" | "lost" | "warning_closed" | "prevented" | "charge_refunded"
            )
        }
        "invoice_payment" => matches!(status, "paid" | "canceled"),
        "subscription_schedule" => matches!(status, "completed" | "canceled" | "released"),
        "quote" => matches!(status, "accepted" | "canceled"),
        "credit_note" => status == "void",
        _ => false,
    }
}

/// Whether a terminal state of this type can be left again: a lost dispute can be appealed.
pub(crate) fn is_reversible(object_type: &str) -> bool {
    object_type == "dispute"
}
