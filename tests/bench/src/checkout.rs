//! Checkouts, beside the least that one can take: a request to Stripe on a connection that is
//! kept, and a row that is inserted before and updated after it.

use crate::apart::Apart;
use crate::{Trouble, processor};
use postgres::{Client, NoTls, Statement};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::fs;
use std::path::PathBuf;
use std::sync::Barrier;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};
use ureq::Agent;
use ureq::tls::{Certificate, RootCerts, TlsConfig};

/// The statement of an app that has the extension.
const OURS: &str = "
    select url
      from payments.create_checkout_session(
               environment => 'test',
               mode => 'payment',
               line_items => $2::text::jsonb,
               success_url => 'https://shop.example/thanks',
               cancel_url => 'https://shop.example/cart',
               subject => pg_catalog.jsonb_build_object('type', 'user', 'id', $1::text),
               idempotency_key => 'cart'
           )";

const INSERT: &str = "
    insert into public.floor_sessions (
        id, environment, mode, status, subject_type, subject_id, line_items, success_url,
        cancel_url, idempotency_key, requested_by, generation, created_at, updated_at
    )
    values (
        gen_random_uuid(), 'test', 'payment', 'initialized', 'user', $1, $2::text::jsonb,
        'https://shop.example/thanks', 'https://shop.example/cart', 'cart', 'authenticated', 1,
        now(), now()
    )
    returning id::text";

const UPDATE: &str = "
    update public.floor_sessions
       set status = 'open', stripe_checkout_session_id = $2, url = $3, updated_at = now()
     where id = $1::text::uuid";

/// What is asked of Stripe in either case.
const FORM: &str = "mode=payment&line_items[0][price]=price_1&line_items[0][quantity]=1\
    &success_url=https://shop.example/thanks&cancel_url=https://shop.example/cart&customer=cus_1";

/// What is to be measured.
#[derive(Deserialize)]
struct Order {
    sides: [Side; 2],
    /// With `ca.pem`, `leaf.pem` and `leaf.key`.
    certificates: PathBuf,
    /// What is sold.
    line_items: String,
    /// What Stripe answers.
    session: Value,
    delays: Vec<Delay>,
    /// Backends whose first call is measured.
    backends: usize,
    /// How many call at once; none for no such measurement.
    crowd: usize,
    pools: Vec<usize>,
    pool_seconds: f64,
}

/// Where to sell, and how.
#[derive(Deserialize)]
struct Side {
    /// As a superuser.
    dsn: String,
    database: String,
    way: Kind,
}

#[derive(Deserialize)]
#[serde(rename_all = "lowercase")]
enum Kind {
    /// By the extension.
    Ours,
    /// By the client, into `public.floor_sessions`.
    Floor,
}

#[derive(Deserialize)]
struct Delay {
    milliseconds: u64,
    calls: usize,
}

/// What was measured, of each side.
#[derive(Default, Serialize)]
struct Report {
    /// Milliseconds of the first calls of backends.
    first: [Vec<f64>; 2],
    later: Vec<Later>,
    crowds: Vec<Crowd>,
    pools: Vec<Pool>,
}

/// Calls of backends that have called before.
#[derive(Serialize)]
struct Later {
    delay: u64,
    sides: [Tally; 2],
}

#[derive(Default, Serialize)]
struct Tally {
    /// Milliseconds over the delay, of every call.
    over: Vec<f64>,
    /// Connections to Stripe that were made in as many calls as flushes are counted of.
    connections: usize,
    /// Seconds of the backend's processor time.
    processor: f64,
    /// Flushes of WAL to disk, a call.
    flushes: f64,
}

/// So many calls at once, while Stripe takes half a second.
#[derive(Serialize)]
struct Crowd {
    /// Milliseconds over the delay, of backends that have not called before.
    first: Vec<f64>,
    /// And of the same in the next round.
    later: Vec<f64>,
    connections: usize,
    /// Megabytes that no other process shares, of a backend each.
    memory: Vec<f64>,
}

#[derive(Serialize)]
struct Pool {
    connections: usize,
    calls_per_second: [f64; 2],
}

