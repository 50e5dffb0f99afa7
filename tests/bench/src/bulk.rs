//! The least that a sync must do in Postgres: the rows that it made, into tables like its own, as
//! many at a time as Stripe lists on a page, by one prepared statement a table.

use crate::{Trouble, processor};
use postgres::types::ToSql;
use postgres::{Client, NoTls, Row};
use serde::{Deserialize, Serialize};
use std::time::Instant;

/// What is to be measured.
#[derive(Deserialize)]
struct Order {
    /// As a superuser.
    dsn: String,
    /// Rows of a table that are written at a time.
    page: usize,
    tables: Vec<Table>,
}

#[derive(Deserialize)]
struct Table {
    /// Selects the rows, every column as text.
    read: String,
    /// Writes rows: a parameter a column, each an array of text.
    write: String,
}

#[derive(Serialize)]
struct Report {
    seconds: f64,
    processor_seconds: f64,
}

/// Writes a page of each table and commits, until there are no more.
///
/// # Errors
/// Whatever goes wrong on the way.
pub fn measure(order: &str) -> Result<String, Trouble> {
    let order: Order = serde_json::from_str(order)?;
    let mut client = Client::connect(&order.dsn, NoTls)?;
    let backend: i32 = client.query_one("select pg_backend_pid()", &[])?.get(0);
    let backend = backend as u32;
    let mut tables = Vec::new();
    for table in &order.tables {
        let rows = client.query(&table.read, &[])?;
        let pages: Vec<Page> = rows.chunks(order.page).map(Page::of).collect();
        tables.push((client.prepare(&table.write)?, pages));
    }
    let pages = tables.iter().map(|(_, pages)| pages.len()).max();
    let (before, started) = (processor::of(backend)?, Instant::now());
    for number in 0..pages.unwrap_or(0) {
        let mut transaction = client.transaction()?;
        for (statement, pages) in &tables {
            if let Some(page) = pages.get(number) {
                transaction.execute(statement, &page.parameters())?;
            }
        }
        transaction.commit()?;
    }
    Ok(serde_json::to_string(&Report {
        seconds: started.elapsed().as_secs_f64(),
        processor_seconds: processor::of(backend)? - before,
    })?)
}

/// The columns of some rows.
struct Page(Vec<Vec<Option<String>>>);

impl Page {
    fn of(rows: &[Row]) -> Page {
        let columns = rows.first().map_or(0, Row::len);
        let column = |place| rows.iter().map(|row| row.get(place)).collect();
        Page((0..columns).map(column).collect())
    }

    fn parameters(&self) -> Vec<&(dyn ToSql + Sync)> {
        self.0
            .iter()
            .map(|column| column as &(dyn ToSql + Sync))
            .collect()
    }
}
