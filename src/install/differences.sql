-- What it takes to make each table what the blueprint says: a statement, and how to report it.
-- Whatever else is there (columns, policies, triggers, indexes, constraints) is the users' own and
-- stays. $1 is the role that is to own the tables.
with relation as (
    select
        wanted.oid as wanted,
        actual.oid as actual,
        wanted.relname as name,
        format('payments.%I', wanted.relname) as target,
        actual.relowner as owner,
        actual.relrowsecurity as secured
    from pg_class wanted
    join pg_class actual
        on actual.relname = wanted.relname and actual.relnamespace = 'payments'::regnamespace
    where wanted.relnamespace = 'payments_blueprint'::regnamespace
        and wanted.relkind = 'r'
),

attribute as (
    select
        relation.*,
        ours.attname as attribute,
        format_type(ours.atttypid, ours.atttypmod) as type,
        ours.attnotnull as not_null,
        pg_get_expr(our_default.adbin, our_default.adrelid) as fallback,
        col_description(ours.attrelid, ours.attnum) as comment,
        theirs.attnum is null as missing,
        coalesce(theirs.attnotnull, false) as is_not_null,
        pg_get_expr(their_default.adbin, their_default.adrelid) as has_fallback,
        col_description(theirs.attrelid, theirs.attnum) as has_comment
    from relation
    join pg_attribute ours
        on ours.attrelid = wanted and ours.attnum > 0 and not ours.attisdropped
    left join pg_attrdef our_default
        on our_default.adrelid = ours.attrelid and our_default.adnum = ours.attnum
    left join pg_attribute theirs
        on theirs.attrelid = actual and theirs.attname = ours.attname and not theirs.attisdropped
    left join pg_attrdef their_default
        on their_default.adrelid = theirs.attrelid and their_default.adnum = theirs.attnum
),

-- Foreign keys are users' alone, and not null is the attribute's.
constraint_ as (
    select
        conrelid as relation,
        conname as name,
        pg_get_constraintdef(oid) as definition,
        conindid as index,
        (
            select array_agg(attname order by attname)
            from pg_attribute
            where attrelid = conrelid and attnum = any (conkey)
        ) as columns
    from pg_constraint
    where contype in ('p', 'u', 'c')
),

index_ as (
    select
        indrelid as relation,
        relname as name,
        indisvalid as valid,
        replace(pg_get_indexdef(indexrelid), ' ON payments_blueprint.', ' ON payments.') as statement,
        regexp_replace(pg_get_indexdef(indexrelid), ' INDEX .* ON (payments_blueprint|payments)\.', ' ') as definition
    from pg_index
    join pg_class on pg_class.oid = indexrelid
    where not exists (select from pg_constraint where conindid = indexrelid)
),

trigger_ as (
    select
        tgrelid as relation,
        tgname as name,
        tgenabled as enabled,
        replace(pg_get_triggerdef(oid), ' ON payments_blueprint.', ' ON payments.') as statement
    from pg_trigger
    where not tgisinternal
)

select statement, report
from (
    select
        1 as step,
        name,
        format('alter table %s owner to %I', target, pg_get_userbyid($1)) as statement,
        format('%s now belongs to %I', target, pg_get_userbyid($1)) as report
    from relation
    where owner <> $1

    union all

    select 2, name, format('alter table %s enable row level security', target),
        format('%s: enabled row-level security', target)
    from relation
    where not secured

    union all

    select
        3,
        name,
        format(
            'alter table %s add column %I %s%s',
            target, attribute, type, coalesce(' default ' || fallback, '')),
        format('%s: added column %I', target, attribute)
    from attribute
    where missing

    union all

    select 4, name, format('alter table %s alter %I set default %s', target, attribute, fallback),
        format('%s: set the default of column %I', target, attribute)
    from attribute
    where not missing and fallback is distinct from has_fallback and fallback is not null

    union all

    select 5, name, format('alter table %s alter %I set not null', target, attribute),
        format('%s: set column %I not null', target, attribute)
    from attribute
    where not_null and not is_not_null

    union all

    select 6, name, format('comment on column %s.%I is %L', target, attribute, comment), null
    from attribute
    where comment is distinct from has_comment

    union all

    select 6, name, format('comment on table %s is %L', target, obj_description(wanted, 'pg_class')), null
    from relation
    where obj_description(wanted, 'pg_class') is distinct from obj_description(actual, 'pg_class')

    union all

    select
        7,
        relation.name,
        case when outdated.name is null then '' else format('alter table %s drop constraint %I; ', target, outdated.name) end
        || format('alter table %s add constraint %I %s', target, ours.name, ours.definition),
        format('%s: added constraint %I', target, ours.name)
    from relation
    join constraint_ ours on ours.relation = wanted
    left join constraint_ outdated on outdated.relation = actual and outdated.name = ours.name
    where not exists (
        select from constraint_ theirs
        where theirs.relation = actual and theirs.definition = ours.definition
    )
    -- A key that users' foreign keys depend on cannot be dropped, and the order of its columns is a
    -- matter of speed alone.
    and not (
        outdated.columns is not distinct from ours.columns
        and exists (select from pg_constraint where contype = 'f' and conindid = outdated.index)
    )

    union all

    select
        8,
        relation.name,
        case when outdated.name is null then '' else format('drop index payments.%I; ', outdated.name) end
        || ours.statement,
        format('%s: added index %I', target, ours.name)
    from relation
    join index_ ours on ours.relation = wanted
    left join index_ outdated on outdated.relation = actual and outdated.name = ours.name
    where not exists (
        select from index_ theirs
        where theirs.relation = actual and theirs.definition = ours.definition and theirs.valid
    )

    union all

    select
        9,
        relation.name,
        case when theirs.name is null then '' else format('drop trigger %I on %s; ', theirs.name, target) end
        || ours.statement,
        format('%s: added trigger %I', target, ours.name)
    from relation
    join trigger_ ours on ours.relation = wanted
    left join trigger_ theirs on theirs.relation = actual and theirs.name = ours.name
    where theirs.statement is distinct from ours.statement or theirs.enabled <> ours.enabled

    union all

    -- A view cannot move like a table: it would go on reading the blueprint's.
    select
        10,
        wanted.relname,
        format(
            'create or replace view payments.%1$I with (security_invoker = true) as %2$s; alter view payments.%1$I owner to %3$I; comment on view payments.%1$I is %4$L',
            wanted.relname,
            rtrim(replace(pg_get_viewdef(wanted.oid), ' payments_blueprint.', ' payments.'), ';'),
            pg_get_userbyid($1),
            obj_description(wanted.oid, 'pg_class'))
        || coalesce(
            (
                select string_agg(
                    format('; revoke all on payments.%I from %s', wanted.relname, coalesce(quote_ident(rolname), 'public')),
                    '')
                from aclexplode(wanted.relacl)
                left join pg_roles on oid = grantee
                where actual.oid is null and grantee <> wanted.relowner
            ),
            ''),
        format('made payments.%I', wanted.relname)
    from pg_class wanted
    left join pg_class actual
        on actual.relname = wanted.relname and actual.relnamespace = 'payments'::regnamespace
    where wanted.relnamespace = 'payments_blueprint'::regnamespace
        and wanted.relkind = 'v'
        and (
            actual.relowner is distinct from $1
            or 'security_invoker=true' = any (actual.reloptions) is not true
            or exists (
                select from pg_attribute ours
                where ours.attrelid = wanted.oid
                    and not exists (
                        select from pg_attribute theirs
                        where theirs.attrelid = actual.oid and theirs.attname = ours.attname
                    )
            )
        )
) as difference
order by step, name, report
