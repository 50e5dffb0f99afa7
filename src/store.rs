//! The ledger's store: the tables, as their owner.

use crate::postgres::error::Failure;
use crate::postgres::lookup::Lookup;
use crate::postgres::row::JsonbText;
use crate::postgres::spi::{self, Statement};
use crate::postgres::writer::{Writer, Written};
use crate::postgres::{lock, settings};
use crate::proof;
use ledger::{
    Cell, Column, Due, Find, Key, Known, Link, Lock, Mark, Merged, Mirrored, Object, Row, Scope,
    Store, Stored, Table, Type,
};
use pgrx::Uuid;
use pgrx::datum::{DatumWithOid, JsonString, TimestampWithTimeZone};
use pgrx::pg_sys::ItemPointerData;
use serde_json::{Map, Value};
use std::borrow::Cow;
use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, HashMap};
use std::sync::{LazyLock, Mutex, PoisonError};
use stripe::Environment;

/// The tables of one environment, for the rest of the transaction.
///
/// Everything it does, it does as the current user, which must be the owner of the tables.
pub struct Tables {
    environment: Environment,
    fires_triggers: bool,
}

impl Tables {
    /// The tables of an environment.
    pub fn of(environment: Environment) -> Tables {
        Tables {
            environment,
            fires_triggers: true,
        }
    }

    /// The same, but what is written fires no trigger. What is deleted does: a foreign key of the
    /// app's, which is a trigger too, may point there.
    pub fn silently(self) -> Tables {
        Tables {
            fires_triggers: false,
            ..self
        }
    }

    /// A page of the keys of mirrored objects of a type: those after `after`, in their order.
    pub fn keys_after(
        &self,
        object_type: &str,
        after: &str,
        at_most: i64,
    ) -> Result<Vec<Key>, Failure> {
        static KEYS: Statement = Statement::new(
            "select object.object_id
               from payments.stripe_objects as object
              where object.environment = $1
                and object.object_type = $2
                and object.object_id > $3
              order by object.object_id
              limit $4",
        );
        let arguments = [
            self.environment.as_str().into(),
            object_type.into(),
            after.into(),
            at_most.into(),
        ];
        KEYS.rows(&arguments, |row| {
            Ok(Key {
                object_type: object_type.to_owned(),
                id: row.required(1)?,
            })
        })
    }

    /// A page of the rows of a table: those after `after`, or the first, in the order of the
    /// primary key.
    pub fn rows_after(
        &self,
        table: &'static Table,
        after: Option<&Row>,
        at_most: i64,
    ) -> Result<Vec<Row>, Failure> {
        let mut arguments = vec![self.environment.as_str().into(), at_most.into()];
        if let Some(after) = after {
            for name in without_environment(table) {
                arguments.push(argument(column_type(table, name)?, after.get(name))?);
            }
        }
        paging(table, after.is_none()).rows(&arguments, |row| cells(table, row))
    }

    /// How much is mirrored of an object now: for an answer that is about to be asked for.
    pub fn mark(&self, key: &Key) -> Result<Option<Mark>, Failure> {
        OBJECT.first(&self.object_key(key), |row| Ok(mirrored(row)?.0.mark()))
    }

