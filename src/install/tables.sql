-- What every table is made of besides its columns, which are those of the types. Made in a schema
-- of its own first: from there install() moves the tables that are missing, and compares the others.
--
-- Not null and the checks hold what this extension itself writes. Stripe's own words are free, and
-- so is what Stripe may leave out: a new status must not make its events fail. What events alone
-- write has no checks: Postgres reads each from its text for every row, which takes longer than to
-- find the row.
--
-- What Stripe sends is kept compressed in the row itself (storage main): beside it, it would cost a
-- second table and index with every event. The ids next to it are too, because Postgres makes a row
-- that is too long shorter by whatever is not: it took out the ids, three of them an event. Room is
-- left on each page for the next version of a row.
--
-- Besides the primary key, no index that holds every row begins with the environment. To a planner
-- without statistics it would look as good for a lookup by the key, and read half the table.

create table checkout_sessions (
    like payments.checkout_session including comments,
    primary key (environment, id),
    constraint checkout_sessions_stripe_id_key unique (stripe_checkout_session_id, environment),
    check (environment in ('test', 'live')),
    check (status in ('initialized', 'open', 'completed', 'expired', 'failed'))
) with (fillfactor = 80);
alter table checkout_sessions
    alter status set default 'initialized',
    alter status set not null,
    alter metadata set default '{}',
    alter generation set default 1,
    alter generation set not null,
    alter created_at set default now(),
    alter created_at set not null,
    alter updated_at set default now(),
    alter updated_at set not null,
    enable row level security;
comment on table checkout_sessions is
    'Every checkout that was asked for. App roles insert by create_checkout_session() alone, and only what an INSERT policy here allows.';
create index checkout_sessions_subject_idx
on checkout_sessions (environment, subject_type, subject_id) where subject_id is not null;
create index checkout_sessions_customer_idx
on checkout_sessions (environment, stripe_customer_id) where stripe_customer_id is not null;
create index checkout_sessions_idempotency_key_idx
on checkout_sessions (environment, idempotency_key, subject_type, subject_id, generation)
where idempotency_key is not null;
create index checkout_sessions_payment_intent_idx
on checkout_sessions (environment, stripe_payment_intent_id) where stripe_payment_intent_id is not null;
create index checkout_sessions_subscription_idx
on checkout_sessions (environment, stripe_subscription_id) where stripe_subscription_id is not null;
create trigger guard_session before insert on checkout_sessions
for each row execute function payments.guard_session();

create table customer_portal_sessions (
    like payments.customer_portal_session including comments,
    primary key (environment, id),
    check (environment in ('test', 'live')),
    check (status in ('initialized', 'created', 'failed'))
) with (fillfactor = 80);
alter table customer_portal_sessions
    alter status set default 'initialized',
    alter status set not null,
    alter created_at set default now(),
    alter created_at set not null,
    alter updated_at set default now(),
    alter updated_at set not null,
    enable row level security;
comment on table customer_portal_sessions is
    'Every visit to the customer portal that was asked for. App roles insert by create_customer_portal_session() alone, and only what an INSERT policy here allows.';
create index customer_portal_sessions_subject_idx
on customer_portal_sessions (subject_id, subject_type, environment);
create trigger guard_session before insert on customer_portal_sessions
for each row execute function payments.guard_session();

create table customer_mappings (
    like payments.customer_mapping including comments,
    primary key (environment, subject_type, subject_id, stripe_customer_id)
);
alter table customer_mappings enable row level security;
comment on table customer_mappings is 'Which Stripe customer pays for which subject.';
create index customer_mappings_customer_idx on customer_mappings (stripe_customer_id, environment);

create table customers (
    like payments.customer including comments,
    primary key (environment, stripe_customer_id)
) with (fillfactor = 80);
alter table customers enable row level security;
comment on table customers is 'Stripe''s customers, as Stripe has them.';

create table products (
    like payments.product including comments,
    primary key (environment, stripe_product_id)
);
alter table products enable row level security;
comment on table products is 'Stripe''s products, as Stripe has them.';

create table prices (
    like payments.price including comments,
    primary key (environment, stripe_price_id)
);
alter table prices enable row level security;
comment on table prices is 'Stripe''s prices, as Stripe has them.';
create index prices_product_idx on prices (stripe_product_id, environment);
create index prices_lookup_key_idx on prices (environment, lookup_key) where lookup_key is not null;

create table subscriptions (
    like payments.subscription including comments,
    primary key (environment, stripe_subscription_id)
) with (fillfactor = 80);
alter table subscriptions enable row level security;
comment on table subscriptions is
    'Stripe''s subscriptions, as Stripe has them, and whom they serve. The place for triggers that give and take access.';
create index subscriptions_subject_idx
on subscriptions (environment, subject_type, subject_id) where subject_id is not null;
create index subscriptions_customer_idx on subscriptions (stripe_customer_id, environment);

create table subscription_items (
    like payments.subscription_item including comments,
    primary key (environment, stripe_subscription_item_id)
) with (fillfactor = 80);
alter table subscription_items enable row level security;
comment on table subscription_items is 'What each subscription is made of.';
create index subscription_items_subscription_idx
on subscription_items (stripe_subscription_id, environment);

