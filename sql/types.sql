-- One definition of every column. install() makes its tables like these types, functions
-- return them, and `\d+` shows their comments: they are the manual.
--
-- Later versions only ever add attributes, nullable and last: a dump of an older version must
-- still restore into a newer one.

create type payments.checkout_session as (
    id uuid,
    environment text,
    mode text,
    status text,
    payment_status text,
    subject_type text,
    subject_id text,
    customer_email text,
    line_items jsonb,
    success_url text,
    cancel_url text,
    idempotency_key text,
    metadata jsonb,
    stripe_checkout_session_id text,
    stripe_customer_id text,
    stripe_payment_intent_id text,
    stripe_subscription_id text,
    url text,
    last_error text,
    expires_at timestamptz,
    requested_by text,
    request_hash text,
    generation integer,
    created_at timestamptz,
    updated_at timestamptz
);
comment on type payments.checkout_session is
    'One Checkout Session: what was asked for, and what became of it at Stripe. Rows of payments.checkout_sessions; returned by create_checkout_session().';
comment on column payments.checkout_session.id is
    'Our id of the session. It travels to Stripe in the session''s metadata and finds this row again.';
comment on column payments.checkout_session.environment is
    'test or live: which Stripe mode the session belongs to.';
comment on column payments.checkout_session.mode is
    'payment (one-time) or subscription, as Stripe calls it.';
comment on column payments.checkout_session.status is
    'initialized (asked for, not yet answered by Stripe), open (waiting for the buyer), completed (Stripe: complete), expired, or failed (see last_error).';
comment on column payments.checkout_session.payment_status is
    'Stripe''s word: paid, unpaid or no_payment_required. A completed session can be unpaid for days with delayed payment methods.';
comment on column payments.checkout_session.subject_type is
    'What kind of thing pays or is paid for, in the app''s own words: user, team, order. Null for an anonymous purchase.';
comment on column payments.checkout_session.subject_id is
    'Which one, in the app''s own words. Null for an anonymous purchase.';
comment on column payments.checkout_session.customer_email is
    'E-mail address to pre-fill, as the caller gave it. A hint, never an identity.';
comment on column payments.checkout_session.line_items is
    'What is sold: [{"stripe_price_id" or "lookup_key": text, "quantity": integer}], as the caller gave it.';
comment on column payments.checkout_session.success_url is
    'Where Stripe sends the buyer after paying. {CHECKOUT_SESSION_ID} is left for Stripe to fill.';
comment on column payments.checkout_session.cancel_url is
    'Where Stripe sends the buyer who turns back.';
comment on column payments.checkout_session.idempotency_key is
    'The caller''s key: asking again with it answers with the same session instead of selling twice.';
comment on column payments.checkout_session.metadata is
    'The caller''s own keys, copied to the Stripe session and to its payment or subscription. Keys starting with payments_ are reserved.';
comment on column payments.checkout_session.stripe_checkout_session_id is
    'Stripe''s id, cs_…';
comment on column payments.checkout_session.stripe_customer_id is
    'The Stripe customer who buys, cus_…';
comment on column payments.checkout_session.stripe_payment_intent_id is
    'The payment of a one-time purchase, pi_…';
comment on column payments.checkout_session.stripe_subscription_id is
    'The subscription that the session started, sub_…';
comment on column payments.checkout_session.url is
    'Where to send the buyer. Null unless the session is open.';
comment on column payments.checkout_session.last_error is
    'Why the session failed, in Stripe''s words.';
comment on column payments.checkout_session.expires_at is
    'When Stripe closes the session if nobody pays.';
comment on column payments.checkout_session.requested_by is
    'Who asked: the sub claim of the request''s JWT, else the database role. Owns the idempotency key when there is no subject.';
comment on column payments.checkout_session.request_hash is
    'Fingerprint of everything that was asked for. The same key with another fingerprint is a conflict.';
comment on column payments.checkout_session.generation is
    'Counts the Stripe sessions made for one idempotency key: the next starts when the last expired, failed, or its subscription ended.';
comment on column payments.checkout_session.created_at is
    'When the session was asked for.';
comment on column payments.checkout_session.updated_at is
    'When the facts in this row last changed.';

