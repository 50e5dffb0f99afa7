//! Two versions: that of the library, and that of the objects in the database, which ALTER
//! EXTENSION brings up to date some time after a package brought the library.
//!
//! Until then functions go on as long as the older objects are enough for them. What fails because
//! they are not is told by what to do, rather than by the column that is not there. So it is in a
//! connection that was open before, and has the old library with the new objects.

use super::error::{Failure, SqlState};
use super::spi::Statement;
use pgrx::pg_sys;
use pgrx::pg_sys::SysCacheIdentifier::{PROCOID, RELOID};
use std::ffi::c_int;
use std::sync::{Mutex, MutexGuard, PoisonError};

const LIBRARY: &str = env!("CARGO_PKG_VERSION");

/// What is known of the objects' version.
enum Objects {
    /// Not looked at since a relation or a function changed, as every update changes some.
    Unknown,
    /// It is the library's.
    Same,
    Other(String),
}

static OBJECTS: Mutex<Objects> = Mutex::new(Objects::Unknown);

/// Has Postgres tell of changes. To be called when the library is loaded.
pub fn init() {
    for cache in [PROCOID, RELOID] {
        // SAFETY: the callback calls nothing of Postgres's, and is there as long as the library.
        unsafe {
            pg_sys::CacheRegisterSyscacheCallback(
                cache as c_int,
                Some(forget),
                pg_sys::Datum::null(),
            )
        };
    }
}

/// Another version is looked at again in any case, and explains what fails in the meantime.
unsafe extern "C-unwind" fn forget(_: pg_sys::Datum, _: c_int, _: u32) {
    let mut known = known();
    if matches!(*known, Objects::Same) {
        *known = Objects::Unknown;
    }
}

/// Finds out which version the objects have. Later it is too late: a statement cannot follow an
/// error.
pub(super) fn look() -> Result<(), Failure> {
    static VERSION: Statement = Statement::new(
        "select extversion
           from pg_catalog.pg_extension
          where extname operator(pg_catalog.=) 'payments'",
    );
    if matches!(*known(), Objects::Same) {
        return Ok(());
    }
    let found: Option<String> = VERSION.read(&[], |row| row.required(1))?.into_iter().next();
    *known() = match found {
        Some(version) if version != LIBRARY => Objects::Other(version),
        _ => Objects::Same,
    };
    Ok(())
}

fn known() -> MutexGuard<'static, Objects> {
    OBJECTS.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Is an error one of those that objects of another version cause: a name or a type that is not
/// there, or columns that are not those that were written for?
pub(super) fn may_explain(sqlstate: SqlState) -> bool {
    let caused = sqlstate == SqlState::INTERNAL_ERROR
        || sqlstate.as_str().starts_with("42") && sqlstate != SqlState::INSUFFICIENT_PRIVILEGE;
    caused && matches!(*known(), Objects::Other(_))
}

/// What to say instead of such an error.
pub(super) fn explanation(sqlstate: SqlState, message: &str) -> Option<Failure> {
    if !may_explain(sqlstate) {
        return None;
    }
    let Objects::Other(objects) = &*known() else {
        return None;
    };
    let failure = match older(LIBRARY, objects) {
        false => Failure::new(
            SqlState::PREREQUISITE_STATE,
            "update_pending",
            format!("payments {LIBRARY} needs more than payments {objects} made in this database"),
        )
        .hint("A superuser runs: alter extension payments update"),
        true => Failure::new(
            SqlState::PREREQUISITE_STATE,
            "library_outdated",
            format!("this connection has payments {LIBRARY}, and the database payments {objects}"),
        )
        .hint("Connect again."),
    };
    Some(
        failure
            .with("library", LIBRARY)
            .with("database", objects.as_str())
            .with("sqlstate", sqlstate.as_str())
            .with("error", message),
    )
}

/// Is a version, `1.10.0`, before another?
fn older(version: &str, other: &str) -> bool {
    let numbers = |version: &str| -> Vec<u32> {
        version
            .split('.')
            .map(|part| part.parse().unwrap_or_default())
            .collect()
    };
    numbers(version) < numbers(other)
}
