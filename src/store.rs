//! The ledger's store: the tables, through SPI, as their owner.

use crate::postgres::error::Failure;
use crate::postgres::spi::{self, Statement};
use crate::postgres::{lock, settings};
use crate::proof;
use ledger::{
    Cell, Due, Find, Key, Known, Link, Links, Lock, Mark, Merged, Mirrored, Object, Row, Scope,
    Store, Stored, Table, Type,
};
use pgrx::Uuid;
use pgrx::datum::{DatumWithOid, JsonString, TimestampWithTimeZone};
use serde_json::{Map, Value};
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
        static ONE: LazyLock<Statement> = LazyLock::new(|| {
            Statement::composed(format!(
                "select {MIRRORED}
                   from payments.stripe_objects
                  where environment = $1
                    and object_type = $2
                    and object_id = $3"
            ))
        });
        let key = [key.object_type.as_str().into(), key.id.as_str().into()];
        let [object_type, id] = key;
        ONE.first(
            &[self.environment.as_str().into(), object_type, id],
            |row| Ok(mirrored(row)?.0.mark()),
        )
    }

    fn lock_name(&self, scope: &Scope) -> [String; 3] {
        let (kind, id) = match scope {
            Scope::Environment => ("environment", String::new()),
            Scope::Session(id) => ("session", id.to_string()),
            Scope::Subscription(id) => ("subscription", id.clone()),
            Scope::Customer(id) => ("customer", id.clone()),
            Scope::Invoice(id) => ("invoice", id.clone()),
            Scope::PaymentIntent(id) => ("payment intent", id.clone()),
            Scope::Charge(id) => ("charge", id.clone()),
        };
        [self.environment.as_str().to_owned(), kind.to_owned(), id]
    }

    /// The states of these objects and why they are due, their rows locked in the order of the keys.
    fn locked(&self, keys: &[&Key]) -> Result<HashMap<Key, (Mirrored, Option<String>)>, Failure> {
        fn locking(several: bool) -> Statement {
            let by_key = lookup(OBJECTS, &OBJECT_KEY, 2, several, "for update");
            Statement::composed(by_key)
        }
        static ONE: LazyLock<Statement> = LazyLock::new(|| locking(false));
        static SEVERAL: LazyLock<Statement> = LazyLock::new(|| locking(true));
        let statement: &'static Statement = if keys.len() == 1 { &ONE } else { &SEVERAL };
        let (types, ids) = parted(keys.iter().copied());
        let arguments = [self.environment.as_str().into(), types.into(), ids.into()];
        let known = statement.rows(&arguments, |row| {
            let (state, due) = mirrored(row)?;
            Ok((state.key().clone(), (state, due)))
        })?;
        Ok(known.into_iter().collect())
    }

    /// Keeps an object that was not known. None if a twin was faster.
    fn insert(&self, state: &Mirrored) -> Result<Option<Merged>, Failure> {
        static INSERT: Statement = Statement::new(
            "insert into payments.stripe_objects (
                 environment, object_type, object_id, body, as_of, deleted, evidence,
                 payment_intent_id, charge_id, invoice_id, subscription_id
             )
             values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11)
             on conflict do nothing",
        );
        let object = state.object();
        let stored = state.to_stored();
        Ok(
            (self.keep(&INSERT, &object, &stored)? > 0).then_some(Merged {
                before: None,
                after: Known { object, due: None },
            }),
        )
    }

    /// Joins what was observed with what was known.
    fn update(
        &self,
        known: Mirrored,
        due: Option<String>,
        observed: Mirrored,
    ) -> Result<Merged, Failure> {
        static UPDATE: Statement = Statement::new(
            "update payments.stripe_objects
                set body = $4,
                    as_of = $5,
                    deleted = $6,
                    evidence = $7,
                    payment_intent_id = $8,
                    charge_id = $9,
                    invoice_id = $10,
                    subscription_id = $11
              where environment = $1
                and object_type = $2
                and object_id = $3",
        );
        let before = known.object();
        let joined = known.clone().join(observed);
        let object = joined.object();
        if joined != known {
            self.keep(&UPDATE, &object, &joined.to_stored())?;
        }
        Ok(Merged {
            before: Some(before),
            after: Known { object, due },
        })
    }

    fn keep(
        &self,
        statement: &'static Statement,
        object: &Object,
        stored: &Stored,
    ) -> Result<u64, Failure> {
        let links = Links::of(object);
        let [payment_intent, charge, invoice, subscription] =
            links.columns().map(|(_, id)| DatumWithOid::from(id));
        statement.execute(&[
            self.environment.as_str().into(),
            object.key.object_type.as_str().into(),
            object.key.id.as_str().into(),
            JsonString(stored.body.clone()).into(),
            time(stored.as_of * 1_000_000)?.into(),
            stored.deleted.into(),
            stored.evidence.clone().map(JsonString).into(),
            payment_intent,
            charge,
            invoice,
            subscription,
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
        let mut merged: Vec<Option<Merged>> = observed.iter().map(|_| None).collect();
        // A twin may insert an object between our look and our insert; then it is there at the
        // second look.
        while merged.iter().any(Option::is_none) {
            let open: Vec<usize> = (0..observed.len())
                .filter(|i| merged[*i].is_none())
                .collect();
            let keys: Vec<&Key> = open.iter().map(|i| &observed[*i].0).collect();
            let mut known = self.locked(&keys)?;
            for index in open {
                let (key, state) = &observed[index];
                merged[index] = match known.remove(key) {
                    Some((before, due)) => Some(self.update(before, due, state.clone())?),
                    None => self.insert(state)?,
                };
            }
        }
        Ok(merged.into_iter().flatten().collect())
    }

    fn objects(
        &mut self,
        keys: &[Key],
        linked: &[(Link, String)],
        known: &BTreeMap<Key, Known>,
    ) -> Result<Vec<Known>, Failure> {
        let mut links: BTreeMap<Link, Vec<&str>> = BTreeMap::new();
        for (link, id) in linked {
            links.entry(*link).or_default().push(id);
        }
        if keys.is_empty() && links.is_empty() {
            return Ok(Vec::new());
        }
        let mut arguments = vec![self.environment.as_str().into()];
        if !keys.is_empty() {
            let (types, ids) = parted(keys.iter());
            arguments.extend([types.into(), ids.into()]);
        }
        let by_link = links.iter().map(|(link, ids)| (*link, ids.len() > 1));
        let by_key = (!keys.is_empty()).then_some(keys.len() > 1);
        let statement = reading((by_key, by_link.collect()));
        arguments.extend(links.into_values().map(DatumWithOid::from));
        let mut found: BTreeMap<Key, Known> = BTreeMap::new();
        statement.rows(&arguments, |row| {
            let key = key_of(row)?;
            if let Entry::Vacant(place) = found.entry(key) {
                let object = match known.get(place.key()) {
                    Some(known) => known.clone(),
                    None => {
                        let (state, due) = mirrored(row)?;
                        Known {
                            object: state.object(),
                            due,
                        }
                    }
                };
                place.insert(object);
            }
            Ok(())
        })?;
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
            let values: Vec<String> = values.iter().filter_map(as_text).collect();
            let statement = finding(table, column, kind, values.len() > 1);
            let rows = statement
                .rows(&[self.environment.as_str().into(), values.into()], |row| {
                    cells(table, row)
                })?;
            for row in rows {
                if !found.contains(&row) {
                    found.push(row);
                }
            }
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
            SET_DUE.execute(&[
                self.environment.as_str().into(),
                key.object_type.as_str().into(),
                key.id.as_str().into(),
                due.map(Due::as_str).into(),
            ])?;
        }
        Ok(())
    }
}

