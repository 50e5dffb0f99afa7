-- What users added to the tables that may hurt them. $1 is the role that owns the tables.
select format(
    'column "%s" of payments.%I is not null and has no default: rows that payments writes will fail',
    theirs.attname,
    relname)
from pg_class actual
join pg_attribute theirs on attrelid = actual.oid and attnum > 0 and attnotnull
where relnamespace = 'payments'::regnamespace
    and relkind = 'r'
    and not atthasdef
    and attidentity = ''
    and exists (
        select from pg_class wanted
        where wanted.relname = actual.relname
            and wanted.relnamespace = 'payments_blueprint'::regnamespace
            and not exists (
                select from pg_attribute ours
                where ours.attrelid = wanted.oid and ours.attname = theirs.attname
            )
    )

union all

select format(
    'trigger "%s" of payments.%I runs %s with the rights of "%s", though role "%s" can change what it does',
    tgname,
    relname,
    tgfoid::regprocedure,
    pg_get_userbyid($1),
    pg_get_userbyid(proowner))
from pg_class
join pg_trigger on tgrelid = pg_class.oid and not tgisinternal
join pg_proc on pg_proc.oid = tgfoid
where relnamespace = 'payments'::regnamespace
    and relkind = 'r'
    and not prosecdef
    and not pg_has_role(proowner, $1, 'member')

union all

select format(
    'the tables belong to "%s", a superuser, and triggers on them run with its rights: better give them to an ordinary role by install(''payments_owner'')',
    rolname)
from pg_roles
where oid = $1 and rolsuper
