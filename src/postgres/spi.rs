//! SQL from Rust, as short as the SQL itself.
//!
//! A [`Statement`] is planned once a backend. pgrx's own calls plan anew each time, and either read
//! with the snapshot of the calling query, which after a wait for a lock is stale, or take a
//! transaction id even for a read, which a standby does not have.

use super::error::Failure;
pub use super::row::Row;
use super::row::attribute;
use pgrx::callconv::{BoxRet, FcInfo};
use pgrx::datum::{Datum as BorrowedDatum, DatumWithOid};
use pgrx::pg_sys::SysCacheIdentifier::TYPENAMENSP;
use pgrx::pg_sys::{self, Datum, Oid};
use pgrx::pgrx_resolved_type;
use pgrx::pgrx_sql_entity_graph::metadata::{
    ArgumentError, ReturnsError, ReturnsRef, SqlMappingRef, SqlTranslatable, TypeOrigin,
};
use std::ffi::{CStr, CString, c_char};
use std::sync::OnceLock;
use std::thread;

/// A statement that is planned at its first use and kept while the backend lives.
///
/// It has one plan, whatever its arguments, and reads by index wherever it can: see
/// [`IndexesOnly`]. The types of its arguments are those of the first call.
pub struct Statement {
    sql: &'static str,
    plan: OnceLock<Plan>,
}

struct Plan {
    pointer: pg_sys::SPIPlanPtr,
    types: Vec<Oid>,
}

// SAFETY: a saved plan lives as long as the process, and only the thread of the backend, the only
// one that may call Postgres at all, ever uses it.
unsafe impl Send for Plan {}
// SAFETY: as above.
unsafe impl Sync for Plan {}

impl Statement {
    /// A statement, not planned yet.
    pub const fn new(sql: &'static str) -> Statement {
        Statement {
            sql,
            plan: OnceLock::new(),
        }
    }

    /// A statement that is put together at run time.
    pub fn composed(sql: String) -> Statement {
        Statement::new(sql.leak())
    }

