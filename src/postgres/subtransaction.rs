//! Trying something whose failure is to be recorded, not passed on.

use super::error::{Failure, SqlState, text_at};
use super::{interrupt, version};
use pgrx::pg_sys;
use pgrx::pg_sys::panic::CaughtError;
use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::time::Duration;

/// Long enough for the other transaction to wake and take what we let go. Without it we often take
/// it back first, and meet again.
const AFTER_DEADLOCK: Duration = Duration::from_millis(20);

/// An error, whole, as it would have reached the client.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CapturedError {
    /// SQLSTATE.
    pub sqlstate: SqlState,
    /// MESSAGE.
    pub message: String,
    /// DETAIL.
    pub detail: Option<String>,
    /// HINT.
    pub hint: Option<String>,
    /// CONTEXT: where in functions and triggers it was raised.
    pub context: Option<String>,
    /// The schema it is about.
    pub schema: Option<String>,
    /// The table it is about.
    pub table: Option<String>,
    /// The column it is about.
    pub column: Option<String>,
    /// The constraint that was violated.
    pub constraint: Option<String>,
}

/// Runs `work` in a subtransaction: kept when it succeeds, undone when it fails.
///
/// Gives back the error if recording it is all there is to do. What concerns the whole transaction
/// or server is not recorded but passes through unchanged: a cancel or shutdown (57*), a
/// serialization failure (40*), lack of resources (53*), a lock that was not to be had (55P03), an
/// internal error (XX*), what an update that is still to be made explains. A catch-all would swallow a `statement_timeout`, and what follows would
/// run without one.
///
/// After a deadlock `work` is run once more, because undoing it has released what it had locked.
///
/// # Errors
/// A failure of `work` itself that belongs to those classes; one that Postgres raised is raised
/// again.
pub fn attempt<T>(
    mut work: impl FnMut() -> Result<T, Failure>,
) -> Result<Result<T, CapturedError>, Failure> {
    let outcome = match once(&mut work) {
        Err(Undone::Raised(error)) if error.sqlstate() == SqlState::DEADLOCK_DETECTED => {
            drop(error.captured());
            interrupt::sleep(AFTER_DEADLOCK)?;
            once(&mut work)
        }
        outcome => outcome,
    };
    match outcome {
        Ok(value) => Ok(Ok(value)),
        Err(Undone::Failed(failure)) if passes(failure.sqlstate) => Err(failure),
        Err(Undone::Failed(failure)) => Ok(Err(failure.into())),
        Err(Undone::Raised(error)) if passes(error.sqlstate()) => error.raise_again(),
        Err(Undone::Raised(error)) => Ok(Err(error.captured())),
        Err(Undone::Panicked(panic)) => resume_unwind(panic),
    }
}

/// Runs `work` in a subtransaction, so that what it did is undone, and its locks are released, when
/// it fails; the failure, or what Postgres raised, passes unchanged.
pub fn undoable<T>(mut work: impl FnMut() -> Result<T, Failure>) -> Result<T, Failure> {
    once(&mut work).map_err(|undone| match undone {
        Undone::Failed(failure) => failure,
        Undone::Raised(error) => error.raise_again(),
        Undone::Panicked(panic) => resume_unwind(panic),
    })
}

/// Like [`undoable`], but None when another transaction is in the way: a lock was not to be had in
/// time (55P03), or both waited for each other (40P01).
pub fn unless_busy<T>(mut work: impl FnMut() -> Result<T, Failure>) -> Result<Option<T>, Failure> {
    match once(&mut work) {
        Ok(value) => Ok(Some(value)),
        Err(Undone::Failed(failure)) => Err(failure),
        Err(Undone::Raised(error)) => match error.sqlstate() {
            SqlState::LOCK_NOT_AVAILABLE | SqlState::DEADLOCK_DETECTED => {
                drop(error.captured());
                Ok(None)
            }
            _ => error.raise_again(),
        },
        Err(Undone::Panicked(panic)) => resume_unwind(panic),
    }
}

fn passes(sqlstate: SqlState) -> bool {
    let classes = ["57", "40", "53", "XX"];
    let text = sqlstate.as_str();
    classes.iter().any(|class| text.starts_with(class))
        || sqlstate == SqlState::LOCK_NOT_AVAILABLE
        || version::may_explain(sqlstate)
}

enum Undone {
    /// The work returned a failure of ours.
    Failed(Failure),
    /// Postgres raised an error.
    Raised(KeptError),
    /// Rust panicked.
    Panicked(Box<dyn Any + Send>),
}

