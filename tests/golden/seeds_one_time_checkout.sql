\i setup.sql
-- payments.createCheckoutSession({ mode: 'payment', … }): an anonymous one-time purchase.
-- It omits subject and passes customerEmail.

\set price `python3 -m fake_stripe.control "$FAKE_STRIPE_CONTROL" --field id price 1900`
begin;
set local role anon;
set local request.jwt.claims = '{"role": "anon"}';
select
    environment, mode, status, payment_status, subject_type, subject_id, customer_email,
    stripe_checkout_session_id, stripe_customer_id, stripe_payment_intent_id,
    stripe_subscription_id, url is not null as has_url, last_error,
    created_at is not null and updated_at is not null as has_times
from api.create_checkout_session(
    environment => 'test',
    mode => 'payment',
    line_items => jsonb_build_array(jsonb_build_object('stripePriceId', :'price', 'quantity', 1)),
    success_url => 'https://shop.example/checkout/success',
    cancel_url => 'https://shop.example/pricing',
    customer_email => 'visitor@example.com',
    metadata => '{"order_id": "41"}',
    idempotency_key => 'order:41'
) \gx
commit;

-- if (error) { console.error('Checkout failed:', error.message); return; }
-- The key was used for another cart.
begin;
set local role anon;
select url
from api.create_checkout_session(
    environment => 'test',
    mode => 'payment',
    line_items => jsonb_build_array(jsonb_build_object('stripePriceId', :'price', 'quantity', 2)),
    success_url => 'https://shop.example/checkout/success',
    cancel_url => 'https://shop.example/pricing',
    customer_email => 'visitor@example.com',
    metadata => '{"order_id": "41"}',
    idempotency_key => 'order:41'
);
rollback;

-- Quantity defaults to 1.
begin;
set local role anon;
select line_items ->> 0 = format('{"quantity": 1, "stripe_price_id": "%s"}', :'price') as one
from api.create_checkout_session(
    environment => 'test',
    mode => 'payment',
    line_items => jsonb_build_array(jsonb_build_object('stripePriceId', :'price')),
    success_url => 'https://shop.example/checkout/success',
    cancel_url => 'https://shop.example/pricing'
);
commit;

-- Metadata keys of the backend's own are reserved.
begin;
set local role anon;
select url
from api.create_checkout_session(
    environment => 'test',
    mode => 'payment',
    line_items => jsonb_build_array(jsonb_build_object('stripePriceId', :'price')),
    success_url => 'https://shop.example/checkout/success',
    cancel_url => 'https://shop.example/pricing',
    metadata => '{"payments_checkout_mode": "subscription"}'
);
rollback;

-- What Stripe refuses says so: this price is not sold any more.
\set retired `python3 -m fake_stripe.control "$FAKE_STRIPE_CONTROL" --field id price 500`
\set retired `python3 -m fake_stripe.control "$FAKE_STRIPE_CONTROL" --field id update :'retired' active=false`
begin;
set local role anon;
select url
from api.create_checkout_session(
    environment => 'test',
    mode => 'payment',
    line_items => jsonb_build_array(jsonb_build_object('stripePriceId', :'retired')),
    success_url => 'https://shop.example/checkout/success',
    cancel_url => 'https://shop.example/pricing'
);
rollback;

-- environment: 'live' is closed until the developer approves it.
begin;
set local role anon;
select url
from api.create_checkout_session(
    environment => 'live',
    mode => 'payment',
    line_items => jsonb_build_array(jsonb_build_object('stripePriceId', :'price')),
    success_url => 'https://shop.example/checkout/success',
    cancel_url => 'https://shop.example/pricing'
);
rollback;