    fn lock_name<'s>(&self, scope: &'s Scope) -> [Cow<'s, str>; 3] {
        let (kind, id): (&str, Cow<str>) = match scope {
            Scope::Environment => ("environment", "".into()),
            Scope::Session(id) => ("session", id.to_string().into()),
            Scope::Subscription(id) => ("subscription", id.into()),
            Scope::Customer(id) => ("customer", id.into()),
            Scope::Invoice(id) => ("invoice", id.into()),
            Scope::PaymentIntent(id) => ("payment intent", id.into()),
            Scope::Charge(id) => ("charge", id.into()),
        };
        [self.environment.as_str().into(), kind.into(), id]
    }

    /// Joins what was observed with what is known by now.
    fn join(&self, observed: Mirrored) -> Result<Merged, Failure> {
        // A twin may insert the object between our look and our insert; then it is there at the
        // second look.
        loop {
            let read = |row: &spi::Row| Ok((mirrored(row)?, row.place()));
            let known = OBJECT.locked(&self.object_key(observed.key()), read)?;
            let Some(((known, due), place)) = known else {
                let object = observed.object();
                if !self.insert(&observed, &object)? {
                    continue;
                }
                return Ok(Merged {
                    before: None,
                    after: Known { object, due: None },
                });
            };
            let joined = known.clone().join(observed);
            let object = joined.object();
            if joined != known {
                self.update(place, &joined, &object, due.as_deref())?;
            }
            return Ok(Merged {
                before: Some(known.object()),
                after: Known { object, due },
            });
        }
    }

    fn object_key(&self, key: &Key) -> [DatumWithOid<'static>; 3] {
        [
            self.environment.as_str().into(),
            key.object_type.as_str().into(),
            key.id.as_str().into(),
        ]
    }

    /// Keeps an object that was not known; false if a twin was faster.
    fn insert(&self, state: &Mirrored, object: &Object) -> Result<bool, Failure> {
        static INSERT: LazyLock<Statement> = LazyLock::new(|| {
            let places = join((1..=OBJECTS.len()).map(|place| format!("${place}")));
            let columns = OBJECTS.join(", ");
            Statement::composed(format!(
                "insert into payments.stripe_objects ({columns})
                 values ({places})
                 on conflict do nothing"
            ))
        });
        let values = self.columns(state, object, None)?;
        match OBJECT_WRITER.insert(&values)? {
            Written::ByStatement => Ok(INSERT.execute(&values)? > 0),
            written => Ok(written == Written::Yes),
        }
    }

    /// Keeps a new state of an object whose row is locked.
    fn update(
        &self,
        place: ItemPointerData,
        state: &Mirrored,
        object: &Object,
        due: Option<&str>,
    ) -> Result<(), Failure> {
        static UPDATE: LazyLock<Statement> = LazyLock::new(|| {
            let columns = OBJECTS.iter().zip(1..).skip(OBJECT_KEY.len());
            let sets = join(columns.map(|(name, place)| format!("{name} = ${place}")));
            Statement::composed(format!(
                "update payments.stripe_objects
                    set {sets}
                  where environment = $1
                    and object_type = $2
                    and object_id = $3"
            ))
        });
        let values = self.columns(state, object, due)?;
        if OBJECT_WRITER.update(place, &values)? != Written::Yes {
            UPDATE.execute(&values)?;
        }
        Ok(())
    }

    /// The row of an object, in the order of [`OBJECTS`].
    fn columns(
        &self,
        state: &Mirrored,
        object: &Object,
        due: Option<&str>,
    ) -> Result<[DatumWithOid<'static>; 12], Failure> {
        let stored = state.to_stored();
        let [payment_intent, charge, invoice, subscription] =
            object.links.columns().map(|(_, id)| DatumWithOid::from(id));
        let [environment, object_type, id] = self.object_key(state.key());
        Ok([
            environment,
            object_type,
            id,
            JsonString(stored.body).into(),
            time(stored.as_of * 1_000_000)?.into(),
            stored.deleted.into(),
            stored.evidence.map(JsonString).into(),
            payment_intent,
            charge,
            invoice,
            subscription,
            due.into(),
        ])
    }
}

impl Store for Tables {
    type Error = Failure;

    fn environment(&self) -> &str {
        self.environment.as_str()
    }

    fn authentic(&self, metadata: &Map<String, Value>) -> bool {
        proof::is_authentic(self.environment, metadata)
    }

    fn lock(&mut self, locks: &[Lock]) -> Result<(), Failure> {
        for Lock { scope, exclusive } in locks {
            let name = self.lock_name(scope);
            match exclusive {
                true => lock::exclusive(&name),
                false => lock::shared(&name),
            }
        }
        Ok(())
    }

    fn try_lock(&mut self, locks: &[Lock]) -> Result<bool, Failure> {
        Ok(locks.iter().all(|Lock { scope, exclusive }| {
            let name = self.lock_name(scope);
            match exclusive {
                true => lock::try_exclusive(&name),
                false => lock::try_shared(&name),
            }
        }))
    }

    fn merge(&mut self, observed: Vec<(Key, Mirrored)>) -> Result<Vec<Merged>, Failure> {
        let states = observed.into_iter().map(|(_, state)| state);
        states.map(|state| self.join(state)).collect()
    }

