//! Tables as Postgres's own cache of the catalog knows them: no query, so cheap enough for every
//! call.

use super::error::{Failure, c_string};
use super::row::attribute;
use pgrx::pg_sys::{self, Oid};
use pgrx::{IntoDatum, pg_sys::SysCacheIdentifier::RELOID};
use std::ffi::{CStr, c_char};
use std::{slice, thread};

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
    /// Opens a table of schema `payments` under a lock of this mode.
    ///
    /// # Errors
    /// XX000 when it is gone.
    pub fn open(name: &CStr, lock: u32) -> Result<Table, Failure> {
        let table = named(c"payments", name).ok_or_else(|| gone("a table", name))?;
        Ok(Table {
            // SAFETY: within a transaction; a table that is dropped meanwhile is an error.
            relation: unsafe { pg_sys::table_open(table, lock as i32) },
        })
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

    /// Whether a column is still where it was found.
    pub fn has(&self, column: &Column, name: &CStr) -> bool {
        let found = self.column(column.place);
        found.is_some_and(|found| is_named(found, name) && found.atttypid == column.kind)
    }

    /// Whether the table has so many columns, and nothing on it that acts when a row is written:
    /// no trigger, and so no foreign key, and no rule.
    pub fn is_bare(&self, columns: usize) -> bool {
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
            && relation.trigdesc.is_null()
            && relation.rd_rules.is_null()
            && live.filter(|column| !column.attisdropped).count() == columns
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

fn gone(what: &str, name: &CStr) -> Failure {
    Failure::internal(format!("{what} is gone: {}", name.to_string_lossy()))
}

fn is_named(column: &pg_sys::FormData_pg_attribute, name: &CStr) -> bool {
    // SAFETY: a name ends with a zero within its own length.
    !column.attisdropped && unsafe { CStr::from_ptr(column.attname.data.as_ptr()) } == name
}

/// A column, as the catalog has it.
#[derive(Clone, PartialEq)]
pub(super) struct Column {
    /// Counted from 1.
    pub place: i16,
    pub kind: Oid,
    pub collation: Oid,
}
