"""Instructions an event, counted by valgrind: the same on every machine and at any load, so that two commits compare."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

from psycopg import sql

from fake_stripe.webhooks import sign
from harness import TARGET, Unmet, bench_events, bench_floor, database
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
    if not shutil.which("valgrind"):
        raise Unmet("Instructions are counted by valgrind: apt-get install valgrind")
    with bench.cluster(fsync="off") as cluster:
        database.furnish(cluster)
        with bench_events.business(cluster, BUYERS) as business:
            ours, floor = business.copy(), bench_floor.create(cluster)
            ours.disconnect()
            floor.disconnect()
            cluster.stop()
            counted = 100 if bench.quick else 400
            bodies = business.bodies[: WARMING + counted]
            secret = business.stripe.webhook_secret
            delivered = _count(ours, "webhook", [_delivery(body, secret) for body in bodies])
            stored = _count(floor, "floor", [bench_floor.statement(body) for body in bodies])
            bench.add("instructions", "webhook", "executor", "per event", delivered / counted, stored / counted)


def _delivery(body: str, secret: str) -> str:
    values = (sql.Literal(body).as_string(), sql.Literal(sign(body, [secret])).as_string())
    return "select status from payments.handle_webhook('test', {}, {})".format(*values)


def _count(db: Database, name: str, statements: list[str]) -> int:
    """Instructions of a backend that runs these, but for the warming ones, from a plan's start to its end.

    Parsing and planning are left out, as a client that prepares its statement pays for them once; so is the commit,
    of which most is waiting.
    """
    cluster = db.cluster
    told = cluster.directory / "callgrind.out"
    script = [*statements[:WARMING], f"select pg_catalog.{MARK}()", *statements[WARMING:]]
    done = subprocess.run(
        [
            *("valgrind", "--tool=callgrind", f"--callgrind-out-file={told}", "--collect-atstart=no"),
            *("--toggle-collect=PortalRun", f"--zero-before={MARK}"),
            # A statement ends with a semicolon and an empty line.
            *(cluster.program("postgres"), "--single", "-j", "-D", str(cluster.data), db.name),
        ],
        input="".join(statement + ";\n\n" for statement in script),
        capture_output=True,
        text=True,
        cwd="/",
        env={"PATH": os.defpath, "LC_ALL": "C"},
        **account(),
    )
    failed = [line for line in done.stderr.splitlines() if "ERROR:" in line or "FATAL:" in line]
    if done.returncode or failed:
        raise Unmet("\n".join(failed) or done.stderr[-2000:])
    kept = Path(shutil.copy(told, TARGET / f"callgrind.{name}"))
    print(f"    callgrind_annotate --inclusive=yes {kept}")
    return int(re.search(r"^(?:summary|totals): (\d+)", told.read_text(), re.MULTILINE)[1])