    fn objects(
        &mut self,
        keys: &[Key],
        linked: &[(Link, String)],
        known: &BTreeMap<Key, Known>,
    ) -> Result<Vec<Known>, Failure> {
        let mut found: BTreeMap<Key, Known> = BTreeMap::new();
        let mut add = |row: &spi::Row| {
            if let Entry::Vacant(place) = found.entry(key_of(row)?) {
                let object = match known.get(place.key()) {
                    Some(known) => known.clone(),
                    None => known_of(row)?,
                };
                place.insert(object);
            }
            Ok(())
        };
        let mut by_link: BTreeMap<Link, Vec<_>> = BTreeMap::new();
        for (link, id) in linked {
            let values = [self.environment.as_str().into(), id.as_str().into()];
            by_link.entry(*link).or_default().push(values);
        }
        for (link, lists) in by_link {
            linking(link).rows_of_each(&lists, &mut add)?;
        }
        let mut unread = Vec::new();
        for key in keys {
            match known.get(key) {
                _ if found.contains_key(key) => {}
                Some(known) => {
                    found.insert(key.clone(), known.clone());
                }
                None => unread.push(self.object_key(key)),
            }
        }
        let read = OBJECT.rows_of_each(&unread, known_of)?;
        found.extend(
            read.into_iter()
                .map(|known| (known.object.key.clone(), known)),
        );
        Ok(found.into_values().collect())
    }

    fn find(&mut self, questions: &[Find]) -> Result<Vec<Row>, Failure> {
        let mut found: Vec<Row> = Vec::new();
        for Find {
            table,
            column,
            values,
        } in questions
        {
            let kind = column_type(table, column)?;
            let lists = values.iter().map(|value| {
                let environment = self.environment.as_str();
                Ok([environment.into(), argument(kind, value)?])
            });
            let lists: Vec<_> = lists.collect::<Result<_, Failure>>()?;
            let lookup = finding(table, column);
            let mut rows = lookup.rows_of_each(&lists, |row| cells(table, row))?;
            // Another question may have found them, by another column.
            if found.iter().any(|row| row.table == *table) {
                rows.retain(|row| !found.contains(row));
            }
            found.append(&mut rows);
        }
        Ok(found)
    }

    fn write(&mut self, rows: Vec<Row>) -> Result<Vec<Row>, Failure> {
        match self.fires_triggers {
            true => upsert(rows),
            false => settings::without_triggers(|| upsert(rows)),
        }
    }

    fn delete(&mut self, rows: Vec<Row>) -> Result<(), Failure> {
        match self.fires_triggers {
            true => delete(rows),
            false => settings::with_triggers(|| delete(rows)),
        }
    }

    fn set_due(&mut self, dues: &[(Key, Option<Due>)]) -> Result<(), Failure> {
        static SET_DUE: Statement = Statement::new(
            "update payments.stripe_objects
                set due = $4
              where environment = $1
                and object_type = $2
                and object_id = $3",
        );
        for (key, due) in dues {
            let key = self.object_key(key);
            let due = due.map(Due::as_str);
            let written = OBJECT.first(&key, |row| {
                let mut values = row.values();
                values.pop();
                values.push(due.into());
                OBJECT_WRITER.update(row.place(), &values)
            })?;
            if written == Some(Written::ByStatement) {
                let [environment, object_type, id] = key;
                SET_DUE.execute(&[environment, object_type, id, due.into()])?;
            }
        }
        Ok(())
    }
}

/// Writes the rows that are not there already as they should be, which most are.
fn upsert(rows: Vec<Row>) -> Result<Vec<Row>, Failure> {
    let mut written = Vec::new();
    for row in rows {
        let is_written = match update(&row)? {
            Some(is_written) => is_written,
            None => insert(&row)?,
        };
        if is_written {
            written.push(row);
        }
    }
    Ok(written)
}

