//! Long statements, one after the other, with Stripe's stand-in at hand: how long they take, how
//! much of that is the stand-in's, and how much memory the backend comes to need.

use crate::account::{Account, Plan};
use crate::standin::Standin;
use crate::{Trouble, processor};
use postgres::{Client, NoTls};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::fs;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

/// What is to be measured.
#[derive(Deserialize)]
struct Order {
    /// As a superuser.
    dsn: String,
    database: String,
    /// With `leaf.pem` and `leaf.key`.
    certificates: PathBuf,
    /// The file with what there is at Stripe.
    account: String,
    steps: Vec<Step>,
}

#[derive(Deserialize)]
struct Step {
    /// What comes first, and does not count.
    prepare: String,
    statement: String,
    /// How much was done: one number.
    count: String,
}

#[derive(Serialize)]
struct Report {
    seconds: f64,
    /// Of these the stand-in's.
    stripe_seconds: f64,
    requests: usize,
    count: i64,
    processor_seconds: f64,
    /// The most that the backend had at any time of what no other process shares.
    peak_megabytes: f64,
}

/// Runs the steps, each on a connection of its own.
///
/// # Errors
/// Whatever goes wrong on the way.
pub fn measure(order: &str) -> Result<String, Trouble> {
    let order: Order = serde_json::from_str(order)?;
    let plan: Plan = serde_json::from_str(&fs::read_to_string(&order.account)?)?;
    let stripe = Standin::start(&order.certificates, Value::Null)?;
    stripe.show(Account::of(plan));
    let mut admin = Client::connect(&order.dsn, NoTls)?;
    admin.batch_execute(&format!(
        "alter database {} set payments.stripe_api_base = '{}'",
        order.database,
        stripe.base_url()
    ))?;
    let reports: Result<Vec<_>, _> = order
        .steps
        .iter()
        .map(|step| step.run(&order.dsn, &mut admin, &stripe))
        .collect();
    Ok(serde_json::to_string(&reports?)?)
}

impl Step {
    fn run(&self, dsn: &str, admin: &mut Client, stripe: &Standin) -> Result<Report, Trouble> {
        admin.batch_execute(&self.prepare)?;
        let mut client = Client::connect(dsn, NoTls)?;
        let backend: i32 = client.query_one("select pg_backend_pid()", &[])?.get(0);
        let backend = backend as u32;
        let before = (stripe.busy(), stripe.requests(), processor::of(backend)?);
        let is_over = AtomicBool::new(false);
        let started = Instant::now();
        let (done, peak) = thread::scope(|scope| {
            let watch = scope.spawn(|| peak(backend, &is_over));
            let done = client.batch_execute(&self.statement);
            is_over.store(true, Ordering::Relaxed);
            (done, watch.join())
        });
        let seconds = started.elapsed().as_secs_f64();
        done?;
        Ok(Report {
            seconds,
            stripe_seconds: stripe.busy() - before.0,
            requests: stripe.requests() - before.1,
            count: admin.query_one(&self.count, &[])?.get(0),
            processor_seconds: processor::of(backend)? - before.2,
            peak_megabytes: peak.map_err(|_| "the watch panicked")??,
        })
    }
}

fn peak(backend: u32, is_over: &AtomicBool) -> Result<f64, Trouble> {
    let mut peak = 0.0_f64;
    while !is_over.load(Ordering::Relaxed) {
        peak = peak.max(processor::anonymous_megabytes(backend)?);
        thread::sleep(Duration::from_millis(10));
    }
    Ok(peak)
}
