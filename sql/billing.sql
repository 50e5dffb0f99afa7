create function payments.cancel_subscription(
    environment text,
    id text,
    at_period_end boolean default true
)
    returns payments.subscription
    language c volatile parallel unsafe
    as 'MODULE_PATHNAME', 'cancel_subscription_wrapper';

comment on function payments.cancel_subscription(text, text, boolean) is
'Cancels a subscription at Stripe and returns its row. One that has ended stays as it is.

environment    test or live
id             sub_…
at_period_end  true: it runs to the end of what is paid for, and payments.update_subscription can
               resume it until then; false: it ends now, without a refund

Errors: 22023 bad argument, PT404 no_such_subscription, and those of a call to Stripe.';

create function payments.update_subscription(environment text, id text, changes jsonb)
    returns payments.subscription
    language c volatile parallel unsafe
    as 'MODULE_PATHNAME', 'update_subscription_wrapper';

comment on function payments.update_subscription(text, text, jsonb) is
'Changes a subscription at Stripe and returns its row; payments.subscription_items has its items.

environment  test or live
id           sub_…
changes      what is to be different:
             {"quantity": 5}, {"lookup_key": "pro_yearly"}, {"stripe_price_id": "price_…"}, together or
             alone, for a subscription with one item;
             {"items": [{"stripe_subscription_item_id": "si_…", "quantity": 2}, {"lookup_key": "seats"},
             {"stripe_subscription_item_id": "si_…", "deleted": true}]} for any: changed, added, removed;
             {"cancel_at_period_end": false} to resume what was to be cancelled;
             {"metadata": {…}}, merged by key, without keys that start with payments_;
             and whatever else Stripe takes, such as "proration_behavior" or "trial_end"
             (https://docs.stripe.com/api/subscriptions/update)

Says how things are to be, so that asking again changes no more. Errors: 22023 bad argument, PT404
no_such_subscription, PT400 refused by Stripe, PT402 card refused, and those of a call to Stripe.';

create function payments.refund_payment(
    environment text,
    payment_id uuid,
    amount bigint default null,
    reason text default null,
    idempotency_key text default null
)
    returns payments.payment
    language c volatile parallel unsafe
    as 'MODULE_PATHNAME', 'refund_payment_wrapper';

comment on function payments.refund_payment(text, uuid, bigint, text, text) is
'Gives a payment back, or a part of it, and returns the refund''s own row of payments.payment_history,
whose status can still be pending.

environment      test or live
payment_id       id of the payment in payments.payment_history, also one of a subscription''s invoice
amount           in the currency''s minor unit; null: all that is left
reason           duplicate, fraudulent, requested_by_customer, or null
idempotency_key  the same key refunds a payment once, for ever

Without a key, the same refund asked for again after a failure or a rollback is made once; when the
first is known here, a second request is a second refund. Give a key where a request can be repeated
later than that.

Errors: 22023 bad argument, 23505 key_reused, PT404 no_such_payment, PT400 nothing_paid or refused by
Stripe (more than is left), and those of a call to Stripe.';
