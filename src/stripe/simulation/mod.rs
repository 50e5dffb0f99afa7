//! Life-cycles as Stripe tells them, for developers who have no Stripe account yet.
//!
//! One event alone is of little use: a completed session names a payment intent, a refund names a
//! charge. So whoever asks for an event gets it with everything that Stripe would have told with
//! it, and what went before is made up where it is missing. All ids say that they are simulated,
//! `livemode` is false, and the objects have the shape of [`crate::API_VERSION`].

mod aftermath;
mod billing;
mod catalog;
mod lives;
mod objects;
mod overrides;
mod sales;
mod story;
#[cfg(test)]
mod tests;

use std::time::Duration;

use serde_json::{Map, Value};

use crate::Subject;
use crate::checkout::Mode;
use crate::input::Invalid;
use overrides::Overrides;
use story::Story;

/// What every simulated id ends with, as a POSIX regular expression: 14 hexadecimal digits of the
/// microsecond in which it was made, so that ids of one type sort by age, and 10 more.
pub const SIMULATED: &str = "_simulated_[0-9a-f]{24}$";

/// Whether an id was made up here.
pub fn is_simulated(id: &str) -> bool {
    let (_, tail) = id.rsplit_once("_simulated_").unwrap_or_default();
    tail.len() == 24 && tail.bytes().all(|c| matches!(c, b'0'..=b'9' | b'a'..=b'f'))
}

/// What a simulation needs of whoever keeps the objects.
pub trait Host {
    /// Why a call failed.
    type Error: From<Invalid>;

    /// The simulated objects of a type that are not deleted and whose fields (`metadata.order_id`
    /// is a path) have these texts, newest first. Not all of them if they are many.
    fn find(
        &mut self,
        object_type: &str,
        fields: &[(&str, &str)],
    ) -> Result<Vec<Value>, Self::Error>;

    /// The simulated customer that a subject is, if there is one.
    fn customer_of(&mut self, subject: &Subject) -> Result<Option<String>, Self::Error>;

    /// What a checkout of ours puts into its metadata besides the app's own: whose it is, and the
    /// proof of that.
    fn marks(
        &mut self,
        mode: Mode,
        subject: Option<&Subject>,
    ) -> Result<Map<String, Value>, Self::Error>;
}

/// One thing that Stripe would have told.
#[derive(Clone, Debug, PartialEq)]
pub enum Telling {
    /// The answer to a call of ours.
    Answer {
        /// The object.
        object: Map<String, Value>,
        /// When it was asked for, in seconds since the epoch.
        as_of: i64,
    },
    /// An event.
    Event {
        /// The body of its webhook.
        payload: String,
        /// Whether it is the one that was asked for.
        wanted: bool,
    },
}

/// The event that is asked for, after what leads to it and before what follows from it.
///
/// `now` is the time since the epoch. `overrides` is a JSON object: what to continue on, what is
/// sold to whom, and fields for the event's object.
///
/// # Errors
/// The host's, and [`Invalid`] for a type that is not known or overrides that do not fit.
pub fn simulate<H: Host>(
    kind: &str,
    overrides: &Value,
    now: Duration,
    host: &mut H,
) -> Result<Vec<Telling>, H::Error> {
    let lives = lives::all::<H>();
    let Some((kind, life)) = lives.iter().find(|(known, _)| *known == kind) else {
        let known: Vec<_> = lives.iter().map(|(known, _)| *known).collect();
        let message = format!("the event type {kind:?} cannot be simulated");
        let hint = format!("These can: {}.", known.join(", "));
        return Err(Invalid::new("type", message).hint(hint).into());
    };
    let overrides = Overrides::parse(kind, overrides)?;
    let mut story = Story::new(kind, overrides, now, host);
    life(&mut story)?;
    Ok(story.end()?)
}
