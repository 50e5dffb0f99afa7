//! Whom we trust to say that a server is who it claims to be.

use std::sync::OnceLock;
use ureq::tls::{Certificate, RootCerts, TlsConfig};

/// The system's root certificates, so that an administrator's decisions hold (`SSL_CERT_FILE` and
/// `SSL_CERT_DIR` of the server's environment included); Mozilla's, as bundled, where the system
/// has none. Read once a backend.
pub(super) fn config() -> TlsConfig {
    static CONFIG: OnceLock<TlsConfig> = OnceLock::new();
    CONFIG
        .get_or_init(|| TlsConfig::builder().root_certs(roots()).build())
        .clone()
}

fn roots() -> RootCerts {
    let system = rustls_native_certs::load_native_certs().certs;
    if system.is_empty() {
        return RootCerts::WebPki;
    }
    system
        .iter()
        .map(|certificate| Certificate::from_der(certificate).to_owned())
        .into()
}
