//! What Stripe refuses or fails at, as Postgres errors.

use crate::postgres::error::{Failure, SqlState};
use crate::postgres::interrupt;
use stripe::error::{Error, Refusal};

/// Another request is at work on the same thing.
const CONFLICT: SqlState = SqlState::new("PT409");

/// The failure to raise for an error of Stripe's: PT400 (a card: PT402), 23505 for an idempotency
/// key used for something else, PT409, PT429, PT502, PT504, and 55000 when the key is at fault.
///
/// The DETAIL has Stripe's words for it: `stripe_code`, `type`, `param`, `decline_code`,
/// `request_id`, `doc_url` (<https://docs.stripe.com/api/errors>), and `missing_permissions`.
pub fn failure(error: Error) -> Failure {
    let message = message(&error);
    let (sqlstate, code) = kind(&error);
    let hint = hint(&error);
    let mut failure = Failure::new(sqlstate, code, message);
    failure.hint = hint;
    if let Some(refusal) = error.refusal() {
        failure = quoting(failure, refusal);
    }
    match error {
        Error::Permission { missing, .. } => failure.with("missing_permissions", missing),
        Error::RateLimited {
            retry_after,
            reason,
            ..
        } => failure
            .with("retry_after", retry_after.map(|wait| wait.as_secs()))
            .with("reason", reason),
        Error::Malformed { request_id, .. } => failure.with("request_id", request_id),
        Error::Interrupted(error) => interrupt::settle(error).err().unwrap_or(failure),
        _ => failure,
    }
}

/// Did Stripe say that there is no such object (any more)?
pub fn is_missing(failure: &Failure) -> bool {
    let code = failure.detail.get("stripe_code");
    code.and_then(|code| code.as_str()) == Some("resource_missing")
}

/// Like [`failure`], but PT404 when the object is not there, of this type, that the path of the
/// request names.
pub fn failure_of(object_type: &str, error: Error) -> Failure {
    let is_gone = is_gone(&error);
    let mut failure = failure(error);
    if is_gone {
        failure.sqlstate = SqlState::NOT_FOUND;
        failure.code = match object_type {
            "customer" => "no_such_customer",
            "price" => "no_such_price",
            "product" => "no_such_product",
            "subscription" => "no_such_subscription",
            _ => "no_such_object",
        };
        failure =
            failure.hint("The id and the environment must be of the same Stripe account and mode.");
    }
    failure
}

/// Is the object gone, or was it never there, that the path of the request names?
pub fn is_gone(error: &Error) -> bool {
    let param = error.refusal().and_then(|refusal| refusal.param.as_deref());
    error.resource_missing() && matches!(param, None | Some("id"))
}

fn message(error: &Error) -> String {
    match error {
        // Here Stripe quotes the key, masked; whoever reads it may not be who set it.
        Error::Authentication(_) => "Stripe does not accept the API key".into(),
        Error::Permission { missing, .. } if !missing.is_empty() => {
            format!(
                "the restricted key lacks the permission {}",
                missing.join(" or ")
            )
        }
        Error::Permission { .. } => "the restricted key lacks a permission".into(),
        _ => error.to_string(),
    }
}

fn kind(error: &Error) -> (SqlState, &'static str) {
    match error {
        Error::Refused(refusal) if refusal.status == 402 => {
            (SqlState::PAYMENT_REQUIRED, "card_refused")
        }
        Error::Refused(_) => (SqlState::BAD_REQUEST, "stripe_refused"),
        Error::IdempotencyMismatch(_) => (SqlState::UNIQUE_VIOLATION, "key_reused"),
        Error::Conflict(_) => (CONFLICT, "stripe_busy"),
        Error::RateLimited { .. } => (SqlState::TOO_MANY_REQUESTS, "rate_limited"),
        Error::Authentication(_) => (SqlState::PREREQUISITE_STATE, "key_revoked"),
        Error::Permission { .. } => (SqlState::PREREQUISITE_STATE, "permission_missing"),
        Error::Unavailable(_) => (SqlState::BAD_GATEWAY, "stripe_failed"),
        Error::Unreachable(_) => (SqlState::BAD_GATEWAY, "stripe_unreachable"),
        Error::TimedOut { .. } => (SqlState::GATEWAY_TIMEOUT, "stripe_timed_out"),
        Error::Malformed { .. } => (SqlState::BAD_GATEWAY, "stripe_malformed"),
        Error::TooLarge { .. } => (SqlState::BAD_GATEWAY, "stripe_answer_too_large"),
        Error::Redirected { .. } => (SqlState::BAD_GATEWAY, "stripe_redirected"),
        Error::Interrupted(_) => (SqlState::BAD_GATEWAY, "interrupted"),
    }
}

fn hint(error: &Error) -> Option<String> {
    let hint = match error {
        Error::Refused(refusal) => {
            let url = refusal.doc_url.as_deref()?;
            return Some(format!("See {url}"));
        }
        Error::IdempotencyMismatch(_) => "Use a new idempotency key for a new request.",
        Error::Conflict(_) => "Try again in a moment.",
        Error::RateLimited { .. } => "Try again later, with fewer requests at once.",
        Error::Authentication(_) => {
            "It is mistyped, revoked or expired: set one from \
             https://dashboard.stripe.com/apikeys with payments.set_stripe_key."
        }
        Error::Permission { .. } => {
            "Give it the permissions that payments.status() lists, in the Stripe Dashboard, then \
             set it again with payments.set_stripe_key."
        }
        Error::Unavailable(_) => {
            "Try again; with the same idempotency key nothing is done twice. \
             https://status.stripe.com tells how Stripe is doing."
        }
        Error::Unreachable(_) => {
            "Check that this server may connect to the address in the setting \
             payments.stripe_api_base, directly or through payments.http_proxy."
        }
        Error::TimedOut { .. } => {
            "Try again; with the same idempotency key nothing is done twice. The setting \
             payments.http_timeout is the time a call may take."
        }
        Error::TooLarge { .. } => "The setting payments.http_max_response_size is the limit.",
        Error::Malformed { .. } | Error::Redirected { .. } => {
            "Check the settings payments.stripe_api_base and payments.http_proxy: something other \
             than Stripe may have answered."
        }
        Error::Interrupted(_) => return None,
    };
    Some(hint.into())
}

fn quoting(failure: Failure, refusal: &Refusal) -> Failure {
    let fields = [
        ("stripe_code", &refusal.code),
        ("type", &refusal.kind),
        ("param", &refusal.param),
        ("decline_code", &refusal.decline_code),
        ("request_id", &refusal.request_id),
        ("doc_url", &refusal.doc_url),
    ];
    fields
        .into_iter()
        .fold(failure, |failure, (name, value)| match value {
            Some(value) => failure.with(name, value.as_str()),
            None => failure,
        })
}