/// Writes the rows that are not there already as they should be, which most are: to leave that to
/// ON CONFLICT would lock them first, and so write.
fn upsert(rows: Vec<Row>) -> Result<Vec<Row>, Failure> {
    let mut written = Vec::new();
    for row in rows {
        let is_there = present(&row)?.is_some_and(|present| says_the_same(&present, &row));
        if !is_there && upserting(row.table).execute(&arguments(&row)?)? > 0 {
            written.push(row);
        }
    }
    Ok(written)
}

/// The row with the same key as this one.
fn present(row: &Row) -> Result<Option<Row>, Failure> {
    let reading = statement(row.table, Purpose::Present, || {
        let (selected, table) = (selected(row.table), row.table.name);
        let key = key_is_given(row.table);
        format!("select {selected} from payments.{table} where {key}")
    });
    reading.first(&key(row)?, |found| cells(row.table, found))
}

/// Whether one row says in every column of ours what another says. Where they are thought to
/// differ and do not, as JSON that is spelled otherwise, nothing is written either.
fn says_the_same(present: &Row, row: &Row) -> bool {
    let columns = row.table.columns.iter();
    let mut cells = columns.zip(present.cells.iter().zip(&row.cells));
    cells.all(|(column, cells)| match cells {
        _ if row.table.kept.contains(&column.name) => true,
        (Cell::Json(one), Cell::Json(other)) => {
            let parse = |text: &str| serde_json::from_str::<Value>(text).ok();
            one == other || parse(one) == parse(other)
        }
        (one, other) => one == other,
    })
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

/// The columns of the mirror that every reading statement selects.
const MIRRORED: &str = "object_type, object_id, body::text as body,
    extract(epoch from as_of)::bigint as as_of, deleted, evidence::text as evidence, due";

/// A row of the mirror, as [`MIRRORED`] selects it.
fn mirrored(row: &spi::Row) -> Result<(Mirrored, Option<String>), Failure> {
    let key = key_of(row)?;
    let stored = Stored {
        body: row.required(3)?,
        as_of: row.required(4)?,
        deleted: row.required(5)?,
        evidence: row.get(6)?,
    };
    let state = Mirrored::from_stored(key, &stored).map_err(|error| {
        Failure::internal(format!(
            "a row of payments.stripe_objects cannot be read: {error}"
        ))
    })?;
    Ok((state, row.get(7)?))
}

fn key_of(row: &spi::Row) -> Result<Key, Failure> {
    Ok(Key {
        object_type: row.required(1)?,
        id: row.required(2)?,
    })
}

/// Keys as two columns.
fn parted<'a>(keys: impl Iterator<Item = &'a Key>) -> (Vec<&'a str>, Vec<&'a str>) {
    keys.map(|key| (key.object_type.as_str(), key.id.as_str()))
        .unzip()
}

