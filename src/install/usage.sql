-- The grants on the schema that are not there yet. $1 is the role that owns the tables.
-- Only those: a grant in an update script makes all grants on the schema look like the script's own,
-- so that no dump would carry them.
select format('grant usage on schema payments to %I', rolname)
from pg_roles
where (oid = $1 or rolname = 'pg_database_owner')
    and not has_schema_privilege(oid, 'payments', 'usage')
