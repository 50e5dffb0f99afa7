//! What a row says, column by column.

use super::error::{Failure, text_at};
use pgrx::datum::DatumWithOid;
use pgrx::pg_sys::{self, Datum, Oid};
use pgrx::{FromDatum, IntoDatum, varlena};
use std::marker::PhantomData;
use std::slice;

/// A row that was found, while it is there.
pub struct Row<'found> {
    columns: Vec<Column>,
    place: pg_sys::ItemPointerData,
    found: PhantomData<&'found ()>,
}

struct Column {
    value: Datum,
    is_null: bool,
    kind: Oid,
    length: i16,
    is_by_value: bool,
}

impl Column {
    fn value(&self) -> Option<Datum> {
        (!self.is_null).then_some(self.value)
    }
}

impl Row<'_> {
    /// All columns of a row.
    ///
    /// # Safety
    /// The row must be as described, and stay while this lives.
    pub(super) unsafe fn whole(tuple: pg_sys::HeapTuple, description: pg_sys::TupleDesc) -> Self {
        // SAFETY: the caller's.
        unsafe { Row::part(tuple, description, 1..=(*description).natts as i16) }
    }

    /// Some columns of a row, by their places in it, counted from 1.
    ///
    /// # Safety
    /// The row must be as described, and stay while this lives.
    pub(super) unsafe fn part(
        tuple: pg_sys::HeapTuple,
        description: pg_sys::TupleDesc,
        places: impl ExactSizeIterator<Item = i16>,
    ) -> Self {
        // SAFETY: the caller's; as much room as there are columns.
        unsafe {
            let count = (*description).natts as usize;
            let mut values = vec![Datum::null(); count];
            let mut nulls = vec![true; count];
            pg_sys::heap_deform_tuple(tuple, description, values.as_mut_ptr(), nulls.as_mut_ptr());
            let mut columns = Vec::with_capacity(places.len());
            columns.extend(places.filter_map(|place| {
                let place = usize::try_from(place - 1).ok()?;
                let (value, is_null) = (*values.get(place)?, *nulls.get(place)?);
                let attribute = attribute(description, place);
                Some(Column {
                    value,
                    is_null,
                    kind: attribute.atttypid,
                    length: attribute.attlen,
                    is_by_value: attribute.attbyval,
                })
            }));
            Row {
                columns,
                place: (*tuple).t_self,
                found: PhantomData,
            }
        }
    }

    /// The value of a column, counted from 1; None when it is null.
    pub fn get<T: FromDatum + IntoDatum>(&self, column: usize) -> Result<Option<T>, Failure> {
        let found = self.column(column)?;
        // SAFETY: value, null flag and type belong together.
        unsafe { T::try_from_datum(found.value, found.is_null, found.kind) }
            .map_err(|error| Failure::internal(error.to_string()).with("column", column))
    }

    /// The value of a column that is never null.
    pub fn required<T: FromDatum + IntoDatum>(&self, column: usize) -> Result<T, Failure> {
        self.get(column)?.ok_or_else(|| is_null(column))
    }

    /// The value of a column of text or JSON, as SQL writes it; None when it is null.
    pub fn text(&self, column: usize) -> Result<Option<String>, Failure> {
        let Column { is_null, kind, .. } = *self.column(column)?;
        let Some(value) = self.value(column)? else {
            return Ok(None);
        };
        // SAFETY: values of these types.
        let text = unsafe {
            match kind {
                // Nearly all text lies in its row as it is: no call of Postgres's is needed.
                pg_sys::TEXTOID | pg_sys::JSONOID => match plain(value) {
                    Some(bytes) => String::from_utf8(bytes.to_vec()).ok(),
                    None => String::from_polymorphic_datum(value, is_null, kind),
                },
                pg_sys::JSONBOID => {
                    let function = Oid::from(pg_sys::F_JSONB_OUT);
                    let written = pg_sys::OidOutputFunctionCall(function, value);
                    let text = text_at(written);
                    pg_sys::pfree(written.cast());
                    text
                }
                _ => None,
            }
        };
        let unreadable = || Failure::internal("a column is no text").with("column", column);
        text.ok_or_else(unreadable).map(Some)
    }

    /// The same of a column that is never null.
    pub fn required_text(&self, column: usize) -> Result<String, Failure> {
        self.text(column)?.ok_or_else(|| is_null(column))
    }

    /// The values as they lie in the row: what is kept compressed or elsewhere is not unpacked.
    pub fn values(&self) -> Vec<DatumWithOid<'_>> {
        let columns = self.columns.iter();
        columns
            .map(|column| {
                // SAFETY: value and type belong together; it stays as long as the row.
                unsafe { DatumWithOid::new(column.value(), column.kind) }
            })
            .collect()
    }

    /// Whether a column has this very value, byte for byte.
    pub fn has(&self, column: usize, value: &DatumWithOid) -> Result<bool, Failure> {
        let found = self.column(column)?;
        Ok(match (found.value(), value.datum()) {
            (None, None) => true,
            // SAFETY: two values of one type, which is kept so.
            (Some(one), Some(other)) if found.kind == value.oid() => unsafe {
                let other = other.sans_lifetime();
                pg_sys::datum_image_eq(one, other, found.is_by_value, found.length.into())
            },
            _ => false,
        })
    }

    /// Where it is in its table: of one that a [`super::lookup::Lookup`] found.
    pub fn place(&self) -> pg_sys::ItemPointerData {
        self.place
    }

    pub(super) fn value(&self, column: usize) -> Result<Option<Datum>, Failure> {
        self.column(column).map(Column::value)
    }

    fn column(&self, column: usize) -> Result<&Column, Failure> {
        let found = column.checked_sub(1);
        let found = found.and_then(|place| self.columns.get(place));
        found.ok_or_else(|| {
            Failure::internal("a row has fewer columns than were read").with("column", column)
        })
    }
}