/// The mirror, as [`lookup`] wants a table.
const OBJECTS: (&str, &str) = (MIRRORED, "stripe_objects");

const OBJECT_KEY: [(&str, &str); 2] = [("object_type", "text"), ("object_id", "text")];

/// Selects from a table the rows of the environment $1 in which columns of these types have one of
/// the values that arrays of text name, the first array being the parameter at `place`.
///
/// Each value is looked up by itself, as OFFSET 0 keeps it: of `= any (…)` the planner, which knows
/// nothing of a new table, thinks that reading the whole environment is as cheap. One value alone,
/// as there mostly is, needs no join.
fn lookup(
    (selected, table): (&str, &str),
    columns: &[(&str, &str)],
    place: usize,
    several: bool,
    suffix: &str,
) -> String {
    let is_value = |((column, kind), place): (&(&str, &str), usize)| match several {
        true => format!("{column} = wanted.value_{place}::{kind}"),
        false => format!("{column} = (${place}::text[])[1]::{kind}"),
    };
    let conditions = all(columns.iter().zip(place..).map(is_value));
    let rows = format!(
        "select {selected}
           from payments.{table}
          where environment = $1
            and {conditions}"
    );
    if !several {
        return format!("{rows} {suffix}");
    }
    let places = place..place + columns.len();
    let arrays = join(places.clone().map(|place| format!("${place}::text[]")));
    let values = join(places.map(|place| format!("value_{place}")));
    format!(
        "select found.*
           from unnest({arrays}) as wanted ({values})
          cross join lateral ({rows} {suffix}) as found"
    )
}

/// Which objects a statement reads: by key, and by these links; and whether several of each.
type Asked = (Option<bool>, Vec<(Link, bool)>);

fn reading(asked: Asked) -> &'static Statement {
    static STATEMENTS: LazyLock<Mutex<HashMap<Asked, &'static Statement>>> =
        LazyLock::new(Mutex::default);
    let mut statements = STATEMENTS.lock().unwrap_or_else(PoisonError::into_inner);
    let sql = |(by_key, by_link): &Asked| {
        let key = by_key.map(|several| lookup(OBJECTS, &OBJECT_KEY, 2, several, "offset 0"));
        let places = if by_key.is_some() { 4.. } else { 2.. };
        let links = by_link.iter().zip(places).map(|((link, several), place)| {
            let column = [(link.column(), "text")];
            lookup(OBJECTS, &column, place, *several, "offset 0")
        });
        let parts = key.into_iter().chain(links);
        let parts: Vec<String> = parts.map(|part| format!("({part})")).collect();
        parts.join(" union all ")
    };
    statements
        .entry(asked)
        .or_insert_with_key(|asked| Statement::composed(sql(asked)).leak())
}

