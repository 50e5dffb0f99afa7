//! Calls Stripe.

use std::io;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use serde_json::Value;
use ureq::http::{self, HeaderMap, HeaderValue, Method, Request, Response, header};
use ureq::{AsSendBody, Body, Timeout};
use zeroize::Zeroizing;

use crate::error::{Error, Phase, Refusal};
use crate::retry::{self, Advice};
use crate::{SecretKey, event, form, key};

/// The API version of every call, and of the webhook endpoints that we make. Objects in answers
/// have its shape. <https://docs.stripe.com/api/versioning>
pub const API_VERSION: &str = "2026-10-28.endive";

const USER_AGENT: &str = concat!("payments/", env!("CARGO_PKG_VERSION"));

/// What a client needs.
pub struct Config<'a> {
    /// Brings the transport, its connect timeout and its pool of connections.
    pub agent: ureq::Agent,
    /// Where Stripe is, without a path: `https://api.stripe.com`.
    pub base: &'a str,
    pub key: &'a SecretKey,
    /// How long everything that is asked through this client may take, waits between attempts
    /// included.
    pub budget: Duration,
    /// The longest body that is read, in bytes.
    pub max_response: u64,
    /// Sleeps between attempts, or says why not to.
    pub pause: fn(Duration) -> Result<(), ureq::Error>,
}

/// Asks Stripe, and asks again when that can help. Its budget starts when it is made, so that a
/// function that asks several things makes one client and ends in time.
pub struct Client<'a> {
    config: Config<'a>,
    deadline: Instant,
}

/// What Stripe answered.
#[derive(Clone, Debug)]
pub struct Answer {
    /// The body as it came, but for [`event::sanitize`]: a JSON object, if it is JSON at all.
    pub text: String,
    /// The time before the request was sent, on Stripe's clock, in seconds since the epoch: `Date`
    /// minus the time it took, rounded down. The body is at least that new.
    pub as_of: i64,
    /// The same moment on our clock.
    pub sent: SystemTime,
    /// Stripe repeated the stored answer to an earlier request with this idempotency key
    /// (`Idempotent-Replayed`). The object may have changed since.
    pub replayed: bool,
    /// `req_…`, which Stripe's support asks for.
    pub request_id: Option<String>,
    /// How often Stripe was asked, this answer included.
    pub attempts: u32,
}

impl Answer {
    /// The body, parsed.
    ///
    /// # Errors
    /// [`Error::Malformed`].
    pub fn body(&self) -> Result<Value, Error> {
        serde_json::from_str(&self.text).map_err(|error| self.malformed(&error))
    }

    /// What to say of a body that cannot be read.
    pub fn malformed(&self, error: &serde_json::Error) -> Error {
        Error::Malformed {
            message: error.to_string(),
            request_id: self.request_id.clone(),
        }
    }
}

/// One thing to ask, as often as needed.
struct Call {
    method: Method,
    url: String,
    form: Option<String>,
    idempotency_key: Option<String>,
}

/// A failed attempt, and after how long another one could succeed.
struct Failure {
    error: Error,
    retry_after: Option<Duration>,
}

impl<'a> Client<'a> {
    pub fn new(config: Config<'a>) -> Self {
        let deadline = Instant::now() + config.budget;
        Self { config, deadline }
    }

    /// What is left of the budget.
    pub fn remaining(&self) -> Duration {
        self.deadline.saturating_duration_since(Instant::now())
    }

    /// Reads an object or a page of a list. `path` starts with `/v1/` and is made of checked ids
    /// ([`crate::ids`]).
    ///
    /// # Errors
    /// See [`Error`].
    pub fn get(&self, path: &str, parameters: &Value) -> Result<Answer, Error> {
        self.call(Call {
            method: Method::GET,
            url: self.url(path, parameters),
            form: None,
            idempotency_key: None,
        })
    }

    /// Makes or changes an object. The same key with the same parameters does it once, however
    /// often it is sent within a day. <https://docs.stripe.com/api/idempotent_requests>
    ///
    /// # Errors
    /// See [`Error`]. After any of them but those of a refusal, Stripe may have done it.
    pub fn post(
        &self,
        path: &str,
        parameters: &Value,
        idempotency_key: &str,
    ) -> Result<Answer, Error> {
        self.call(Call {
            method: Method::POST,
            url: self.url(path, &Value::Null),
            form: Some(form::encode(parameters)),
            idempotency_key: Some(idempotency_key.to_owned()),
        })
    }

