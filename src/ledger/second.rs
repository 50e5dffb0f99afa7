//! What was last among the sightings of one second.

use std::collections::BTreeSet;

use crate::chain::{self, Change};
use crate::sighting::{Sighting, Summary, Teller};
use crate::standing::is_reversible;
use crate::state::Digest;

/// How many sightings of one rung are told apart. Stripe takes a tenth of a second and more to
/// change an object, and of what it tells in a second more than a few are unheard of.
pub(crate) const LIMIT: usize = 16;

/// The sighting that shows the newest state.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Verdict {
    /// Its place among the sightings given.
    pub winner: usize,
    /// No rule that can be trusted chose it: Stripe must be asked.
    pub undecided: bool,
}

struct Candidate<'a> {
    place: usize,
    sighting: &'a Sighting,
    summary: Summary,
}

/// Decides among the sightings of one rung, given in a fixed order. `older` is the state before
/// them, where known.
///
/// 1. What an answer outranks is out.
/// 2. Events that name what they changed are chained, and the end of the chain stands for it; so
///    do the loose ends, where changes are missing. States that the chain passes are out.
/// 3. The state further along the object's life wins, then our own answer, then an event.
/// 4. Else one that says what it changed, as such an event is seldom the first of its second; and
///    at last the digest of the state, so that every database says the same until it has asked.
/// 5. Where there are as many as are kept, one that was not kept may be the last.
pub(crate) fn settle(object_type: &str, sightings: &[&Sighting], older: Option<Digest>) -> Verdict {
    if sightings.len() < 2 {
        return Verdict {
            winner: 0,
            undecided: false,
        };
    }
    let all: Vec<Candidate> = sightings
        .iter()
        .enumerate()
        .map(|(place, sighting)| Candidate {
            place,
            sighting,
            summary: sighting.summary(object_type),
        })
        .collect();
    let (last, ambiguous) = last(&all, object_type, older);
    let Some(winner) = last.iter().max_by_key(|candidate| rank(candidate)) else {
        // Only if each of them outranked another: evidence that somebody edited.
        return Verdict {
            winner: 0,
            undecided: true,
        };
    };
    let is_full = all.len() >= LIMIT && !winner.sighting.gone;
    let undecided = ambiguous
        || is_full
        || last
            .iter()
            .any(|other| !is_certain(object_type, winner, other));
    Verdict {
        winner: winner.place,
        undecided,
    }
}

/// The candidates that nothing is known to come after, and whether the events have another
/// reading.
fn last<'a>(
    all: &'a [Candidate<'a>],
    object_type: &str,
    older: Option<Digest>,
) -> (Vec<&'a Candidate<'a>>, bool) {
    let outranked: BTreeSet<Digest> = all
        .iter()
        .flat_map(|candidate| candidate.sighting.outranks.iter().copied())
        .collect();
    let is_alive = |candidate: &&Candidate| {
        outranked.is_empty() || !outranked.contains(&candidate.sighting.digest(object_type))
    };
    let all: Vec<_> = all.iter().collect();
    let whole = changes(&all);
    let ambiguous = chain::is_ambiguous(&whole);
    if let Some(end) = chain::end(&whole, older) {
        let mut last = all.clone();
        last.retain(|candidate| !is_passed(candidate, &whole, &BTreeSet::from([end])));
        last.retain(is_alive);
        // Nothing is left where an answer says what the object had been before already, and the
        // event of that change is still to come.
        if !last.is_empty() {
            return (last, ambiguous);
        }
    }
    let mut last = all;
    last.retain(is_alive);
    let changes = changes(&last);
    let ends = match chain::end(&changes, older) {
        Some(end) => BTreeSet::from([end]),
        None => chain::loose_ends(&changes),
    };
    // What is left of the changes can be older than the answer that made them the rest.
    last.retain(|candidate| {
        !candidate.sighting.outranks.is_empty() || !is_passed(candidate, &changes, &ends)
    });
    (last, ambiguous)
}

fn changes<'a>(candidates: &[&'a Candidate<'a>]) -> BTreeSet<Change<'a>> {
    let change = |candidate: &&'a Candidate<'a>| {
        let told = candidate.sighting.change.as_ref()?;
        let after = candidate.summary.state;
        // An event that changed nothing we can see says no more than its body.
        (told.before != after).then(|| Change {
            before: told.before,
            after,
            event: &told.event,
        })
    };
    candidates.iter().filter_map(change).collect()
}

fn is_passed(candidate: &Candidate, changes: &BTreeSet<Change>, ends: &BTreeSet<Digest>) -> bool {
    let state = candidate.summary.state;
    !ends.contains(&state)
        && changes
            .iter()
            .any(|change| change.before == state || change.after == state)
}

fn rank(candidate: &Candidate) -> impl Ord + use<> {
    let Summary { state, standing } = candidate.summary;
    let Sighting { teller, change, .. } = candidate.sighting;
    (standing, *teller, change.is_some(), state, candidate.place)
}

fn is_certain(object_type: &str, winner: &Candidate, other: &Candidate) -> bool {
    let (w, o) = (winner.summary, other.summary);
    // Of something gone, any body will do.
    if w.state == o.state || winner.sighting.gone {
        return true;
    }
    // An answer against an event that it did not know is a guess: either may be the later one. A
    // page against an event is none: what else the page saw will be told by an event too.
    let is_page = other.sighting.teller == Teller::Read && other.sighting.outranks.is_empty();
    let is_newer = is_page && winner.sighting.teller > Teller::Read;
    is_newer || (w.standing != o.standing && !is_reversible(object_type))
}
