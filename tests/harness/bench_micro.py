"""The parts of a webhook that know no Postgres: time and instructions of each."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

from harness import bench_events, bench_floor, callgrind, database

if TYPE_CHECKING:
    from harness.bench import Bench

BUYERS = 28
PARTS = {"signature": "event", "parse": "event", "order": "event", "project": "object"}


def measure(bench: Bench) -> None:
    with bench.cluster(fsync="off") as cluster:
        database.furnish(cluster)
        with bench_events.business(cluster, BUYERS) as business:
            events = Path(cluster.directory, "events.json")
            events.write_text(json.dumps([bench_floor.event(body) for body in business.bodies]))
            secret = business.stripe.webhook_secret
            for part, unit in PARTS.items():
                order = {"events": str(events), "signing_secret": secret, "part": part}
                timed = bench.client("micro", {**order, "seconds": 0.3 if bench.quick else 2})
                counted = callgrind.instructions(
                    *(part, f"payments_bench::micro::{part if part != 'order' else 'join'}*"),
                    [bench.client_program, "micro"],
                    input=json.dumps({**order, "seconds": 0}),
                )
                bench.add("micro", part, "time", f"µs/{unit}", timed["seconds"] / timed["count"] * 1e6)
                bench.add("micro", part, "instructions", f"per {unit}", counted / timed["count"])
