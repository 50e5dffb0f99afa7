\i setup.sql
-- payments.createCheckoutSession({ mode: 'subscription', … }): a team subscribes.

\set price `python3 -m fake_stripe.control "$FAKE_STRIPE_CONTROL" --field id price 900 --interval month`
begin;
set local role authenticated;
set local request.jwt.claims = '{"sub": "alice", "role": "authenticated"}';
select
    environment, mode, status, payment_status, subject_type, subject_id, customer_email,
    stripe_checkout_session_id, stripe_customer_id, stripe_subscription_id, url is not null as has_url
from api.create_checkout_session(
    environment => 'test',
    mode => 'subscription',
    subject => '{"type": "team", "id": "red"}',
    line_items => jsonb_build_array(jsonb_build_object('stripePriceId', :'price', 'quantity', 1)),
    success_url => 'https://shop.example/billing/success',
    cancel_url => 'https://shop.example/billing',
    customer_email => 'alice@example.com',
    idempotency_key => 'team:red:pro-monthly'
) \gx
commit;

-- Subscription checkout requires subject because recurring access belongs to a billing owner.
begin;
set local role authenticated;
set local request.jwt.claims = '{"sub": "alice", "role": "authenticated"}';
select url
from api.create_checkout_session(
    environment => 'test',
    mode => 'subscription',
    line_items => jsonb_build_array(jsonb_build_object('stripePriceId', :'price')),
    success_url => 'https://shop.example/billing/success',
    cancel_url => 'https://shop.example/billing'
);
rollback;

-- Only team members can create sessions for that team.
begin;
set local role authenticated;
set local request.jwt.claims = '{"sub": "alice", "role": "authenticated"}';
select url
from api.create_checkout_session(
    environment => 'test',
    mode => 'subscription',
    subject => '{"type": "team", "id": "blue"}',
    line_items => jsonb_build_array(jsonb_build_object('stripePriceId', :'price')),
    success_url => 'https://shop.example/billing/success',
    cancel_url => 'https://shop.example/billing'
);
rollback;

-- The session's projections are no public API: users read neither them nor the sessions.
begin;
set local role authenticated;
set local request.jwt.claims = '{"sub": "alice", "role": "authenticated"}';
select * from payments.subscriptions;
rollback;
begin;
set local role authenticated;
select * from payments.payment_history;
rollback;
begin;
set local role authenticated;
select * from payments.checkout_sessions;
rollback;

-- has_access() answers policies of the app's own tables: nothing was paid yet.
begin;
set local role authenticated;
select payments.has_access('team', 'red', :'price');
rollback;

-- The team pays, and Stripe tells.
\set session `psql -X -A -t -c "select stripe_checkout_session_id from payments.checkout_sessions"`
\set paid `python3 -m fake_stripe.control "$FAKE_STRIPE_CONTROL" --field status complete :'session'`
\set events `python3 -m fake_stripe.control "$FAKE_STRIPE_CONTROL" deliveries`
select count(*) > 0 as delivered
from json_array_elements(:'events') as event
cross join lateral payments.handle_webhook('test', event ->> 'body', event ->> 'signature') as receipt
where receipt.status in ('processed', 'ignored');

begin;
set local role authenticated;
select payments.has_access('team', 'red', :'price'), payments.has_access('team', 'blue', :'price');
rollback;

-- Subscribed is subscribed: the same key returns what it bought, without a url to pay again.
begin;
set local role authenticated;
set local request.jwt.claims = '{"sub": "alice", "role": "authenticated"}';
select status, payment_status, stripe_subscription_id, url
from api.create_checkout_session(
    environment => 'test',
    mode => 'subscription',
    subject => '{"type": "team", "id": "red"}',
    line_items => jsonb_build_array(jsonb_build_object('stripePriceId', :'price', 'quantity', 1)),
    success_url => 'https://shop.example/billing/success',
    cancel_url => 'https://shop.example/billing',
    customer_email => 'alice@example.com',
    idempotency_key => 'team:red:pro-monthly'
);
commit;