/// What a statement over a projected table is for.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
enum Purpose {
    Present,
    Upsert,
    Delete,
    /// By this column, and whether by several values.
    Find(&'static str, bool),
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

/// Every column is in the SET list, so that an `UPDATE OF` trigger fires; the row is written only
/// if it then differs, so that nothing fires on noise.
fn upserting(table: &'static Table) -> &'static Statement {
    statement(table, Purpose::Upsert, || {
        let names: Vec<&str> = table.columns.iter().map(|column| column.name).collect();
        let values = table
            .columns
            .iter()
            .enumerate()
            .map(|(place, column)| match column.ty {
                Type::Jsonb => format!("${}::jsonb", place + 1),
                _ => format!("${}", place + 1),
            });
        let (ours, theirs): (Vec<&str>, Vec<&str>) = names
            .iter()
            .filter(|name| !table.key.contains(name))
            .partition(|name| table.kept.contains(name));
        let sets = ours.iter().map(|name| format!("{name} = target.{name}"));
        let sets = sets.chain(
            theirs
                .iter()
                .map(|name| format!("{name} = excluded.{name}")),
        );
        let compared = |row: &str| join(theirs.iter().map(|name| format!("{row}.{name}")));
        format!(
            "insert into payments.{table} as target ({columns})
             values ({values})
             on conflict ({key}) do update
                set {sets}
              where ({before}) is distinct from ({after})",
            table = table.name,
            columns = names.join(", "),
            values = join(values),
            key = table.key.join(", "),
            sets = join(sets),
            before = compared("target"),
            after = compared("excluded"),
        )
    })
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

/// Values are handed over as text, which every type of a key column can be read from.
fn finding(
    table: &'static Table,
    column: &'static str,
    kind: Type,
    several: bool,
) -> &'static Statement {
    statement(table, Purpose::Find(column, several), || {
        let kind = match kind {
            Type::Uuid => "uuid",
            _ => "text",
        };
        let selected = selected(table);
        lookup(
            (&selected, table.name),
            &[(column, kind)],
            2,
            several,
            "offset 0",
        )
    })
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
    join(table.columns.iter().map(|column| match column.ty {
        Type::Jsonb => format!("{}::text", column.name),
        _ => column.name.to_owned(),
    }))
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
    let cells = table.columns.iter().enumerate().map(|(place, column)| {
        let place = place + 1;
        Ok(match column.ty {
            Type::Text => row.get(place)?.map(Cell::Text),
            Type::Boolean => row.get(place)?.map(Cell::Boolean),
            Type::Integer => row
                .get::<i32>(place)?
                .map(|number| Cell::Int(number.into())),
            Type::Bigint => row.get(place)?.map(Cell::Int),
            Type::Time => row.get(place)?.map(|time| Cell::Time(microseconds(time))),
            Type::Jsonb => row.get(place)?.map(Cell::Json),
            Type::Uuid => row
                .get::<Uuid>(place)?
                .map(|id| Cell::Uuid(uuid::Uuid::from_bytes(*id.as_bytes()))),
        }
        .unwrap_or(Cell::Null))
    });
    Ok(Row {
        table,
        cells: cells.collect::<Result<_, Failure>>()?,
    })
}

fn arguments(row: &Row) -> Result<Vec<DatumWithOid<'static>>, Failure> {
    let columns = row.table.columns.iter();
    columns
        .zip(&row.cells)
        .map(|(column, cell)| argument(column.ty, cell))
        .collect()
}

fn argument(kind: Type, cell: &Cell) -> Result<DatumWithOid<'static>, Failure> {
    Ok(match (kind, cell) {
        (Type::Text | Type::Jsonb, Cell::Null) => None::<String>.into(),
        (Type::Boolean, Cell::Null) => None::<bool>.into(),
        (Type::Integer, Cell::Null) => None::<i32>.into(),
        (Type::Bigint, Cell::Null) => None::<i64>.into(),
        (Type::Time, Cell::Null) => None::<TimestampWithTimeZone>.into(),
        (Type::Uuid, Cell::Null) => None::<Uuid>.into(),
        (Type::Text, Cell::Text(text)) | (Type::Jsonb, Cell::Json(text)) => text.clone().into(),
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

/// A key's value as text.
fn as_text(cell: &Cell) -> Option<String> {
    match cell {
        Cell::Text(text) => Some(text.clone()),
        Cell::Uuid(id) => Some(id.to_string()),
        _ => None,
    }
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
