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
