"""Sync, rebuild and poll: objects a second, memory, and the share of the time that Stripe itself takes at least."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from psycopg import sql

from fake_stripe import FakeStripe
from fake_stripe.history import LISTED
from harness import Unmet, bench_account, database, say
from harness.bench_checkout import certificates, trust
from harness.cluster import Cluster
from harness.database import Database

if TYPE_CHECKING:
    from harness.bench import Bench

YEARS = 3 * 365 * 86_400
DAYS = 20 * 86_400
"""Stripe keeps events for thirty."""

STRIPES_OWN = 1 / 100 / 100
"""Seconds an object: a hundred objects a request, a hundred requests a second (https://docs.stripe.com/rate-limits)."""

PROJECTED = (
    *("customer_mappings", "customers", "products", "prices", "subscriptions", "subscription_items"),
    *("payment_history", "invoices", "disputes"),
)

OBJECTS = "select count(*) from payments.stripe_objects where object_type in ({})".format(
    ", ".join(f"'{kind}'" for kind in LISTED)
)
SYNC = [
    ("sync, the first", "", "call payments.sync('test')", OBJECTS),
    ("sync, nothing new", "vacuum analyze", "call payments.sync('test')", OBJECTS),
    ("rebuild, nothing changed", "vacuum analyze", "select payments.rebuild('test')", OBJECTS),
    (
        "rebuild, into empty tables",
        "truncate " + ", ".join(f"payments.{table}" for table in PROJECTED),
        "select payments.rebuild('test')",
        OBJECTS,
    ),
]
FLOORS = {
    "inserting the mirror's rows": ("stripe_objects",),
    "inserting the rows of all tables": ("stripe_objects", *PROJECTED),
}
"""The least that the first sync must do: its rows, written by others who know them already."""
FLOOR = """
do $$
begin
    execute (
        select format(
            'create table public.floor_{table} (like payments.{table} including all) with (%s)',
            coalesce(array_to_string(reloptions, ', '), 'fillfactor = 100'))
        from pg_class
        where oid = 'payments.{table}'::regclass);
end
$$
"""
COLUMNS = """
select quote_ident(attname), format_type(atttypid, atttypmod)
from pg_attribute
where attrelid = %s::regclass
    and attnum > 0
    and not attisdropped
order by attnum
"""
PAGE = 100
"""So many objects Stripe lists at most."""

POLL = [
    (
        "poll",
        # Nothing older than the key is read.
        "update payments.stripe_connections set key_set_at = now() - interval '25 days'",
        "call payments.poll_events('test')",
        "select count(*) from payments.webhook_events where processing_status = 'processed'",
    )
]


def measure(bench: Bench) -> None:
    sizes = [1000] if bench.quick else [10_000, 100_000] + [1_000_000] * bench.full
    with certificates() as directory, bench.cluster(environment=trust(directory)) as cluster:
        database.furnish(cluster)
        for size in sizes:
            say(f"{size} objects")
            _run(bench, cluster, directory, SYNC, LISTED, size, YEARS, beside_floor=True)
        say(f"{sizes[0]} events")
        _run(bench, cluster, directory, POLL, ("event",), sizes[0], DAYS)


def _floor(bench: Bench, shop: Database, tables: tuple[str, ...]) -> dict[str, Any]:
    """What it costs to write the rows that these tables have into others like them, a page of Stripe's at a time."""
    order: dict[str, Any] = {"dsn": shop.dsn, "page": PAGE, "tables": []}
    for table in tables:
        shop.execute(FLOOR.format(table=table))
        columns = shop.execute(COLUMNS, (f"payments.{table}",)).fetchall()
        names = ", ".join(name for name, _ in columns)
        arrays = ", ".join(f"${place}::text[]" for place, _ in enumerate(columns, start=1))
        values = ", ".join(f"{name}::{kind}" for name, kind in columns)
        order["tables"].append(
            {
                "read": "select {} from payments.{} order by ctid".format(
                    ", ".join(f"{name}::text" for name, _ in columns), table
                ),
                "write": f"insert into public.floor_{table} ({names})"
                f" select {values} from unnest({arrays}) as page ({names})",
            }
        )
    shop.disconnect()
    told = bench.client("bulk", order)
    for table in tables:
        shop.execute(f"drop table public.floor_{table}")
    return told


def _run(
    bench: Bench,
    cluster: Cluster,
    certificates: str,
    steps: list[tuple[str, ...]],
    types: tuple[str, ...],
    size: int,
    seconds: int,
    *,
    beside_floor: bool = False,
) -> None:
    """Takes these steps in a shop of its own, with so many objects of these types at Stripe.

    What the first of them costs can be told beside the least that it could.
    """
    account = Path(certificates, "account")
    expected = bench_account.write(account, types, size, seconds)
    shop = _connected(cluster)
    order = {"dsn": shop.dsn, "database": shop.name, "certificates": certificates, "account": str(account)}
    work = [{"prepare": prepare, "statement": statement, "count": count} for _, prepare, statement, count in steps]
    told = bench.client("steps", {**order, "steps": work})
    for (name, *_), step in zip(steps, told):
        if step["count"] != expected:
            raise Unmet(f"{name}: {step['count']} are here, and {expected} at Stripe")
        _tell(bench, name, step)
    if beside_floor:
        case = f"{steps[0][0]}: {expected}"
        for beside, tables in FLOORS.items():
            floor = _floor(bench, shop, tables)
            ours, least = (_local(told[0]) / expected * 1e6, floor["seconds"] / expected * 1e6)
            bench.add("sync", case, f"time beside {beside}", "µs/object", ours, least)
            ours, least = (side["processor_seconds"] / expected * 1e6 for side in (told[0], floor))
            bench.add("sync", case, f"CPU beside {beside}", "µs/object", ours, least)
    shop.close()


def _connected(cluster: Cluster) -> Database:
    """A shop with a key, that knows nothing of what is at Stripe."""
    shop = database.create(cluster)
    with FakeStripe() as stripe:
        setting = sql.SQL("alter database {} set payments.stripe_api_base = {}")
        shop.execute(setting.format(sql.Identifier(shop.name), sql.Literal(stripe.base_url)))
        shop.disconnect()
        shop.execute("select payments.set_stripe_key('test', %s)", (stripe.test_key,))
    shop.disconnect()
    return shop


def _tell(bench: Bench, name: str, step: dict[str, Any]) -> None:
    count, local = step["count"], _local(step)
    case = f"{name}: {count}"
    bench.add("sync", case, "without Stripe's time", "objects/s", count / local)
    bench.add("sync", case, "backend's CPU", "ms/object", step["processor_seconds"] / count * 1e3)
    bench.add("sync", case, "peak memory", "MB", step["peak_megabytes"])
    if step["requests"]:
        least = count * STRIPES_OWN
        bench.add("sync", case, "requests", "", step["requests"], count / 100)
        bench.add("sync", case, "local time beside Stripe's least", "s", local, least)


def _local(step: dict[str, Any]) -> float:
    return step["seconds"] - step["stripe_seconds"]
