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
//! 2. *Rung.* The newest second is kept whole. Of the newest event before it there is kept what
//!    tells where a circle of changes began, but only while the newest second can be that circle.
//! 3. *Fields.* Of everything older there are kept the top-level fields that nothing newer has.
//!    So the size is bounded by the number of fields, and almost always one body is all.
//! 4. *Crowd.* Of the sightings on a rung that have a field the [`LIMIT`] weightiest are kept, and
//!    as many events. The weight is a sighting's own, so what is cut off stays cut off whatever
//!    comes. A full rung may have lost some, so nothing that it says is certain: Stripe is asked,
//!    and the answer is on a rung of its own.

use std::borrow::Cow;
use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};

use crate::fields::Fields;
use crate::links::Links;
use crate::observation::{Key, Mark, Observation};
use crate::second::{LIMIT, settle};
use crate::sighting::Sighting;
use crate::state::Digest;

/// What is known of one object of Stripe's: everything observed of it, joined.
#[derive(Clone, Debug, PartialEq)]
pub struct Mirrored {
    pub(crate) key: Key,
    /// The incarnation: the greatest `created` seen.
    created: Option<i64>,
    /// The sightings of this incarnation, pruned.
    named: Vec<Sighting>,
    /// Those that may be of it, pruned by themselves: if an incarnation between comes to light,
    /// they stay and all the others go, so nothing named may stand in for them.
    nameless: Vec<Sighting>,
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
    pub body: Fields,
    /// How new the body is, in Unix seconds on Stripe's clock.
    pub as_of: i64,
    /// Stripe's `created` of this incarnation, in Unix seconds.
    pub created: Option<i64>,
    /// The objects that it names.
    pub links: Links,
    /// Whether the object is gone. Only a later incarnation brings it back.
    pub deleted: bool,
    /// Whether Stripe must be asked: several states of one second, and nothing to order them but
    /// a rule that is the same everywhere.
    pub undecided: bool,
}

/// What an [`Object`] is made of.
pub(crate) struct Resolved<'a> {
    /// All that counts, the newest rung first.
    pub sightings: Cow<'a, [Sighting]>,
    /// The place of the newest sighting among them.
    pub winner: usize,
    pub body: Fields,
    pub undecided: bool,
}

impl Resolved<'_> {
    pub(crate) fn winner(&self) -> &Sighting {
        &self.sightings[self.winner]
    }
}

impl Mirrored {
    /// One observation, alone.
    pub fn of(o: Observation) -> Mirrored {
        let key = o.key.clone();
        let (created, sighting) = Sighting::of(o);
        Mirrored::from_sightings(key, created, vec![sighting])
    }

