//! Rows of our own tables written as logical replication writes them: without a plan.
//!
//! To begin and end a plan takes about as long as to write the row. That is for tables as they were
//! made. Where a trigger, a rule or a column of the users' own has its say, a statement must write.

use super::error::Failure;
use super::table::{Column, Known, Table};
use pgrx::datum::DatumWithOid;
use pgrx::pg_sys::ffi::pg_guard_ffi_boundary;
use pgrx::pg_sys::{self, ItemPointerData, Oid};
use std::ffi::CString;
use std::mem::size_of;
use std::sync::Arc;
use std::{ptr, thread};

/// Writes rows of a table of schema `payments`, every column of them.
///
/// It asks neither privileges nor policies: it is for the tables' owner.
pub struct Writer {
    table: Known<Shape>,
    columns: Vec<CString>,
}

/// What became of a row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Written {
    Yes,
    /// There is a row with its key.
    No,
    /// Not tried: a statement has to write it.
    ByStatement,
}

impl Writer {
    /// Of a table and all its columns.
    pub fn new<'a>(table: &str, columns: impl IntoIterator<Item = &'a str>) -> Writer {
        Writer {
            table: Known::by_name(table),
            columns: columns.into_iter().map(super::error::c_string).collect(),
        }
    }

    /// The same for the life of the backend.
    pub fn leak(self) -> &'static Writer {
        Box::leak(Box::new(self))
    }

    /// Inserts a row unless there is one with its primary key, as ON CONFLICT (…) DO NOTHING does:
    /// a twin that is not committed yet is waited for.
    pub fn insert(&self, values: &[DatumWithOid]) -> Result<Written, Failure> {
        // SAFETY: within a transaction.
        unsafe { pg_sys::PreventCommandIfReadOnly(c"INSERT".as_ptr()) };
        let (table, shape) = self.open()?;
        match shape.for_inserts() {
            Some(columns) => Target::begin(&table).insert(columns, values),
            None => Ok(Written::ByStatement),
        }
    }

    /// Writes the next version of the row that is at this place, if it is the newest still.
    pub fn update(
        &self,
        place: ItemPointerData,
        values: &[DatumWithOid],
    ) -> Result<Written, Failure> {
        // SAFETY: within a transaction.
        unsafe { pg_sys::PreventCommandIfReadOnly(c"UPDATE".as_ptr()) };
        let (table, shape) = self.open()?;
        match shape.for_updates() {
            Some(columns) => Target::begin(&table).update(place, columns, values),
            None => Ok(Written::ByStatement),
        }
    }

    fn open(&self) -> Result<(Table, Arc<Shape>), Failure> {
        let find = |table: &Table| Shape::find(table, &self.columns);
        self.table.open(pg_sys::RowExclusiveLock, find)
    }
}

/// What of a table matters to its rows on their way in.
struct Shape {
    /// None where it has others, or something that only a statement heeds.
    columns: Option<Vec<Column>>,
    has_triggers_on_insert: bool,
    has_triggers_on_update: bool,
}

impl Shape {
    fn find(table: &Table, names: &[CString]) -> Result<Shape, Failure> {
        let columns = names.iter().map(|name| table.find_column(name));
        let is_plain = table.is_plain(names.len());
        Ok(Shape {
            columns: is_plain.then(|| columns.collect()).transpose()?,
            has_triggers_on_insert: table.has_triggers_on_insert(),
            has_triggers_on_update: table.has_triggers_on_update(),
        })
    }

    /// The columns, if rows are inserted as they are.
    fn for_inserts(&self) -> Option<&[Column]> {
        let columns = self.columns.as_deref();
        columns.filter(|_| !self.has_triggers_on_insert)
    }

    /// The columns, if rows are updated as they are.
    fn for_updates(&self) -> Option<&[Column]> {
        let columns = self.columns.as_deref();
        columns.filter(|_| !self.has_triggers_on_update)
    }
}

/// A row on its way into a table.
struct Target<'t> {
    table: &'t Table,
    state: *mut pg_sys::EState,
    result: *mut pg_sys::ResultRelInfo,
    slot: *mut pg_sys::TupleTableSlot,
    memory_before: pg_sys::MemoryContext,
}

