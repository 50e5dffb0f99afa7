//! Deferred constraint triggers.

use pgrx::pg_sys::{self, Oid};
use std::ptr;

/// Fires, as the current user, every trigger that waits for the end of the transaction, and has
/// later ones fire with their statements: SET CONSTRAINTS ALL IMMEDIATE, without being parsed.
pub fn set_all_immediate() {
    let mut statement = pg_sys::ConstraintsSetStmt {
        type_: pg_sys::NodeTag::T_ConstraintsSetStmt,
        constraints: ptr::null_mut(),
        deferred: false,
    };
    // SAFETY: within a transaction and outside any query of ours; only read, and not kept.
    unsafe { pg_sys::AfterTriggerSetState(&mut statement) };
}

/// Does a trigger on this table wait for the end of the transaction?
pub fn wait_on(table: Oid) -> bool {
    // SAFETY: within a transaction; looks through the events that are queued.
    unsafe { pg_sys::AfterTriggerPendingOnRel(table) }
}
