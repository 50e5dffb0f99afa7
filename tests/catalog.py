"""Everything that Postgres's catalogs say about payments, as lines that can be compared.

Not how things came about: neither their numbers, nor the gaps that dropped columns leave, nor
the order of grants.
"""

from __future__ import annotations

import psycopg

def acl(grants: str) -> str:
    """A list of grants as text."""
    return f"""
        (
            select string_agg(
                format('%s:%s%s', coalesce(rolname, 'public'), privilege_type, case when is_grantable then '*' end),
                ' ' order by rolname, privilege_type)
            from aclexplode({grants})
            left join pg_roles on pg_roles.oid = grantee
        )
    """


def about(catalog: str, oid: str, owner: str, grants: str, kind: str) -> str:
    """What every object has: an owner, grants, those that the extension's script made, a comment.

    Null stands for the grants that Postgres gives by default on objects of this `kind`, and where the
    script's are those, pg_upgrade does not carry them.
    """
    default = f"acldefault('{kind}', {owner})"
    scripted = f"""
        (
            select nullif({acl("initprivs")}, {acl(default)})
            from pg_init_privs
            where objoid = {oid} and classoid = '{catalog}'::regclass and objsubid = 0
        )
    """
    return f"""
        format(E'\\n    owner %s\\n    grants %s\\n    grants of the script %s\\n    comment %s',
            {owner}::regrole, {acl(f"coalesce({grants}, {default})")}, {scripted},
            quote_nullable(obj_description({oid}, '{catalog}')))
    """


QUERIES = {
    "extension": f"""
        select format('%s %s in %s, relocatable %s, dumped %s where %s',
            extname, extversion, extnamespace::regnamespace, extrelocatable,
            (select array_agg(dumped::regclass) from unnest(extconfig) dumped), extcondition)
            || format(E'\\n    owner %s\\n    comment %s', extowner::regrole, obj_description(oid, 'pg_extension'))
        from pg_extension where extname = 'payments'
    """,
    "schema": f"""
        select nspname || {about("pg_namespace", "oid", "nspowner", "nspacl", "n")}
        from pg_namespace where nspname = 'payments'
    """,
    "member": """
        select pg_describe_object(classid, objid, objsubid)
        from pg_depend
        where refclassid = 'pg_extension'::regclass and deptype = 'e'
            and refobjid = (select oid from pg_extension where extname = 'payments')
    """,
    "object": """
        select pg_describe_object(classid, objid, objsubid)
        from pg_depend
        where refclassid = 'pg_namespace'::regclass and refobjid = 'payments'::regnamespace
    """,
    "type": f"""
        select pg_type.oid::regtype || {about("pg_type", "pg_type.oid", "typowner", "typacl", "T")}
        from pg_type
        where typnamespace = 'payments'::regnamespace
            and typtype <> 'b' and (typrelid = 0 or exists (select from pg_class where oid = typrelid and relkind = 'c'))
    """,
    "function": f"""
        select pg_get_functiondef(oid) || {about("pg_proc", "oid", "proowner", "proacl", "f")}
        from pg_proc where pronamespace = 'payments'::regnamespace
    """,
    "relation": f"""
        select format('%s kind %s persistence %s options %s of toast %s row security %s forced %s replica identity %s by %s in %s',
            pg_class.oid::regclass, pg_class.relkind, pg_class.relpersistence, pg_class.reloptions, toast.reloptions,
            pg_class.relrowsecurity, pg_class.relforcerowsecurity, pg_class.relreplident, amname,
            pg_class.reltablespace)
            || {about("pg_class", "pg_class.oid", "pg_class.relowner", "pg_class.relacl", "r")}
        from pg_class
        left join pg_am on pg_am.oid = pg_class.relam
        left join pg_class toast on toast.oid = pg_class.reltoastrelid
        where pg_class.relnamespace = 'payments'::regnamespace and pg_class.relkind not in ('c', 'i')
    """,
    # The number is the place among those that are left. One build of 15.20 marks columns by a random option.
    "column": f"""
        select format('%s %s: %s %s',
            attrelid::regclass, to_char(row_number() over (partition by attrelid order by attnum), 'FM000'),
            attname, format_type(atttypid, atttypmod))
            || case when attnotnull then ' not null' else '' end
            || coalesce(' default ' || pg_get_expr(adbin, adrelid), '')
            || format(E'\\n    collation %s identity %s generated %s storage %s compression %s statistics %s options %s',
                nullif(attcollation, 0)::regcollation, attidentity, attgenerated, attstorage, attcompression,
                nullif(attstattarget, -1),
                (select array_agg(option) from unnest(attoptions) option where option !~ '^pg_attver='))
            || format(E'\\n    grants %s\\n    comment %s', {acl("attacl")}, quote_nullable(col_description(attrelid, attnum)))
        from pg_attribute
        join pg_class on pg_class.oid = attrelid
        left join pg_attrdef on adrelid = attrelid and adnum = attnum
        where relnamespace = 'payments'::regnamespace and relkind <> 'i' and attnum > 0 and not attisdropped
    """,
    "constraint": """
        select format('%s %s: %s validated %s no inherit %s', conrelid::regclass, conname, pg_get_constraintdef(oid),
            convalidated, connoinherit)
            || format(E'\\n    comment %s', quote_nullable(obj_description(oid, 'pg_constraint')))
        from pg_constraint where connamespace = 'payments'::regnamespace
    """,
    "index": """
        select format('%s valid %s clustered %s replica identity %s in %s owner %s', pg_get_indexdef(indexrelid),
            indisvalid, indisclustered, indisreplident, reltablespace, relowner::regrole)
            || format(E'\\n    comment %s', quote_nullable(obj_description(indexrelid, 'pg_class')))
        from pg_index join pg_class on pg_class.oid = indexrelid
        where relnamespace = 'payments'::regnamespace
    """,
    "statistics": """
        select format('%s owner %s comment %s', pg_get_statisticsobjdef(oid), stxowner::regrole,
            quote_nullable(obj_description(oid, 'pg_statistic_ext')))
        from pg_statistic_ext where stxnamespace = 'payments'::regnamespace
    """,
    "trigger": """
        select format('%s enabled %s', pg_get_triggerdef(pg_trigger.oid), tgenabled)
            || format(E'\\n    comment %s', quote_nullable(obj_description(pg_trigger.oid, 'pg_trigger')))
        from pg_trigger join pg_class on pg_class.oid = tgrelid
        where relnamespace = 'payments'::regnamespace and not tgisinternal
    """,
    "rule": """
        select format('%s enabled %s', pg_get_ruledef(pg_rewrite.oid), ev_enabled)
        from pg_rewrite join pg_class on pg_class.oid = ev_class
        where relnamespace = 'payments'::regnamespace
    """,
    "policy": """
        select format('%s %s %s %s for %s using %s check %s', tablename, policyname, permissive, roles, cmd, qual, with_check)
        from pg_policies where schemaname = 'payments'
    """,
}


def entries(connection: psycopg.Connection) -> list[str]:
    """Every entry, a line for each thing that it says, in order."""
    # What is deparsed then names every schema.
    connection.execute("set search_path = ''")
    found = []
    for kind, query in QUERIES.items():
        rows = connection.execute(f'select entry from ({query}) as found (entry) order by entry collate "C"')
        found += [f"{kind} {entry}" for (entry,) in rows]
    return [line.rstrip() for entry in found for line in entry.splitlines()]
