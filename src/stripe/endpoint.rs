//! Webhook endpoints: what one is to be, and how one that is there differs.
//! <https://docs.stripe.com/api/webhook_endpoints>

use std::net::IpAddr;

use serde_json::{Map, Value, json};
use ureq::http::Uri;

use crate::API_VERSION;
use crate::input::{self, Invalid};

/// The metadata that says whose an endpoint is.
const OWNER: &str = "payments_endpoint_of";

/// What an endpoint is to be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wanted {
    pub url: String,
    /// In order, each once.
    pub enabled_events: Vec<String>,
}

/// An endpoint as Stripe has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endpoint {
    /// `we_…`
    pub id: String,
    pub url: String,
    /// `enabled` or `disabled`.
    pub status: String,
    /// The version of its events; None for that of the account, whatever it is at the time.
    pub api_version: Option<String>,
    /// In order.
    pub enabled_events: Vec<String>,
    owner: Option<String>,
}

impl Wanted {
    /// Checks where webhooks are to go, and which: types of events, in any order.
    ///
    /// # Errors
    /// When `url` is neither `https` nor leads back to this machine; for an event that must not be
    /// subscribed, or none.
    pub fn new<'a>(url: &str, events: impl IntoIterator<Item = &'a str>) -> Result<Self, Invalid> {
        let mut enabled_events = Vec::new();
        for event in events {
            enabled_events.push(self::event(event)?);
        }
        enabled_events.sort_unstable();
        enabled_events.dedup();
        if enabled_events.is_empty() {
            return Err(
                Invalid::new("enabled_events", "enabled_events must name an event")
                    .hint("Leave it out for all events that the tables are made of."),
            );
        }
        Ok(Self {
            url: self::url(url.trim())?,
            enabled_events,
        })
    }

    /// The parameters of `POST /v1/webhook_endpoints` for an endpoint of `owner`.
    pub fn parameters(&self, owner: &str) -> Value {
        json!({
            "url": self.url,
            "enabled_events": self.enabled_events,
            "api_version": API_VERSION,
            "description": "Made by the Postgres extension payments, which keeps it up to date",
            "metadata": {OWNER: owner},
        })
    }
}

impl Endpoint {
    /// Reads an endpoint object.
    pub fn from_object(endpoint: &Value) -> Option<Self> {
        let text = |name: &str| Some(endpoint.get(name)?.as_str()?.to_owned());
        let events = endpoint.get("enabled_events")?.as_array()?.iter();
        let mut enabled_events: Vec<_> = events
            .filter_map(|event| event.as_str().map(str::to_owned))
            .collect();
        enabled_events.sort_unstable();
        let owner = endpoint.pointer(&format!("/metadata/{OWNER}"));
        Some(Self {
            id: text("id")?,
            url: text("url")?,
            status: text("status")?,
            api_version: text("api_version"),
            enabled_events,
            owner: owner.and_then(Value::as_str).map(str::to_owned),
        })
    }

    /// Whether `owner` made it.
    pub fn is_of(&self, owner: &str) -> bool {
        self.owner.as_deref() == Some(owner)
    }

    /// Whether its events have the version that we read. No update can change it.
    pub fn is_current(&self) -> bool {
        self.api_version.as_deref() == Some(API_VERSION)
    }

    /// The parameters that make it what is wanted; None if it is.
    pub fn changes(&self, wanted: &Wanted) -> Option<Value> {
        let mut changes = Map::new();
        if self.url != wanted.url {
            changes.insert("url".into(), wanted.url.as_str().into());
        }
        if self.enabled_events != wanted.enabled_events {
            let events = wanted.enabled_events.as_slice();
            changes.insert("enabled_events".into(), events.into());
        }
        if self.status != "enabled" {
            changes.insert("disabled".into(), false.into());
        }
        (!changes.is_empty()).then(|| changes.into())
    }
}

fn event(name: &str) -> Result<String, Invalid> {
    let refused = |what: &str| Invalid::new("enabled_events", format!("{name:?} {what}"));
    let well_formed = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || "._".contains(c);
    match name {
        "*" | "invoice.created" => Err(refused("would hold up invoices").hint(
            "Stripe does not finalise an invoice while its invoice.created is not answered: \
                 name the events that are needed.",
        )),
        _ if name.starts_with("plan.") => Err(refused(
            "would be taken for news of the price with the same id",
        )
        .hint("Use price.created, price.updated and price.deleted.")),
        _ if name.contains('.') && name.chars().all(well_formed) => Ok(name.to_owned()),
        _ => Err(refused("is no type of event").hint("For example \"charge.refunded\".")),
    }
}

