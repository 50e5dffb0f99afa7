//! A store in memory, for tests: of the ledger, and of whatever is built on it.

use std::collections::{BTreeMap, BTreeSet};
use std::convert::Infallible;
use std::sync::Arc;

use serde_json::{Map, Value};

use crate::links::Link;
use crate::mirror::{Mirrored, Object};
use crate::observation::Key;
use crate::rows::Projected;
use crate::store::{Due, Find, Known, Lock, Merged, Scope, Store};
use crate::table::{Cell, Row};

/// One environment's mirror and rows. Clone it for a savepoint.
#[derive(Clone, Debug)]
pub struct Memory {
    environment: &'static str,
    authentic: fn(&Map<String, Value>) -> bool,
    mirror: BTreeMap<Key, (Arc<Kept>, Option<String>)>,
    links: BTreeMap<(Link, String), BTreeSet<Key>>,
    tables: BTreeMap<&'static str, BTreeMap<Vec<Cell>, Row>>,
    held: BTreeMap<Scope, bool>,
    jealous: bool,
    /// Every row written, as an app's triggers see it: what it was, what it is.
    pub fired: Vec<(Option<Row>, Row)>,
    /// How often the store was called since the transaction began.
    pub round_trips: usize,
}

#[derive(Debug)]
struct Kept {
    mirrored: Mirrored,
    object: Object,
}

impl Kept {
    /// What is left of a state once it has been through a table.
    fn new(state: &Mirrored) -> Self {
        let key = state.key().clone();
        let mirrored =
            Mirrored::from_stored(key, state.to_stored()).expect("what was just written");
        let object = mirrored.object();
        Self { mirrored, object }
    }
}

impl Memory {
    /// An empty environment. `authentic` is what [`Store::authentic`] answers.
    pub fn new(environment: &'static str, authentic: fn(&Map<String, Value>) -> bool) -> Self {
        Self {
            environment,
            authentic,
            mirror: BTreeMap::new(),
            links: BTreeMap::new(),
            tables: BTreeMap::new(),
            held: BTreeMap::new(),
            jealous: false,
            fired: Vec::new(),
            round_trips: 0,
        }
    }

    /// Makes every lock that is only tried look taken by another transaction.
    pub fn jealous(mut self) -> Self {
        self.jealous = true;
        self
    }

    /// Ends the transaction.
    pub fn commit(&mut self) {
        self.held.clear();
        self.round_trips = 0;
    }

    /// Puts a row of our own, as an INSERT would.
    pub fn insert(&mut self, row: Row) {
        self.tables
            .entry(row.table.name)
            .or_default()
            .insert(row.key(), row);
    }

    /// Forgets every row that is not source data, as if before a rebuild.
    pub fn forget(&mut self, table: &str) {
        self.tables.remove(table);
    }

    /// All rows of a table, by key.
    pub fn all<P: Projected>(&self) -> Vec<P> {
        let rows = self
            .tables
            .get(P::TABLE.name)
            .into_iter()
            .flat_map(BTreeMap::values);
        rows.filter_map(P::from_row).collect()
    }

    /// Every row of every table, by table and key.
    pub fn rows(&self) -> Vec<&Row> {
        self.tables.values().flat_map(BTreeMap::values).collect()
    }

    /// The keys of everything mirrored.
    pub fn keys(&self) -> Vec<Key> {
        self.mirror.keys().cloned().collect()
    }

    /// What Stripe must be asked about.
    pub fn due(&self) -> Vec<(&Key, &str)> {
        self.mirror
            .iter()
            .filter_map(|(key, (_, due))| Some((key, due.as_deref()?)))
            .collect()
    }

    fn known(&self, key: &Key) -> Option<Known> {
        let (kept, due) = self.mirror.get(key)?;
        Some(Known {
            object: kept.object.clone(),
            due: due.clone(),
        })
    }

    fn link(&mut self, object: &Object) {
        for (link, id) in object.links.columns() {
            if let Some(id) = id {
                let keys = self.links.entry((link, id.to_owned())).or_default();
                keys.insert(object.key.clone());
            }
        }
    }

    fn unlink(&mut self, object: &Object) {
        for (link, id) in object.links.columns() {
            if let Some(keys) = id.and_then(|id| self.links.get_mut(&(link, id.to_owned()))) {
                keys.remove(&object.key);
            }
        }
    }

