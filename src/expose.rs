//! `expose(schema)`: what a PostgREST-style gateway may see.
//!
//! A gateway serves every function of a schema to whoever may execute it, and Stripe can only reach
//! the first schema it serves. So `payments` itself stays out of its sight, and three wrappers
//! stand in a schema that it serves. They run with the caller's rights and are no part of the
//! extension: they are dumped, and can be dropped, like any function.

use crate::install::quoted;
use crate::postgres::error::{Failure, SqlState, surface};
use crate::postgres::{identity, spi};
use pgrx::prelude::*;
use pgrx::spi::quote_literal;

/// What a gateway needs.
const EXPOSED: &[&str] = &[
    "create_checkout_session",
    "create_customer_portal_session",
    "stripe_webhook",
];

/// PostgREST takes a function's `statement_timeout` for the whole request. A webhook comes in as
/// the anonymous role, whose own timeout is often a few seconds: too short for a call to Stripe.
/// <https://docs.postgrest.org/en/stable/references/transactions.html#function-settings>
const STATEMENT_TIMEOUT: &str = "15s";

/// It takes this one, too, from the function before the role: else a role with another level by default
/// could call none of them.
const ISOLATION: &str = "read committed";

/// A function to be wrapped.
struct Inner {
    name: String,
    arguments: String,
    result: String,
    places: i32,
    comment: Option<String>,
    callers: Vec<String>,
}

/// A function of the same name in the schema.
struct Present {
    signature: String,
    arguments: String,
    result: String,
    is_ours: bool,
}

/// Creates the wrappers in `schema`, or brings them up to date, and tells the gateway.
///
/// Who may execute a function of `payments` may execute its wrapper.
///
/// # Errors
/// 42501 unless the caller may create functions in the schema; 42723 when a function of that name
/// is there that `expose()` did not make.
#[pg_extern(sql = false)]
fn expose(schema: &str) {
    surface(|| {
        // Not to be somebody else, but to have the settings put back.
        identity::as_user(identity::current_user(), || {
            spi::execute("set local search_path = ''", &[])?;
            for inner in spi::rows(INNER, &[EXPOSED.to_vec().into()], read_inner)? {
                wrap(schema, &inner)?;
            }
            Ok::<_, Failure>(())
        })?;
        tell_gateways()
    })
}

/// Has PostgREST, and what follows its example, read the schema again once this is committed.
/// <https://docs.postgrest.org/en/stable/references/schema_cache.html>
pub fn tell_gateways() -> Result<(), Failure> {
    spi::execute("notify pgrst, 'reload schema'", &[])?;
    Ok(())
}

fn wrap(schema: &str, inner: &Inner) -> Result<(), Failure> {
    let arguments = [schema.into(), inner.name.as_str().into()];
    for present in spi::rows(PRESENT, &arguments, read_present)? {
        if !present.is_ours {
            return Err(Failure::new(
                SqlState::new("42723"),
                "function_in_the_way",
                format!("function {} was not made by expose()", present.signature),
            )
            .hint("Drop or rename it, then run expose() again."));
        }
        if (&present.arguments, &present.result) != (&inner.arguments, &inner.result) {
            spi::execute(&format!("drop function {}", present.signature), &[])?;
        }
    }

    let name = format!("{}.{}", quoted(schema), quoted(&inner.name));
    let places: Vec<String> = (1..=inner.places)
        .map(|place| format!("${place}"))
        .collect();
    let body = format!(
        "select payments.{}({})",
        quoted(&inner.name),
        places.join(", ")
    );
    spi::execute(
        &format!(
            "create or replace function {name}({arguments}) returns {result}
             language sql volatile security invoker
             set search_path = '' set statement_timeout = '{STATEMENT_TIMEOUT}'
             set default_transaction_isolation = '{ISOLATION}'
             as {body}",
            arguments = inner.arguments,
            result = inner.result,
            body = quote_literal(body),
        ),
        &[],
    )?;
    if let Some(comment) = &inner.comment {
        let comment = quote_literal(comment);
        spi::execute(&format!("comment on function {name} is {comment}"), &[])?;
    }
    spi::execute(
        &format!("revoke execute on function {name} from public"),
        &[],
    )?;
    for caller in &inner.callers {
        spi::execute(
            &format!("grant execute on function {name} to {caller}"),
            &[],
        )?;
    }
    Ok(())
}

const INNER: &str = "
    select
        proname::text,
        pg_get_function_arguments(oid),
        pg_get_function_result(oid),
        pronargs::integer,
        obj_description(oid, 'pg_proc'),
        array(
            select quote_ident(pg_get_userbyid(grantee))
              from aclexplode(proacl)
             where privilege_type = 'EXECUTE' and grantee not in (0, proowner)
        )
      from pg_proc
     where pronamespace = 'payments'::regnamespace and proname = any ($1::name[])";

fn read_inner(row: &spi::Row) -> Result<Inner, Failure> {
    Ok(Inner {
        name: row.required(1)?,
        arguments: row.required(2)?,
        result: row.required(3)?,
        places: row.required(4)?,
        comment: row.get(5)?,
        callers: row.required(6)?,
    })
}

/// A look-alike that belongs to somebody else is not ours: its owner could change what it does.
const PRESENT: &str = "
    select
        pg_proc.oid::regprocedure::text,
        pg_get_function_arguments(pg_proc.oid),
        pg_get_function_result(pg_proc.oid),
        starts_with(prosrc, format('select payments.%I(', proname))
            and not prosecdef
            and (rolsuper or rolname = current_user)
      from pg_proc
      join pg_namespace on pg_namespace.oid = pronamespace
      join pg_roles on pg_roles.oid = proowner
     where nspname = $1::name and proname = $2::name";

fn read_present(row: &spi::Row) -> Result<Present, Failure> {
    Ok(Present {
        signature: row.required(1)?,
        arguments: row.required(2)?,
        result: row.required(3)?,
        is_ours: row.required(4)?,
    })
}
