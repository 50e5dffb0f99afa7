-- New functions are executable by everyone, and ALTER DEFAULT PRIVILEGES may have handed out more:
-- to the roles of a gateway, for instance, and on the secrets too.
do $$
declare
    grantee text;
begin
    for grantee in
        select distinct
            case
                when acl.grantee operator(pg_catalog.=) 0 then 'public'
                else pg_catalog.quote_ident(pg_catalog.pg_get_userbyid(acl.grantee))
            end
        from (
            select p.proowner, coalesce(p.proacl, pg_catalog.acldefault('f', p.proowner))
            from pg_catalog.pg_proc p
            where p.pronamespace operator(pg_catalog.=) 'payments'::pg_catalog.regnamespace
            union all
            select c.relowner, c.relacl
            from pg_catalog.pg_class c
            where c.oid operator(pg_catalog.=) 'payments.secrets'::pg_catalog.regclass
        ) as object (owner, acl)
        cross join lateral pg_catalog.aclexplode(object.acl) acl
        where acl.grantee operator(pg_catalog.<>) object.owner
    loop
        execute pg_catalog.format('revoke all on all routines in schema payments from %s', grantee);
        execute pg_catalog.format('revoke all on payments.secrets from %s', grantee);
    end loop;
end
$$;

-- Here nothing is executable by all but the helper that can do no harm.
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
