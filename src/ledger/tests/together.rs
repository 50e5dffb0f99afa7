//! Many connections telling the shuffled events of the same objects end in the rows that one
//! connection ends in, without deadlock.
//!
//! The database here is as small as one can be that still shows what matters of READ COMMITTED:
//! each call sees what others committed before it began and the transaction's own writes; locks
//! on names and on rows are held to the end of the transaction; waiting too long is a deadlock.

mod world;

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::sync::{Condvar, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use ledger::memory::Memory;
use ledger::{
    Due, Find, Key, Known, Link, Lock, Merged, Mirrored, Observation, Outcome, Row, Store, observe,
};
use payments_ledger as ledger;
use serde_json::{Map, Value};
use world::{Dice, Shape, deliver, diff, empty, lives, text, with_our_row};

struct Database {
    committed: Mutex<Memory>,
    locks: Mutex<BTreeMap<String, Vec<(usize, bool)>>>,
    released: Condvar,
}

/// What a transaction did and did not yet commit.
#[derive(Clone)]
enum Deed {
    Merge(Vec<(Key, Mirrored)>),
    Write(Vec<Row>),
    Delete(Vec<Row>),
    Due(Vec<(Key, Option<Due>)>),
}

impl Deed {
    fn apply(self, store: &mut Memory) {
        let done = match self {
            Deed::Merge(observed) => store.merge(observed).map(drop),
            Deed::Write(rows) => store.write(rows).map(drop),
            Deed::Delete(rows) => store.delete(rows),
            Deed::Due(dues) => store.set_due(&dues),
        };
        done.expect("memory does not fail");
    }
}

struct Transaction<'d> {
    database: &'d Database,
    number: usize,
    deeds: Vec<Deed>,
    dice: Dice,
}

impl<'d> Transaction<'d> {
    fn new(database: &'d Database, number: usize, seed: u64) -> Self {
        let dice = Dice::new(seed);
        Self {
            database,
            number,
            deeds: Vec::new(),
            dice,
        }
    }

    fn view(&mut self) -> Memory {
        // Others come between any two calls, at times all of them.
        let pause = if self.dice.roll(4) == 0 { 2000 } else { 50 };
        thread::sleep(Duration::from_micros(pause));
        let mut view = self.database.committed.lock().unwrap().clone();
        self.deeds
            .iter()
            .cloned()
            .for_each(|deed| deed.apply(&mut view));
        view
    }

    fn take(&self, name: String, exclusive: bool, wait: bool) -> bool {
        let deadline = Instant::now() + Duration::from_secs(20);
        let mut locks = self.database.locks.lock().unwrap();
        loop {
            let holders = locks.entry(name.clone()).or_default();
            let others =
                |(holder, alone): &(usize, bool)| *holder != self.number && (*alone || exclusive);
            if !holders.iter().any(others) {
                holders.push((self.number, exclusive));
                return true;
            }
            if !wait {
                return false;
            }
            let left = deadline.saturating_duration_since(Instant::now());
            assert!(!left.is_zero(), "deadlock: {name} is held by {holders:?}");
            locks = self.database.released.wait_timeout(locks, left).unwrap().0;
        }
    }

    fn end(&mut self) {
        self.deeds.clear();
        let mut locks = self.database.locks.lock().unwrap();
        locks
            .values_mut()
            .for_each(|holders| holders.retain(|(n, _)| *n != self.number));
        self.database.released.notify_all();
    }

    fn commit(mut self) {
        let mut committed = self.database.committed.lock().unwrap();
        self.deeds
            .drain(..)
            .for_each(|deed| deed.apply(&mut committed));
        drop(committed);
        self.end();
    }

    fn take_rows(&self, rows: &[Row]) {
        for row in rows {
            self.take(
                format!("row {} {:?}", row.table.name, row.key()),
                true,
                true,
            );
        }
    }
}

