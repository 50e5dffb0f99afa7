//! One type for everything that this extension refuses or fails at, and the way it leaves.

use super::{memory, version};
use pgrx::pg_sys::panic::{CaughtError, ErrorReport, ErrorReportWithLevel};
use pgrx::{PgLogLevel, pg_sys};
use serde_json::{Map, Value};
use std::any::Any;
use std::borrow::Cow;
use std::cell::RefCell;
use std::ffi::{CStr, CString, c_char, c_int};
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::path::Path;

/// An SQLSTATE: five upper-case letters or digits.
///
/// PostgREST answers `PTxyz` with HTTP status `xyz`
/// (<https://docs.postgrest.org/en/stable/references/errors.html>).
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct SqlState([u8; 5]);

impl SqlState {
    /// A bad argument.
    pub const INVALID_PARAMETER: SqlState = SqlState::new("22023");
    /// A unique value that is already taken, also an idempotency key used for something else.
    pub const UNIQUE_VIOLATION: SqlState = SqlState::new("23505");
    /// The transaction's isolation level or access mode does not allow this.
    pub const WRONG_TRANSACTION_STATE: SqlState = SqlState::new("25000");
    /// A read-only transaction; to a gateway that opened it for a GET: 405, method not allowed.
    pub const READ_ONLY_TRANSACTION: SqlState = SqlState::new("25006");
    /// Not allowed by privileges, row-level security or a closed environment.
    pub const INSUFFICIENT_PRIVILEGE: SqlState = SqlState::new("42501");
    /// Not configured, or a secret that cannot be read.
    pub const PREREQUISITE_STATE: SqlState = SqlState::new("55000");
    /// A lock was not to be had in time.
    pub const LOCK_NOT_AVAILABLE: SqlState = SqlState::new("55P03");
    /// The backend is to end; see [`Failure::interrupted`].
    pub const ADMIN_SHUTDOWN: SqlState = SqlState::new("57P01");
    /// Two transactions waited for each other.
    pub const DEADLOCK_DETECTED: SqlState = SqlState::new("40P01");
    /// A mistake of ours.
    pub const INTERNAL_ERROR: SqlState = SqlState::new("XX000");
    /// The other side refused the request.
    pub const BAD_REQUEST: SqlState = SqlState::new("PT400");
    /// The card was declined.
    pub const PAYMENT_REQUIRED: SqlState = SqlState::new("PT402");
    /// There is no such thing.
    pub const NOT_FOUND: SqlState = SqlState::new("PT404");
    /// Too many requests.
    pub const TOO_MANY_REQUESTS: SqlState = SqlState::new("PT429");
    /// The other side failed or could not be reached.
    pub const BAD_GATEWAY: SqlState = SqlState::new("PT502");
    /// Busy: to be tried again.
    pub const SERVICE_UNAVAILABLE: SqlState = SqlState::new("PT503");
    /// The other side did not answer in time.
    pub const GATEWAY_TIMEOUT: SqlState = SqlState::new("PT504");

    /// The SQLSTATE of five ASCII characters; anything else does not compile in a constant.
    pub const fn new(text: &str) -> SqlState {
        let bytes = text.as_bytes();
        assert!(bytes.len() == 5, "an SQLSTATE has five characters");
        SqlState([bytes[0], bytes[1], bytes[2], bytes[3], bytes[4]])
    }

    /// As Postgres packs it, six bits a character (`MAKE_SQLSTATE` in `utils/elog.h`).
    pub(super) const fn packed(self) -> c_int {
        let mut packed = 0;
        let mut place = 0;
        while place < 5 {
            packed |= ((self.0[place] as c_int - '0' as c_int) & 0x3f) << (6 * place);
            place += 1;
        }
        packed
    }

    /// The reverse of [`SqlState::packed`].
    pub(super) fn unpacked(packed: c_int) -> SqlState {
        SqlState(std::array::from_fn(|place| {
            ((packed >> (6 * place)) & 0x3f) as u8 + b'0'
        }))
    }

    /// The five characters.
    pub fn as_str(&self) -> &str {
        std::str::from_utf8(&self.0).unwrap_or("XX000")
    }
}

