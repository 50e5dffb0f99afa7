-- What an update script makes becomes part of the extension, and would be dumped like it: not at all.
select format(
    'alter extension payments drop %s payments.%I',
    case relkind when 'v' then 'view' else 'table' end,
    relname)
from pg_depend
join pg_class on pg_class.oid = objid
join pg_extension on pg_extension.oid = refobjid
where classid = 'pg_class'::regclass
    and refclassid = 'pg_extension'::regclass
    and deptype = 'e'
    and extname = 'payments'
    and relnamespace = 'payments'::regnamespace
    and relkind in ('r', 'v')
    and relname <> 'secrets'
