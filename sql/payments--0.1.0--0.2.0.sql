-- From 0.1.0 to 0.2.0, by `alter extension payments update`: as a superuser, in one transaction.
--
-- What changes in sql/ for those who install afresh has to change here for those who have 0.1.0:
--
-- a new function      its file's statements once more; with finalize.sql's grant, if it has one there
-- another function    `create or replace function`, which keeps the grants that users made, and its
--                     comment; with other arguments, `drop function` and the new one
-- a new attribute     `alter type … add attribute`, last, and its comment
-- payments.secrets    `alter table`
-- src/install/        nothing: install(), below, brings the tables up to date. But an index that is
--                     wanted no longer is `drop index if exists`, and what install() does not look
--                     at (fillfactor, storage) an `alter table` after it, in the same branch
--
-- tests/test_upgrade.py compares an updated database with a new one, entry by entry, and tells what
-- is missing here. Once 0.2.0 is released, this script changes no more.

-- Which functions there were, for the end of this script.
select pg_catalog.set_config(
    'payments_update.functions',
    (
        select pg_catalog.string_agg(p.oid::pg_catalog.text, ',')
        from pg_catalog.pg_proc p
        where p.pronamespace operator(pg_catalog.=) 'payments'::pg_catalog.regnamespace
    ),
    true);

-- What is new goes here.

-- New functions are executable by everyone, and ALTER DEFAULT PRIVILEGES may have handed out more.
-- Those that were there keep the grants that users made.
do $$
declare
    handed_out record;
begin
    for handed_out in
        select
            p.oid::pg_catalog.regprocedure as function,
            case
                when acl.grantee operator(pg_catalog.=) 0 then 'public'
                else pg_catalog.quote_ident(pg_catalog.pg_get_userbyid(acl.grantee))
            end as grantee
        from pg_catalog.pg_proc p
        cross join lateral pg_catalog.aclexplode(
            coalesce(p.proacl, pg_catalog.acldefault('f', p.proowner))) acl
        where p.pronamespace operator(pg_catalog.=) 'payments'::pg_catalog.regnamespace
            and acl.grantee operator(pg_catalog.<>) p.proowner
            and p.oid::pg_catalog.text operator(pg_catalog.<>) all (
                pg_catalog.string_to_array(pg_catalog.current_setting('payments_update.functions'), ','))
    loop
        execute pg_catalog.format('revoke all on routine %s from %s', handed_out.function, handed_out.grantee);
    end loop;
end
$$;

-- The tables, where they were installed.
do $$
begin
    if pg_catalog.to_regclass('payments.stripe_connections') is not null then
        perform payments.install();
        alter table payments.webhook_events
            drop constraint if exists webhook_events_environment_check,
            drop constraint if exists webhook_events_source_check,
            drop constraint if exists webhook_events_processing_status_check;
        alter table payments.stripe_objects
            drop constraint if exists stripe_objects_environment_check;
        alter table payments.customer_mappings drop constraint if exists customer_mappings_environment_check;
        alter table payments.customers drop constraint if exists customers_environment_check;
        alter table payments.products drop constraint if exists products_environment_check;
        alter table payments.prices drop constraint if exists prices_environment_check;
        alter table payments.subscriptions drop constraint if exists subscriptions_environment_check;
        alter table payments.subscription_items drop constraint if exists subscription_items_environment_check;
        alter table payments.payment_history
            drop constraint if exists payment_history_environment_check,
            drop constraint if exists payment_history_type_check,
            drop constraint if exists payment_history_status_check;
        alter table payments.invoices drop constraint if exists invoices_environment_check;
        alter table payments.disputes drop constraint if exists disputes_environment_check;
        alter table payments.webhook_events set (fillfactor = 90);
        alter table payments.webhook_events
            alter stripe_event_id set storage main,
            alter event_type set storage main,
            alter stripe_account_id set storage main,
            alter object_id set storage main,
            alter payload set storage main;
        alter table payments.stripe_objects set (fillfactor = 60);
        alter table payments.stripe_objects
            alter object_id set storage main,
            alter body set storage main,
            alter evidence set storage main,
            alter payment_intent_id set storage main,
            alter charge_id set storage main,
            alter invoice_id set storage main,
            alter subscription_id set storage main;
    end if;
end
$$;

-- A library stays in a process that has it.
do $$
declare
    others bigint := (
        select pg_catalog.count(*)
        from pg_catalog.pg_stat_activity a
        where a.datname operator(pg_catalog.=) pg_catalog.current_database()
            and a.backend_type operator(pg_catalog.=) 'client backend'
            and a.pid operator(pg_catalog.<>) pg_catalog.pg_backend_pid()
    );
begin
    if others operator(pg_catalog.>) 0 then
        raise warning using
            message = pg_catalog.format('%s other connections may have the old library of payments', others),
            hint = 'Have pools connect again.';
    end if;
end
$$;
