//! `install(owner)`: the tables, made or brought up to date.
//!
//! They are ordinary tables and no part of the extension, because `pg_dump` keeps nothing that
//! users put on an extension's own tables: no policy, no trigger, no index. So nothing but this
//! function makes them, also after a restore, after `DROP EXTENSION … CASCADE`, and in the update
//! script of a later version.
//!
//! What is wanted is built beside, in a schema that lives only as long as the call. What is missing
//! is moved over from there; everything else is compared by its definition in the catalog. So a
//! table is described once, in `tables.sql`, whether it is made or mended.

use crate::expose::tell_gateways;
use crate::postgres::error::{Failure, SqlState, surface};
use crate::postgres::spi::Statement;
use crate::postgres::{identity, lock, spi, table};
use pgrx::datum::DatumWithOid;
use pgrx::pg_sys::Oid;
use pgrx::prelude::*;

const BLUEPRINT: &str = include_str!("tables.sql");
const COMPRESSION: &str = include_str!("compression.sql");
const DEFAULT_PRIVILEGES: &str = include_str!("default_privileges.sql");
const OBSTACLES: &str = include_str!("obstacles.sql");
const MISSING: &str = include_str!("missing.sql");
const DIFFERENCES: &str = include_str!("differences.sql");
const MEMBERSHIPS: &str = include_str!("memberships.sql");
const USAGE: &str = include_str!("usage.sql");
const CONCERNS: &str = include_str!("concerns.sql");

/// Makes the tables, or brings them up to date, and says what to do next.
///
/// `owner` is the role that owns them: by default whoever owns them already, else the caller. It is
/// made, NOLOGIN, if there is none of that name and the caller may create roles.
///
/// # Errors
/// 42501 unless the caller is a superuser, or the database's owner and a member of `owner`; 42704
/// for a role that does not exist; 55000 for a table in the way that is none of ours.
#[pg_extern(sql = false)]
fn install(owner: Option<&str>) -> String {
    surface(|| {
        let present_owner = present_owner();
        let owner = match owner {
            Some(name) => existing_or_new_role(name)?,
            None => present_owner.unwrap_or_else(identity::current_user),
        };
        require_installer(owner)?;
        lock::exclusive(&["install"]);

        let outcome = identity::as_user(identity::extension_owner()?, || reconcile(owner))?;
        identity::as_user(owner, add_connections)?;
        tell_gateways()?;
        for report in outcome.reports {
            pgrx::notice!("{report}");
        }
        for concern in outcome.concerns {
            pgrx::warning!("{concern}");
        }
        Ok(match present_owner {
            None => first_steps(),
            Some(_) => "select * from payments.status();".to_owned(),
        })
    })
}

/// The role that owns the tables: what the system does of its own accord, it does as this role.
///
/// # Errors
/// 55000 before `install()`.
pub fn tables_owner() -> Result<Oid, Failure> {
    present_owner().ok_or_else(|| {
        Failure::new(
            SqlState::PREREQUISITE_STATE,
            "not_installed",
            "the tables of payments are not installed",
        )
        .hint("A superuser or the database's owner runs: select payments.install('payments_owner')")
    })
}

fn present_owner() -> Option<Oid> {
    table::owner(c"payments", c"stripe_connections")
}

/// Refuses everybody but those who may set up payments in this database: superusers, and the
/// database's owner if a member of the role that owns the tables.
///
/// # Errors
/// 42501.
pub fn require_installer(tables_owner: Oid) -> Result<(), Failure> {
    static DATABASE_OWNER: Statement = Statement::new(
        "select datdba
           from pg_catalog.pg_database
          where datname operator(pg_catalog.=) pg_catalog.current_database()",
    );
    let caller = identity::current_user();
    if identity::is_superuser(caller) {
        return Ok(());
    }
    let refusal = |message: String, hint: String| {
        Err(Failure::new(SqlState::INSUFFICIENT_PRIVILEGE, "not_installer", message).hint(hint))
    };
    let caller_name = identity::role_name(caller);
    let database_owner = DATABASE_OWNER.first(&[], |row| row.required(1))?;
    if !database_owner.is_some_and(|owner| identity::has_privileges_of(caller, owner)) {
        return refusal(
            format!("role \"{caller_name}\" may not set up payments in this database"),
            "A superuser or the database's owner may.".to_owned(),
        );
    }
    if !identity::is_member_of(caller, tables_owner) {
        let owner = identity::role_name(tables_owner);
        return refusal(
            format!(
                "role \"{caller_name}\" is not a member of \"{owner}\", which is to own the tables"
            ),
            format!(
                "A superuser runs: grant {} to {}",
                quoted(&owner),
                quoted(&caller_name)
            ),
        );
    }
    Ok(())
}

