//! The order of the changes within one second.

use std::collections::{BTreeMap, BTreeSet};

use crate::canonical::Digest;

/// One change that one event tells: the state before it and the state after.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Change<'a> {
    pub before: Digest,
    pub after: Digest,
    pub event: &'a str,
}

/// The state at the end of the one path that uses every change (Eulerian). `None` if there is
/// none, because changes are missing or because they run in a circle and nobody knows where it
/// began.
///
/// Comparing events pairwise is not enough: of three updates in one second each could win,
/// depending on the order of arrival.
pub(crate) fn end(changes: &BTreeSet<Change<'_>>, older: Option<Digest>) -> Option<Digest> {
    let (once, again) = steps(changes);
    path_end(&[once, again].concat(), older)
}

/// Where the pieces end of a chain that has gaps: the states that lead to none but those that lead
/// back. So a circle ends anywhere in it.
pub(crate) fn loose_ends(changes: &BTreeSet<Change<'_>>) -> BTreeSet<Digest> {
    let (once, _) = steps(changes);
    let is_loose = |state: &Digest| {
        let ahead = reachable(&once, *state);
        ahead
            .iter()
            .all(|next| reachable(&once, *next).contains(state))
    };
    changes
        .iter()
        .map(|change| change.after)
        .filter(is_loose)
        .collect()
}

/// Whether the changes can be read in several ways.
pub(crate) fn is_ambiguous(changes: &BTreeSet<Change<'_>>) -> bool {
    !steps(changes).1.is_empty()
}

/// The different steps, and those that may have been made again. Two events that tell the same
/// are two tellings of one change (Stripe says that it does so), unless the object can have come
/// back and made it again: a → b → a → b.
fn steps(changes: &BTreeSet<Change<'_>>) -> (Vec<Step>, Vec<Step>) {
    // In the order of the set, so the same steps are neighbours.
    let mut once: Vec<Step> = Vec::with_capacity(changes.len());
    let mut again = Vec::new();
    for change in changes {
        let step = (change.before, change.after);
        match once.last() == Some(&step) {
            true => again.push(step),
            false => once.push(step),
        }
    }
    again.retain(|(before, after)| reachable(&once, *after).contains(before));
    (once, again)
}

type Step = (Digest, Digest);

fn path_end(steps: &[Step], older: Option<Digest>) -> Option<Digest> {
    let mut balance: BTreeMap<Digest, i64> = BTreeMap::new();
    for (before, after) in steps {
        *balance.entry(*before).or_default() += 1;
        *balance.entry(*after).or_default() -= 1;
    }
    if !is_connected(steps) {
        return None;
    }
    let mut uneven = balance.iter().filter(|(_, balance)| **balance != 0);
    match (uneven.next(), uneven.next(), uneven.next()) {
        // A circle ends where it began, at the older state.
        (None, ..) => older.filter(|older| balance.contains_key(older)),
        (Some((_, 1)), Some((end, -1)), None) | (Some((end, -1)), Some((_, 1)), None) => Some(*end),
        _ => None,
    }
}

fn reachable(steps: &[Step], from: Digest) -> BTreeSet<Digest> {
    grow(from, steps, |reached, before, _| reached.contains(&before))
}

fn is_connected(steps: &[Step]) -> bool {
    let Some((first, _)) = steps.first() else {
        return false;
    };
    let reached = grow(*first, steps, |reached, before, after| {
        reached.contains(&before) || reached.contains(&after)
    });
    steps.iter().all(|(before, _)| reached.contains(before))
}

/// The states that are reached from one, where `joins` says which steps count.
fn grow(
    from: Digest,
    steps: &[Step],
    joins: impl Fn(&BTreeSet<Digest>, Digest, Digest) -> bool,
) -> BTreeSet<Digest> {
    let mut reached = BTreeSet::from([from]);
    let mut known = 0;
    while reached.len() > known {
        known = reached.len();
        for (before, after) in steps {
            if joins(&reached, *before, *after) {
                reached.extend([*before, *after]);
            }
        }
    }
    reached
}