create type payments.customer_portal_session as (
    id uuid,
    environment text,
    status text,
    subject_type text,
    subject_id text,
    stripe_customer_id text,
    return_url text,
    configuration text,
    flow jsonb,
    url text,
    last_error text,
    requested_by text,
    created_at timestamptz,
    updated_at timestamptz
);
comment on type payments.customer_portal_session is
    'One visit to Stripe''s customer portal. Rows of payments.customer_portal_sessions; returned by create_customer_portal_session().';
comment on column payments.customer_portal_session.id is
    'Our id of the visit.';
comment on column payments.customer_portal_session.environment is
    'test or live.';
comment on column payments.customer_portal_session.status is
    'initialized, created (url is set) or failed (see last_error).';
comment on column payments.customer_portal_session.subject_type is
    'Whose portal: kind of thing, in the app''s own words.';
comment on column payments.customer_portal_session.subject_id is
    'Whose portal: which one, in the app''s own words.';
comment on column payments.customer_portal_session.stripe_customer_id is
    'The Stripe customer whose portal opens, cus_…';
comment on column payments.customer_portal_session.return_url is
    'Where the portal''s back link leads.';
comment on column payments.customer_portal_session.configuration is
    'Stripe''s portal configuration, bpc_…; the account''s default when null.';
comment on column payments.customer_portal_session.flow is
    'Opens the portal at one task (Stripe: flow_data): payment_method_update, subscription_cancel or subscription_update.';
comment on column payments.customer_portal_session.url is
    'Where to send the customer. Short-lived, for this customer only.';
comment on column payments.customer_portal_session.last_error is
    'Why the visit failed, in Stripe''s words.';
comment on column payments.customer_portal_session.requested_by is
    'Who asked: the sub claim of the request''s JWT, else the database role.';
comment on column payments.customer_portal_session.created_at is
    'When the visit was asked for.';
comment on column payments.customer_portal_session.updated_at is
    'When the facts in this row last changed.';

create type payments.customer_mapping as (
    environment text,
    subject_type text,
    subject_id text,
    stripe_customer_id text,
    linked_at timestamptz,
    created_at timestamptz,
    updated_at timestamptz
);
comment on type payments.customer_mapping is
    'Which Stripe customer pays for which subject. A subject may have several customers, a customer several subjects. Rows of payments.customer_mappings.';
comment on column payments.customer_mapping.environment is
    'test or live.';
comment on column payments.customer_mapping.subject_type is
    'Kind of thing, in the app''s own words.';
comment on column payments.customer_mapping.subject_id is
    'Which one, in the app''s own words.';
comment on column payments.customer_mapping.stripe_customer_id is
    'Stripe''s customer, cus_…';
comment on column payments.customer_mapping.linked_at is
    'When link_customer() said so. Null for what a completed checkout or a subscription proved. Linked rows are source data: rebuild() keeps them.';
comment on column payments.customer_mapping.created_at is
    'When the two first belonged together.';
comment on column payments.customer_mapping.updated_at is
    'When the facts in this row last changed.';

create type payments.customer as (
    environment text,
    stripe_customer_id text,
    email text,
    name text,
    phone text,
    deleted boolean,
    metadata jsonb,
    stripe_created_at timestamptz,
    created_at timestamptz,
    updated_at timestamptz
);
comment on type payments.customer is
    'A Stripe customer. Rows of payments.customers.';
comment on column payments.customer.environment is
    'test or live.';
comment on column payments.customer.stripe_customer_id is
    'Stripe''s id, cus_…';
comment on column payments.customer.email is
    'E-mail address at Stripe. The buyer may have typed it: never an identity.';
comment on column payments.customer.name is
    'Name at Stripe.';
comment on column payments.customer.phone is
    'Telephone number at Stripe.';
comment on column payments.customer.deleted is
    'True once deleted at Stripe; the last known details stay.';
comment on column payments.customer.metadata is
    'Metadata at Stripe.';
comment on column payments.customer.stripe_created_at is
    'When Stripe created the customer.';
comment on column payments.customer.created_at is
    'When Stripe created the customer.';
comment on column payments.customer.updated_at is
    'When the facts in this row last changed.';

