-- Bodies are written often and read seldom: lz4 is several times faster than the default, where
-- the server was built with it.
select format('alter table payments_blueprint.%I alter %I set compression lz4', relname, attname)
from pg_class
join pg_attribute on attrelid = pg_class.oid
where relnamespace = 'payments_blueprint'::regnamespace
    and relkind = 'r'
    and atttypid in ('json'::regtype, 'jsonb'::regtype)
    and exists (
        select from pg_settings
        where name = 'default_toast_compression' and 'lz4' = any (enumvals)
    )
