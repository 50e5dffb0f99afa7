//! What a projected table is, for stores that know how to write any of them.
//!
//! The projections speak in typed rows (see [`crate::rows`]); a store sees the same rows as
//! cells beside the description of their table, so that one piece of code serves every table and
//! a new column is named once.

use serde_json::Value;
use uuid::Uuid;

use crate::canonical;

/// The Postgres type of a column.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Type {
    Text,
    Boolean,
    /// `integer`: small counts.
    Integer,
    /// `bigint`: money in minor units, quantities.
    Bigint,
    /// `timestamptz`.
    Time,
    Jsonb,
    Uuid,
}

/// A column by name and type.
#[derive(Debug, PartialEq, Eq)]
pub struct Column {
    pub name: &'static str,
    pub ty: Type,
}

/// A projected table of schema `payments`.
#[derive(Debug)]
pub struct Table {
    pub name: &'static str,
    /// The primary key's columns.
    pub key: &'static [&'static str],
    /// Columns that a row already there keeps when it is written again. They are somebody's
    /// word, not Stripe's: what a caller asked for, what `link_customer` said.
    pub kept: &'static [&'static str],
    /// Every column, in the order of a row's cells.
    pub columns: &'static [Column],
}

impl Table {
    /// The place of a column among a row's cells. `None` for a name the table does not have.
    pub fn position(&self, column: &str) -> Option<usize> {
        self.columns.iter().position(|c| c.name == column)
    }
}

/// Two tables are the same when their names are; the rest follows from it.
impl PartialEq for Table {
    fn eq(&self, other: &Self) -> bool {
        self.name == other.name
    }
}

impl Eq for Table {}

/// One value of one row.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Cell {
    Null,
    Text(String),
    Boolean(bool),
    /// Both `integer` and `bigint`; the column says which.
    Int(i64),
    /// Microseconds since 1970-01-01 00:00 UTC.
    Time(i64),
    /// JSON text with object keys sorted and no insignificant space, so that equal documents are
    /// equal cells.
    Json(String),
    Uuid(Uuid),
}

/// One row of a projected table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Row {
    pub table: &'static Table,
    /// One cell a column, in the table's order.
    pub cells: Vec<Cell>,
}

impl Row {
    /// The cell of a column; `Null` for a name the table does not have.
    pub fn get(&self, column: &str) -> &Cell {
        self.table
            .position(column)
            .and_then(|i| self.cells.get(i))
            .unwrap_or(&Cell::Null)
    }

    /// The cells of the primary key.
    pub fn key(&self) -> Vec<Cell> {
        self.table
            .key
            .iter()
            .map(|column| self.get(column).clone())
            .collect()
    }
}

/// A moment, in microseconds since 1970-01-01 00:00 UTC: Postgres' own precision.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Time(pub i64);

impl Time {
    /// Stripe's whole seconds since 1970. `None` outside the years 1970 to 9999, which no Stripe
    /// object names and which a `timestamptz` could not always hold.
    pub fn from_seconds(seconds: i64) -> Option<Self> {
        (0..=253_402_300_799)
            .contains(&seconds)
            .then(|| Self(seconds * 1_000_000))
    }
}

/// A value of a typed row, and how it becomes a cell and comes back.
pub(crate) trait Field: Sized {
    const TYPE: Type;
    fn into_cell(self) -> Cell;
    /// `None` when the cell holds another type.
    fn from_cell(cell: &Cell) -> Option<Self>;
}

impl Field for String {
    const TYPE: Type = Type::Text;
    fn into_cell(self) -> Cell {
        Cell::Text(without_nul(self))
    }
    fn from_cell(cell: &Cell) -> Option<Self> {
        match cell {
            Cell::Text(text) => Some(text.clone()),
            _ => None,
        }
    }
}

impl Field for bool {
    const TYPE: Type = Type::Boolean;
    fn into_cell(self) -> Cell {
        Cell::Boolean(self)
    }
    fn from_cell(cell: &Cell) -> Option<Self> {
        match cell {
            Cell::Boolean(value) => Some(*value),
            _ => None,
        }
    }
}

