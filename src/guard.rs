//! App roles add sessions through the functions alone.
//!
//! A policy lets them insert into `checkout_sessions`, so without this they could as well insert a
//! row of their own making: with a key that blocks somebody else's, or one that looks paid for.

use crate::postgres::error::{Failure, SqlState, surface};
use crate::postgres::identity;
use pgrx::heap_tuple::PgHeapTuple;
use pgrx::prelude::*;
use pgrx::{PgTrigger, Uuid, WhoAllocated};
use std::cell::Cell;
use std::convert::Infallible;
use std::num::NonZeroUsize;

/// A table that app roles insert into, and what they may say there.
pub struct Requests {
    /// Its name in the schema `payments`.
    pub table: &'static str,
    /// The function that inserts there.
    pub function: &'static str,
    /// What a caller asks for: the columns that `grant_app` lets a role insert.
    pub request: &'static [&'static str],
    /// What Stripe answers: null until the system fills it in.
    pub answer: &'static [&'static str],
}

/// The tables with requests in them. Besides these columns both have a status and two times.
pub const REQUESTS: [Requests; 2] = [
    Requests {
        table: "checkout_sessions",
        function: "create_checkout_session",
        request: &[
            "id",
            "environment",
            "mode",
            "subject_type",
            "subject_id",
            "customer_email",
            "line_items",
            "success_url",
            "cancel_url",
            "idempotency_key",
            "metadata",
            "requested_by",
            "request_hash",
            "generation",
        ],
        answer: &[
            "payment_status",
            "stripe_checkout_session_id",
            "stripe_customer_id",
            "stripe_payment_intent_id",
            "stripe_subscription_id",
            "url",
            "last_error",
            "expires_at",
        ],
    },
    Requests {
        table: "customer_portal_sessions",
        function: "create_customer_portal_session",
        request: &[
            "id",
            "environment",
            "subject_type",
            "subject_id",
            "return_url",
            "configuration",
            "flow",
            "requested_by",
        ],
        answer: &["stripe_customer_id", "url", "last_error"],
    },
];

thread_local! {
    static ALLOWED: Cell<Option<Uuid>> = const { Cell::new(None) };
}

/// Lets the caller insert the row `id` for as long as the token lives.
///
/// Held around the one INSERT that runs with the caller's rights. A trigger there may ask for
/// another session, so the token puts back what was allowed before.
#[must_use]
pub fn allow(id: Uuid) -> Allowance {
    Allowance {
        before: ALLOWED.replace(Some(id)),
    }
}

/// See [`allow`].
pub struct Allowance {
    before: Option<Uuid>,
}

impl Drop for Allowance {
    fn drop(&mut self) {
        ALLOWED.set(self.before);
    }
}

/// Refuses rows that a caller made up. The tables' owner, and who has its rights, may insert what
/// they like: a restore does.
///
/// # Errors
/// 42501.
#[pg_trigger(sql = false)]
fn guard_session<'a>(
    trigger: &'a PgTrigger<'a>,
) -> Result<Option<PgHeapTuple<'a, impl WhoAllocated>>, Infallible> {
    surface(|| {
        let relation = trigger
            .relation()
            .map_err(|error| Failure::internal(error.to_string()))?;
        let row = trigger.new();
        // SAFETY: Postgres keeps the relation open while its trigger runs.
        let owner = unsafe { (*relation.rd_rel).relowner };
        if !identity::has_privileges_of(identity::current_user(), owner)
            && let Some(row) = &row
        {
            require_request(relation.name(), row)?;
        }
        Ok(Ok(row))
    })
}

/// A row of a request is the one that a function is asking for right now, and holds nothing that
/// only the system may say.
fn require_request(table: &str, row: &PgHeapTuple<'_, impl WhoAllocated>) -> Result<(), Failure> {
    let requests = REQUESTS
        .iter()
        .find(|requests| requests.table == table)
        .ok_or_else(|| Failure::internal("guard_session() guards another table"))?;
    let refuse = |code, message: String, hint: String| {
        Err(Failure::new(SqlState::INSUFFICIENT_PRIVILEGE, code, message).hint(hint))
    };

    // Each lookup by name would compare with the names of all columns before it.
    let columns: Vec<&str> = row.attributes().map(|(_, column)| column.name()).collect();
    let place = |column: &str| {
        let before = columns.iter().position(|name| *name == column)?;
        NonZeroUsize::new(before + 1)
    };

    let id = place("id").and_then(|place| row.get_by_index::<Uuid>(place).ok().flatten());
    if id.is_none() || id != ALLOWED.get() {
        return refuse(
            "direct_insert",
            format!("payments.{table} takes no direct inserts"),
            format!("Call payments.{}() instead.", requests.function),
        );
    }
    let empty = |column: &&str| {
        place(column).is_some_and(|place| matches!(row.get_by_index::<String>(place), Ok(None)))
    };
    let says = |column, text| {
        place(column).is_some_and(|place| row.get_by_index::<&str>(place) == Ok(Some(text)))
    };
    let now = |column| {
        let time = |place| row.get_by_index::<TimestampWithTimeZone>(place);
        place(column).is_some_and(|place| time(place) == Ok(Some(transaction_timestamp())))
    };
    let genuine = requests.answer.iter().all(empty)
        && says("status", "initialized")
        && now("created_at")
        && now("updated_at");
    match genuine {
        true => Ok(()),
        false => refuse(
            "forged_answer",
            format!("a request in payments.{table} holds what only Stripe's answer may"),
            "A BEFORE trigger on the table put it there.".to_owned(),
        ),
    }
}
