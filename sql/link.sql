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

The link is the app''s own word: payments.rebuild keeps it. A subject may have several customers.

Errors: 22023 bad argument, PT404 no_such_customer, and those of a call to Stripe.';