fn once<T>(work: &mut impl FnMut() -> Result<T, Failure>) -> Result<T, Undone> {
    let subtransaction = Subtransaction::begin();
    match catch_unwind(AssertUnwindSafe(work)) {
        Ok(Ok(value)) => {
            subtransaction.commit();
            Ok(value)
        }
        Ok(Err(failure)) => {
            subtransaction.roll_back();
            Err(Undone::Failed(failure))
        }
        Err(panic) if is_postgres_error(panic.as_ref()) => {
            drop(panic);
            let error = KeptError::take(subtransaction.memory);
            subtransaction.roll_back();
            Err(Undone::Raised(error))
        }
        Err(panic) => {
            subtransaction.roll_back();
            Err(Undone::Panicked(panic))
        }
    }
}

fn is_postgres_error(panic: &(dyn Any + Send)) -> bool {
    matches!(
        panic.downcast_ref::<CaughtError>(),
        Some(CaughtError::PostgresError(_))
    )
}

/// A subtransaction, which ends by [`Subtransaction::commit`] or [`Subtransaction::roll_back`].
struct Subtransaction {
    memory: pg_sys::MemoryContext,
    owner: pg_sys::ResourceOwner,
}

impl Subtransaction {
    fn begin() -> Subtransaction {
        // SAFETY: within a transaction. Memory and resource owner stay those of the caller, whose
        // values must outlive the subtransaction.
        unsafe {
            let outer = Subtransaction {
                memory: pg_sys::CurrentMemoryContext,
                owner: pg_sys::CurrentResourceOwner,
            };
            pg_sys::BeginInternalSubTransaction(std::ptr::null());
            pg_sys::MemoryContextSwitchTo(outer.memory);
            outer
        }
    }

    fn commit(self) {
        // SAFETY: begun by this value, and everything inside has ended.
        unsafe {
            pg_sys::ReleaseCurrentSubTransaction();
        }
        self.restore();
    }

    fn roll_back(self) {
        // SAFETY: as above. The memory must not be that of the subtransaction, which goes.
        unsafe {
            pg_sys::MemoryContextSwitchTo(self.memory);
            pg_sys::RollbackAndReleaseCurrentSubTransaction();
        }
        self.restore();
    }

    fn restore(self) {
        // SAFETY: both belong to the surrounding transaction.
        unsafe {
            pg_sys::MemoryContextSwitchTo(self.memory);
            pg_sys::CurrentResourceOwner = self.owner;
        }
    }
}

/// An error taken out of Postgres's hands, with fields that pgrx's report of it does not have.
struct KeptError(*mut pg_sys::ErrorData);

impl KeptError {
    /// Takes the error that was just caught, into memory that outlives the subtransaction.
    fn take(memory: pg_sys::MemoryContext) -> KeptError {
        // SAFETY: pgrx leaves a caught error on Postgres's stack of errors, from where it is
        // copied and removed.
        unsafe {
            pg_sys::MemoryContextSwitchTo(memory);
            let error = KeptError(pg_sys::CopyErrorData());
            pg_sys::FlushErrorState();
            error
        }
    }

    fn sqlstate(&self) -> SqlState {
        // SAFETY: a copy that is ours.
        SqlState::unpacked(unsafe { (*self.0).sqlerrcode })
    }

    /// What it says, in Rust's memory.
    fn captured(self) -> CapturedError {
        // SAFETY: a copy that is ours alone, whose strings are NUL-terminated or null.
        unsafe {
            let error = &*self.0;
            let captured = CapturedError {
                sqlstate: self.sqlstate(),
                message: text_at(error.message).unwrap_or_default(),
                detail: text_at(error.detail),
                hint: text_at(error.hint),
                context: text_at(error.context),
                schema: text_at(error.schema_name),
                table: text_at(error.table_name),
                column: text_at(error.column_name),
                constraint: text_at(error.constraint_name),
            };
            pg_sys::FreeErrorData(self.0);
            captured
        }
    }

    /// Raises it as it was.
    fn raise_again(self) -> ! {
        let error = self.0;
        // SAFETY: Postgres copies it; the original goes with the memory of the aborted transaction.
        unsafe { pg_sys::ffi::pg_guard_ffi_boundary(|| ReThrowError(error)) };
        unreachable!("ReThrowError returned")
    }
}

// pgrx declares it with or without a return, depending on the version of Postgres.
unsafe extern "C-unwind" {
    fn ReThrowError(error: *mut pg_sys::ErrorData);
}

impl From<Failure> for CapturedError {
    fn from(failure: Failure) -> CapturedError {
        CapturedError {
            sqlstate: failure.sqlstate,
            detail: Some(failure.detail_json()),
            message: failure.message,
            hint: failure.hint,
            context: None,
            schema: None,
            table: None,
            column: None,
            constraint: None,
        }
    }
}
