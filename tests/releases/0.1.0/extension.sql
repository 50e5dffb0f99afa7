-- Stripe speaks UTF-8, and so does Rust. (In LATIN1 and the like, this script itself fails to convert.)
do $$
begin
    if pg_catalog.getdatabaseencoding() operator(pg_catalog.<>) 'UTF8' then
        raise exception using
            errcode = 'feature_not_supported',
            message = 'payments needs a database with encoding UTF8',
            detail = pg_catalog.format('The encoding of this one is %s.', pg_catalog.getdatabaseencoding()),
            hint = 'create database … encoding ''UTF8'' template template0';
    end if;
end
$$;

-- CREATE EXTENSION takes a schema `payments` that exists already. One that somebody else prepared
-- could hold a function or an operator that ours would then call with the owner's rights
-- (CVE-2022-2625's way in). A restored dump brings the schema too, empty and owned by a superuser,
-- and DROP EXTENSION leaves it behind with the tables: both are welcome, and install() looks at
-- the tables before it adopts them.
do $$
declare
    intruder text;
begin
    select pg_catalog.format('schema "payments" belongs to role "%s"', r.rolname)
    into intruder
    from pg_catalog.pg_namespace n
    join pg_catalog.pg_roles r on r.oid operator(pg_catalog.=) n.nspowner
    where n.nspname operator(pg_catalog.=) 'payments'
        and not r.rolsuper;

    if intruder is null then
        select pg_catalog.format(
            'role "%s" may create objects in schema "payments"',
            coalesce(r.rolname, 'public'))
        into intruder
        from pg_catalog.pg_namespace n
        cross join lateral pg_catalog.aclexplode(n.nspacl) acl
        left join pg_catalog.pg_roles r on r.oid operator(pg_catalog.=) acl.grantee
        where n.nspname operator(pg_catalog.=) 'payments'
            and acl.privilege_type operator(pg_catalog.=) 'CREATE'
            and r.rolsuper is not true
        limit 1;
    end if;

    if intruder is null then
        select pg_catalog.format(
            'role "%s" owns %s',
            r.rolname,
            pg_catalog.pg_describe_object(d.classid, d.objid, 0))
        into intruder
        from pg_catalog.pg_namespace n
        join pg_catalog.pg_depend d
            on d.refclassid operator(pg_catalog.=) 'pg_catalog.pg_namespace'::pg_catalog.regclass
            and d.refobjid operator(pg_catalog.=) n.oid
        join pg_catalog.pg_shdepend o
            on o.classid operator(pg_catalog.=) d.classid
            and o.objid operator(pg_catalog.=) d.objid
            and o.deptype operator(pg_catalog.=) 'o'
        join pg_catalog.pg_database db
            on db.oid operator(pg_catalog.=) o.dbid
            and db.datname operator(pg_catalog.=) pg_catalog.current_database()
        join pg_catalog.pg_roles r on r.oid operator(pg_catalog.=) o.refobjid
        where n.nspname operator(pg_catalog.=) 'payments'
            and d.classid operator(pg_catalog.<>) 'pg_catalog.pg_class'::pg_catalog.regclass
            and not r.rolsuper
        limit 1;
    end if;

    if intruder is not null then
        raise exception using
            errcode = 'object_not_in_prerequisite_state',
            message = 'schema "payments" was prepared by somebody else',
            detail = intruder,
            hint = 'Drop or rename that schema, or make a superuser its owner and revoke what others may do in it.';
    end if;
end
$$;

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

create type payments.catalog_product as (
    environment text,
    stripe_product_id text,
    name text,
    description text,
    default_price_id text,
    prices jsonb
);
comment on type payments.catalog_product is
    'A product that can be bought, with its prices. Returned by catalog().';
comment on column payments.catalog_product.environment is
    'test or live.';
comment on column payments.catalog_product.stripe_product_id is
    'Stripe''s id, prod_… or one chosen by its creator.';
comment on column payments.catalog_product.name is
    'Name shown to buyers.';
comment on column payments.catalog_product.description is
    'Description shown to buyers.';
comment on column payments.catalog_product.default_price_id is
    'The price Stripe offers first, price_…';
comment on column payments.catalog_product.prices is
    'Its active prices, cheapest first within a currency: an array of objects with stripe_price_id, lookup_key, currency, unit_amount (minor unit), unit_amount_decimal, type, billing_scheme, tax_behavior, recurring_interval, recurring_interval_count and recurring_usage_type, as in payments.prices.';

create function payments.catalog(environment text default null)
    returns setof payments.catalog_product
    language c stable parallel unsafe
    as 'MODULE_PATHNAME', 'catalog_wrapper';

comment on function payments.catalog(text) is
'The active products with their active prices, by name: ready for a pricing page.

environment  test or live; null: the one that is open to apps

It shows names, descriptions, amounts, intervals and lookup keys, no metadata, and needs no right on
the tables. So it can be given to every visitor, who then sees the environment that is open to apps
and no other:

    grant execute on function payments.catalog(text) to anon;

and where a gateway serves a schema of yours:

    create function api.catalog() returns setof payments.catalog_product
        language sql stable as ''select * from payments.catalog()'';';

create function payments.create_product(
    environment text,
    name text,
    description text default null,
    active boolean default null,
    metadata jsonb default null,
    idempotency_key text default null,
    params jsonb default null
)
    returns payments.product
    language c volatile parallel unsafe
    as 'MODULE_PATHNAME', 'create_product_wrapper';

comment on function payments.create_product(text, text, text, boolean, jsonb, text, jsonb) is
'Creates a product at Stripe and returns its row.

environment      test or live
name             shown to buyers
description      shown to buyers
active           whether it can be sold; null: it can
metadata         strings by key; keys that start with payments_ are reserved
idempotency_key  for a day, the same key makes the same product once
params           further parameters of Stripe''s (https://docs.stripe.com/api/products/create), such as
                 {"id": "tea", "tax_code": "txcd_…", "default_price_data": {…}}; none that has an
                 argument of its own

Errors: 22023 bad argument, 23505 key_reused, PT400 refused by Stripe, and those of a call to Stripe.';

create function payments.update_product(
    environment text,
    stripe_product_id text,
    changes jsonb
)
    returns payments.product
    language c volatile parallel unsafe
    as 'MODULE_PATHNAME', 'update_product_wrapper';

comment on function payments.update_product(text, text, jsonb) is
'Changes a product at Stripe and returns its row.

changes  what is to be different: name, description, active, metadata, and whatever else Stripe takes
         (https://docs.stripe.com/api/products/update). Null clears; metadata is merged by key, and
         null deletes a key

Errors: 22023 bad argument, PT404 no_such_product, PT400 refused by Stripe, and those of a call to
Stripe.';

create function payments.delete_product(environment text, stripe_product_id text)
    returns payments.product
    language c volatile parallel unsafe
    as 'MODULE_PATHNAME', 'delete_product_wrapper';

comment on function payments.delete_product(text, text) is
'Deletes a product at Stripe and returns its row, with deleted true. Stripe deletes no product that
has prices: then it is archived, which a NOTICE says, and the row has active false.

Errors: 22023 bad argument, PT404 no_such_product, and those of a call to Stripe.';

create function payments.create_price(
    environment text,
    stripe_product_id text,
    currency text,
    unit_amount bigint,
    recurring_interval text default null,
    recurring_interval_count integer default null,
    lookup_key text default null,
    active boolean default null,
    tax_behavior text default null,
    metadata jsonb default null,
    idempotency_key text default null,
    params jsonb default null
)
    returns payments.price
    language c volatile parallel unsafe
    as 'MODULE_PATHNAME', 'create_price_wrapper';

comment on function payments.create_price(
    text, text, text, bigint, text, integer, text, boolean, text, jsonb, text, jsonb
) is
'Creates a price at Stripe and returns its row.

environment               test or live
stripe_product_id         whose price it is
currency                  three-letter ISO code
unit_amount               in the currency''s minor unit: 900 is 9.00 USD, and 900 JPY; null when params
                          says the amount (unit_amount_decimal, custom_unit_amount, tiers)
recurring_interval        day, week, month or year; null: it is paid once
recurring_interval_count  how many intervals lie between two bills; null: one
lookup_key                a name that can be the same in test and live
active                    whether it can be used; null: it can
tax_behavior              inclusive, exclusive or unspecified
metadata                  strings by key; keys that start with payments_ are reserved
idempotency_key           for a day, the same key makes the same price once
params                    further parameters of Stripe''s (https://docs.stripe.com/api/prices/create),
                          such as {"transfer_lookup_key": true}, which takes the lookup key from the
                          price that has it, or {"recurring": {"usage_type": "metered", …}}; none
                          that has an argument of its own

Errors: 22023 bad argument, 23505 key_reused, PT400 refused by Stripe, and those of a call to Stripe.';

create function payments.update_price(
    environment text,
    stripe_price_id text,
    changes jsonb
)
    returns payments.price
    language c volatile parallel unsafe
    as 'MODULE_PATHNAME', 'update_price_wrapper';

comment on function payments.update_price(text, text, jsonb) is
'Changes a price at Stripe and returns its row. Stripe changes no amount: make another price.

changes  what is to be different: active, lookup_key, tax_behavior, metadata, and whatever else Stripe
         takes (https://docs.stripe.com/api/prices/update). Null clears; metadata is merged by key,
         and null deletes a key. "transfer_lookup_key": true takes the lookup key from the price
         that has it

Errors: 22023 bad argument, PT404 no_such_price, PT400 refused by Stripe, and those of a call to
Stripe.';

create function payments.archive_price(environment text, stripe_price_id text)
    returns payments.price
    language c volatile parallel unsafe
    as 'MODULE_PATHNAME', 'archive_price_wrapper';

comment on function payments.archive_price(text, text) is
'Takes a price off sale and returns its row. Running subscriptions keep it. Stripe archives no price
that is the default of its product.

Errors: 22023 bad argument, PT404 no_such_price, PT400 refused by Stripe, and those of a call to
Stripe.';

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

create function payments.link_customer(
    environment text,
    subject jsonb,
    stripe_customer_id text
)
    returns payments.customer_mapping
    language c volatile parallel unsafe
    as 'MODULE_PATHNAME', 'link_customer_wrapper';

comment on function payments.link_customer(text, jsonb, text) is
'Says that a customer of Stripe''s is a subject of the app: for customers who were there before this
extension was. The customer''s subscriptions, invoices and payments get the subject at once.

environment         test or live
subject             {"type": "team", "id": "42"}: who it is, in the words of the app
stripe_customer_id  cus_…, which must exist at Stripe

The link is the app''s own word: payments.rebuild, dumps and restores keep it. A subject may have
several customers, and a customer several subjects.

Many at a time, from a table of the app''s, all or none:

    select link.*
      from teams
     cross join lateral payments.link_customer(
               ''live'', jsonb_build_object(''type'', ''team'', ''id'', teams.id::text),
               teams.stripe_customer_id) as link
     where teams.stripe_customer_id is not null;

Each one asks Stripe, and holds locks until the transaction ends. So thousands are linked in a loop of
a DO block that commits after each and leaves out who is linked already.

Errors: 22023 bad argument, PT404 no_such_customer, and those of a call to Stripe.';

create function payments.rebuild(environment text, fire_triggers boolean default false)
    returns bigint
    language c volatile parallel unsafe
    as 'MODULE_PATHNAME', 'rebuild_wrapper';

comment on function payments.rebuild(text, boolean) is
'Computes every row of an environment afresh from payments.stripe_objects, without asking Stripe, and
returns how many rows had to be written or removed: after an update that repairs a projection, or
when somebody changed rows by hand.

Rows that are right are not touched. Rows that nothing at Stripe supports are removed, but for those
that callers asked for: checkout and portal sessions, and customers who were linked. Columns that you
added keep their values.

fire_triggers  whether triggers fire on what is written. By default none does, as if by
               session_replication_role = replica. They always do on what is removed, as foreign
               keys depend on it, and can read current_setting(''payments.source''): rebuild.

Other writers of the environment wait until the transaction ends; webhooks, not for long: Stripe sends
them again. Tells its progress as NOTICE. Errors: 25000 at another isolation level than READ COMMITTED.';

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

create function payments.sync_step(environment text, objects text[] default null)
    returns payments.sync_run
    language c volatile parallel unsafe
    as 'MODULE_PATHNAME', 'sync_step_wrapper';

comment on function payments.sync_step(text, text[]) is
'Takes one step of bringing the tables in step with Stripe, and says how far the list at hand is now:
for schedulers and gateways. Where CALL can be used, CALL payments.sync takes all steps.

environment  test or live
objects      which lists; null for all: products, prices, customers, checkout_sessions, subscriptions,
             invoices, invoice_payments, charges, payment_intents, refunds, disputes. Last comes due:
             whatever Stripe must be asked about one by one

A step reads one page of a list, the oldest first, or asks for some objects one by one. When all
lists are complete, the next step begins again with the first. Returns null while another session
takes a step. A row whose resume_at lies ahead says that Stripe is left alone until then.

Nothing is deleted for not being listed: Stripe is asked for it by its id. When a list is read for the
first time, what happened before fires no triggers; after that everything does, with
payments.source = sync.

Errors: 22023 unknown_object, 55000 not_configured, permission_missing, PT429, PT502, PT504 once
Stripe has failed for two minutes.';

create function payments.sync_next(environment text, objects text[] default null)
    returns payments.sync_run
    language c volatile parallel unsafe
    as 'MODULE_PATHNAME', 'sync_next_wrapper';

comment on function payments.sync_next(text, text[]) is
'Takes the next step of a sync that has begun, after waiting for other sessions'' steps. Null when
everything is complete. As payments.sync calls it.';

-- A procedure that commits cannot pin its search path, so every name and operator is qualified.
create procedure payments.sync(environment text, objects text[] default null)
    language plpgsql
as $$
declare
    run payments.sync_run := payments.sync_step(sync.environment, sync.objects);
    told_at timestamptz := pg_catalog.clock_timestamp();
begin
    if run.object is null then
        raise notice 'another session is syncing the environment "%"', sync.environment;
        return;
    end if;
    while run.object is not null loop
        commit;
        if run.resume_at operator(pg_catalog.>) pg_catalog.clock_timestamp() then
            raise notice 'waiting until %: %', run.resume_at, run.last_error;
            perform pg_catalog.pg_sleep(extract(epoch from run.resume_at operator(pg_catalog.-) pg_catalog.clock_timestamp()));
        elsif run.status operator(pg_catalog.=) 'complete'
            or pg_catalog.clock_timestamp() operator(pg_catalog.-) told_at operator(pg_catalog.>) interval '10 seconds'
        then
            raise notice '%: % listed, % asked for, %', run.object, run.listed, run.asked, run.status;
            told_at := pg_catalog.clock_timestamp();
        end if;
        run := payments.sync_next(sync.environment, sync.objects);
    end loop;
end;
$$;

comment on procedure payments.sync(text, text[]) is
'Brings the tables in step with Stripe by reading whole lists: everything that is there, for the first
time or after webhooks were missed.

environment  test or live
objects      which lists; null for all. See payments.sync_step

Commits after every page, so it cannot run inside a transaction; killed at any point, it goes on from
there when it is called again. Webhooks and the app go on meanwhile. A statement_timeout ends it: set
that to 0 before. Says by NOTICE how far it is, as payments.sync_runs does to everybody.';

create function payments.poll_step(environment text)
    returns payments.sync_run
    language c volatile parallel unsafe
    as 'MODULE_PATHNAME', 'poll_step_wrapper';

comment on function payments.poll_step(text) is
'Reads a page of Stripe''s events and does what up to a hundred of them say, or, when there are none,
asks about some of what is due: for schedulers and gateways. Where CALL can be used, CALL
payments.poll_events does all there is to do.

environment  test or live

Returns how far the events are read; status is complete when there are no more. Null while another
session reads. Errors are those of payments.sync_step.';

create function payments.poll_page(environment text, begin boolean default true)
    returns payments.sync_run
    language c volatile parallel unsafe
    as 'MODULE_PATHNAME', 'poll_page_wrapper';

comment on function payments.poll_page(text, boolean) is
'Records a page of Stripe''s events as pending. Null while another session reads, or when all are read
and begin is false. As payments.poll_events calls it.';

create function payments.poll_event(environment text, after text default null)
    returns payments.webhook_receipt
    language c volatile parallel unsafe
    as 'MODULE_PATHNAME', 'poll_event_wrapper';

comment on function payments.poll_event(text, text) is
'Does what the oldest pending event says, or the oldest after the one with the id named. It stays
pending while another transaction is at work on the same thing. Null when there is none. As
payments.poll_events calls it.';

create function payments.poll_due(environment text)
    returns bigint
    language c volatile parallel unsafe
    as 'MODULE_PATHNAME', 'poll_due_wrapper';

comment on function payments.poll_due(text) is
'Asks Stripe about some of what is due, and returns how much still is. As payments.poll_events calls
it.';

create procedure payments.poll_events(environment text)
    language plpgsql
as $$
declare
    run payments.sync_run := payments.poll_page(poll_events.environment);
    receipt payments.webhook_receipt;
    settled bigint := 0;
    due bigint;
    due_before bigint;
begin
    if run.object is null then
        raise notice 'another session is polling the environment "%"', poll_events.environment;
        return;
    end if;
    while run.object is not null loop
        commit;
        receipt := null;
        loop
            receipt := payments.poll_event(poll_events.environment, receipt.stripe_event_id);
            exit when receipt.stripe_event_id is null;
            commit;
            settled := settled operator(pg_catalog.+) 1;
        end loop;
        if run.resume_at operator(pg_catalog.>) pg_catalog.clock_timestamp() then
            raise notice 'waiting until %: %', run.resume_at, run.last_error;
            perform pg_catalog.pg_sleep(extract(epoch from run.resume_at operator(pg_catalog.-) pg_catalog.clock_timestamp()));
        end if;
        run := payments.poll_page(poll_events.environment, false);
    end loop;
    loop
        due_before := due;
        due := payments.poll_due(poll_events.environment);
        commit;
        -- What Stripe does not tell of stays due, for another day.
        exit when due operator(pg_catalog.=) 0 or due operator(pg_catalog.>=) due_before;
    end loop;
    raise notice '% events', settled;
end;
$$;

comment on procedure payments.poll_events(text) is
'Reads the events that Stripe has kept since the last poll, up to 30 days, and does what they say,
oldest first: instead of webhooks where there is no public URL, or beside them to catch what was
missed. Then asks about what is due.

environment  test or live

The first poll begins with when the environment was connected. An event that also came by webhook is
done once. Commits after every event, so it cannot run inside a transaction. Triggers see
payments.source = poll.';

create function payments.has_access(subject_type text, subject_id text, lookup_key text)
    returns boolean
    language c stable parallel unsafe cost 1000
    as 'MODULE_PATHNAME', 'has_access_wrapper';

comment on function payments.has_access(text, text, text) is
'Whether a subject has a running subscription to a price. Made for row-level security policies:

    create policy members_read on posts for select to authenticated
        using ((select payments.has_access(''user'', auth.uid()::text, ''pro_monthly'')));

subject_type, subject_id  whose subscription
lookup_key                lookup key of the price, as the subscription has it or as it is now; an id
                          price_… or prod_… does as well

True for the status active, trialing or past_due: Stripe is still trying to collect a past_due
payment, and cutting a customer off in that time is the app''s decision, taken on
payments.subscriptions. Counts only the environment that is open to apps; false when none is, and
for null.

Whoever may call it learns this one boolean about any subject, and nothing else: it needs no right
on the tables. Inside (select …), as above, it runs once a statement and not once a row. Asked once
a row, it comes after every cheaper condition that leaks nothing.';

create function payments.current_subscription(
    environment text,
    subject_type text,
    subject_id text
)
    returns payments.subscription
    language c stable parallel unsafe cost 1000
    as 'MODULE_PATHNAME', 'current_subscription_wrapper';

comment on function payments.current_subscription(text, text, text) is
'The subscription that counts for a subject: one that gives access (active, trialing, past_due),
else one that has not ended, else the one that ended; among several the newest. Null when there is
none. For fulfilment that recomputes what a subject is entitled to, whatever order events come in.

environment               test or live; null: the one that is open to apps
subject_type, subject_id  whose subscription

Reads payments.subscriptions with the rights and the policies of the caller: an app role sees what
its SELECT policy shows, the owner of the tables everything.';

-- Setting up: the tables, who may do what, and what a gateway sees.

create function payments.guard_session()
    returns trigger
    language c
    as 'MODULE_PATHNAME', 'guard_session_wrapper';

comment on function payments.guard_session() is
'Trigger of payments.checkout_sessions and payments.customer_portal_sessions: refuses rows that an
app role makes up. Only create_checkout_session and create_customer_portal_session insert there; the
owner of the tables and superusers may, so that a restore can.

Errors: 42501 direct_insert, forged_answer.';

create function payments.install(owner text default null)
    returns text
    language c volatile parallel unsafe
    as 'MODULE_PATHNAME', 'install_wrapper';

comment on function payments.install(text) is
'Makes the tables, or brings them up to date: run it once after CREATE EXTENSION, and again after a
restore. What users added (columns, policies, triggers, indexes, rows) stays. Says in notices what it
did, and returns the statements to run next.

owner  the role that owns the tables, and with whose rights triggers on them run: best an ordinary
       one that nobody logs in as. Made, NOLOGIN, if there is none of that name and the caller may
       create roles. Null: whoever owns the tables already, else the caller

For superusers, and for the owner of the database if a member of that role.

Errors: 42501 not_installer, 42704 no_such_role, 55000 table_in_the_way.';

create function payments.grant_app(role text)
    returns void
    language c volatile strict parallel unsafe
    as 'MODULE_PATHNAME', 'grant_app_wrapper';

comment on function payments.grant_app(text) is
'Lets a role of the app''s call create_checkout_session, create_customer_portal_session, has_access
and current_subscription.

What it may then ask for is up to policies for INSERT on payments.checkout_sessions and
payments.customer_portal_sessions; what it sees, up to grants and policies for SELECT. For those who
may install.';

create function payments.grant_webhook(role text)
    returns void
    language c volatile strict parallel unsafe
    as 'MODULE_PATHNAME', 'grant_webhook_wrapper';

comment on function payments.grant_webhook(text) is
'Lets a role hand over the webhooks that Stripe sends: the role that a gateway gives to requests
without a token. For those who may install.';

create function payments.grant_admin(role text)
    returns void
    language c volatile strict parallel unsafe
    as 'MODULE_PATHNAME', 'grant_admin_wrapper';

comment on function payments.grant_admin(text) is
'Lets a role set keys, open an environment and look after the payments, and read the tables as far
as policies for SELECT let it. For those who may install.';

create function payments.expose(schema text)
    returns void
    language c volatile strict parallel unsafe
    as 'MODULE_PATHNAME', 'expose_wrapper';

comment on function payments.expose(text) is
'Creates create_checkout_session, create_customer_portal_session and stripe_webhook in a schema that
a gateway such as PostgREST serves, and tells it to reload. They belong to the caller, run with the
rights of whoever calls them, and can be dropped like any function. Run it again after an update.

schema  for webhooks the first of the schemas served: Stripe cannot choose another. Never expose
        payments itself

Errors: 42501 no right to create functions there, 42723 function_in_the_way.';

create function payments.configure_checkout(environment text, settings jsonb)
    returns payments.connection
    language c volatile parallel unsafe
    as 'MODULE_PATHNAME', 'configure_checkout_wrapper';

comment on function payments.configure_checkout(text, jsonb) is
'Says what is allowed in the checkouts and portals of an environment, and what is added to them. A
caller can neither see nor set it.

environment  test or live
settings     replaces all that was set before; {} allows everything and adds nothing

What is allowed:
allowed_origins                ["https://app.example"]: where success_url, cancel_url and return_url
                               may lead
allowed_prices                 "active": active prices of active products; or a list of ids and
                               lookup keys
allowed_portal_configurations  ["bpc_…"]; the first is used when a caller names none
one_live_subscription          true: a subject that has a subscription cannot start another, and its
                               older open sessions are expired
trial_period_days              of the first subscription of a subject, once

All else are parameters of Stripe''s checkout sessions, by its own names and forms
(https://docs.stripe.com/api/checkout/sessions/create), sent where Stripe takes them:
to all                         adaptive_pricing, allow_promotion_codes, allowed_payment_method_types,
                               automatic_tax, billing_address_collection, branding_settings,
                               consent_collection, custom_fields, custom_text, discounts,
                               excluded_payment_method_types, locale, payment_method_configuration,
                               phone_number_collection, shipping_address_collection,
                               tax_id_collection
in the mode payment            invoice_creation, payment_intent_data, shipping_options, submit_type
in the mode subscription       payment_method_collection, subscription_data
with a customer                customer_update; automatic_tax and tax_id_collection set what they need
                               of it by themselves
in payments without            customer_creation

Errors: 22023 with the path of what cannot be used.';

create function payments.simulate_event(type text, overrides jsonb default '{}')
    returns payments.webhook_receipt
    language c volatile parallel unsafe
    as 'MODULE_PATHNAME', 'simulate_event_wrapper';

comment on function payments.simulate_event(text, jsonb) is
'Makes up an event as Stripe would send it, with all that goes with it, and takes it in as a webhook
would be: rows appear and triggers fire. For developers who have no Stripe account yet; it needs no
key. Returns the receipt of the event that was asked for.

    select * from payments.simulate_event(''checkout.session.completed'',
        ''{"subject": {"type": "user", "id": "42"}, "amount": 1900, "metadata": {"order_id": "7"}}'');
    select * from payments.simulate_event(''customer.subscription.created'',
        ''{"subject": {"type": "team", "id": "red"}, "lookup_key": "pro_monthly"}'');
    select * from payments.simulate_event(''invoice.payment_failed'',
        ''{"subject": {"type": "team", "id": "red"}}'');

type       a type of Stripe''s. A completed session brings customer, payment intent and charge, or
           subscription, invoice and its payment, with it. Other events go on with the newest
           simulated object that they can happen to, or make what is missing. An unknown type is an
           error that lists the known ones.
overrides  what is to be different:
           subject             {"type": …, "id": …}: whom it is for; events go on with what is theirs
           metadata            the app''s own, as given to create_checkout_session
           amount, currency    of one piece, of the refund or of the dispute, in minor units
           quantity, lookup_key, customer_email
           mode                payment or subscription, for a session or a price
           id                  the object to go on with; or subscription, invoice, charge,
                               payment_intent, checkout_session, customer, price, product, refund
                               or dispute: the object that it is about. Ids of simulated objects only
           Anything else is a field of the event''s object: {"payment_status": "unpaid"}.

In the environment test only, with ids like cs_test_simulated_…, and payments.source is simulate.
remove_simulated() takes all of it away again.

Errors: 22023 unknown type or overrides that do not fit; 55000 connected, once an environment has a
key of Stripe''s: then stripe trigger sends real test events.';

create function payments.remove_simulated()
    returns bigint
    language c volatile parallel unsafe
    as 'MODULE_PATHNAME', 'remove_simulated_wrapper';

comment on function payments.remove_simulated() is
'Removes everything that simulate_event() made, events, mirrored objects and rows, and returns how
many they were. Triggers that fire on the deletion see the payments.source simulate. Nothing else
is touched.';

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

create function payments.replay_event(environment text, stripe_event_id text)
    returns payments.webhook_receipt
    language c volatile parallel unsafe
    as 'MODULE_PATHNAME', 'replay_event_wrapper';

comment on function payments.replay_event(text, text) is
'Applies a recorded event once more, whatever became of it before, and returns its receipt.

Doing an event again changes only what is not as the event says, so it is always safe. Errors:
PT404 no_event.';

create function payments.failed_events(environment text)
    returns setof text
    language c stable parallel unsafe
    as 'MODULE_PATHNAME', 'failed_events_wrapper';

comment on function payments.failed_events(text) is
'The ids of the events whose processing failed, in the order in which they happened.';

create function payments.replay_failed(environment text)
    returns setof payments.webhook_receipt
    language c volatile parallel unsafe
    as 'MODULE_PATHNAME', 'replay_failed_wrapper';

comment on function payments.replay_failed(text) is
'Applies every failed event once more, oldest first, and returns their receipts: after a trigger was
repaired. Other writers of the environment wait until the transaction ends.';

create function payments.prune_webhook_events(older_than interval)
    returns bigint
    language c volatile parallel unsafe
    as 'MODULE_PATHNAME', 'prune_webhook_events_wrapper';

comment on function payments.prune_webhook_events(interval) is
'Deletes the log of events received longer ago than this, but not of those that failed, and returns
how many they were. The tables stay as they are: they do not depend on the log.';

-- New functions are executable by everyone, and ALTER DEFAULT PRIVILEGES may have handed out more:
-- to the roles of a gateway, for instance, and on the secrets too.
do $$
declare
    grantee text;
begin
    for grantee in
        select distinct
            case
                when acl.grantee operator(pg_catalog.=) 0 then 'public'
                else pg_catalog.quote_ident(pg_catalog.pg_get_userbyid(acl.grantee))
            end
        from (
            select p.proowner, coalesce(p.proacl, pg_catalog.acldefault('f', p.proowner))
            from pg_catalog.pg_proc p
            where p.pronamespace operator(pg_catalog.=) 'payments'::pg_catalog.regnamespace
            union all
            select c.relowner, c.relacl
            from pg_catalog.pg_class c
            where c.oid operator(pg_catalog.=) 'payments.secrets'::pg_catalog.regclass
        ) as object (owner, acl)
        cross join lateral pg_catalog.aclexplode(object.acl) acl
        where acl.grantee operator(pg_catalog.<>) object.owner
    loop
        execute pg_catalog.format('revoke all on all routines in schema payments from %s', grantee);
        execute pg_catalog.format('revoke all on payments.secrets from %s', grantee);
    end loop;
end
$$;

-- Here nothing is executable by all but the helper that can do no harm.
grant execute on function payments.verify_signature(text, text, text, interval) to public;

-- An ordinary owner of the database sets up payments once a superuser has created the extension;
-- these functions look for themselves at who calls.
grant execute on function
    payments.install(text),
    payments.grant_app(text),
    payments.grant_webhook(text),
    payments.grant_admin(text),
    payments.expose(text)
    to pg_database_owner;

-- A grant in this script makes all grants on the schema look like the script's own, so that no dump
-- would carry them: DROP EXTENSION leaves the schema with those of its users, and none is made then.
do $$
begin
    if (
        select n.nspacl is null
        from pg_catalog.pg_namespace n
        where n.nspname operator(pg_catalog.=) 'payments'
    ) then
        grant usage on schema payments to pg_database_owner;
    end if;
end
$$;