impl<'t> Target<'t> {
    fn begin(table: &'t Table) -> Target<'t> {
        // SAFETY: within a transaction, of an open table; all of it is given back when this is
        // dropped, and with the transaction if that fails.
        unsafe {
            let state = pg_sys::CreateExecutorState();
            let memory_before = pg_sys::MemoryContextSwitchTo((*state).es_query_cxt);
            let result: *mut pg_sys::ResultRelInfo =
                pg_sys::palloc0(size_of::<pg_sys::ResultRelInfo>()).cast();
            (*result).type_ = pg_sys::NodeTag::T_ResultRelInfo;
            pg_sys::InitResultRelInfo(result, table.relation, 0, ptr::null_mut(), 0);
            // What inserts asks for the row twice; others would make it each time.
            let kind = &raw const pg_sys::TTSOpsHeapTuple;
            Target {
                table,
                state,
                result,
                slot: pg_sys::MakeSingleTupleTableSlot(table.description(), kind),
                memory_before,
            }
        }
    }

    fn fill(&self, columns: &[Column], values: &[DatumWithOid]) -> Result<(), Failure> {
        // SAFETY: an empty slot has room for every column; the places are those of columns, and the
        // values of their types. What the values refer to outlives the slot.
        unsafe {
            let slot = &mut *self.slot;
            let count = (*self.table.description()).natts as usize;
            std::slice::from_raw_parts_mut(slot.tts_isnull, count).fill(true);
            for (column, value) in columns.iter().zip(values) {
                if value.oid() != column.kind {
                    return Err(Failure::internal("a value is not of its column's type"));
                }
                let place = column.place as usize - 1;
                if let Some(datum) = value.datum() {
                    *slot.tts_values.add(place) = datum.sans_lifetime();
                    *slot.tts_isnull.add(place) = false;
                }
            }
            pg_sys::ExecStoreVirtualTuple(self.slot);
            slot.tts_tableOid = self.table.id();
            pg_sys::ExecConstraints(self.result, self.slot, self.state);
        }
        Ok(())
    }

    fn insert(self, columns: &[Column], values: &[DatumWithOid]) -> Result<Written, Failure> {
        self.fill(columns, values)?;
        let relation = self.table.relation;
        // SAFETY: the slot is filled; what is called may raise, and does so into pgrx's guard.
        unsafe {
            let methods = &*(*relation).rd_tableam;
            let insert = methods.tuple_insert_speculative.ok_or_else(no_method)?;
            let complete = methods.tuple_complete_speculative.ok_or_else(no_method)?;
            // Only now does the relation say which of them is the primary key's.
            pg_sys::ExecOpenIndices(self.result, true);
            if (*relation).rd_pkindex == Oid::INVALID {
                return Ok(Written::ByStatement);
            }
            let key = pg_sys::lappend_oid(ptr::null_mut(), (*relation).rd_pkindex);
            let command = pg_sys::GetCurrentCommandId(true);
            loop {
                if !self.is_free(key) {
                    return Ok(Written::No);
                }
                let transaction = pg_sys::GetCurrentTransactionId();
                let token = pg_sys::SpeculativeInsertionLockAcquire(transaction);
                let (slot, options) = (self.slot, ptr::null_mut());
                pg_guard_ffi_boundary(|| insert(relation, slot, command, 0, options, token));
                let mut conflicts = false;
                self.index(false, Some(&mut conflicts), key, false);
                pg_guard_ffi_boundary(|| complete(relation, slot, token, !conflicts));
                pg_sys::SpeculativeInsertionLockRelease(transaction);
                if !conflicts {
                    return Ok(Written::Yes);
                }
                // A twin came between the look and the insert.
            }
        }
    }

    fn update(
        self,
        mut place: ItemPointerData,
        columns: &[Column],
        values: &[DatumWithOid],
    ) -> Result<Written, Failure> {
        self.fill(columns, values)?;
        let mut failure = pg_sys::TM_FailureData::default();
        let mut lock = pg_sys::LockTupleMode::LockTupleExclusive;
        let mut indexes = Default::default();
        // SAFETY: as above, and there was a row at the place.
        let outcome = unsafe {
            let (relation, slot) = (self.table.relation, self.slot);
            let methods = &*(*relation).rd_tableam;
            let update = methods.tuple_update.ok_or_else(no_method)?;
            pg_sys::CheckCmdReplicaIdentity(relation, pg_sys::CmdType::CMD_UPDATE);
            let command = pg_sys::GetCurrentCommandId(true);
            let snapshot = pg_sys::GetActiveSnapshot();
            pg_guard_ffi_boundary(|| {
                update(
                    relation,
                    &mut place,
                    slot,
                    command,
                    snapshot,
                    ptr::null_mut(),
                    true,
                    &mut failure,
                    &mut lock,
                    &mut indexes,
                )
            })
        };
        match outcome {
            pg_sys::TM_Result::TM_Ok => {
                // Most new versions are in no index, which they need not be while they are on the
                // page of the old one and have its keys: to open all would take as long as to write.
                if let Some(summarizing) = wanted_indexes(indexes) {
                    // SAFETY: an open table; they are closed when this is dropped.
                    unsafe { pg_sys::ExecOpenIndices(self.result, false) };
                    self.index(true, None, ptr::null_mut(), summarizing);
                }
                Ok(Written::Yes)
            }
            pg_sys::TM_Result::TM_Updated | pg_sys::TM_Result::TM_Deleted => {
                Ok(Written::ByStatement)
            }
            other => Err(Failure::internal("a row could not be updated").with("outcome", other)),
        }
    }

    /// Whether no row has the key, once whoever is about to write one is done.
    fn is_free(&self, key: *mut pg_sys::List) -> bool {
        let mut taken = ItemPointerData::default();
        // SAFETY: the slot is filled, and the indexes are open.
        #[cfg(any(feature = "pg15", feature = "pg16", feature = "pg17"))]
        unsafe {
            pg_sys::ExecCheckIndexConstraints(self.result, self.slot, self.state, &mut taken, key)
        }
        // SAFETY: as above; there is no row yet that would be in its own way.
        #[cfg(not(any(feature = "pg15", feature = "pg16", feature = "pg17")))]
        unsafe {
            let mut itself = ItemPointerData::default();
            pg_sys::ItemPointerSetInvalid(&mut itself);
            pg_sys::ExecCheckIndexConstraints(
                self.result,
                self.slot,
                self.state,
                &mut taken,
                &mut itself,
                key,
            )
        }
    }

    fn index(
        &self,
        is_update: bool,
        conflicts: Option<&mut bool>,
        key: *mut pg_sys::List,
        summarizing: bool,
    ) {
        let may_conflict = conflicts.is_some();
        let conflicts = conflicts.map_or(ptr::null_mut(), |conflicts| conflicts as *mut bool);
        // SAFETY: the row is in the table, where the slot says; the indexes are open.
        #[cfg(feature = "pg15")]
        unsafe {
            let _ = summarizing;
            pg_sys::ExecInsertIndexTuples(
                self.result,
                self.slot,
                self.state,
                is_update,
                may_conflict,
                conflicts,
                key,
            );
        }
        // SAFETY: as above.
        #[cfg(not(feature = "pg15"))]
        unsafe {
            pg_sys::ExecInsertIndexTuples(
                self.result,
                self.slot,
                self.state,
                is_update,
                may_conflict,
                conflicts,
                key,
                summarizing,
            );
        }
    }
}

impl Drop for Target<'_> {
    fn drop(&mut self) {
        if !thread::panicking() {
            // SAFETY: made in `begin`.
            unsafe {
                pg_sys::ExecDropSingleTupleTableSlot(self.slot);
                pg_sys::ExecCloseIndices(self.result);
                pg_sys::MemoryContextSwitchTo(self.memory_before);
                pg_sys::FreeExecutorState(self.state);
            }
        }
    }
}

fn no_method() -> Failure {
    Failure::internal("the table is kept otherwise than as a heap")
}

/// Which indexes need the new version of a row: none, or all, or (true) only those that summarise.
#[cfg(feature = "pg15")]
fn wanted_indexes(indexes: bool) -> Option<bool> {
    indexes.then_some(false)
}

/// Which indexes need the new version of a row: none, or all, or (true) only those that summarise.
#[cfg(not(feature = "pg15"))]
fn wanted_indexes(indexes: pg_sys::TU_UpdateIndexes::Type) -> Option<bool> {
    match indexes {
        pg_sys::TU_UpdateIndexes::TU_None => None,
        indexes => Some(indexes == pg_sys::TU_UpdateIndexes::TU_Summarizing),
    }
}