impl fmt::Debug for SqlState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl fmt::Display for SqlState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Why a function of this extension did not do what it was asked.
///
/// Reaches the client as SQLSTATE, a message that says what is wrong, a HINT that says what to do,
/// and as DETAIL one JSON object with `code` and whatever else a program may want to read.
#[derive(Debug, Clone)]
pub struct Failure {
    /// SQLSTATE.
    pub sqlstate: SqlState,
    /// What is wrong, for a person.
    pub message: String,
    /// What is wrong, for a program: stable, in snake_case.
    pub code: &'static str,
    /// The other fields of the DETAIL object.
    pub detail: Map<String, Value>,
    /// What to do about it.
    pub hint: Option<String>,
    hides_statement: bool,
}

impl Failure {
    /// A failure without hint and further detail.
    pub fn new(sqlstate: SqlState, code: &'static str, message: impl Into<String>) -> Failure {
        Failure {
            sqlstate,
            message: message.into(),
            code,
            detail: Map::new(),
            hint: None,
            hides_statement: false,
        }
    }

    /// A bad argument.
    pub fn argument(code: &'static str, message: impl Into<String>) -> Failure {
        Failure::new(SqlState::INVALID_PARAMETER, code, message)
    }

    /// A mistake of ours: what should never happen.
    pub fn internal(message: impl Into<String>) -> Failure {
        Failure::new(SqlState::INTERNAL_ERROR, "internal", message)
    }

    /// The backend must end. [`surface`] lets Postgres end it once nothing of ours is on the
    /// stack, so this is to be handed up untouched, never recorded or replaced.
    pub fn interrupted() -> Failure {
        Failure::new(
            SqlState::ADMIN_SHUTDOWN,
            "interrupted",
            "terminating connection in the middle of a request",
        )
    }

    /// Is this [`Failure::interrupted`]?
    pub fn is_interrupted(&self) -> bool {
        self.sqlstate == SqlState::ADMIN_SHUTDOWN
    }

    /// Adds a field to the DETAIL object.
    pub fn with(mut self, field: &str, value: impl Into<Value>) -> Failure {
        self.detail.insert(field.to_owned(), value.into());
        self
    }

    /// Says what to do about it.
    pub fn hint(mut self, hint: impl Into<String>) -> Failure {
        self.hint = Some(hint.into());
        self
    }

    /// Keeps the statement out of the server log: it may hold a secret that does not look like one.
    pub fn hiding_statement(mut self) -> Failure {
        self.hides_statement = true;
        self
    }

    /// The DETAIL object.
    pub fn detail_json(&self) -> String {
        let mut object = self.detail.clone();
        object.insert("code".to_owned(), self.code.into());
        Value::Object(object).to_string()
    }

    /// Raises it as a Postgres ERROR.
    ///
    /// Unwinds: Rust values above are dropped on the way to the outermost frame.
    pub fn raise(self) -> ! {
        let message = c_string(&self.message);
        let detail = c_string(&self.detail_json());
        let hint = self.hint.as_deref().map(c_string);

        let sqlstate = self.sqlstate.packed();
        let hides_statement = self.hides_statement;
        let message = message.as_ptr();
        let detail = detail.as_ptr();
        let hint = hint.as_ref().map_or(std::ptr::null(), |hint| hint.as_ptr());
        // SAFETY: the closure owns nothing that needs dropping, and Postgres copies the strings
        // before `errfinish` jumps out to the guard, which turns the jump into a panic.
        unsafe {
            pg_sys::ffi::pg_guard_ffi_boundary(|| {
                if errstart(PgLogLevel::ERROR as c_int, std::ptr::null()) {
                    errcode(sqlstate);
                    errmsg(c"%s".as_ptr(), message);
                    errdetail(c"%s".as_ptr(), detail);
                    if !hint.is_null() {
                        errhint(c"%s".as_ptr(), hint);
                    }
                    errhidestmt(hides_statement);
                    errfinish(c"payments".as_ptr(), 0, c"surface".as_ptr());
                }
            })
        }
        unreachable!("errfinish returned from an ERROR")
    }
}

impl From<pgrx::spi::Error> for Failure {
    /// SPI fails this way only when a statement of ours does not fit its code; what goes wrong in
    /// the database is raised by Postgres itself.
    fn from(error: pgrx::spi::Error) -> Failure {
        Failure::internal(format!("a statement of payments failed: {error}"))
    }
}