/// A role by its name, as it is written in the catalog.
///
/// # Errors
/// 42704 when there is none.
pub fn role(name: &str) -> Result<Oid, Failure> {
    find_role(name)?.ok_or_else(|| {
        Failure::new(
            SqlState::new("42704"),
            "no_such_role",
            format!("role \"{name}\" does not exist"),
        )
        .hint(format!("create role {} nologin", quoted(name)))
    })
}

fn find_role(name: &str) -> Result<Option<Oid>, Failure> {
    static ROLE: Statement = Statement::new(
        "select oid from pg_catalog.pg_roles where rolname operator(pg_catalog.=) $1::pg_catalog.name",
    );
    ROLE.first(&[name.into()], |row| row.required(1))
}

/// Roles belong to the whole cluster, so one is made with no more rights than the caller's own.
fn existing_or_new_role(name: &str) -> Result<Oid, Failure> {
    static MAY_CREATE_ROLES: Statement = Statement::new(
        "select rolcreaterole or rolsuper
           from pg_catalog.pg_roles
          where rolname operator(pg_catalog.=) current_user",
    );
    if find_role(name)?.is_none()
        && MAY_CREATE_ROLES.first(&[], |row| row.required(1))? == Some(true)
    {
        spi::execute(&format!("create role {} nologin", quoted(name)), &[])?;
        pgrx::notice!("made role {}", quoted(name));
    }
    role(name)
}

/// What `install()` did, and what it would have the DBA know.
struct Outcome {
    reports: Vec<String>,
    concerns: Vec<String>,
}

/// Runs as the extension's owner: nobody else may create anything in the schema, and nobody needs to.
fn reconcile(owner: Oid) -> Result<Outcome, Failure> {
    let owner_name = identity::role_name(owner);
    spi::execute("set local client_min_messages = warning", &[])?;
    spi::execute("create schema payments_blueprint", &[])?;
    spi::execute("set local search_path = payments_blueprint", &[])?;
    spi::execute(BLUEPRINT, &[])?;
    // From here on, definitions are printed with every name qualified.
    spi::execute("set local search_path = ''", &[])?;
    for query in [COMPRESSION, DEFAULT_PRIVILEGES] {
        run_each(spi::rows(query, &[], |row| row.required(1))?)?;
    }

    refuse_obstacles(owner)?;
    let mut reports = apply(MISSING, owner_name.as_str().into())?;
    reports.extend(apply(DIFFERENCES, owner.into())?);
    run_each(spi::rows(MEMBERSHIPS, &[], |row| row.required(1))?)?;
    run_each(spi::rows(USAGE, &[owner.into()], |row| row.required(1))?)?;
    let concerns = spi::rows(CONCERNS, &[owner.into()], |row| row.required(1))?;

    spi::execute("drop schema payments_blueprint cascade", &[])?;
    Ok(Outcome { reports, concerns })
}

fn refuse_obstacles(owner: Oid) -> Result<(), Failure> {
    let obstacles: Vec<(String, String)> = spi::rows(OBSTACLES, &[owner.into()], |row| {
        Ok((row.required(1)?, row.required(2)?))
    })?;
    match obstacles.into_iter().next() {
        Some((obstacle, hint)) => Err(Failure::new(
            SqlState::PREREQUISITE_STATE,
            "table_in_the_way",
            format!("{obstacle}: install() did not make it and does not adopt it"),
        )
        .hint(hint)),
        None => Ok(()),
    }
}

/// Runs the statements that a query comes up with, and hands back their reports.
fn apply(query: &str, owner: DatumWithOid) -> Result<Vec<String>, Failure> {
    let changes: Vec<(String, Option<String>)> =
        spi::rows(query, &[owner], |row| Ok((row.required(1)?, row.get(2)?)))?;
    let (statements, reports): (Vec<_>, Vec<_>) = changes.into_iter().unzip();
    run_each(statements)?;
    Ok(reports.into_iter().flatten().collect())
}

fn run_each(statements: Vec<String>) -> Result<(), Failure> {
    statements
        .iter()
        .try_for_each(|statement| spi::execute(statement, &[]).map(drop))
}

/// Runs as the tables' owner, like every write: a trigger that somebody put there gets no more
/// rights than that.
fn add_connections() -> Result<(), Failure> {
    spi::execute(
        "insert into payments.stripe_connections (environment)
         values ('test'), ('live')
         on conflict do nothing",
        &[],
    )?;
    Ok(())
}

fn first_steps() -> String {
    let caller = identity::current_user();
    let admin = match identity::is_superuser(caller) {
        true => "'an_admin_role'".to_owned(),
        false => pgrx::spi::quote_literal(identity::role_name(caller)),
    };
    format!(
        "select payments.grant_admin({admin});\n\
         select payments.set_stripe_key('test', 'sk_test_…');\n\
         select payments.grant_app('your_app_role');"
    )
}

/// An identifier as SQL wants it written.
pub fn quoted(identifier: &str) -> String {
    pgrx::spi::quote_identifier(identifier)
}