create type payments.product as (
    environment text,
    stripe_product_id text,
    name text,
    description text,
    active boolean,
    default_price_id text,
    metadata jsonb,
    deleted boolean,
    created_at timestamptz,
    updated_at timestamptz
);
comment on type payments.product is
    'A Stripe product: what is sold. Rows of payments.products.';
comment on column payments.product.environment is
    'test or live.';
comment on column payments.product.stripe_product_id is
    'Stripe''s id, prod_… or one chosen by its creator.';
comment on column payments.product.name is
    'Name shown to buyers.';
comment on column payments.product.description is
    'Description shown to buyers.';
comment on column payments.product.active is
    'Whether it can be sold.';
comment on column payments.product.default_price_id is
    'The price Stripe offers first, price_…';
comment on column payments.product.metadata is
    'Metadata at Stripe.';
comment on column payments.product.deleted is
    'True once deleted at Stripe.';
comment on column payments.product.created_at is
    'When Stripe created the product.';
comment on column payments.product.updated_at is
    'When the facts in this row last changed.';

create type payments.price as (
    environment text,
    stripe_price_id text,
    stripe_product_id text,
    active boolean,
    currency text,
    unit_amount bigint,
    unit_amount_decimal text,
    type text,
    lookup_key text,
    billing_scheme text,
    tax_behavior text,
    recurring_interval text,
    recurring_interval_count integer,
    recurring_usage_type text,
    metadata jsonb,
    deleted boolean,
    created_at timestamptz,
    updated_at timestamptz
);
comment on type payments.price is
    'A Stripe price: how much a product costs and how often. Rows of payments.prices.';
comment on column payments.price.environment is
    'test or live.';
comment on column payments.price.stripe_price_id is
    'Stripe''s id, price_…';
comment on column payments.price.stripe_product_id is
    'The product it prices, prod_…';
comment on column payments.price.active is
    'Whether it can be used for new purchases.';
comment on column payments.price.currency is
    'Three-letter ISO code, lower case.';
comment on column payments.price.unit_amount is
    'Price of one unit in the currency''s minor unit (cents; whole yen). Null for tiered and customer-chosen prices.';
comment on column payments.price.unit_amount_decimal is
    'The same with up to 12 decimals of a minor unit, as Stripe writes it.';
comment on column payments.price.type is
    'one_time or recurring.';
comment on column payments.price.lookup_key is
    'A name for the price that can move to another price, and is the same in test and live.';
comment on column payments.price.billing_scheme is
    'per_unit or tiered.';
comment on column payments.price.tax_behavior is
    'inclusive, exclusive or unspecified.';
comment on column payments.price.recurring_interval is
    'day, week, month or year; null for a one-time price.';
comment on column payments.price.recurring_interval_count is
    'How many intervals lie between two bills.';
comment on column payments.price.recurring_usage_type is
    'licensed or metered.';
comment on column payments.price.metadata is
    'Metadata at Stripe.';
comment on column payments.price.deleted is
    'True once deleted at Stripe.';
comment on column payments.price.created_at is
    'When Stripe created the price.';
comment on column payments.price.updated_at is
    'When the facts in this row last changed.';

create type payments.subscription as (
    environment text,
    stripe_subscription_id text,
    stripe_customer_id text,
    subject_type text,
    subject_id text,
    status text,
    current_period_start timestamptz,
    current_period_end timestamptz,
    cancel_at_period_end boolean,
    cancel_at timestamptz,
    canceled_at timestamptz,
    ended_at timestamptz,
    trial_start timestamptz,
    trial_end timestamptz,
    latest_invoice_id text,
    metadata jsonb,
    created_at timestamptz,
    updated_at timestamptz
);
comment on type payments.subscription is
    'A Stripe subscription and the subject that it serves. Rows of payments.subscriptions.';
comment on column payments.subscription.environment is
    'test or live.';
comment on column payments.subscription.stripe_subscription_id is
    'Stripe''s id, sub_…';
comment on column payments.subscription.stripe_customer_id is
    'Who pays, cus_…';
comment on column payments.subscription.subject_type is
    'Whom it serves: kind of thing, in the app''s own words. Null while unknown.';
comment on column payments.subscription.subject_id is
    'Whom it serves: which one, in the app''s own words. Null while unknown.';
