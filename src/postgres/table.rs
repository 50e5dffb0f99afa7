//! Tables as Postgres's own cache of the catalog knows them: no query, so cheap enough for every
//! call.

use super::error::{Failure, c_string};
use super::row::attribute;
use pgrx::IntoDatum;
use pgrx::pg_sys::SysCacheIdentifier::{NAMESPACEOID, RELOID};
use pgrx::pg_sys::{self, Datum, Oid};
use std::ffi::{CStr, CString, c_char, c_int};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::{slice, thread};

/// How often Postgres has told of a change of any table, of its columns, indexes, triggers or rules,
/// or of a schema's name.
static CHANGES: AtomicU64 = AtomicU64::new(0);

/// Has Postgres tell of changes. To be called when the library is loaded.
pub fn init() {
    // SAFETY: the callbacks call nothing of Postgres's, and are there as long as the library.
    unsafe {
        pg_sys::CacheRegisterRelcacheCallback(Some(table_changed), Datum::null());
        let schemas = NAMESPACEOID as c_int;
        pg_sys::CacheRegisterSyscacheCallback(schemas, Some(schema_changed), Datum::null());
    }
}

unsafe extern "C-unwind" fn table_changed(_: Datum, _: Oid) {
    CHANGES.fetch_add(1, Ordering::Relaxed);
}

unsafe extern "C-unwind" fn schema_changed(_: Datum, _: c_int, _: u32) {
    CHANGES.fetch_add(1, Ordering::Relaxed);
}

/// The owner of an ordinary table; None when there is none of that name.
pub fn owner(schema: &CStr, name: &CStr) -> Option<Oid> {
    let table = named(schema, name)?;
    // SAFETY: a lookup within a transaction; what is found is a row of pg_class and is given back.
    unsafe {
        let found = pg_sys::SearchSysCache1(RELOID as i32, table.into_datum()?);
        if found.is_null() {
            return None;
        }
        let row = &*pg_sys::GETSTRUCT(found).cast::<pg_sys::FormData_pg_class>();
        let owner = (row.relkind == pg_sys::RELKIND_RELATION as c_char).then_some(row.relowner);
        pg_sys::ReleaseSysCache(found);
        owner
    }
}

/// A table, view or the like by its name; None when there is none.
pub fn oid(schema: &CStr, name: &str) -> Option<Oid> {
    named(schema, &c_string(name))
}

fn named(schema: &CStr, name: &CStr) -> Option<Oid> {
    // SAFETY: lookups within a transaction.
    let found = unsafe {
        let schema = pg_sys::get_namespace_oid(schema.as_ptr(), true);
        pg_sys::get_relname_relid(name.as_ptr(), schema)
    };
    (found != Oid::INVALID).then_some(found)
}

/// A table, open, with a lock that outlives it to the end of the transaction.
pub(super) struct Table {
    /// As Postgres knows it.
    pub relation: pg_sys::Relation,
}

impl Table {
    fn open(table: Oid, lock: u32) -> Table {
        Table {
            // SAFETY: within a transaction; a table that is dropped meanwhile is an error.
            relation: unsafe { pg_sys::table_open(table, lock as i32) },
        }
    }

    /// Its number in the catalog.
    pub fn id(&self) -> Oid {
        // SAFETY: open as long as this lives.
        unsafe { (*self.relation).rd_id }
    }

    /// Its columns.
    pub fn description(&self) -> pg_sys::TupleDesc {
        // SAFETY: as above.
        unsafe { (*self.relation).rd_att }
    }

    /// A column by its place, counted from 1; dropped ones have one too.
    pub fn column(&self, place: i16) -> Option<&pg_sys::FormData_pg_attribute> {
        // SAFETY: as above; the place is checked against the number of columns.
        unsafe {
            let columns = (*self.description()).natts;
            let exists = (1..=columns).contains(&i32::from(place));
            exists.then(|| attribute(self.description(), place as usize - 1))
        }
    }

    /// A column by its name.
    pub fn find_column(&self, name: &CStr) -> Result<Column, Failure> {
        // SAFETY: as above.
        let columns = unsafe { (*self.description()).natts } as i16;
        let mut all = (1..=columns).filter_map(|place| Some((place, self.column(place)?)));
        let found = all.find(|(_, column)| is_named(column, name));
        let (place, column) = found.ok_or_else(|| gone("a column", name))?;
        Ok(Column {
            place,
            kind: column.atttypid,
            collation: column.attcollation,
        })
    }