    fn holds(&self, lock: &Lock) -> bool {
        self.held
            .get(&lock.scope)
            .is_some_and(|held| *held >= lock.exclusive)
    }

    fn take(&mut self, lock: &Lock) {
        *self.held.entry(lock.scope.clone()).or_default() |= lock.exclusive;
    }
}

impl Store for Memory {
    type Error = Infallible;

    fn environment(&self) -> &str {
        self.environment
    }

    fn authentic(&self, metadata: &Map<String, Value>) -> bool {
        (self.authentic)(metadata)
    }

    fn lock(&mut self, locks: &[Lock]) -> Result<(), Infallible> {
        self.round_trips += 1;
        assert!(
            locks.is_sorted_by(|a, b| a.scope < b.scope),
            "locks are waited for in one order"
        );
        assert!(self.held.is_empty(), "nothing is held while waiting");
        locks.iter().for_each(|lock| self.take(lock));
        Ok(())
    }

    fn try_lock(&mut self, locks: &[Lock]) -> Result<bool, Infallible> {
        self.round_trips += 1;
        let free = !self.jealous || locks.iter().all(|lock| self.holds(lock));
        if free {
            locks.iter().for_each(|lock| self.take(lock));
        }
        Ok(free)
    }

    fn merge(&mut self, observed: Vec<(Key, Mirrored)>) -> Result<Vec<Merged>, Infallible> {
        self.round_trips += 1;
        assert!(
            observed.is_sorted_by(|(a, _), (b, _)| a < b),
            "rows are locked in one order"
        );
        let mut answer = Vec::new();
        for (key, state) in observed {
            let (before, due) = self.mirror.remove(&key).unzip();
            let joined = match &before {
                Some(before) => before.mirrored.clone().join(state),
                None => state,
            };
            let kept = Arc::new(Kept::new(&joined));
            let before = before.map(|before| before.object.clone());
            if let Some(before) = &before {
                self.unlink(before);
            }
            self.link(&kept.object);
            let due = due.flatten();
            answer.push(Merged {
                before,
                after: Known {
                    object: kept.object.clone(),
                    due: due.clone(),
                },
            });
            self.mirror.insert(key, (kept, due));
        }
        Ok(answer)
    }

    fn objects(
        &mut self,
        keys: &[Key],
        linked: &[(Link, String)],
        known: &BTreeMap<Key, Known>,
    ) -> Result<Vec<Known>, Infallible> {
        self.round_trips += 1;
        let linked = linked
            .iter()
            .filter_map(|link| self.links.get(link))
            .flatten();
        let keys: BTreeSet<_> = keys.iter().chain(linked).collect();
        let answer = |key| known.get(key).cloned().or_else(|| self.known(key));
        Ok(keys.into_iter().filter_map(answer).collect())
    }

    fn find(&mut self, questions: &[Find]) -> Result<Vec<Row>, Infallible> {
        self.round_trips += 1;
        let answers = |row: &&Row| {
            questions
                .iter()
                .any(|q| q.table == row.table && q.values.contains(row.get(q.column)))
        };
        let rows = self.tables.values().flat_map(BTreeMap::values);
        Ok(rows.filter(answers).cloned().collect())
    }

    fn write(&mut self, rows: Vec<Row>) -> Result<Vec<Row>, Infallible> {
        self.round_trips += 1;
        let mut changed = Vec::new();
        for mut row in rows {
            let table = self.tables.entry(row.table.name).or_default();
            let before = table.get(&row.key()).cloned();
            if let Some(before) = &before {
                for column in row.table.kept {
                    if let Some(place) = row.table.position(column) {
                        row.cells[place] = before.cells[place].clone();
                    }
                }
            }
            if before.as_ref() != Some(&row) {
                table.insert(row.key(), row.clone());
                self.fired.push((before, row.clone()));
                changed.push(row);
            }
        }
        Ok(changed)
    }

    fn delete(&mut self, rows: Vec<Row>) -> Result<(), Infallible> {
        self.round_trips += 1;
        for row in rows {
            if let Some(table) = self.tables.get_mut(row.table.name) {
                table.remove(&row.key());
            }
        }
        Ok(())
    }

    fn set_due(&mut self, dues: &[(Key, Option<Due>)]) -> Result<(), Infallible> {
        self.round_trips += 1;
        for (key, why) in dues {
            if let Some((_, due)) = self.mirror.get_mut(key) {
                *due = why.map(|why| why.as_str().to_owned());
            }
        }
        Ok(())
    }
}
