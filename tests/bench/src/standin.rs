//! In Stripe's place: a server on this machine that speaks TLS, takes as long as it is told, makes
//! sessions, and lists whatever account it is given.

use crate::Trouble;
use crate::account::{Account, Query};
use percent_encoding::percent_decode_str;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ServerConfig, ServerConnection, StreamOwned};
use serde_json::{Value, json};
use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, PoisonError, RwLock};
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
    account: RwLock<Option<Account>>,
    delay: AtomicU64,
    connections: AtomicUsize,
    made: AtomicUsize,
    requests: AtomicUsize,
    busy: AtomicU64,
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
            account: RwLock::new(None),
            delay: AtomicU64::new(0),
            connections: AtomicUsize::new(0),
            made: AtomicUsize::new(0),
            requests: AtomicUsize::new(0),
            busy: AtomicU64::new(0),
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

    /// What there is to list from now on.
    pub fn show(&self, account: Account) {
        let shown = self.shared.account.write();
        *shown.unwrap_or_else(PoisonError::into_inner) = Some(account);
    }

    /// How many connections were made so far.
    pub fn connections(&self) -> usize {
        self.shared.connections.load(Ordering::Relaxed)
    }

    /// How many requests were answered so far.
    pub fn requests(&self) -> usize {
        self.shared.requests.load(Ordering::Relaxed)
    }

    /// Seconds that were spent on answers so far.
    pub fn busy(&self) -> f64 {
        Duration::from_micros(self.shared.busy.load(Ordering::Relaxed)).as_secs_f64()
    }
}

/// What is asked for.
struct Request {
    method: String,
    path: String,
    query: String,
    form: String,
}

impl Shared {
    fn serve(&self, stream: TcpStream) -> Result<(), Trouble> {
        stream.set_nodelay(true)?;
        let connection = ServerConnection::new(Arc::clone(&self.tls))?;
        let mut stream = BufReader::new(StreamOwned::new(connection, stream));
        while let Some(request) = Request::read(&mut stream)? {
            let asked = Instant::now();
            let (status, body) = self.answer(&request)?;
            let date = httpdate::fmt_http_date(SystemTime::now());
            let answer = format!(
                "HTTP/1.1 {status}\r\ndate: {date}\r\ncontent-type: application/json\r\n\
                 request-id: req_1\r\ncontent-length: {}\r\n\r\n{body}",
                body.len()
            );
            let delay = Duration::from_micros(self.delay.load(Ordering::Relaxed));
            thread::sleep(delay.saturating_sub(asked.elapsed()));
            self.requests.fetch_add(1, Ordering::Relaxed);
            let busy = asked.elapsed().as_micros() as u64;
            self.busy.fetch_add(busy, Ordering::Relaxed);
            stream.get_mut().write_all(answer.as_bytes())?;
            stream.get_mut().flush()?;
        }
        Ok(())
    }

    fn answer(&self, request: &Request) -> Result<(&str, String), Trouble> {
        if request.method == "POST" {
            return Ok(("200 OK", self.session(&request.form)));
        }
        let query: Query = pairs(&request.query).collect();
        let account = self.account.read().unwrap_or_else(PoisonError::into_inner);
        let account = account.as_ref();
        let found = account.map(|account| account.get(&request.path, &query));
        Ok(match found.transpose()?.flatten() {
            Some(body) => ("200 OK", body),
            None => ("404 Not Found", MISSING.to_owned()),
        })
    }

    /// A new session, with what was asked for that a caller looks at again.
    fn session(&self, form: &str) -> String {
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

const MISSING: &str =
    r#"{"error": {"type": "invalid_request_error", "code": "resource_missing", "message": "No."}}"#;

impl Request {
    /// The next request; none if the client is done.
    fn read(stream: &mut impl BufRead) -> Result<Option<Request>, Trouble> {
        let mut line = String::new();
        if stream.read_line(&mut line)? == 0 {
            return Ok(None);
        }
        let mut words = line.split(' ');
        let (method, target) = (words.next(), words.next().unwrap_or_default());
        let (path, query) = target.split_once('?').unwrap_or((target, ""));
        let mut request = Request {
            method: method.unwrap_or_default().to_owned(),
            path: path.to_owned(),
            query: query.to_owned(),
            form: String::new(),
        };
        let mut length = 0;
        while !line.trim().is_empty() {
            line.clear();
            stream.read_line(&mut line)?;
            if let Some((name, value)) = line.split_once(':')
                && name.eq_ignore_ascii_case("content-length")
            {
                length = value.trim().parse()?;
            }
        }
        let mut form = vec![0; length];
        stream.read_exact(&mut form)?;
        request.form = String::from_utf8(form)?;
        Ok(Some(request))
    }
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
