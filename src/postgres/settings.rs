//! The settings, all named `payments.…`, and values that hold for a stretch of code only.
//!
//! Those that say where we connect and whom we trust can be set by superusers alone.

use super::error::c_string;
use pgrx::guc::{GucCheckError, GucContext, GucFlags, GucRegistry, GucSetting};
use pgrx::{PgLogLevel, PostgresGucEnum, pg_guard, pg_sys};
use std::ffi::{CStr, CString, c_char, c_int, c_void};
use std::net::IpAddr;
use std::path::PathBuf;
use std::thread;
use std::time::Duration;
use ureq::http::Uri;

/// What a call does when the other side refuses or fails.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PostgresGucEnum)]
pub enum OnError {
    /// Raise an error, and so roll the transaction back.
    #[name = c"raise"]
    Raise,
    /// Keep the row as failed, and return it.
    #[name = c"record"]
    Record,
}

static STRIPE_API_BASE: GucSetting<Option<CString>> =
    GucSetting::<Option<CString>>::new(Some(c"https://api.stripe.com"));
static HTTP_PROXY: GucSetting<Option<CString>> = GucSetting::<Option<CString>>::new(Some(c""));
static HTTP_CONNECT_TIMEOUT: GucSetting<i32> = GucSetting::<i32>::new(2_000);
static HTTP_TIMEOUT: GucSetting<i32> = GucSetting::<i32>::new(6_000);
static HTTP_MAX_RESPONSE_SIZE: GucSetting<i32> = GucSetting::<i32>::new(8 * 1024);
static KEY_FILE: GucSetting<Option<CString>> = GucSetting::<Option<CString>>::new(Some(c""));
static WEBHOOK_TOLERANCE: GucSetting<i32> = GucSetting::<i32>::new(300);
static WEBHOOK_MAX_SIZE: GucSetting<i32> = GucSetting::<i32>::new(1024);
static ON_STRIPE_ERROR: GucSetting<OnError> = GucSetting::<OnError>::new(OnError::Raise);
static SOURCE: GucSetting<Option<CString>> = GucSetting::<Option<CString>>::new(Some(c""));

/// Where the API is: a URL without a trailing slash.
pub fn stripe_api_base() -> String {
    text(&STRIPE_API_BASE).trim_end_matches('/').to_owned()
}

/// Is the API on this machine? Then it is a stand-in for Stripe.
pub fn stripe_is_local() -> bool {
    let base = stripe_api_base().parse::<Uri>();
    base.is_ok_and(|base| base.host().is_some_and(is_loopback))
}

/// The proxy to connect through, if any.
pub fn http_proxy() -> Option<String> {
    Some(text(&HTTP_PROXY)).filter(|url| !url.is_empty())
}

/// How long connecting may take, TLS included.
pub fn http_connect_timeout() -> Duration {
    Duration::from_millis(HTTP_CONNECT_TIMEOUT.get() as u64)
}

/// How long a call may take in all, retries included.
pub fn http_timeout() -> Duration {
    Duration::from_millis(HTTP_TIMEOUT.get() as u64)
}

/// How large an answer may be, in bytes.
pub fn http_max_response_size() -> u64 {
    HTTP_MAX_RESPONSE_SIZE.get() as u64 * 1024
}

/// The file with the sealing key, absolute.
pub fn key_file() -> PathBuf {
    // SAFETY: set before any extension is loaded, and never changed.
    let data_directory = unsafe { CStr::from_ptr(pg_sys::DataDir) };
    let data_directory = PathBuf::from(data_directory.to_string_lossy().into_owned());
    match text(&KEY_FILE).as_str() {
        "" => data_directory.join("payments.key"),
        path => data_directory.join(path),
    }
}

/// How old a webhook's signature may be.
pub fn webhook_tolerance() -> Duration {
    Duration::from_secs(WEBHOOK_TOLERANCE.get() as u64)
}

/// How large a webhook's body may be, in bytes.
pub fn webhook_max_size() -> usize {
    WEBHOOK_MAX_SIZE.get() as usize * 1024
}

/// What a call does when the other side refuses or fails.
pub fn on_stripe_error() -> OnError {
    ON_STRIPE_ERROR.get()
}

fn text(setting: &GucSetting<Option<CString>>) -> String {
    let value = setting.get().unwrap_or_default();
    value.to_string_lossy().trim().to_owned()
}

