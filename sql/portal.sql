create function payments.create_customer_portal_session(
    environment text default null,
    subject jsonb default null,
    return_url text default null,
    configuration text default null,
    flow jsonb default null
)
    returns payments.customer_portal_session
    language c volatile parallel unsafe
    as 'MODULE_PATHNAME', 'create_customer_portal_session_wrapper';

comment on function payments.create_customer_portal_session(text, jsonb, text, text, jsonb) is
'Creates a Stripe customer portal session and returns its row; redirect the customer to its url.

The row is inserted into payments.customer_portal_sessions as the caller, so the INSERT policies
there decide who may open whose billing.

environment    test or live; null: the one that is open to apps
subject        {"type": "team", "id": "42"}: whose billing; it needs a customer who completed a
               checkout or was linked with payments.link_customer
return_url     where the portal''s back link leads
configuration  a portal configuration of Stripe''s, bpc_…
flow           opens one task: {"type": "payment_method_update"},
               {"type": "subscription_cancel", "subscription": "sub_…"} or
               {"type": "subscription_update", "subscription": "sub_…"}

Errors: PT404 no_customer (show a subscribe button), and those of
payments.create_checkout_session.';
