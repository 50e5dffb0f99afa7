"""Webhooks to rows: events a second, latency, processor time and WAL, beside the floor's, and the rows they end in."""

from __future__ import annotations

from statistics import quantiles
from typing import TYPE_CHECKING, Any

from fake_stripe.world import ACCOUNT
from harness import TARGET, Unmet, bench_events, bench_floor, database, say
from harness.bench_events import Business
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
                    with_rows = _run(bench, business, connections, commit)
                    expected = expected or with_rows
                    if with_rows != expected:
                        raise Unmet("The rows depend on how the events came in.")


def _run(bench: Bench, business: Business, connections: int, commit: str) -> dict[str, list[Any]]:
    """One setting: the rows that it ended in."""
    events = TARGET / "bench-events.json"
    business.write(events)
    ours, floor = business.copy(), bench_floor.create(business.origin.cluster)
    told = bench.client(
        "webhook",
        {
            "ours": ours.dsn,
            "floor": floor.dsn,
            "postmaster": ours.cluster.pid,
            "events": str(events),
            "signing_secret": business.stripe.webhook_secret,
            "connections": connections,
            "synchronous_commit": commit,
            "slices": SLICES,
        },
    )
    case = f"{connections} connection{'s' * (connections > 1)}, commit {commit}"
    for (measure, unit, value), (_, _, least) in zip(_figures(told["ours"][1:]), _figures(told["floor"][1:])):
        bench.add("webhook", case, measure, unit, value, least)
    bench.add("webhook", case, "wrong states", "rows", _wrong(ours, business))
    end = rows(ours)
    ours.close()
    floor.close()
    return end


def _figures(slices: list[dict[str, Any]]) -> list[tuple[str, str, float]]:
    events = sum(part["events"] for part in slices)
    percentiles = quantiles((latency for part in slices for latency in part["latencies"]), n=100)
    return [
        ("throughput", "events/s", events / sum(part["seconds"] for part in slices)),
        ("p50", "ms", percentiles[49] / 1e3),
        ("p99", "ms", percentiles[98] / 1e3),
        ("Postgres CPU", "ms/event", sum(part["processor_seconds"] for part in slices) / events * 1e3),
        ("WAL", "bytes/event", sum(part["wal_bytes"] for part in slices) / events),
    ]


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


def _wrong(db: Database, business: Business) -> int:
    """How many objects have a row that says otherwise than Stripe, or have none."""
    wrong = 0
    for kind, statement in STATES.items():
        told = dict(db.execute(statement).fetchall())
        objects = business.stripe.world.stores[ACCOUNT, False].all(kind)
        # Only the last attempt's charge has a row.
        known = [object for object in objects if kind != "charge" or object["paid"]]
        wrong += sum(told.get(object["id"]) != TRUTH[kind](object) for object in known)
    return wrong
