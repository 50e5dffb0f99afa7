//! In Stripe's place: a server on this machine that speaks TLS, answers `POST
//! /v1/checkout/sessions` and nothing else, and takes as long as it is told.

use crate::Trouble;
use percent_encoding::percent_decode_str;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ServerConfig, ServerConnection, StreamOwned};
use serde_json::{Value, json};
use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant, SystemTime};

/// The server; it runs until the process ends.
pub struct Standin {
    port: u16,
    shared: Arc<Shared>,
}

struct Shared {
    tls: Arc<ServerConfig>,
    /// A session as Stripe answers it.
    session: Value,
    delay: AtomicU64,
    connections: AtomicUsize,
    made: AtomicUsize,
}

impl Standin {
    /// Listens, with `leaf.pem` and `leaf.key` of the directory.
    ///
    /// # Errors
    /// If the certificate cannot be used, or no port is free.
    pub fn start(certificates: &Path, session: Value) -> Result<Standin, Trouble> {
        let chain = CertificateDer::pem_file_iter(certificates.join("leaf.pem"))?;
        let key = PrivateKeyDer::from_pem_file(certificates.join("leaf.key"))?;
        let tls = ServerConfig::builder()
            .with_no_client_auth()
            .with_single_cert(chain.collect::<Result<_, _>>()?, key)?;
        let shared = Arc::new(Shared {
            tls: Arc::new(tls),
            session,
            delay: AtomicU64::new(0),
            connections: AtomicUsize::new(0),
            made: AtomicUsize::new(0),
        });
        let listener = TcpListener::bind(("127.0.0.1", 0))?;
        let port = listener.local_addr()?.port();
        let serving = Arc::clone(&shared);
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let shared = Arc::clone(&serving);
                shared.connections.fetch_add(1, Ordering::Relaxed);
                // A client that hangs up ends its connection, and nothing else.
                thread::spawn(move || shared.serve(stream).ok());
            }
        });
        Ok(Standin { port, shared })
    }

    /// For `payments.stripe_api_base`.
    pub fn base_url(&self) -> String {
        format!("https://localhost:{}", self.port)
    }

    /// How long every answer takes from now on.
    pub fn take(&self, delay: Duration) {
        let delay = delay.as_micros() as u64;
        self.shared.delay.store(delay, Ordering::Relaxed);
    }

    /// How many connections were made so far.
    pub fn connections(&self) -> usize {
        self.shared.connections.load(Ordering::Relaxed)
    }
}

impl Shared {
    fn serve(&self, stream: TcpStream) -> Result<(), Trouble> {
        stream.set_nodelay(true)?;
        let connection = ServerConnection::new(Arc::clone(&self.tls))?;
        let mut stream = BufReader::new(StreamOwned::new(connection, stream));
        while let Some(form) = request(&mut stream)? {
            let asked = Instant::now();
            let body = self.answer(&form);
            let date = httpdate::fmt_http_date(SystemTime::now());
            let answer = format!(
                "HTTP/1.1 200 OK\r\ndate: {date}\r\ncontent-type: application/json\r\n\
                 request-id: req_1\r\ncontent-length: {}\r\n\r\n{body}",
                body.len()
            );
            let delay = Duration::from_micros(self.delay.load(Ordering::Relaxed));
            thread::sleep(delay.saturating_sub(asked.elapsed()));
            stream.get_mut().write_all(answer.as_bytes())?;
            stream.get_mut().flush()?;
        }
        Ok(())
    }

    /// A new session, with what was asked for that a caller looks at again.
    fn answer(&self, form: &str) -> String {
        let mut session = self.session.clone();
        let number = self.made.fetch_add(1, Ordering::Relaxed);
        let id = format!("cs_test_{number:058}");
        session["url"] = json!(format!("https://checkout.stripe.com/c/pay/{id}"));
        session["id"] = json!(id);
        for (name, value) in pairs(form) {
            if let Some(key) = name.strip_prefix("metadata[") {
                session["metadata"][key.trim_end_matches(']')] = json!(value);
            } else if name == "customer" {
                session["customer"] = json!(value);
            }
        }
        session.to_string()
    }
}

/// The body of the next request; none if the client is done.
fn request(stream: &mut impl BufRead) -> Result<Option<String>, Trouble> {
    let mut length = 0;
    let mut line = String::new();
    loop {
        line.clear();
        if stream.read_line(&mut line)? == 0 {
            return Ok(None);
        }
        if let Some((name, value)) = line.split_once(':') {
            if name.eq_ignore_ascii_case("content-length") {
                length = value.trim().parse()?;
            }
        } else if line.trim().is_empty() {
            break;
        }
    }
    let mut body = vec![0; length];
    stream.read_exact(&mut body)?;
    Ok(Some(String::from_utf8(body)?))
}

fn pairs(form: &str) -> impl Iterator<Item = (String, String)> {
    form.split('&').filter_map(|pair| {
        let (name, value) = pair.split_once('=')?;
        Some((decoded(name), decoded(value)))
    })
}

fn decoded(text: &str) -> String {
    let spaced = text.replace('+', " ");
    percent_decode_str(&spaced).decode_utf8_lossy().into_owned()
}
