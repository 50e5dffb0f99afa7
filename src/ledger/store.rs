//! What the ledger needs from whatever keeps its data: Postgres through SPI, or memory in tests.
//!
//! A store is bound to one environment and to one transaction at READ COMMITTED: every call sees
//! what others committed before it began, and never what it read a call ago.

use std::collections::BTreeMap;

use serde_json::{Map, Value};
use uuid::Uuid;

use crate::links::Link;
use crate::mirror::{Mirrored, Object};
use crate::observation::Key;
use crate::table::{Cell, Row, Table};

/// What a lock protects. The order of the variants is the order in which locks are waited for,
/// everywhere: two transactions that wait in one order cannot wait for each other.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Scope {
    /// The whole environment: shared by every writer, exclusive for a rebuild.
    Environment,
    /// A checkout session of ours, by the id of its row. Whoever inserts such a row takes this
    /// lock first, so that a webhook which overtakes the insert waits here, where it holds
    /// nothing that the insert could need.
    Session(Uuid),
    /// A subscription and its items.
    Subscription(String),
    /// A customer and the subjects that they pay for.
    Customer(String),
    Invoice(String),
    PaymentIntent(String),
    Charge(String),
}

/// A lock that lasts until the transaction (or the savepoint it was taken under) ends.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Lock {
    pub scope: Scope,
    /// Shared locks go together; an exclusive one goes with no other.
    pub exclusive: bool,
}

impl Lock {
    pub fn shared(scope: Scope) -> Self {
        Self {
            scope,
            exclusive: false,
        }
    }

    pub fn exclusive(scope: Scope) -> Self {
        Self {
            scope,
            exclusive: true,
        }
    }
}

/// Why Stripe must be asked about an object.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Due {
    /// Two states of the same second, and nothing tells which came last: fetch the object.
    Undecided,
    /// A subscription with more items than its payload lists: fetch it with all of them, as one
    /// list with `has_more: false`.
    Items,
    /// A payment intent (or a charge whose intent is unknown) of which nothing says whether it
    /// pays a subscription invoice: list its invoice payments with their invoices expanded, and
    /// observe them. An empty answer is observed as an object of type `invoice_payment_list`
    /// whose id is the intent's and whose `data` is empty.
    Unclassified,
    /// A paid one-off invoice of which nothing says how it was paid: list its invoice payments
    /// and observe the whole answer as an `invoice_payment_list` whose id is the invoice's.
    Payments,
}

impl Due {
    /// The word kept in the mirror's `due` column.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Undecided => "undecided",
            Self::Items => "items",
            Self::Unclassified => "unclassified",
            Self::Payments => "payments",
        }
    }
}

/// An object as the mirror knows it.
#[derive(Clone, Debug)]
pub struct Known {
    pub object: Object,
    /// The mirror's `due` column.
    pub due: Option<String>,
}

/// An object that was just merged.
#[derive(Clone, Debug)]
pub struct Merged {
    /// What was known before. `None` for an object seen for the first time.
    pub before: Option<Object>,
    pub after: Known,
}

/// A question for rows of one table: those whose `column` holds one of `values`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Find {
    pub table: &'static Table,
    pub column: &'static str,
    pub values: Vec<Cell>,
}

/// Where the ledger keeps what it knows. See the module's comment for what a store must be.
pub trait Store {
    /// Why a call failed. The ledger passes it on and does nothing more.
    type Error;

    /// `test` or `live`: the `environment` of every row read and written.
    fn environment(&self) -> &str;

    /// Whether metadata that names a checkout session of ours was really written by us, by its
    /// `payments_proof`. Only asked when our own row is gone.
    fn authentic(&self, metadata: &Map<String, Value>) -> bool;

    /// Waits for these locks, in this order (they come sorted, one a scope).
    fn lock(&mut self, locks: &[Lock]) -> Result<(), Self::Error>;

    /// Takes these locks if none must be waited for; `false` when one must (some of them may
    /// then have been taken). Locks that this transaction holds never stand in its own way.
    fn try_lock(&mut self, locks: &[Lock]) -> Result<bool, Self::Error>;

    /// Joins each state with what the mirror has, under the row's lock, and keeps the result
    /// with its [`crate::links::Links`]. Keys come sorted and once each; the answer has the same
    /// order.
    fn merge(&mut self, observed: Vec<(Key, Mirrored)>) -> Result<Vec<Merged>, Self::Error>;

    /// The mirrored objects with one of these keys or one of these links, each once. Those that are
    /// `known` are answered as they are there: to read a body costs more than to find it.
    fn objects(
        &mut self,
        keys: &[Key],
        linked: &[(Link, String)],
        known: &BTreeMap<Key, Known>,
    ) -> Result<Vec<Known>, Self::Error>;

    /// The rows that answer any of the questions, each once.
    fn find(&mut self, questions: &[Find]) -> Result<Vec<Row>, Self::Error>;

    /// Upserts by primary key, table by table in the order given, and answers with the rows
    /// that were inserted or that differed. A row already there is updated with every column in
    /// the SET list (so that `UPDATE OF` triggers fire), its [`Table::kept`] columns set to
    /// themselves, and only when it then differs.
    fn write(&mut self, rows: Vec<Row>) -> Result<Vec<Row>, Self::Error>;

    /// Deletes rows by their primary keys.
    fn delete(&mut self, rows: Vec<Row>) -> Result<(), Self::Error>;

    /// Sets the mirror's `due` column.
    fn set_due(&mut self, dues: &[(Key, Option<Due>)]) -> Result<(), Self::Error>;
}
