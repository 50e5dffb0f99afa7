//! Waiting for a socket, or for time to pass, in a backend that must still hear its signals.
//!
//! The waits are Postgres's own, on the backend's latch, so everything a backend is told while it
//! waits is acted on at once: a cancel, a timeout, a vanished client, and also the requests of
//! *other* sessions, such as the barrier that `DROP DATABASE` sends and waits for.
//!
//! Two kinds of interrupt are told apart. One that raises an ERROR is taken on the spot: it unwinds
//! through the HTTP client like any panic. One that ends the process would not unwind at all, so it
//! is handed up as an error, and [`crate::postgres::error::surface`] takes it when all frames are
//! gone.

use super::error::Failure;
use pgrx::pg_sys;
use std::error::Error;
use std::fmt;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::time::{Duration, Instant};

/// The backend is to end. Travels through the HTTP client as [`ureq::Error::Other`].
///
/// Never as [`io::ErrorKind::Interrupted`]: readers of that kind try again, rustls for ever, and
/// then only SIGKILL helps.
#[derive(Debug)]
pub struct Interrupted;

impl fmt::Display for Interrupted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("interrupted")
    }
}

impl Error for Interrupted {}

/// What a socket is awaited for.
#[derive(Debug, Clone, Copy)]
pub(super) enum Readiness {
    Connected,
    Readable,
    Writable,
}

impl Readiness {
    fn events(self) -> u32 {
        match self {
            Readiness::Connected => pg_sys::WL_SOCKET_CONNECTED,
            Readiness::Readable => pg_sys::WL_SOCKET_READABLE,
            Readiness::Writable => pg_sys::WL_SOCKET_WRITEABLE,
        }
    }
}

/// How a wait ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Waited {
    Ready,
    TimedOut,
}

/// Acts on whatever the backend was told. Belongs before every wait, and before every read and
/// write too: a peer that keeps a socket busy would otherwise never let us wait.
///
/// # Errors
/// [`Interrupted`] when the backend is to end. Any other interrupt is taken here, and may raise.
pub fn check() -> Result<(), Interrupted> {
    // SAFETY: signal handlers write these flags, hence the volatile reads; this is the thread of
    // the backend.
    unsafe {
        if (&raw const pg_sys::InterruptPending).read_volatile() == 0 {
            return Ok(());
        }
        if (&raw const pg_sys::ProcDiePending).read_volatile() != 0 {
            return Err(Interrupted);
        }
        pg_sys::ProcessInterrupts();
    }
    Ok(())
}

/// Waits until `socket` is ready or `deadline` has passed; without a deadline, for ever.
pub(super) fn wait(
    socket: BorrowedFd<'_>,
    readiness: Readiness,
    deadline: Option<Instant>,
) -> Result<Waited, Interrupted> {
    wait_latch(Some((socket, readiness)), deadline)
}

/// Lets `duration` pass.
///
/// # Errors
/// [`Interrupted`] when the backend is to end.
pub fn sleep(duration: Duration) -> Result<(), Interrupted> {
    wait_latch(None, Instant::now().checked_add(duration))?;
    Ok(())
}

/// [`sleep`] for those who speak of errors as the HTTP client does.
pub fn pause(duration: Duration) -> Result<(), ureq::Error> {
    Ok(sleep(duration)?)
}

fn wait_latch(
    socket: Option<(BorrowedFd<'_>, Readiness)>,
    deadline: Option<Instant>,
) -> Result<Waited, Interrupted> {
    let (descriptor, events) = match socket {
        Some((socket, readiness)) => (socket.as_raw_fd(), readiness.events()),
        None => (pg_sys::PGINVALID_SOCKET, 0),
    };
    loop {
        check()?;
        let left = deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()));
        if left.is_some_and(|left| left.is_zero()) {
            return Ok(Waited::TimedOut);
        }

        // The postmaster's death is reported, not acted on: WL_EXIT_ON_PM_DEATH would exit from
        // below our frames.
        let timed = if left.is_some() {
            pg_sys::WL_TIMEOUT
        } else {
            0
        };
        let awaited = pg_sys::WL_LATCH_SET | pg_sys::WL_POSTMASTER_DEATH | timed | events;
        let milliseconds = left.map_or(-1, |left| left.as_micros().div_ceil(1000) as i64);
        // SAFETY: the latch is this backend's own, and the descriptor is open while borrowed.
        let happened = unsafe {
            pg_sys::WaitLatchOrSocket(
                pg_sys::MyLatch,
                awaited as i32,
                descriptor,
                milliseconds,
                wait_event(),
            )
        } as u32;

        if happened & pg_sys::WL_POSTMASTER_DEATH != 0 {
            return Err(Interrupted);
        }
        if happened & pg_sys::WL_LATCH_SET != 0 {
            // SAFETY: as above. The check that follows it at the top of the loop must come after
            // the reset, or a signal in between would be slept over.
            unsafe { pg_sys::ResetLatch(pg_sys::MyLatch) };
        }
        if happened & events != 0 {
            check()?;
            return Ok(Waited::Ready);
        }
    }
}

/// What `pg_stat_activity.wait_event` shows while we wait: `PaymentsHttp`, or `Extension` before
/// Postgres 17, which cannot name it.
#[cfg(any(feature = "pg17", feature = "pg18", feature = "pg19"))]
fn wait_event() -> u32 {
    static EVENT: std::sync::OnceLock<u32> = std::sync::OnceLock::new();
    // SAFETY: a static string, and the thread of the backend.
    *EVENT.get_or_init(|| unsafe { pg_sys::WaitEventExtensionNew(c"PaymentsHttp".as_ptr()) })
}

#[cfg(not(any(feature = "pg17", feature = "pg18", feature = "pg19")))]
fn wait_event() -> u32 {
    pg_sys::PG_WAIT_EXTENSION
}

impl From<Interrupted> for ureq::Error {
    fn from(interrupted: Interrupted) -> ureq::Error {
        ureq::Error::Other(Box::new(interrupted))
    }
}

impl From<Interrupted> for Failure {
    fn from(_: Interrupted) -> Failure {
        Failure::interrupted()
    }
}

/// [`Failure::interrupted`] if that is what ended the call, otherwise the error as it was.
///
/// Readers and TLS wrap what the transport said into errors of their own; this looks inside.
pub fn settle(error: ureq::Error) -> Result<ureq::Error, Failure> {
    match is_interrupted(&error) {
        true => Err(Failure::interrupted()),
        false => Ok(error),
    }
}

/// Did the call end because the backend is to end?
pub fn is_interrupted(error: &ureq::Error) -> bool {
    match error {
        ureq::Error::Other(inner) => inner.is::<Interrupted>(),
        ureq::Error::Io(inner) => wraps_interrupted(inner),
        _ => false,
    }
}

fn wraps_interrupted(error: &io::Error) -> bool {
    let Some(inner) = error.get_ref() else {
        return false;
    };
    if let Some(error) = inner.downcast_ref::<ureq::Error>() {
        return is_interrupted(error);
    }
    if let Some(error) = inner.downcast_ref::<io::Error>() {
        return wraps_interrupted(error);
    }
    inner.is::<Interrupted>()
}

/// Ends the backend as Postgres would have, for the reason that [`check`] or a wait reported.
pub(super) fn end_backend() -> ! {
    pg_sys::check_for_interrupts!();
    // No signal said so: it was the postmaster that died.
    pgrx::ereport!(
        FATAL,
        pgrx::PgSqlErrorCode::ERRCODE_ADMIN_SHUTDOWN,
        "terminating connection due to unexpected postmaster exit"
    );
}
