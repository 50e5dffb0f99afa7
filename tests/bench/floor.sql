with stored as (
    insert into public.floor_events (id, payload) values ($1, $2::text::json)
)
insert into public.floor_rows values (
    $3, 'test', $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15,
    $16, $17, $18, $19, $20, $21, $22, $23, $24, $25, $2::text::jsonb
)
on conflict (id) do update set
    environment = excluded.environment,
    kind = excluded.kind,
    customer = excluded.customer,
    subscription = excluded.subscription,
    invoice = excluded.invoice,
    payment_intent = excluded.payment_intent,
    charge = excluded.charge,
    status = excluded.status,
    currency = excluded.currency,
    description = excluded.description,
    email = excluded.email,
    mode = excluded.mode,
    event_type = excluded.event_type,
    amount = excluded.amount,
    amount_due = excluded.amount_due,
    amount_paid = excluded.amount_paid,
    amount_refunded = excluded.amount_refunded,
    livemode = excluded.livemode,
    paid = excluded.paid,
    created_at = excluded.created_at,
    period_start = excluded.period_start,
    period_end = excluded.period_end,
    updated_at = excluded.updated_at,
    raw = excluded.raw
