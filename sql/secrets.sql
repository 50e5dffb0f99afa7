-- Stripe keys and signing secrets, sealed under a key that lives outside the database. The table
-- is the extension's own, so that no dump carries it; nobody but the extension's owner is to read
-- even the sealed form.
create table payments.secrets (
    id uuid primary key,
    environment text not null
        check (environment operator(pg_catalog.=) any (array['test', 'live'])),
    kind text not null
        check (kind operator(pg_catalog.=) any (array['stripe_key', 'signing_secret'])),
    sealed bytea not null,
    created_at timestamptz not null default pg_catalog.now(),
    expires_at timestamptz,
    webhook_endpoint_id text
);

create unique index secrets_stripe_key_idx on payments.secrets (environment)
where kind operator(pg_catalog.=) 'stripe_key';

revoke all on payments.secrets from public;

comment on table payments.secrets is
    'Sealed Stripe keys and webhook signing secrets. Never in a dump: set them again after a restore.';
comment on column payments.secrets.id is
    'Names the secret, and is sealed in with it: a sealed form moved to another row does not open.';
comment on column payments.secrets.environment is 'test or live.';
comment on column payments.secrets.kind is
    'stripe_key (one an environment) or signing_secret (several at once while one replaces another).';
comment on column payments.secrets.sealed is 'The secret, encrypted and authenticated.';
comment on column payments.secrets.created_at is 'When it was set.';
comment on column payments.secrets.expires_at is
    'When it stops being accepted. Null: as long as it stands here.';
comment on column payments.secrets.webhook_endpoint_id is
    'The endpoint at Stripe, we_…, that signs with it, when payments made that. Null for a secret that was handed over.';
