//! `rebuild`: every row computed afresh from the mirror, without asking Stripe.

use crate::checkout::required;
use crate::connection::{self, as_owner};
use crate::door;
use crate::postgres::error::{Failure, surface};
use crate::postgres::{constraints, memory, settings, spi};
use crate::store::Tables;
use ledger::{Cell, Key, Lock, Row, STAGES, Scope, Stage, Store, Table};
use pgrx::datum::DatumWithOid;
use pgrx::pg_extern;
use std::collections::HashSet;
use std::hash::{BuildHasher, Hash, RandomState};
use stripe::Environment;

/// How much is computed at once: enough to make statements few, too little to fill the memory.
const PAGE: i64 = 200;

/// After how many objects and rows whoever watches is told again.
const TELL_AFTER: i64 = 10_000;

#[pg_extern(sql = false)]
fn rebuild(environment: Option<&str>, fire_triggers: Option<bool>) -> i64 {
    surface(|| {
        door::require_read_committed()?;
        let environment = connection::parse_environment(environment)?;
        let fires_triggers = required("fire_triggers", fire_triggers)?;
        door::fire_callers_deferred_triggers()?;
        as_owner(|| {
            settings::with_source("rebuild", || {
                let mut rebuild = Rebuild::begin(environment, fires_triggers)?;
                let mut stages = || STAGES.iter().try_for_each(|stage| rebuild.stage(stage));
                match fires_triggers {
                    true => stages()?,
                    false => settings::without_triggers(stages)?,
                }
                Ok(rebuild.changed)
            })
        })
    })
}

struct Rebuild {
    environment: Environment,
    tables: Tables,
    /// Objects and rows to go through.
    total: i64,
    done: i64,
    /// Rows written and deleted.
    changed: i64,
    /// What of the stage is done with.
    covered: Covered,
}

/// Objects and rows by a hash alone, so that a million of them take no more than some 20 MB. One of
/// two that share a hash may stay as it was: a chance in millions, for millions of rows.
#[derive(Default)]
struct Covered {
    hasher: RandomState,
    hashes: HashSet<u64>,
}

impl Covered {
    fn add(&mut self, one: impl Hash) {
        self.hashes.insert(self.hasher.hash_one(one));
    }

    fn has(&self, one: impl Hash) -> bool {
        self.hashes.contains(&self.hasher.hash_one(one))
    }
}

fn place(table: &'static Table, key: Vec<Cell>) -> impl Hash {
    (table.name, key)
}

impl Rebuild {
    /// Waits until nobody else writes to the environment.
    fn begin(environment: Environment, fires_triggers: bool) -> Result<Rebuild, Failure> {
        let mut tables = Tables::of(environment);
        if !fires_triggers {
            tables = tables.silently();
        }
        tables.lock(&[Lock::exclusive(Scope::Environment)])?;
        let stages = STAGES.iter();
        Ok(Rebuild {
            total: stages
                .map(|stage| size(environment, stage))
                .sum::<Result<_, _>>()?,
            environment,
            tables,
            done: 0,
            changed: 0,
            covered: Covered::default(),
        })
    }

    /// First what there should be, then whether there is anything else.
    fn stage(&mut self, stage: &Stage) -> Result<(), Failure> {
        self.covered = Covered::default();
        for object_type in stage.objects {
            let mut after = String::new();
            while let Some(last) = memory::scratch(|| self.objects(object_type, &after))? {
                after = last.id;
            }
        }
        for table in stage.tables {
            let mut after = None;
            while let Some(last) = memory::scratch(|| self.rows(table, after.as_ref()))? {
                after = Some(last);
            }
        }
        Ok(())
    }

    /// A page of objects, and the last of them.
    fn objects(&mut self, object_type: &str, after: &str) -> Result<Option<Key>, Failure> {
        let mut keys = self.tables.keys_after(object_type, after, PAGE)?;
        self.count(keys.len());
        let last = keys.last().cloned();
        keys.retain(|key| !self.covered.has(key));
        self.compute(&keys, Vec::new())?;
        Ok(last)
    }

    /// A page of rows, and the last of them.
    fn rows(&mut self, table: &'static Table, after: Option<&Row>) -> Result<Option<Row>, Failure> {
        let mut rows = self.tables.rows_after(table, after, PAGE)?;
        self.count(rows.len());
        let last = rows.last().cloned();
        rows.retain(|row| !self.covered.has(place(table, row.key())));
        self.compute(&[], rows)?;
        Ok(last)
    }

    fn compute(&mut self, keys: &[Key], rows: Vec<Row>) -> Result<(), Failure> {
        if keys.is_empty() && rows.is_empty() {
            return Ok(());
        }
        let rebuilt = ledger::rebuild(&mut self.tables, keys, rows)?;
        let changes = rebuilt.changes;
        self.changed += (changes.written.len() + changes.deleted.len()) as i64;
        rebuilt.objects.iter().for_each(|key| self.covered.add(key));
        for (table, key) in rebuilt.rows {
            self.covered.add(place(table, key));
        }
        // A trigger that waits for the end would run as whoever commits.
        constraints::set_all_immediate();
        Ok(())
    }

    fn count(&mut self, more: usize) {
        let told = self.done / TELL_AFTER;
        self.done += more as i64;
        if self.done / TELL_AFTER > told {
            pgrx::notice!(
                "rebuilding \"{}\": {} of {} objects and rows, {} rows changed",
                self.environment,
                self.done,
                self.total.max(self.done),
                self.changed
            );
        }
    }
}

/// How many objects and rows there are to go through.
fn size(environment: Environment, stage: &Stage) -> Result<i64, Failure> {
    let objects = "select count(*)
                     from payments.stripe_objects
                    where environment = $1
                      and object_type = any ($2::text[])";
    let types = stage.objects.to_vec();
    let mut size = count(objects, &[environment.as_str().into(), types.into()])?;
    for table in stage.tables {
        let rows = format!(
            "select count(*) from payments.{} where environment = $1",
            table.name
        );
        size += count(&rows, &[environment.as_str().into()])?;
    }
    Ok(size)
}

fn count(sql: &str, arguments: &[DatumWithOid]) -> Result<i64, Failure> {
    let counted = spi::rows(sql, arguments, |row| row.required::<i64>(1))?;
    Ok(counted.into_iter().sum())
}
