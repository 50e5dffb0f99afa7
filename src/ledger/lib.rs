//! The join and the pure projections.

mod canonical;
mod chain;
mod mirror;
mod observation;
mod second;
mod sighting;
mod standing;
mod stored;

pub use mirror::{Mirrored, Object};
pub use observation::{Key, Mark, Observation, Source};
pub use stored::{Stored, Unreadable};
