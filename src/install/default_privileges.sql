-- ALTER DEFAULT PRIVILEGES may have handed out rights on tables that nobody meant to include these:
-- TRIGGER, say, which is as good as the rights of their owner.
select format(
    'revoke all on payments_blueprint.%I from %s',
    relname,
    coalesce(quote_ident(rolname), 'public'))
from pg_class
cross join lateral aclexplode(relacl) acl
left join pg_roles on pg_roles.oid = grantee
where relnamespace = 'payments_blueprint'::regnamespace
    and relkind = 'r'
    and grantee <> relowner
group by relname, rolname
