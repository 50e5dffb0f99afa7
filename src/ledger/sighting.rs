//! One observation as merging keeps it.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::canonical;
use crate::fields::Fields;
use crate::observation::{Observation, Source};
use crate::standing::{Standing, standing};
use crate::state::{self, Digest};

/// What of an observation can still decide something. All that newer observations make
/// meaningless is cut off (see [`Sighting::reduce`]), so equal knowledge is equal data.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Sighting {
    /// Not older than this, in Unix seconds.
    pub second: i64,
    /// The object was gone.
    #[serde(default, skip_serializing_if = "is_false")]
    pub gone: bool,
    /// Told by the event that tells the object's creation.
    #[serde(default, skip_serializing_if = "is_false")]
    pub newborn: bool,
    /// The body does not say which incarnation it is of: `{id, object, deleted: true}`.
    #[serde(default, skip_serializing_if = "is_false")]
    pub nameless: bool,
    #[serde(default, skip_serializing_if = "Teller::is_event")]
    pub teller: Teller,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub change: Option<Told>,
    /// The sightings that an answer outranks: those of its own second that were mirrored when
    /// its request was sent.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub outranks: Vec<Digest>,
    /// What to know of the body once it is not whole any more.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub summary: Option<Summary>,
    /// The body; of an older one the fields that no newer one has.
    #[serde(skip)]
    pub fields: Fields,
}

/// Who is believed more, the last most: a page was read at some time in its second, and our own
/// answer shows what we just wrote.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Teller {
    Read,
    #[default]
    Event,
    Answer,
}

impl Teller {
    fn is_event(&self) -> bool {
        *self == Teller::Event
    }
}

/// The change that an event tells by its `previous_attributes`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Told {
    pub event: String,
    pub before: Digest,
}

/// What ordering a second needs to know of a body.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Summary {
    pub state: Digest,
    pub standing: Standing,
}

fn is_false(flag: &bool) -> bool {
    !flag
}

/// When a sighting was, as far as that is certain. Sightings on one rung are ordered by
/// [`crate::second::settle`].
///
/// A tombstone is above everything else of its incarnation: `updated` events that come late, even
/// with a later second (a DELETE is stamped with the time before it was sent), do not bring the
/// object back. The event of the creation is below everything else: whatever else was seen of the
/// object was seen of an object that existed, also by a page stamped a second too early. And so is
/// a state below those that it cannot come after: such a page shows an invoice as paid, and the
/// event that it became open has the later stamp. An app would see it paid, open and paid again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Rung {
    gone: bool,
    grown: bool,
    stage: u8,
    second: i64,
}

impl Rung {
    /// The part of the life of an incarnation: its creation, the stages of its life, its death.
    pub(crate) fn part(self) -> impl Eq {
        (self.gone, self.grown, self.stage)
    }
}

impl Sighting {
    /// The incarnation that an observation is of (Stripe's `created`), if it says so, and what
    /// merging needs of it.
    pub(crate) fn of(o: Observation) -> (Option<i64>, Sighting) {
        let newborn = o.source.tells(&o.key, ".created");
        let before = o.state_before();
        let mut created = o.body.get("created").and_then(Value::as_i64);
        let mut second = o.as_of;
        let mut outranks = Vec::new();
        let (teller, change) = match o.source {
            Source::Event { id, .. } => (
                Teller::Event,
                before.map(|before| Told { event: id, before }),
            ),
            Source::Listing => (Teller::Read, None),
            Source::Answer { ref after } | Source::Fetch { ref after } => {
                if let Some(mark) = after {
                    created = created.or(mark.created);
                    if mark.second >= second {
                        second = mark.second;
                        outranks = mark.known.clone();
                    }
                }
                let ours = matches!(o.source, Source::Answer { .. });
                (if ours { Teller::Answer } else { Teller::Read }, None)
            }
        };
        let sighting = Sighting {
            second,
            gone: o.deleted,
            newborn,
            nameless: created.is_none(),
            teller,
            change,
            outranks,
            summary: None,
            fields: o.body,
        };
        (created, sighting)
    }

    pub(crate) fn rung(&self, object_type: &str) -> Rung {
        let standing = match self.summary {
            Some(summary) => summary.standing,
            None => standing(object_type, &self.fields),
        };
        Rung {
            gone: self.gone,
            grown: !self.newborn,
            stage: standing.stage(object_type),
            second: self.second,
        }
    }

    pub(crate) fn is_event(&self) -> bool {
        self.teller == Teller::Event
    }

    pub(crate) fn summary(&self, object_type: &str) -> Summary {
        self.summary.unwrap_or_else(|| Summary {
            state: state::state(&self.fields),
            standing: standing(object_type, &self.fields),
        })
    }

    /// Cuts the body of an older sighting down to the fields that no newer one has.
    pub(crate) fn reduce(&mut self, object_type: &str, newer: &Fields) {
        self.summary = Some(self.summary(object_type));
        self.fields = self.fields.without(newer);
    }

    /// Without the body.
    pub(crate) fn facts(&self) -> Sighting {
        Sighting {
            change: self.change.clone(),
            outranks: self.outranks.clone(),
            fields: Fields::default(),
            ..*self
        }
    }

    /// By what an answer names what it outranks: the same before and after the body was reduced.
    pub(crate) fn digest(&self, object_type: &str) -> Digest {
        let facts = Sighting {
            summary: None,
            ..self.facts()
        };
        Digest::of(format!(
            "{}{}",
            canonical::json(&facts),
            self.summary(object_type).state
        ))
    }

    /// Which of too many sightings to keep: what [`crate::second::settle`] would choose of two.
    /// The same before and after the body was reduced, and equal only for sightings that differ in
    /// nothing but nulls.
    pub(crate) fn weight(&self, object_type: &str) -> impl Ord {
        let Summary { state, standing } = self.summary(object_type);
        let told = self.change.as_ref();
        (
            (!self.outranks.is_empty(), standing, self.teller),
            told.map(|told| (state, told.before, &told.event)),
            (state, self.nameless, &self.outranks, self.rung(object_type)),
        )
    }

    /// A text that only equal sightings share.
    pub(crate) fn identity(&self) -> String {
        canonical::json(self) + self.fields.text()
    }
}