    /// Deletes or cancels an object. When an answer got lost, the next attempt may find the object
    /// gone ([`Error::resource_missing`]).
    ///
    /// # Errors
    /// See [`Error`].
    pub fn delete(&self, path: &str, parameters: &Value) -> Result<Answer, Error> {
        self.call(Call {
            method: Method::DELETE,
            url: self.url(path, parameters),
            form: None,
            idempotency_key: None,
        })
    }

    fn url(&self, path: &str, parameters: &Value) -> String {
        let base = self.config.base.trim_end_matches('/');
        match form::encode(parameters) {
            query if query.is_empty() => format!("{base}{path}"),
            query => format!("{base}{path}?{query}"),
        }
    }

    fn call(&self, call: Call) -> Result<Answer, Error> {
        let mut attempts = 0;
        let mut told = None;
        loop {
            attempts += 1;
            let failure = match self.attempt(&call) {
                Ok(answer) => return Ok(Answer { attempts, ..answer }),
                Err(failure) => failure,
            };
            let wait = failure
                .retry_after
                .map(|at_least| at_least + retry::backoff(attempts));
            let timed_out = matches!(failure.error, Error::TimedOut { .. });
            match wait {
                Some(wait) if wait < self.remaining() => {
                    if !timed_out {
                        told = Some(failure.error);
                    }
                    (self.config.pause)(wait).map_err(Error::Interrupted)?;
                }
                // That time ran out while asking again says less than the answer before.
                _ if timed_out => return Err(told.unwrap_or(failure.error)),
                _ => return Err(failure.error),
            }
        }
    }

    fn attempt(&self, call: &Call) -> Result<Answer, Failure> {
        let sent = SystemTime::now();
        let started = Instant::now();
        let response = self.send(call);
        let mut response = response.map_err(|error| Failure::transport(error, Phase::Waiting))?;
        let elapsed = started.elapsed();

        let status = response.status();
        if status.is_redirection() {
            return Err(Error::Redirected {
                status: status.as_u16(),
            }
            .into());
        }
        // One byte more than allowed, because ureq asks for the end of the body within the limit.
        let limit = self.config.max_response;
        let body = response
            .body_mut()
            .with_config()
            .limit(limit.saturating_add(1))
            .read_to_vec();
        let body = body.map_err(|error| match error {
            ureq::Error::BodyExceedsLimit(_) => Error::TooLarge { limit }.into(),
            error => Failure::transport(error, Phase::Reading),
        })?;
        let headers = response.headers();
        if !status.is_success() {
            return Err(Failure::refused(status.as_u16(), headers, &body));
        }
        read(headers, body, sent, elapsed).map_err(Failure::from)
    }

    fn send(&self, call: &Call) -> Result<Response<Body>, ureq::Error> {
        let bearer = Zeroizing::new(format!("Bearer {}", self.config.key.expose()));
        let mut authorization = HeaderValue::from_str(&bearer).map_err(http::Error::from)?;
        authorization.set_sensitive(true);
        let mut request = Request::builder()
            .method(call.method.clone())
            .uri(&call.url)
            .header(header::AUTHORIZATION, authorization)
            .header(header::ACCEPT, "application/json")
            .header(header::USER_AGENT, USER_AGENT)
            .header("Stripe-Version", API_VERSION);
        if let Some(idempotency_key) = &call.idempotency_key {
            request = request.header("Idempotency-Key", idempotency_key);
        }
        match &call.form {
            Some(form) => {
                let form_type = "application/x-www-form-urlencoded";
                self.run(request.header(header::CONTENT_TYPE, form_type).body(form)?)
            }
            None => self.run(request.body(())?),
        }
    }

    fn run(&self, request: Request<impl AsSendBody>) -> Result<Response<Body>, ureq::Error> {
        let agent = &self.config.agent;
        let request = agent
            .configure_request(request)
            .timeout_global(Some(self.remaining()))
            .http_status_as_error(false)
            .max_redirects(0)
            .max_redirects_will_error(false)
            .build();
        agent.run(request)
    }
}

