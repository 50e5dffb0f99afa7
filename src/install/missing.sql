-- Moves each table of the blueprint that is not there yet. $1 is its owner's name.
select
    format(
        'alter table payments_blueprint.%1$I set schema payments; alter table payments.%1$I owner to %2$I',
        relname,
        $1),
    format('made payments.%I', relname)
from pg_class wanted
where relnamespace = 'payments_blueprint'::regnamespace
    and relkind = 'r'
    and not exists (
        select from pg_class actual
        where actual.relname = wanted.relname and actual.relnamespace = 'payments'::regnamespace
    )
order by relname
