//! Webhooks to rows, beside the least that anything living in Postgres must do with the same
//! events, or beside webhooks to other tables: in one run, slice by slice in turn, so that what
//! else the machine does falls on all sides.

use crate::{Trouble, processor};
use hmac::{Hmac, Mac};
use postgres::types::ToSql;
use postgres::{Client, NoTls, Statement};
use serde::{Deserialize, Serialize};
use sha2::Sha256;
use std::fs;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// The statement of an app that has the extension.
const OURS: &str = "select status, duplicate, error from payments.handle_webhook('test', $1, $2)";

/// One statement that stores the payload, and keeps its object as a row of 25 columns.
const FLOOR: &str = include_str!("../floor.sql");

/// What is to be measured.
#[derive(Deserialize)]
struct Order {
    sides: Vec<Side>,
    postmaster: u32,
    /// The file with the events, as a JSON array.
    events: String,
    signing_secret: String,
    connections: usize,
    synchronous_commit: String,
    /// Into how many parts the events are cut; the first is delivered, but not measured.
    slices: usize,
}

/// A database that all events go to.
#[derive(Deserialize)]
struct Side {
    dsn: String,
    way: Way,
}

#[derive(Deserialize)]
#[serde(rename_all = "lowercase")]
enum Way {
    /// By the extension, which has not heard of any.
    Ours,
    /// Into the floor's tables.
    Floor,
}

/// What one side did in one slice.
#[derive(Serialize)]
struct Slice {
    events: usize,
    seconds: f64,
    /// Of all of Postgres's processes.
    processor_seconds: f64,
    /// Where the WAL was before and after, in bytes since its beginning.
    wal: (i64, i64),
    /// Of every event, in microseconds.
    latencies: Vec<u64>,
}

/// Runs all sides: the slices of each.
///
/// # Errors
/// Whatever goes wrong on the way, an event that is not processed included.
pub fn measure(order: &str) -> Result<String, Trouble> {
    let order: Order = serde_json::from_str(order)?;
    let events: Vec<Event> = serde_json::from_str(&fs::read_to_string(&order.events)?)?;
    let first = order.sides.first().ok_or("no side is named")?;
    let mut watch = Client::connect(&first.dsn, NoTls)?;
    let lanes = order.sides.iter().map(|side| lanes(side, &order));
    let mut sides: Vec<_> = lanes.collect::<Result<_, _>>()?;
    let mut report: Vec<Vec<Slice>> = sides.iter().map(|_| Vec::new()).collect();
    let size = events.len().div_ceil(order.slices);
    for (number, events) in events.chunks(size).enumerate() {
        let deliveries = events
            .iter()
            .map(|event| Delivery::of(event, &order.signing_secret))
            .collect::<Result<Vec<_>, _>>()?;
        // The first write to a page after a checkpoint puts all of the page into the WAL.
        if number == 1 {
            watch.batch_execute("checkpoint")?;
        }
        for (lanes, slices) in sides.iter_mut().zip(&mut report) {
            slices.push(slice(lanes, &deliveries, &mut watch, &order)?);
        }
    }
    Ok(serde_json::to_string(&report)?)
}

/// A connection with its statement prepared.
struct Lane {
    client: Client,
    statement: Statement,
    send: Send,
}

type Send = fn(&mut Client, &Statement, &Delivery) -> Result<(), Trouble>;

fn lanes(side: &Side, order: &Order) -> Result<Vec<Lane>, Trouble> {
    let (statement, send): (_, Send) = match side.way {
        Way::Ours => (OURS, deliver),
        Way::Floor => (FLOOR, store),
    };
    let commit = &order.synchronous_commit;
    let lanes = (0..order.connections).map(|_| {
        let mut client = Client::connect(&side.dsn, NoTls)?;
        client.batch_execute(&format!("set synchronous_commit = {commit}"))?;
        let statement = client.prepare(statement)?;
        Ok(Lane {
            client,
            statement,
            send,
        })
    });
    lanes.collect()
}

