create function payments.verify_signature(
    payload text,
    header text,
    secret text,
    tolerance interval default '5 minutes'
)
    returns boolean
    language c stable strict parallel safe
    as 'MODULE_PATHNAME', 'verify_signature_wrapper';

comment on function payments.verify_signature(text, text, text, interval) is
'Whether a Stripe-Signature header signs this payload with this whsec_… secret, and is not older
than the tolerance. See https://docs.stripe.com/webhooks/signatures';

create function payments.handle_webhook(environment text, payload text, signature text)
    returns payments.webhook_receipt
    language c volatile parallel unsafe
    as 'MODULE_PATHNAME', 'handle_webhook_wrapper';

comment on function payments.handle_webhook(text, text, text) is
'Verifies a webhook of Stripe''s, records it, and brings the tables in step, in this transaction.

payload    the body of the request, byte for byte
signature  its Stripe-Signature header

An event is applied once. If a trigger of the app fails, the event is kept as failed with the
error, and the receipt says so: answer Stripe with a 5xx and it sends the event again.

Errors, which change nothing: 22023 bad signature, wrong environment or malformed body,
55000 no signing secret.';

create function payments.stripe_webhook(json)
    returns payments.webhook_receipt
    language c volatile parallel unsafe
    as 'MODULE_PATHNAME', 'stripe_webhook_wrapper';

comment on function payments.stripe_webhook(json) is
'The webhook endpoint for a PostgREST-style gateway: point Stripe at /rpc/stripe_webhook of a schema
exposed with payments.expose.

Reads the signature from the request.headers setting and finds the environment by the secret that
verifies. Sets response.status to 500 while a failed event should be sent again.';