impl Store for Transaction<'_> {
    type Error = Infallible;

    fn environment(&self) -> &str {
        "test"
    }

    fn authentic(&self, metadata: &Map<String, Value>) -> bool {
        self.database.committed.lock().unwrap().authentic(metadata)
    }

    fn lock(&mut self, locks: &[Lock]) -> Result<(), Infallible> {
        for lock in locks {
            self.take(format!("{:?}", lock.scope), lock.exclusive, true);
        }
        Ok(())
    }

    fn try_lock(&mut self, locks: &[Lock]) -> Result<bool, Infallible> {
        let free = |lock: &Lock| self.take(format!("{:?}", lock.scope), lock.exclusive, false);
        Ok(locks.iter().all(free))
    }

    fn merge(&mut self, observed: Vec<(Key, Mirrored)>) -> Result<Vec<Merged>, Infallible> {
        for (key, _) in &observed {
            self.take(format!("mirror {key:?}"), true, true);
        }
        let merged = self.view().merge(observed.clone());
        self.deeds.push(Deed::Merge(observed));
        merged
    }

    fn objects(
        &mut self,
        keys: &[Key],
        linked: &[(Link, String)],
        known: &BTreeMap<Key, Known>,
    ) -> Result<Vec<Known>, Infallible> {
        self.view().objects(keys, linked, known)
    }

    fn find(&mut self, questions: &[Find]) -> Result<Vec<Row>, Infallible> {
        self.view().find(questions)
    }

    fn write(&mut self, rows: Vec<Row>) -> Result<Vec<Row>, Infallible> {
        self.take_rows(&rows);
        let written = self.view().write(rows.clone());
        self.deeds.push(Deed::Write(rows));
        written
    }

    fn delete(&mut self, rows: Vec<Row>) -> Result<(), Infallible> {
        self.take_rows(&rows);
        self.deeds.push(Deed::Delete(rows));
        Ok(())
    }

    fn set_due(&mut self, dues: &[(Key, Option<Due>)]) -> Result<(), Infallible> {
        for (key, _) in dues {
            self.take(format!("mirror {key:?}"), true, true);
        }
        self.deeds.push(Deed::Due(dues.to_vec()));
        Ok(())
    }
}

/// One connection: each event in a transaction of its own.
fn connection(database: &Database, number: usize, events: Vec<Observation>) {
    let mut dice = Dice::new(number as u64);
    for event in events {
        let mut locks = Vec::new();
        loop {
            let mut transaction = Transaction::new(database, number, dice.roll(1 << 20) as u64);
            let outcome = observe(&mut transaction, vec![event.clone()], &locks);
            match outcome.expect("memory does not fail") {
                Outcome::Settled(_) => break transaction.commit(),
                Outcome::Contended(more) => {
                    transaction.end();
                    locks.extend(more);
                }
            }
        }
    }
}

#[test]
fn many_connections_end_where_one_does() {
    for (name, mode, world) in lives::all() {
        let start = mode.map_or_else(empty, with_our_row);
        let told = world.told.iter().enumerate();
        let events: Vec<_> = told
            .map(|(n, told)| told.event(&format!("evt_{n}"), Shape::Endive))
            .collect();
        let mut alone = start.clone();
        events
            .iter()
            .for_each(|event| deliver(&mut alone, vec![event.clone()]));

        for seed in 0..rounds() {
            let mut shuffled = events.clone();
            Dice::new(seed).shuffle(&mut shuffled);
            let database = Database {
                committed: Mutex::new(start.clone()),
                locks: Mutex::default(),
                released: Condvar::new(),
            };
            thread::scope(|scope| {
                for number in 0..CONNECTIONS {
                    let share = shuffled.iter().skip(number).step_by(CONNECTIONS);
                    let (share, database) = (share.cloned().collect(), &database);
                    scope.spawn(move || connection(database, number, share));
                }
            });
            let together = database.committed.into_inner().unwrap();
            assert_eq!(alone.due(), together.due(), "{name}, seed {seed}");
            let (alone, together) = (text(&alone), text(&together));
            assert!(
                alone == together,
                "{name}, seed {seed}: rows differ{}",
                diff(&alone, &together)
            );
        }
    }
}

const CONNECTIONS: usize = 6;

/// How many shuffles each life-cycle is tried in: `ROUNDS` from outside, for a long night.
fn rounds() -> u64 {
    std::env::var("ROUNDS")
        .ok()
        .and_then(|n| n.parse().ok())
        .unwrap_or(15)
}
