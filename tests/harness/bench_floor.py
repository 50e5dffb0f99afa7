"""The floor: the least that anything living in Postgres must do with an event, its columns cut out by the client."""

from __future__ import annotations

import json
import re
from datetime import datetime, timezone
from typing import Any

from psycopg import sql

from harness import TESTS, database
from harness.cluster import Cluster
from harness.database import Database

STATEMENT = (TESTS / "bench" / "floor.sql").read_text()
TABLES = (TESTS / "bench" / "floor_tables.sql").read_text()

TEXTS = (
    *("object", "customer", "subscription", "invoice", "payment_intent", "latest_charge"),
    *("status", "currency", "description", "email", "mode"),
)
NUMBERS = ("amount", "amount_due", "amount_paid", "amount_refunded")
FLAGS = ("livemode", "paid")
TIMES = ("created", "period_start", "period_end")


def create(cluster: Cluster) -> Database:
    """A database with the floor's two tables."""
    db = database.create(cluster, template="template1")
    db.execute(TABLES)
    return db


def event(body: str) -> dict[str, Any]:
    """A body with its columns, as the client takes it."""
    told = json.loads(body)
    object = told["data"]["object"]
    return {
        "body": body,
        "event": told["id"],
        "object": object["id"],
        "texts": [*(_typed(str, object.get(name)) for name in TEXTS), told["type"]],
        "numbers": [_typed(int, object.get(name)) for name in NUMBERS],
        "flags": [_typed(bool, object.get(name)) for name in FLAGS],
        "times": [*(_typed(int, object.get(name)) for name in TIMES), told["created"]],
    }


def statement(body: str) -> str:
    """The statement with everything in it, for a backend that takes no parameters."""
    told = event(body)
    times = [None if time is None else datetime.fromtimestamp(time, timezone.utc) for time in told["times"]]
    values = [told["event"], told["body"], told["object"]]
    values += [*told["texts"], *told["numbers"], *told["flags"], *times]
    return re.sub(r"\$(\d+)", lambda number: sql.Literal(values[int(number[1]) - 1]).as_string(), STATEMENT)


def _typed(kind: type, value: Any) -> Any:
    """The value if it is of that type: an object's field may be expanded, or mean something else."""
    return value if type(value) is kind else None