/// Writes a row whose key is there, or says that it is not (None). Nothing is written, and so no
/// trigger fired, where the row says the same already.
fn update(row: &Row) -> Result<Option<bool>, Failure> {
    let written = by_key(row.table).first(&key(row)?, |present| {
        let mut values = arguments(row)?;
        let mut differs = false;
        let columns = row.table.columns.iter().zip(1..);
        let pairs = values.iter_mut().zip(present.values());
        for ((column, place), (value, there)) in columns.zip(pairs) {
            match row.table.kept.contains(&column.name) {
                true => *value = there,
                false => differs |= !present.has(place, value)?,
            }
        }
        if !differs {
            return Ok(Written::No);
        }
        writer(row.table).update(present.place(), &values)
    })?;
    Ok(match written {
        Some(Written::ByStatement) => Some(updating(row.table).execute(&arguments(row)?)? > 0),
        written => written.map(|written| written == Written::Yes),
    })
}

fn insert(row: &Row) -> Result<bool, Failure> {
    let values = arguments(row)?;
    let is_written = match writer(row.table).insert(&values)? {
        Written::ByStatement => inserting(row.table).execute(&values)? > 0,
        written => written == Written::Yes,
    };
    // A twin was faster; or a trigger of the app's has no row here, and will have none.
    Ok(is_written || update(row)?.unwrap_or(false))
}

/// The values of a row's key.
fn key(row: &Row) -> Result<Vec<DatumWithOid<'static>>, Failure> {
    let names = row.table.key.iter();
    names
        .map(|name| argument(column_type(row.table, name)?, row.get(name)))
        .collect()
}

fn delete(rows: Vec<Row>) -> Result<(), Failure> {
    for row in rows {
        deleting(row.table).execute(&key(&row)?)?;
    }
    Ok(())
}

/// The columns of the mirror, `due` last.
const OBJECTS: [&str; 12] = [
    "environment",
    "object_type",
    "object_id",
    "body",
    "as_of",
    "deleted",
    "evidence",
    "payment_intent_id",
    "charge_id",
    "invoice_id",
    "subscription_id",
    "due",
];

const OBJECT_KEY: [&str; 3] = ["environment", "object_type", "object_id"];

static OBJECT_WRITER: LazyLock<Writer> = LazyLock::new(|| Writer::new("stripe_objects", OBJECTS));

/// An object by its key.
static OBJECT: LazyLock<Lookup> =
    LazyLock::new(|| Lookup::new("stripe_objects", OBJECTS, OBJECT_KEY));

/// Objects by what they name.
fn linking(link: Link) -> &'static Lookup {
    static LOOKUPS: Mutex<BTreeMap<Link, &'static Lookup>> = Mutex::new(BTreeMap::new());
    let mut lookups = LOOKUPS.lock().unwrap_or_else(PoisonError::into_inner);
    lookups.entry(link).or_insert_with(|| {
        let given = ["environment", link.column()];
        Lookup::new("stripe_objects", OBJECTS, given).leak()
    })
}

/// A row of the mirror, as [`OBJECTS`] has it.
fn mirrored(row: &spi::Row) -> Result<(Mirrored, Option<String>), Failure> {
    let key = key_of(row)?;
    let stored = Stored {
        body: row.required_text(4)?,
        as_of: microseconds(row.required(5)?) / 1_000_000,
        deleted: row.required(6)?,
        evidence: row.text(7)?,
    };
    let state = Mirrored::from_stored(key, stored).map_err(|error| {
        Failure::internal(format!(
            "a row of payments.stripe_objects cannot be read: {error}"
        ))
    })?;
    Ok((state, row.text(12)?))
}

fn known_of(row: &spi::Row) -> Result<Known, Failure> {
    let (state, due) = mirrored(row)?;
    let object = state.object();
    Ok(Known { object, due })
}

fn key_of(row: &spi::Row) -> Result<Key, Failure> {
    Ok(Key {
        object_type: row.required_text(2)?,
        id: row.required_text(3)?,
    })
}

/// What a statement over a projected table is for.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
enum Purpose {
    Insert,
    Update,
    Delete,
    FirstPage,
    NextPage,
}

/// The statement for a purpose, put together once a backend.
fn statement(
    table: &'static Table,
    purpose: Purpose,
    sql: impl FnOnce() -> String,
) -> &'static Statement {
    type Statements = HashMap<(&'static str, Purpose), &'static Statement>;
    static STATEMENTS: LazyLock<Mutex<Statements>> = LazyLock::new(Mutex::default);
    let mut statements = STATEMENTS.lock().unwrap_or_else(PoisonError::into_inner);
    statements
        .entry((table.name, purpose))
        .or_insert_with(|| Statement::composed(sql()).leak())
}

