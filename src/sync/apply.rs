//! What Stripe said, into the ledger: silently or not, and past what fails.

use crate::connection::as_owner;
use crate::door;
use crate::postgres::error::Failure;
use crate::postgres::subtransaction::{self, CapturedError};
use crate::store::Tables;
use ledger::{Observation, mirror};
use serde_json::{Map, Value};
use stripe::Environment;

/// Who tells, and whether the app's triggers are to hear of it.
#[derive(Clone, Copy)]
pub struct Teller {
    pub environment: Environment,
    /// As triggers are told: `sync`, `poll`.
    pub source: &'static str,
    /// History is told silently: it was served long ago, by whatever was there before us.
    pub is_silent: bool,
}

impl Teller {
    /// Takes observations into the ledger, and says how many failed.
    ///
    /// One that a trigger of the app's refuses must not hold up all the others: it is mirrored, and
    /// its rows are tried again whenever the object is seen again.
    pub fn tell(self, observations: &[Observation]) -> Result<i64, Failure> {
        if observations.is_empty() || self.enter(observations)?.is_ok() {
            return Ok(0);
        }
        let mut failed = 0;
        for observation in observations {
            if let Err(error) = self.enter(std::slice::from_ref(observation))? {
                failed += 1;
                let observation = observation.clone();
                warn(&observation, &error);
                as_owner(|| mirror(&mut Tables::of(self.environment), vec![observation]))?;
            }
        }
        Ok(failed)
    }

    fn enter(self, observations: &[Observation]) -> Result<Result<(), CapturedError>, Failure> {
        let enter = match self.is_silent {
            true => door::enter_silently,
            false => door::enter,
        };
        subtransaction::attempt(|| enter(self.environment, self.source, observations).map(drop))
    }
}

fn warn(observation: &Observation, error: &CapturedError) {
    pgrx::warning!(
        "{} {} was mirrored, but its rows were not written: {}",
        observation.key.object_type,
        observation.key.id,
        error.message
    );
}

/// How long an answer may have taken: so much later than `as_of` its objects may have changed.
const ON_THE_WAY: i64 = 60;

/// Does an object tell of nothing since `until`? `as_of` is when it was asked for: what is still to
/// come then, such as when a session expires, is no news.
pub fn is_history(object: &Map<String, Value>, until: i64, as_of: i64) -> bool {
    object.iter().all(|(name, value)| {
        let is_moment = name == "created" || name.ends_with("_at");
        match value.as_i64().filter(|_| is_moment) {
            Some(moment) => !(until..=as_of + ON_THE_WAY).contains(&moment),
            None => holds_history(value, until, as_of),
        }
    })
}

fn holds_history(value: &Value, until: i64, as_of: i64) -> bool {
    match value {
        Value::Object(object) => is_history(object, until, as_of),
        Value::Array(values) => values
            .iter()
            .all(|value| holds_history(value, until, as_of)),
        _ => true,
    }
}
