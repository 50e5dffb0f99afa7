"""Calls to Stripe over a network that misbehaves, from backends that must still listen to their server."""

from __future__ import annotations

import os
import socket
import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import psycopg
import pytest

from fake_stripe import FakeStripe
from harness import database
from network import deaf_port, slow_lookups
from shop import Shop, Task, refused

SESSIONS = "/v1/checkout/sessions"
PHASES = ["resolving", "connecting", "handshake", "first byte", "mid-body"]


@pytest.fixture(scope="module")
def secure() -> Iterator[FakeStripe]:
    """A fake Stripe that speaks TLS."""
    with FakeStripe(tls=True) as fake:
        yield fake


@pytest.fixture(scope="module")
def slow_lookup() -> Iterator[Path | None]:
    with slow_lookups() as library:
        yield library


def lookups_of(library: Path) -> Path:
    """The file with the names that a server looked up."""
    return library.with_suffix(".log")


@pytest.fixture(scope="module")
def rough_shop(make_cluster, secure: FakeStripe, slow_lookup: Path | None) -> Iterator[Shop]:
    """A shop on a server that trusts the fake's certificate and looks names up slowly."""
    environment = {"SSL_CERT_FILE": secure.ca_file}
    if slow_lookup:
        environment["LD_PRELOAD"] = str(slow_lookup)
        lookups = lookups_of(slow_lookup)
        lookups.touch()
        lookups.chmod(0o666)
        environment["LOOKUPS"] = str(lookups)
    cluster = make_cluster(environment=environment)
    database.furnish(cluster)
    created = database.create(cluster)
    created.execute(f"alter database {created.name} set payments.stripe_api_base = '{secure.base_url}'")
    created.disconnect()
    yield Shop(created, secure)
    created.close()


class Stuck:
    """A backend whose checkouts get stuck in one phase of a call."""

    def __init__(self, shop: Shop, phase: str, base: str | None) -> None:
        self.shop, self._phase = shop, phase
        self.connection = shop.db.connect()
        self.pid = self.connection.info.backend_pid
        if base:
            self.connection.execute("select set_config('payments.stripe_api_base', %s, false)", (base,))
        self.connection.execute("set payments.http_timeout = '20s'; set payments.http_connect_timeout = '20s'")

    def call(self) -> Task:
        """A checkout, stuck."""
        control = self.shop.stripe.control
        control.clear_requests()
        if self._phase == "handshake":
            control.fault("no_handshake")
        if self._phase == "first byte":
            control.fault("silent", path=SESSIONS)
        if self._phase == "mid-body":
            control.fault("drip", path=SESSIONS, seconds=0.02)
        task = Task(lambda: self.shop.checkout(self.connection))
        if self._phase in ("first byte", "mid-body"):
            control.wait_for_requests(path=SESSIONS)
        self._wait_until_it_waits()
        return task

    def mend(self) -> None:
        """From now on nothing gets stuck."""
        self.shop.stripe.control.clear_faults()
        self.connection.execute("reset payments.stripe_api_base")

    def _wait_until_it_waits(self) -> None:
        for _ in range(500):
            state = "select wait_event in ('PaymentsHttp', 'Extension') from pg_stat_activity where pid = %s"
            if self.shop.db.value(state, (self.pid,)):
                return
            time.sleep(0.01)
        raise AssertionError("the call does not wait for the network")


@pytest.fixture(params=PHASES)
def stuck(request, rough_shop: Shop, slow_lookup: Path | None) -> Iterator[Stuck]:
    """A backend that gets stuck in each of the phases."""
    rough_shop.stripe.control.clear_faults()
    if request.param == "resolving":
        if slow_lookup is None:
            pytest.skip("there is no C compiler (cc) to build a slow name lookup with")
        yield Stuck(rough_shop, request.param, "https://slow.test")
    elif request.param == "connecting":
        with deaf_port() as port:
            yield Stuck(rough_shop, request.param, f"http://127.0.0.1:{port}")
    else:
        yield Stuck(rough_shop, request.param, None)
    rough_shop.stripe.control.clear_faults()


def milliseconds_until(signal: Callable[[], object], task: Task, state: str) -> float:
    """How long after the signal the call ended, which it must with this SQLSTATE."""
    started = time.monotonic()
    signal()
    with refused(state):
        task.result()
    return (task.ended_at - started) * 1000


def test_a_cancel_ends_a_call_within_100_ms_and_the_connection_goes_on(stuck):
    def cancel() -> None:
        stuck.shop.db.execute("select pg_cancel_backend(%s)", (stuck.pid,))

    took = [milliseconds_until(cancel, stuck.call(), "57014") for _ in range(5)]
    assert statistics.median(took) < 100, took
    stuck.mend()
    assert stuck.shop.checkout(stuck.connection).status == "open"


