"""Instructions a webhook takes in its backend, beside the floor's.

Valgrind's processor has no instructions for SHA-256, so that the signature, which takes microseconds, is here counted
with some 230,000.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from psycopg import sql

from fake_stripe.webhooks import sign
from harness import bench_events, bench_floor, callgrind, database
from harness.bench_events import Business
from harness.cluster import account
from harness.database import Database

if TYPE_CHECKING:
    from harness.bench import Bench

BUYERS = 35
WARMING = 200
"""So many events come first: they find no plan prepared, and no row there."""
MARK = "pg_backend_pid"
"""A function of the server's that nothing else here calls: counting begins with it."""


def measure(bench: Bench) -> None:
    with bench.cluster(fsync="off") as cluster:
        database.furnish(cluster)
        with bench_events.business(cluster, BUYERS) as business:
            ours, floor = business.copy(), bench_floor.create(cluster)
            ours.disconnect()
            floor.disconnect()
            cluster.stop()
            bodies = business.bodies[: WARMING + (100 if bench.quick else 400)]
            delivered = count_webhooks(ours, business, bodies)
            stored = _count(floor, "floor", [bench_floor.statement(body) for body in bodies])
            bench.add("instructions", "webhook", "instructions", "per event", delivered, stored)


def count_webhooks(db: Database, business: Business, bodies: list[str]) -> float:
    """Instructions of a delivery, on average, in a server that is stopped."""
    secret = business.stripe.webhook_secret
    return _count(db, "webhook", [_delivery(body, secret) for body in bodies])


def _delivery(body: str, secret: str) -> str:
    values = (sql.Literal(body).as_string(), sql.Literal(sign(body, [secret])).as_string())
    return "select status from payments.handle_webhook('test', {}, {})".format(*values)


def _count(db: Database, name: str, statements: list[str]) -> float:
    """Instructions a statement in a backend that runs these, but for the warming ones, from a plan's start to its end.

    Parsing and planning are left out, as a client that prepares its statement pays for them once; so is the commit,
    of which most is waiting.
    """
    cluster = db.cluster
    script = [*statements[:WARMING], f"select pg_catalog.{MARK}()", *statements[WARMING:]]
    counted = callgrind.instructions(
        *(name, "PortalRun"),
        # A statement ends with a semicolon and an empty line.
        [cluster.program("postgres"), "--single", "-j", "-D", cluster.data, db.name],
        since=MARK,
        directory=cluster.directory,
        input="".join(statement + ";\n\n" for statement in script),
        cwd="/",
        env={"PATH": os.defpath, "LC_ALL": "C"},
        **account(),
    )
    return counted / (len(statements) - WARMING)
