//! The order of the changes within one second.

use std::collections::{BTreeMap, BTreeSet};

use crate::state::Digest;

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
    let circles = circles(&once);
    let left: BTreeSet<Digest> = once
        .iter()
        .filter(|(before, after)| circles[before] != circles[after])
        .map(|(before, _)| circles[before])
        .collect();
    changes
        .iter()
        .map(|change| change.after)
        .filter(|state| !left.contains(&circles[state]))
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
    if !again.is_empty() {
        let circles = circles(&once);
        again.retain(|(before, after)| circles[before] == circles[after]);
    }
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

fn is_connected(steps: &[Step]) -> bool {
    let Some((first, _)) = steps.first() else {
        return false;
    };
    let both_ways = steps
        .iter()
        .flat_map(|(one, other)| [(*one, *other), (*other, *one)]);
    let mut reached = BTreeSet::new();
    walk(*first, &leading(both_ways), &mut reached, |_| ());
    steps.iter().all(|(before, _)| reached.contains(before))
}

/// For each state one that stands for all those which it leads to and which lead back to it: its
/// strongly connected component, by Kosaraju's algorithm. To ask of every state what it reaches
/// took a minute for the 349 updates of one second.
fn circles(steps: &[Step]) -> BTreeMap<Digest, Digest> {
    let ahead = leading(steps.iter().copied());
    let back = leading(steps.iter().map(|(before, after)| (*after, *before)));
    let (mut reached, mut left) = (BTreeSet::new(), Vec::new());
    for state in ahead.keys().chain(back.keys()) {
        walk(*state, &ahead, &mut reached, |state| left.push(state));
    }
    let (mut reached, mut circles) = (BTreeSet::new(), BTreeMap::new());
    for first in left.into_iter().rev() {
        walk(first, &back, &mut reached, |state| {
            circles.insert(state, first);
        });
    }
    circles
}

type Leading = BTreeMap<Digest, Vec<Digest>>;

fn leading(steps: impl Iterator<Item = Step>) -> Leading {
    let mut leading = Leading::new();
    for (before, after) in steps {
        leading.entry(before).or_default().push(after);
    }
    leading
}

/// Goes depth first to every state that was not reached yet, and leaves each after those it leads
/// to.
fn walk(
    first: Digest,
    leading: &Leading,
    reached: &mut BTreeSet<Digest>,
    mut leave: impl FnMut(Digest),
) {
    let mut path = vec![(first, false)];
    while let Some((state, is_done)) = path.pop() {
        if is_done {
            leave(state);
        } else if reached.insert(state) {
            path.push((state, true));
            let next = leading.get(&state).into_iter().flatten();
            path.extend(next.map(|next| (*next, false)));
        }
    }
}
