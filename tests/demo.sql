-- An app sells one thing: from an empty database to a fulfilled order.
-- Played by tests/demo.sh, which says in the environment where Stripe is.

\getenv stripe_key STRIPE_SECRET_KEY
\getenv signing_secret STRIPE_WEBHOOK_SECRET
\getenv price STRIPE_PRICE


-- 1. A DBA installs. The tables belong to an ordinary role, which install() makes, and not to
--    the extension: they are dumped and restored with the policies and triggers that follow.

create extension payments;
select payments.install('payments_owner');


-- 2. The DBA connects Stripe. The key is sealed before it is stored; no role can read it back.

select environment, status, masked_key, stripe_account_id
from payments.set_stripe_key('test', :'stripe_key');

select environment, status
from payments.set_webhook_secret('test', :'signing_secret');

-- Apps may buy in one environment only. Nothing opens `live` by itself.
select environment, open_to_apps
from payments.open_to_apps('test');

-- The gateway's roles, and the schema that it serves: three functions, nothing else of payments.
create schema api;
grant usage on schema api to anon, authenticated;
select payments.expose('api');
select payments.grant_app('authenticated');
select payments.grant_webhook('anon');


-- 3. The app has orders. Everyone sees and makes only their own.

create function public.user_id() returns text
language sql stable
return nullif(pg_catalog.current_setting('request.jwt.claims', true), '')::json ->> 'sub';

create table public.orders (
    id integer generated always as identity primary key,
    user_id text not null default public.user_id(),
    status text not null default 'pending',
    paid_at timestamptz
);
alter table public.orders enable row level security;
grant select on public.orders to authenticated;
grant insert (user_id) on public.orders to authenticated;
create policy own_orders on public.orders to authenticated
    using (user_id = public.user_id())
    with check (user_id = public.user_id() and status = 'pending');

-- Who may start a checkout for whom: users for themselves.
create policy own_checkouts on payments.checkout_sessions
    for insert to authenticated
    with check (
        environment = 'test'
        and subject_type = 'user'
        and subject_id = public.user_id()
    );


-- 4. Fulfilment is the app's own trigger on what Stripe said was paid. It may run twice for one
--    payment and fulfils once. Metadata on a payment comes from our own checkout, so it can be trusted.

create function public.fulfil_order() returns trigger
language plpgsql security definer set search_path = ''
as $$
begin
    update public.orders
    set status = 'fulfilled', paid_at = coalesce(new.paid_at, now())
    where id::text = new.metadata ->> 'order_id'
        and user_id = new.subject_id
        and status = 'pending';
    return null;
end
$$;

create trigger fulfil_order
    after insert or update of status on payments.payment_history
    for each row
    when (
        new.environment = 'test'
        and new.type = 'one_time_payment'
        and new.status = 'succeeded'
        and new.subject_type = 'user'
    )
    execute function public.fulfil_order();


-- 5. Alice orders, and asks for a checkout, as the gateway would ask for her.

begin;
set local role authenticated;
select set_config('request.jwt.claims', '{"sub": "alice", "role": "authenticated"}', true);

insert into public.orders default values returning id, user_id, status;

select id, status, url, stripe_checkout_session_id
from api.create_checkout_session(
    environment => 'test',
    mode => 'payment',
    line_items => jsonb_build_array(jsonb_build_object('stripe_price_id', :'price', 'quantity', 1)),
    success_url => 'https://shop.example/orders/1?session={CHECKOUT_SESSION_ID}',
    cancel_url => 'https://shop.example/orders/1',
    subject => '{"type": "user", "id": "alice"}',
    metadata => '{"order_id": "1"}',
    idempotency_key => 'order:1'
) \gset checkout_
commit;

\echo :checkout_status :checkout_url

-- Mallory tries to put a checkout on Alice. Row-level security refuses before Stripe hears of it.

begin;
set local role authenticated;
select set_config('request.jwt.claims', '{"sub": "mallory", "role": "authenticated"}', true);
\set ON_ERROR_STOP off
select url
from api.create_checkout_session(
    environment => 'test',
    mode => 'payment',
    line_items => jsonb_build_array(jsonb_build_object('stripe_price_id', :'price')),
    success_url => 'https://evil.example/',
    cancel_url => 'https://evil.example/',
    subject => '{"type": "user", "id": "alice"}'
);
\set ON_ERROR_STOP on
rollback;


-- 6. Alice pays at Stripe. Coming back from there proves nothing: her order is still pending.

\set paid `python3 -m harness.demo buyer :'checkout_stripe_checkout_session_id'`
\echo :paid

select id, user_id, status from public.orders;


-- 7. Stripe's signed webhooks arrive at the gateway, which calls api.stripe_webhook as `anon`.

\set delivered `python3 -m harness.demo postman`
\echo :delivered


-- 8. The order is fulfilled, and Alice can see it.

begin;
set local role authenticated;
select set_config('request.jwt.claims', '{"sub": "alice", "role": "authenticated"}', true);
select id, user_id, status, paid_at is not null as paid from public.orders;
commit;

-- What the operator sees.
select type, status, amount, currency, subject_id, metadata ->> 'order_id' as order_id
from payments.payment_history;

select event_type, processing_status from payments.webhook_events order by received_at;


-- 9. Stripe delivers everything again, as it sometimes does. Nothing happens twice.

\set delivered `python3 -m harness.demo postman`
\echo :delivered

select id, user_id, status from public.orders;
