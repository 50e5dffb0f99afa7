//! How a call to Stripe can fail. <https://docs.stripe.com/api/errors>

use std::fmt;
use std::time::Duration;

use serde_json::Value;

use crate::key::scrub;

/// Why a call to Stripe gave no answer. No message carries a key.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Stripe understood the request and would not do it; a card error has the status 402.
    #[error("Stripe refused the request: {0}")]
    Refused(Box<Refusal>),
    /// The idempotency key was used before, with other parameters.
    #[error("Stripe knows this idempotency key from a request with other parameters: {0}")]
    IdempotencyMismatch(Box<Refusal>),
    /// Another request is at work on the same key or object, and stayed so for the whole budget.
    #[error("another request to Stripe is still at work on this: {0}")]
    Conflict(Box<Refusal>),
    #[error("Stripe limits the rate of requests: {refusal}")]
    RateLimited {
        refusal: Box<Refusal>,
        retry_after: Option<Duration>,
        /// `Stripe-Rate-Limited-Reason`: which limit it is.
        reason: Option<String>,
    },
    #[error("Stripe does not accept the API key: {0}")]
    Authentication(Box<Refusal>),
    #[error("Stripe does not permit this to the API key: {refusal}")]
    Permission {
        refusal: Box<Refusal>,
        /// The permissions any of which would have been enough (`rak_…`).
        missing: Vec<String>,
        /// The account that the key belongs to, which Stripe tells even here.
        account: Option<String>,
    },
    /// Stripe failed (5xx), and trying again did not help.
    #[error("Stripe failed: {0}")]
    Unavailable(Box<Refusal>),
    #[error("Stripe could not be reached: {0}")]
    Unreachable(String),
    #[error("timed out {phase}")]
    TimedOut { phase: Phase },
    /// The answer is not what Stripe sends. The request may have been carried out.
    #[error("Stripe's answer cannot be read: {message}")]
    Malformed {
        message: String,
        request_id: Option<String>,
    },
    #[error("Stripe's answer is larger than {limit} bytes")]
    TooLarge { limit: u64 },
    /// Redirects are never followed: the key would go with them.
    #[error("Stripe answered with a redirect (HTTP {status})")]
    Redirected { status: u16 },
    /// The transport or the pause was told to stop, with what it was told.
    #[error("interrupted while calling Stripe")]
    Interrupted(ureq::Error),
}

/// What a call was doing when its budget ran out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    Connecting,
    Waiting,
    Reading,
}

impl fmt::Display for Phase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Connecting => "connecting to Stripe",
            Self::Waiting => "waiting for Stripe's answer",
            Self::Reading => "reading Stripe's answer",
        })
    }
}

/// What Stripe said when it did not do what was asked.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Refusal {
    /// The HTTP status.
    pub status: u16,
    /// `error.type`: `card_error`, `invalid_request_error` …
    pub kind: Option<String>,
    pub code: Option<String>,
    pub decline_code: Option<String>,
    /// The parameter at fault, in brackets: `line_items[0][price]`.
    pub param: Option<String>,
    /// Stripe's explanation, with whatever looks like a key hidden.
    pub message: String,
    pub doc_url: Option<String>,
    /// `req_…`, which Stripe's support asks for.
    pub request_id: Option<String>,
    /// Stripe repeated the stored outcome of an earlier request with this idempotency key; only
    /// another key can have another outcome.
    pub replayed: bool,
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl Refusal {
    /// Reads the body of an answer with an error status; one that is not Stripe's JSON, as proxies
    /// send them, leaves the status to speak.
    pub(crate) fn parse(status: u16, body: &str) -> Self {
        let body: Value = serde_json::from_str(body).unwrap_or_default();
        let field = |name: &str| Some(body.get("error")?.get(name)?.as_str()?.to_owned());
        let message = field("message").map(|message| scrub(&message));
        Self {
            status,
            kind: field("type"),
            code: field("code"),
            decline_code: field("decline_code"),
            param: field("param"),
            message: message.unwrap_or_else(|| format!("HTTP {status} without an explanation")),
            doc_url: field("doc_url"),
            request_id: None,
            replayed: false,
        }
    }
}

impl Error {
    /// The error that an answer with this refusal stands for.
    pub(crate) fn refused(
        refusal: Refusal,
        retry_after: Option<Duration>,
        reason: Option<String>,
    ) -> Self {
        let refusal = Box::new(refusal);
        match refusal.status {
            401 => Self::Authentication(refusal),
            403 => {
                let missing = words(&refusal.message, "rak_");
                let account = words(&refusal.message, "acct_").into_iter().next();
                Self::Permission {
                    refusal,
                    missing,
                    account,
                }
            }
            // Before the types: a key in use by another request is a conflict that passes.
            409 => Self::Conflict(refusal),
            429 => Self::RateLimited {
                refusal,
                retry_after,
                reason,
            },
            500.. => Self::Unavailable(refusal),
            _ if refusal.kind.as_deref() == Some("idempotency_error") => {
                Self::IdempotencyMismatch(refusal)
            }
            _ => Self::Refused(refusal),
        }
    }

