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