comment on column payments.subscription.status is
    'Stripe''s word: incomplete, incomplete_expired, trialing, active, past_due, canceled, unpaid, paused, or one that Stripe invents later.';
comment on column payments.subscription.current_period_start is
    'Start of the period paid for: the earliest of its items.';
comment on column payments.subscription.current_period_end is
    'End of the period paid for: the latest of its items.';
comment on column payments.subscription.cancel_at_period_end is
    'True when it ends with the current period unless resumed.';
comment on column payments.subscription.cancel_at is
    'When it will end, if a date is set.';
comment on column payments.subscription.canceled_at is
    'When somebody cancelled it; it may run on until ended_at.';
comment on column payments.subscription.ended_at is
    'When it ended.';
comment on column payments.subscription.trial_start is
    'Start of the trial.';
comment on column payments.subscription.trial_end is
    'End of the trial.';
comment on column payments.subscription.latest_invoice_id is
    'Its newest invoice, in_…';
comment on column payments.subscription.metadata is
    'Metadata at Stripe.';
comment on column payments.subscription.created_at is
    'When Stripe created the subscription.';
comment on column payments.subscription.updated_at is
    'When the facts in this row last changed.';

create type payments.subscription_item as (
    environment text,
    stripe_subscription_item_id text,
    stripe_subscription_id text,
    stripe_product_id text,
    stripe_price_id text,
    lookup_key text,
    quantity bigint,
    current_period_start timestamptz,
    current_period_end timestamptz,
    metadata jsonb,
    created_at timestamptz,
    updated_at timestamptz
);
comment on type payments.subscription_item is
    'One price within a subscription. Rows of payments.subscription_items.';
comment on column payments.subscription_item.environment is
    'test or live.';
comment on column payments.subscription_item.stripe_subscription_item_id is
    'Stripe''s id, si_…';
comment on column payments.subscription_item.stripe_subscription_id is
    'The subscription it is part of, sub_…';
comment on column payments.subscription_item.stripe_product_id is
    'What is sold, prod_…';
comment on column payments.subscription_item.stripe_price_id is
    'At which price, price_…';
comment on column payments.subscription_item.lookup_key is
    'The price''s lookup key when the item was last seen.';
comment on column payments.subscription_item.quantity is
    'How many. Null for metered prices.';
comment on column payments.subscription_item.current_period_start is
    'Start of the item''s current period.';
comment on column payments.subscription_item.current_period_end is
    'End of the item''s current period.';
comment on column payments.subscription_item.metadata is
    'Metadata at Stripe.';
comment on column payments.subscription_item.created_at is
    'When Stripe created the item.';
comment on column payments.subscription_item.updated_at is
    'When the facts in this row last changed.';

create type payments.payment as (
    id uuid,
    environment text,
    type text,
    status text,
    subject_type text,
    subject_id text,
    stripe_customer_id text,
    customer_email_snapshot text,
    stripe_checkout_session_id text,
    stripe_payment_intent_id text,
    stripe_invoice_id text,
    stripe_charge_id text,
    stripe_refund_id text,
    stripe_subscription_id text,
    stripe_product_id text,
    stripe_price_id text,
    amount bigint,
    amount_refunded bigint,
    currency text,
    description text,
    billing_reason text,
    dispute_status text,
    metadata jsonb,
    paid_at timestamptz,
    failed_at timestamptz,
    refunded_at timestamptz,
    stripe_created_at timestamptz,
    created_at timestamptz,
    updated_at timestamptz
);
comment on type payments.payment is
    'One payment or one refund: a row each, never merged, never deleted. Rows of payments.payment_history.';
comment on column payments.payment.id is
    'Our id, derived from what is paid: the same facts give the same id.';
comment on column payments.payment.environment is
    'test or live.';
comment on column payments.payment.type is
    'What it is for, and stays: one_time_payment, subscription_invoice or refund.';
comment on column payments.payment.status is
    'What became of it: pending, succeeded (the money was captured), failed, refunded or partially_refunded.';
comment on column payments.payment.subject_type is
    'Who paid: kind of thing, in the app''s own words. Null for an anonymous purchase.';
