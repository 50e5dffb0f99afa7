-- $1 environment, $2 whether its key is here and opens, $3 signing secrets accepted, $4 when the
-- next of them expires, $5 API version, $6 how many lists a sync reads, $7 version of the library
with granted as (
    select
        t.relname,
        exists (
            select from pg_catalog.pg_policy as p
            where p.polrelid = t.oid
        ) as has_policy
    from pg_catalog.pg_class as t
    join pg_catalog.pg_namespace as n on n.oid = t.relnamespace
    where n.nspname = 'payments'
        and t.relkind = 'r'
        and t.relrowsecurity
        and exists (
            select
            from (
                select t.relacl as acl
                union all
                select a.attacl
                from pg_catalog.pg_attribute as a
                where a.attrelid = t.oid
            ) as grants
            cross join lateral aclexplode(grants.acl) as granted_to
            left join pg_catalog.pg_roles as r on r.oid = granted_to.grantee
            where granted_to.grantee <> t.relowner
                and not coalesce(r.rolsuper or r.rolbypassrls, false)
        )
),
health as (
    select
        c.environment,
        case
            when c.status = 'connected' and not $2 then 'error'
            else c.status
        end as status,
        c.open_to_apps,
        c.masked_key,
        case when c.status <> 'unconfigured' then $2 end as key_readable,
        c.stripe_account_id,
        c.stripe_account_email,
        c.missing_permissions,
        $5 as api_version,
        c.webhook_endpoint_url,
        c.webhook_endpoint_status,
        c.webhook_api_version,
        c.webhook_seen_at,
        $3 as signing_secrets,
        $4 as signing_secret_expires_at,
        e.last_event_at,
        now() - e.last_event_at as last_event_age,
        f.failed_events,
        f.oldest_failed_event_at,
        (
            select count(*)
            from payments.stripe_objects as o
            where o.environment = $1
                and o.due is not null
        ) as objects_due,
        (
            select min(r.completed_at)
            from payments.sync_runs as r
            where r.environment = $1
                and r.object <> all (array['due', 'events'])
            having count(r.completed_at) = $6
        ) as last_sync_at,
        (
            select r.completed_at
            from payments.sync_runs as r
            where r.environment = $1
                and r.object = 'events'
        ) as last_poll_at,
        (
            select count(*)
            from payments.subscriptions as s
            where s.environment = $1
                and s.subject_type is null
                and s.status = any (array['active', 'trialing', 'past_due'])
        ) as unmapped_subscriptions,
        (
            select array_agg(g.relname::text order by g.relname)
            from granted as g
            where not g.has_policy
        ) as tables_without_policy
    from payments.stripe_connections as c
    cross join lateral (
        select max(w.received_at) as last_event_at
        from payments.webhook_events as w
        where w.environment = $1
    ) as e
    cross join lateral (
        select
            count(*) as failed_events,
            min(w.received_at) as oldest_failed_event_at
        from payments.webhook_events as w
        where w.environment = $1
            and w.processing_status = 'failed'
    ) as f
    where c.environment = $1
)
select
    row(h.*, next.step)::payments.environment_status,
    next.step
from health as h
cross join lateral (
    select exists (
        select from payments.stripe_connections as c
        where c.open_to_apps
    ) as any_open
) as apps
cross join lateral (
    select case
        when exists (
            select from pg_catalog.pg_extension as e
            where e.extname = 'payments' and e.extversion <> $7
        ) then 'Bring the database up to date with the library: ALTER EXTENSION payments UPDATE;'
        when h.status = 'unconfigured' and apps.any_open then null
        when h.status = 'unconfigured' then
            format('Connect it, with the key bound to $1: SELECT payments.set_stripe_key(%L, $1);', h.environment)
        when not h.key_readable then
            format('Set the key again, since it is not here or does not open: SELECT payments.set_stripe_key(%L, $1);', h.environment)
        when h.missing_permissions is not null then
            format('Give the restricted key the missing permissions in the Stripe Dashboard, then set it again: SELECT payments.set_stripe_key(%L, $1);', h.environment)
        when h.signing_secrets = 0 then
            format('Have Stripe send webhooks: SELECT payments.configure_webhook(%1$L, ''https://…/rpc/stripe_webhook''); or accept those of an endpoint that is there, with its whsec_… bound to $1: SELECT payments.set_webhook_secret(%1$L, $1);', h.environment)
        when h.webhook_endpoint_status <> 'enabled' then
            format('Stripe sends no webhooks, because the endpoint is %s: SELECT payments.configure_webhook(%L, %L);', h.webhook_endpoint_status, h.environment, h.webhook_endpoint_url)
        when h.webhook_endpoint_url is not null and h.webhook_api_version is distinct from h.api_version then
            format('Have webhooks in the version that is read: SELECT payments.configure_webhook(%L, %L);', h.environment, h.webhook_endpoint_url)
        when h.failed_events > 0 then
            format('See why events failed: SELECT stripe_event_id, event_type, last_error FROM payments.webhook_events WHERE environment = %L AND processing_status = ''failed'';', h.environment)
        when not apps.any_open then
            format('Let apps use it: SELECT payments.open_to_apps(%L);', h.environment)
        when not h.open_to_apps then null
        when not exists (
            select from granted as g
            where g.relname = 'checkout_sessions'
        ) then 'Let a role of the app call the functions: SELECT payments.grant_app(''authenticated'');'
        when exists (
            select from granted as g
            where g.relname = 'checkout_sessions'
                and not g.has_policy
        ) then 'Say who may bill what: CREATE POLICY … ON payments.checkout_sessions FOR INSERT TO authenticated WITH CHECK (…);'
        when h.unmapped_subscriptions > 0 then
            format('Say whose the unmapped subscriptions are: SELECT payments.link_customer(%L, ''{"type": "user", "id": "…"}'', ''cus_…'');', h.environment)
        when h.last_sync_at is null then
            format('Bring in what the account has from before: CALL payments.sync(%L);', h.environment)
    end as step
) as next
