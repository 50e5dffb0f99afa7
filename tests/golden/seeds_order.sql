\i setup.sql
-- Frontend pattern for one-time orders: a pending order, its id as metadata, a trigger that fulfils.

\set price `python3 -m fake_stripe.control "$FAKE_STRIPE_CONTROL" --field id price 1900`

create function public.fulfil_order() returns trigger
language plpgsql security definer set search_path = ''
as $$
begin
    update public.orders
    set status = 'fulfilled', paid_at = new.paid_at
    where id::text = new.metadata ->> 'order_id' and user_id = new.subject_id and status = 'pending';
    return null;
end
$$;
create trigger fulfil_order after insert or update of status on payments.payment_history
for each row when (new.type = 'one_time_payment' and new.status = 'succeeded')
execute function public.fulfil_order();

-- insforge.from('orders').insert([{ user_id: user.id, status: 'pending' }]).select().single()
begin;
set local role authenticated;
set local request.jwt.claims = '{"sub": "alice", "role": "authenticated"}';
insert into public.orders (user_id) values ('alice') returning id as order_id \gset
select status, metadata, stripe_checkout_session_id as session, url is not null as has_url
from api.create_checkout_session(
    environment => 'test',
    mode => 'payment',
    subject => '{"type": "user", "id": "alice"}',
    line_items => jsonb_build_array(jsonb_build_object('stripePriceId', :'price', 'quantity', 1)),
    success_url => format('https://shop.example/orders/%s', :'order_id'),
    cancel_url => 'https://shop.example/pricing',
    customer_email => 'alice@example.com',
    metadata => jsonb_build_object('order_id', :'order_id'),
    idempotency_key => format('order:%s', :'order_id')
);
commit;

-- A retry, as after a lost answer, gets the same session.
begin;
set local role authenticated;
set local request.jwt.claims = '{"sub": "alice", "role": "authenticated"}';
select stripe_checkout_session_id as session
from api.create_checkout_session(
    environment => 'test',
    mode => 'payment',
    subject => '{"type": "user", "id": "alice"}',
    line_items => jsonb_build_array(jsonb_build_object('stripePriceId', :'price', 'quantity', 1)),
    success_url => format('https://shop.example/orders/%s', :'order_id'),
    cancel_url => 'https://shop.example/pricing',
    customer_email => 'alice@example.com',
    metadata => jsonb_build_object('order_id', :'order_id'),
    idempotency_key => format('order:%s', :'order_id')
);
commit;

-- Do not mark an order paid from the success URL alone: it is pending until Stripe tells.
\set session `psql -X -A -t -c "select stripe_checkout_session_id from payments.checkout_sessions"`
\set paid `python3 -m fake_stripe.control "$FAKE_STRIPE_CONTROL" --field status complete :'session'`
begin;
set local role authenticated;
set local request.jwt.claims = '{"sub": "alice", "role": "authenticated"}';
select id, user_id, status, paid_at from public.orders;
rollback;

\set events `python3 -m fake_stripe.control "$FAKE_STRIPE_CONTROL" deliveries`
select count(*) > 0 as delivered
from json_array_elements(:'events') as event
cross join lateral payments.handle_webhook('test', event ->> 'body', event ->> 'signature') as receipt
where receipt.status in ('processed', 'ignored');

begin;
set local role authenticated;
set local request.jwt.claims = '{"sub": "alice", "role": "authenticated"}';
select id, user_id, status, paid_at is not null as paid from public.orders;
rollback;

-- Everybody sees their own orders only.
begin;
set local role authenticated;
set local request.jwt.claims = '{"sub": "mallory", "role": "authenticated"}';
select id, user_id, status from public.orders;
rollback;

-- What the operator sees.
select type, status, amount, currency, subject_type, subject_id, metadata from payments.payment_history;