    /// What Stripe said, when it said anything.
    pub fn refusal(&self) -> Option<&Refusal> {
        match self {
            Self::Refused(refusal)
            | Self::IdempotencyMismatch(refusal)
            | Self::Conflict(refusal)
            | Self::RateLimited { refusal, .. }
            | Self::Authentication(refusal)
            | Self::Permission { refusal, .. }
            | Self::Unavailable(refusal) => Some(refusal),
            _ => None,
        }
    }

    /// Stripe's `error.code`.
    pub fn code(&self) -> Option<&str> {
        self.refusal()?.code.as_deref()
    }

    /// Whether Stripe repeated a stored outcome, 500s included: the same idempotency key will get
    /// it again for at least a day. <https://docs.stripe.com/api/idempotent_requests>
    pub fn is_replayed(&self) -> bool {
        self.refusal().is_some_and(|refusal| refusal.replayed)
    }

    /// Whether an object that the request names does not exist (any more); `param` says which.
    pub fn resource_missing(&self) -> bool {
        self.code() == Some("resource_missing")
    }
}

/// The words of a text that start with a prefix, each once.
fn words(text: &str, prefix: &str) -> Vec<String> {
    let mut words: Vec<String> = Vec::new();
    for word in text.split(|c: char| !c.is_ascii_alphanumeric() && c != '_') {
        if word.len() > prefix.len() && word.starts_with(prefix) && !words.iter().any(|w| w == word)
        {
            words.push(word.to_owned());
        }
    }
    words
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn refused(status: u16, error: Value) -> Error {
        let refusal = Refusal::parse(status, &json!({"error": error}).to_string());
        Error::refused(refusal, None, None)
    }

    #[test]
    fn a_refusal_keeps_every_field() {
        let error = refused(
            402,
            json!({
                "type": "card_error", "code": "card_declined", "decline_code": "do_not_honor",
                "param": "line_items[0][price]", "message": "Your card was declined.",
                "doc_url": "https://docs.stripe.com/error-codes#card-declined",
            }),
        );
        let Error::Refused(refusal) = &error else {
            panic!("{error:?}")
        };
        assert_eq!(
            **refusal,
            Refusal {
                status: 402,
                kind: Some("card_error".into()),
                code: Some("card_declined".into()),
                decline_code: Some("do_not_honor".into()),
                param: Some("line_items[0][price]".into()),
                message: "Your card was declined.".into(),
                doc_url: Some("https://docs.stripe.com/error-codes#card-declined".into()),
                request_id: None,
                replayed: false,
            }
        );
        assert_eq!(
            error.to_string(),
            "Stripe refused the request: Your card was declined."
        );
    }

    #[test]
    fn statuses_and_types_are_told_apart() {
        assert!(matches!(refused(400, json!({})), Error::Refused(_)));
        assert!(matches!(
            refused(404, json!({"code": "x"})),
            Error::Refused(_)
        ));
        assert!(matches!(refused(401, json!({})), Error::Authentication(_)));
        assert!(matches!(
            refused(409, json!({"type": "idempotency_error"})),
            Error::Conflict(_)
        ));
        assert!(matches!(refused(429, json!({})), Error::RateLimited { .. }));
        assert!(matches!(
            refused(500, json!({"type": "api_error"})),
            Error::Unavailable(_)
        ));
        let mismatch = refused(400, json!({"type": "idempotency_error"}));
        assert!(matches!(mismatch, Error::IdempotencyMismatch(_)));
    }

    #[test]
    fn a_403_names_what_is_missing_and_whose_key_it_is() {
        let error = refused(
            403,
            json!({"message": "The provided key 'rk_test_*********************123' does not have \
                the required permissions for this endpoint on account 'acct_1Abc'. Having the \
                'rak_accounts_kyc_basic_read' or 'rak_x', 'rak_x' permission would allow this \
                request to continue."}),
        );
        let Error::Permission {
            refusal,
            missing,
            account,
        } = error
        else {
            panic!("{error:?}")
        };
        assert_eq!(missing, ["rak_accounts_kyc_basic_read", "rak_x"]);
        assert_eq!(account.as_deref(), Some("acct_1Abc"));
        assert!(
            refusal
                .message
                .starts_with("The provided key 'rk_test_****' does not")
        );
    }

    #[test]
    fn no_key_gets_into_a_message() {
        let error = refused(
            401,
            json!({"message": "Invalid API Key provided: sk_live_abcdefgh"}),
        );
        assert!(!format!("{error} {error:?}").contains("abcdefgh"));
    }

    #[test]
    fn an_error_page_leaves_the_status_to_speak() {
        for body in [
            "<html>Bad gateway</html>",
            "",
            "[]",
            "{\"error\":\"denied\"}",
            "null",
        ] {
            let error = Error::refused(Refusal::parse(502, body), None, None);
            assert_eq!(
                error.to_string(),
                "Stripe failed: HTTP 502 without an explanation"
            );
        }
    }

    #[test]
    fn predicates_look_at_what_stripe_said() {
        let missing = refused(
            400,
            json!({"code": "resource_missing", "param": "customer"}),
        );
        assert!(missing.resource_missing() && !missing.is_replayed());
        let replayed = Refusal {
            status: 500,
            replayed: true,
            ..Refusal::default()
        };
        assert!(Error::refused(replayed, None, None).is_replayed());
        assert!(!Error::TooLarge { limit: 1 }.is_replayed());
    }
}
