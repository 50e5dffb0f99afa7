//! Locks on things that have a name but perhaps no row yet, held to the end of the transaction.

use super::error::{Failure, SqlState};
use super::settings;
use pgrx::pg_sys::panic::CaughtError;
use pgrx::pg_sys::{self, Datum};
use pgrx::{IntoDatum, PgSqlErrorCode, PgTryBuilder, direct_function_call};
use sha2::{Digest, Sha256};
use std::panic::AssertUnwindSafe;
use std::time::Duration;

/// Waits until nobody else holds a lock on `name`, shared or not, and takes it.
///
/// What is read afterwards must be read with a fresh snapshot, as [`super::spi::Statement::rows`]
/// does: the holder may have committed while we waited.
pub fn exclusive(name: &[impl AsRef<str>]) {
    // SAFETY: a built-in function of one bigint, called as such.
    unsafe { direct_function_call::<()>(pg_sys::pg_advisory_xact_lock_int8, &[key(name)]) };
}

/// Waits until nobody holds the lock alone, and shares it.
pub fn shared(name: &[impl AsRef<str>]) {
    // SAFETY: as above.
    unsafe { direct_function_call::<()>(pg_sys::pg_advisory_xact_lock_shared_int8, &[key(name)]) };
}

/// Takes the lock if that needs no waiting, and says whether it did.
pub fn try_exclusive(name: &[impl AsRef<str>]) -> bool {
    // SAFETY: as above; it returns a boolean.
    let taken = unsafe {
        direct_function_call::<bool>(pg_sys::pg_try_advisory_xact_lock_int8, &[key(name)])
    };
    taken.unwrap_or(false)
}

/// Shares the lock if that needs no waiting, and says whether it does.
pub fn try_shared(name: &[impl AsRef<str>]) -> bool {
    // SAFETY: as above.
    let taken = unsafe {
        direct_function_call::<bool>(pg_sys::pg_try_advisory_xact_lock_shared_int8, &[key(name)])
    };
    taken.unwrap_or(false)
}

/// Runs `stretch` with every single wait for a lock in it, of whatever kind, bounded by `longest`:
/// Postgres then raises 55P03. A shorter `lock_timeout` of the caller stays in force.
pub fn waiting_at_most<R>(longest: Duration, stretch: impl FnOnce() -> R) -> R {
    let longest = longest.as_millis().clamp(1, i32::MAX as u128) as i32;
    // SAFETY: reads a variable of this backend.
    let callers = unsafe { pg_sys::LockTimeout };
    match callers {
        1.. if callers <= longest => stretch(),
        _ => settings::with(c"lock_timeout", &longest.to_string(), stretch),
    }
}

/// Has a wait within `work` that took too long end as 503, with this hint: of 55P03 a gateway would
/// make a 500, and it is nobody's fault.
pub fn or_busy<T>(
    hint: &'static str,
    work: impl FnOnce() -> Result<T, Failure>,
) -> Result<T, Failure> {
    let busy = move |_: CaughtError| {
        let message = "another transaction is still at work on this";
        Err(Failure::new(SqlState::SERVICE_UNAVAILABLE, "busy", message).hint(hint))
    };
    PgTryBuilder::new(AssertUnwindSafe(work))
        .catch_when(PgSqlErrorCode::ERRCODE_LOCK_NOT_AVAILABLE, busy)
        .execute()
}

/// 64 bits of a hash, in which the borders of the parts count.
fn key(name: &[impl AsRef<str>]) -> Option<Datum> {
    let mut hash = Sha256::new_with_prefix("payments");
    for part in name.iter().map(AsRef::as_ref) {
        hash.update((part.len() as u64).to_be_bytes());
        hash.update(part);
    }
    let digest: [u8; 32] = hash.finalize().into();
    let mut key = [0; 8];
    key.copy_from_slice(&digest[..8]);
    i64::from_be_bytes(key).into_datum()
}