@pytest.mark.skipif(not os.path.exists("/proc/self/fd"), reason="counts in /proc")
def test_cancelled_calls_leave_neither_descriptors_nor_threads(stuck):
    def left() -> tuple[int, int]:
        return len(os.listdir(f"/proc/{stuck.pid}/fd")), len(os.listdir(f"/proc/{stuck.pid}/task"))

    counted = []
    for _ in range(4):
        task = stuck.call()
        stuck.shop.db.execute("select pg_cancel_backend(%s)", (stuck.pid,))
        with refused("57014"):
            task.result()
        counted.append(left())
    assert counted[-1] <= counted[0]


def test_a_statement_timeout_ends_a_call(stuck):
    stuck.connection.execute("set statement_timeout = '400ms'")
    started = time.monotonic()
    task = stuck.call()
    with refused("57014"):
        task.result()
    assert 0.4 <= task.ended_at - started < 2
    stuck.connection.execute("reset statement_timeout")
    stuck.mend()
    assert stuck.shop.checkout(stuck.connection).status == "open"


def test_a_terminated_backend_ends_and_no_other(stuck):
    def terminate() -> None:
        stuck.shop.db.execute("select pg_terminate_backend(%s)", (stuck.pid,))

    assert milliseconds_until(terminate, stuck.call(), "57P01") < 1000
    assert stuck.connection.broken
    assert "terminated by signal" not in stuck.shop.db.cluster.log_text()
    assert stuck.shop.db.value("select 1") == 1


def test_the_budget_ends_a_call(stuck):
    stuck.connection.execute("set payments.http_timeout = '400ms'")
    started = time.monotonic()
    task = stuck.call()
    with refused("PT504", "stripe_timed_out"):
        task.result()
    assert 0.4 <= task.ended_at - started < 2


def test_a_database_elsewhere_can_be_dropped_meanwhile(stuck):
    task = stuck.call()
    stuck.shop.db.execute("create database elsewhere template template0")
    started = time.monotonic()
    stuck.shop.db.execute("drop database elsewhere")
    assert time.monotonic() - started < 2
    assert task.running
    stuck.shop.db.execute("select pg_cancel_backend(%s)", (stuck.pid,))
    with refused("57014"):
        task.result()


def test_a_transaction_timeout_ends_a_call(shop, postgres):
    if postgres.major < 17:
        pytest.skip("Postgres has transaction_timeout from 17 on")
    connection = shop.db.connect()
    connection.execute("set transaction_timeout = '400ms'")
    shop.stripe.control.fault("silent", path=SESSIONS)
    started = time.monotonic()
    with refused("25P04"):
        shop.checkout(connection)
    assert 0.4 <= time.monotonic() - started < 2


def test_the_call_of_a_client_that_vanished_ends(shop):
    connection = shop.db.connect()
    connection.execute("set client_connection_check_interval = '50ms'; set payments.http_timeout = '20s'")
    shop.stripe.control.fault("silent", path=SESSIONS)
    task = Task(lambda: shop.checkout(connection))
    shop.stripe.control.wait_for_requests(path=SESSIONS)
    client = socket.socket(fileno=os.dup(connection.pgconn.socket))
    client.shutdown(socket.SHUT_RDWR)
    client.close()
    started = time.monotonic()
    alive = "select count(*) from pg_stat_activity where pid = %s"
    while shop.db.value(alive, (connection.info.backend_pid,)) and time.monotonic() - started < 5:
        time.sleep(0.02)
    assert time.monotonic() - started < 2
    with pytest.raises(psycopg.OperationalError):
        task.result()


@contextmanager
def connections_made(shop: Shop) -> Iterator[list[int]]:
    """How many connections to Stripe the block made."""
    made: list[int] = []
    before = shop.stripe.control.connections()["accepted"]
    yield made
    made.append(shop.stripe.control.connections()["accepted"] - before)


def test_one_connection_serves_many_calls_and_transactions(shop):
    connection = shop.db.connect()
    with connections_made(shop) as made:
        for _ in range(5):
            shop.checkout(connection)
        with pytest.raises(ZeroDivisionError), connection.transaction():
            shop.checkout(connection)
            raise ZeroDivisionError
        shop.checkout(connection)
    assert made == [1]
    assert len(shop.asked()) == 7


def test_one_connection_serves_many_calls_over_tls(rough_shop):
    rough_shop.stripe.control.clear_faults()
    connection = rough_shop.db.connect()
    with connections_made(rough_shop) as made:
        for _ in range(5):
            assert rough_shop.checkout(connection).status == "open"
    assert made == [1]


def test_a_name_is_looked_up_only_to_connect(rough_shop, slow_lookup):
    if slow_lookup is None:
        pytest.skip("there is no C compiler (cc) to build a library with that sees lookups")
    lookups = lookups_of(slow_lookup)
    rough_shop.stripe.control.clear_faults()
    connection = rough_shop.db.connect()
    before = lookups.read_text()
    for _ in range(3):
        rough_shop.checkout(connection)
    assert lookups.read_text().removeprefix(before) == "localhost\n"


def test_a_connection_that_failed_is_not_used_again(shop):
    connection = shop.db.connect()
    shop.checkout(connection)
    for fault in ({"kind": "drop"}, {"kind": "half"}, {"kind": "drop", "style": "reset"}):
        shop.stripe.control.fault(path=SESSIONS, **fault)
        assert shop.checkout(connection).status == "open"


