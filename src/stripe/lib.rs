//! Speaks Stripe, knows no Postgres.
//!
//! In: [`signature`] and [`event`] take what Stripe sends. Out: [`checkout`], [`portal`],
//! [`catalog`] and [`subscription`] check what is asked for and word it for Stripe, [`client`]
//! asks. [`simulation`] makes up what Stripe would tell. Everything is a pure function but the
//! client, whose transport is handed to it.

#![forbid(unsafe_code)]
// An object of Stripe's has more fields than json! takes without it.
#![recursion_limit = "256"]

pub mod catalog;
pub mod checkout;
pub mod client;
pub mod endpoint;
pub mod environment;
pub mod error;
pub mod event;
pub mod form;
pub mod ids;
mod input;
pub mod key;
pub mod origin;
mod parameters;
pub mod permission;
pub mod portal;
pub mod resources;
mod retry;
pub mod settings;
pub mod signature;
pub mod simulation;
mod subject;
pub mod subscription;
pub mod walk;

pub use client::{API_VERSION, Answer, Client, Config};
pub use environment::Environment;
pub use error::Error;
pub use event::Event;
pub use input::Invalid;
pub use key::{SecretKey, SigningSecret};
pub use subject::Subject;
pub use walk::{Page, Walk};
