"""Years of business in a database: every row of a small one again and again, under other ids."""

from __future__ import annotations

from dataclasses import dataclass

from psycopg import sql

from harness.database import Database

KEPT = ("products", "prices", "stripe_connections", "sync_runs")
"""What a shop has the same of, however old it is."""

TABLES = """
    select relname from pg_catalog.pg_class
    where relnamespace = 'payments'::regnamespace and relkind = 'r' and relname <> all (%s)
        and not exists (select from pg_catalog.pg_depend where objid = pg_class.oid and deptype = 'e')
    order by relname"""
"""The tables that install() made, which are not the extension's own."""

COLUMNS = """
    select attname, format_type(atttypid, null) from pg_catalog.pg_attribute
    where attrelid = %s::regclass and attnum > 0 and not attisdropped and attgenerated = ''
    order by attnum"""


@dataclass(frozen=True)
class Seed:
    """All rows of a table, as COPY writes them."""

    table: str
    rows: int
    text: bytes


def seeds(db: Database) -> list[Seed]:
    """What a database has in its tables."""
    found = []
    for (table,) in db.execute(TABLES, (list(KEPT),)).fetchall():
        with db.connect() as connection, connection.cursor() as cursor:
            with cursor.copy(f"copy payments.{table} to stdout") as copy:
                text = b"".join(copy)
        found.append(Seed(table, text.count(b"\n"), text))
    return found


def grow(db: Database, seeds: list[Seed], events: int, customers: int) -> None:
    """Adds so many events and customers, and whatever else there is of such customers."""
    buyers = next(seed.rows for seed in seeds if seed.table == "customers")
    with db.connect() as connection:
        # Nothing of this is news.
        connection.execute("set session_replication_role = replica; set synchronous_commit = off")
        for seed in seeds:
            times = events // seed.rows if seed.table == "webhook_events" else customers // buyers
            connection.execute(f"create temporary table seed (like payments.{seed.table})")
            with connection.cursor() as cursor, cursor.copy("copy seed from stdin") as copy:
                copy.write(seed.text)
            connection.execute(_multiplied(db, seed.table), (times,))
            connection.execute("drop table seed")
    db.execute("vacuum analyze")
    db.execute("checkpoint")


def _multiplied(db: Database, table: str) -> sql.Composed:
    columns = db.execute(COLUMNS, (f"payments.{table}",)).fetchall()
    shared = "" if table != "stripe_objects" else "where object_type <> all ('{product,price}')"
    return sql.SQL("insert into payments.{} ({}) select {} from seed, generate_series(1, %s) as n {}").format(
        sql.Identifier(table),
        sql.SQL(", ").join(sql.Identifier(name) for name, _ in columns),
        sql.SQL(", ").join(sql.SQL(_other(name, kind)).format(sql.Identifier(name)) for name, kind in columns),
        sql.SQL(shared),
    )


def _other(name: str, kind: str) -> str:
    """The column of a copied row: ids are other ids, but of what is sold."""
    if kind == "uuid":
        return "md5({}::text || n)::uuid"
    is_id = kind == "text" and name.endswith("_id") and not name.startswith(("stripe_product", "stripe_price"))
    return "{} || n" if is_id else "{}"