    /// Whether it is an ordinary table with so many columns, and no rule says what writing to it
    /// means.
    pub fn is_plain(&self, columns: usize) -> bool {
        // SAFETY: as above.
        let relation = unsafe { &*self.relation };
        // SAFETY: as above.
        let form = unsafe { &*relation.rd_rel };
        // SAFETY: as above.
        let count = unsafe { (*self.description()).natts } as i16;
        let live = (1..=count).filter_map(|place| self.column(place));
        form.relkind == pg_sys::RELKIND_RELATION as c_char
            && form.relam == pg_sys::HEAP_TABLE_AM_OID
            && !form.relispartition
            && relation.rd_rules.is_null()
            && live.filter(|column| !column.attisdropped).count() == columns
    }

    /// Whether a trigger, as of a foreign key, acts when a row is inserted.
    pub fn has_triggers_on_insert(&self) -> bool {
        self.triggers().is_some_and(|on| {
            on.trig_insert_before_statement
                || on.trig_insert_before_row
                || on.trig_insert_after_row
                || on.trig_insert_after_statement
        })
    }

    /// Whether a trigger, as of a foreign key here or elsewhere, acts when a row is updated.
    pub fn has_triggers_on_update(&self) -> bool {
        self.triggers().is_some_and(|on| {
            on.trig_update_before_statement
                || on.trig_update_before_row
                || on.trig_update_after_row
                || on.trig_update_after_statement
        })
    }

    fn triggers(&self) -> Option<&pg_sys::TriggerDesc> {
        // SAFETY: as above; what it has of triggers stays as long.
        unsafe { (*self.relation).trigdesc.as_ref() }
    }

    /// Its indexes, the primary key's among them.
    pub fn indexes(&self) -> Vec<Oid> {
        // SAFETY: the list is ours, of Oids.
        unsafe {
            let list = pg_sys::RelationGetIndexList(self.relation);
            let indexes = list.as_ref().map(|list| {
                let cells = slice::from_raw_parts(list.elements, list.length as usize);
                cells.iter().map(|cell| cell.oid_value).collect()
            });
            pg_sys::list_free(list);
            indexes.unwrap_or_default()
        }
    }
}

impl Drop for Table {
    fn drop(&mut self) {
        // After an error the abort of the (sub)transaction closes it.
        if !thread::panicking() {
            // SAFETY: opened when this was made.
            unsafe { pg_sys::table_close(self.relation, pg_sys::NoLock as i32) };
        }
    }
}

/// A table of schema `payments`, and what was found out about it, for as long as nothing changes.
pub(super) struct Known<T> {
    name: CString,
    found: Mutex<Option<Found<T>>>,
}

struct Found<T> {
    /// How many [`CHANGES`] there had been.
    changes: u64,
    table: Oid,
    what: Arc<T>,
}

impl<T> Known<T> {
    /// A table of which nothing was found out yet.
    pub fn by_name(name: &str) -> Known<T> {
        Known {
            name: c_string(name),
            found: Mutex::new(None),
        }
    }

    /// Opens the table under a lock of this mode, and says what was found out about it, or what
    /// `find` finds now.
    ///
    /// With the lock comes the news of every change that it had to wait for, and while it is held
    /// there are no others.
    ///
    /// # Errors
    /// XX000 when the table is gone.
    pub fn open(
        &self,
        lock: u32,
        find: impl FnOnce(&Table) -> Result<T, Failure>,
    ) -> Result<(Table, Arc<T>), Failure> {
        let changes = || CHANGES.load(Ordering::Relaxed);
        let mut found = self.found.lock().unwrap_or_else(PoisonError::into_inner);
        let known = found.take().filter(|known| known.changes == changes());
        let id = match &known {
            Some(known) => known.table,
            None => named(c"payments", &self.name).ok_or_else(|| gone("a table", &self.name))?,
        };
        let table = Table::open(id, lock);
        let changes = changes();
        let what = match known.filter(|known| known.changes == changes) {
            Some(known) => known.what,
            None => Arc::new(find(&table)?),
        };
        *found = Some(Found {
            changes,
            table: id,
            what: what.clone(),
        });
        Ok((table, what))
    }
}

fn gone(what: &str, name: &CStr) -> Failure {
    Failure::internal(format!("{what} is gone: {}", name.to_string_lossy()))
}

fn is_named(column: &pg_sys::FormData_pg_attribute, name: &CStr) -> bool {
    // SAFETY: a name ends with a zero within its own length.
    !column.attisdropped && unsafe { CStr::from_ptr(column.attname.data.as_ptr()) } == name
}

/// A column, as the catalog has it.
pub(super) struct Column {
    /// Counted from 1.
    pub place: i16,
    pub kind: Oid,
    pub collation: Oid,
}
