//! Webhooks to rows, beside the least that anything living in Postgres must do with the same
//! events: both in one run, slice by slice in turn, so that what else the machine does falls on
//! both.

use crate::{Trouble, processor};
use hmac::{Hmac, Mac};
use postgres::types::ToSql;
use postgres::{Client, NoTls, Statement};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use sha2::Sha256;
use std::fs;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// The statement of an app that has the extension.
const OURS: &str = "select status, duplicate, error from payments.handle_webhook('test', $1, $2)";

/// One statement that stores the payload, and keeps its newest object as a row of 25 columns.
const FLOOR: &str = "
    with stored as (
        insert into public.floor_events (id, payload) values ($1, $2::text::json)
    )
    insert into public.floor_rows values (
        $3, 'test', $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15,
        $16, $17, $18, $19, $20, $21, $22, $23, $24, $25, $2::text::jsonb
    )
    on conflict (id) do update set
        environment = excluded.environment, kind = excluded.kind, customer = excluded.customer,
        subscription = excluded.subscription, invoice = excluded.invoice,
        payment_intent = excluded.payment_intent, charge = excluded.charge,
        status = excluded.status, currency = excluded.currency,
        description = excluded.description, email = excluded.email, mode = excluded.mode,
        event_type = excluded.event_type, amount = excluded.amount,
        amount_due = excluded.amount_due, amount_paid = excluded.amount_paid,
        amount_refunded = excluded.amount_refunded, livemode = excluded.livemode,
        paid = excluded.paid, created_at = excluded.created_at,
        period_start = excluded.period_start, period_end = excluded.period_end,
        updated_at = excluded.updated_at, raw = excluded.raw";

/// What the floor writes to.
const FLOOR_TABLES: &str = "
    create table public.floor_events (id text primary key, payload json not null);
    create table public.floor_rows (
        id text primary key, environment text, kind text, customer text, subscription text,
        invoice text, payment_intent text, charge text, status text, currency text,
        description text, email text, mode text, event_type text, amount bigint,
        amount_due bigint, amount_paid bigint, amount_refunded bigint, livemode boolean,
        paid boolean, created_at timestamptz, period_start timestamptz, period_end timestamptz,
        updated_at timestamptz, raw jsonb
    )";

/// What is to be measured.
#[derive(Deserialize)]
struct Order {
    /// Where the extension is, with nothing of these events in its tables.
    ours: String,
    /// Where the floor makes its tables.
    floor: String,
    postmaster: u32,
    /// A JSON array of the bodies of webhooks.
    events: String,
    signing_secret: String,
    connections: usize,
    synchronous_commit: String,
    /// Into how many parts the events are cut; the first is delivered, but not measured.
    slices: usize,
}

/// What one side did in one slice.
#[derive(Serialize)]
struct Slice {
    events: usize,
    seconds: f64,
    /// Of all of Postgres's processes.
    processor_seconds: f64,
    wal_bytes: i64,
    /// Of every event, in microseconds.
    latencies: Vec<u64>,
}

/// Both sides of a run.
#[derive(Serialize)]
struct Report {
    ours: Vec<Slice>,
    floor: Vec<Slice>,
}

