//! Webhook bodies. <https://docs.stripe.com/api/events/object>

use std::borrow::Cow;

use serde::Deserialize;
use serde_json::Value;
use serde_json::value::RawValue;

/// Deeper than any object of Stripe's with every field expanded, and well below the depth at
/// which serde_json (128) or Postgres give up on what an event holds.
pub const MAX_DEPTH: usize = 64;

/// The end of the year 9999. What is later, or before 1970, is no time that anything happened at
/// Stripe, and overflows where a time is counted in microseconds.
const LAST_SECOND: i64 = 253_402_300_799;

/// A snapshot event: what Stripe says happened, and the object right after it did.
#[derive(Clone, Debug)]
pub struct Event<'a> {
    /// `evt_…`, unique for ever.
    pub id: String,
    /// `checkout.session.completed` and the like.
    pub kind: String,
    /// Seconds since the epoch, on Stripe's clock.
    pub created: i64,
    pub livemode: bool,
    /// The connected account it happened on, for a Connect event.
    pub account: Option<String>,
    /// The version whose shape `object` has.
    pub api_version: Option<String>,
    /// The object, exactly as it stands in the body: numbers of any size survive.
    pub object: &'a RawValue,
    /// `object.object`: `charge`, `invoice` …
    pub object_type: Option<String>,
    /// `object.id`; an `invoice.upcoming` has none.
    pub object_id: Option<String>,
    /// What the changed fields were before, for `*.updated`.
    pub previous_attributes: Option<&'a RawValue>,
    /// The API request that caused it, if one did.
    pub request_id: Option<String>,
    /// The idempotency key of that request.
    pub idempotency_key: Option<String>,
}

/// Why a body is not a snapshot event.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum EventError {
    #[error("the payload is not valid JSON: {0}")]
    NotJson(String),
    #[error("the payload is nested more than {MAX_DEPTH} levels deep")]
    TooDeep,
    #[error("the payload is not a Stripe event: {0}")]
    NotAnEvent(String),
    #[error("the payload is a thin event; this endpoint takes snapshot events")]
    Thin,
}

impl<'a> Event<'a> {
    /// Reads a webhook's body, which has been through [`sanitize`]. Fields that are not needed
    /// may be missing or of any type, because events keep the shape of the API version that they
    /// were created with.
    ///
    /// # Errors
    /// When the body is not JSON, not a snapshot event or too deep.
    pub fn parse(text: &'a str) -> Result<Self, EventError> {
        if depth(text) > MAX_DEPTH {
            return Err(EventError::TooDeep);
        }
        let body = match read::<Body>(text) {
            Ok(body) if body.object.as_deref() == Some("event") => body,
            outcome => return Err(refusal(text, outcome.err())),
        };
        if !(0..=LAST_SECOND).contains(&body.created) {
            return Err(EventError::NotAnEvent("`created` is no time".into()));
        }
        if !is_object(body.data.object) {
            return Err(EventError::NotAnEvent(
                "`data.object` is not an object".into(),
            ));
        }
        let subject: Subject = read(body.data.object.get())?;
        let (request_id, idempotency_key) = match body.request {
            Some(Request::Caused {
                id,
                idempotency_key,
            }) => (id, idempotency_key),
            Some(Request::Id(id)) => (Some(id), None),
            _ => (None, None),
        };
        Ok(Self {
            id: body.id,
            kind: body.kind,
            created: body.created,
            livemode: body.livemode,
            account: body.account,
            api_version: body.api_version,
            object: body.data.object,
            object_type: text_of(subject.object),
            object_id: text_of(subject.id),
            previous_attributes: body.data.previous_attributes.filter(|raw| is_object(raw)),
            request_id,
            idempotency_key,
        })
    }
}

/// What a body is that cannot be read as a snapshot event.
fn refusal(text: &str, error: Option<EventError>) -> EventError {
    match read::<Envelope>(text) {
        Err(error) => error,
        Ok(Envelope { object }) => match (object.as_deref(), error) {
            (Some("event"), Some(error)) => error,
            (Some("v2.core.event"), _) => EventError::Thin,
            _ => EventError::NotAnEvent("`object` is not `event`".into()),
        },
    }
}

