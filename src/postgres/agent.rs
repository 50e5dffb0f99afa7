//! The HTTP client of this backend.

use super::resolver::LaterResolver;
use super::transport::{TcpConnector, WipingConnector};
use super::{settings, tls};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;
use ureq::unversioned::transport::{ConnectProxyConnector, Connector, RustlsConnector};
use ureq::{Agent, Proxy};

/// Load balancers commonly close a connection that was idle for a minute. One that closes just when
/// it is used again costs a retry.
const MOST_IDLE: Duration = Duration::from_secs(50);

/// What an agent is made from; another agent is made when it changes.
#[derive(PartialEq)]
struct Origin {
    proxy: Option<String>,
    connect_timeout: Duration,
}

/// In a static and not a thread-local, whose destructor would run while the backend exits.
static AGENT: Mutex<Option<(Origin, Agent)>> = Mutex::new(None);

/// The agent of this backend, made at its first use, never before the fork: connections are kept
/// alive across calls and transactions.
///
/// It takes no proxy from the environment of the server, follows no redirect, hands over every
/// status as an answer, and bounds only how long connecting may take: the budget of the whole call
/// is the caller's to set, with `timeout_global`.
pub fn agent() -> Agent {
    let origin = Origin {
        proxy: settings::http_proxy(),
        connect_timeout: settings::http_connect_timeout(),
    };
    let mut kept = AGENT.lock().unwrap_or_else(PoisonError::into_inner);
    match kept.as_ref() {
        Some((made_from, agent)) if *made_from == origin => agent.clone(),
        _ => {
            let agent = make(&origin);
            *kept = Some((origin, agent.clone()));
            agent
        }
    }
}

fn make(origin: &Origin) -> Agent {
    // The setting was checked when it was set, so that a proxy always parses.
    let proxy = origin.proxy.as_deref().and_then(|url| Proxy::new(url).ok());
    let config = Agent::config_builder()
        .proxy(proxy)
        .max_redirects(0)
        .max_redirects_will_error(false)
        .http_status_as_error(false)
        .timeout_connect(Some(origin.connect_timeout))
        .max_idle_connections(2)
        .max_idle_connections_per_host(2)
        .max_idle_age(MOST_IDLE)
        .tls_config(tls::config())
        .build();
    let connector =
        ().chain(ConnectProxyConnector::default())
            .chain(TcpConnector)
            .chain(RustlsConnector::default())
            .chain(WipingConnector);
    Agent::with_parts(config, connector, LaterResolver)
}