    /// The same for the life of the backend, which its plan lives for anyway.
    pub fn leak(self) -> &'static Statement {
        Box::leak(Box::new(self))
    }

    /// Runs it and says how many rows it touched or found.
    ///
    /// Sees everything that is committed by now.
    pub fn execute(&'static self, arguments: &[DatumWithOid]) -> Result<u64, Failure> {
        let connection = Connection::open();
        self.run(&connection, arguments, false)?;
        Ok(connection.processed())
    }

    /// Runs it and reads its rows.
    ///
    /// Sees everything that is committed by now.
    pub fn rows<T>(
        &'static self,
        arguments: &[DatumWithOid],
        read: impl FnMut(&Row<'_>) -> Result<T, Failure>,
    ) -> Result<Vec<T>, Failure> {
        let connection = Connection::open();
        self.run(&connection, arguments, false)?;
        connection.read(read)
    }

    /// Like [`Statement::rows`], for the first row alone.
    pub fn first<T>(
        &'static self,
        arguments: &[DatumWithOid],
        read: impl FnMut(&Row<'_>) -> Result<T, Failure>,
    ) -> Result<Option<T>, Failure> {
        Ok(self.rows(arguments, read)?.into_iter().next())
    }

    /// Reads with the snapshot of the calling query, and cannot write: for functions that are
    /// STABLE.
    pub fn read<T>(
        &'static self,
        arguments: &[DatumWithOid],
        read: impl FnMut(&Row<'_>) -> Result<T, Failure>,
    ) -> Result<Vec<T>, Failure> {
        let connection = Connection::open();
        self.run(&connection, arguments, true)?;
        connection.read(read)
    }

    fn run(
        &'static self,
        _connection: &Connection,
        arguments: &[DatumWithOid],
        read_only: bool,
    ) -> Result<(), Failure> {
        let plan = match self.plan.get() {
            Some(plan) => plan,
            None => {
                let plan = prepare(self.sql, arguments)?;
                self.plan.get_or_init(|| plan)
            }
        };
        if !arguments
            .iter()
            .map(DatumWithOid::oid)
            .eq(plan.types.iter().copied())
        {
            return Err(
                Failure::internal("a statement was given arguments of other types")
                    .with("statement", self.sql),
            );
        }
        plan.bring_up_to_date();
        let mut values: Vec<Datum> = arguments.iter().map(value).collect();
        let nulls: Vec<c_char> = arguments.iter().map(null_flag).collect();
        // SAFETY: connected; the arguments are as many, and of the types, that were planned for.
        let status = unsafe {
            pg_sys::SPI_execute_plan(
                plan.pointer,
                values.as_mut_ptr(),
                nulls.as_ptr(),
                read_only,
                0,
            )
        };
        succeeded(status, self.sql)
    }
}

fn prepare(sql: &'static str, arguments: &[DatumWithOid]) -> Result<Plan, Failure> {
    let mut types: Vec<Oid> = arguments.iter().map(DatumWithOid::oid).collect();
    let text = super::error::c_string(sql);
    // SAFETY: connected; the strings and types outlive the call, and the plan is moved to memory
    // that lives as long as the backend before the connection ends.
    let pointer = unsafe {
        let pointer = pg_sys::SPI_prepare_cursor(
            text.as_ptr(),
            types.len() as i32,
            types.as_mut_ptr(),
            pg_sys::CURSOR_OPT_GENERIC_PLAN as i32,
        );
        if pointer.is_null() {
            succeeded(pg_sys::SPI_result, sql)?;
        }
        pg_sys::SPI_keepplan(pointer);
        pointer
    };
    Ok(Plan { pointer, types })
}

impl Plan {
    /// Plans the statement if it has no plan yet, or one that something has made invalid.
    fn bring_up_to_date(&self) {
        let _indexes_only = IndexesOnly::begin();
        // SAFETY: connected. The plan is given back to the owner that it was charged to.
        unsafe {
            let plan = pg_sys::SPI_plan_get_cached_plan(self.pointer);
            if !plan.is_null() {
                pg_sys::ReleaseCachedPlan(plan, pg_sys::CurrentResourceOwner);
            }
        }
    }
}

/// While it lives, what is planned reads by index wherever it can.
///
/// Our plans are kept while the tables grow. One that was made when a table had ten rows, and
/// therefore reads all of them, still does so when it has a million, until the next ANALYZE.
struct IndexesOnly {
    sequential_scans: bool,
    bitmap_scans: bool,
    compilation: bool,
}

impl IndexesOnly {
    fn begin() -> IndexesOnly {
        // SAFETY: variables of this backend, which the planner alone reads. Before Postgres 18 a
        // sequential scan that cannot be avoided then costs so much that it would be compiled.
        unsafe {
            let before = IndexesOnly {
                sequential_scans: pg_sys::enable_seqscan,
                bitmap_scans: pg_sys::enable_bitmapscan,
                compilation: pg_sys::jit_enabled,
            };
            pg_sys::enable_seqscan = false;
            pg_sys::enable_bitmapscan = false;
            pg_sys::jit_enabled = false;
            before
        }
    }
}

impl Drop for IndexesOnly {
    fn drop(&mut self) {
        // SAFETY: as above; what was in force before.
        unsafe {
            pg_sys::enable_seqscan = self.sequential_scans;
            pg_sys::enable_bitmapscan = self.bitmap_scans;
            pg_sys::jit_enabled = self.compilation;
        }
    }
}

/// Runs SQL that is put together at run time, such as DDL. Values belong in `arguments`.
pub fn execute(sql: &str, arguments: &[DatumWithOid]) -> Result<u64, Failure> {
    let connection = Connection::open();
    run_once(&connection, sql, arguments)?;
    Ok(connection.processed())
}

/// Like [`execute`], and reads the rows.
pub fn rows<T>(
    sql: &str,
    arguments: &[DatumWithOid],
    read: impl FnMut(&Row<'_>) -> Result<T, Failure>,
) -> Result<Vec<T>, Failure> {
    let connection = Connection::open();
    run_once(&connection, sql, arguments)?;
    connection.read(read)
}

fn run_once(
    _connection: &Connection,
    sql: &str,
    arguments: &[DatumWithOid],
) -> Result<(), Failure> {
    let text: CString = super::error::c_string(sql);
    let mut types: Vec<Oid> = arguments.iter().map(DatumWithOid::oid).collect();
    let mut values: Vec<Datum> = arguments.iter().map(value).collect();
    let nulls: Vec<c_char> = arguments.iter().map(null_flag).collect();
    // SAFETY: connected; everything handed over outlives the call.
    let status = unsafe {
        pg_sys::SPI_execute_with_args(
            text.as_ptr(),
            types.len() as i32,
            types.as_mut_ptr(),
            values.as_mut_ptr(),
            nulls.as_ptr(),
            false,
            0,
        )
    };
    succeeded(status, sql)
}

fn value(argument: &DatumWithOid) -> Datum {
    match argument.datum() {
        Some(datum) => datum.sans_lifetime(),
        None => Datum::null(),
    }
}

fn null_flag(argument: &DatumWithOid) -> c_char {
    match argument.datum() {
        Some(_) => b' ' as c_char,
        None => b'n' as c_char,
    }
}

fn succeeded(status: i32, sql: &str) -> Result<(), Failure> {
    match status {
        1.. => Ok(()),
        _ => Err(Failure::internal("a statement was refused by SPI")
            .with("status", status)
            .with("statement", sql)),
    }
}

/// A connection to SPI. What a statement found is gone when it ends.
struct Connection;

impl Connection {
    fn open() -> Connection {
        // SAFETY: within a transaction; ends with the value. Never fails, says its source.
        unsafe { pg_sys::SPI_connect() };
        Connection
    }

    fn processed(&self) -> u64 {
        // SAFETY: set by the statement that ran last, which is ours.
        unsafe { pg_sys::SPI_processed }
    }

    fn read<T>(
        &self,
        mut read: impl FnMut(&Row<'_>) -> Result<T, Failure>,
    ) -> Result<Vec<T>, Failure> {
        // SAFETY: set by the statement that ran last, which is ours; its table stays until the
        // connection ends, whatever `read` runs in connections of its own.
        let Some(table) = (unsafe { pg_sys::SPI_tuptable.as_ref() }) else {
            return Ok(Vec::new());
        };
        (0..table.numvals as usize)
            .map(|index| {
                // SAFETY: below the number of rows; a row and its description belong together.
                read(&unsafe { Row::whole(*table.vals.add(index), table.tupdesc) })
            })
            .collect()
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        // After an error the abort of the (sub)transaction ends it.
        if !thread::panicking() {
            // SAFETY: the connection that was opened last.
            unsafe { pg_sys::SPI_finish() };
        }
    }
}

impl Row<'_> {
    /// The value of a column of a composite type, kept beyond the statement that found it.
    pub fn composite(&self, column: usize) -> Result<Option<Composite>, Failure> {
        let Some(value) = self.value(column)? else {
            return Ok(None);
        };
        // SAFETY: a composite value has no fixed length and is passed by reference. The copy is
        // made in the memory that was current when the connection was opened.
        Ok(Some(Composite(unsafe {
            pg_sys::SPI_datumTransfer(value, false, -1)
        })))
    }
}

/// A row of a composite type, to be returned to SQL as it is.
///
/// Make it with `row(…)::payments.some_type`: the row type of a *table* would not do, because users
/// may add columns to it.
pub struct Composite(Datum);

impl Composite {
    /// A row of a type in schema `payments`.
    ///
    /// # Errors
    /// XX000 when the type has other columns, as after an update of the library alone.
    pub fn new(type_name: &CStr, values: &[DatumWithOid]) -> Result<Composite, Failure> {
        let description = Description::of(type_name)?;
        if !values.iter().map(DatumWithOid::oid).eq(description.types()) {
            return Err(Failure::internal("a composite type has other columns")
                .with("type", type_name.to_string_lossy()));
        }
        let datums: Vec<Datum> = values.iter().map(value).collect();
        let nulls: Vec<bool> = values.iter().map(|value| value.datum().is_none()).collect();
        // SAFETY: as many values, and of the types, as described; Postgres copies them.
        Ok(Composite(unsafe {
            let tuple = pg_sys::heap_form_tuple(
                description.0,
                datums.as_ptr().cast_mut(),
                nulls.as_ptr().cast_mut(),
            );
            pg_sys::heap_copy_tuple_as_datum(tuple, description.0)
        }))
    }
}

/// The columns of a composite type, from Postgres's cache.
struct Description(pg_sys::TupleDesc);

impl Description {
    fn of(type_name: &CStr) -> Result<Description, Failure> {
        // SAFETY: lookups within a transaction; the description is given back when this is dropped.
        unsafe {
            let schema = pg_sys::get_namespace_oid(c"payments".as_ptr(), true);
            let kind = pg_sys::GetSysCacheOid(
                TYPENAMENSP as i32,
                pg_sys::Anum_pg_type_oid as i16,
                Datum::from(type_name.as_ptr()),
                Datum::from(schema),
                Datum::null(),
                Datum::null(),
            );
            if kind == Oid::INVALID {
                return Err(Failure::internal("a composite type is gone")
                    .with("type", type_name.to_string_lossy()));
            }
            Ok(Description(pg_sys::lookup_rowtype_tupdesc(kind, -1)))
        }
    }

    fn types(&self) -> impl Iterator<Item = Oid> {
        // SAFETY: a description, held while it is read.
        let count = unsafe { (*self.0).natts } as usize;
        // SAFETY: as above; one of its columns.
        (0..count).map(|place| unsafe { attribute(self.0, place).atttypid })
    }
}

impl Drop for Description {
    fn drop(&mut self) {
        // After an error the abort of the transaction gives it back.
        if !thread::panicking() {
            // SAFETY: counted when it was looked up.
            unsafe { pg_sys::DecrTupleDescRefCount(self.0) };
        }
    }
}

// SAFETY: the value lives in the memory that was current when the function was entered.
unsafe impl BoxRet for Composite {
    unsafe fn box_into<'fcx>(self, fcinfo: &mut FcInfo<'fcx>) -> BorrowedDatum<'fcx> {
        // SAFETY: as above; the SQL declaration names the type.
        unsafe { fcinfo.return_raw_datum(self.0) }
    }
}

// SAFETY: functions that return it are declared by hand.
unsafe impl SqlTranslatable for Composite {
    const TYPE_IDENT: &'static str = pgrx_resolved_type!(Composite);
    const TYPE_ORIGIN: TypeOrigin = TypeOrigin::External;
    const ARGUMENT_SQL: Result<SqlMappingRef, ArgumentError> = Ok(SqlMappingRef::Skip);
    const RETURN_SQL: Result<ReturnsRef, ReturnsError> = Ok(ReturnsRef::One(SqlMappingRef::Skip));
}