impl Field for i32 {
    const TYPE: Type = Type::Integer;
    fn into_cell(self) -> Cell {
        Cell::Int(i64::from(self))
    }
    fn from_cell(cell: &Cell) -> Option<Self> {
        match cell {
            Cell::Int(value) => (*value).try_into().ok(),
            _ => None,
        }
    }
}

impl Field for i64 {
    const TYPE: Type = Type::Bigint;
    fn into_cell(self) -> Cell {
        Cell::Int(self)
    }
    fn from_cell(cell: &Cell) -> Option<Self> {
        match cell {
            Cell::Int(value) => Some(*value),
            _ => None,
        }
    }
}

impl Field for Time {
    const TYPE: Type = Type::Time;
    fn into_cell(self) -> Cell {
        Cell::Time(self.0)
    }
    fn from_cell(cell: &Cell) -> Option<Self> {
        match cell {
            Cell::Time(value) => Some(Self(*value)),
            _ => None,
        }
    }
}

impl Field for Uuid {
    const TYPE: Type = Type::Uuid;
    fn into_cell(self) -> Cell {
        Cell::Uuid(self)
    }
    fn from_cell(cell: &Cell) -> Option<Self> {
        match cell {
            Cell::Uuid(value) => Some(*value),
            _ => None,
        }
    }
}

impl Field for Value {
    const TYPE: Type = Type::Jsonb;
    fn into_cell(self) -> Cell {
        Cell::Json(text(&self))
    }
    fn from_cell(cell: &Cell) -> Option<Self> {
        match cell {
            Cell::Json(text) => serde_json::from_str(text).ok(),
            _ => None,
        }
    }
}

impl<F: Field> Field for Option<F> {
    const TYPE: Type = F::TYPE;
    fn into_cell(self) -> Cell {
        self.map_or(Cell::Null, F::into_cell)
    }
    fn from_cell(cell: &Cell) -> Option<Self> {
        match cell {
            Cell::Null => Some(None),
            cell => F::from_cell(cell).map(Some),
        }
    }
}

/// U+0000 is legal in JSON and in no Postgres text; a signed event that carries one must still
/// be recorded. It becomes U+FFFD, the replacement character.
fn without_nul(text: String) -> String {
    if text.contains('\0') {
        text.replace('\0', "\u{fffd}")
    } else {
        text
    }
}

/// JSON text that is equal for equal documents, and that `jsonb` accepts.
fn text(value: &Value) -> String {
    fn clean(value: &Value) -> Value {
        match value {
            Value::Object(map) => map
                .iter()
                .map(|(k, v)| (without_nul(k.clone()), clean(v)))
                .collect(),
            Value::Array(values) => values.iter().map(clean).collect(),
            Value::String(text) => Value::String(without_nul(text.clone())),
            other => other.clone(),
        }
    }
    let text = canonical::json(value);
    if text.contains("\\u0000") {
        canonical::json(&clean(value))
    } else {
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn equal_documents_are_equal_cells() {
        let a: Value = serde_json::from_str(r#"{"b":1,"a":{"d":null,"c":[2]}}"#).unwrap();
        let b: Value = serde_json::from_str(r#"{ "a": {"c": [2], "d": null}, "b": 1 }"#).unwrap();
        assert_eq!(a.into_cell(), b.into_cell());
    }

    #[test]
    fn nul_characters_do_no_harm() {
        assert_eq!(
            "a\0b".to_owned().into_cell(),
            Cell::Text("a\u{fffd}b".into())
        );
        let Cell::Json(text) = json!({"a\0": "b\0"}).into_cell() else {
            panic!("not json")
        };
        assert_eq!(text, "{\"a\u{fffd}\":\"b\u{fffd}\"}");
    }

    #[test]
    fn times_outside_the_calendar_are_unknown() {
        assert_eq!(Time::from_seconds(10), Some(Time(10_000_000)));
        assert_eq!(Time::from_seconds(-1), None);
        assert_eq!(Time::from_seconds(i64::MAX), None);
    }
}
