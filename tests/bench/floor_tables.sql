create table public.floor_events (
    id text primary key,
    payload json not null
);

create table public.floor_rows (
    id text primary key,
    environment text,
    kind text,
    customer text,
    subscription text,
    invoice text,
    payment_intent text,
    charge text,
    status text,
    currency text,
    description text,
    email text,
    mode text,
    event_type text,
    amount bigint,
    amount_due bigint,
    amount_paid bigint,
    amount_refunded bigint,
    livemode boolean,
    paid boolean,
    created_at timestamptz,
    period_start timestamptz,
    period_end timestamptz,
    updated_at timestamptz,
    raw jsonb
);
