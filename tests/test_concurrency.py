"""Many connections deliver the shuffled events of the same objects, and end where one in order ends.

`PAYMENTS_EVENTS=20000 tests/run.sh tests/test_concurrency.py` tells a longer story.
"""

from __future__ import annotations

import os
import queue
import random
import signal
import threading
import time
from collections.abc import Callable, Iterator

import psycopg
import pytest

from fake_stripe import FakeStripe
from fake_stripe.webhooks import sign
from harness import database
from harness.cluster import Cluster
from harness.database import Database
from story import TABLES, Shop, rows, year

EVENTS = int(os.environ.get("PAYMENTS_EVENTS", "1500"))
CONNECTIONS = 8
DELIVER = "select status, error from payments.handle_webhook('test', %s, %s)"

pytestmark = pytest.mark.timeout(600 + EVENTS // 10)


class Town:
    """A year of a shop, and databases that have the shop's own rows and have heard of nothing yet."""

    def __init__(self, server: Cluster, events: int) -> None:
        self.server = server
        with FakeStripe(seed=1) as stripe:
            self.secret = stripe.webhook_secret
            self._origin = database.create(server)
            self._origin.execute(f"set payments.stripe_api_base = '{stripe.base_url}'")
            self._origin.execute("select payments.set_webhook_secret('test', %s)", (self.secret,))
            shop = Shop(self._origin, stripe)
            # Seven kinds of buyers; those who subscribe make most of the events.
            self.bodies = year(shop, buyers=28, months=max(1, (events - 600) // 90))
            self.random = random.Random(1)

    def copy(self) -> Database:
        self._origin.disconnect()
        return database.create(self.server, template=self._origin.name)

    def shuffled(self) -> list[str]:
        """Every event, some of them twice, in any order."""
        bodies = self.bodies + self.random.sample(self.bodies, len(self.bodies) // 5)
        self.random.shuffle(bodies)
        return bodies


@pytest.fixture(scope="module")
def town(server) -> Town:
    return Town(server, EVENTS)


@pytest.fixture(scope="module")
def in_order(town) -> dict[str, list]:
    """The rows after one connection delivered everything as it happened."""
    db = town.copy()
    deliver(db, town, town.bodies, connections=1)
    told = rows(db)
    db.close()
    return told


def deliver(
    db: Database,
    town: Town,
    bodies: list[str],
    connections: int = CONNECTIONS,
    retry: Callable[[psycopg.Error], bool] = lambda error: False,
) -> None:
    """Delivers everything; what `retry` allows is delivered again, as Stripe would after a 5xx."""
    waiting: queue.SimpleQueue[str] = queue.SimpleQueue()
    for body in bodies:
        waiting.put(body)
    problems: list[object] = []

    def postman() -> None:
        connection = db.reconnect()
        while not problems:
            try:
                body = waiting.get_nowait()
            except queue.Empty:
                return
            try:
                receipt = connection.execute(DELIVER, (body, sign(body, [town.secret]))).fetchone()
                if receipt.status == "failed":
                    problems.append(receipt)
            except psycopg.Error as error:
                if not retry(error):
                    problems.append(error)
                waiting.put(body)
                if connection.closed:
                    connection = db.reconnect()

    threads = [threading.Thread(target=postman) for _ in range(connections)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert problems == []


@pytest.fixture
def fresh(town) -> Iterator[Database]:
    db = town.copy()
    yield db
    db.close()


def differences(db: Database, expected: dict[str, list]) -> dict[str, set]:
    """Rows that only one of the two has."""
    told = rows(db)
    different = {table: set(told[table]) ^ set(expected[table]) for table in TABLES}
    return {table: found for table, found in different.items() if found}


def test_the_story_is_long_enough(town, in_order):
    assert len(town.bodies) >= EVENTS * 0.8
    assert all(in_order.values())


def test_many_connections_end_where_one_ends(town, in_order, fresh):
    deliver(fresh, town, town.shuffled())
    assert differences(fresh, in_order) == {}
    deadlocks = fresh.value("select deadlocks from pg_stat_database where datname = current_database()")
    assert deadlocks == 0
    statuses = fresh.execute("select distinct processing_status from payments.webhook_events").fetchall()
    assert [status for (status,) in statuses] == ["processed"]
    assert fresh.value("select count(*) from payments.webhook_events") == len(town.bodies)


def test_a_rebuild_finds_nothing_to_do_afterwards(town, in_order, fresh):
    deliver(fresh, town, town.shuffled())
    assert fresh.value("select payments.rebuild('test')") == 0


def test_a_rebuild_in_the_middle_does_no_harm(town, in_order, fresh):
    def rebuild() -> None:
        with fresh.connect() as connection:
            for _ in range(3):
                time.sleep(0.5)
                connection.execute("select payments.rebuild('test')")

    rebuilder = threading.Thread(target=rebuild)
    rebuilder.start()
    # A rebuild keeps deliveries waiting, for too long perhaps: Stripe sends them again.
    deliver(fresh, town, town.shuffled(), retry=lambda error: error.sqlstate == "55P03")
    rebuilder.join()
    assert differences(fresh, in_order) == {}


def test_a_killed_backend_loses_nothing_that_was_acknowledged(make_cluster):
    server = make_cluster()
    database.furnish(server)
    town = Town(server, 300)
    ordered = town.copy()
    deliver(ordered, town, town.bodies, connections=1)
    expected = rows(ordered)
    db = town.copy()

    def kill() -> None:
        """The server takes everybody's connection down with the one, and recovers."""
        for _ in range(3):
            time.sleep(0.7)
            connection = db.reconnect()
            busy = "select pid from pg_stat_activity where state = 'active' and query like '%handle_webhook%'"
            [victim, *_] = [pid for (pid,) in connection.execute(busy)] or [connection.info.backend_pid]
            os.kill(victim, signal.SIGKILL)

    lost: list[psycopg.Error] = []

    def sent_again(error: psycopg.Error) -> bool:
        lost.append(error)
        return isinstance(error, psycopg.OperationalError)

    killer = threading.Thread(target=kill)
    killer.start()
    while killer.is_alive():
        deliver(db, town, town.shuffled(), retry=sent_again)
    deliver(db, town, town.bodies, retry=sent_again)
    assert len(lost) >= 3
    db.disconnect()
    assert differences(db, expected) == {}
