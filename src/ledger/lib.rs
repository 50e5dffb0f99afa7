//! The join and the pure projections.

#![forbid(unsafe_code)]

mod body;
mod canonical;
mod chain;
mod door;
mod embedded;
mod events;
mod fields;
mod ids;
mod links;
mod locking;
#[cfg(feature = "testing")]
pub mod memory;
mod mirror;
mod observation;
mod projections;
pub mod rows;
mod second;
mod sighting;
mod spelling;
mod standing;
mod state;
mod store;
mod stored;
mod table;

pub use door::{
    Changes, Outcome, Rebuilt, STAGES, Stage, mirror, observe, projects, rebuild, reproject,
};
pub use events::EVENTS;
pub use fields::Fields;
pub use links::{Link, Links, SESSION_ROW};
pub use mirror::{Mirrored, Object};
pub use observation::{Key, Mark, Observation, Source};
pub use store::{Due, Find, Known, Lock, Merged, Scope, Store};
pub use stored::{Stored, Unreadable};
pub use table::{Cell, Column, Row, Table, Time, Type};
