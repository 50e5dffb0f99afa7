//! Speaks Stripe, knows no Postgres.

pub mod client;
pub mod environment;
pub mod error;
pub mod event;
pub mod form;
pub mod ids;
pub mod key;
pub mod permission;
mod retry;
pub mod signature;

pub use client::{API_VERSION, Answer, Client, Config};
pub use environment::Environment;
pub use error::Error;
pub use event::Event;
pub use key::{SecretKey, SigningSecret};
