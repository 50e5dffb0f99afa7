//! The stand-in in a process of its own, and from a file of its own: where it shares the client's
//! code, to answer warms that code for the client, and for nobody else.

use crate::Trouble;
use crate::standin::Standin;
use serde_json::{Value, json};
use std::fs;
use std::io::{BufRead, BufReader, Write, stdin};
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

/// The stand-in; it ends with this value.
pub struct Apart {
    process: Child,
    pipes: Mutex<Pipes>,
    base_url: String,
}

struct Pipes {
    to: ChildStdin,
    from: BufReader<ChildStdout>,
}

impl Apart {
    /// Listens, with `leaf.pem` and `leaf.key` of the directory, where the program is copied to.
    ///
    /// # Errors
    /// If it does not start.
    pub fn start(certificates: &Path, session: &Value) -> Result<Apart, Trouble> {
        let program = certificates.join("standin");
        fs::copy(std::env::current_exe()?, &program)?;
        let mut process = Command::new(&program)
            .arg("standin")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        let (to, from) = (process.stdin.take(), process.stdout.take());
        let mut pipes = Pipes {
            to: to.ok_or("no pipe")?,
            from: BufReader::new(from.ok_or("no pipe")?),
        };
        let order = json!({"certificates": certificates, "session": session});
        let base_url = pipes.ask(&order.to_string())?;
        Ok(Apart {
            process,
            pipes: Mutex::new(pipes),
            base_url,
        })
    }

    /// For `payments.stripe_api_base`.
    pub fn base_url(&self) -> &str {
        &self.base_url
    }

    /// How long every answer takes from now on.
    ///
    /// # Errors
    /// If the stand-in has ended.
    pub fn take(&self, delay: Duration) -> Result<(), Trouble> {
        self.tell(&delay.as_micros().to_string()).map(drop)
    }

    /// How many connections were made so far.
    ///
    /// # Errors
    /// If the stand-in has ended.
    pub fn connections(&self) -> Result<usize, Trouble> {
        self.tell("")
    }

    fn tell(&self, delay: &str) -> Result<usize, Trouble> {
        let mut pipes = self.pipes.lock().unwrap_or_else(PoisonError::into_inner);
        Ok(pipes.ask(delay)?.parse()?)
    }
}

impl Pipes {
    fn ask(&mut self, line: &str) -> Result<String, Trouble> {
        writeln!(self.to, "{line}")?;
        let mut answer = String::new();
        self.from.read_line(&mut answer)?;
        Ok(answer.trim_end().to_owned())
    }
}

impl Drop for Apart {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// What the process does: it is told what to answer and says where, and then, line by line, is told
/// how long to take, if anything changes, and says how many connections there were.
///
/// # Errors
/// If it cannot listen.
pub fn serve() -> Result<String, Trouble> {
    let mut lines = stdin().lock().lines();
    let order: Value = serde_json::from_str(&lines.next().ok_or("no order")??)?;
    let certificates = order["certificates"].as_str().ok_or("no directory")?;
    let standin = Standin::start(Path::new(certificates), order["session"].clone())?;
    println!("{}", standin.base_url());
    for line in lines {
        if let Ok(delay) = line?.parse() {
            standin.take(Duration::from_micros(delay));
        }
        println!("{}", standin.connections());
    }
    Ok(String::new())
}
