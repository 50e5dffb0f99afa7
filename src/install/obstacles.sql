-- What stands where one of our tables belongs and is nothing that install() would have made.
-- A trigger, a rule or a parent of a table that somebody else made would run with the rights of
-- whoever writes to it. $1 is the role that is to own the tables.
with relation as (
    select wanted, actual, actual.relname as name, role.rolname as owner
    from pg_class wanted
    join pg_class actual
        on actual.relname = wanted.relname and actual.relnamespace = 'payments'::regnamespace
    join pg_roles role on role.oid = actual.relowner
    where wanted.relnamespace = 'payments_blueprint'::regnamespace
        and wanted.relkind in ('r', 'v')
)

select format('payments.%I %s', name, reason), hint
from (
    select name, reason, 'Rename it or move it to another schema, then run install() again.' as hint
    from relation
    cross join lateral (
        values
        (
            (actual).relkind <> (wanted).relkind or (actual).relpersistence <> 'p',
            case (wanted).relkind when 'r' then 'is not an ordinary table' else 'is not a view' end
        ),
        ((actual).reloftype <> 0, 'is tied to a type'),
        (exists (select from pg_inherits where inhrelid = (actual).oid), 'inherits from another table'),
        (
            (actual).relkind = 'r' and exists (select from pg_rewrite where ev_class = (actual).oid),
            'has rules'
        )
    ) as obstacle (stands, reason)
    where stands

    union all

    select
        name,
        format('belongs to role "%s"', owner),
        format(
            'If you trust what that role did to it: alter table payments.%I owner to %I',
            name,
            pg_get_userbyid($1))
    from relation
    where (actual).relowner <> $1
        and not (select rolsuper from pg_roles where oid = (actual).relowner)

    union all

    select
        name,
        format(
            'has a column "%s" of type %s where %s is needed',
            theirs.attname,
            format_type(theirs.atttypid, theirs.atttypmod),
            format_type(ours.atttypid, ours.atttypmod)),
        'Rename that column, then run install() again.'
    from relation
    join pg_attribute ours on ours.attrelid = (wanted).oid and ours.attnum > 0
    join pg_attribute theirs
        on theirs.attrelid = (actual).oid and theirs.attname = ours.attname
    where (wanted).relkind = 'r'
        and (
            theirs.atttypid <> ours.atttypid
            or theirs.atttypmod <> ours.atttypmod
            or theirs.attgenerated <> ''
            or theirs.attidentity <> ''
        )
) as found
order by 1
