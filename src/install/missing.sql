-- What makes each table and view of the blueprint that is not there yet. $1 is its owner's name.
select
    case relkind
        when 'r' then format('alter table payments_blueprint.%1$I set schema payments; alter table payments.%1$I owner to %2$I', relname, $1)
        else format(
            'create view payments.%1$I with (security_invoker = true) as %3$s; alter view payments.%1$I owner to %2$I',
            relname,
            $1,
            rtrim(replace(pg_get_viewdef(oid), ' payments_blueprint.', ' payments.'), ';'))
    end,
    format('made payments.%I', relname)
from pg_class wanted
where relnamespace = 'payments_blueprint'::regnamespace
    and relkind in ('r', 'v')
    and not exists (
        select from pg_class actual
        where actual.relname = wanted.relname and actual.relnamespace = 'payments'::regnamespace
    )
order by relkind, relname
