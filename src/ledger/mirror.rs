//! All that is known of one object: a join-semilattice.
//!
//! The state is a set of sightings in a canonical form, and joining is union, then pruning. What
//! is pruned is what no sighting that may still come can make matter again, so that
//! `prune(prune(a) ∪ b) = prune(a ∪ b)`; commutativity, associativity and idempotence follow from
//! those of the union. The object itself is a pure function of the set.
//!
//! 1. *Incarnation.* The greatest `created` wins: a product made again under its old id is not
//!    deleted by the late tombstone of the first. A body without `created` belongs to the newest
//!    incarnation made before its second. (Not in it: of a bare tombstone and a creation in one
//!    second nobody knows which was first, and a wrong tombstone would be for ever.)
//! 2. *Rung.* The newest second is kept whole. Of the second below it there is kept what tells
//!    where a circle of changes began, but only while the newest second has nothing but changes.
//! 3. *Fields.* Of everything older there are kept the top-level fields that nothing newer has.
//!    So the size is bounded by the number of fields, and almost always one body is all.

use std::cmp::Reverse;
use std::collections::BTreeSet;

use serde_json::{Map, Value};

use crate::canonical::Digest;
use crate::observation::{Key, Mark, Observation};
use crate::second::settle;
use crate::sighting::Sighting;

/// What is known of one object of Stripe's: everything observed of it, joined.
#[derive(Clone, Debug, PartialEq)]
pub struct Mirrored {
    pub(crate) key: Key,
    /// The incarnation: the greatest `created` seen.
    pub(crate) created: Option<i64>,
    /// Pruned and never empty; the newest rung first, within a rung by identity.
    pub(crate) sightings: Vec<Sighting>,
}

/// One object, merged from all that was observed of it.
#[derive(Clone, Debug, PartialEq)]
pub struct Object {
    /// Which object.
    pub key: Key,
    /// The newest body. A top-level field that it does not have is taken from the newest body that
    /// does: payloads of several API versions arrive, and what one version dropped the next must
    /// not turn into null. A null says that there is nothing, and stays. Below the top level
    /// nothing is filled in: there, keys do go away (`metadata`, one hash a payment method type).
    pub body: Map<String, Value>,
    /// How new the body is, in Unix seconds on Stripe's clock.
    pub as_of: i64,
    /// Stripe's `created` of this incarnation, in Unix seconds.
    pub created: Option<i64>,
    /// Whether the object is gone. Only a later incarnation brings it back.
    pub deleted: bool,
    /// Whether Stripe must be asked: several states of one second, and nothing to order them but
    /// a rule that is the same everywhere.
    pub undecided: bool,
}

/// What an [`Object`] is made of.
pub(crate) struct Resolved {
    /// The place of the newest sighting.
    pub winner: usize,
    pub body: Map<String, Value>,
    pub undecided: bool,
}

impl Mirrored {
    /// One observation, alone.
    pub fn of(o: Observation) -> Mirrored {
        let key = o.key.clone();
        let (created, sighting) = Sighting::of(o);
        Mirrored {
            key,
            created,
            sightings: vec![sighting],
        }
    }

    /// What was pruned before, put back in order.
    pub(crate) fn sorted(key: Key, created: Option<i64>, sightings: Vec<Sighting>) -> Mirrored {
        let mut mirrored = Mirrored {
            key,
            created,
            sightings,
        };
        mirrored.prune();
        mirrored
    }

    /// What both know together, in whatever order and however often they are joined. Both must be
    /// of one object.
    pub fn join(mut self, mut other: Mirrored) -> Mirrored {
        debug_assert_eq!(self.key, other.key);
        let created = self.created.max(other.created);
        self.forget_older_than(created);
        other.forget_older_than(created);
        self.sightings.append(&mut other.sightings);
        self.prune();
        self
    }

