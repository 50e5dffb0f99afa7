//! Rows of our own tables found by some of their columns, as Postgres finds those of its catalog:
//! by an index, without a plan.
//!
//! What an event reads is a row here and there. To begin and end a plan for each takes several
//! times as long as to find it.

use super::error::Failure;
use super::row::Row;
use super::table::{Column, Known, Table};
use pgrx::datum::DatumWithOid;
use pgrx::pg_sys::ffi::pg_guard_ffi_boundary;
use pgrx::pg_sys::{self, Oid};
use std::ffi::CString;
use std::sync::Arc;
use std::{ptr, slice, thread};

/// Finds the rows of a table of schema `payments` in which some columns have given values.
///
/// Sees everything that is committed by now, as a [`super::spi::Statement`] does, and takes the
/// same locks. It asks neither privileges nor policies: it is for the tables' owner.
pub struct Lookup {
    table: Known<Places>,
    wanted: Vec<CString>,
    given: Vec<CString>,
}

impl Lookup {
    /// Of this table the wanted columns, by the given ones.
    pub fn new<'a>(
        table: &str,
        wanted: impl IntoIterator<Item = &'a str>,
        given: impl IntoIterator<Item = &'a str>,
    ) -> Lookup {
        let names = |names: &mut dyn Iterator<Item = &'a str>| -> Vec<CString> {
            names.map(super::error::c_string).collect()
        };
        Lookup {
            table: Known::by_name(table),
            wanted: names(&mut wanted.into_iter()),
            given: names(&mut given.into_iter()),
        }
    }

    /// The same for the life of the backend.
    pub fn leak(self) -> &'static Lookup {
        Box::leak(Box::new(self))
    }

    /// Reads all rows that have these values.
    pub fn rows<T>(
        &self,
        values: &[DatumWithOid],
        read: impl FnMut(&Row<'_>) -> Result<T, Failure>,
    ) -> Result<Vec<T>, Failure> {
        self.rows_of_each(&[values], read)
    }

    /// Reads all rows that have the first of several lists of values, then those that have the
    /// second, and so on.
    pub fn rows_of_each<'v, T>(
        &self,
        lists: &[impl AsRef<[DatumWithOid<'v>]>],
        mut read: impl FnMut(&Row<'_>) -> Result<T, Failure>,
    ) -> Result<Vec<T>, Failure> {
        if lists.is_empty() {
            return Ok(Vec::new());
        }
        let (table, places) = self.open(pg_sys::AccessShareLock)?;
        let snapshot = Snapshot::of_now(&places);
        let mut found = Vec::new();
        for values in lists {
            let mut scan = Scan::begin(&table, &places, &snapshot, values.as_ref())?;
            while let Some(tuple) = scan.next() {
                found.push(read(&scan.row(tuple))?);
            }
        }
        Ok(found)
    }

    /// Reads the first row that has these values.
    pub fn first<T>(
        &self,
        values: &[DatumWithOid],
        read: impl FnMut(&Row<'_>) -> Result<T, Failure>,
    ) -> Result<Option<T>, Failure> {
        Ok(self.rows(values, read)?.into_iter().next())
    }

    /// Locks the only row that has these values, as FOR UPDATE does, and reads what it says then.
    pub fn locked<T>(
        &self,
        values: &[DatumWithOid],
        read: impl FnOnce(&Row<'_>) -> Result<T, Failure>,
    ) -> Result<Option<T>, Failure> {
        let (table, places) = self.open(pg_sys::RowShareLock)?;
        let snapshot = Snapshot::of_now(&places);
        let mut scan = Scan::begin(&table, &places, &snapshot, values)?;
        let Some(tuple) = scan.next() else {
            return Ok(None);
        };
        let slot = Slot::of(&table);
        match slot.lock(&scan, tuple)? {
            true => read(&scan.row(slot.tuple())).map(Some),
            false => Ok(None),
        }
    }

    fn open(&self, lock: u32) -> Result<(Table, Arc<Places>), Failure> {
        let find = |table: &Table| Places::find(table, &self.wanted, &self.given);
        self.table.open(lock, find)
    }
}

impl Column {
    fn equality(&self) -> Result<Oid, Failure> {
        match self.kind {
            pg_sys::TEXTOID => Ok(Oid::from(pg_sys::F_TEXTEQ)),
            pg_sys::UUIDOID => Ok(Oid::from(pg_sys::F_UUID_EQ)),
            kind => Err(
                Failure::internal("a column of this type is not looked up by")
                    .with("type", kind.to_u32()),
            ),
        }
    }
}

/// Where everything is.
struct Places {
    wanted: Vec<Column>,
    given: Vec<Column>,
    /// The index that is used; None where none fits: then the whole table is read.
    index: Option<Oid>,
    /// The given columns as a scan wants them, by their places among them: in the index's order.
    order: Vec<usize>,
}

impl Places {
    fn find(table: &Table, wanted: &[CString], given: &[CString]) -> Result<Places, Failure> {
        let columns = |names: &[CString]| -> Result<Vec<Column>, Failure> {
            names.iter().map(|name| table.find_column(name)).collect()
        };
        let given = columns(given)?;
        let mut fitting = table.indexes().into_iter().filter_map(|index| {
            let order = Index::open(index).order(&given)?;
            Some((index, order))
        });
        let (index, order) = fitting.next().unzip();
        Ok(Places {
            wanted: columns(wanted)?,
            index,
            order: order.unwrap_or_else(|| (0..given.len()).collect()),
            given,
        })
    }
}

/// An index, open.
struct Index {
    relation: pg_sys::Relation,
}

impl Index {
    fn open(index: Oid) -> Index {
        Index {
            // SAFETY: one of a table that is locked.
            relation: unsafe { pg_sys::index_open(index, pg_sys::AccessShareLock as i32) },
        }
    }

    /// The order of these columns in it, if it finds all rows by values in them, and at once.
    fn order(&self, given: &[Column]) -> Option<Vec<usize>> {
        // SAFETY: open; a btree's arrays have an entry for each of its key columns.
        let (is_usable, keys, collations) = unsafe {
            let relation = &*self.relation;
            let form = &*relation.rd_index;
            let is_btree = (*relation.rd_rel).relam == pg_sys::BTREE_AM_OID;
            let count = form.indnkeyatts as usize;
            (
                is_btree && form.indisvalid && self.has_rows_with(given),
                form.indkey.values.as_slice(count),
                slice::from_raw_parts(relation.rd_indcollation, count),
            )
        };
        if !is_usable || keys.len() < given.len() {
            return None;
        }
        let leading = keys.iter().zip(collations).take(given.len());
        let order = leading.map(|(place, collation)| {
            let is_it = |column: &Column| (&column.place, &column.collation) == (place, collation);
            given.iter().position(is_it)
        });
        order.collect()
    }

    /// Whether no row is left out but those that have null in one of these columns.
    fn has_rows_with(&self, given: &[Column]) -> bool {
        // SAFETY: a list of expressions, copied from the relation's cache; of a type that its tag
        // says.
        unsafe {
            let Some(list) = pg_sys::RelationGetIndexPredicate(self.relation).as_ref() else {
                return true;
            };
            let cells = slice::from_raw_parts(list.elements, list.length as usize);
            cells.iter().all(|cell| {
                let node = cell.ptr_value.cast::<pg_sys::Node>();
                if (*node).type_ != pg_sys::NodeTag::T_NullTest {
                    return false;
                }
                let test = &*node.cast::<pg_sys::NullTest>();
                let argument = test.arg.cast::<pg_sys::Node>();
                test.nulltesttype == pg_sys::NullTestType::IS_NOT_NULL
                    && (*argument).type_ == pg_sys::NodeTag::T_Var
                    && given
                        .iter()
                        .any(|column| column.place == (*argument.cast::<pg_sys::Var>()).varattno)
            })
        }
    }
}

impl Drop for Index {
    fn drop(&mut self) {
        if !thread::panicking() {
            // SAFETY: opened when this was made; its lock stays.
            unsafe { pg_sys::index_close(self.relation, pg_sys::NoLock as i32) };
        }
    }
}

/// What is committed by a moment.
struct Snapshot(pg_sys::Snapshot);

impl Snapshot {
    /// By now. An index that is made anew while we wait for it may not find what was there before:
    /// so it is locked first.
    fn of_now(places: &Places) -> Snapshot {
        // SAFETY: within a transaction; what is registered is given back when this is dropped.
        unsafe {
            if let Some(index) = places.index {
                pg_sys::LockRelationOid(index, pg_sys::AccessShareLock as i32);
            }
            pg_sys::CommandCounterIncrement();
            Snapshot(pg_sys::RegisterSnapshot(pg_sys::GetTransactionSnapshot()))
        }
    }
}

impl Drop for Snapshot {
    fn drop(&mut self) {
        if !thread::panicking() {
            // SAFETY: registered when this was made.
            unsafe { pg_sys::UnregisterSnapshot(self.0) };
        }
    }
}

/// A search that has begun.
struct Scan<'t> {
    table: &'t Table,
    places: &'t Places,
    snapshot: &'t Snapshot,
    scan: pg_sys::SysScanDesc,
}

impl<'t> Scan<'t> {
    fn begin(
        table: &'t Table,
        places: &'t Places,
        snapshot: &'t Snapshot,
        values: &[DatumWithOid],
    ) -> Result<Scan<'t>, Failure> {
        let mut keys = Vec::with_capacity(values.len());
        for place in &places.order {
            let (column, value) = (&places.given[*place], values.get(*place));
            let value = value.filter(|value| value.oid() == column.kind);
            let datum = value.and_then(DatumWithOid::datum).ok_or_else(|| {
                Failure::internal("a table is looked up by a value of another type")
            })?;
            let mut key = pg_sys::ScanKeyData::default();
            // SAFETY: fills the key in; the equality is that of the column's type.
            unsafe {
                pg_sys::ScanKeyEntryInitialize(
                    &mut key,
                    0,
                    column.place,
                    pg_sys::BTEqualStrategyNumber as u16,
                    Oid::INVALID,
                    column.collation,
                    column.equality()?,
                    datum.sans_lifetime(),
                );
            }
            keys.push(key);
        }
        // SAFETY: a column of the index for each key; ended when this is dropped.
        let scan = unsafe {
            pg_sys::systable_beginscan(
                table.relation,
                places.index.unwrap_or(Oid::INVALID),
                places.index.is_some(),
                snapshot.0,
                keys.len() as i32,
                keys.as_mut_ptr(),
            )
        };
        Ok(Scan {
            table,
            places,
            snapshot,
            scan,
        })
    }

    /// The next row, which is there until the next is asked for.
    fn next(&mut self) -> Option<pg_sys::HeapTuple> {
        // SAFETY: the scan lives as long as this.
        let tuple = unsafe { pg_sys::systable_getnext(self.scan) };
        (!tuple.is_null()).then_some(tuple)
    }

    fn row<'s>(&'s self, tuple: pg_sys::HeapTuple) -> Row<'s> {
        let columns = self.places.wanted.iter().map(|column| column.place);
        // SAFETY: a row of the table, there while the caller reads it.
        unsafe { Row::part(tuple, self.table.description(), columns) }
    }
}

