//! `grant_app`, `grant_webhook`, `grant_admin`: exactly what each kind of role needs.
//!
//! Grants are made as the extension's owner, who owns the functions: so they are recorded as such,
//! and a dump brings them back.

use crate::guard::REQUESTS;
use crate::install::{quoted, require_installer, role, tables_owner};
use crate::postgres::error::{Failure, surface};
use crate::postgres::{identity, lock, spi};
use pgrx::prelude::*;

/// What apps call, for users who are logged in or not.
const APP: &[&str] = &[
    "create_checkout_session",
    "create_customer_portal_session",
    "has_access",
    "current_subscription",
];

/// What a gateway calls when Stripe delivers an event.
const WEBHOOK: &[&str] = &["stripe_webhook", "handle_webhook"];

/// What whoever runs the payments calls. Who is also to start checkouts gets `grant_app` besides.
const ADMIN: &[&str] = &[
    "set_stripe_key",
    "remove_stripe_key",
    "set_webhook_secret",
    "configure_webhook",
    "configure_checkout",
    "open_to_apps",
    "link_customer",
    "catalog",
    "create_product",
    "update_product",
    "delete_product",
    "create_price",
    "update_price",
    "archive_price",
    "cancel_subscription",
    "update_subscription",
    "refund_payment",
    "status",
    "has_access",
    "current_subscription",
    "handle_webhook",
    "replay_event",
    "failed_events",
    "replay_failed",
    "prune_webhook_events",
    "simulate_event",
    "remove_simulated",
    "rebuild",
    "sync",
    "sync_step",
    "sync_next",
    "poll_events",
    "poll_step",
    "poll_page",
    "poll_event",
    "poll_due",
];

/// Lets a role start checkouts and open portals: those that the policies on the two tables allow.
///
/// # Errors
/// 42501 unless the caller may install; 42704 for an unknown role; 55000 before `install()`.
#[pg_extern(sql = false)]
fn grant_app(role: &str) {
    surface(|| {
        let statements = REQUESTS.iter().map(|requests| {
            format!(
                "grant insert ({}) on payments.{} to {}",
                requests.request.join(", "),
                requests.table,
                quoted(role)
            )
        });
        grant(role, APP, statements)?;
        for table in REQUESTS.iter().map(|requests| requests.table) {
            if !anybody_may_insert(table)? {
                pgrx::notice!(
                    "no policy lets anybody insert into payments.{table} yet; one could be: create policy own on payments.{table} for insert to {} with check (subject_type = 'user' and subject_id = nullif(current_setting('request.jwt.claims', true), '')::json ->> 'sub')",
                    quoted(role)
                );
            }
        }
        Ok(())
    })
}

/// Lets a role hand over Stripe's webhooks. What they change, they change as the tables' owner.
///
/// # Errors
/// As [`grant_app`].
#[pg_extern(sql = false)]
fn grant_webhook(role: &str) {
    surface(|| grant(role, WEBHOOK, []))
}

/// Lets a role set keys, run the payments, and read the tables: as far as policies let it.
///
/// Never TRIGGER: a trigger runs with the rights of the tables' owner.
///
/// # Errors
/// As [`grant_app`].
#[pg_extern(sql = false)]
fn grant_admin(role: &str) {
    surface(|| {
        let tables = spi::rows(TABLES, &[], |row| row.required::<String>(1))?;
        let select = format!("grant select on {} to {}", tables.join(", "), quoted(role));
        grant(role, ADMIN, [select])?;
        if !sees_every_row(role)? {
            pgrx::notice!(
                "role {role} sees a row of the tables only where a policy lets it, for example: create policy admin on payments.payment_history for select to {role} using (true)",
                role = quoted(role)
            );
        }
        Ok(())
    })
}

fn grant(
    role_name: &str,
    functions: &[&str],
    statements: impl IntoIterator<Item = String>,
) -> Result<(), Failure> {
    require_installer(tables_owner()?)?;
    role(role_name)?;
    // Two who change the rights on one object at once would fail.
    lock::exclusive(&["install"]);
    identity::as_user(identity::extension_owner()?, || {
        spi::execute("set local search_path = ''", &[])?;
        let usage = format!("grant usage on schema payments to {}", quoted(role_name));
        let execute = spi::rows(
            EXECUTE,
            &[functions.to_vec().into(), role_name.into()],
            |row| row.required(1),
        )?;
        for statement in [usage].into_iter().chain(execute).chain(statements) {
            spi::execute(&statement, &[])?;
        }
        Ok(())
    })
}

/// Is there a policy at all that says who may?
fn anybody_may_insert(table: &str) -> Result<bool, Failure> {
    let policies = spi::execute(
        "select
           from pg_catalog.pg_policies
          where schemaname operator(pg_catalog.=) 'payments'
            and tablename operator(pg_catalog.=) $1::pg_catalog.name
            and cmd operator(pg_catalog.=) any (array['INSERT', 'ALL'])",
        &[table.into()],
    )?;
    Ok(policies > 0)
}

/// Does row-level security not concern the role?
fn sees_every_row(role_name: &str) -> Result<bool, Failure> {
    let role = role(role_name)?;
    let bypasses: Vec<bool> = spi::rows(
        "select rolbypassrls from pg_catalog.pg_roles where oid operator(pg_catalog.=) $1",
        &[role.into()],
        |row| row.required(1),
    )?;
    Ok(bypasses == [true] || identity::has_privileges_of(role, tables_owner()?))
}

/// The tables and the view that `install()` made.
const TABLES: &str = "
    select pg_catalog.format('payments.%I', relname)
      from pg_catalog.pg_class
     where relnamespace operator(pg_catalog.=) 'payments'::pg_catalog.regnamespace
       and relkind operator(pg_catalog.=) any (array['r', 'v']::\"char\"[])
       and relname operator(pg_catalog.<>) 'secrets'";

/// Statements that let role $2 execute functions $1, and the wrappers of them that `expose()` made:
/// they run as the caller, unlike another function that looks like one and may be nobody's business.
const EXECUTE: &str = "
    select format('grant execute on routine %s to %I', oid::regprocedure, $2)
      from pg_proc
     where proname = any ($1::name[])
       and (pronamespace = 'payments'::regnamespace
            or starts_with(prosrc, format('select payments.%I(', proname)) and not prosecdef)";
