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
