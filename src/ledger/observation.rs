//! What Stripe said about one object at one time.

use std::borrow::Cow;

use serde_json::{Map, Value};

use crate::fields::Fields;
use crate::state::{Digest, difference, state_before, undone};

/// Which object: Stripe's `object` and `id`. The id alone is not enough, a plan has the id of its
/// price, and ids of products and coupons are free text.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Key {
    /// Stripe's `object`, such as `checkout.session`.
    pub object_type: String,
    /// Stripe's `id`.
    pub id: String,
}

impl Key {
    /// The key that a body names; `None` for what has no id, such as the invoice of
    /// `invoice.upcoming`.
    pub fn of(body: &Fields) -> Option<Key> {
        let text = |name| body.get(name).and_then(Value::as_str).map(str::to_owned);
        Some(Key {
            object_type: text("object")?,
            id: text("id")?,
        })
    }
}

/// Who said it.
///
/// An answer marked `Idempotent-Replayed` has no variant: it repeats what was true when the
/// idempotency key was first used, and observing it now would reopen a completed session. Fetch
/// the object by id and observe that.
#[derive(Clone, Debug, PartialEq)]
pub enum Source {
    /// The object of an event (<https://docs.stripe.com/api/events/object>).
    Event {
        /// Stripe's `evt_…`, or two changes in one second would look like one told twice.
        id: String,
        /// Stripe's `type`, such as `customer.subscription.updated`.
        event_type: String,
        /// Stripe's `data.previous_attributes`, where present.
        previous_attributes: Option<Map<String, Value>>,
    },
    /// The first answer to our own POST or DELETE.
    Answer {
        /// What was mirrored of the object when the request was sent.
        after: Option<Mark>,
    },
    /// The answer to a GET of this object by id.
    Fetch {
        /// What was mirrored of the object when the request was sent.
        after: Option<Mark>,
    },
    /// One of a page of objects.
    Listing,
}

/// How much was mirrored of an object at some moment. An answer carries the mark taken before its
/// request was sent and so outranks exactly that, whatever arrives first: our update sent at
/// 10.8 s is stamped 10 (or 9, as Stripe's `Date` has no fractions) and would lose to an event of
/// second 10 that we had already seen.
#[derive(Clone, Debug, PartialEq)]
pub struct Mark {
    pub(crate) created: Option<i64>,
    pub(crate) second: i64,
    pub(crate) known: Vec<Digest>,
}

/// One object as Stripe showed it.
#[derive(Clone, Debug, PartialEq)]
pub struct Observation {
    /// Which object.
    pub key: Key,
    /// The object.
    pub body: Fields,
    /// When it was certainly not older than this: `event.created`; for an answer or page the time
    /// before the request was sent. Unix seconds on Stripe's clock.
    pub as_of: i64,
    /// Who said it.
    pub source: Source,
    /// Whether the object is gone.
    pub deleted: bool,
}

impl Observation {
    /// Observes a body under the key it names; `None` if it names none. It is a tombstone if the
    /// body says `deleted`, or if it comes with the event that deletes its own type.
    pub fn new(body: impl Into<Fields>, as_of: i64, source: Source) -> Option<Observation> {
        let body = body.into();
        let key = Key::of(&body)?;
        // A deleted subscription is not gone: it is canceled, and can still be read.
        let deleted = body.get("deleted") == Some(&Value::Bool(true))
            || (key.object_type != "subscription" && source.tells(&key, ".deleted"));
        Some(Observation {
            key,
            body,
            as_of,
            source,
            deleted,
        })
    }

    /// An object that this one embeds, told by the same source at the same time. `before` is what
    /// it was in [`Observation::before`], if it was there already: so the items of two updates in
    /// one second are chained like the subscriptions they came with.
    pub fn embedded(
        &self,
        body: Map<String, Value>,
        before: Option<&Map<String, Value>>,
    ) -> Option<Observation> {
        let source = match &self.source {
            Source::Event { id, event_type, .. } => Source::Event {
                id: id.clone(),
                event_type: event_type.clone(),
                previous_attributes: before.map(|before| difference(before, &body)),
            },
            Source::Answer { .. } => Source::Answer { after: None },
            Source::Fetch { .. } => Source::Fetch { after: None },
            Source::Listing => Source::Listing,
        };
        Observation::new(body, self.as_of, source)
    }

    /// A field before the change that an event tells, where it says what it changed.
    pub fn before(&self, name: &str) -> Option<Cow<'_, Value>> {
        let is = self.body.get(name);
        match self.changed()?.get(name) {
            Some(was) => Some(Cow::Owned(undone(is, was))),
            None => is.map(Cow::Borrowed),
        }
    }

    /// Which state the body showed before the change that an event tells, where it says what it
    /// changed.
    pub(crate) fn state_before(&self) -> Option<Digest> {
        Some(state_before(&self.body, self.changed()?))
    }

    fn changed(&self) -> Option<&Map<String, Value>> {
        match &self.source {
            Source::Event {
                previous_attributes,
                ..
            } => previous_attributes.as_ref(),
            _ => None,
        }
    }
}

impl Source {
    /// Whether this is the event of that name for objects of this type: `.created` is true of
    /// `customer.subscription.created` and a subscription, not of the items that came with it.
    pub(crate) fn tells(&self, key: &Key, what: &str) -> bool {
        let Source::Event { event_type, .. } = self else {
            return false;
        };
        event_type
            .strip_suffix(what)
            .and_then(|path| path.strip_suffix(key.object_type.as_str()))
            .is_some_and(|path| path.is_empty() || path.ends_with('.'))
    }
}
