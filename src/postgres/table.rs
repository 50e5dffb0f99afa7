//! Tables as Postgres's own cache of the catalog knows them: no query, so cheap enough for every
//! call.

use super::error::c_string;
use pgrx::pg_sys::{self, Oid};
use pgrx::{IntoDatum, pg_sys::SysCacheIdentifier::RELOID};
use std::ffi::{CStr, c_char};

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