/// Every column is in the SET list, so that an `UPDATE OF` trigger fires. What is kept is set to
/// itself: somebody may have changed it since the row was read.
fn updating(table: &'static Table) -> &'static Statement {
    statement(table, Purpose::Update, || {
        let is_set = |(column, place): (&Column, i32)| format!("{} = ${place}", column.name);
        let columns = table.columns.iter().zip(1..);
        let sets = columns.filter(|(column, _)| !table.key.contains(&column.name));
        let sets = sets.map(|(column, place)| match table.kept.contains(&column.name) {
            true => format!("{name} = {name}", name = column.name),
            false => is_set((column, place)),
        });
        let keys = table.columns.iter().zip(1..);
        let keys = keys.filter(|(column, _)| table.key.contains(&column.name));
        format!(
            "update payments.{table} set {sets} where {keys}",
            table = table.name,
            sets = join(sets),
            keys = all(keys.map(is_set)),
        )
    })
}

fn inserting(table: &'static Table) -> &'static Statement {
    statement(table, Purpose::Insert, || {
        format!(
            "insert into payments.{table} ({columns})
             values ({values})
             on conflict ({key}) do nothing",
            table = table.name,
            columns = selected(table),
            values = join((1..=table.columns.len()).map(|place| format!("${place}"))),
            key = table.key.join(", "),
        )
    })
}

fn writer(table: &'static Table) -> &'static Writer {
    static WRITERS: Mutex<BTreeMap<&str, &'static Writer>> = Mutex::new(BTreeMap::new());
    let mut writers = WRITERS.lock().unwrap_or_else(PoisonError::into_inner);
    let writer = || Writer::new(table.name, names(table)).leak();
    writers.entry(table.name).or_insert_with(writer)
}

fn deleting(table: &'static Table) -> &'static Statement {
    statement(table, Purpose::Delete, || {
        format!(
            "delete from payments.{} where {}",
            table.name,
            key_is_given(table)
        )
    })
}

/// The condition that a table's key is what the parameters say.
fn key_is_given(table: &Table) -> String {
    let names = table.key.iter().zip(1..);
    all(names.map(|(name, place)| format!("{name} = ${place}")))
}

/// The row of a table by its key.
fn by_key(table: &'static Table) -> &'static Lookup {
    static LOOKUPS: Mutex<BTreeMap<&str, &'static Lookup>> = Mutex::new(BTreeMap::new());
    let mut lookups = LOOKUPS.lock().unwrap_or_else(PoisonError::into_inner);
    let lookup = || Lookup::new(table.name, names(table), table.key.iter().copied()).leak();
    lookups.entry(table.name).or_insert_with(lookup)
}

/// The rows of one environment by another column.
fn finding(table: &'static Table, column: &'static str) -> &'static Lookup {
    type Lookups = BTreeMap<(&'static str, &'static str), &'static Lookup>;
    static LOOKUPS: Mutex<Lookups> = Mutex::new(BTreeMap::new());
    let mut lookups = LOOKUPS.lock().unwrap_or_else(PoisonError::into_inner);
    let lookup = || Lookup::new(table.name, names(table), ["environment", column]).leak();
    lookups.entry((table.name, column)).or_insert_with(lookup)
}

fn names(table: &'static Table) -> impl Iterator<Item = &'static str> {
    table.columns.iter().map(|column| column.name)
}

fn paging(table: &'static Table, first: bool) -> &'static Statement {
    let purpose = match first {
        true => Purpose::FirstPage,
        false => Purpose::NextPage,
    };
    statement(table, purpose, || {
        let key = join(without_environment(table).map(str::to_owned));
        let places = without_environment(table).zip(3..);
        let places = join(places.map(|(_, place)| format!("${place}")));
        let after = match first {
            true => String::new(),
            false => format!("and ({key}) > ({places})"),
        };
        format!(
            "select {columns}
               from payments.{table}
              where environment = $1
                {after}
              order by {key}
              limit $2",
            columns = selected(table),
            table = table.name,
        )
    })
}

/// The columns of a table as [`cells`] reads them.
fn selected(table: &Table) -> String {
    join(table.columns.iter().map(|column| column.name.to_owned()))
}

/// The columns that tell the rows of one environment apart.
fn without_environment(table: &Table) -> impl Iterator<Item = &'static str> {
    let key = table.key.iter().copied();
    key.filter(|name| *name != "environment")
}

fn join(parts: impl Iterator<Item = String>) -> String {
    parts.collect::<Vec<_>>().join(", ")
}

fn all(conditions: impl Iterator<Item = String>) -> String {
    conditions.collect::<Vec<_>>().join(" and ")
}

fn cells(table: &'static Table, row: &spi::Row) -> Result<Row, Failure> {
    let mut cells = Vec::with_capacity(table.columns.len());
    for (column, place) in table.columns.iter().zip(1..) {
        let cell = match column.ty {
            Type::Text => row.text(place)?.map(Cell::Text),
            Type::Boolean => row.get(place)?.map(Cell::Boolean),
            Type::Integer => row
                .get::<i32>(place)?
                .map(|number| Cell::Int(number.into())),
            Type::Bigint => row.get(place)?.map(Cell::Int),
            Type::Time => row.get(place)?.map(|time| Cell::Time(microseconds(time))),
            Type::Jsonb => row.text(place)?.map(Cell::Json),
            Type::Uuid => row
                .get::<Uuid>(place)?
                .map(|id| Cell::Uuid(uuid::Uuid::from_bytes(*id.as_bytes()))),
        };
        cells.push(cell.unwrap_or(Cell::Null));
    }
    Ok(Row { table, cells })
}

fn arguments<'v>(row: &Row) -> Result<Vec<DatumWithOid<'v>>, Failure> {
    let mut arguments = Vec::with_capacity(row.cells.len());
    for (column, cell) in row.table.columns.iter().zip(&row.cells) {
        arguments.push(argument(column.ty, cell)?);
    }
    Ok(arguments)
}

fn argument<'v>(kind: Type, cell: &Cell) -> Result<DatumWithOid<'v>, Failure> {
    Ok(match (kind, cell) {
        (Type::Text, Cell::Null) => None::<String>.into(),
        (Type::Jsonb, Cell::Null) => None::<JsonbText>.into(),
        (Type::Boolean, Cell::Null) => None::<bool>.into(),
        (Type::Integer, Cell::Null) => None::<i32>.into(),
        (Type::Bigint, Cell::Null) => None::<i64>.into(),
        (Type::Time, Cell::Null) => None::<TimestampWithTimeZone>.into(),
        (Type::Uuid, Cell::Null) => None::<Uuid>.into(),
        (Type::Text, Cell::Text(text)) => text.as_str().into(),
        (Type::Jsonb, Cell::Json(text)) => JsonbText(text).into(),
        (Type::Boolean, Cell::Boolean(value)) => (*value).into(),
        (Type::Integer, Cell::Int(number)) => i32::try_from(*number).ok().into(),
        (Type::Bigint, Cell::Int(number)) => (*number).into(),
        (Type::Time, Cell::Time(microseconds)) => time(*microseconds)?.into(),
        (Type::Uuid, Cell::Uuid(id)) => Uuid::from_bytes(*id.as_bytes()).into(),
        _ => return Err(Failure::internal("a cell is not of its column's type")),
    })
}

fn column_type(table: &Table, name: &str) -> Result<Type, Failure> {
    let place = table.position(name);
    place
        .map(|place| table.columns[place].ty)
        .ok_or_else(|| Failure::internal("a table has no such column").with("column", name))
}

/// Microseconds between 1970, where Stripe counts from, and 2000, where Postgres does.
const EPOCHS_APART: i64 = 946_684_800_000_000;

/// A time of Stripe's or the ledger's, in microseconds since 1970.
pub fn time(microseconds: i64) -> Result<TimestampWithTimeZone, Failure> {
    TimestampWithTimeZone::try_from(microseconds - EPOCHS_APART)
        .map_err(|_| Failure::internal("a time is beyond what Postgres can hold"))
}

fn microseconds(time: TimestampWithTimeZone) -> i64 {
    i64::from(time) + EPOCHS_APART
}