/// Runs both sides.
///
/// # Errors
/// Whatever goes wrong on the way, an event that is not processed included.
pub fn measure(order: &str) -> Result<String, Trouble> {
    let order: Order = serde_json::from_str(order)?;
    let bodies: Vec<String> = serde_json::from_str(&fs::read_to_string(&order.events)?)?;
    let mut watch = connect(&order.floor, &order)?;
    watch.batch_execute(FLOOR_TABLES)?;

    let mut ours = lanes(&order.ours, OURS, deliver, &order)?;
    let mut floor = lanes(&order.floor, FLOOR, store, &order)?;
    watch.batch_execute("checkpoint")?;

    let mut report = Report {
        ours: Vec::new(),
        floor: Vec::new(),
    };
    for bodies in bodies.chunks(bodies.len().div_ceil(order.slices)) {
        let deliveries = bodies
            .iter()
            .map(|body| Delivery::of(body, &order.signing_secret))
            .collect::<Result<Vec<_>, _>>()?;
        report
            .ours
            .push(slice(&mut ours, &deliveries, &mut watch, &order)?);
        report
            .floor
            .push(slice(&mut floor, &deliveries, &mut watch, &order)?);
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

fn lanes(dsn: &str, statement: &str, send: Send, order: &Order) -> Result<Vec<Lane>, Trouble> {
    (0..order.connections)
        .map(|_| {
            let mut client = connect(dsn, order)?;
            let statement = client.prepare(statement)?;
            Ok(Lane {
                client,
                statement,
                send,
            })
        })
        .collect()
}

fn connect(dsn: &str, order: &Order) -> Result<Client, Trouble> {
    let mut client = Client::connect(dsn, NoTls)?;
    let commit = &order.synchronous_commit;
    client.batch_execute(&format!("set synchronous_commit = {commit}"))?;
    Ok(client)
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
        wal_bytes: wal(watch)? - wal_before,
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
    let receipt = client.query_one(statement, &[&delivery.body, &delivery.signature])?;
    let (status, duplicate): (&str, bool) = (receipt.get(0), receipt.get(1));
    if status != "processed" || duplicate {
        let error: Option<&str> = receipt.get(2);
        return Err(format!("{}: {status}, {error:?}", delivery.body).into());
    }
    Ok(())
}

fn store(client: &mut Client, statement: &Statement, delivery: &Delivery) -> Result<(), Trouble> {
    let fields = &delivery.fields;
    let mut values: Vec<&(dyn ToSql + Sync)> = vec![&fields.event, &delivery.body, &fields.id];
    values.extend(fields.texts.iter().map(column));
    values.extend(fields.numbers.iter().map(column));
    values.extend(fields.flags.iter().map(column));
    values.extend(fields.times.iter().map(column));
    client.execute(statement, &values)?;
    Ok(())
}

fn column<T: ToSql + Sync>(value: &T) -> &(dyn ToSql + Sync) {
    value
}

/// An event as it is sent to either side; made before the clock runs.
struct Delivery {
    body: String,
    signature: String,
    fields: Fields,
}

/// What the floor keeps in columns.
struct Fields {
    event: String,
    id: String,
    texts: [Option<String>; 12],
    numbers: [Option<i64>; 4],
    flags: [Option<bool>; 2],
    times: [Option<SystemTime>; 4],
}

impl Delivery {
    fn of(body: &str, secret: &str) -> Result<Delivery, Trouble> {
        let event: Value = serde_json::from_str(body)?;
        Ok(Delivery {
            body: body.to_owned(),
            signature: sign(body, secret)?,
            fields: Fields::of(&event),
        })
    }
}

impl Fields {
    fn of(event: &Value) -> Fields {
        let object = &event["data"]["object"];
        let text = |name: &str| object[name].as_str().map(str::to_owned);
        let number = |name: &str| object[name].as_i64();
        let time = |value: &Value| {
            let seconds = value.as_u64()?;
            Some(UNIX_EPOCH + Duration::from_secs(seconds))
        };
        Fields {
            event: event["id"].as_str().unwrap_or_default().to_owned(),
            id: text("id").unwrap_or_default(),
            texts: [
                text("object"),
                text("customer"),
                text("subscription"),
                text("invoice"),
                text("payment_intent"),
                text("latest_charge"),
                text("status"),
                text("currency"),
                text("description"),
                text("email"),
                text("mode"),
                event["type"].as_str().map(str::to_owned),
            ],
            numbers: [
                number("amount"),
                number("amount_due"),
                number("amount_paid"),
                number("amount_refunded"),
            ],
            flags: [object["livemode"].as_bool(), object["paid"].as_bool()],
            times: [
                time(&object["created"]),
                time(&object["period_start"]),
                time(&object["period_end"]),
                time(&event["created"]),
            ],
        }
    }
}

/// A `Stripe-Signature` of now. <https://docs.stripe.com/webhooks/signatures>
fn sign(body: &str, secret: &str) -> Result<String, Trouble> {
    let now = SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs();
    let mut mac = Hmac::<Sha256>::new_from_slice(secret.as_bytes())?;
    mac.update(format!("{now}.{body}").as_bytes());
    Ok(format!(
        "t={now},v1={}",
        hex::encode(mac.finalize().into_bytes())
    ))
}
