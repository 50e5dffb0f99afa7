create function payments.create_checkout_session(
    environment text default null,
    mode text default null,
    line_items jsonb default null,
    success_url text default null,
    cancel_url text default null,
    subject jsonb default null,
    customer_email text default null,
    metadata jsonb default null,
    idempotency_key text default null
)
    returns payments.checkout_session
    language c volatile parallel unsafe
    as 'MODULE_PATHNAME', 'create_checkout_session_wrapper';

comment on function payments.create_checkout_session(
    text, text, jsonb, text, text, jsonb, text, jsonb, text
) is
'Creates a Stripe Checkout session and returns its row; redirect the buyer to its url.

The row is inserted into payments.checkout_sessions as the caller, so the INSERT policies there
decide who may bill what. Stripe is called in the same transaction.

environment      test or live; null: the one that is open to apps
mode             payment or subscription
line_items       [{"stripe_price_id": "price_…", "quantity": 1}], or "lookup_key" in place of the
                 price id; 1 to 100 of them, quantity 1 to 999, by default 1
success_url      where Stripe sends the buyer afterwards; {CHECKOUT_SESSION_ID} is filled in by Stripe
cancel_url       where Stripe sends a buyer who turns back
subject          {"type": "team", "id": "42"}: who is billed, in the words of the app; required for
                 subscriptions
customer_email   prefilled in Checkout
metadata         string to string, copied to the session and to its payment intent or subscription;
                 keys that start with payments_ are reserved
idempotency_key  the same key returns the same session; with other parameters it is an error

Errors: 22023 bad argument, 42501 refused by a policy or environment_closed, 23505 key_reused,
PT400 refused by Stripe, PT402 card, PT429 rate limit, PT502 unreachable, PT504 timed out,
55000 not configured. DETAIL is a JSON object with a stable code.';