comment on column payments.payment.subject_id is
    'Who paid: which one, in the app''s own words. Null for an anonymous purchase.';
comment on column payments.payment.stripe_customer_id is
    'The Stripe customer, cus_…';
comment on column payments.payment.customer_email_snapshot is
    'The buyer''s e-mail address at the time of payment.';
comment on column payments.payment.stripe_checkout_session_id is
    'The session that sold it, cs_…';
comment on column payments.payment.stripe_payment_intent_id is
    'Stripe''s payment, pi_…';
comment on column payments.payment.stripe_invoice_id is
    'The invoice it pays, in_…';
comment on column payments.payment.stripe_charge_id is
    'The charge that carried the money, ch_… or py_…';
comment on column payments.payment.stripe_refund_id is
    'The refund, re_…; only on rows of type refund.';
comment on column payments.payment.stripe_subscription_id is
    'The subscription it pays for, sub_…';
comment on column payments.payment.stripe_product_id is
    'What was bought, prod_…; of the first line when there are several.';
comment on column payments.payment.stripe_price_id is
    'At which price, price_…; of the first line when there are several.';
comment on column payments.payment.amount is
    'Money captured, asked for or refunded, in the currency''s minor unit (cents; whole yen).';
comment on column payments.payment.amount_refunded is
    'How much of it went back, in the currency''s minor unit.';
comment on column payments.payment.currency is
    'Three-letter ISO code, lower case.';
comment on column payments.payment.description is
    'Stripe''s description.';
comment on column payments.payment.billing_reason is
    'Why Stripe made the invoice: subscription_create (a first invoice, of a trial even at amount 0), subscription_cycle, subscription_update …';
comment on column payments.payment.dispute_status is
    'Stripe''s word for the newest dispute: needs_response, under_review, won, lost … Null when nobody disputes it.';
comment on column payments.payment.metadata is
    'The metadata given to create_checkout_session(), else the payment''s at Stripe.';
comment on column payments.payment.paid_at is
    'When the money was captured. Null until then, and where Stripe does not say.';
comment on column payments.payment.failed_at is
    'When the last attempt failed.';
comment on column payments.payment.refunded_at is
    'When money last went back.';
comment on column payments.payment.stripe_created_at is
    'When Stripe created what this row is anchored at.';
comment on column payments.payment.created_at is
    'When Stripe created what this row is anchored at.';
comment on column payments.payment.updated_at is
    'When the facts in this row last changed.';

create type payments.invoice as (
    environment text,
    stripe_invoice_id text,
    stripe_customer_id text,
    stripe_subscription_id text,
    subject_type text,
    subject_id text,
    number text,
    status text,
    billing_reason text,
    currency text,
    subtotal bigint,
    total bigint,
    amount_due bigint,
    amount_paid bigint,
    amount_remaining bigint,
    attempt_count integer,
    next_payment_attempt timestamptz,
    period_start timestamptz,
    period_end timestamptz,
    due_date timestamptz,
    hosted_invoice_url text,
    invoice_pdf text,
    deleted boolean,
    metadata jsonb,
    finalized_at timestamptz,
    paid_at timestamptz,
    voided_at timestamptz,
    created_at timestamptz,
    updated_at timestamptz
);
comment on type payments.invoice is
    'A Stripe invoice. Rows of payments.invoices.';
comment on column payments.invoice.environment is
    'test or live.';
comment on column payments.invoice.stripe_invoice_id is
    'Stripe''s id, in_…';
comment on column payments.invoice.stripe_customer_id is
    'Who is billed, cus_…';
comment on column payments.invoice.stripe_subscription_id is
    'The subscription it bills, sub_…';
comment on column payments.invoice.subject_type is
    'Whom it is for: kind of thing, in the app''s own words.';
comment on column payments.invoice.subject_id is
    'Whom it is for: which one, in the app''s own words.';
comment on column payments.invoice.number is
    'The number printed on it.';
comment on column payments.invoice.status is
    'Stripe''s word: draft, open, paid, uncollectible or void.';
comment on column payments.invoice.billing_reason is
    'Why Stripe made it: subscription_create, subscription_cycle, manual …';
comment on column payments.invoice.currency is
    'Three-letter ISO code, lower case.';
