//! The outside client of `tests/bench.sh`: each subcommand reads what to do as JSON from its
//! standard input, and writes what it measured as JSON to its standard output.

mod account;
mod apart;
mod bulk;
mod checkout;
mod micro;
mod processor;
mod standin;
mod steps;
mod webhook;

use std::error::Error;
use std::io::{Read, stdin};
use std::process::ExitCode;

/// What ends a measurement.
type Trouble = Box<dyn Error + Send + Sync>;

fn main() -> ExitCode {
    match run() {
        Ok(measured) => {
            println!("{measured}");
            ExitCode::SUCCESS
        }
        Err(trouble) => {
            eprintln!("{trouble:?}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<String, Trouble> {
    if std::env::args().nth(1).as_deref() == Some("standin") {
        return apart::serve();
    }
    let mut order = String::new();
    stdin().read_to_string(&mut order)?;
    match std::env::args().nth(1).as_deref() {
        Some("webhook") => webhook::measure(&order),
        Some("checkout") => checkout::measure(&order),
        Some("steps") => steps::measure(&order),
        Some("bulk") => bulk::measure(&order),
        Some("micro") => micro::measure(&order),
        _ => Err("usage: payments-bench webhook|checkout|steps|bulk|micro".into()),
    }
}
