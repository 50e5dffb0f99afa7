"""The benchmark judges rightly what it measures: events, floor, history, wrong states, the table."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from fake_stripe.webhooks import sign
from harness import bench, bench_events, bench_floor, bench_history, bench_webhook
from harness.bench import Figure
from harness.bench_events import Business
from harness.cluster import Cluster
from harness.database import Database

DELIVER = "select status from payments.handle_webhook('test', %s, %s)"


@pytest.fixture(scope="module")
def business(server: Cluster) -> Iterator[Business]:
    with bench_events.business(server, buyers=14) as told:
        yield told


@pytest.fixture(scope="module")
def told(business: Business) -> Iterator[Database]:
    """A database that has heard of all that happened."""
    db = business.copy()
    for body in business.bodies:
        signature = sign(body, [business.stripe.webhook_secret])
        assert db.value(DELIVER, (body, signature)) == "processed"
    yield db
    db.close()


def test_the_events_are_of_many_at_once_and_each_comes_once(business: Business) -> None:
    events = [json.loads(body) for body in business.bodies]
    assert len({event["id"] for event in events}) == len(events) > 300
    assert not {event["type"] for event in events} & set(bench_events.UNSUBSCRIBED)
    first = [event["data"]["object"].get("customer") for event in events[:40]]
    assert len(set(first)) > 5
    times = [event["created"] for event in events]
    assert times != sorted(times)


def test_no_state_is_wrong_unless_one_is(business: Business, told: Database) -> None:
    assert bench_webhook.wrong_states(told, business) == 0
    with told.connect(autocommit=False) as connection:
        connection.execute("update payments.subscriptions set status = 'paused'")
        connection.commit()
    subscriptions = told.value("select count(*) from payments.subscriptions")
    assert bench_webhook.wrong_states(told, business) == subscriptions > 0
    assert bench_webhook.wrong_states(business.origin, business) > subscriptions


def test_the_floor_keeps_every_event_and_one_row_an_object(business: Business, server: Cluster) -> None:
    db = bench_floor.create(server)
    for body in business.bodies:
        db.execute(bench_floor.statement(body))
    events = [bench_floor.event(body) for body in business.bodies]
    assert db.value("select count(*) from public.floor_events") == len(events)
    assert db.value("select count(*) from public.floor_rows") == len({event["object"] for event in events})
    last = events[-1]
    row = db.execute("select * from public.floor_rows where id = %s", (last["object"],)).fetchone()
    assert len(row) == 25
    assert (row.kind, row.raw) == (last["texts"][0], json.loads(last["body"]))
    db.close()


def test_history_grows_by_the_asked_number_of_events_and_customers(business: Business, told: Database) -> None:
    grown = business.copy()
    before = {table: _count(grown, table) for table in ("webhook_events", "customers", "subscriptions")}
    bench_history.grow(grown, bench_history.seeds(told), events=2_000, customers=70)
    added = {table: _count(grown, table) - count for table, count in before.items()}
    once = {table: _count(told, table) for table in before}
    assert once["customers"] == 14
    assert added == {
        "webhook_events": 2_000 // once["webhook_events"] * once["webhook_events"],
        "customers": 70,
        "subscriptions": 5 * once["subscriptions"],
    }
    grown.close()


def _count(db: Database, table: str) -> int:
    return db.value(f"select count(*) from payments.{table}")


def test_the_table_and_the_csv_say_the_same(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    figures = [Figure("webhook", "1 connection", "p50", "ms", 1.5, 3.0), Figure("webhook", "1 connection", "rows", "", 7)]
    bench.table(figures)
    bench.write(figures, ("2 cores", "PostgreSQL 18.6", "abc"), tmp_path / "bench.csv")
    lines = capsys.readouterr().out.splitlines()
    assert lines[1].split() == ["webhook", "1", "connection", "p50", "1.50", "3.00", "0.50", "ms"]
    with (tmp_path / "bench.csv").open() as file:
        first, second = csv.DictReader(file)
    assert (first["measure"], first["ours"], first["beside"], first["ratio"]) == ("p50", "1.5", "3.0", "0.5")
    assert (second["ours"], second["beside"], second["ratio"]) == ("7", "", "")
    assert (second["machine"], second["postgres"], second["revision"]) == ("2 cores", "PostgreSQL 18.6", "abc")


def test_more_instructions_than_before_are_told(tmp_path: Path) -> None:
    def figure(count: float) -> Figure:
        return Figure("micro", "parse", "instructions", "per event", count)

    bench.write([figure(1000)], ("", "", ""), tmp_path / "before.csv")
    assert bench.dearer([figure(1019)], tmp_path / "before.csv") == []
    assert bench.dearer([figure(1021)], tmp_path / "before.csv") == [
        "micro, parse: 1,000 instructions became 1,021",
    ]
    slower = Figure("micro", "parse", "time", "µs/event", 1e9)
    assert bench.dearer([slower], tmp_path / "before.csv") == []
