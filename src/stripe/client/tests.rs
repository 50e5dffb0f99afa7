//! The client against a server that does as it is told.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};
use std::thread;

use serde_json::json;
use ureq::unversioned::resolver::DefaultResolver;
use ureq::unversioned::transport::{
    Buffers, ConnectionDetails, Connector, LazyBuffers, NextTimeout, Transport,
};

use super::*;
use crate::Environment;

const DATE: &str = "Tue, 14 Nov 2023 22:13:20 GMT";
const NOW: i64 = 1_700_000_000;

/// What the server does with the next request.
enum Reply {
    /// Sends these bytes after a while, and keeps the connection if they are a whole answer.
    Send(Duration, String),
    /// Sends these bytes and closes.
    Close(String),
    /// Sends these bytes, then nothing until the client leaves.
    Hang(String),
}

/// A request as the server saw it.
#[derive(Debug)]
struct Seen {
    line: String,
    headers: BTreeMap<String, String>,
    body: String,
    connection: SocketAddr,
}

struct Server {
    base: String,
    seen: Receiver<Seen>,
}

impl Server {
    fn start(replies: impl IntoIterator<Item = Reply>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let base = format!("http://{}", listener.local_addr().expect("an address"));
        let replies: Vec<_> = replies.into_iter().collect();
        let replies = Arc::new(Mutex::new(replies.into_iter()));
        let (sender, seen) = channel();
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let (replies, sender) = (Arc::clone(&replies), sender.clone());
                thread::spawn(move || serve(stream, &replies, &sender));
            }
        });
        Self { base, seen }
    }

    fn requests(&self) -> Vec<Seen> {
        self.seen.try_iter().collect()
    }
}

fn serve(
    mut stream: TcpStream,
    replies: &Mutex<std::vec::IntoIter<Reply>>,
    seen: &Sender<Seen>,
) -> Option<()> {
    let mut reader = BufReader::new(stream.try_clone().ok()?);
    loop {
        let mut line = String::new();
        reader.read_line(&mut line).ok().filter(|read| *read > 0)?;
        let mut headers = BTreeMap::new();
        for header in reader.by_ref().lines().map_while(Result::ok) {
            let Some((name, value)) = header.split_once(": ") else {
                break;
            };
            headers.insert(name.to_lowercase(), value.to_owned());
        }
        let length = headers
            .get("content-length")
            .and_then(|length| length.parse().ok());
        let mut body = vec![0; length.unwrap_or(0)];
        reader.read_exact(&mut body).ok()?;
        let connection = stream.peer_addr().ok()?;
        let body = String::from_utf8(body).ok()?;
        seen.send(Seen {
            line: line.trim_end().to_owned(),
            headers,
            body,
            connection,
        })
        .ok()?;
        match replies.lock().ok()?.next()? {
            Reply::Send(delay, bytes) => {
                thread::sleep(delay);
                stream.write_all(bytes.as_bytes()).ok()?;
            }
            Reply::Close(bytes) => {
                stream.write_all(bytes.as_bytes()).ok()?;
                return None;
            }
            Reply::Hang(bytes) => {
                stream.write_all(bytes.as_bytes()).ok()?;
                reader.read_line(&mut line).ok()?;
                return None;
            }
        }
    }
}

/// An answer with a body and more headers (`name: value\r\n`).
fn answer(status: u16, headers: &str, body: &str) -> String {
    let length = body.len();
    format!(
        "HTTP/1.1 {status} Something\r\ndate: {DATE}\r\nrequest-id: req_1\r\n{headers}\
         content-length: {length}\r\n\r\n{body}"
    )
}

