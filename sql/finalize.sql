-- New functions are executable by everyone: here none is, but the helper that can do no harm.
revoke execute on all functions in schema payments from public;
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
