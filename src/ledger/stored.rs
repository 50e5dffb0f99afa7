//! A mirrored object as its table keeps it.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::canonical;
use crate::fields::Fields;
use crate::mirror::Mirrored;
use crate::observation::Key;
use crate::sighting::Sighting;

/// What is to be stored of a [`Mirrored`], and all of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stored {
    /// The object, merged, as JSON with sorted keys.
    pub body: String,
    /// How new the body is, in Unix seconds on Stripe's clock.
    pub as_of: i64,
    /// Whether the object is gone.
    pub deleted: bool,
    /// What merging needs besides, as JSON. `None` for a single body that came with an event which
    /// does not say what it changed; small, unless one second has told several states.
    pub evidence: Option<String>,
}

/// What is stored of an object is not what [`Mirrored::to_stored`] wrote.
#[derive(Debug, thiserror::Error)]
#[error("the stored object cannot be read: {0}")]
pub struct Unreadable(#[from] serde_json::Error);

#[derive(Serialize, Deserialize)]
struct Evidence {
    /// The incarnation, where the body does not say it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    created: Option<i64>,
    /// The sighting that the body is from.
    winner: Sighting,
    /// The fields of the body that are from others.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    filled: Vec<String>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    others: Vec<Other>,
}

/// Another sighting, by what its fields do not share with the body.
#[derive(Serialize, Deserialize)]
struct Other {
    #[serde(flatten)]
    sighting: Sighting,
    /// The fields that are as in the body.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    shared: Vec<String>,
    /// Instead, where that is shorter: those of the body that it has not. An invoice has eighty
    /// fields, and two events of one second mostly have them all; their names took as much room as
    /// the invoice itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    lacks: Option<Vec<String>>,
    #[serde(default, skip_serializing_if = "Fields::is_empty")]
    own: Fields,
}

impl Mirrored {
    /// What the table is to keep. Equal objects are stored as equal bytes.
    pub fn to_stored(&self) -> Stored {
        let resolved = self.resolve();
        let winner = resolved.winner();
        let stored = Stored {
            body: resolved.body.text().to_owned(),
            as_of: winner.second,
            deleted: winner.gone,
            evidence: None,
        };
        let created = self
            .created()
            .filter(|created| Some(*created) != created_in(&winner.fields));
        let others: Vec<_> = self
            .sightings()
            .filter(|sighting| *sighting != winner)
            .map(|other| Other::of(other, &resolved.body))
            .collect();
        let facts = winner.facts();
        if created.is_none() && others.is_empty() && facts == plain(&stored) {
            return stored;
        }
        let filled = resolved.body.without(&winner.fields);
        let filled = filled.names().map(str::to_owned).collect();
        let evidence = Evidence {
            created,
            winner: facts,
            filled,
            others,
        };
        Stored {
            evidence: Some(canonical::json(&evidence)),
            ..stored
        }
    }

    /// The reverse of [`Mirrored::to_stored`].
    pub fn from_stored(key: Key, stored: Stored) -> Result<Mirrored, Unreadable> {
        let evidence = match &stored.evidence {
            Some(evidence) => serde_json::from_str(evidence)?,
            None => Evidence {
                created: None,
                winner: plain(&stored),
                filled: Vec::new(),
                others: Vec::new(),
            },
        };
        let body = Fields::from_stored(stored.body)?;
        let mut sightings: Vec<_> = evidence
            .others
            .into_iter()
            .map(|other| other.sighting(&body))
            .collect();
        let is_own =
            |(name, _): &(&str, &str)| !evidence.filled.iter().any(|filled| filled == name);
        let fields = match evidence.filled.is_empty() {
            true => body,
            false => Fields::of(body.raws().filter(is_own)),
        };
        let created = evidence.created.or_else(|| created_in(&fields));
        sightings.push(Sighting {
            fields,
            ..evidence.winner
        });
        Ok(Mirrored::from_sightings(key, created, sightings))
    }
}

impl Other {
    fn of(sighting: &Sighting, body: &Fields) -> Other {
        let fields = sighting.fields.raws();
        let (shared, own): (Vec<_>, Vec<_>) =
            fields.partition(|(name, raw)| body.raw(name) == Some(raw));
        let shared: Vec<_> = shared.into_iter().map(|(name, _)| name).collect();
        let lacks = body.without(&sighting.fields);
        let lacks: Vec<_> = lacks.names().collect();
        let owned = |names: Vec<&str>| names.into_iter().map(str::to_owned).collect();
        let (shared, lacks) = match lacks.len() < shared.len() {
            true => (Vec::new(), Some(owned(lacks))),
            false => (owned(shared), None),
        };
        Other {
            sighting: sighting.facts(),
            shared,
            lacks,
            own: Fields::of(own.into_iter()),
        }
    }

    fn sighting(self, body: &Fields) -> Sighting {
        let shared = match &self.lacks {
            None => {
                let shared = self.shared.iter();
                Fields::default()
                    .and(shared.filter_map(|name| Some((name.as_str(), body.raw(name)?))))
            }
            Some(lacks) if lacks.is_empty() => body.clone(),
            Some(lacks) => {
                let has = |name: &str| !lacks.iter().any(|lacking| lacking == name);
                Fields::of(body.raws().filter(|(name, _)| has(name)))
            }
        };
        Sighting {
            fields: shared.and(self.own.raws()),
            ..self.sighting
        }
    }
}

/// What a sighting is when nothing else is said of it.
fn plain(stored: &Stored) -> Sighting {
    Sighting {
        second: stored.as_of,
        gone: stored.deleted,
        ..Sighting::default()
    }
}

fn created_in(body: &Fields) -> Option<i64> {
    body.get("created").and_then(Value::as_i64)
}
