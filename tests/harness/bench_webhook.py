"""Webhooks to rows: events a second, latency, processor time and WAL, beside the floor's, and the rows they end in."""

from __future__ import annotations

import json
import re
import tempfile
from statistics import quantiles
from typing import TYPE_CHECKING, Any

from fake_stripe.world import ACCOUNT
from harness import Unmet, bench_events, bench_floor, database, output, say
from harness.bench_events import Business
from harness.cluster import Cluster
from harness.database import Database
from story import rows

if TYPE_CHECKING:
    from harness.bench import Bench

BUYERS, BUYERS_QUICK = 420, 84
SLICES = 6
"""The first warms the server up and is not counted."""


def measure(bench: Bench) -> None:
    with bench.cluster() as cluster:
        database.furnish(cluster)
        with bench_events.business(cluster, BUYERS_QUICK if bench.quick else BUYERS) as business:
            size = sum(len(body.encode()) for body in business.bodies) / len(business.bodies)
            say(f"{len(business.bodies)} events of {size:.0f} bytes on average")
            expected: dict[str, list[Any]] = {}
            for connections in (1, 4):
                for commit in ("on", "off"):
                    end = _run(bench, business, connections, commit)
                    expected = expected or end
                    _require_equal(end, expected)


def _require_equal(end: dict[str, list[Any]], expected: dict[str, list[Any]]) -> None:
    for table, told in end.items():
        if differing := set(told) ^ set(expected[table]):
            raise Unmet(f"The rows of {table} depend on how the events came in, such as {min(differing)[0]}")


def _run(bench: Bench, business: Business, connections: int, commit: str) -> dict[str, list[Any]]:
    """One setting: the rows that it ended in."""
    cluster = business.origin.cluster
    ours, floor = business.copy(), bench_floor.create(cluster)
    sides = [{"dsn": ours.dsn, "way": "ours"}, {"dsn": floor.dsn, "way": "floor"}]
    told = run(bench, business, business.bodies, sides, connections, commit)
    case = f"{connections} connection{'s' * (connections > 1)}, commit {commit}"
    tell(bench, cluster, "webhook", case, told)
    bench.add("webhook", case, "wrong states", "rows", wrong_states(ours, business))
    end = rows(ours)
    ours.close()
    floor.close()
    return end


def run(
    bench: Bench,
    business: Business,
    bodies: list[str],
    sides: list[dict[str, str]],
    connections: int = 1,
    commit: str = "off",
) -> list[list[dict[str, Any]]]:
    """Delivers events to all sides in turn: the slices of each."""
    with tempfile.NamedTemporaryFile("w", suffix=".json") as events:
        json.dump([bench_floor.event(body) for body in bodies], events)
        events.flush()
        order = {
            "sides": sides,
            "postmaster": business.origin.cluster.pid,
            "events": events.name,
            "signing_secret": business.stripe.webhook_secret,
            "connections": connections,
            "synchronous_commit": commit,
            "slices": SLICES,
        }
        return bench.client("webhook", order)


def tell(bench: Bench, cluster: Cluster, item: str, case: str, sides: list[list[dict[str, Any]]]) -> None:
    """Figures of both sides, but for their first slices, which warmed the server up."""
    ours, floor = (_figures(cluster, slices[1:]) for slices in sides)
    for (measure, unit, value), (_, _, least) in zip(ours, floor):
        bench.add(item, case, measure, unit, value, least)


def _figures(cluster: Cluster, slices: list[dict[str, Any]]) -> list[tuple[str, str, float]]:
    events = sum(part["events"] for part in slices)
    percentiles = quantiles((latency for part in slices for latency in part["latencies"]), n=100)
    return [
        ("throughput", "events/s", events / sum(part["seconds"] for part in slices)),
        ("p50", "ms", percentiles[49] / 1e3),
        ("p99", "ms", percentiles[98] / 1e3),
        ("Postgres CPU", "ms/event", sum(part["processor_seconds"] for part in slices) / events * 1e3),
        ("WAL", "bytes/event", sum(end - start for start, end in (part["wal"] for part in slices)) / events),
        ("of it whole pages", "bytes/event", sum(_pages(cluster, *part["wal"]) for part in slices) / events),
    ]


def _pages(cluster: Cluster, start: int, end: int) -> int:
    """Bytes of the WAL that are whole pages, which the first change after a checkpoint writes."""
    places = [f"{place >> 32:X}/{place & 0xFFFFFFFF:X}" for place in (start, end)]
    told = output(
        *(cluster.program("pg_waldump"), "--path", cluster.data / "pg_wal", "--stats"),
        *("--start", places[0], "--end", places[1]),
    )
    total = re.search(r"^Total(?:\s+\S+){3}\s+(?:\[\S+\]\s+)?(\d+)", told, re.MULTILINE)
    return int(total[1]) if total else 0


STATES = {
    "subscription": "select stripe_subscription_id, status || cancel_at_period_end from payments.subscriptions",
    "invoice": "select stripe_invoice_id, status || amount_paid from payments.invoices",
    "dispute": "select stripe_dispute_id, status from payments.disputes",
    "charge": """
        select stripe_charge_id, amount_refunded::text from payments.payment_history
        where type <> 'refund' and stripe_charge_id is not null""",
}
"""The state of each object that our rows tell."""

TRUTH = {
    "subscription": lambda object: object["status"] + str(object["cancel_at_period_end"]).lower(),
    "invoice": lambda object: object["status"] + str(object["amount_paid"]),
    "dispute": lambda object: object["status"],
    "charge": lambda object: str(object["amount_refunded"]),
}
"""The same from an object as Stripe has it."""


def wrong_states(db: Database, business: Business) -> int:
    """How many objects have a row that says otherwise than Stripe, or have none."""
    wrong = 0
    for kind, statement in STATES.items():
        told = dict(db.execute(statement).fetchall())
        objects = business.stripe.world.stores[ACCOUNT, False].all(kind)
        # Only the last attempt's charge has a row.
        known = [object for object in objects if kind != "charge" or object["paid"]]
        wrong += sum(told.get(object["id"]) != TRUTH[kind](object) for object in known)
    return wrong
