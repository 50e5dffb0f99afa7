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
