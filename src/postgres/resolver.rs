//! Name lookups that can be interrupted.
//!
//! `getaddrinfo` blocks and cannot be waited for, so it runs in a thread, and the backend waits for
//! the thread's end as it waits for a socket. The thread touches nothing of Postgres and has every
//! signal blocked: a SIGINT delivered to it would run Postgres's handler on the wrong thread.

use super::interrupt::{self, Readiness, Waited};
use super::transport::deadline;
use std::io;
use std::net::{IpAddr, SocketAddr, ToSocketAddrs};
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::thread;
use ureq::Error;
use ureq::config::Config;
use ureq::http::Uri;
use ureq::unversioned::resolver::{ResolvedSocketAddrs, Resolver};
use ureq::unversioned::transport::NextTimeout;

/// Looks nothing up: ureq asks before every request, also of a connection that is kept alive. Whoever
/// opens one calls [`addresses`].
#[derive(Debug)]
pub(super) struct LaterResolver;

impl Resolver for LaterResolver {
    fn resolve(
        &self,
        _uri: &Uri,
        _config: &Config,
        _timeout: NextTimeout,
    ) -> Result<ResolvedSocketAddrs, Error> {
        Ok(self.empty())
    }
}

/// The addresses of the host that a URL names, of which an address is its own. Names are looked up in
/// a short-lived thread.
pub(super) fn addresses(
    uri: &Uri,
    config: &Config,
    timeout: NextTimeout,
) -> Result<Vec<SocketAddr>, Error> {
    let host = uri.host().ok_or(Error::HostNotFound)?;
    let host = host.trim_start_matches('[').trim_end_matches(']');
    let port = uri.port_u16().unwrap_or(match uri.scheme_str() {
        Some("http") => 80,
        _ => 443,
    });
    let found = match host.parse::<IpAddr>() {
        Ok(address) => vec![SocketAddr::new(address, port)],
        Err(_) => look_up(host, port, timeout)?,
    };
    let family = config.ip_family();
    let wanted = family.keep_wanted(found.into_iter());
    let wanted: Vec<SocketAddr> = wanted.take(MOST_ADDRESSES).collect();
    match wanted.is_empty() {
        true => Err(Error::HostNotFound),
        false => Ok(wanted),
    }
}

/// How many addresses of a name are tried.
const MOST_ADDRESSES: usize = 16;

/// A lookup under way.
struct Lookup {
    name: String,
    port: u16,
    found: OnceLock<io::Result<Vec<SocketAddr>>>,
    /// Becomes readable when the thread has ended, because that closes the other end.
    ended: UnixStream,
}

/// The lookup that the last call left running when it was interrupted. The next call for the same
/// name waits for it too: a resolver that hangs would otherwise gain a thread with every cancel.
static RUNNING: Mutex<Option<Arc<Lookup>>> = Mutex::new(None);

fn look_up(name: &str, port: u16, timeout: NextTimeout) -> Result<Vec<SocketAddr>, Error> {
    let deadline = deadline(timeout)?;
    let lookup = running(name, port)?;
    match interrupt::wait(lookup.ended.as_fd(), Readiness::Readable, deadline)? {
        Waited::TimedOut => Err(Error::Timeout(timeout.reason)),
        Waited::Ready => match lookup.found.get() {
            Some(Ok(addresses)) => Ok(addresses.clone()),
            _ => Err(Error::HostNotFound),
        },
    }
}

fn running(name: &str, port: u16) -> io::Result<Arc<Lookup>> {
    let mut running = RUNNING.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(lookup) = running.as_ref()
        && lookup.found.get().is_none()
        && (lookup.name.as_str(), lookup.port) == (name, port)
    {
        return Ok(lookup.clone());
    }
    let lookup = start(name.to_owned(), port)?;
    *running = Some(lookup.clone());
    Ok(lookup)
}

fn start(name: String, port: u16) -> io::Result<Arc<Lookup>> {
    let (ended, ends) = UnixStream::pair()?;
    let lookup = Arc::new(Lookup {
        name,
        port,
        found: OnceLock::new(),
        ended,
    });
    let in_thread = lookup.clone();
    without_signals(|| {
        thread::Builder::new()
            .name("payments lookup".to_owned())
            .stack_size(512 * 1024)
            .spawn(move || {
                let host = (in_thread.name.as_str(), in_thread.port);
                let found = host.to_socket_addrs().map(|found| found.collect());
                let _ = in_thread.found.set(found);
                drop(ends);
            })
    })?;
    Ok(lookup)
}

/// Runs `spawn` with every signal blocked, which the thread that it starts inherits.
fn without_signals<T>(spawn: impl FnOnce() -> T) -> T {
    // SAFETY: an all-zero set is valid to fill, both sets outlive the calls, and the mask of this
    // thread is put back; `spawn` starts a thread and cannot unwind past us with it changed,
    // because starting one reports its failure as a value.
    unsafe {
        let mut all: libc::sigset_t = std::mem::zeroed();
        let mut before: libc::sigset_t = std::mem::zeroed();
        libc::sigfillset(&mut all);
        libc::pthread_sigmask(libc::SIG_SETMASK, &all, &mut before);
        let spawned = spawn();
        libc::pthread_sigmask(libc::SIG_SETMASK, &before, std::ptr::null_mut());
        spawned
    }
}