/// Defines the settings. Belongs in `_PG_init`.
pub fn init() {
    use GucContext::{Suset, Userset};
    let plain = GucFlags::default();
    // SAFETY: the hooks are guarded, and everything handed over is static.
    unsafe {
        GucRegistry::define_string_guc_with_hooks(
            c"payments.stripe_api_base",
            c"Where Stripe's API is.",
            c"An https URL; plain http is accepted for a loopback address only, which is how tests \
              reach a stand-in. The secret key is sent there.",
            &STRIPE_API_BASE,
            Suset,
            plain,
            Some(check_api_base),
            None,
            None,
        );
        GucRegistry::define_string_guc_with_hooks(
            c"payments.http_proxy",
            c"The proxy through which Stripe is reached.",
            c"For example http://proxy.internal:3128. Empty connects directly: a proxy named in the \
              server's environment is not used.",
            &HTTP_PROXY,
            Suset,
            GucFlags::SUPERUSER_ONLY,
            Some(check_proxy),
            None,
            None,
        );
        GucRegistry::define_string_guc_with_hooks(
            c"payments.key_file",
            c"The file with the key that seals secrets.",
            c"Relative to the data directory; empty means payments.key there. Made with mode 0600 \
              when the first secret is set. A file in the data directory travels with physical \
              backups, together with what it seals: prefer a path outside.",
            &KEY_FILE,
            Suset,
            GucFlags::SUPERUSER_ONLY,
            None,
            None,
            None,
        );
        GucRegistry::define_string_guc_with_hooks(
            c"payments.source",
            c"Where the change comes from that a trigger is looking at.",
            c"webhook, sync, poll, replay, rebuild, simulate or api, set by payments while it \
              writes; empty otherwise. Read it with current_setting('payments.source', true).",
            &SOURCE,
            Suset,
            GucFlags::DISALLOW_IN_FILE | GucFlags::NO_RESET_ALL,
            None,
            None,
            None,
        );
    }
    GucRegistry::define_int_guc(
        c"payments.http_connect_timeout",
        c"How long connecting to Stripe may take.",
        c"Name lookup is not included, the TLS handshake is.",
        &HTTP_CONNECT_TIMEOUT,
        10,
        600_000,
        Suset,
        GucFlags::UNIT_MS,
    );
    // A function must answer before the statement that calls it is cancelled, or the caller learns
    // nothing. Supabase, the most common gateway, cancels after 8 seconds for signed-in users.
    GucRegistry::define_int_guc(
        c"payments.http_timeout",
        c"How long a call to Stripe may take in all.",
        c"Connecting, waiting, reading and every retry share this budget. Keep it below the \
          statement_timeout of the roles that call.",
        &HTTP_TIMEOUT,
        10,
        3_600_000,
        Suset,
        GucFlags::UNIT_MS,
    );
    GucRegistry::define_int_guc(
        c"payments.http_max_response_size",
        c"How large an answer of Stripe may be.",
        c"Reading stops there and the call fails.",
        &HTTP_MAX_RESPONSE_SIZE,
        1,
        1024 * 1024,
        Suset,
        GucFlags::UNIT_KB,
    );
    GucRegistry::define_int_guc(
        c"payments.webhook_tolerance",
        c"How old a webhook's signature may be.",
        c"Protects from replayed requests. Stripe signs every delivery anew, retries included.",
        &WEBHOOK_TOLERANCE,
        1,
        86_400,
        Suset,
        GucFlags::UNIT_S,
    );
    GucRegistry::define_int_guc(
        c"payments.webhook_max_size",
        c"How large a webhook's body may be.",
        c"Larger ones are refused before they are looked at.",
        &WEBHOOK_MAX_SIZE,
        1,
        256 * 1024,
        Suset,
        GucFlags::UNIT_KB,
    );
    GucRegistry::define_enum_guc(
        c"payments.on_stripe_error",
        c"What a call does when Stripe refuses or fails.",
        c"raise rolls the transaction back with an error; record keeps the row as failed, with \
          last_error, and returns it.",
        &ON_STRIPE_ERROR,
        Userset,
        plain,
    );
    // SAFETY: a static string.
    unsafe { pg_sys::MarkGUCPrefixReserved(c"payments".as_ptr()) };
}