/// Every lane takes the next event as soon as it is done with its last.
fn slice(
    lanes: &mut [Lane],
    deliveries: &[Delivery],
    watch: &mut Client,
    order: &Order,
) -> Result<Slice, Trouble> {
    let next = AtomicUsize::new(0);
    let wal_before = wal(watch)?;
    let processor_before = processor::seconds(order.postmaster)?;
    let started = Instant::now();
    let latencies = thread::scope(|scope| {
        let running: Vec<_> = lanes
            .iter_mut()
            .map(|lane| scope.spawn(|| lane.run(deliveries, &next)))
            .collect();
        let mut latencies = Vec::with_capacity(deliveries.len());
        for lane in running {
            latencies.extend(
                lane.join()
                    .map_err(|_| "a connection's thread panicked")??,
            );
        }
        Ok::<_, Trouble>(latencies)
    })?;
    Ok(Slice {
        events: deliveries.len(),
        seconds: started.elapsed().as_secs_f64(),
        processor_seconds: processor::seconds(order.postmaster)? - processor_before,
        wal: (wal_before, wal(watch)?),
        latencies,
    })
}

impl Lane {
    fn run(&mut self, deliveries: &[Delivery], next: &AtomicUsize) -> Result<Vec<u64>, Trouble> {
        let mut latencies = Vec::new();
        while let Some(delivery) = deliveries.get(next.fetch_add(1, Ordering::Relaxed)) {
            let started = Instant::now();
            (self.send)(&mut self.client, &self.statement, delivery)?;
            latencies.push(started.elapsed().as_micros() as u64);
        }
        Ok(latencies)
    }
}

/// Bytes of WAL that were written so far, whether flushed or not.
fn wal(watch: &mut Client) -> Result<i64, Trouble> {
    let statement = "select (pg_current_wal_insert_lsn() - '0/0'::pg_lsn)::bigint";
    Ok(watch.query_one(statement, &[])?.get(0))
}

fn deliver(client: &mut Client, statement: &Statement, delivery: &Delivery) -> Result<(), Trouble> {
    let receipt = client.query_one(statement, &[&delivery.event.body, &delivery.signature])?;
    let (status, duplicate): (&str, bool) = (receipt.get(0), receipt.get(1));
    if status != "processed" || duplicate {
        let error: Option<&str> = receipt.get(2);
        return Err(format!("{}: {status}, {error:?}", delivery.event.event).into());
    }
    Ok(())
}

fn store(client: &mut Client, statement: &Statement, delivery: &Delivery) -> Result<(), Trouble> {
    let event = delivery.event;
    let mut values: Vec<&(dyn ToSql + Sync)> = vec![&event.event, &event.body, &event.object];
    values.extend(event.texts.iter().map(column));
    values.extend(event.numbers.iter().map(column));
    values.extend(event.flags.iter().map(column));
    values.extend(delivery.times.iter().map(column));
    client.execute(statement, &values)?;
    Ok(())
}

fn column<T: ToSql + Sync>(value: &T) -> &(dyn ToSql + Sync) {
    value
}

/// An event, and what the floor keeps of it in columns, in their order.
#[derive(Deserialize)]
pub struct Event {
    /// As Stripe sends it.
    pub body: String,
    event: String,
    object: String,
    texts: Vec<Option<String>>,
    numbers: Vec<Option<i64>>,
    flags: Vec<Option<bool>>,
    /// In seconds since the epoch.
    times: Vec<Option<u64>>,
}

/// What is sent to either side; made before the clock runs.
struct Delivery<'a> {
    event: &'a Event,
    signature: String,
    times: Vec<Option<SystemTime>>,
}

impl Delivery<'_> {
    fn of<'a>(event: &'a Event, secret: &str) -> Result<Delivery<'a>, Trouble> {
        let time = |seconds| UNIX_EPOCH + Duration::from_secs(seconds);
        Ok(Delivery {
            event,
            signature: sign(&event.body, secret)?,
            times: event
                .times
                .iter()
                .map(|seconds| seconds.map(time))
                .collect(),
        })
    }
}

/// A `Stripe-Signature` of now. <https://docs.stripe.com/webhooks/signatures>
///
/// # Errors
/// If the clock stands before 1970.
pub fn sign(body: &str, secret: &str) -> Result<String, Trouble> {
    let now = SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs();
    let mut mac = Hmac::<Sha256>::new_from_slice(secret.as_bytes())?;
    mac.update(format!("{now}.{body}").as_bytes());
    Ok(format!(
        "t={now},v1={}",
        hex::encode(mac.finalize().into_bytes())
    ))
}
