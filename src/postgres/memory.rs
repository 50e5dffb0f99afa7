//! Memory that is given back: Postgres's, when a function ends, and the C library's, now and then.

use pgrx::PgMemoryContexts;
use std::cell::Cell;

/// How many calls share the cost of a [`trim`].
const TRIMMED_EVERY: u32 = 500;

/// Has the C library give back, every few hundred calls, the pages that nothing is on any more.
///
/// glibc keeps them, and never as many as it needed, so that a backend in a pool grew by a tenth over
/// tens of thousands of calls.
pub fn trim() {
    thread_local! {
        static CALLS: Cell<u32> = const { Cell::new(0) };
    }
    let calls = CALLS.get().wrapping_add(1);
    CALLS.set(calls);
    if calls.is_multiple_of(TRIMMED_EVERY) {
        #[cfg(all(target_os = "linux", target_env = "gnu"))]
        // SAFETY: touches nothing that is in use.
        unsafe {
            libc::malloc_trim(0);
        }
    }
}

/// Gives back what `stretch` allocated in Postgres's memory when it ends: for one of many, which
/// together would need as much as there is in the tables.
///
/// What it returns must be Rust's own, as nothing of Postgres's remains.
pub fn scratch<R: 'static>(stretch: impl FnOnce() -> R) -> R {
    // SAFETY: a new context, which nobody else knows, and which ends after the stretch.
    unsafe { PgMemoryContexts::new("payments").switch_to(|_| stretch()) }
}