comment on column payments.invoice.subtotal is
    'Before discounts and taxes, in the currency''s minor unit.';
comment on column payments.invoice.total is
    'After discounts and taxes, in the currency''s minor unit.';
comment on column payments.invoice.amount_due is
    'What was to be paid, in the currency''s minor unit.';
comment on column payments.invoice.amount_paid is
    'What was paid, in the currency''s minor unit.';
comment on column payments.invoice.amount_remaining is
    'What is still to be paid, in the currency''s minor unit.';
comment on column payments.invoice.attempt_count is
    'How often Stripe tried to collect it.';
comment on column payments.invoice.next_payment_attempt is
    'When Stripe tries again.';
comment on column payments.invoice.period_start is
    'Start of the period whose usage it bills.';
comment on column payments.invoice.period_end is
    'End of the period whose usage it bills.';
comment on column payments.invoice.due_date is
    'When it must be paid.';
comment on column payments.invoice.hosted_invoice_url is
    'Stripe''s page where it can be seen and paid.';
comment on column payments.invoice.invoice_pdf is
    'The invoice as a PDF, at Stripe.';
comment on column payments.invoice.deleted is
    'True once the draft was deleted at Stripe.';
comment on column payments.invoice.metadata is
    'Metadata at Stripe.';
comment on column payments.invoice.finalized_at is
    'When it was finalized.';
comment on column payments.invoice.paid_at is
    'When it was paid.';
comment on column payments.invoice.voided_at is
    'When it was voided.';
comment on column payments.invoice.created_at is
    'When Stripe created the invoice.';
comment on column payments.invoice.updated_at is
    'When the facts in this row last changed.';

create type payments.dispute as (
    environment text,
    stripe_dispute_id text,
    stripe_charge_id text,
    stripe_payment_intent_id text,
    amount bigint,
    currency text,
    reason text,
    status text,
    evidence_due_by timestamptz,
    metadata jsonb,
    created_at timestamptz,
    updated_at timestamptz
);
comment on type payments.dispute is
    'A buyer''s dispute (chargeback). Rows of payments.disputes.';
comment on column payments.dispute.environment is
    'test or live.';
comment on column payments.dispute.stripe_dispute_id is
    'Stripe''s id, dp_… or du_…';
comment on column payments.dispute.stripe_charge_id is
    'The disputed charge, ch_…';
comment on column payments.dispute.stripe_payment_intent_id is
    'The disputed payment, pi_…';
comment on column payments.dispute.amount is
    'Disputed amount, in the currency''s minor unit.';
comment on column payments.dispute.currency is
    'Three-letter ISO code, lower case.';
comment on column payments.dispute.reason is
    'Stripe''s word: fraudulent, product_not_received …';
comment on column payments.dispute.status is
    'Stripe''s word: needs_response, under_review, won, lost …';
comment on column payments.dispute.evidence_due_by is
    'Until when evidence is accepted.';
comment on column payments.dispute.metadata is
    'Metadata at Stripe.';
comment on column payments.dispute.created_at is
    'When the dispute was opened.';
comment on column payments.dispute.updated_at is
    'When the facts in this row last changed.';

create type payments.webhook_event as (
    environment text,
    stripe_event_id text,
    event_type text,
    livemode boolean,
    stripe_account_id text,
    api_version text,
    object_type text,
    object_id text,
    source text,
    processing_status text,
    attempt_count integer,
    last_error text,
    error jsonb,
    payload json,
    stripe_created_at timestamptz,
    received_at timestamptz,
    processed_at timestamptz
);
comment on type payments.webhook_event is
    'One event that Stripe sent, and what became of it. Rows of payments.webhook_events.';
comment on column payments.webhook_event.environment is
    'test or live: whose signing secret verified it.';
comment on column payments.webhook_event.stripe_event_id is
    'Stripe''s id, evt_…';
comment on column payments.webhook_event.event_type is
    'Stripe''s word: checkout.session.completed, invoice.paid …';
comment on column payments.webhook_event.livemode is
    'What the event says of itself; it agrees with environment.';
comment on column payments.webhook_event.stripe_account_id is
    'The connected account it came from, acct_…; such events are ignored.';
comment on column payments.webhook_event.api_version is
    'The API version whose shapes the payload has.';