/// Replaces what JSON can spell and `jsonb` cannot hold, `\u0000` and halves of surrogate pairs,
/// by U+FFFD. Text without them, that is all that Stripe ever sent us, is returned as it came.
///
/// It works on the text because serde_json refuses lone surrogates, and an event that was signed
/// but can be neither parsed nor stored would be sent again for three days.
pub fn sanitize(text: &str) -> Cow<'_, str> {
    let mut clean = String::new();
    let mut kept = 0;
    let mut at = 0;
    // An escape that is none (`\é`) ends the walk: such a text is no JSON, and is refused as that.
    while let Some(found) = text.get(at..).and_then(|rest| rest.find('\\')) {
        let escape = at + found;
        at = match code_unit(text, escape) {
            Some(0xD800..=0xDBFF) if is_low_surrogate(text, escape + 6) => escape + 12,
            Some(0x0000 | 0xD800..=0xDFFF) => {
                clean.push_str(&text[kept..escape]);
                clean.push_str("\\ufffd");
                kept = escape + 6;
                kept
            }
            Some(_) => escape + 6,
            None => escape + 2,
        };
    }
    if kept == 0 {
        return Cow::Borrowed(text);
    }
    clean.push_str(&text[kept..]);
    Cow::Owned(clean)
}

fn is_low_surrogate(text: &str, at: usize) -> bool {
    matches!(code_unit(text, at), Some(0xDC00..=0xDFFF))
}

/// The UTF-16 code unit that the escape `\uXXXX` at this place stands for.
fn code_unit(text: &str, at: usize) -> Option<u16> {
    let digits = text.get(at..at + 6)?.strip_prefix("\\u")?;
    let hex = digits.bytes().all(|digit| digit.is_ascii_hexdigit());
    hex.then(|| u16::from_str_radix(digits, 16).ok())?
}

/// How deep arrays and objects are nested, counted without recursion; at most this deep where
/// there are too few of them for more than [`MAX_DEPTH`].
fn depth(text: &str) -> usize {
    // `[` and `{` differ in one bit. Pieces that one byte can count are counted many bytes at once.
    let is_opening = |byte: &u8| u8::from(byte | 0x20 == b'{');
    let pieces = text.as_bytes().chunks(255);
    let opened: usize = pieces
        .map(|piece| usize::from(piece.iter().map(is_opening).sum::<u8>()))
        .sum();
    if opened <= MAX_DEPTH {
        return opened;
    }
    let (mut depth, mut deepest) = (0_usize, 0);
    let (mut in_string, mut escaped) = (false, false);
    for byte in text.bytes() {
        match byte {
            _ if escaped => escaped = false,
            b'\\' => escaped = in_string,
            b'"' => in_string = !in_string,
            b'{' | b'[' if !in_string => {
                depth += 1;
                deepest = deepest.max(depth);
            }
            b'}' | b']' if !in_string => depth = depth.saturating_sub(1),
            _ => {}
        }
    }
    deepest
}

#[derive(Deserialize)]
struct Envelope {
    object: Option<String>,
}

#[derive(Deserialize)]
struct Body<'a> {
    object: Option<String>,
    id: String,
    #[serde(rename = "type")]
    kind: String,
    created: i64,
    livemode: bool,
    account: Option<String>,
    api_version: Option<String>,
    #[serde(borrow)]
    data: Data<'a>,
    request: Option<Request>,
}

#[derive(Deserialize)]
struct Data<'a> {
    #[serde(borrow)]
    object: &'a RawValue,
    #[serde(borrow)]
    previous_attributes: Option<&'a RawValue>,
}

/// Versions before 2017-05-25 give the request's id alone.
#[derive(Deserialize)]
#[serde(untagged)]
enum Request {
    Caused {
        id: Option<String>,
        idempotency_key: Option<String>,
    },
    Id(String),
    Unknown(serde::de::IgnoredAny),
}

#[derive(Deserialize)]
struct Subject {
    id: Option<Value>,
    object: Option<Value>,
}

fn read<'a, T: Deserialize<'a>>(text: &'a str) -> Result<T, EventError> {
    serde_json::from_str(text).map_err(|error| match error.classify() {
        serde_json::error::Category::Data => EventError::NotAnEvent(error.to_string()),
        _ => EventError::NotJson(error.to_string()),
    })
}