/// Runs all of it.
///
/// # Errors
/// Whatever goes wrong on the way.
pub fn measure(order: &str) -> Result<String, Trouble> {
    let order: Order = serde_json::from_str(order)?;
    let bench = Bench {
        stripe: Apart::start(&order.certificates, &order.session)?,
        authority: Certificate::from_pem(&fs::read(order.certificates.join("ca.pem"))?)?,
        subjects: AtomicU64::new(1),
        order,
    };
    let [one, other] = &bench.order.sides;
    let mut admin = Client::connect(&one.dsn, NoTls)?;
    for side in [one, other] {
        let setting = format!(
            "alter database {} set payments.stripe_api_base = '{}'",
            side.database,
            bench.stripe.base_url()
        );
        admin.batch_execute(&setting)?;
    }
    let mut report = Report::default();
    for _ in 0..bench.order.backends {
        for (side, times) in bench.order.sides.iter().zip(&mut report.first) {
            times.push(bench.lane(side)?.call()?);
        }
    }
    for delay in &bench.order.delays {
        report.later.push(bench.later(delay, &mut admin)?);
    }
    bench.stripe.take(HALF_A_SECOND)?;
    if bench.order.crowd > 0 {
        report.crowds = vec![bench.crowd(one)?, bench.crowd(other)?];
    }
    for &connections in &bench.order.pools {
        let calls_per_second = [
            bench.pool(one, connections)?,
            bench.pool(other, connections)?,
        ];
        report.pools.push(Pool {
            connections,
            calls_per_second,
        });
    }
    Ok(serde_json::to_string(&report)?)
}

/// As Stripe takes for a session on a slow day.
const HALF_A_SECOND: Duration = Duration::from_millis(500);

/// So many calls come first, for a backend to have its plans.
const WARMING: usize = 8;

struct Bench {
    order: Order,
    stripe: Apart,
    authority: Certificate<'static>,
    /// Nobody buys twice.
    subjects: AtomicU64,
}

impl Bench {
    fn lane(&self, side: &Side) -> Result<Lane<'_>, Trouble> {
        let mut client = Client::connect(&side.dsn, NoTls)?;
        let backend: i32 = client.query_one("select pg_backend_pid()", &[])?.get(0);
        let way = match side.way {
            Kind::Ours => {
                client.batch_execute("set role authenticated")?;
                Way::Ours(client.prepare(OURS)?)
            }
            Kind::Floor => Way::Floor {
                insert: client.prepare(INSERT)?,
                update: client.prepare(UPDATE)?,
                agent: self.agent(),
                url: format!("{}/v1/checkout/sessions", self.stripe.base_url()),
            },
        };
        Ok(Lane {
            bench: self,
            client,
            backend: backend as u32,
            way,
        })
    }

    fn lanes(&self, side: &Side, count: usize) -> Result<Vec<Lane<'_>>, Trouble> {
        (0..count).map(|_| self.lane(side)).collect()
    }

    fn agent(&self) -> Agent {
        let trusted = std::slice::from_ref(&self.authority);
        let roots = RootCerts::new_with_certs(trusted);
        let tls = TlsConfig::builder().root_certs(roots).build();
        Agent::config_builder().tls_config(tls).build().into()
    }

    /// Both sides in turn.
    fn later(&self, delay: &Delay, admin: &mut Client) -> Result<Later, Trouble> {
        self.stripe.take(Duration::ZERO)?;
        let [one, other] = &self.order.sides;
        let mut lanes = [self.lane(one)?, self.lane(other)?];
        let mut sides = <[Tally; 2]>::default();
        for (lane, tally) in lanes.iter_mut().zip(&mut sides) {
            for _ in 0..WARMING {
                lane.call()?;
            }
            let connections = self.stripe.connections()?;
            tally.flushes = lane.flushes(admin)?;
            tally.connections = self.stripe.connections()? - connections;
        }
        self.stripe
            .take(Duration::from_millis(delay.milliseconds))?;
        for _ in 0..delay.calls {
            for (lane, tally) in lanes.iter_mut().zip(&mut sides) {
                lane.watched(tally)?;
            }
        }
        let delay = delay.milliseconds;
        for time in sides.iter_mut().flat_map(|tally| &mut tally.over) {
            *time -= delay as f64;
        }
        Ok(Later { delay, sides })
    }

    /// Everybody at once, twice.
    fn crowd(&self, side: &Side) -> Result<Crowd, Trouble> {
        let before = self.stripe.connections()?;
        let mut lanes = self.lanes(side, self.order.crowd)?;
        let mut crowd = Crowd {
            first: together(&mut lanes)?,
            later: together(&mut lanes)?,
            connections: self.stripe.connections()? - before,
            memory: lanes.iter().map(Lane::memory).collect::<Result<_, _>>()?,
        };
        for time in crowd.first.iter_mut().chain(&mut crowd.later) {
            *time -= HALF_A_SECOND.as_secs_f64() * 1e3;
        }
        Ok(crowd)
    }

    /// Calls a second of so many connections, each of which calls again as soon as it is answered.
    fn pool(&self, side: &Side, connections: usize) -> Result<f64, Trouble> {
        let mut lanes = self.lanes(side, connections)?;
        together(&mut lanes)?;
        let started = Instant::now();
        let calls: usize = thread::scope(|scope| {
            let run = |lane| scope.spawn(|| self.sell(lane, started));
            let running: Vec<_> = lanes.iter_mut().map(run).collect();
            running.into_iter().map(joined).sum::<Result<_, _>>()
        })?;
        Ok(calls as f64 / started.elapsed().as_secs_f64())
    }

    /// Calls until the time is over: how many.
    fn sell(&self, lane: &mut Lane, started: Instant) -> Result<usize, Trouble> {
        let mut calls = 0;
        while started.elapsed().as_secs_f64() < self.order.pool_seconds {
            lane.call()?;
            calls += 1;
        }
        Ok(calls)
    }
}

