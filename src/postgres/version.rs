//! Two versions: that of the library, and that of the objects in the database, which ALTER
//! EXTENSION brings up to date some time after a package brought the library.
//!
//! Until then functions go on as long as the older objects are enough for them. What fails because
//! they are not is told by what to do, rather than by the column that is not there.

use super::error::{Failure, SqlState};
use super::spi::Statement;
use std::sync::{Mutex, PoisonError};

const LIBRARY: &str = env!("CARGO_PKG_VERSION");

/// What is known of the objects' version.
enum Objects {
    Unknown,
    /// It is the library's, which cannot change while the backend has the library.
    Same,
    Other(String),
}

static OBJECTS: Mutex<Objects> = Mutex::new(Objects::Unknown);

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

fn known() -> std::sync::MutexGuard<'static, Objects> {
    OBJECTS.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Is an error one of those that objects of another version cause: a name or a type that is not
/// there?
pub(super) fn may_explain(sqlstate: SqlState) -> bool {
    sqlstate.as_str().starts_with("42")
        && sqlstate != SqlState::INSUFFICIENT_PRIVILEGE
        && matches!(*known(), Objects::Other(_))
}

/// What to say instead of such an error.
pub(super) fn explanation(sqlstate: SqlState, message: &str) -> Option<Failure> {
    if !may_explain(sqlstate) {
        return None;
    }
    let Objects::Other(objects) = &*known() else {
        return None;
    };
    let explained = Failure::new(
        SqlState::PREREQUISITE_STATE,
        "update_pending",
        format!("payments {LIBRARY} needs more than payments {objects} made in this database"),
    )
    .with("library", LIBRARY)
    .with("database", objects.as_str())
    .with("sqlstate", sqlstate.as_str())
    .with("error", message);
    Some(explained.hint("A superuser runs: alter extension payments update"))
}
