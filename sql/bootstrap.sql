-- Stripe speaks UTF-8, and so does Rust. (In LATIN1 and the like, this script itself fails to convert.)
do $$
begin
    if pg_catalog.getdatabaseencoding() operator(pg_catalog.<>) 'UTF8' then
        raise exception using
            errcode = 'feature_not_supported',
            message = 'payments needs a database with encoding UTF8',
            detail = pg_catalog.format('The encoding of this one is %s.', pg_catalog.getdatabaseencoding()),
            hint = 'create database … encoding ''UTF8'' template template0';
    end if;
end
$$;

-- CREATE EXTENSION takes a schema `payments` that exists already. One that somebody else prepared
-- could hold a function or an operator that ours would then call with the owner's rights
-- (CVE-2022-2625's way in). A restored dump brings the schema too, empty and owned by a superuser,
-- and DROP EXTENSION leaves it behind with the tables: both are welcome, and install() looks at
-- the tables before it adopts them.
do $$
declare
    intruder text;
begin
    select pg_catalog.format('schema "payments" belongs to role "%s"', r.rolname)
    into intruder
    from pg_catalog.pg_namespace n
    join pg_catalog.pg_roles r on r.oid operator(pg_catalog.=) n.nspowner
    where n.nspname operator(pg_catalog.=) 'payments'
        and not r.rolsuper;

    if intruder is null then
        select pg_catalog.format(
            'role "%s" may create objects in schema "payments"',
            coalesce(r.rolname, 'public'))
        into intruder
        from pg_catalog.pg_namespace n
        cross join lateral pg_catalog.aclexplode(n.nspacl) acl
        left join pg_catalog.pg_roles r on r.oid operator(pg_catalog.=) acl.grantee
        where n.nspname operator(pg_catalog.=) 'payments'
            and acl.privilege_type operator(pg_catalog.=) 'CREATE'
            and r.rolsuper is not true
        limit 1;
    end if;

    if intruder is null then
        select pg_catalog.format(
            'role "%s" owns %s',
            r.rolname,
            pg_catalog.pg_describe_object(d.classid, d.objid, 0))
        into intruder
        from pg_catalog.pg_namespace n
        join pg_catalog.pg_depend d
            on d.refclassid operator(pg_catalog.=) 'pg_catalog.pg_namespace'::pg_catalog.regclass
            and d.refobjid operator(pg_catalog.=) n.oid
        join pg_catalog.pg_shdepend o
            on o.classid operator(pg_catalog.=) d.classid
            and o.objid operator(pg_catalog.=) d.objid
            and o.deptype operator(pg_catalog.=) 'o'
        join pg_catalog.pg_database db
            on db.oid operator(pg_catalog.=) o.dbid
            and db.datname operator(pg_catalog.=) pg_catalog.current_database()
        join pg_catalog.pg_roles r on r.oid operator(pg_catalog.=) o.refobjid
        where n.nspname operator(pg_catalog.=) 'payments'
            and d.classid operator(pg_catalog.<>) 'pg_catalog.pg_class'::pg_catalog.regclass
            and not r.rolsuper
        limit 1;
    end if;

    if intruder is not null then
        raise exception using
            errcode = 'object_not_in_prerequisite_state',
            message = 'schema "payments" was prepared by somebody else',
            detail = intruder,
            hint = 'Drop or rename that schema, or make a superuser its owner and revoke what others may do in it.';
    end if;
end
$$;