#[pg_guard]
unsafe extern "C-unwind" fn check_api_base(
    value: *mut *mut c_char,
    _extra: *mut *mut c_void,
    _source: pg_sys::GucSource::Type,
) -> bool {
    // SAFETY: Postgres hands over a pointer to the string to check.
    unsafe {
        check(
            value,
            is_safe_base,
            "an https URL, or an http URL of a loopback address",
        )
    }
}

#[pg_guard]
unsafe extern "C-unwind" fn check_proxy(
    value: *mut *mut c_char,
    _extra: *mut *mut c_void,
    _source: pg_sys::GucSource::Type,
) -> bool {
    // SAFETY: as above.
    unsafe { check(value, is_proxy, "an http or https URL, or empty") }
}

/// # Safety
/// For check hooks only: `value` points to a NUL-terminated string.
unsafe fn check(value: *mut *mut c_char, is_good: fn(&str) -> bool, wanted: &str) -> bool {
    // SAFETY: as the caller says.
    let text = unsafe { CStr::from_ptr(*value) };
    if text.to_str().is_ok_and(|text| is_good(text.trim())) {
        return true;
    }
    let reason = GucCheckError::default().with_detail(format!("It must be {wanted}."));
    // SAFETY: within a check hook.
    unsafe { reason.apply() };
    false
}

/// https anywhere, http to this machine only, and nothing that a base cannot have.
fn is_safe_base(base: &str) -> bool {
    let Ok(uri) = base.parse::<Uri>() else {
        return false;
    };
    let (Some(scheme), Some(authority)) = (uri.scheme_str(), uri.authority()) else {
        return false;
    };
    if uri.query().is_some() || authority.as_str().contains('@') {
        return false;
    }
    scheme == "https" || (scheme == "http" && is_loopback(authority.host()))
}

fn is_loopback(host: &str) -> bool {
    let bare = host.trim_start_matches('[').trim_end_matches(']');
    let address = bare.parse::<IpAddr>();
    host == "localhost" || address.is_ok_and(|address| address.is_loopback())
}

fn is_proxy(url: &str) -> bool {
    let known = ["http://", "https://"];
    url.is_empty()
        || (known.iter().any(|scheme| url.starts_with(scheme)) && ureq::Proxy::new(url).is_ok())
}

/// Runs `stretch` with `payments.source` set, for the triggers that fire in it.
///
/// Users cannot set it, so that a trigger may rely on it.
pub fn with_source<R>(source: &str, stretch: impl FnOnce() -> R) -> R {
    with(c"payments.source", source, stretch)
}

/// Runs `stretch` without firing triggers on what it writes, as a restore does. Foreign keys are
/// triggers too.
///
/// Every change to it and back has the backend plan all its statements anew: not for each of many.
pub fn without_triggers<R>(stretch: impl FnOnce() -> R) -> R {
    with(c"session_replication_role", "replica", stretch)
}

/// Runs `stretch`, inside [`without_triggers`] or not, firing them.
pub fn with_triggers<R>(stretch: impl FnOnce() -> R) -> R {
    with(c"session_replication_role", "origin", stretch)
}

/// Runs `stretch` with a setting changed, whoever may change it otherwise.
pub(super) fn with<R>(name: &CStr, value: &str, stretch: impl FnOnce() -> R) -> R {
    let _nest = Nest::open();
    let value = c_string(value);
    // SAFETY: both strings outlive the call, which copies them. GUC_ACTION_SAVE is undone at the
    // end of the nest level.
    unsafe {
        pg_sys::set_config_option(
            name.as_ptr(),
            value.as_ptr(),
            pg_sys::GucContext::PGC_SUSET,
            pg_sys::GucSource::PGC_S_SESSION,
            pg_sys::GucAction::GUC_ACTION_SAVE,
            true,
            PgLogLevel::ERROR as c_int,
            false,
        );
    }
    stretch()
}

/// A stretch of code whose changes of settings, by whoever, are undone at its end.
struct Nest(c_int);

impl Nest {
    fn open() -> Nest {
        // SAFETY: counts levels, within a transaction.
        Nest(unsafe { pg_sys::NewGUCNestLevel() })
    }
}

impl Drop for Nest {
    fn drop(&mut self) {
        // After an error, the abort of the (sub)transaction undoes deeper levels too; doing it
        // here could raise again, in the middle of unwinding.
        if !thread::panicking() {
            // SAFETY: levels are closed in the reverse order of opening, as values are dropped.
            unsafe { pg_sys::AtEOXact_GUC(false, self.0) };
        }
    }
}
