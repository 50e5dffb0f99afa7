//! Postgres's memory, which it gives back when a function ends.

use pgrx::PgMemoryContexts;

/// Gives back what `stretch` allocated in Postgres's memory when it ends: for one of many, which
/// together would need as much as there is in the tables.
///
/// What it returns must be Rust's own, as nothing of Postgres's remains.
pub fn scratch<R: 'static>(stretch: impl FnOnce() -> R) -> R {
    // SAFETY: a new context, which nobody else knows, and which ends after the stretch.
    unsafe { PgMemoryContexts::new("payments").switch_to(|_| stretch()) }
}