impl Drop for Scan<'_> {
    fn drop(&mut self) {
        if !thread::panicking() {
            // SAFETY: begun when this was made.
            unsafe { pg_sys::systable_endscan(self.scan) };
        }
    }
}

/// A place for a row that is locked.
struct Slot(*mut pg_sys::TupleTableSlot);

impl Slot {
    fn of(table: &Table) -> Slot {
        // SAFETY: of an open table; given back when this is dropped.
        Slot(unsafe { pg_sys::table_slot_create(table.relation, ptr::null_mut()) })
    }

    /// Locks the newest version of a row, once whoever is changing it is done; false if it is gone
    /// then.
    fn lock(&self, scan: &Scan, tuple: pg_sys::HeapTuple) -> Result<bool, Failure> {
        let mut failure = pg_sys::TM_FailureData::default();
        // SAFETY: a row that the scan found in its table, under its snapshot. While another's lock is
        // waited for a cancel may come, so it is called through pgrx's guard.
        let outcome = unsafe {
            let relation = scan.table.relation;
            let lock = (*(*relation).rd_tableam)
                .tuple_lock
                .ok_or_else(|| Failure::internal("the table's rows cannot be locked"))?;
            let command = pg_sys::GetCurrentCommandId(false);
            pg_guard_ffi_boundary(|| {
                lock(
                    relation,
                    &mut (*tuple).t_self,
                    scan.snapshot.0,
                    self.0,
                    command,
                    pg_sys::LockTupleMode::LockTupleExclusive,
                    pg_sys::LockWaitPolicy::LockWaitBlock,
                    pg_sys::TUPLE_LOCK_FLAG_FIND_LAST_VERSION as u8,
                    &mut failure,
                )
            })
        };
        match outcome {
            pg_sys::TM_Result::TM_Ok => Ok(true),
            pg_sys::TM_Result::TM_Deleted => Ok(false),
            other => Err(Failure::internal("a row could not be locked").with("outcome", other)),
        }
    }

    fn tuple(&self) -> pg_sys::HeapTuple {
        let mut is_ours = false;
        // SAFETY: a slot of a heap has the row itself, which belongs to the slot.
        unsafe { pg_sys::ExecFetchSlotHeapTuple(self.0, true, &mut is_ours) }
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        if !thread::panicking() {
            // SAFETY: made by us.
            unsafe { pg_sys::ExecDropSingleTupleTableSlot(self.0) };
        }
    }
}
