//! Webhooks: from a request of Stripe's to an event that is verified.

use crate::checkout::required;
use crate::connection::{self, as_owner};
use crate::door;
use crate::events::{Incoming, Receipt};
use crate::postgres::error::{Failure, surface};
use crate::postgres::spi::Composite;
use crate::postgres::{identity, lock, settings};
use pgrx::datum::Interval;
use pgrx::pg_extern;
use serde_json::{Map, Value};
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use stripe::event::sanitize;
use stripe::{Environment, Event, SigningSecret, signature};

/// How long a delivery waits for another one, or for a checkout that is not committed yet. Every
/// waiting delivery holds a connection, and Stripe sends it again.
const LONGEST_WAIT: Duration = Duration::from_secs(4);

#[pg_extern(sql = false)]
fn verify_signature(payload: &str, header: &str, secret: &str, tolerance: Interval) -> bool {
    surface(|| {
        let secret = SigningSecret::parse(secret)
            .map_err(|error| Failure::argument("bad_secret", error.to_string()))?;
        let tolerance =
            Duration::try_from_secs_f64(tolerance.as_micros() as f64 / 1e6).unwrap_or_default();
        let secrets = [secret.expose()];
        Ok(signature::verify(payload.as_bytes(), header, &secrets, Some(tolerance), now()).is_ok())
    })
}

#[pg_extern(sql = false)]
fn handle_webhook(
    environment: Option<&str>,
    payload: Option<&str>,
    signature: Option<&str>,
) -> Option<Composite> {
    surface(|| {
        let environment = connection::parse_environment(environment)?;
        let delivery = Delivery {
            payload: required("payload", payload)?,
            signature: required("signature", signature)?,
            environment: Some(environment),
        };
        delivery.receive().and_then(Receipt::composite).map(Some)
    })
}

/// Postgres keeps `json` as the text that came, which is what was signed: `jsonb` would be another.
#[pg_extern(sql = false)]
fn stripe_webhook(payload: Option<&str>) -> Option<Composite> {
    surface(|| {
        let payload = required("payload", payload)?;
        let signature = request_header("stripe-signature").ok_or_else(|| {
            Failure::argument(
                "missing_signature",
                "the request has no Stripe-Signature header",
            )
            .hint("Only Stripe calls this function; test it with the Stripe CLI.")
        })?;
        let delivery = Delivery {
            payload,
            signature: &signature,
            environment: None,
        };
        let receipt = lock::or_busy("Stripe sends the event again.", || delivery.receive())?;
        if receipt.wants_another_delivery() {
            door::respond_with_status(500)?;
        }
        receipt.composite().map(Some)
    })
}

/// A header of the request, as PostgREST leaves them: one JSON object, names in lower case.
fn request_header(name: &str) -> Option<String> {
    let headers: Map<String, Value> =
        serde_json::from_str(&identity::setting("request.headers")?).ok()?;
    Some(headers.get(name)?.as_str()?.to_owned())
}

/// A request as it came.
struct Delivery<'a> {
    payload: &'a str,
    signature: &'a str,
    /// None: that of the secret that verifies.
    environment: Option<Environment>,
}

impl Delivery<'_> {
    fn receive(&self) -> Result<Receipt, Failure> {
        if self.payload.len() > settings::webhook_max_size() {
            return Err(Failure::argument(
                "payload_too_large",
                "the payload is larger than payments.webhook_max_size",
            ));
        }
        door::require_read_committed()?;
        let environment = self.verify()?;
        let clean = sanitize(self.payload);
        let event = Event::parse(&clean)
            .map_err(|error| Failure::argument("malformed_event", error.to_string()))?;
        if event.livemode != environment.livemode() {
            return Err(Failure::argument(
                "wrong_livemode",
                format!("the event's livemode does not fit the {environment} environment"),
            ));
        }
        let incoming = Incoming {
            environment,
            source: "webhook",
            event: &event,
            payload: self.payload,
        };
        lock::waiting_at_most(LONGEST_WAIT, || {
            door::fire_callers_deferred_triggers()?;
            as_owner(|| incoming.process())
        })
    }

    fn verify(&self) -> Result<Environment, Failure> {
        let secrets: Vec<_> = connection::signing_secrets()?
            .into_iter()
            .filter(|(environment, ..)| {
                self.environment.is_none_or(|wanted| wanted == *environment)
            })
            .collect();
        if secrets.is_empty() {
            return Err(connection::no_signing_secret(self.environment));
        }
        let exposed: Vec<&str> = secrets.iter().map(|(.., secret)| secret.expose()).collect();
        let tolerance = Some(settings::webhook_tolerance());
        let payload = self.payload.as_bytes();
        signature::verify(payload, self.signature, &exposed, tolerance, now())
            .map(|verified| secrets[verified.secret].0)
            .map_err(|error| {
                Failure::argument("bad_signature", error.to_string()).hint(
                    "The signing secret must be this endpoint's own, and the payload the request's \
                     body byte for byte.",
                )
            })
    }
}

fn now() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.map_or(0, |since| since.as_secs() as i64)
}