// pgrx keeps these from its users, because they jump; here they are only called under its guard.
unsafe extern "C-unwind" {
    fn errstart(level: c_int, domain: *const c_char) -> bool;
    fn errcode(sqlstate: c_int) -> c_int;
    fn errmsg(format: *const c_char, ...) -> c_int;
    fn errdetail(format: *const c_char, ...) -> c_int;
    fn errhint(format: *const c_char, ...) -> c_int;
    fn errhidestmt(hide: bool) -> c_int;
    fn errfinish(file: *const c_char, line: c_int, function: *const c_char);
}

/// `text` for C, where it would end at a NUL.
pub(super) fn c_string(text: &str) -> CString {
    let text = match text.contains('\0') {
        true => Cow::Owned(text.replace('\0', "\u{fffd}")),
        false => Cow::Borrowed(text),
    };
    CString::new(text.as_bytes()).unwrap_or_default()
}

/// The text at `text`, or None at a null pointer.
///
/// # Safety
/// `text` is null or a NUL-terminated string.
pub(super) unsafe fn text_at(text: *const c_char) -> Option<String> {
    if text.is_null() {
        return None;
    }
    // SAFETY: not null, and the caller vouches for the rest.
    let text = unsafe { CStr::from_ptr(text) };
    Some(text.to_string_lossy().into_owned())
}

/// The frame that every exported function runs in: a failure is raised as a Postgres ERROR, and an
/// interrupt that ends the backend is taken here, where nothing of ours is left to unwind.
///
/// What Postgres raised passes unchanged, unless it comes of an update that is still to be made: see
/// [`super::version`]. A panic of ours does not carry its text to the client,
/// because that could hold data: only where it happened.
pub fn surface<T>(function: impl FnOnce() -> Result<T, Failure>) -> T {
    memory::trim();
    let entered = || version::look().and_then(|()| function());
    let failure = match catch_unwind(AssertUnwindSafe(entered)) {
        Ok(Ok(value)) => return value,
        Ok(Err(failure)) if failure.sqlstate == SqlState::INTERNAL_ERROR => {
            version::explanation(failure.sqlstate, &failure.message).unwrap_or(failure)
        }
        Ok(Err(failure)) => failure,
        Err(panic) if is_report(panic.as_ref()) => match explanation(panic.as_ref()) {
            Some(failure) => failure,
            None => resume_unwind(panic),
        },
        Err(_) => broken(),
    };
    if failure.is_interrupted() {
        drop(failure);
        super::interrupt::end_backend();
    }
    failure.raise()
}

/// Is the panic a Postgres error on its way up?
fn is_report(panic: &(dyn Any + Send)) -> bool {
    match panic.downcast_ref::<CaughtError>() {
        Some(caught) => !matches!(caught, CaughtError::RustPanic { .. }),
        None => panic.is::<ErrorReportWithLevel>() || panic.is::<ErrorReport>(),
    }
}

/// What to say instead of an error of Postgres's, which is then dropped.
fn explanation(panic: &(dyn Any + Send)) -> Option<Failure> {
    let Some(CaughtError::PostgresError(report)) = panic.downcast_ref::<CaughtError>() else {
        return None;
    };
    let sqlstate = SqlState::unpacked(report.sql_error_code() as c_int);
    let failure = version::explanation(sqlstate, report.message())?;
    // SAFETY: pgrx leaves a caught error on Postgres's stack of errors; nobody needs it any more.
    unsafe { pg_sys::FlushErrorState() };
    Some(failure)
}

fn broken() -> Failure {
    let failure = Failure::internal("payments failed unexpectedly")
        .hint("This is a bug in payments: please report where it happened.");
    match PANICKED_AT.take() {
        Some(place) => failure.with("at", place),
        None => failure,
    }
}

thread_local! {
    static PANICKED_AT: RefCell<Option<String>> = const { RefCell::new(None) };
}

/// Prepares this process for panics: no backtrace in a DETAIL, and a note of where they happen.
///
/// pgrx appends a backtrace to what the client sees whenever `RUST_BACKTRACE` is in the
/// postmaster's environment, and takes tens of milliseconds to collect it.
pub fn init() {
    // SAFETY: `_PG_init` runs in a process that has a single thread.
    unsafe { std::env::set_var("RUST_LIB_BACKTRACE", "0") };

    let of_pgrx = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |info| {
        if info.payload().is::<&str>() || info.payload().is::<String>() {
            let place = info.location().map(|location| {
                let file = Path::new(location.file()).file_name().unwrap_or_default();
                format!("{}:{}", file.to_string_lossy(), location.line())
            });
            PANICKED_AT.replace(place);
        }
        of_pgrx(info)
    }));
}
