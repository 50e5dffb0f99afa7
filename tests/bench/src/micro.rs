//! The parts of a webhook that know no Postgres, each on its own.

use crate::Trouble;
use crate::webhook::{Event, sign};
use ledger::memory::Memory;
use ledger::{Fields, Key, Mirrored, Observation, Source, Stored};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fs;
use std::hint::black_box;
use std::time::{Duration, Instant};

/// What is to be measured.
#[derive(Deserialize)]
struct Order {
    /// The file with the events, as a JSON array.
    events: String,
    signing_secret: String,
    /// `signature`, `parse`, `order` or `project`.
    part: String,
    /// How long to repeat the part; once if it is nothing.
    seconds: f64,
}

#[derive(Serialize)]
struct Report {
    /// How many events or objects one run is about.
    count: usize,
    /// The fastest run's.
    seconds: f64,
}

/// Runs one part.
///
/// # Errors
/// If an event cannot be read.
pub fn measure(order: &str) -> Result<String, Trouble> {
    let order: Order = serde_json::from_str(order)?;
    let events: Vec<Event> = serde_json::from_str(&fs::read_to_string(&order.events)?)?;
    let bodies: Vec<&str> = events.iter().map(|event| event.body.as_str()).collect();
    let secret = order.signing_secret.as_str();
    let report = match order.part.as_str() {
        "signature" => {
            let signed = bodies
                .into_iter()
                .map(|body| Ok((body, sign(body, secret)?)));
            let signed: Vec<_> = signed.collect::<Result<_, Trouble>>()?;
            order.repeat(signed.len(), || signature(&signed, secret))?
        }
        "parse" => order.repeat(bodies.len(), || parse(&bodies))?,
        "order" => {
            let observations = parse(&bodies)?;
            order.repeat(observations.len(), || join(&observations))?
        }
        "project" => {
            let mut memory = Memory::new("test", |_| true);
            ledger::mirror(&mut memory, parse(&bodies)?)?;
            let keys = memory.keys();
            order.repeat(keys.len(), || project(memory.clone(), &keys))?
        }
        part => return Err(format!("there is no part {part:?}").into()),
    };
    Ok(serde_json::to_string(&report)?)
}

impl Order {
    fn repeat<T>(
        &self,
        count: usize,
        work: impl Fn() -> Result<T, Trouble>,
    ) -> Result<Report, Trouble> {
        let began = Instant::now();
        let mut best = Duration::MAX;
        loop {
            let started = Instant::now();
            black_box(work()?);
            best = best.min(started.elapsed());
            if began.elapsed().as_secs_f64() >= self.seconds {
                let seconds = best.as_secs_f64();
                return Ok(Report { count, seconds });
            }
        }
    }
}

// Instructions are counted by function, so these must stay functions.

#[inline(never)]
fn signature(signed: &[(&str, String)], secret: &str) -> Result<usize, Trouble> {
    let mut verified = 0;
    for (body, header) in signed {
        stripe::signature::verify(body.as_bytes(), header, &[secret], None, 0)?;
        verified += 1;
    }
    Ok(verified)
}

#[inline(never)]
fn parse(bodies: &[&str]) -> Result<Vec<Observation>, Trouble> {
    let mut observations = Vec::with_capacity(bodies.len());
    for body in bodies {
        let clean = stripe::event::sanitize(body);
        let event = stripe::Event::parse(&clean)?;
        let object = Fields::parse(event.object.get())?;
        let previous = event
            .previous_attributes
            .map(|json| serde_json::from_str(json.get()));
        let source = Source::Event {
            id: event.id,
            event_type: event.kind,
            previous_attributes: previous.transpose()?,
        };
        observations.extend(Observation::new(object, event.created, source));
    }
    Ok(observations)
}

/// As the mirror does: what is kept is read, joined and kept again.
#[inline(never)]
fn join(observations: &[Observation]) -> Result<BTreeMap<Key, Stored>, Trouble> {
    let mut kept: BTreeMap<Key, Stored> = BTreeMap::new();
    for observation in observations {
        let mut object = Mirrored::of(observation.clone());
        let key = object.key().clone();
        if let Some(stored) = kept.get(&key) {
            object = Mirrored::from_stored(key.clone(), stored.clone())?.join(object);
        }
        kept.insert(key, object.to_stored());
    }
    Ok(kept)
}

#[inline(never)]
fn project(mut memory: Memory, keys: &[Key]) -> Result<Memory, Trouble> {
    for key in keys {
        ledger::rebuild(&mut memory, std::slice::from_ref(key), Vec::new())?;
        memory.commit();
    }
    Ok(memory)
}
