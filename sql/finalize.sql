-- New functions are executable by everyone: here none is, but the helpers that can do no harm.
revoke execute on all functions in schema payments from public;

-- An ordinary owner of the database sets up payments once a superuser has created the extension;
-- these functions look for themselves at who calls.
grant usage on schema payments to pg_database_owner;
grant execute on function
payments.install(text),
payments.grant_app(text),
payments.grant_webhook(text),
payments.grant_admin(text),
payments.expose(text)
to pg_database_owner;
