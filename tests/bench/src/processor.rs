//! What the processes of a Postgres have used, as Linux counts it.

use crate::Trouble;
use std::fs;

/// The fields of /proc/PID/stat that are read here, counted from the one after the command's name
/// (proc_pid_stat(5)).
const PARENT: usize = 1;
const USER: usize = 11;
const SYSTEM: usize = 12;
const USER_OF_CHILDREN: usize = 13;
const SYSTEM_OF_CHILDREN: usize = 14;

/// Linux shows times in hundredths of a second, whatever its own tick is.
const TICK: f64 = 0.01;

/// Seconds of processor time, user and system, that a postmaster and all its processes have used,
/// the ended ones included.
pub fn seconds(postmaster: u32) -> Result<f64, Trouble> {
    let mut total = 0.0;
    for entry in fs::read_dir("/proc")? {
        let name = entry?.file_name();
        let Some(pid) = name.to_str().and_then(|name| name.parse().ok()) else {
            continue;
        };
        // A process may end while we look.
        let Some(stat) = stat(pid) else { continue };
        if pid == postmaster {
            total += TICK * (stat[USER] + stat[SYSTEM]) as f64;
            total += TICK * (stat[USER_OF_CHILDREN] + stat[SYSTEM_OF_CHILDREN]) as f64;
        } else if stat[PARENT] == i64::from(postmaster) {
            total += scheduled(pid).unwrap_or_else(|| TICK * (stat[USER] + stat[SYSTEM]) as f64);
        }
    }
    Ok(total)
}

fn stat(pid: u32) -> Option<Vec<i64>> {
    let text = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let (_, fields) = text.rsplit_once(')')?;
    let numbers: Vec<i64> = fields
        .split_whitespace()
        .map(|field| field.parse().unwrap_or(0))
        .collect();
    (numbers.len() > SYSTEM_OF_CHILDREN).then_some(numbers)
}

/// The same in nanoseconds, where the kernel keeps it.
fn scheduled(pid: u32) -> Option<f64> {
    let text = fs::read_to_string(format!("/proc/{pid}/schedstat")).ok()?;
    let nanoseconds: f64 = text.split_whitespace().next()?.parse().ok()?;
    Some(nanoseconds / 1e9)
}

/// Seconds of processor time that one process has used.
pub fn of(pid: u32) -> Result<f64, Trouble> {
    Ok(scheduled(pid).ok_or("this kernel keeps no /proc/PID/schedstat")?)
}

/// Memory of a process that no other shares.
pub fn private_megabytes(pid: u32) -> Result<f64, Trouble> {
    let text = fs::read_to_string(format!("/proc/{pid}/smaps_rollup"))?;
    let mut total = 0.0;
    for line in text.lines().filter(|line| line.starts_with("Private_")) {
        let kilobytes: f64 = line.split_whitespace().nth(1).unwrap_or("0").parse()?;
        total += kilobytes / 1024.0;
    }
    Ok(total)
}

/// Memory of a process that is no file's and no other's: quicker to ask for.
pub fn anonymous_megabytes(pid: u32) -> Result<f64, Trouble> {
    let text = fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = text.lines().find_map(|line| line.strip_prefix("RssAnon:"));
    let kilobytes = line.and_then(|line| line.split_whitespace().next());
    let kilobytes: f64 = kilobytes.ok_or("this kernel shows no RssAnon")?.parse()?;
    Ok(kilobytes / 1024.0)
}