def test_an_answer_that_goes_on_after_its_end_confuses_nobody(shop):
    connection = shop.db.connect()
    shop.stripe.control.fault("wrong_length", path=SESSIONS, style="shorter", times=None)
    with refused("PT502"):
        shop.checkout(connection)
    shop.stripe.control.clear_faults()
    assert shop.checkout(connection).status == "open"


def test_what_passes_is_tried_again_in_the_same_call(shop):
    for fault in (
        {"kind": "server_error", "stored": False, "times": 2},
        {"kind": "server_error", "status": 503, "times": 2},
        {"kind": "status", "status": 409, "body": "{}"},
        {"kind": "drop", "processed": False},
        {"kind": "half"},
        {"kind": "rate_limit", "retry_after": 0},
        {"kind": "rate_limit", "should_retry": True},
    ):
        shop.stripe.control.clear_requests()
        shop.stripe.control.fault(path=SESSIONS, **fault)
        assert shop.checkout("alice").status == "open", fault
        asked = shop.asked()
        assert len(asked) == fault.get("times", 1) + 1, fault
        assert len({one["idempotency_key"] for one in asked}) == 1
        assert len({one["body"] for one in asked}) == 1


def test_what_does_not_pass_is_not_tried_again(shop):
    for fault, state in (
        ({"kind": "server_error", "should_retry": False}, "PT502"),
        ({"kind": "rate_limit"}, "PT429"),
        ({"kind": "rate_limit", "retry_after": 60}, "PT429"),
        ({"kind": "redirect"}, "PT502"),
        ({"kind": "status", "status": 400, "body": "{}"}, "PT400"),
        ({"kind": "status", "status": 400, "body": "{}", "headers": {"Stripe-Should-Retry": "false"}}, "PT400"),
    ):
        shop.stripe.control.clear_requests()
        shop.stripe.control.fault(path=SESSIONS, **fault)
        started = time.monotonic()
        with refused(state):
            shop.checkout("alice")
        assert len(shop.asked()) == 1, fault
        assert time.monotonic() - started < 2


def test_a_rate_limit_that_says_when_is_waited_for(shop):
    shop.stripe.control.fault("rate_limit", path=SESSIONS, retry_after=1)
    started = time.monotonic()
    assert shop.checkout("alice").status == "open"
    assert 1 <= time.monotonic() - started < 3


def test_all_that_a_call_asks_shares_one_budget(shop):
    shop.set("payments.http_timeout", "900ms")
    for path in ("/v1/customers", "/v1/prices/*", SESSIONS):
        shop.stripe.control.fault("delay", path=path, before=0.5)
    started = time.monotonic()
    with refused("PT504", "stripe_timed_out"):
        shop.checkout("alice")
    assert 0.9 <= time.monotonic() - started < 2


JUNK = [
    ({"kind": "junk", "style": style, "times": None}, "PT502", "stripe_malformed")
    for style in ("html", "truncated", "empty", "list", "deep")
]


@pytest.mark.parametrize(
    "fault, state, code",
    [
        *JUNK,
        ({"kind": "junk", "style": "types"}, "PT502", "malformed_answer"),
        ({"kind": "redirect"}, "PT502", "stripe_redirected"),
        ({"kind": "endless", "style": "length"}, "PT502", "stripe_answer_too_large"),
        ({"kind": "endless"}, "PT502", "stripe_answer_too_large"),
        ({"kind": "forbidden"}, "55000", "permission_missing"),
        ({"kind": "card_declined"}, "PT402", "card_refused"),
    ],
    ids=lambda value: " ".join(map(str, value.values())) if isinstance(value, dict) else None,
)
def test_an_answer_that_is_none_leaves_nothing(shop, fault, state, code):
    shop.set("payments.http_max_response_size", "256kB")
    shop.stripe.control.fault(path=SESSIONS, **fault)
    with refused(state, code) as refusal:
        shop.checkout("alice", idempotency_key="order:7")
    assert refusal.message
    assert shop.sessions() == []
    shop.stripe.control.clear_faults()
    assert shop.checkout("alice", idempotency_key="order:7").status == "open"


def test_a_certificate_that_nobody_vouches_for_is_refused(shop, secure):
    shop.set("payments.stripe_api_base", secure.base_url)
    secure.control.clear_requests()
    started = time.monotonic()
    with refused("PT502", "stripe_unreachable"):
        shop.checkout("alice")
    assert time.monotonic() - started < 2
    assert secure.control.requests() == []


def test_a_name_that_does_not_exist_is_told(shop):
    shop.set("payments.stripe_api_base", "https://stripe.invalid")
    shop.set("payments.http_timeout", "2s")
    with refused("PT502", "stripe_unreachable") as refusal:
        shop.checkout("alice")
    assert "payments.stripe_api_base" in refusal.hint


def test_nobody_listening_is_told(shop):
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        shop.set("payments.stripe_api_base", f"http://127.0.0.1:{unused.getsockname()[1]}")
        shop.set("payments.http_timeout", "500ms")
        with refused("PT502", "stripe_unreachable"):
            shop.checkout("alice")
