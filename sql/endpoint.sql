create function payments.configure_webhook(
    environment text,
    url text,
    enabled_events text[] default null
)
    returns payments.connection
    language c volatile parallel unsafe
    as 'MODULE_PATHNAME', 'configure_webhook_wrapper';

comment on function payments.configure_webhook(text, text, text[]) is
'Has Stripe send the webhooks of an environment to a URL: makes the endpoint, and stores the secret
that its webhooks are signed with. The URL is that of payments.stripe_webhook at a gateway.

environment     test or live
url             https; http to this machine only
enabled_events  types of events; by default all that the tables are made of

Called again it changes what differs and nothing else, and enables what Stripe has disabled. An
endpoint whose events have another version, or whose secret is not here, as after a restore, is
replaced: the new one is there before the old one goes, and the secret of the old one is accepted
for 24 hours more. Endpoints that another database made, or a person, are not touched.

When a call fails or is rolled back, call again: it goes on with what Stripe has made already, and what
Stripe could not deliver in between it sends once more.

Errors: 22023 bad argument, 55000 not configured, and those of a call to Stripe.';