/// One call of everybody, begun at the same moment: milliseconds each.
fn together(lanes: &mut [Lane]) -> Result<Vec<f64>, Trouble> {
    let start = Barrier::new(lanes.len());
    thread::scope(|scope| {
        let running: Vec<_> = lanes
            .iter_mut()
            .map(|lane| {
                scope.spawn(|| {
                    start.wait();
                    lane.call()
                })
            })
            .collect();
        running.into_iter().map(joined).collect()
    })
}

fn joined<T>(thread: thread::ScopedJoinHandle<Result<T, Trouble>>) -> Result<T, Trouble> {
    thread
        .join()
        .map_err(|_| "a connection's thread panicked")?
}

/// A connection, and how it sells.
struct Lane<'a> {
    bench: &'a Bench,
    client: Client,
    backend: u32,
    way: Way,
}

enum Way {
    Ours(Statement),
    Floor {
        insert: Statement,
        update: Statement,
        agent: Agent,
        url: String,
    },
}

impl Lane<'_> {
    /// One checkout of somebody who has not bought before: milliseconds.
    fn call(&mut self) -> Result<f64, Trouble> {
        let subject = self
            .bench
            .subjects
            .fetch_add(1, Ordering::Relaxed)
            .to_string();
        let line_items = &self.bench.order.line_items;
        let started = Instant::now();
        match &self.way {
            Way::Ours(statement) => {
                let row = self.client.query_one(statement, &[&subject, line_items])?;
                row.get::<_, Option<&str>>(0).ok_or("there is no URL")?;
            }
            Way::Floor {
                insert,
                update,
                agent,
                url,
            } => {
                let mut transaction = self.client.transaction()?;
                let id: String = transaction
                    .query_one(insert, &[&subject, line_items])?
                    .get(0);
                let answer = agent
                    .post(url)
                    .content_type("application/x-www-form-urlencoded")
                    .send(FORM)?
                    .body_mut()
                    .read_to_string()?;
                let session: Value = serde_json::from_str(&answer)?;
                let (name, at) = (session["id"].as_str(), session["url"].as_str());
                transaction.execute(update, &[&id, &name, &at])?;
                transaction.commit()?;
            }
        }
        Ok(started.elapsed().as_secs_f64() * 1e3)
    }

    fn watched(&mut self, tally: &mut Tally) -> Result<(), Trouble> {
        let processor = processor::of(self.backend)?;
        tally.over.push(self.call()?);
        tally.processor += processor::of(self.backend)? - processor;
        Ok(())
    }

    /// How often the server flushes WAL to disk, a call.
    fn flushes(&mut self, admin: &mut Client) -> Result<f64, Trouble> {
        const CALLS: u32 = 20;
        self.report()?;
        let before = flushes(admin)?;
        for _ in 0..CALLS {
            self.call()?;
        }
        self.report()?;
        Ok((flushes(admin)? - before) as f64 / f64::from(CALLS))
    }

    /// Has the backend add what it did to the server's statistics: by itself it does so once a
    /// second at most.
    fn report(&mut self) -> Result<(), Trouble> {
        self.client
            .batch_execute("select pg_stat_force_next_flush()")?;
        Ok(self.client.batch_execute("select")?)
    }

    fn memory(&self) -> Result<f64, Trouble> {
        processor::private_megabytes(self.backend)
    }
}

/// Flushes of WAL by all processes so far, where the server's version counts them.
fn flushes(admin: &mut Client) -> Result<i64, Trouble> {
    let version: i32 = admin
        .query_one("select current_setting('server_version_num')::integer", &[])?
        .get(0);
    let statement = match version {
        ..180_000 => "select wal_sync from pg_stat_wal",
        _ => "select sum(fsyncs)::bigint from pg_stat_io where object = 'wal'",
    };
    Ok(admin.query_one(statement, &[])?.get(0))
}