    /// Of sightings that belong together; at least one.
    pub(crate) fn from_sightings(
        key: Key,
        created: Option<i64>,
        sightings: Vec<Sighting>,
    ) -> Mirrored {
        let (nameless, named) = sightings
            .into_iter()
            .partition(|sighting| sighting.nameless);
        let mut mirrored = Mirrored {
            key,
            created,
            named,
            nameless,
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
        self.named.append(&mut other.named);
        self.nameless.append(&mut other.nameless);
        self.prune();
        self
    }

    /// The object, merged.
    pub fn object(&self) -> Object {
        let resolved = self.resolve();
        Object {
            key: self.key.clone(),
            as_of: resolved.winner().second,
            created: self.created,
            links: Links::of(&self.key, &resolved.body),
            deleted: resolved.winner().gone,
            undecided: resolved.undecided,
            body: resolved.body,
        }
    }

    /// How much is mirrored now, to be taken before a request about this object is sent and given
    /// to the answer's [`crate::Source`].
    pub fn mark(&self) -> Mark {
        let object_type = self.key.object_type.as_str();
        let sightings = self.merged();
        let newest = rungs(&sightings, object_type).next().unwrap_or_default();
        Mark {
            created: self.created,
            second: sightings[0].second,
            known: newest
                .iter()
                .map(|sighting| sighting.digest(object_type))
                .collect(),
        }
    }

    /// Which object.
    pub fn key(&self) -> &Key {
        &self.key
    }

    pub(crate) fn created(&self) -> Option<i64> {
        self.created
    }

    pub(crate) fn sightings(&self) -> impl Iterator<Item = &Sighting> {
        self.named.iter().chain(&self.nameless)
    }

    fn forget_older_than(&mut self, created: Option<i64>) {
        if self.created < created {
            self.named.clear();
        }
        self.created = created;
        self.nameless
            .retain(|sighting| created.is_none_or(|created| created < sighting.second));
    }

    fn prune(&mut self) {
        let object_type = self.key.object_type.as_str();
        self.named = pruned(std::mem::take(&mut self.named), object_type);
        let mut nameless = std::mem::take(&mut self.nameless);
        nameless.sort_by_key(|sighting| Reverse(sighting.rung(object_type)));
        // What outlives the nameless sightings of some seconds must not be pruned in favour of
        // them: within a part of its life a higher rung is a later second.
        self.nameless = nameless
            .chunk_by_mut(|a, b| a.rung(object_type).part() == b.rung(object_type).part())
            .flat_map(|part| pruned(part.iter_mut().map(std::mem::take).collect(), object_type))
            .collect();
    }

    /// All sightings as if they named their incarnation.
    fn merged(&self) -> Cow<'_, [Sighting]> {
        if self.nameless.is_empty() {
            return Cow::Borrowed(&self.named);
        }
        Cow::Owned(pruned(
            self.sightings().cloned().collect(),
            &self.key.object_type,
        ))
    }

    pub(crate) fn resolve(&self) -> Resolved<'_> {
        let object_type = self.key.object_type.as_str();
        let sightings = self.merged();
        let newest: Vec<_> = rungs(&sightings, object_type)
            .next()
            .unwrap_or_default()
            .iter()
            .collect();
        let verdict = settle(object_type, &newest, older_state(&sightings, object_type));
        let mut body = sightings[verdict.winner].fields.clone();
        for rung in rungs(&sightings, object_type).filter(|_| sightings.len() > 1) {
            let missing: Vec<_> = rung
                .iter()
                .map(|sighting| sighting.fields.without(&body))
                .collect();
            let missing: BTreeSet<&str> = missing.iter().flat_map(Fields::names).collect();
            let filled = missing.into_iter().filter_map(|name| {
                let having: Vec<_> = rung
                    .iter()
                    .filter(|sighting| sighting.fields.contains(name))
                    .collect();
                let newest = having[settle(object_type, &having, None).winner];
                Some((name, newest.fields.raw(name)?))
            });
            body = body.and(filled);
        }
        Resolved {
            sightings,
            winner: verdict.winner,
            body,
            undecided: verdict.undecided,
        }
    }
}

fn rungs<'a>(sightings: &'a [Sighting], object_type: &str) -> impl Iterator<Item = &'a [Sighting]> {
    sightings.chunk_by(move |a, b| a.rung(object_type) == b.rung(object_type))
}

/// The newest events before the newest second: they can tell where a circle of changes began. Not
/// answers and pages, which are stamped with a time before they were made and can show what only
/// the newest second came to. `None` also when an event of the newest second is no change, or may
/// be one that was cut off, as it could be anywhere in the circle: then the older ones never matter
/// again.
fn older_rung<'a>(sightings: &'a [Sighting], object_type: &str) -> Option<&'a [Sighting]> {
    let mut rungs = rungs(sightings, object_type);
    let newest = rungs.next()?;
    may_be_circle(newest)
        .then(|| rungs.find(|rung| rung.iter().any(Sighting::is_event)))
        .flatten()
}

fn may_be_circle(newest: &[Sighting]) -> bool {
    let events = || newest.iter().filter(|sighting| sighting.is_event());
    events().count() < LIMIT && events().all(|event| event.change.is_some())
}

