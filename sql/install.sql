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
