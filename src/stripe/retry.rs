//! When to ask Stripe again, and how long to wait before.

use std::time::{Duration, SystemTime};

/// The first wait is at most this long, and every next one at most twice as long. That alone
/// bounds the number of attempts: the budget of the call is soon spent.
const FIRST: Duration = Duration::from_millis(250);

/// What an answer with an error status says about trying again.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Advice {
    /// The HTTP status.
    pub status: u16,
    /// `Stripe-Should-Retry`.
    pub should_retry: Option<bool>,
    /// `Retry-After`.
    pub retry_after: Option<Duration>,
    /// `Idempotent-Replayed`.
    pub replayed: bool,
}

impl Advice {
    /// Whether to try again. Stripe's word counts first, as in its own SDKs. A replayed error
    /// would only be replayed again. A 429 without a time to wait is left to the caller: more
    /// requests are what it complains of. <https://docs.stripe.com/rate-limits>
    pub fn is_to_retry(self) -> bool {
        self.should_retry.unwrap_or(match self.status {
            _ if self.replayed => false,
            429 => self.retry_after.is_some(),
            status => status == 409 || status >= 500,
        })
    }
}

/// How long to wait before attempt `failed + 1`: anything up to a limit that doubles ("full
/// jitter"), because callers that failed together would otherwise come back together.
/// <https://aws.amazon.com/blogs/architecture/exponential-backoff-and-jitter/>
pub(crate) fn backoff(failed: u32) -> Duration {
    limit(failed).mul_f64(fastrand::f64())
}

fn limit(failed: u32) -> Duration {
    FIRST.saturating_mul(2_u32.saturating_pow(failed.saturating_sub(1)))
}

/// Reads `Retry-After`: seconds, or a date. <https://www.rfc-editor.org/rfc/rfc9110#section-10.2.3>
pub(crate) fn retry_after(text: &str, now: SystemTime) -> Option<Duration> {
    let text = text.trim();
    if let Ok(seconds) = text.parse() {
        return Some(Duration::from_secs(seconds));
    }
    let date = httpdate::parse_http_date(text).ok()?;
    Some(date.duration_since(now).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn stripes_word_counts_first() {
        for status in [400, 402, 409, 429, 500, 503] {
            for word in [true, false] {
                let advice = Advice {
                    status,
                    should_retry: Some(word),
                    ..Advice::default()
                };
                assert_eq!(advice.is_to_retry(), word);
            }
        }
    }

    #[test]
    fn without_it_the_status_decides() {
        let to_retry = |status, retry_after, replayed| {
            Advice {
                status,
                should_retry: None,
                retry_after,
                replayed,
            }
            .is_to_retry()
        };
        let second = Some(Duration::from_secs(1));
        for status in [409, 500, 502, 503, 504] {
            assert!(to_retry(status, None, false));
            assert!(!to_retry(status, None, true));
        }
        for status in [400, 401, 402, 403, 404] {
            assert!(!to_retry(status, second, false));
        }
        assert!(to_retry(429, second, false));
        assert!(!to_retry(429, None, false));
    }

    #[test]
    fn retry_after_is_seconds_or_a_date() {
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1_700_000_000);
        assert_eq!(retry_after(" 7 ", now), Some(Duration::from_secs(7)));
        let date = "Tue, 14 Nov 2023 22:13:30 GMT";
        assert_eq!(retry_after(date, now), Some(Duration::from_secs(10)));
        assert_eq!(
            retry_after("Tue, 14 Nov 2000 22:13:30 GMT", now),
            Some(Duration::ZERO)
        );
        assert_eq!(retry_after("soon", now), None);
        assert_eq!(retry_after("-1", now), None);
    }

    proptest! {
        #[test]
        fn backoff_stays_under_a_limit_that_doubles(failed in 1_u32..200) {
            prop_assert!(backoff(failed) <= limit(failed));
            prop_assert!(limit(failed + 1) >= limit(failed));
        }
    }
}
