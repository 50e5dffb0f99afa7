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
