"""Every wait there is, ended from outside while the server is busy: at once, and leaving nothing.

What "at once" is on this machine at this moment, `pg_sleep` says, which is ended beside it.
`tests/prove.sh cancel` does it thousands of times.
"""

from __future__ import annotations

import os
import socket
import statistics
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psycopg
import pytest

from backend import resident, sockets
from fake_stripe import FakeStripe
from harness import database
from harness.database import Database
from network import Staller, deaf_port, slow_lookups
from shop import URLS, Shop, Task

CANCELS = int(os.environ.get("PAYMENTS_CANCELS", "2"))

pytestmark = [
    pytest.mark.timeout(120 + 30 * CANCELS),
    pytest.mark.skipif(not os.path.exists("/proc/self/fd"), reason="looks into /proc"),
]

HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n"
COME_AGAIN = b"HTTP/1.1 429 Too Many Requests\r\nRetry-After: 25\r\nConnection: close\r\nContent-Length: 2\r\n\r\n{}"

CHECKOUT = f"""
    select * from payments.create_checkout_session(
        mode => 'payment', line_items => '[{{"lookup_key": "shirt"}}]', idempotency_key => %s,
        success_url => '{URLS["success_url"]}', cancel_url => '{URLS["cancel_url"]}')
"""
WEBHOOK = "select * from payments.handle_webhook('test', %s, %s)"


@dataclass
class Wait:
    """Somewhere to wait, and the statement that gets there."""

    name: str
    statement: str
    arguments: Callable[[], tuple[Any, ...]] = tuple
    base: str | None = None
    budget: str = "30s"
    is_brief: bool = False
    """It ends by itself after some seconds."""


def unnamed() -> tuple[None]:
    """A checkout without an idempotency key."""
    return (None,)


SLEEP = Wait("pg_sleep", "select pg_sleep(60)")


class Backend:
    """A connection whose calls get stuck in one wait."""

    def __init__(self, db: Database, wait: Wait) -> None:
        self._db, self.wait = db, wait
        self.connect()

    def connect(self) -> None:
        self.connection = self._db.connect(prepare_threshold=None)
        self.pid = self.connection.info.backend_pid
        self.connection.execute("set client_connection_check_interval = '20ms'")
        self.connection.execute("select set_config('payments.http_timeout', %s, false)", (self.wait.budget,))
        self.connection.execute("set payments.http_connect_timeout = '30s'")
        if self.wait.base:
            self.connection.execute("select set_config('payments.stripe_api_base', %s, false)", (self.wait.base,))

    def call(self) -> None:
        self.began = time.monotonic()
        self.task = Task(lambda: self.connection.execute(self.wait.statement, self.wait.arguments()).fetchall())

    def ended(self, sqlstate: str | None) -> float:
        """When the call ended, which it must with this SQLSTATE; None is a connection that is gone."""
        try:
            returned = self.task.result(30)
        except psycopg.Error as error:
            assert error.sqlstate == sqlstate, f"{self.wait.name}: {error}"
            return self.task.ended_at
        raise AssertionError(f"{self.wait.name} did not wait: {returned}")

    def gone(self) -> float:
        """When the process ended."""
        deadline = time.monotonic() + 30
        while os.path.exists(f"/proc/{self.pid}"):
            assert time.monotonic() < deadline, f"{self.wait.name} goes on"
            time.sleep(0.0005)
        return time.monotonic()


def cancel(db: Database, backend: Backend) -> float:
    began = time.monotonic()
    db.execute("select pg_cancel_backend(%s)", (backend.pid,))
    return backend.ended("57014") - began


def time_out(_: Database, backend: Backend) -> float:
    """By the `statement_timeout` that it was begun with."""
    return backend.ended("57014") - backend.began - STATEMENT_TIMEOUT


def terminate(db: Database, backend: Backend) -> float:
    began = time.monotonic()
    db.execute("select pg_terminate_backend(%s)", (backend.pid,))
    took = backend.ended("57P01") - began
    backend.gone()
    return took


def hang_up(_: Database, backend: Backend) -> float:
    """The client vanishes without a word."""
    began = time.monotonic()
    client = socket.socket(fileno=os.dup(backend.connection.pgconn.socket))
    client.shutdown(socket.SHUT_RDWR)
    client.close()
    return backend.gone() - began


STATEMENT_TIMEOUT = 1.5
ENDS: dict[str, Callable[[Database, Backend], float]] = {
    "pg_cancel_backend": cancel,
    "statement_timeout": time_out,
    "pg_terminate_backend": terminate,
    "a vanished client": hang_up,
}


