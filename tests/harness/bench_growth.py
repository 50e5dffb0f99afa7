"""Growth: what a webhook and a checkout cost where years of business are in the tables, beside empty ones."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from harness import bench_events, bench_history, bench_webhook, database, say
from harness.bench_checkout import certificates, open_shop, side, tell_later, trust
from harness.bench_history import Seed
from harness.bench_instructions import count_webhooks
from harness.cluster import Cluster
from harness.database import Database

if TYPE_CHECKING:
    from harness.bench import Bench

SEED = 35
"""Buyers whose rows are multiplied."""
COUNTED = 350
"""So many of the events are left for counting instructions."""


def measure(bench: Bench) -> None:
    events, customers = (5_000_000, 1_000_000) if bench.full else (100_000, 20_000)
    if bench.quick:
        events, customers = 5_000, 1_000
    case = f"{events} events, {customers} customers there"
    with certificates() as directory, bench.cluster(environment=trust(directory)) as cluster:
        database.furnish(cluster)
        past = _past(bench, cluster)
        shops = [database.create(cluster), database.create(cluster)]
        bench_history.grow(shops[0], past, events, customers)
        _sell(bench, shops, directory, case)
        shops[0].close()
        with bench_events.business(cluster, 42 if bench.quick else 140) as business:
            grown, empty = business.copy(), business.copy()
            say("filling in " + case)
            bench_history.grow(grown, past, events, customers)
            sides = [{"dsn": db.dsn, "way": "ours"} for db in (grown, empty)]
            timed, counted = business.bodies[:-COUNTED], business.bodies[-COUNTED:]
            told = bench_webhook.run(bench, business, timed, sides)
            bench_webhook.tell(bench, cluster, "growth", f"webhook, {case}", told)
            for db in (grown, empty):
                db.disconnect()
            cluster.stop()
            bench.add(
                *("growth", f"webhook, {case}", "instructions", "per event"),
                *(count_webhooks(db, business, counted) for db in (grown, empty)),
            )


def _past(bench: Bench, cluster: Cluster) -> list[Seed]:
    with bench_events.business(cluster, SEED) as business:
        db = business.copy()
        bench_webhook.run(bench, business, business.bodies, [{"dsn": db.dsn, "way": "ours"}])
        found = bench_history.seeds(db)
        db.close()
        return found


def _sell(bench: Bench, shops: list[Database], certificates: str, case: str) -> None:
    sale = [open_shop(shop) for shop in shops][0]
    order = {
        "certificates": certificates,
        "sides": [side(shop, "ours") for shop in shops],
        "delays": [{"milliseconds": 0, "calls": 60 if bench.quick else 400}],
        "backends": 1,
        "crowd": 0,
        "pools": [],
        "pool_seconds": 0,
    }
    told = bench.client("checkout", {**order, **sale})
    tell_later(partial(bench.add, "growth"), f"checkout, {case}", told["later"][0]["sides"])
