-- Setting up: the tables, who may use what, and what a gateway sees.

create function payments.guard_session() returns trigger
language c as 'MODULE_PATHNAME', 'guard_session_wrapper';
comment on function payments.guard_session() is
    'Trigger of checkout_sessions and customer_portal_sessions: refuses rows that an app role inserts by itself.';

create function payments.install(owner text default null) returns text
language c as 'MODULE_PATHNAME', 'install_wrapper';
comment on function payments.install(text) is
    'Makes the tables, owned by the role named (default: whoever owns them already, else the caller), or brings them up to date: after a restore, an update, or any change to them. Makes the role, NOLOGIN, if there is none and the caller may create roles. For superusers, and for the database''s owner if a member of that role. Returns the next statements to run.';

create function payments.grant_app(role text) returns void
strict language c as 'MODULE_PATHNAME', 'grant_app_wrapper';
comment on function payments.grant_app(text) is
    'Lets a role call what apps call. Which checkouts and portal visits it may then ask for is up to INSERT policies on payments.checkout_sessions and payments.customer_portal_sessions. For those who may install().';

create function payments.grant_webhook(role text) returns void
strict language c as 'MODULE_PATHNAME', 'grant_webhook_wrapper';
comment on function payments.grant_webhook(text) is
    'Lets a role hand over the webhooks that Stripe sends. For those who may install().';

create function payments.grant_admin(role text) returns void
strict language c as 'MODULE_PATHNAME', 'grant_admin_wrapper';
comment on function payments.grant_admin(text) is
    'Lets a role set keys and run the payments, and read the tables as far as policies let it. For those who may install().';

create function payments.expose(schema text) returns void
strict language c as 'MODULE_PATHNAME', 'expose_wrapper';
comment on function payments.expose(text) is
    'Creates create_checkout_session, create_customer_portal_session and stripe_webhook in a schema that a gateway such as PostgREST serves, owned by the caller, and tells it to reload. They run with the rights of whoever calls them. Run it again after an update.';