@pytest.fixture(scope="module")
def library() -> Iterator[Path | None]:
    with slow_lookups() as library:
        yield library


@pytest.fixture(scope="module")
def shop(make_cluster, library: Path | None) -> Iterator[Shop]:
    cluster = make_cluster(environment={"LD_PRELOAD": str(library)} if library else {})
    database.furnish(cluster)
    db = database.create(cluster)
    with FakeStripe() as stripe:
        db.execute(f"alter database {db.name} set payments.stripe_api_base = '{stripe.base_url}'")
        db.disconnect()
        stripe.control.price(1900, lookup_key="shirt")
        yield Shop(db, stripe)
    db.close()


@contextmanager
def all_waits(shop: Shop, library: Path | None) -> Iterator[tuple[list[Wait], list[Staller]]]:
    """Each of them, with whatever keeps it waiting."""
    with ExitStack() as stack:
        silent, headers, body, busy = (
            stack.enter_context(Staller(said))
            for said in (b"", HEAD + b"Content-Le", HEAD + b"Content-Length: 1000\r\n\r\n{", COME_AGAIN)
        )
        deaf = stack.enter_context(deaf_port())
        waits = [
            Wait("connecting", CHECKOUT, unnamed, f"http://127.0.0.1:{deaf}"),
            Wait("TLS handshake", CHECKOUT, unnamed, f"https://127.0.0.1:{silent.port}"),
            Wait("first byte", CHECKOUT, unnamed, silent.base_url),
            Wait("headers", CHECKOUT, unnamed, headers.base_url),
            Wait("body", CHECKOUT, unnamed, body.base_url),
            Wait("pause between tries", CHECKOUT, unnamed, busy.base_url),
            Wait("sync's pause", "call payments.sync('test', array['prices'])", base=busy.base_url, budget="1s"),
            Wait("poll's pause", "call payments.poll_events('test')", base=busy.base_url, budget="1s"),
            *stack.enter_context(locks(shop)),
        ]
        if library:
            waits.append(Wait("name lookup", CHECKOUT, unnamed, "https://slower.test"))
        yield waits, [silent, headers, body, busy]


@contextmanager
def locks(shop: Shop) -> Iterator[list[Wait]]:
    """Waits for other transactions, and those transactions."""
    control = shop.stripe.control
    product = control.price(1000)["product"]
    control.update(product, {"name": "One"})
    control.update(product, {"name": "Two"})
    *_, one, two = (delivery["id"] for delivery in control.deliveries())

    def letter(event: str) -> tuple[str, str]:
        # A signature is good for five minutes.
        delivery = control.delivery(event)
        return delivery["body"], delivery["signature"]

    shop.db.execute("select payments.set_stripe_key('live', %s)", (shop.stripe.live_key,))
    with ExitStack() as stack:
        holders = [stack.enter_context(shop.db.connect(autocommit=False)) for _ in range(4)]
        holders[0].execute(CHECKOUT, ("held",))
        holders[1].execute(WEBHOOK, letter(one))
        holders[2].execute("select * from payments.sync_step('live', array['prices'])")
        holders[3].execute("select from payments.stripe_connections where environment = 'live' for update")
        yield [
            Wait("a checkout behind its twin", CHECKOUT, lambda: ("held",)),
            Wait("a webhook behind its twin", WEBHOOK, lambda: letter(one), is_brief=True),
            Wait("a webhook behind one of the same object", WEBHOOK, lambda: letter(two), is_brief=True),
            Wait("a step of a sync behind another", "select * from payments.sync_next('live')"),
            Wait("a key behind another", "select * from payments.set_webhook_secret('live', 'whsec_0123456789abcdefgh')"),
        ]
        for holder in holders:
            holder.rollback()


@contextmanager
def load(shop: Shop) -> Iterator[None]:
    """Others buy, and hear of it."""
    stopping = threading.Event()

    def work(name: str) -> None:
        connection = shop.db.connect()
        while not stopping.is_set():
            shop.stripe.control.complete(shop.checkout(connection).stripe_checkout_session_id)
            for delivery in shop.stripe.control.deliveries():
                shop.receive(delivery, connection)

    workers = [Task(lambda: work(name)) for name in ("one", "two")]
    yield
    stopping.set()
    for worker in workers:
        worker.result()