comment on column payments.webhook_event.object_type is
    'Kind of object it tells of: subscription, invoice …';
comment on column payments.webhook_event.object_id is
    'Which one, by Stripe''s id.';
comment on column payments.webhook_event.source is
    'How it came in: webhook, poll, replay or simulate.';
comment on column payments.webhook_event.processing_status is
    'processed, ignored (nothing here to do with it), failed (see last_error and error; replay_failed() tries again) or pending.';
comment on column payments.webhook_event.attempt_count is
    'How often processing was tried.';
comment on column payments.webhook_event.last_error is
    'Message of the last failure.';
comment on column payments.webhook_event.error is
    'The rest of the last failure: sqlstate, detail, hint, context, schema, table, column and constraint, as far as it had them.';
comment on column payments.webhook_event.payload is
    'The body, byte for byte.';
comment on column payments.webhook_event.stripe_created_at is
    'When Stripe made the event.';
comment on column payments.webhook_event.received_at is
    'When it first came in.';
comment on column payments.webhook_event.processed_at is
    'When it was processed or ignored.';

create type payments.stripe_object as (
    environment text,
    object_type text,
    object_id text,
    body json,
    as_of timestamptz,
    deleted boolean,
    evidence json,
    payment_intent_id text,
    charge_id text,
    invoice_id text,
    subscription_id text,
    due text
);
comment on type payments.stripe_object is
    'The newest known body of one Stripe object: everything else is computed from these. Rows of payments.stripe_objects.';
comment on column payments.stripe_object.environment is
    'test or live.';
comment on column payments.stripe_object.object_type is
    'Stripe''s object field: customer, payment_intent …';
comment on column payments.stripe_object.object_id is
    'Stripe''s id. Unique only together with the type: a plan shares its id with its price.';
comment on column payments.stripe_object.body is
    'The newest body; a top-level field that it lacks is filled in from the newest body that has it, since payloads of several API versions arrive.';
comment on column payments.stripe_object.as_of is
    'The second, on Stripe''s clock, for which the body holds.';
comment on column payments.stripe_object.deleted is
    'True once deleted at Stripe.';
comment on column payments.stripe_object.evidence is
    'What merging needs besides the body to get every order of arrival right. Mostly null.';
comment on column payments.stripe_object.payment_intent_id is
    'The payment it belongs to, pi_…';
comment on column payments.stripe_object.charge_id is
    'The charge it belongs to, ch_…';
comment on column payments.stripe_object.invoice_id is
    'The invoice it belongs to, in_…';
comment on column payments.stripe_object.subscription_id is
    'The subscription it belongs to, sub_…';
comment on column payments.stripe_object.due is
    'Why Stripe must be asked about it again. Null when it need not be.';

create type payments.connection as (
    environment text,
    status text,
    stripe_account_id text,
    stripe_account_email text,
    account_livemode boolean,
    masked_key text,
    key_set_at timestamptz,
    missing_permissions text[],
    open_to_apps boolean,
    webhook_endpoint_id text,
    webhook_endpoint_url text,
    webhook_configured_at timestamptz,
    created_at timestamptz,
    updated_at timestamptz,
    webhook_endpoint_status text,
    webhook_api_version text,
    webhook_seen_at timestamptz,
    checkout_settings jsonb
);
comment on type payments.connection is
    'How one environment is connected to Stripe. Rows of payments.stripe_connections, one for test and one for live; returned by set_stripe_key() and status().';
comment on column payments.connection.environment is
    'test or live.';
comment on column payments.connection.status is
    'unconfigured (no key), connected, or error (the key no longer works).';
comment on column payments.connection.stripe_account_id is
    'The Stripe account the key belongs to, acct_…';
comment on column payments.connection.stripe_account_email is
    'The account''s e-mail address, where the key may read it.';
comment on column payments.connection.account_livemode is
    'Whether the key is a live one.';
comment on column payments.connection.masked_key is
    'Enough of the key to recognise it: sk_test_****last4.';
comment on column payments.connection.key_set_at is
    'When the key was set.';
comment on column payments.connection.missing_permissions is
    'What a restricted key may not do, as far as Stripe has said so.';