fn is_null(column: usize) -> Failure {
    Failure::internal("a column is null that never is").with("column", column)
}

/// JSON text on its way into a column of `jsonb`.
pub struct JsonbText<'a>(pub &'a str);

impl IntoDatum for JsonbText<'_> {
    fn into_datum(self) -> Option<Datum> {
        let text = super::error::c_string(self.0);
        let function = Oid::from(pg_sys::F_JSONB_IN);
        // SAFETY: reads the text, which ends with a zero.
        Some(unsafe {
            pg_sys::OidInputFunctionCall(function, text.as_ptr().cast_mut(), Oid::INVALID, -1)
        })
    }

    fn type_oid() -> Oid {
        pg_sys::JSONBOID
    }
}

/// What the catalog says of a column, counted from 0.
///
/// # Safety
/// There must be such a column, and its description must stay as long as the answer is used.
pub(super) unsafe fn attribute<'a>(
    description: pg_sys::TupleDesc,
    place: usize,
) -> &'a pg_sys::FormData_pg_attribute {
    // SAFETY: the caller's.
    #[cfg(any(feature = "pg15", feature = "pg16", feature = "pg17"))]
    unsafe {
        &*(*description).attrs.as_ptr().add(place)
    }
    // SAFETY: the caller's.
    #[cfg(not(any(feature = "pg15", feature = "pg16", feature = "pg17")))]
    unsafe {
        &*pg_sys::TupleDescAttr(description, place as i32)
    }
}

/// The bytes of a value of variable length that lies here as it is, neither elsewhere nor
/// compressed.
///
/// # Safety
/// It must be such a value, and stay while the bytes are used.
unsafe fn plain<'value>(value: Datum) -> Option<&'value [u8]> {
    // SAFETY: the caller's.
    unsafe {
        let value: *const pg_sys::varlena = value.cast_mut_ptr();
        let is_short = varlena::varatt_is_1b(value) && !varlena::varatt_is_1b_e(value);
        (is_short || varlena::varatt_is_4b_u(value)).then(|| {
            let start = varlena::vardata_any(value).cast();
            slice::from_raw_parts(start, varlena::varsize_any_exhdr(value))
        })
    }
}