def get_stuck(db: Database, backends: list[Backend], timeout: float) -> None:
    """Has all of them wait at once, those last who do not wait for long."""
    for backend in backends:
        if backend.connection.closed:
            backend.connect()
        backend.connection.execute("select set_config('statement_timeout', %s, false)", (f"{timeout}s",))
    for is_brief in (False, True):
        group = [backend for backend in backends if backend.wait.is_brief == is_brief]
        for backend in group:
            backend.call()
        if not timeout:
            wait_until_stuck(db, group)


def wait_until_stuck(db: Database, backends: list[Backend]) -> None:
    """Until each waits where it is meant to: for the network, for time, or for a lock."""
    waiting = "select count(*) from pg_stat_activity where pid = any(%s) and wait_event_type in ('Extension', 'Timeout', 'Lock')"
    pids = [backend.pid for backend in backends]
    deadline = time.monotonic() + 20
    while db.value(waiting, (pids,)) < len(pids):
        assert time.monotonic() < deadline, db.execute(
            "select pid, wait_event_type, wait_event, query from pg_stat_activity where pid = any(%s)", (pids,)
        ).fetchall()
        time.sleep(0.02)


def test_every_wait_ends_at_once_and_leaves_nothing(shop, library, capsys):
    took: dict[str, list[tuple[float, str]]] = defaultdict(list)
    slept: dict[str, list[float]] = defaultdict(list)
    held, sizes = [], []
    with all_waits(shop, library) as (waits, stallers), load(shop):
        backends = [Backend(shop.db, wait) for wait in waits]
        sleepers = [Backend(shop.db, SLEEP) for _ in waits]
        for name, end in [each for each in ENDS.items() for _ in range(CANCELS)]:
            shop.db.execute("delete from payments.sync_runs")
            get_stuck(shop.db, sleepers + backends, STATEMENT_TIMEOUT if end is time_out else 0)
            # Those that would soon end by themselves come first.
            for sleeper, backend in zip(sleepers, sorted(backends, key=lambda each: not each.wait.is_brief)):
                took[name].append((end(shop.db, backend), backend.wait.name))
                slept[name].append(end(shop.db, sleeper))
            held.append(what_is_held(shop.db, backends, stallers))
            if end in (cancel, time_out):
                sizes.append([resident(backend.pid) for backend in backends])
    with capsys.disabled():
        report(took, slept)
        grown = [last - first for first, last in zip(sizes[0], sizes[-1])]
        print(f"after {len(sizes)} calls that were ended the backends are {min(grown)} to {max(grown)} kB bigger than after one")
    for name, reactions in took.items():
        ours, theirs = sorted(time for time, _ in reactions), sorted(slept[name])
        most = len(ours) * 95 // 100
        # On a busy machine everybody waits now and then, and pg_sleep says for how long.
        assert statistics.median(ours) < 0.1, name
        assert ours[most] < 0.1 + theirs[most], name
        assert ours[-1] < 1 + theirs[-1], max(reactions)
    assert max(grown) < 1024
    # A lookup cannot be ended; the next call for the same name waits for its thread, by two sockets.
    at_most = {"locks": 0, "connections": 0, "sockets": 2, "threads": 1}
    assert [each for each in held if any(each[name] > most for name, most in at_most.items())] == []


def what_is_held(db: Database, backends: list[Backend], stallers: list[Staller]) -> dict[str, int]:
    """By backends that are idle now, once their peers have heard of it."""
    pids = [backend.pid for backend in backends if not backend.connection.closed]
    deadline = time.monotonic() + 10
    while any(staller.open for staller in stallers) and time.monotonic() < deadline:
        time.sleep(0.01)
    threads = [len(os.listdir(f"/proc/{pid}/task")) for pid in pids]
    return {
        "locks": db.value("select count(*) from pg_locks where pid = any(%s)", (pids,)),
        "connections": sum(staller.open for staller in stallers),
        "sockets": sum(map(sockets, pids)) - len(pids),
        "threads": sum(threads) - len(pids),
    }


def report(took: dict[str, list[tuple[float, str]]], slept: dict[str, list[float]]) -> None:
    print("\nmilliseconds until a wait ended, and a pg_sleep beside it: median, 95 of 100, worst")
    for name, reactions in took.items():
        ours, theirs = (_figures(times) for times in ([time for time, _ in reactions], slept[name]))
        print(f"{name:22} {ours}   {theirs}   ({len(reactions)} times; the worst: {max(reactions)[1]})")


def _figures(times: list[float]) -> str:
    of_a_hundred = statistics.quantiles(times, n=100, method="inclusive")
    return "".join(f"{time * 1000:7.1f}" for time in (of_a_hundred[49], of_a_hundred[94], max(times)))
