//! SQL from Rust, as short as the SQL itself.
//!
//! A [`Statement`] is planned once a backend. pgrx's own calls plan anew each time, and either read
//! with the snapshot of the calling query, which after a wait for a lock is stale, or take a
//! transaction id even for a read, which a standby does not have.

use super::error::Failure;
use pgrx::callconv::{BoxRet, FcInfo};
use pgrx::datum::{Datum as BorrowedDatum, DatumWithOid};
use pgrx::pg_sys::{self, Datum, Oid};
use pgrx::pgrx_sql_entity_graph::metadata::{
    ArgumentError, ReturnsError, ReturnsRef, SqlMappingRef, SqlTranslatable, TypeOrigin,
};
use pgrx::{FromDatum, IntoDatum, pgrx_resolved_type};
use std::ffi::{CString, c_char};
use std::marker::PhantomData;
use std::sync::OnceLock;
use std::thread;

/// A statement that is planned at its first use and kept while the backend lives.
///
/// The types of its arguments are those of the first call.
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
        let pointer = pg_sys::SPI_prepare(text.as_ptr(), types.len() as i32, types.as_mut_ptr());
        if pointer.is_null() {
            succeeded(pg_sys::SPI_result, sql)?;
        }
        pg_sys::SPI_keepplan(pointer);
        pointer
    };
    Ok(Plan { pointer, types })
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
                read(&Row {
                    // SAFETY: below the number of rows.
                    tuple: unsafe { *table.vals.add(index) },
                    description: table.tupdesc,
                    connection: PhantomData,
                })
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

/// A row, while the statement's result is there.
pub struct Row<'connection> {
    tuple: pg_sys::HeapTuple,
    description: pg_sys::TupleDesc,
    connection: PhantomData<&'connection Connection>,
}

impl Row<'_> {
    /// The value of a column, counted from 1; None when it is null.
    pub fn get<T: FromDatum + IntoDatum>(&self, column: usize) -> Result<Option<T>, Failure> {
        let (value, is_null, kind) = self.column(column)?;
        // SAFETY: value, null flag and type belong together.
        unsafe { T::try_from_datum(value, is_null, kind) }
            .map_err(|error| Failure::internal(error.to_string()).with("column", column))
    }

    /// The value of a column that is never null.
    pub fn required<T: FromDatum + IntoDatum>(&self, column: usize) -> Result<T, Failure> {
        self.get(column)?.ok_or_else(|| {
            Failure::internal("a column is null that never is").with("column", column)
        })
    }

    /// The value of a column of a composite type, kept beyond the statement.
    pub fn composite(&self, column: usize) -> Result<Option<Composite>, Failure> {
        let (value, is_null, _) = self.column(column)?;
        if is_null {
            return Ok(None);
        }
        // SAFETY: a composite value has no fixed length and is passed by reference. The copy is
        // made in the memory that was current when the connection was opened.
        Ok(Some(Composite(unsafe {
            pg_sys::SPI_datumTransfer(value, false, -1)
        })))
    }

    fn column(&self, column: usize) -> Result<(Datum, bool, Oid), Failure> {
        // SAFETY: row and description belong together.
        let columns = unsafe { (*self.description).natts } as usize;
        if !(1..=columns).contains(&column) {
            return Err(
                Failure::internal("a statement has fewer columns than were read")
                    .with("column", column),
            );
        }
        let mut is_null = false;
        // SAFETY: as above, and the column exists.
        let (value, kind) = unsafe {
            (
                pg_sys::SPI_getbinval(self.tuple, self.description, column as i32, &mut is_null),
                pg_sys::SPI_gettypeid(self.description, column as i32),
            )
        };
        Ok((value, is_null, kind))
    }
}

/// A row of a composite type, to be returned to SQL as it is.
///
/// Make it with `row(…)::payments.some_type`: the row type of a *table* would not do, because users
/// may add columns to it.
pub struct Composite(Datum);

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
