//! Proof that we wrote a session's metadata.
//!
//! A session whose transaction was rolled back is built again from the metadata that travelled to
//! Stripe with it. Whoever else writes metadata in the same Stripe account, perhaps copying what a
//! buyer typed, must not be able to make rows that way.

use crate::postgres::error::Failure;
use crate::postgres::sealed;
use serde_json::{Map, Value};
use stripe::Environment;

/// The key of the proof in a session's metadata.
pub const PROOF: &str = "payments_proof";

/// What the proof covers. A key that is not there counts as empty.
const PROVEN: [&str; 8] = [
    "payments_checkout_session_id",
    "payments_checkout_mode",
    "payments_subject_type",
    "payments_subject_id",
    "payments_idempotency_key",
    "payments_generation",
    "payments_request_hash",
    "payments_requested_by",
];

/// The proof for metadata: an HMAC under the sealing key, in hex.
pub fn of<'a>(
    environment: Environment,
    metadata: impl Fn(&str) -> Option<&'a str>,
) -> Result<String, Failure> {
    let mut parts = vec![environment.as_str()];
    parts.extend(PROVEN.iter().map(|name| metadata(name).unwrap_or_default()));
    Ok(hex::encode(sealed::derive("session metadata", &parts)?))
}

/// Does metadata carry its proof?
pub fn is_authentic(environment: Environment, metadata: &Map<String, Value>) -> bool {
    let text = |name: &str| metadata.get(name).and_then(Value::as_str);
    match (of(environment, text), text(PROOF)) {
        (Ok(proof), Some(claimed)) => proof == claimed,
        _ => false,
    }
}
