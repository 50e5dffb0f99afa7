\i setup.sql
-- One-time purchase of a user, for an order of the app.

\set price `python3 -m fake_stripe.control "$FAKE_STRIPE_CONTROL" --field id price 1900`
begin;
set local role authenticated;
set local request.jwt.claims = '{"sub": "alice", "role": "authenticated"}';
select environment, mode, status, payment_status, subject_type, subject_id, metadata, stripe_checkout_session_id is not null as at_stripe
from api.create_checkout_session(
    environment => 'test',
    mode => 'payment',
    line_items => jsonb_build_array(jsonb_build_object('stripePriceId', :'price', 'quantity', 1)),
    success_url => 'https://shop.example/checkout/success',
    cancel_url => 'https://shop.example/pricing',
    subject => '{"type": "user", "id": "alice"}',
    customer_email => 'alice@example.com',
    metadata => '{"order_id": "7"}',
    idempotency_key => 'order:7'
);
commit;

-- Nobody buys for somebody else.
begin;
set local role authenticated;
set local request.jwt.claims = '{"sub": "mallory", "role": "authenticated"}';
select status
from api.create_checkout_session(
    environment => 'test',
    mode => 'payment',
    line_items => jsonb_build_array(jsonb_build_object('stripe_price_id', :'price')),
    success_url => 'https://shop.example/checkout/success',
    cancel_url => 'https://shop.example/pricing',
    subject => '{"type": "user", "id": "alice"}'
);
rollback;

-- The other environment is closed to apps.
begin;
set local role authenticated;
set local request.jwt.claims = '{"sub": "alice", "role": "authenticated"}';
select status
from api.create_checkout_session(
    environment => 'live',
    mode => 'payment',
    line_items => jsonb_build_array(jsonb_build_object('stripe_price_id', :'price')),
    success_url => 'https://shop.example/checkout/success',
    cancel_url => 'https://shop.example/pricing'
);
rollback;

-- The same key for something else is a conflict.
begin;
set local role authenticated;
set local request.jwt.claims = '{"sub": "alice", "role": "authenticated"}';
select status
from api.create_checkout_session(
    environment => 'test',
    mode => 'payment',
    line_items => jsonb_build_array(jsonb_build_object('stripe_price_id', :'price', 'quantity', 2)),
    success_url => 'https://shop.example/checkout/success',
    cancel_url => 'https://shop.example/pricing',
    subject => '{"type": "user", "id": "alice"}',
    idempotency_key => 'order:7'
);
rollback;

-- Some metadata is ours.
begin;
set local role authenticated;
set local request.jwt.claims = '{"sub": "alice", "role": "authenticated"}';
select status
from api.create_checkout_session(
    environment => 'test',
    mode => 'payment',
    line_items => jsonb_build_array(jsonb_build_object('stripe_price_id', :'price')),
    success_url => 'https://shop.example/checkout/success',
    cancel_url => 'https://shop.example/pricing',
    subject => '{"type": "user", "id": "alice"}',
    metadata => '{"payments_subject_id": "bob"}'
);
rollback;
