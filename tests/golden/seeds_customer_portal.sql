\i setup.sql
-- payments.createCustomerPortalSession({ … }): a team manages its billing.

\set price `python3 -m fake_stripe.control "$FAKE_STRIPE_CONTROL" --field id price 900 --interval month`

-- error.statusCode === 404: no Stripe customer mapping exists yet. Show a subscribe CTA instead.
begin;
set local role authenticated;
set local request.jwt.claims = '{"sub": "alice", "role": "authenticated"}';
select url
from api.create_customer_portal_session(
    environment => 'test',
    subject => '{"type": "team", "id": "red"}',
    return_url => 'https://shop.example/billing'
);
rollback;

-- The mapping is created when a Checkout Session completes.
begin;
set local role authenticated;
set local request.jwt.claims = '{"sub": "alice", "role": "authenticated"}';
select stripe_checkout_session_id as session
from api.create_checkout_session(
    environment => 'test',
    mode => 'subscription',
    subject => '{"type": "team", "id": "red"}',
    line_items => jsonb_build_array(jsonb_build_object('stripePriceId', :'price', 'quantity', 1)),
    success_url => 'https://shop.example/billing/success',
    cancel_url => 'https://shop.example/billing'
) \gset
commit;
\set paid `python3 -m fake_stripe.control "$FAKE_STRIPE_CONTROL" --field status complete :'session'`
\set events `python3 -m fake_stripe.control "$FAKE_STRIPE_CONTROL" deliveries`
select count(*) > 0 as delivered
from json_array_elements(:'events') as event
cross join lateral payments.handle_webhook('test', event ->> 'body', event ->> 'signature') as receipt
where receipt.status in ('processed', 'ignored');

begin;
set local role authenticated;
set local request.jwt.claims = '{"sub": "alice", "role": "authenticated"}';
select
    environment, status, subject_type, subject_id, stripe_customer_id, return_url, configuration,
    url is not null as has_url, last_error
from api.create_customer_portal_session(
    environment => 'test',
    subject => '{"type": "team", "id": "red"}',
    return_url => 'https://shop.example/billing'
) \gx
commit;

-- Straight to one task of the portal.
begin;
set local role authenticated;
set local request.jwt.claims = '{"sub": "alice", "role": "authenticated"}';
select status, flow
from api.create_customer_portal_session(
    environment => 'test',
    subject => '{"type": "team", "id": "red"}',
    flow => '{"type": "subscription_cancel", "afterCompletion": {"type": "portal_homepage"}}'
);
commit;

-- A configuration that Stripe does not know.
begin;
set local role authenticated;
set local request.jwt.claims = '{"sub": "alice", "role": "authenticated"}';
select url
from api.create_customer_portal_session(
    environment => 'test',
    subject => '{"type": "team", "id": "red"}',
    configuration => 'bpc_gone'
);
rollback;

-- Users cannot open billing settings for a team they do not belong to.
begin;
set local role authenticated;
set local request.jwt.claims = '{"sub": "mallory", "role": "authenticated"}';
select url
from api.create_customer_portal_session(
    environment => 'test',
    subject => '{"type": "team", "id": "red"}'
);
rollback;

-- Customer portal sessions require an authenticated user.
begin;
set local role anon;
select url
from api.create_customer_portal_session(
    environment => 'test',
    subject => '{"type": "team", "id": "red"}'
);
rollback;
