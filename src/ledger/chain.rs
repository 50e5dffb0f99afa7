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

/// The end of the one path that uses every change. `None` if there is none, because changes are
/// missing or because they run in a circle and nobody knows where it began.
///
/// Comparing events pairwise is not enough: of three updates in one second each could win,
/// depending on the order of arrival.
pub(crate) fn end(changes: &BTreeSet<Change<'_>>, older: Option<Digest>) -> Option<End> {
    // Stripe can tell one change in two events, and an object can make one change twice
    // (a → b → a → b). The second reading is tried first, as it explains more events.
    let apart = path_end(
        changes.iter().map(|change| (change.before, change.after)),
        older,
    );
    let once: BTreeSet<_> = changes
        .iter()
        .map(|change| (change.before, change.after))
        .collect();
    let together = path_end(once.iter().copied(), older);
    let state = apart.or(together)?;
    Some(End {
        state,
        ambiguous: together.is_some_and(|together| together != state),
    })
}

/// The end of an Eulerian path, the end of a circuit being the state it started from.
fn path_end(
    changes: impl Iterator<Item = (Digest, Digest)> + Clone,
    older: Option<Digest>,
) -> Option<Digest> {
    let mut balance: BTreeMap<Digest, i64> = BTreeMap::new();
    for (before, after) in changes.clone() {
        *balance.entry(before).or_default() += 1;
        *balance.entry(after).or_default() -= 1;
    }
    if !is_connected(changes, balance.keys().next()?) {
        return None;
    }
    let mut uneven = balance.iter().filter(|(_, balance)| **balance != 0);
    match (uneven.next(), uneven.next(), uneven.next()) {
        (None, ..) => older.filter(|older| balance.contains_key(older)),
        (Some((_, 1)), Some((end, -1)), None) | (Some((end, -1)), Some((_, 1)), None) => Some(*end),
        _ => None,
    }
}

fn is_connected(
    mut changes: impl Iterator<Item = (Digest, Digest)> + Clone,
    from: &Digest,
) -> bool {
    let mut reached = BTreeSet::from([*from]);
    let mut grown = true;
    while grown {
        grown = false;
        for (before, after) in changes.clone() {
            if reached.contains(&before) != reached.contains(&after) {
                reached.extend([before, after]);
                grown = true;
            }
        }
    }
    changes.all(|(before, _)| reached.contains(&before))
}
