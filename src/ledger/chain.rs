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

/// Where the changes of one second end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct End {
    pub state: Digest,
    /// Another reading of the same events ends elsewhere.
    pub ambiguous: bool,
}

/// The end of the one path that uses every change (Eulerian). `None` if there is none, because
/// changes are missing or because they run in a circle and nobody knows where it began.
///
/// Comparing events pairwise is not enough: of three updates in one second each could win,
/// depending on the order of arrival.
pub(crate) fn end(changes: &BTreeSet<Change<'_>>, older: Option<Digest>) -> Option<End> {
    let each: Vec<Step> = changes
        .iter()
        .map(|change| (change.before, change.after))
        .collect();
    let once: Vec<Step> = BTreeSet::from_iter(each.iter().copied())
        .into_iter()
        .collect();
    if each.len() == once.len() {
        return path_end(&once, older).map(|state| End {
            state,
            ambiguous: false,
        });
    }
    // Two events that tell the same are two tellings of one change (Stripe says that it does so),
    // unless the object came back and made it again: a → b → a → b.
    let mut made = once.clone();
    made.extend(repetitions(&each).filter(|(before, after)| leads(&once, *after, *before)));
    let ambiguous = made.len() > once.len();
    let state = path_end(&made, older).or_else(|| path_end(&once, older))?;
    Some(End { state, ambiguous })
}

type Step = (Digest, Digest);

fn repetitions(each: &[Step]) -> impl Iterator<Item = Step> {
    // In the order of their set, so the same steps are neighbours.
    each.windows(2)
        .filter(|pair| pair[0] == pair[1])
        .map(|pair| pair[0])
}

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

fn leads(steps: &[Step], from: Digest, to: Digest) -> bool {
    grow(from, steps, |reached, before, _| reached.contains(&before)).contains(&to)
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