fn is_object(raw: &RawValue) -> bool {
    raw.get().starts_with('{')
}

fn text_of(value: Option<Value>) -> Option<String> {
    match value {
        Some(Value::String(text)) => Some(text),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn event() -> Value {
        json!({
            "id": "evt_1", "object": "event", "type": "price.updated", "created": 1_700_000_000,
            "livemode": false, "api_version": "2026-10-28.endive", "pending_webhooks": 1,
            "data": {
                "object": {"id": "price_1", "object": "price", "unit_amount": 5},
                "previous_attributes": {"unit_amount": 4},
            },
            "request": {"id": "req_1", "idempotency_key": "key-1"},
        })
    }

    fn with(field: &str, value: Value) -> String {
        let mut event = event();
        event[field] = value;
        event.to_string()
    }

    #[test]
    fn an_event_is_read_and_its_object_kept_as_written() {
        let text = r#"{"object":"event","id":"evt_1","type":"price.updated","created":1700000000,
            "livemode":true,"account":null,"api_version":"2020-08-27","data":{"object":
            {"id" : "price_1", "object":"price","huge":123456789012345678901234567890.10e400},
            "previous_attributes":{ "huge" : 1 }},"request":{"id":"req_1","idempotency_key":"k"}}"#;
        let event = Event::parse(text).expect("an event");
        assert_eq!(
            (event.id.as_str(), event.kind.as_str()),
            ("evt_1", "price.updated")
        );
        assert_eq!((event.created, event.livemode), (1_700_000_000, true));
        assert_eq!(event.account, None);
        assert_eq!(event.api_version.as_deref(), Some("2020-08-27"));
        assert_eq!(
            event.object.get(),
            r#"{"id" : "price_1", "object":"price","huge":123456789012345678901234567890.10e400}"#
        );
        assert_eq!(event.object_type.as_deref(), Some("price"));
        assert_eq!(event.object_id.as_deref(), Some("price_1"));
        let previous = event.previous_attributes.map(RawValue::get);
        assert_eq!(previous, Some(r#"{ "huge" : 1 }"#));
        assert_eq!(event.request_id.as_deref(), Some("req_1"));
        assert_eq!(event.idempotency_key.as_deref(), Some("k"));
    }

    #[test]
    fn an_upcoming_invoice_has_no_id() {
        let data = json!({"object": {"object": "invoice"}});
        let text = with("data", data);
        let event = Event::parse(&text).expect("an event");
        assert_eq!(event.object_id, None);
        assert_eq!(event.object_type.as_deref(), Some("invoice"));
        assert!(event.previous_attributes.is_none());
    }

    #[test]
    fn a_connect_event_names_its_account() {
        let text = with("account", json!("acct_1"));
        assert_eq!(
            Event::parse(&text).expect("an event").account.as_deref(),
            Some("acct_1")
        );
    }

    #[test]
    fn every_shape_of_request_is_taken() {
        let parsed = |request| {
            let text = with("request", request);
            let event = Event::parse(&text).expect("an event");
            (event.request_id, event.idempotency_key)
        };
        assert_eq!(parsed(json!("req_1")), (Some("req_1".into()), None));
        assert_eq!(
            parsed(json!({"id": null, "idempotency_key": null})),
            (None, None)
        );
        assert_eq!(parsed(json!(null)), (None, None));
        assert_eq!(parsed(json!(5)), (None, None));
    }

    #[test]
    fn what_is_no_snapshot_event_is_refused() {
        let refused = |text: &str| Event::parse(text).map(|event| event.id);
        assert!(matches!(refused(""), Err(EventError::NotJson(_))));
        assert!(matches!(
            refused("{\"object\":\"event\""),
            Err(EventError::NotJson(_))
        ));
        assert!(matches!(refused("[]"), Err(EventError::NotAnEvent(_))));
        assert!(matches!(refused("{}"), Err(EventError::NotAnEvent(_))));
        for (field, value) in [
            ("object", json!("charge")),
            ("id", json!(null)),
            ("type", json!(5)),
            ("created", json!("yesterday")),
            ("created", json!(-1)),
            ("created", json!(LAST_SECOND + 1)),
            ("created", json!(i64::MAX)),
            ("livemode", json!("false")),
            ("data", json!({})),
            ("data", json!({"object": "cus_1"})),
        ] {
            let text = with(field, value);
            assert!(
                matches!(refused(&text), Err(EventError::NotAnEvent(_))),
                "{field}"
            );
        }
        let thin = r#"{"id":"evt_1","object":"v2.core.event","created":"2026-01-01T00:00:00Z"}"#;
        assert_eq!(refused(thin), Err(EventError::Thin));
    }

    #[test]
    fn a_field_that_comes_twice_is_refused() {
        let text = event().to_string().replacen('{', r#"{"livemode":true,"#, 1);
        assert!(matches!(
            Event::parse(&text),
            Err(EventError::NotAnEvent(_))
        ));
    }

    #[test]
    fn depth_is_bounded_without_recursion() {
        let nested = |levels: usize| {
            let object = format!("{{\"a\":{}{}}}", "[".repeat(levels), "]".repeat(levels));
            event().to_string().replace(
                r#"{"id":"price_1","object":"price","unit_amount":5}"#,
                &object,
            )
        };
        assert!(Event::parse(&nested(MAX_DEPTH - 3)).is_ok());
        assert!(matches!(
            Event::parse(&nested(MAX_DEPTH - 2)),
            Err(EventError::TooDeep)
        ));
        assert!(matches!(
            Event::parse(&"[".repeat(10_000_000)),
            Err(EventError::TooDeep)
        ));
        let brackets = with("type", json!("[[{\\\"".repeat(100)));
        assert!(Event::parse(&brackets).is_ok());
    }

    #[test]
    fn clean_text_is_borrowed() {
        for text in [
            r#"{"a":"\n\\u0000 \ud83d\ude00 \u00e9"}"#,
            "",
            "{}",
            r"\",
            r"\u12",
            r"\uzzzz",
        ] {
            assert!(
                matches!(sanitize(text), Cow::Borrowed(same) if same == text),
                "{text}"
            );
        }
    }

    #[test]
    fn nul_and_lone_surrogates_are_replaced() {
        for (text, clean) in [
            (r#""\u0000""#, r#""\ufffd""#),
            (r#""\\\u0000x""#, r#""\\\ufffdx""#),
            (r#""\ud83d""#, r#""\ufffd""#),
            (r#""\uDE00""#, r#""\ufffd""#),
            (r#""\ud83d\n""#, r#""\ufffd\n""#),
            (r#""\ud83dé""#, r#""\ufffdé""#),
            (r#""\ud83d\ud83d\ude00""#, r#""\ufffd\ud83d\ude00""#),
            (r#""\ude00\ud83d""#, r#""\ufffd\ufffd""#),
            (r#""\u0000\u0000a\u0000""#, r#""\ufffd\ufffda\ufffd""#),
        ] {
            assert_eq!(sanitize(text), clean);
        }
    }

    proptest! {
        #[test]
        fn sanitized_text_parses_and_holds_no_nul(
            pieces in prop::collection::vec(
                prop_oneof![
                    Just(r"\u0000"), Just(r"\ud800"), Just(r"\udbff"), Just(r"\udc00"),
                    Just(r"\uDFFF"), Just(r"\\"), Just(r"\n"), Just("u0000"), Just("é"),
                    Just(r"\ud83d\ude00"), Just("ud800"), Just(r#"\""#),
                ],
                0..12,
            )
        ) {
            let text = format!("\"{}\"", pieces.concat());
            let clean = sanitize(&text);
            let parsed: String = serde_json::from_str(&clean).expect("sanitized JSON parses");
            prop_assert!(!parsed.contains('\0'));
            prop_assert_eq!(sanitize(&clean), clean.as_ref());
            if let Ok(before) = serde_json::from_str::<String>(&text) {
                prop_assert_eq!(before.replace('\0', "\u{fffd}"), parsed);
            }
        }

        #[test]
        fn any_text_is_refused_without_panic(text in ".{0,200}") {
            prop_assert!(Event::parse(&sanitize(&text)).is_err());
        }
    }
}
