//! Webhook signatures. <https://docs.stripe.com/webhooks/signatures>

use std::time::Duration;

use hmac::{Hmac, Mac};
use sha2::Sha256;

/// A signature that holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Verified {
    /// Which of the given secrets signed, by position.
    pub secret: usize,
    /// When Stripe signed, in seconds since the epoch.
    pub timestamp: i64,
}

/// Why a `Stripe-Signature` header was refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SignatureError {
    #[error("there is no Stripe-Signature header")]
    Missing,
    #[error("the Stripe-Signature header has no timestamp (t=…)")]
    NoTimestamp,
    #[error("the Stripe-Signature header has no v1 signature")]
    NoSignature,
    #[error("there is no signing secret to verify with")]
    NoSecret,
    #[error("no signature in the Stripe-Signature header matches the payload")]
    NoMatch,
    #[error("the signature is {age} s old, more than the {tolerance} s allowed")]
    TooOld { age: i64, tolerance: u64 },
}

/// Verifies a webhook: that one of `secrets` signed exactly these bytes, no longer than
/// `tolerance` before `now` (seconds since the epoch; `None` accepts any age).
///
/// Every `v1` of the header is tried with every secret, in constant time each; other schemes are
/// ignored, as `v0` is for test events only. While a secret is being rolled Stripe sends one `v1`
/// for each. A timestamp in the future is accepted, as by Stripe's SDKs: only Stripe can have
/// signed it, and a server whose clock lags must not lose events.
///
/// # Errors
/// The age is looked at last, so [`SignatureError::TooOld`] is told only to who could sign.
pub fn verify(
    payload: &[u8],
    header: &str,
    secrets: &[&str],
    tolerance: Option<Duration>,
    now: i64,
) -> Result<Verified, SignatureError> {
    if header.trim().is_empty() {
        return Err(SignatureError::Missing);
    }
    let header = Header::parse(header);
    let (text, timestamp) = header.timestamp.ok_or(SignatureError::NoTimestamp)?;
    if header.signatures.is_empty() {
        return Err(SignatureError::NoSignature);
    }
    if secrets.is_empty() {
        return Err(SignatureError::NoSecret);
    }
    let secret = secrets
        .iter()
        .position(|secret| {
            let mac = mac(payload, text, secret);
            header
                .signatures
                .iter()
                .any(|v1| mac.clone().verify_slice(v1).is_ok())
        })
        .ok_or(SignatureError::NoMatch)?;
    if let Some(tolerance) = tolerance.map(|tolerance| tolerance.as_secs()) {
        let age = now.saturating_sub(timestamp);
        if age > i64::try_from(tolerance).unwrap_or(i64::MAX) {
            return Err(SignatureError::TooOld { age, tolerance });
        }
    }
    Ok(Verified { secret, timestamp })
}

/// The `Stripe-Signature` header that Stripe would send with `payload` at `timestamp` (seconds
/// since the epoch).
pub fn sign(payload: &[u8], secret: &str, timestamp: i64) -> String {
    let text = timestamp.to_string();
    let signature = mac(payload, &text, secret).finalize().into_bytes();
    format!("t={text},v1={}", hex::encode(signature))
}

/// HMAC-SHA256 over `timestamp.payload`, with the timestamp as it was written.
fn mac(payload: &[u8], timestamp: &str, secret: &str) -> Hmac<Sha256> {
    let mut mac =
        Hmac::<Sha256>::new_from_slice(secret.as_bytes()).expect("HMAC takes a key of any length");
    mac.update(timestamp.as_bytes());
    mac.update(b".");
    mac.update(payload);
    mac
}

/// What matters of a header. A signature that is not hex cannot match and is left out.
#[derive(Default)]
struct Header<'a> {
    timestamp: Option<(&'a str, i64)>,
    signatures: Vec<Vec<u8>>,
}

