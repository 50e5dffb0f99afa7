create function payments.set_stripe_key(environment text, secret_key text)
    returns payments.connection
    language c volatile parallel unsafe
    as 'MODULE_PATHNAME', 'set_stripe_key_wrapper';

comment on function payments.set_stripe_key(text, text) is
'Connects an environment to a Stripe account: asks Stripe whose key this is, seals it, stores it.

environment  test or live; the key must be of that environment
secret_key   sk_test_…, sk_live_…, or a restricted key rk_test_…, rk_live_…. Send it as a bind
             parameter (in psql: \bind), so that it stands in no statement text

The key is stored sealed under the key file of the setting payments.key_file, and shown as
sk_test_****last4 only. A restricted key is asked for every permission that is needed; those it
lacks are listed in missing_permissions. The same key again refreshes the account. Opens nothing
to apps: that is payments.open_to_apps.

Errors: 22023 not such a key, 55000 key_revoked, other_account (the tables hold the data of another
account), PT502 unreachable, PT504 timed out. No error carries the key.';

create function payments.remove_stripe_key(environment text)
    returns payments.connection
    language c volatile parallel unsafe
    as 'MODULE_PATHNAME', 'remove_stripe_key_wrapper';

comment on function payments.remove_stripe_key(text) is
'Forgets the key and the signing secrets of an environment and closes it to apps. The data stays,
and so does the account it came from: only a key of that account can be set again.

environment  test or live

At Stripe it removes the webhook endpoint that payments.configure_webhook made, as far as Stripe lets
it: a warning says what stays. The key itself can be revoked there only.';

create function payments.set_webhook_secret(environment text, signing_secret text)
    returns payments.connection
    language c volatile parallel unsafe
    as 'MODULE_PATHNAME', 'set_webhook_secret_wrapper';

comment on function payments.set_webhook_secret(text, text) is
'Stores, sealed, the secret with which Stripe signs the webhooks of an environment.

environment     test or live
signing_secret  whsec_…, from the endpoint''s page in the Stripe Dashboard or from `stripe listen`.
                Send it as a bind parameter

The secrets that were set before are accepted for 24 hours more, as long as Stripe itself signs with
both after a roll. The same secret again makes it the newest. Needed for endpoints that somebody made
by hand; payments.configure_webhook stores the secret of its own.';

create function payments.open_to_apps(environment text)
    returns payments.connection
    language c volatile parallel unsafe
    as 'MODULE_PATHNAME', 'open_to_apps_wrapper';

comment on function payments.open_to_apps(text) is
'Chooses the one environment that apps may use; the other is refused to them.

environment  test or live; null closes both

A browser that could choose test would pay with the card 4242 4242 4242 4242 and be served. Opening
live needs its key. Who may call this function, the owner of the tables and superusers may name
either environment in the functions of the app.';

create type payments.environment_status as (
    environment text,
    status text,
    open_to_apps boolean,
    masked_key text,
    key_readable boolean,
    stripe_account_id text,
    stripe_account_email text,
    missing_permissions text[],
    api_version text,
    webhook_endpoint_url text,
    webhook_endpoint_status text,
    webhook_api_version text,
    webhook_seen_at timestamptz,
    signing_secrets integer,
    signing_secret_expires_at timestamptz,
    last_event_at timestamptz,
    last_event_age interval,
    failed_events bigint,
    oldest_failed_event_at timestamptz,
    objects_due bigint,
    last_sync_at timestamptz,
    last_poll_at timestamptz,
    unmapped_subscriptions bigint,
    tables_without_policy text[],
    next_step text
);

comment on type payments.environment_status is
'How an environment is doing, as payments.status() reports it.';
comment on column payments.environment_status.environment is
'test or live.';
comment on column payments.environment_status.status is
'unconfigured: no key. connected: a key is set. error: a key was set and cannot be used here.';
comment on column payments.environment_status.open_to_apps is
'Whether this is the environment that apps may use.';
comment on column payments.environment_status.masked_key is
'The key that is set, as sk_test_****last4.';
comment on column payments.environment_status.key_readable is
'Whether the sealed key is here and opens. False after a restore, since secrets are in no dump.
Null when no key was set.';
comment on column payments.environment_status.stripe_account_id is
'The account (acct_…) whose data the tables hold.';
comment on column payments.environment_status.stripe_account_email is
'The e-mail address of that account.';
comment on column payments.environment_status.missing_permissions is
'Permissions that a restricted key lacks, in Stripe''s words.';
comment on column payments.environment_status.api_version is
'The version of Stripe''s API that is spoken.';
comment on column payments.environment_status.webhook_endpoint_url is
'Where Stripe sends the webhooks, when payments registered the endpoint.';
comment on column payments.environment_status.webhook_endpoint_status is
'How Stripe had that endpoint when it was last seen: enabled, disabled (Stripe does that when webhooks
fail for days) or deleted.';
comment on column payments.environment_status.webhook_api_version is
'The version in which its events are written: to be that in api_version.';
comment on column payments.environment_status.webhook_seen_at is
'When it was last seen.';
comment on column payments.environment_status.signing_secrets is
'How many signing secrets are accepted now.';
comment on column payments.environment_status.signing_secret_expires_at is
'When the next of them stops being accepted. Null when none does.';
comment on column payments.environment_status.last_event_at is
'When the last event arrived.';
comment on column payments.environment_status.last_event_age is
'How long ago that was.';
comment on column payments.environment_status.failed_events is
'Events that could not be applied. Their error is in payments.webhook_events.';
comment on column payments.environment_status.oldest_failed_event_at is
'When the oldest of them arrived.';
comment on column payments.environment_status.objects_due is
'Objects that Stripe has to be asked for, because what arrived does not decide them.';
comment on column payments.environment_status.last_sync_at is
'When payments.sync had last read all lists: the oldest of their times. Null before the first time.';
comment on column payments.environment_status.last_poll_at is
'When payments.poll_events or poll_step last had read every event.';
comment on column payments.environment_status.unmapped_subscriptions is
'Running subscriptions that belong to no subject, so that nobody has access through them.';
comment on column payments.environment_status.tables_without_policy is
'Tables on which a role was granted rights and row-level security still shows it nothing.';
comment on column payments.environment_status.next_step is
'The one thing to do next. Null when there is nothing to do.';

create function payments.status()
    returns setof payments.environment_status
    language c volatile parallel unsafe
    as 'MODULE_PATHNAME', 'status_wrapper';

comment on function payments.status() is
'How both environments are doing, and the one thing to do next in each. Asks nothing of Stripe.';
