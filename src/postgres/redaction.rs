//! Keeps secrets out of the server log.
//!
//! Under `log_statement = all` Postgres logs a statement, and the values of its parameters, before
//! any function of ours runs, and when a statement fails it logs it again. So every line is looked
//! at on its way to the log, and the parts of it that hold a secret are blanked.

use memchr::memmem::Finder;
use pgrx::{pg_guard, pg_sys};
use std::ffi::{CStr, c_char};
use std::sync::OnceLock;

const BLANK: &CStr = c"(hidden by payments: it may hold a secret)";

/// How secrets begin, and what the functions that take them are called.
struct Marks {
    secrets: Vec<Finder<'static>>,
    setters: Vec<Finder<'static>>,
}

static MARKS: OnceLock<Marks> = OnceLock::new();

/// The hook of another extension, which comes after ours.
static NEXT: OnceLock<pg_sys::emit_log_hook_type> = OnceLock::new();

/// Hides every text of the log in which one of `secrets` begins, and the statements and parameters
/// of calls to `setters` whatever they hold. Belongs in `_PG_init`.
pub fn init(secrets: &[&'static str], setters: &[&'static str]) {
    let finders = |marks: &[&'static str]| marks.iter().map(|mark| Finder::new(*mark)).collect();
    MARKS.get_or_init(|| Marks {
        secrets: finders(secrets),
        setters: finders(setters),
    });
    // SAFETY: `_PG_init` runs in the only thread; hooks are chained as Postgres asks.
    unsafe {
        NEXT.get_or_init(|| pg_sys::emit_log_hook);
        pg_sys::emit_log_hook = Some(redact);
    }
}

/// Postgres calls it for lines that are logged, and for those alone.
#[pg_guard]
unsafe extern "C-unwind" fn redact(line: *mut pg_sys::ErrorData) {
    // SAFETY: Postgres hands over the line that it is about to log.
    unsafe {
        if let Some(marks) = MARKS.get() {
            marks.blank(&mut *line);
        }
        if let Some(Some(next)) = NEXT.get() {
            next(line);
        }
    }
}

impl Marks {
    /// # Safety
    /// `line` is a line that Postgres is about to log.
    unsafe fn blank(&self, line: &mut pg_sys::ErrorData) {
        // SAFETY: the texts of a line are NUL-terminated or null, and so is the statement. They are
        // replaced by copies in the memory that belongs to the line, because Postgres frees them.
        unsafe {
            let statement = bytes(pg_sys::debug_query_string);
            let in_setter = has(&self.setters, statement);
            line.hide_stmt |= in_setter || holds_secret(&self.secrets, statement);

            let memory = line.assoc_context;
            for (text, may_show_call) in [
                (&mut line.message, true),
                (&mut line.detail, true),
                (&mut line.detail_log, true),
                (&mut line.hint, false),
                (&mut line.context, true),
                (&mut line.internalquery, true),
            ] {
                let shown = bytes(*text);
                let shows_call = (in_setter && may_show_call)
                    && (has(&self.setters, shown) || has_parameters(shown));
                if shows_call || holds_secret(&self.secrets, shown) {
                    *text = pg_sys::MemoryContextStrdup(memory, BLANK.as_ptr());
                }
            }
        }
    }
}

fn has(marks: &[Finder<'static>], text: &[u8]) -> bool {
    marks.iter().any(|mark| mark.find(text).is_some())
}

/// Is there more than the beginning of a secret? Our own hints name that (`whsec_…`), and what is
/// blanked for the log is blanked for the client too.
fn holds_secret(beginnings: &[Finder<'static>], text: &[u8]) -> bool {
    let goes_on = |end: usize| {
        text.get(end)
            .is_some_and(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'/' | b'_'))
    };
    beginnings.iter().any(|beginning| {
        let mut found = beginning.find_iter(text);
        found.any(|at| goes_on(at + beginning.needle().len()))
    })
}

/// Postgres writes "parameters: $1 = …" and "portal with parameter $1 = …".
fn has_parameters(text: &[u8]) -> bool {
    memchr::memmem::find(text, b"arameter").is_some() && memchr::memmem::find(text, b"$1").is_some()
}

/// # Safety
/// `text` is null or a NUL-terminated string, which outlives the result.
unsafe fn bytes<'text>(text: *const c_char) -> &'text [u8] {
    if text.is_null() {
        return &[];
    }
    // SAFETY: not null, and the caller vouches for the rest.
    unsafe { CStr::from_ptr(text) }.to_bytes()
}