comment on column payments.connection.open_to_apps is
    'True for the one environment that app roles may use. See open_to_apps().';
comment on column payments.connection.webhook_endpoint_id is
    'The webhook endpoint at Stripe, we_…, when it is managed from here.';
comment on column payments.connection.webhook_endpoint_url is
    'The URL that Stripe posts events to.';
comment on column payments.connection.webhook_configured_at is
    'When a signing secret was last set.';
comment on column payments.connection.created_at is
    'When install() made the row.';
comment on column payments.connection.updated_at is
    'When the facts in this row last changed.';
comment on column payments.connection.webhook_endpoint_status is
    'How Stripe had that endpoint when it was last seen: enabled, disabled or deleted.';
comment on column payments.connection.webhook_api_version is
    'The version of Stripe''s API in which that endpoint''s events are written.';
comment on column payments.connection.webhook_seen_at is
    'When it was last seen.';
comment on column payments.connection.checkout_settings is
    'What configure_checkout() was told. Null: nothing.';

create type payments.sync_run as (
    environment text,
    object text,
    status text,
    listed bigint,
    asked bigint,
    failed bigint,
    began_at timestamptz,
    history_until timestamptz,
    read_until timestamptz,
    completed_at timestamptz,
    attempts integer,
    resume_at timestamptz,
    last_error text,
    cursor json,
    requested_at timestamptz,
    updated_at timestamptz
);
comment on type payments.sync_run is
    'How far a list of Stripe''s has been read. Rows of payments.sync_runs; returned by sync_step() and poll_step().';
comment on column payments.sync_run.environment is
    'test or live.';
comment on column payments.sync_run.object is
    'The list: products, customers, payment_intents …; events, which poll_events() reads; or due, what Stripe must be asked about one by one.';
comment on column payments.sync_run.status is
    'listing, asking (for objects that the list did not show, one by one) or complete.';
comment on column payments.sync_run.listed is
    'How many objects this run has read from the list; for events, how many were new.';
comment on column payments.sync_run.asked is
    'How many objects this run has asked for one by one.';
comment on column payments.sync_run.failed is
    'How many objects of this run are mirrored while their rows are as before, because a trigger refused them. The next run tries again.';
comment on column payments.sync_run.began_at is
    'When this run sent its first request, on Stripe''s clock.';
comment on column payments.sync_run.history_until is
    'When the list was first asked for, on Stripe''s clock: what is older came in without firing triggers.';
comment on column payments.sync_run.read_until is
    'For events: all up to here were read.';
comment on column payments.sync_run.completed_at is
    'When the list was last read to its end.';
comment on column payments.sync_run.attempts is
    'How often in a row Stripe failed or asked to wait.';
comment on column payments.sync_run.resume_at is
    'Stripe is left alone until then.';
comment on column payments.sync_run.last_error is
    'What Stripe said last, if it failed.';
comment on column payments.sync_run.cursor is
    'Where the next step goes on.';
comment on column payments.sync_run.requested_at is
    'When this run was asked for; the same for all lists of a run.';
comment on column payments.sync_run.updated_at is
    'When the last step was taken.';

create type payments.webhook_receipt as (
    environment text,
    stripe_event_id text,
    event_type text,
    status text,
    duplicate boolean,
    attempt_count integer,
    error text,
    error_detail jsonb
);
comment on type payments.webhook_receipt is
    'What became of one webhook delivery. Returned by handle_webhook().';
comment on column payments.webhook_receipt.environment is
    'test or live.';
comment on column payments.webhook_receipt.stripe_event_id is
    'Stripe''s id, evt_…';
comment on column payments.webhook_receipt.event_type is
    'Stripe''s word: checkout.session.completed, invoice.paid …';
comment on column payments.webhook_receipt.status is
    'processed, ignored or failed.';
comment on column payments.webhook_receipt.duplicate is
    'True when the event had been processed or ignored before and nothing was done.';
comment on column payments.webhook_receipt.attempt_count is
    'How often processing was tried, this time included.';
comment on column payments.webhook_receipt.error is
    'Message of the failure.';
comment on column payments.webhook_receipt.error_detail is
    'The rest of the failure: sqlstate, detail, hint, context, schema, table, column and constraint, as far as it had them.';