fn ok() -> Reply {
    now(answer(200, "", r#"{"id":"cus_1"}"#))
}

fn now(bytes: String) -> Reply {
    Reply::Send(Duration::ZERO, bytes)
}

fn fails(status: u16, headers: &str) -> Reply {
    now(answer(
        status,
        headers,
        r#"{"error":{"message":"no","code":"because"}}"#,
    ))
}

fn sleep(duration: Duration) -> Result<(), ureq::Error> {
    thread::sleep(duration);
    Ok(())
}

/// Asks a server once, with a budget in milliseconds.
fn asked(
    server: &Server,
    budget: u64,
    ask: impl FnOnce(&Client) -> Result<Answer, Error>,
) -> Result<Answer, Error> {
    ask(&Client::new(config(server, &key(), budget)))
}

fn config<'a>(server: &'a Server, key: &'a SecretKey, budget: u64) -> Config<'a> {
    Config {
        agent: ureq::Agent::config_builder().proxy(None).build().into(),
        base: &server.base,
        key,
        budget: Duration::from_millis(budget),
        max_response: 1000,
        pause: sleep,
    }
}

fn key() -> SecretKey {
    SecretKey::parse(Environment::Test, "sk_test_abc").expect("a key")
}

fn get(server: &Server, budget: u64) -> Result<Answer, Error> {
    asked(server, budget, |client| {
        client.get("/v1/customers/cus_1", &Value::Null)
    })
}

fn post(server: &Server, budget: u64) -> Result<Answer, Error> {
    asked(server, budget, |client| {
        client.post("/v1/customers", &json!({"name": "a b"}), "key-1")
    })
}

#[test]
fn a_post_carries_what_stripe_wants() {
    let server = Server::start([ok()]);
    let answer = post(&server, 5000).expect("an answer");
    assert_eq!(answer.body().expect("JSON"), json!({"id": "cus_1"}));
    assert_eq!(answer.text, r#"{"id":"cus_1"}"#);
    assert_eq!(answer.request_id.as_deref(), Some("req_1"));
    assert_eq!((answer.attempts, answer.replayed), (1, false));
    let [seen] = &server.requests()[..] else {
        panic!("one request")
    };
    assert_eq!(seen.line, "POST /v1/customers HTTP/1.1");
    assert_eq!(seen.body, "name=a%20b");
    let header = |name: &str| seen.headers.get(name).map(String::as_str);
    assert_eq!(header("authorization"), Some("Bearer sk_test_abc"));
    assert_eq!(header("stripe-version"), Some(API_VERSION));
    assert_eq!(
        header("user-agent"),
        Some(concat!("payments/", env!("CARGO_PKG_VERSION")))
    );
    assert_eq!(header("idempotency-key"), Some("key-1"));
    assert_eq!(
        header("content-type"),
        Some("application/x-www-form-urlencoded")
    );
    assert_eq!(header("content-length"), Some("10"));
    assert_eq!(header("accept-encoding"), None);
}

#[test]
fn a_get_and_a_delete_have_their_parameters_in_the_query() {
    let server = Server::start([ok(), ok()]);
    let parameters = json!({"lookup_keys": ["pro monthly"], "active": true});
    asked(&server, 5000, |client| {
        client.get("/v1/prices", &parameters)
    })
    .expect("an answer");
    asked(&server, 5000, |client| {
        client.delete("/v1/products/p", &Value::Null)
    })
    .expect("an answer");
    let lines: Vec<_> = server
        .requests()
        .into_iter()
        .map(|seen| seen.line)
        .collect();
    assert_eq!(
        lines,
        [
            "GET /v1/prices?active=true&lookup_keys[0]=pro%20monthly HTTP/1.1",
            "DELETE /v1/products/p HTTP/1.1",
        ]
    );
}

#[test]
fn as_of_is_stripes_clock_before_the_request() {
    let server = Server::start([Reply::Send(
        Duration::from_millis(1100),
        answer(200, "", "{}"),
    )]);
    let before = SystemTime::now();
    let answer = get(&server, 60_000).expect("an answer");
    let elapsed = before.elapsed().expect("the clock goes forward").as_secs();
    assert!(answer.as_of <= NOW - 2);
    assert!(answer.as_of >= NOW - 1 - i64::try_from(elapsed).expect("a short time"));
    assert!(answer.sent >= before && answer.sent <= SystemTime::now() - Duration::from_secs(1));
}

#[test]
fn as_of_rounds_down() {
    let date = UNIX_EPOCH + Duration::from_secs(100);
    assert_eq!(as_of(date, Duration::ZERO), 100);
    assert_eq!(as_of(date, Duration::from_millis(1)), 99);
    assert_eq!(as_of(date, Duration::from_millis(1000)), 99);
    assert_eq!(as_of(date, Duration::from_millis(1001)), 98);
    assert_eq!(as_of(date, Duration::from_secs(1000)), 0);
}

#[test]
fn as_of_belongs_to_the_attempt_that_succeeded() {
    let slow = Reply::Send(Duration::from_secs(3), answer(500, "", ""));
    let server = Server::start([slow, ok()]);
    let answer = get(&server, 60_000).expect("an answer");
    assert!(answer.as_of > NOW - 3);
    assert_eq!(answer.attempts, 2);
}

#[test]
fn a_replayed_answer_says_so() {
    let server = Server::start([now(answer(200, "idempotent-replayed: true\r\n", "{}"))]);
    assert!(post(&server, 5000).expect("an answer").replayed);
}

#[test]
fn what_passes_is_tried_again_with_the_same_key() {
    let server = Server::start([
        fails(500, ""),
        fails(409, ""),
        fails(429, "retry-after: 0\r\n"),
        fails(400, "stripe-should-retry: true\r\n"),
        Reply::Close(String::new()),
        Reply::Close("HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\n{\"half".into()),
        Reply::Close("junk\r\n\r\n".into()),
        ok(),
    ]);
    let key = key();
    let client = Client::new(Config {
        pause: |_| Ok(()),
        ..config(&server, &key, 120_000)
    });
    let answer = client
        .post("/v1/customers", &json!({"name": "a b"}), "key-1")
        .expect("an answer");
    assert_eq!(answer.attempts, 8);
    let requests = server.requests();
    assert_eq!(requests.len(), 8);
    for seen in requests {
        assert_eq!(
            seen.headers.get("idempotency-key").map(String::as_str),
            Some("key-1")
        );
        assert_eq!(seen.body, "name=a%20b");
    }
}

#[test]
fn what_stays_is_not_tried_again() {
    for reply in [
        fails(400, ""),
        fails(401, ""),
        fails(402, ""),
        fails(403, ""),
        fails(404, ""),
        fails(429, ""),
        fails(500, "stripe-should-retry: false\r\n"),
        fails(409, "stripe-should-retry: false\r\n"),
        fails(500, "idempotent-replayed: true\r\n"),
    ] {
        let server = Server::start([reply, ok()]);
        let error = post(&server, 5000).expect_err("an error");
        let refusal = error.refusal().expect("a refusal");
        assert_eq!(refusal.code.as_deref(), Some("because"));
        assert_eq!(refusal.request_id.as_deref(), Some("req_1"));
        assert_eq!(server.requests().len(), 1);
    }
}

#[test]
fn a_replayed_error_says_so() {
    let server = Server::start([fails(500, "idempotent-replayed: true\r\n")]);
    assert!(post(&server, 5000).expect_err("an error").is_replayed());
}

#[test]
fn retry_after_is_obeyed() {
    let server = Server::start([fails(503, "retry-after: 1\r\n"), ok()]);
    let started = Instant::now();
    assert_eq!(get(&server, 5000).expect("an answer").attempts, 2);
    assert!(started.elapsed() >= Duration::from_secs(1));
}

#[test]
fn a_retry_after_beyond_the_budget_ends_the_call() {
    let headers = "retry-after: 60\r\nstripe-rate-limited-reason: endpoint-rate\r\n";
    let server = Server::start([fails(429, headers), ok()]);
    let started = Instant::now();
    let error = get(&server, 5000).expect_err("an error");
    let Error::RateLimited {
        retry_after,
        reason,
        ..
    } = error
    else {
        panic!("{error:?}")
    };
    assert_eq!(retry_after, Some(Duration::from_secs(60)));
    assert_eq!(reason.as_deref(), Some("endpoint-rate"));
    assert!(started.elapsed() < Duration::from_secs(1));
    assert_eq!(server.requests().len(), 1);
}

#[test]
fn one_budget_bounds_all_attempts() {
    let server = Server::start((0..1000).map(|_| fails(500, "")));
    let started = Instant::now();
    let error = get(&server, 1500).expect_err("an error");
    assert!(matches!(error, Error::Unavailable(_)), "{error:?}");
    assert!(started.elapsed() < Duration::from_millis(2500));
    assert!(server.requests().len() > 1);
}

#[test]
fn what_was_answered_outlives_the_silence_that_followed() {
    let server = Server::start([fails(409, ""), Reply::Hang(String::new())]);
    let error = post(&server, 1500).expect_err("an error");
    assert!(matches!(error, Error::Conflict(_)), "{error:?}");
    assert_eq!(server.requests().len(), 2);
}

#[test]
fn one_budget_bounds_all_calls_of_a_client() {
    let server = Server::start([
        Reply::Send(Duration::from_millis(1000), answer(200, "", "{}")),
        Reply::Hang(String::new()),
    ]);
    let started = Instant::now();
    let error = asked(&server, 1500, |client| {
        client.get("/v1/account", &Value::Null)?;
        assert!(client.remaining() <= Duration::from_millis(500));
        client.get("/v1/account", &Value::Null)
    });
    let error = error.expect_err("an error");
    assert!(
        matches!(
            error,
            Error::TimedOut {
                phase: Phase::Waiting
            }
        ),
        "{error:?}"
    );
    let elapsed = started.elapsed();
    assert!(elapsed >= Duration::from_millis(1490) && elapsed < Duration::from_millis(2400));
}

#[test]
fn a_body_that_never_ends_times_out_reading() {
    let head = answer(200, "", "{}").replace("content-length: 2", "content-length: 900");
    let server = Server::start([Reply::Hang(head)]);
    let error = get(&server, 300).expect_err("an error");
    assert!(
        matches!(
            error,
            Error::TimedOut {
                phase: Phase::Reading
            }
        ),
        "{error:?}"
    );
}

#[test]
fn nobody_there_is_unreachable() {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let base = format!("http://{}", listener.local_addr().expect("an address"));
    drop(listener);
    let (_, seen) = channel();
    let error = get(&Server { base, seen }, 300).expect_err("an error");
    assert!(matches!(error, Error::Unreachable(_)), "{error:?}");
}

#[test]
fn a_base_that_is_no_address_is_unreachable_at_once() {
    for base in ["", "no such thing", "ftp://127.0.0.1"] {
        let (_, seen) = channel();
        let started = Instant::now();
        let error = get(
            &Server {
                base: base.into(),
                seen,
            },
            5000,
        )
        .expect_err("an error");
        assert!(matches!(error, Error::Unreachable(_)), "{error:?}");
        assert!(started.elapsed() < Duration::from_secs(1), "{base}");
    }
}

#[test]
fn a_body_is_read_to_the_limit_and_no_further() {
    let body = |length: usize| format!("{{\"a\":\"{}\"}}", "x".repeat(length - 8));
    let server = Server::start([now(answer(200, "", &body(1000)))]);
    assert_eq!(get(&server, 5000).expect("an answer").text.len(), 1000);

    let server = Server::start([now(answer(200, "", &body(1001)))]);
    let error = get(&server, 5000).expect_err("an error");
    assert!(
        matches!(error, Error::TooLarge { limit: 1000 }),
        "{error:?}"
    );
    assert_eq!(server.requests().len(), 1);

    let head = format!("HTTP/1.1 200 OK\r\ndate: {DATE}\r\ntransfer-encoding: chunked\r\n\r\n");
    let chunk = format!("1f4\r\n{}\r\n", "x".repeat(500));
    let server = Server::start([Reply::Hang(format!("{head}{}", chunk.repeat(3)))]);
    let error = get(&server, 5000).expect_err("an error");
    assert!(
        matches!(error, Error::TooLarge { limit: 1000 }),
        "{error:?}"
    );
}

#[test]
fn a_chunked_body_is_read() {
    let bytes = format!(
        "HTTP/1.1 200 OK\r\ndate: {DATE}\r\ntransfer-encoding: chunked\r\n\r\n\
         3\r\n{{\"a\r\n4\r\n\":1}}\r\n0\r\n\r\n"
    );
    let server = Server::start([now(bytes)]);
    assert_eq!(
        get(&server, 5000).expect("an answer").body().expect("JSON"),
        json!({"a": 1})
    );
}

#[test]
fn a_redirect_is_not_followed() {
    let elsewhere = Server::start([ok()]);
    for status in [301, 302, 307, 308] {
        let location = format!("location: {}\r\n", elsewhere.base);
        let server = Server::start([now(answer(status, &location, ""))]);
        let error = post(&server, 5000).expect_err("an error");
        assert!(
            matches!(error, Error::Redirected { status: seen } if seen == status),
            "{error:?}"
        );
    }
    assert!(elsewhere.requests().is_empty());
}

#[test]
fn junk_is_malformed_and_not_asked_for_again() {
    let undated = "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}".to_owned();
    for bytes in [
        answer(200, "", "<html>"),
        answer(200, "", "[]"),
        answer(200, "", ""),
        answer(200, "", &"[".repeat(999)),
        undated,
    ] {
        let server = Server::start([now(bytes), ok()]);
        let error = get(&server, 5000).expect_err("an error");
        assert!(matches!(error, Error::Malformed { .. }), "{error:?}");
        assert_eq!(server.requests().len(), 1);
    }
}

#[test]
fn an_answer_that_jsonb_cannot_hold_is_made_fit() {
    let body = r#"{"name":"a\u0000\ud800","amount":123456789012345678901234567890}"#;
    let server = Server::start([now(answer(200, "", body))]);
    let answer = get(&server, 5000).expect("an answer");
    assert_eq!(
        answer.body().expect("JSON")["name"],
        json!("a\u{fffd}\u{fffd}")
    );
    assert!(answer.text.contains("123456789012345678901234567890"));
}

#[test]
fn an_error_page_keeps_its_status() {
    let server = Server::start([now(answer(404, "", "<html>sk_test_abc</html>"))]);
    let error = get(&server, 5000).expect_err("an error");
    assert_eq!(error.refusal().map(|refusal| refusal.status), Some(404));
    assert!(!format!("{error} {error:?}").contains("sk_test_abc"));
}

#[test]
fn connections_are_kept_and_stale_ones_replaced() {
    let server = Server::start([ok(), ok(), Reply::Close(answer(200, "", "{}")), ok()]);
    asked(&server, 5000, |client| {
        for _ in 0..4 {
            client.get("/v1/account", &Value::Null)?;
        }
        client.get("/v1/account", &Value::Null)
    })
    .expect_err("the replies ran out");
    let connections: Vec<_> = server
        .requests()
        .iter()
        .map(|seen| seen.connection)
        .collect();
    assert_eq!(connections[0], connections[1]);
    assert_eq!(connections[1], connections[2]);
    assert_ne!(connections[2], connections[3]);
}

/// A connection that is told to stop, at once or in the middle of the body.
#[derive(Debug)]
struct Stopping {
    head: &'static str,
    buffers: LazyBuffers,
    reads: Arc<Mutex<u32>>,
}

#[derive(Debug)]
struct StoppingConnector {
    head: &'static str,
    reads: Arc<Mutex<u32>>,
}

impl Connector<()> for StoppingConnector {
    type Out = Stopping;

    fn connect(
        &self,
        _: &ConnectionDetails,
        _: Option<()>,
    ) -> Result<Option<Stopping>, ureq::Error> {
        let buffers = LazyBuffers::new(1024, 1024);
        Ok(Some(Stopping {
            head: self.head,
            buffers,
            reads: Arc::clone(&self.reads),
        }))
    }
}

impl Transport for Stopping {
    fn buffers(&mut self) -> &mut dyn Buffers {
        &mut self.buffers
    }

    fn transmit_output(&mut self, _: usize, _: NextTimeout) -> Result<(), ureq::Error> {
        Ok(())
    }

    fn await_input(&mut self, _: NextTimeout) -> Result<bool, ureq::Error> {
        let head = std::mem::take(&mut self.head).as_bytes();
        if head.is_empty() {
            *self.reads.lock().expect("a lock") += 1;
            return Err(ureq::Error::Other("stop".into()));
        }
        self.buffers.input_append_buf()[..head.len()].copy_from_slice(head);
        self.buffers.input_appended(head.len());
        Ok(true)
    }

    fn is_open(&mut self) -> bool {
        true
    }
}

#[test]
fn an_interrupted_transport_is_never_tried_again() {
    let half = "HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\n{\"half";
    for head in ["", half] {
        let reads = Arc::new(Mutex::new(0));
        let connector = StoppingConnector {
            head,
            reads: Arc::clone(&reads),
        };
        let agent =
            ureq::Agent::with_parts(Default::default(), connector, DefaultResolver::default());
        let (server, key) = (Server::start([]), key());
        let client = Client::new(Config {
            agent,
            ..config(&server, &key, 5000)
        });
        let error = client
            .get("/v1/account", &Value::Null)
            .expect_err("an error");
        let Error::Interrupted(ureq::Error::Other(why)) = error else {
            panic!("{error:?}")
        };
        assert_eq!(why.to_string(), "stop");
        assert_eq!(*reads.lock().expect("a lock"), 1);
    }
}

#[test]
fn an_interrupt_that_tls_wrapped_is_recognised() {
    let inner = ureq::Error::Other("stop".into());
    let failure = Failure::transport(ureq::Error::Io(inner.into_io()), Phase::Waiting);
    assert!(matches!(
        failure.error,
        Error::Interrupted(ureq::Error::Other(_))
    ));
    assert_eq!(failure.retry_after, None);
}

#[test]
fn an_interrupted_pause_ends_the_call() {
    let server = Server::start([fails(500, ""), ok()]);
    let key = key();
    let stop = |_| Err(ureq::Error::Other("stop".into()));
    let client = Client::new(Config {
        pause: stop,
        ..config(&server, &key, 5000)
    });
    let error = client
        .get("/v1/account", &Value::Null)
        .expect_err("an error");
    assert!(matches!(error, Error::Interrupted(_)), "{error:?}");
    assert_eq!(server.requests().len(), 1);
}

#[test]
fn a_bad_certificate_is_not_tried_again() {
    let bad = io::Error::new(io::ErrorKind::InvalidData, "invalid peer certificate");
    let failure = Failure::transport(ureq::Error::Io(bad), Phase::Waiting);
    assert!(matches!(failure.error, Error::Unreachable(_)));
    assert_eq!(failure.retry_after, None);
}
