//! A mirrored object as its table keeps it.

use std::sync::Arc;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::canonical;
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
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    shared: Vec<String>,
    #[serde(default, skip_serializing_if = "Map::is_empty")]
    #[serde(serialize_with = "canonical::serialize")]
    own: Map<String, Value>,
}

impl Mirrored {
    /// What the table is to keep. Equal objects are stored as equal bytes.
    pub fn to_stored(&self) -> Stored {
        let resolved = self.resolve();
        let winner = resolved.winner();
        let stored = Stored {
            body: canonical::text(&resolved.body),
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
        let filled = without(&resolved.body, &winner.fields);
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
    pub fn from_stored(key: Key, stored: &Stored) -> Result<Mirrored, Unreadable> {
        let body: Map<String, Value> = serde_json::from_str(&stored.body)?;
        let evidence = match &stored.evidence {
            Some(evidence) => serde_json::from_str(evidence)?,
            None => Evidence {
                created: None,
                winner: plain(stored),
                filled: Vec::new(),
                others: Vec::new(),
            },
        };
        let mut sightings: Vec<_> = evidence
            .others
            .into_iter()
            .map(|other| other.sighting(&body))
            .collect();
        let mut fields = Arc::new(body);
        if !evidence.filled.is_empty() {
            Arc::make_mut(&mut fields).retain(|name, _| !evidence.filled.contains(name));
        }
        let created = evidence.created.or_else(|| created_in(&fields));
        sightings.push(Sighting {
            fields,
            ..evidence.winner
        });
        Ok(Mirrored::from_sightings(key, created, sightings))
    }
}

impl Other {
    fn of(sighting: &Sighting, body: &Map<String, Value>) -> Other {
        let (mut shared, mut own) = (Vec::new(), Map::new());
        for (name, value) in sighting.fields.iter() {
            match body.get(name) == Some(value) {
                true => shared.push(name.clone()),
                false => {
                    own.insert(name.clone(), value.clone());
                }
            }
        }
        shared.sort_unstable();
        Other {
            sighting: sighting.facts(),
            shared,
            own,
        }
    }

    fn sighting(self, body: &Map<String, Value>) -> Sighting {
        let mut fields = self.own;
        for name in self.shared {
            if let Some(value) = body.get(&name) {
                fields.insert(name, value.clone());
            }
        }
        Sighting {
            fields: Arc::new(fields),
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

fn created_in(body: &Map<String, Value>) -> Option<i64> {
    body.get("created").and_then(Value::as_i64)
}

fn without(body: &Map<String, Value>, fields: &Map<String, Value>) -> Vec<String> {
    let mut names: Vec<_> = body
        .keys()
        .filter(|name| !fields.contains_key(*name))
        .cloned()
        .collect();
    names.sort_unstable();
    names
}