impl<'a> Header<'a> {
    fn parse(text: &'a str) -> Self {
        let mut header = Self::default();
        for (scheme, value) in text.split(',').filter_map(|item| item.split_once('=')) {
            let value = value.trim();
            match scheme.trim() {
                "t" => header.timestamp = value.parse().ok().map(|seconds| (value, seconds)),
                "v1" => header.signatures.extend(hex::decode(value)),
                _ => {}
            }
        }
        header
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const PAYLOAD: &[u8] = br#"{"id": "evt_1"}"#;
    const NOW: i64 = 1_700_000_000;
    const TOLERANCE: Option<Duration> = Some(Duration::from_secs(300));

    fn check(header: &str, secrets: &[&str]) -> Result<Verified, SignatureError> {
        verify(PAYLOAD, header, secrets, TOLERANCE, NOW)
    }

    #[test]
    fn a_known_signature_verifies() {
        // printf '1700000000.{"id": "evt_1"}' | openssl dgst -sha256 -hmac whsec_test
        let header = "t=1700000000,\
                      v1=a0c091828640f0b68061abc7c03981ad1100ff7160c5dba6b656239494a2b537";
        assert_eq!(sign(PAYLOAD, "whsec_test", NOW), header);
        assert_eq!(
            check(header, &["whsec_test"]),
            Ok(Verified {
                secret: 0,
                timestamp: NOW
            })
        );
    }

    #[test]
    fn every_v1_and_every_secret_is_tried() {
        let wrong = "0".repeat(64);
        let good = sign(PAYLOAD, "whsec_new", NOW).replace("t=1700000000,", "");
        let header = format!("t={NOW},v1={wrong},v0={wrong},{good},v1=junk");
        let verified = check(&header, &["whsec_old", "whsec_new"]);
        assert_eq!(
            verified,
            Ok(Verified {
                secret: 1,
                timestamp: NOW
            })
        );
    }

    #[test]
    fn other_schemes_do_not_count() {
        let header = sign(PAYLOAD, "whsec_a", NOW).replace("v1=", "v0=");
        assert_eq!(
            check(&header, &["whsec_a"]),
            Err(SignatureError::NoSignature)
        );
    }

    #[test]
    fn spaces_around_the_parts_do_no_harm() {
        let header = sign(PAYLOAD, "whsec_a", NOW).replace(',', " , ");
        assert!(check(&header, &["whsec_a"]).is_ok());
    }

    #[test]
    fn what_is_missing_is_said() {
        let header = sign(PAYLOAD, "whsec_a", NOW);
        assert_eq!(check(" ", &["whsec_a"]), Err(SignatureError::Missing));
        assert_eq!(
            check("v1=00", &["whsec_a"]),
            Err(SignatureError::NoTimestamp)
        );
        assert_eq!(
            check("t=soon,v1=00", &["whsec_a"]),
            Err(SignatureError::NoTimestamp)
        );
        assert_eq!(
            check(&format!("t={NOW}"), &["whsec_a"]),
            Err(SignatureError::NoSignature)
        );
        assert_eq!(
            check(&format!("t={NOW},v1=junk"), &["a"]),
            Err(SignatureError::NoSignature)
        );
        assert_eq!(check(&header, &[]), Err(SignatureError::NoSecret));
        assert_eq!(check(&header, &["whsec_b"]), Err(SignatureError::NoMatch));
    }

    #[test]
    fn another_payload_or_timestamp_does_not_match() {
        let header = sign(PAYLOAD, "whsec_a", NOW);
        let compact = verify(br#"{"id":"evt_1"}"#, &header, &["whsec_a"], TOLERANCE, NOW);
        assert_eq!(compact, Err(SignatureError::NoMatch));
        let moved = header.replace("t=1700000000", "t=1700000001");
        assert_eq!(check(&moved, &["whsec_a"]), Err(SignatureError::NoMatch));
    }

    #[test]
    fn a_truncated_signature_does_not_match() {
        let header = sign(PAYLOAD, "whsec_a", NOW);
        assert_eq!(
            check(&header[..header.len() - 2], &["whsec_a"]),
            Err(SignatureError::NoMatch)
        );
    }

    #[test]
    fn age_is_limited_in_the_past_only() {
        let at = |age: i64, tolerance| {
            let header = sign(PAYLOAD, "whsec_a", NOW - age);
            verify(PAYLOAD, &header, &["whsec_a"], tolerance, NOW)
                .map(|verified| verified.timestamp)
        };
        assert_eq!(at(300, TOLERANCE), Ok(NOW - 300));
        assert_eq!(
            at(301, TOLERANCE),
            Err(SignatureError::TooOld {
                age: 301,
                tolerance: 300
            })
        );
        assert_eq!(at(-86_400, TOLERANCE), Ok(NOW + 86_400));
        assert_eq!(at(1_000_000, None), Ok(NOW - 1_000_000));
        let header = sign(PAYLOAD, "whsec_b", NOW - 301);
        assert_eq!(check(&header, &["whsec_a"]), Err(SignatureError::NoMatch));
    }

    proptest! {
        #[test]
        fn any_header_is_refused_without_panic(header in ".{0,200}") {
            prop_assert!(check(&header, &["whsec_a"]).is_err());
        }

        #[test]
        fn what_is_signed_verifies(
            payload in prop::collection::vec(any::<u8>(), 0..200),
            secret in ".{1,40}",
            timestamp in any::<i64>(),
        ) {
            let header = sign(&payload, &secret, timestamp);
            let verified = verify(&payload, &header, &[&secret], None, NOW);
            prop_assert_eq!(verified, Ok(Verified { secret: 0, timestamp }));
        }
    }
}