    /// The object, merged.
    pub fn object(&self) -> Object {
        let resolved = self.resolve();
        let winner = &self.sightings[resolved.winner];
        Object {
            key: self.key.clone(),
            body: resolved.body,
            as_of: winner.second,
            created: self.created,
            deleted: winner.gone,
            undecided: resolved.undecided,
        }
    }

    /// How much is mirrored now, to be taken before a request about this object is sent and given
    /// to the answer's [`crate::Source`].
    pub fn mark(&self) -> Mark {
        let newest = self.rungs().next().unwrap_or_default();
        Mark {
            created: self.created,
            second: self.sightings[0].second,
            known: newest
                .iter()
                .map(|sighting| sighting.digest(&self.key.object_type))
                .collect(),
        }
    }

    fn rungs(&self) -> impl Iterator<Item = &[Sighting]> {
        self.sightings.chunk_by(|a, b| a.rung() == b.rung())
    }

    fn forget_older_than(&mut self, created: Option<i64>) {
        let outlived = self.created < created;
        self.created = created;
        self.sightings.retain(|sighting| match sighting.nameless {
            true => created.is_none_or(|created| created < sighting.second),
            false => !outlived,
        });
    }

    fn prune(&mut self) {
        self.sightings
            .sort_by_key(|sighting| Reverse(sighting.rung()));
        let mut newer = BTreeSet::new();
        let mut kept = Vec::with_capacity(self.sightings.len());
        let mut only_changes = true;
        let object_type = self.key.object_type.as_str();
        for (depth, rung) in self
            .sightings
            .chunk_by_mut(|a, b| a.rung() == b.rung())
            .enumerate()
        {
            if depth == 0 {
                only_changes = is_only_changes(rung);
            } else {
                rung.iter_mut()
                    .for_each(|sighting| sighting.reduce(object_type, |name| newer.contains(name)));
            }
            newer.extend(
                rung.iter()
                    .flat_map(|sighting| sighting.fields.keys().cloned()),
            );
            let matters = |sighting: &&mut Sighting| {
                depth == 0 || (depth == 1 && only_changes) || !sighting.fields.is_empty()
            };
            let mut rung: Vec<_> = rung
                .iter_mut()
                .filter(matters)
                .map(std::mem::take)
                .collect();
            if rung.len() > 1 {
                rung.sort_by_cached_key(Sighting::identity);
                rung.dedup();
            }
            kept.append(&mut rung);
        }
        self.sightings = kept;
    }

    pub(crate) fn resolve(&self) -> Resolved {
        let object_type = self.key.object_type.as_str();
        let newest: Vec<_> = self.rungs().next().unwrap_or_default().iter().collect();
        let verdict = settle(object_type, &newest, self.older());
        let mut body = self.sightings[verdict.winner].fields.clone();
        for rung in self.rungs().filter(|_| self.sightings.len() > 1) {
            let names: BTreeSet<&String> = rung
                .iter()
                .flat_map(|sighting| sighting.fields.keys())
                .filter(|name| !body.contains_key(*name))
                .collect();
            for name in names {
                let having: Vec<_> = rung
                    .iter()
                    .filter(|sighting| sighting.fields.contains_key(name))
                    .collect();
                let newest = having[settle(object_type, &having, None).winner];
                body.insert(name.clone(), newest.fields[name].clone());
            }
        }
        Resolved {
            winner: verdict.winner,
            body,
            undecided: verdict.undecided,
        }
    }

    /// The state before the newest second, where it can tell how a circle of changes ends.
    fn older(&self) -> Option<Digest> {
        let mut rungs = self.rungs();
        // With anything but changes in the newest second the older one may have been pruned.
        rungs.next().filter(|newest| is_only_changes(newest))?;
        let older: Vec<_> = rungs.next()?.iter().collect();
        let verdict = settle(&self.key.object_type, &older, None);
        (!verdict.undecided).then(|| older[verdict.winner].summary(&self.key.object_type).state)
    }
}

fn is_only_changes(rung: &[Sighting]) -> bool {
    rung.iter().all(|sighting| sighting.change.is_some())
}