fn older_state(sightings: &[Sighting], object_type: &str) -> Option<Digest> {
    let older: Vec<_> = older_rung(sightings, object_type)?
        .iter()
        .filter(|sighting| sighting.is_event())
        .collect();
    let verdict = settle(object_type, &older, None);
    (!verdict.undecided).then(|| older[verdict.winner].summary(object_type).state)
}

/// Without what no sighting that may still come can make matter; the newest rung first, within a
/// rung the weightiest.
fn pruned(mut sightings: Vec<Sighting>, object_type: &str) -> Vec<Sighting> {
    if sightings.len() < 2 {
        return sightings;
    }
    sightings.sort_by_key(|sighting| Reverse(sighting.rung(object_type)));
    let newest = rungs(&sightings, object_type).next().unwrap_or_default();
    let mut older = sightings.split_off(newest.len());
    let mut kept = sightings;
    if kept.len() > 1 {
        kept = weightiest(kept, object_type, true);
    }
    if let [alone] = &mut kept[..] {
        alone.summary = None;
    }
    // Not before each is there once: the same event twice is no crowd.
    let mut tells_older = may_be_circle(&kept);
    let mut newer = all_names(&kept[0].fields, &kept);
    for rung in older.chunk_by_mut(|a, b| a.rung(object_type) == b.rung(object_type)) {
        let events = tells_older && rung.iter().any(Sighting::is_event);
        tells_older &= !events;
        let mut rung: Vec<_> = rung.iter_mut().map(std::mem::take).collect();
        rung.retain(|sighting| {
            let tells = events && sighting.is_event();
            tells || !sighting.fields.without(&newer).is_empty()
        });
        for sighting in &mut rung {
            sighting.reduce(object_type, &newer);
        }
        if rung.len() > 1 {
            rung = weightiest(rung, object_type, events);
        }
        newer = all_names(&newer, &rung);
        kept.append(&mut rung);
    }
    kept
}

/// These fields, and whichever others the sightings have, by their names.
fn all_names(fields: &Fields, sightings: &[Sighting]) -> Fields {
    let all = fields.clone();
    let more = |all: Fields, sighting: &Sighting| all.and(sighting.fields.without(&all).raws());
    sightings.iter().fold(all, more)
}

fn names(sightings: &[Sighting]) -> impl Iterator<Item = &str> {
    sightings
        .iter()
        .flat_map(|sighting| sighting.fields.names())
}

/// Each sighting of a rung once, the weightiest first, without those that are neither among the
/// [`LIMIT`] weightiest with any of their fields nor, where `events` tell what was older, among as
/// many events.
fn weightiest(mut rung: Vec<Sighting>, object_type: &str, events: bool) -> Vec<Sighting> {
    for sighting in &mut rung {
        sighting.summary = Some(sighting.summary(object_type));
    }
    let weigh = |one: &Sighting, other: &Sighting| {
        let (one, other) = (one.weight(object_type), other.weight(object_type));
        other.cmp(&one)
    };
    // Those of one weight differ in nulls alone, and none of them is cut off for another.
    rung.sort_by(|one, other| {
        weigh(one, other).then_with(|| one.identity().cmp(&other.identity()))
    });
    rung.dedup();
    if rung.len() <= LIMIT {
        return rung;
    }
    let mut having: BTreeMap<String, usize> = BTreeMap::new();
    let mut counted = 0;
    let mut kept = Vec::with_capacity(rung.len());
    for alike in rung.chunk_by_mut(|one, other| weigh(one, other).is_eq()) {
        let is_event = events && alike.iter().any(Sighting::is_event);
        let names: BTreeSet<String> = names(alike).map(str::to_owned).collect();
        let is_wanted = |sighting: &Sighting| {
            let mut names = sighting.fields.names();
            (is_event && counted < LIMIT)
                || names.any(|name| having.get(name).is_none_or(|count| *count < LIMIT))
        };
        let wanted = alike.iter_mut().filter(|sighting| is_wanted(sighting));
        kept.extend(wanted.map(std::mem::take));
        counted += usize::from(is_event);
        for name in names {
            *having.entry(name).or_default() += 1;
        }
    }
    kept
}
