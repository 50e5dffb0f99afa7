//! Speaks Stripe, knows no Postgres.

pub mod environment;
pub mod event;
pub mod form;
pub mod ids;
pub mod key;
pub mod signature;

pub use environment::Environment;
pub use event::Event;
pub use key::{SecretKey, SigningSecret};
