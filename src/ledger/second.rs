//! What was last among the sightings of one second.

use std::collections::BTreeSet;

use crate::canonical::Digest;
use crate::chain::{self, Change};
use crate::sighting::{Sighting, Summary, Teller};
use crate::standing::is_reversible;

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
/// 4. Else the digest of the state, so that every database says the same until it has asked.
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
    let alive = without_outranked(all, object_type);
    let (last, ambiguous) = without_passed(alive, older);
    let Some(winner) = last.iter().max_by_key(|candidate| rank(candidate)) else {
        // Only if each of them outranked another: evidence that somebody edited.
        return Verdict {
            winner: 0,
            undecided: true,
        };
    };
    let undecided = ambiguous
        || last
            .iter()
            .any(|other| !is_certain(object_type, winner, other));
    Verdict {
        winner: winner.place,
        undecided,
    }
}

fn without_outranked<'a>(mut all: Vec<Candidate<'a>>, object_type: &str) -> Vec<Candidate<'a>> {
    let outranked: BTreeSet<Digest> = all
        .iter()
        .flat_map(|candidate| candidate.sighting.outranks.iter().copied())
        .collect();
    if !outranked.is_empty() {
        all.retain(|candidate| !outranked.contains(&candidate.sighting.digest(object_type)));
    }
    all
}

fn without_passed(mut alive: Vec<Candidate>, older: Option<Digest>) -> (Vec<Candidate>, bool) {
    let changes: BTreeSet<Change> = alive
        .iter()
        .filter_map(|candidate| {
            let told = candidate.sighting.change.as_ref()?;
            let after = candidate.summary.state;
            // An event that changed nothing we can see says no more than its body.
            (told.before != after).then(|| Change {
                before: told.before,
                after,
                event: &told.event,
            })
        })
        .collect();
    let left: BTreeSet<Digest> = changes.iter().map(|change| change.before).collect();
    let reached: BTreeSet<Digest> = changes.iter().map(|change| change.after).collect();
    let end = chain::end(&changes, older);
    let loose: BTreeSet<Digest> = match end {
        Some(end) => BTreeSet::from([end.state]),
        None if reached.is_subset(&left) => reached.clone(),
        None => reached.difference(&left).copied().collect(),
    };
    alive.retain(|candidate| {
        let state = candidate.summary.state;
        loose.contains(&state) || !(left.contains(&state) || reached.contains(&state))
    });
    (alive, end.is_some_and(|end| end.ambiguous))
}

fn rank(candidate: &Candidate) -> impl Ord + use<> {
    let Summary { state, standing } = candidate.summary;
    (standing, candidate.sighting.teller, state, candidate.place)
}

fn is_certain(object_type: &str, winner: &Candidate, other: &Candidate) -> bool {
    let (w, o) = (winner.summary, other.summary);
    if w.state == o.state {
        return true;
    }
    // An answer against an event that it did not know is a guess: either may be the later one. A
    // page against an event is none: what else the page saw will be told by an event too.
    let more_recent =
        winner.sighting.teller > Teller::Read && other.sighting.teller == Teller::Read;
    match w.standing == o.standing {
        true => more_recent,
        false => more_recent || !is_reversible(object_type),
    }
}
