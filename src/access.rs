//! What a subject is entitled to.

use crate::connection::{as_owner, environment_for_caller};
use crate::postgres::error::surface;
use crate::postgres::spi::{Composite, Statement};
use pgrx::prelude::*;

/// `payments.has_access(subject_type, subject_id, lookup_key)`.
///
/// Reads as the owner of the tables, since those who are asked about in a policy have no rights on
/// them, and with the snapshot of the query that the policy is part of.
#[pg_extern(sql = false)]
fn has_access(
    subject_type: Option<&str>,
    subject_id: Option<&str>,
    lookup_key: Option<&str>,
) -> bool {
    // A join with the connections, which nobody analyzes, made Postgres 15 read all subscriptions.
    static ACCESS: Statement = Statement::new(
        "select
           from payments.subscriptions as s
           join payments.subscription_items as i
             on i.environment = s.environment
            and i.stripe_subscription_id = s.stripe_subscription_id
          where s.environment = (
                    select c.environment
                      from payments.stripe_connections as c
                     where c.open_to_apps)
            and s.subject_type = $1
            and s.subject_id = $2
            and s.status = any (array['active', 'trialing', 'past_due'])
            and (i.lookup_key = $3
                 or i.stripe_price_id = $3
                 or i.stripe_product_id = $3
                 or exists (
                    select
                      from payments.prices as p
                     where p.environment = i.environment
                       and p.stripe_price_id = i.stripe_price_id
                       and p.lookup_key = $3))
          limit 1",
    );
    let (Some(subject_type), Some(subject_id), Some(lookup_key)) =
        (subject_type, subject_id, lookup_key)
    else {
        return false;
    };
    surface(|| {
        let arguments = [subject_type.into(), subject_id.into(), lookup_key.into()];
        let found = as_owner(|| ACCESS.read(&arguments, |_| Ok(())))?;
        Ok(!found.is_empty())
    })
}

/// `payments.current_subscription(environment, subject_type, subject_id)`.
///
/// Reads as the caller, so that it shows nothing that a plain SELECT would not.
#[pg_extern(sql = false)]
fn current_subscription(
    environment: Option<&str>,
    subject_type: Option<&str>,
    subject_id: Option<&str>,
) -> Option<Composite> {
    static CURRENT: Statement = Statement::new(
        "select pg_catalog.jsonb_populate_record(
                    null::payments.subscription,
                    pg_catalog.to_jsonb(s))
           from payments.subscriptions as s
          where s.environment operator(pg_catalog.=) $1
            and s.subject_type operator(pg_catalog.=) $2
            and s.subject_id operator(pg_catalog.=) $3
          order by s.status operator(pg_catalog.=) any (array['active', 'trialing', 'past_due']) desc,
                   s.ended_at is null desc,
                   s.created_at desc nulls last,
                   s.stripe_subscription_id desc
          limit 1",
    );
    surface(|| {
        let environment = environment_for_caller(environment)?;
        let arguments = [
            environment.as_str().into(),
            subject_type.into(),
            subject_id.into(),
        ];
        let found = CURRENT.read(&arguments, |row| row.composite(1))?;
        Ok(found.into_iter().next().flatten())
    })
}