create table payment_history (
    like payments.payment including comments,
    primary key (environment, id)
) with (fillfactor = 80);
alter table payment_history
    alter type set not null,
    alter status set not null,
    enable row level security;
comment on table payment_history is
    'One row a payment, one row a refund. The place for triggers that fulfil orders.';
create index payment_history_subject_idx
on payment_history (environment, subject_type, subject_id) where subject_id is not null;
create index payment_history_customer_idx
on payment_history (environment, stripe_customer_id) where stripe_customer_id is not null;
create index payment_history_payment_intent_idx
on payment_history (environment, stripe_payment_intent_id) where stripe_payment_intent_id is not null;
create index payment_history_charge_idx
on payment_history (environment, stripe_charge_id) where stripe_charge_id is not null;
create index payment_history_invoice_idx
on payment_history (environment, stripe_invoice_id) where stripe_invoice_id is not null;
create index payment_history_subscription_idx
on payment_history (environment, stripe_subscription_id) where stripe_subscription_id is not null;

-- A plain view would read with the rights of its owner, past every policy.
create view refunds with (security_invoker = true) as
select * from payment_history where type = 'refund';
comment on view refunds is 'The refunds among the payments. Shows what the reader may see of payment_history.';

create table invoices (
    like payments.invoice including comments,
    primary key (environment, stripe_invoice_id)
) with (fillfactor = 80);
alter table invoices enable row level security;
comment on table invoices is 'Stripe''s invoices, as Stripe has them, and whom they are for.';
create index invoices_customer_idx on invoices (stripe_customer_id, environment);
create index invoices_subscription_idx
on invoices (environment, stripe_subscription_id) where stripe_subscription_id is not null;

create table disputes (
    like payments.dispute including comments,
    primary key (environment, stripe_dispute_id)
);
alter table disputes enable row level security;
comment on table disputes is 'Stripe''s disputes, as Stripe has them.';

create table webhook_events (
    like payments.webhook_event including comments,
    primary key (environment, stripe_event_id)
) with (fillfactor = 90);
alter table webhook_events
    alter stripe_event_id set storage main,
    alter event_type set storage main,
    alter stripe_account_id set storage main,
    alter object_id set storage main,
    alter payload set storage main,
    alter processing_status set default 'pending',
    alter processing_status set not null,
    alter attempt_count set default 0,
    alter attempt_count set not null,
    alter received_at set default now(),
    alter received_at set not null,
    enable row level security;
comment on table webhook_events is 'Every event that came in, byte for byte, and what became of it.';
create index webhook_events_received_idx on webhook_events (received_at);
create index webhook_events_failed_idx
on webhook_events (environment, received_at) where processing_status = 'failed';

create index webhook_events_pending_idx
on webhook_events (environment, stripe_created_at, stripe_event_id) where processing_status = 'pending';
create index webhook_events_object_idx on webhook_events (object_id, environment);

create table sync_runs (
    like payments.sync_run including comments,
    primary key (environment, object),
    check (environment in ('test', 'live')),
    check (status in ('listing', 'asking', 'complete'))
) with (fillfactor = 50);
alter table sync_runs
    alter status set not null,
    alter listed set default 0,
    alter listed set not null,
    alter asked set default 0,
    alter asked set not null,
    alter failed set default 0,
    alter failed set not null,
    alter attempts set default 0,
    alter attempts set not null,
    alter cursor set not null,
    alter updated_at set default now(),
    alter updated_at set not null,
    enable row level security;
comment on table sync_runs is 'How far each list of Stripe''s has been read, by sync() and poll_events().';

create table stripe_objects (
    like payments.stripe_object including comments,
    primary key (environment, object_type, object_id)
) with (fillfactor = 60);
alter table stripe_objects
    alter object_id set storage main,
    alter body set storage main,
    alter evidence set storage main,
    alter payment_intent_id set storage main,
    alter charge_id set storage main,
    alter invoice_id set storage main,
    alter subscription_id set storage main,
    alter body set not null,
    alter as_of set not null,
    alter deleted set default false,
    alter deleted set not null,
    enable row level security;
comment on table stripe_objects is
    'The mirror: the newest body of every Stripe object that came by. The other tables are computed from it, and can be again by rebuild().';
create index stripe_objects_payment_intent_idx
on stripe_objects (environment, payment_intent_id) where payment_intent_id is not null;
create index stripe_objects_charge_idx
on stripe_objects (environment, charge_id) where charge_id is not null;
create index stripe_objects_invoice_idx
on stripe_objects (environment, invoice_id) where invoice_id is not null;
create index stripe_objects_subscription_idx
on stripe_objects (environment, subscription_id) where subscription_id is not null;
create index stripe_objects_due_idx on stripe_objects (environment, object_type) where due is not null;

create table stripe_connections (
    like payments.connection including comments,
    primary key (environment),
    check (environment in ('test', 'live')),
    check (status in ('unconfigured', 'connected', 'error'))
);
alter table stripe_connections
    alter status set default 'unconfigured',
    alter status set not null,
    alter open_to_apps set default false,
    alter open_to_apps set not null,
    alter created_at set default now(),
    alter created_at set not null,
    alter updated_at set default now(),
    alter updated_at set not null,
    enable row level security;
comment on table stripe_connections is 'How test and live are connected to Stripe: a row each.';