/// Reads the answer to a request that succeeded.
fn read(
    headers: &HeaderMap,
    body: Vec<u8>,
    sent: SystemTime,
    elapsed: Duration,
) -> Result<Answer, Error> {
    let request_id = text(headers, "request-id").map(str::to_owned);
    let malformed = |message: String| Error::Malformed {
        message,
        request_id: request_id.clone(),
    };
    let date = text(headers, "date").and_then(|date| httpdate::parse_http_date(date).ok());
    let date = date.ok_or_else(|| malformed("it does not say when it was made".into()))?;
    let body =
        String::from_utf8(body).map_err(|error| malformed(error.utf8_error().to_string()))?;
    let body = event::sanitize(&body).into_owned();
    // Whoever reads it sees the rest.
    if !body.trim_start().starts_with('{') {
        return Err(malformed("it is not an object".into()));
    }
    Ok(Answer {
        text: body,
        as_of: as_of(date, elapsed),
        sent,
        replayed: text(headers, "idempotent-replayed") == Some("true"),
        request_id,
        attempts: 1,
    })
}

/// Stripe's clock when the request was sent. `Date` has whole seconds, rounded down, so that
/// taking off the whole time never gives a later moment than the true one.
fn as_of(date: SystemTime, elapsed: Duration) -> i64 {
    let before = date
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default()
        .saturating_sub(elapsed);
    i64::try_from(before.as_secs()).unwrap_or(i64::MAX)
}

fn text<'h>(headers: &'h HeaderMap, name: &str) -> Option<&'h str> {
    headers.get(name)?.to_str().ok()
}

impl Failure {
    /// An answer with an error status.
    fn refused(status: u16, headers: &HeaderMap, body: &[u8]) -> Self {
        let text = |name| text(headers, name);
        let retry_after = text("retry-after");
        let advice = Advice {
            status,
            should_retry: text("stripe-should-retry").and_then(|word| word.parse().ok()),
            retry_after: retry_after.and_then(|at| retry::retry_after(at, SystemTime::now())),
            replayed: text("idempotent-replayed") == Some("true"),
        };
        let refusal = Refusal {
            request_id: text("request-id").map(str::to_owned),
            replayed: advice.replayed,
            ..Refusal::parse(status, &String::from_utf8_lossy(body))
        };
        let reason = text("stripe-rate-limited-reason").map(str::to_owned);
        Self {
            error: Error::refused(refusal, advice.retry_after, reason),
            retry_after: advice
                .is_to_retry()
                .then(|| advice.retry_after.unwrap_or_default()),
        }
    }

    /// No answer, or half of one. Trying again is safe because every POST has a key, and helps
    /// unless it is the certificate or the request itself that is wrong.
    fn transport(error: ureq::Error, phase: Phase) -> Self {
        let now = Some(Duration::ZERO);
        match unwrapped(error) {
            error @ ureq::Error::Other(_) => Error::Interrupted(error).into(),
            ureq::Error::Timeout(Timeout::Resolve | Timeout::Connect) => Self {
                error: Error::TimedOut {
                    phase: Phase::Connecting,
                },
                retry_after: now,
            },
            ureq::Error::Timeout(_) => Self {
                error: Error::TimedOut { phase },
                retry_after: now,
            },
            error => {
                let passing = match &error {
                    ureq::Error::Io(error) => error.kind() != io::ErrorKind::InvalidData,
                    ureq::Error::HostNotFound
                    | ureq::Error::ConnectionFailed
                    | ureq::Error::Protocol(_) => true,
                    _ => false,
                };
                Self {
                    error: Error::Unreachable(key::scrub(&error.to_string())),
                    retry_after: passing.then_some(Duration::ZERO),
                }
            }
        }
    }
}

impl From<Error> for Failure {
    /// A failure that another attempt would only repeat.
    fn from(error: Error) -> Self {
        Self {
            error,
            retry_after: None,
        }
    }
}

/// The error that a transport gave, out of the io error that a TLS layer above it made of it.
fn unwrapped(error: ureq::Error) -> ureq::Error {
    match error {
        ureq::Error::Io(error) => ureq::Error::from(error),
        error => error,
    }
}

#[cfg(test)]
mod tests;
