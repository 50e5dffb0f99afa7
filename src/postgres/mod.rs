//! Speaks Postgres, knows no Stripe.
//!
//! What an extension must get right to call the outside world from a backend, and to act for
//! others without lending them its rights: waits that a cancel can end, errors that arrive whole,
//! user ids that are always restored, secrets that are sealed before they are written.

pub mod agent;
pub mod constraints;
pub mod error;
pub mod identity;
pub mod interrupt;
pub mod lock;
pub mod lookup;
pub mod memory;
pub mod redaction;
mod resolver;
pub mod row;
pub mod sealed;
pub mod settings;
pub mod spi;
pub mod subtransaction;
pub mod table;
mod tls;
mod transport;
pub mod version;
pub mod writer;