fn url(text: &str) -> Result<String, Invalid> {
    let url = input::url("url", "url", text).map_err(|invalid| Invalid {
        hint: Some("For example https://api.shop.example/rpc/stripe_webhook".into()),
        ..invalid
    })?;
    let uri = url.parse::<Uri>().unwrap_or_default();
    match uri.scheme_str() {
        Some("http") if !uri.host().is_some_and(is_this_machine) => {
            Err(Invalid::new("url", "url must be https").hint(
                "Stripe sends to https only; http is for a gateway on this machine, in tests.",
            ))
        }
        _ => Ok(url),
    }
}

fn is_this_machine(host: &str) -> bool {
    let address = host.trim_start_matches('[').trim_end_matches(']');
    host.eq_ignore_ascii_case("localhost")
        || address
            .parse::<IpAddr>()
            .is_ok_and(|address| address.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn endpoint(wanted: &Wanted) -> Endpoint {
        let mut object = wanted.parameters("me");
        object["id"] = "we_1".into();
        object["status"] = "enabled".into();
        Endpoint::from_object(&object).expect("an endpoint")
    }

    fn wanted(url: &str, events: &[&str]) -> Wanted {
        Wanted::new(url, events.iter().copied()).expect("an endpoint that can be")
    }

    #[test]
    fn what_is_made_as_wanted_needs_no_change() {
        let wanted = wanted(
            "https://a.example/hook",
            &["price.updated", "charge.failed"],
        );
        let made = endpoint(&wanted);
        assert_eq!(wanted.enabled_events, ["charge.failed", "price.updated"]);
        assert_eq!(made.changes(&wanted), None);
        assert!(made.is_of("me") && !made.is_of("you") && made.is_current());
    }

    #[test]
    fn only_what_differs_is_changed() {
        let before = wanted("https://a.example/hook", &["charge.failed"]);
        let changes = |url: &str, events: &[&str]| endpoint(&before).changes(&wanted(url, events));
        assert_eq!(
            changes("https://b.example/hook", &["charge.failed"]),
            Some(json!({"url": "https://b.example/hook"}))
        );
        assert_eq!(
            changes(
                "https://a.example/hook",
                &["charge.failed", "refund.failed"]
            ),
            Some(json!({"enabled_events": ["charge.failed", "refund.failed"]}))
        );
        let disabled = Endpoint {
            status: "disabled".into(),
            ..endpoint(&before)
        };
        assert_eq!(disabled.changes(&before), Some(json!({"disabled": false})));
    }

    #[test]
    fn an_endpoint_without_our_mark_is_nobodys_of_ours() {
        let foreign = Endpoint::from_object(&json!({
            "id": "we_1", "url": "https://a.example", "status": "enabled", "api_version": null,
            "enabled_events": ["*"], "metadata": {},
        }));
        let foreign = foreign.expect("an endpoint");
        assert!(!foreign.is_of("me") && !foreign.is_of("") && !foreign.is_current());
    }

    #[test]
    fn urls_are_https_or_lead_back_here() {
        for text in [
            "https://api.shop.example/rpc/stripe_webhook?apikey=1",
            "HTTPS://api.shop.example/",
            "http://localhost:3000/",
            "http://127.0.0.1/",
            "http://127.8.9.10/",
            "http://[::1]:3000/",
        ] {
            assert!(url(text).is_ok(), "{text}");
        }
        for text in [
            "http://api.shop.example/",
            "HTTP://api.shop.example/",
            "http://localhost.shop.example/",
            "http://127.0.0.1.shop.example/",
            "http://10.0.0.1/",
            "https://localhost@shop.example/",
            "ftp://localhost/",
            "localhost",
            "",
        ] {
            assert_eq!(
                url(text).map_err(|invalid| invalid.argument),
                Err("url"),
                "{text}"
            );
        }
    }

    #[test]
    fn events_that_do_harm_are_refused() {
        for events in [
            &["*"][..],
            &["invoice.created"],
            &["plan.updated"],
            &["charge"],
            &[""],
            &[],
        ] {
            let refused = Wanted::new("https://a.example", events.iter().copied());
            assert_eq!(
                refused.map_err(|invalid| invalid.argument),
                Err("enabled_events"),
                "{events:?}"
            );
        }
    }
}
