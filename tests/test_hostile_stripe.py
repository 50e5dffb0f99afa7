"""A Stripe that does everything wrong, at every call: bounded in time and memory, told by the right SQLSTATE,
nothing half written, the connection good, and one object made once Stripe behaves.

Each fault meets at least one function here, and each function one fault. `tests/prove.sh hostile` lets every
fault meet every function, at its first request and at the one that changes something.
"""

from __future__ import annotations

import itertools
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psycopg
import pytest
from psycopg.types.json import Jsonb
from test_roles import FUNCTIONS

from backend import resident
from fake_stripe import FakeStripe
from fake_stripe.faults import KINDS, Fault
from harness import database
from shop import URLS, Shop, refused

BUDGET = 0.7
"""Seconds that a call may take, retries included."""

GRACE = 2.5
"""Seconds that a busy machine may add."""

MEMORY = 64 << 10
"""Kilobytes that a backend may grow by, whatever it is sent."""


@dataclass(frozen=True)
class Wrong:
    """Something wrong with Stripe: a fault of the fake's, or an address, and what a caller is told."""

    states: set[str]
    fault: dict[str, Any] | None = None
    base: str | None = None

    @property
    def is_kept(self) -> bool:
        """Whether Stripe repeats it to whoever comes with the same idempotency key."""
        return self.fault is not None and self.fault["kind"] in ("server_error", "card_declined") and self._is_stored

    @property
    def _is_stored(self) -> bool:
        return bool(Fault(**self.fault).stored)

    @contextmanager
    def done(self, shop: Shop, connection: psycopg.Connection, method: str) -> Iterator[None]:
        """Does it to every request of this method."""
        control = shop.stripe.control
        if self.fault:
            if self.fault["kind"] == "no_handshake":
                # So that there is one to be made.
                control.fault("drop", processed=False)
            control.fault(**{"times": None, "method": method, **self.fault})
        if self.base:
            connection.execute("select set_config('payments.stripe_api_base', %s, false)", (self.base,))
        connection.execute(f"set payments.http_timeout = '{BUDGET * 1000:.0f}ms'")
        yield
        control.clear_faults()
        connection.execute("reset payments.stripe_api_base; reset payments.http_timeout")


def fault(states: str, kind: str, **options: Any) -> Wrong:
    return Wrong(set(states.split()), {"kind": kind, **options})


WRONG = {
    # No connection
    "nobody listens": Wrong({"PT502"}, base="http://127.0.0.1:1"),
    "no such name": Wrong({"PT502", "PT504"}, base="https://stripe.invalid"),
    "no handshake": fault("PT502 PT504", "no_handshake"),
    "dropped": fault("PT502", "drop"),
    "dropped before it was read": fault("PT502", "drop", processed=False),
    "reset": fault("PT502", "drop", style="reset"),
    "reset before it was read": fault("PT502", "drop", style="reset", processed=False),
    # No answer in time
    "silence": fault("PT504", "silent"),
    "silence after the deed": fault("PT504", "silent", processed=True),
    "late": fault("PT504", "delay", before=1.5),
    "late after the deed": fault("PT504", "delay", after=1.5),
    "dripping": fault("PT504", "drip", seconds=0.05),
    "dripping head": fault("PT504", "drip", style="head", seconds=0.05),
    "ever provisional": fault("PT502 PT504", "provisional", seconds=0.02),
    "less than announced": fault("PT502 PT504", "wrong_length", style="longer"),
    # Half an answer, or more than one
    "half": fault("PT502", "half"),
    "half, then reset": fault("PT502", "half", style="reset"),
    "more than announced": fault("PT502", "wrong_length", style="shorter"),
    "endless": fault("PT502", "endless"),
    "endless, by length": fault("PT502", "endless", style="length"),
    "endless head": fault("PT502", "endless", style="head"),
    "huge": fault("PT502 PT504", "junk", style="huge"),
    # Not what was asked for
    "another protocol": fault("PT502", "garbled", style="protocol"),
    "no status": fault("PT502", "garbled", style="status"),
    "bad chunks": fault("PT502", "garbled", style="chunks"),
    "a page of HTML": fault("PT502", "junk", style="html"),
    "truncated JSON": fault("PT502", "junk", style="truncated"),
    "nothing": fault("PT502", "junk", style="empty"),
    "binary": fault("PT502", "junk", style="binary"),
    "a list": fault("PT502", "junk", style="list"),
    "deep JSON": fault("PT502", "junk", style="deep"),
    "wrong types": fault("PT502", "junk", style="types"),
    "the wrong object": fault("PT502", "junk", style="file"),
    "a redirect": fault("PT502", "redirect"),
    # An error
    "a conflict": fault("PT409", "status", status=409, body="{}"),
    "too many requests": fault("PT429", "rate_limit"),
    "too many requests, for long": fault("PT429", "rate_limit", retry_after=60),
    "too many requests, for a moment": fault("PT429", "rate_limit", retry_after=0),
    "an error of Stripe's": fault("PT502", "server_error"),
    "an error of Stripe's, not to be retried": fault("PT502", "server_error", should_retry=False),
    "an error of Stripe's, after the deed": fault("PT502", "server_error", processed=True),
    "unavailable": fault("PT502", "status", status=503, body="upstream connect error"),
    "unavailable, to be retried": fault(
        "PT502", "status", status=503, headers={"Stripe-Should-Retry": "true", "Retry-After": "0"}
    ),
    "no permission": fault("55000", "forbidden"),
    "key unknown": fault("55000", "status", status=401, body='{"error": {"type": "invalid_request_error"}}'),
    "no such version": fault("PT400", "status", status=400, body='{"error": {"message": "Invalid version"}}'),
    "a declined card": fault("PT402", "card_declined"),
}
"""What Stripe, or whoever stands in its place, does, and the SQLSTATEs that say so."""


@dataclass(frozen=True)
class Call:
    """A function that asks Stripe: how what it needs is made, and what it makes.

    `makes` is where Stripe lists it, `method` the request that does it. One that is `patient` tells what went wrong
    in the row that it returns, and comes back to it. One that `replaces` leaves one, however many there were. One
    that is `literal` sends the caller's idempotency key and no other. What is `forgiven` is dealt with.
    """

    method: str
    arguments: Callable[[Shop, int], dict[str, Any]]
    makes: str | None = None
    patient: bool = False
    replaces: bool = False
    literal: bool = False
    forgiven: tuple[str, ...] = ()


def subject(number: int) -> dict[str, str]:
    return {"type": "user", "id": f"user {number}"}


def checkout(shop: Shop, number: int, **more: Any) -> dict[str, Any]:
    return {
        "environment": "test",
        "mode": "payment",
        "line_items": [{"stripe_price_id": shop.shirt}],
        "subject": subject(number),
        "idempotency_key": f"order:{number}",
        **URLS,
        **more,
    }


def customer(shop: Shop, number: int) -> dict[str, Any]:
    made = shop.stripe.control.call("POST", "/v1/customers", {"email": f"{number}@example.com"})
    return {"environment": "test", "subject": subject(number), "stripe_customer_id": made["id"]}


def known(shop: Shop, number: int) -> dict[str, Any]:
    shop.call("link_customer", shop.admin, customer(shop, number))
    return {"environment": "test", "subject": subject(number), "return_url": "https://shop.example/"}


def bought(shop: Shop, number: int, what: str, **options: Any) -> Any:
    """A row of what somebody bought."""
    shop.buy(shop.admin, **checkout(shop, number, **options))
    query = f"select * from payments.{what} where subject_id = %s and stripe_customer_id is not null"
    return shop.db.execute(query, (f"user {number}",)).fetchone()


def subscription(shop: Shop, number: int, **more: Any) -> dict[str, Any]:
    items = [{"stripe_price_id": shop.plan}]
    row = bought(shop, number, "subscriptions", mode="subscription", line_items=items)
    return {"environment": "test", "id": row.stripe_subscription_id, **more}


def payment(shop: Shop, number: int) -> dict[str, Any]:
    row = bought(shop, number, "payment_history")
    return {"environment": "test", "payment_id": row.id, "idempotency_key": f"refund:{number}"}


def product(shop: Shop, number: int) -> str:
    return shop.stripe.control.call("POST", "/v1/products", {"name": f"Product {number}"})["id"]


def known_product(shop: Shop, number: int) -> str:
    made = shop.call("create_product", shop.admin, {"environment": "test", "name": f"Product {number}"})
    return made.stripe_product_id


def price(shop: Shop, number: int) -> str:
    wanted = {"product": product(shop, number), "currency": "usd", "unit_amount": 500}
    return shop.stripe.control.call("POST", "/v1/prices", wanted)["id"]


def here(shop: Shop, number: int) -> dict[str, Any]:
    """Everything was read, and then something happened."""
    shop.admin.execute("call payments.poll_events('test')")
    shop.admin.execute("call payments.sync('test')")
    product(shop, number)
    return {"environment": "test"}


CALLS = {
    "archive_price": Call("POST", lambda shop, n: {"environment": "test", "stripe_price_id": price(shop, n)}),
    "cancel_subscription": Call("POST", subscription),
    "configure_webhook": Call(
        "POST",
        lambda shop, n: {"environment": "test", "url": f"https://shop.example/{n}/stripe_webhook"},
        "/v1/webhook_endpoints",
        replaces=True,
    ),
    "create_checkout_session": Call("POST", checkout, "/v1/checkout/sessions"),
    "create_customer_portal_session": Call("POST", known),
    "create_price": Call(
        "POST",
        lambda shop, n: {
            "environment": "test",
            "stripe_product_id": product(shop, n),
            "currency": "usd",
            "unit_amount": 500,
            "idempotency_key": f"price:{n}",
        },
        "/v1/prices",
        literal=True,
    ),
    "create_product": Call(
        "POST",
        lambda shop, n: {"environment": "test", "name": f"Tea {n}", "idempotency_key": f"product:{n}"},
        "/v1/products",
        literal=True,
    ),
    "delete_product": Call(
        "DELETE",
        lambda shop, n: {"environment": "test", "stripe_product_id": known_product(shop, n)},
        # A product that Stripe refuses to delete is archived.
        forgiven=("no such version", "a declined card"),
    ),
    "link_customer": Call("GET", customer),
    "poll_due": Call("GET", here, patient=True),
    "poll_page": Call("GET", here, patient=True),
    "poll_step": Call("GET", here, patient=True),
    "refund_payment": Call("POST", payment, "/v1/refunds"),
    "set_stripe_key": Call(
        "GET",
        lambda shop, n: {"environment": "test", "secret_key": shop.stripe.test_key},
        # status() says what the key lacks.
        forgiven=("no permission",),
    ),
    "sync_next": Call("GET", here, patient=True),
    "sync_step": Call("GET", here, patient=True),
    "update_price": Call(
        "POST",
        lambda shop, n: {
            "environment": "test",
            "stripe_price_id": price(shop, n),
            "changes": {"metadata": {"size": "xl"}},
        },
    ),
    "update_product": Call(
        "POST",
        lambda shop, n: {
            "environment": "test",
            "stripe_product_id": product(shop, n),
            "changes": {"name": f"Coffee {n}"},
        },
    ),
    "update_subscription": Call("POST", lambda shop, n: subscription(shop, n, changes={"quantity": 2})),
}

THROUGH_OTHERS = {"sync": "sync_next", "poll_events": "poll_page", "poll_event": "poll_page"}
"""What asks Stripe by way of another function, again and again until it is told all."""

QUIET = {
    "catalog",
    "configure_checkout",
    "current_subscription",
    "expose",
    "failed_events",
    "grant_admin",
    "grant_app",
    "grant_webhook",
    "guard_session",
    "handle_webhook",
    "has_access",
    "install",
    "open_to_apps",
    "prune_webhook_events",
    "rebuild",
    "remove_simulated",
    "remove_stripe_key",
    "replay_event",
    "replay_failed",
    "set_webhook_secret",
    "simulate_event",
    "status",
    "stripe_webhook",
    "verify_signature",
}
"""What never asks Stripe."""


def meetings() -> list[tuple[str, str, str]]:
    """What goes wrong at which function, at requests of which method."""
    if os.environ.get("PAYMENTS_HOSTILE"):
        everywhere = itertools.product(WRONG, CALLS)
        return [(wrong, call, method) for wrong, call in everywhere for method in sorted({"*", CALLS[call].method})]
    pairs = zip(WRONG, itertools.cycle(CALLS), strict=False)
    return [(wrong, call, CALLS[call].method if place % 2 else "*") for place, (wrong, call) in enumerate(pairs)]


def test_every_function_and_every_fault_is_tried():
    """A new one is to be entered above."""
    assert len(CALLS) + len(THROUGH_OTHERS) + len(QUIET) == len(CALLS.keys() | THROUGH_OTHERS.keys() | QUIET)
    assert CALLS.keys() | THROUGH_OTHERS.keys() | QUIET == FUNCTIONS.keys()
    assert {wrong.fault["kind"] for wrong in WRONG.values() if wrong.fault} == set(KINDS)
    assert {call for _, call, _ in meetings()} == set(CALLS)


class Hostile(Shop):
    """A shop with one connection that has to stand everything."""

    def __init__(self, db: database.Database, stripe: FakeStripe) -> None:
        super().__init__(db, stripe)
        self.admin = db.connect()
        self.connection = db.connect()
        self.pid = self.connection.info.backend_pid
        self.connection.execute("set payments.http_max_response_size = '2MB'")
        self._numbers = itertools.count(1)

    def number(self) -> int:
        return next(self._numbers)

    def again(self, name: str, arguments: dict[str, Any]) -> Any:
        """Calls once more; later, where Stripe is still at work on what it was asked before."""
        deadline = time.monotonic() + 5
        while True:
            try:
                return self.call(name, self.connection, arguments)
            except psycopg.Error as error:
                if error.sqlstate != "PT409" or time.monotonic() > deadline:
                    raise
            time.sleep(0.1)

    def written(self) -> dict[str, str]:
        """A digest of each table, but for how far lists were read."""
        tables = self.db.execute(
            "select relname::text from pg_class where relnamespace = 'payments'::regnamespace and relkind = 'r' "
            "and relname not in ('sync_runs', 'secrets')"
        ).fetchall()
        digest = "select md5(string_agg(one::text, ',' order by one::text)) from payments.{} one"
        return {name: self.db.value(digest.format(name)) for (name,) in tables}

    def made(self, path: str | None) -> int:
        """How many objects Stripe lists at a path."""
        if path is None:
            return 0
        count, after = 0, {}
        while True:
            page = self.stripe.control.call("GET", path, {"limit": 100, **after})
            count += len(page["data"])
            if not page["has_more"]:
                return count
            after = {"starting_after": page["data"][-1]["id"]}


@pytest.fixture(scope="module")
def hostile(server) -> Iterator[Hostile]:
    db = database.create(server)
    with FakeStripe() as fake:
        db.execute(f"alter database {db.name} set payments.stripe_api_base = '{fake.base_url}'")
        db.disconnect()
        yield Hostile(db, fake)
    db.close()


@pytest.mark.parametrize(("wrong", "name", "method"), meetings(), ids=lambda value: value)
def test_what_stripe_does_wrong_is_told_and_leaves_nothing(hostile, wrong, name, method):
    call, forgiven, wrong = CALLS[name], wrong in CALLS[name].forgiven, WRONG[wrong]
    arguments = call.arguments(hostile, hostile.number())
    before, made, memory = hostile.written(), hostile.made(call.makes), resident(hostile.pid)
    with wrong.done(hostile, hostile.connection, method):
        began = time.monotonic()
        try:
            row, told = hostile.call(name, hostile.connection, arguments), None
        except psycopg.Error as error:
            row, told = None, error.sqlstate
        took = time.monotonic() - began
    assert took < BUDGET + GRACE
    if forgiven:
        assert told is None or told in wrong.states
        return
    if not (call.patient and told is None):
        # Where time ran out before Stripe had said anything, that is what is told.
        assert told in wrong.states | ({"PT504"} if took >= BUDGET else set()), row
    assert hostile.written() == before
    assert resident(hostile.pid) < memory + MEMORY
    assert hostile.connection.execute("select pg_backend_pid()").fetchone() == (hostile.pid,)

    hostile.db.execute("update payments.sync_runs set resume_at = null")
    if call.literal and wrong.is_kept:
        with pytest.raises(psycopg.Error) as repeated:
            hostile.again(name, arguments)
        assert repeated.value.sqlstate in wrong.states
        arguments["idempotency_key"] += " once more"
    assert hostile.again(name, arguments) is not None
    # What Stripe did and then kept an error for is not found again by any key.
    lost = wrong.is_kept and wrong.fault.get("processed", False)
    if call.makes:
        new = hostile.made(call.makes) - (0 if call.replaces else made)
        assert new == 1 or (lost and new == 2)
    assert hostile.connection.info.backend_pid == hostile.pid


@pytest.fixture(scope="module")
def impostors(make_cluster) -> Iterator[tuple[Shop, dict[str, FakeStripe]]]:
    """A shop on a server that trusts who signed the certificates of two impostors, but not of the third."""
    with (
        FakeStripe() as good,
        FakeStripe(tls=True) as trusted,
        FakeStripe(tls=True, certificate="expired") as expired,
        FakeStripe(tls=True, certificate="elsewhere") as elsewhere,
        FakeStripe(tls=True) as stranger,
    ):
        authorities = Path(trusted.ca_file).with_name("authorities.pem")
        authorities.write_text("".join(Path(fake.ca_file).read_text() for fake in (trusted, expired, elsewhere)))
        cluster = make_cluster(environment={"SSL_CERT_FILE": str(authorities)})
        database.furnish(cluster)
        db = database.create(cluster)
        db.execute(f"alter database {db.name} set payments.stripe_api_base = '{good.base_url}'")
        db.disconnect()
        fakes = {"trusted": trusted, "expired": expired, "elsewhere": elsewhere, "stranger": stranger}
        yield Shop(db, good), fakes
        db.close()


@pytest.mark.parametrize("who", ["expired", "elsewhere", "stranger"])
def test_a_wrong_certificate_is_told_nothing(impostors, who):
    shop, fakes = impostors
    connection = shop.db.connect()
    connection.execute("select set_config('payments.stripe_api_base', %s, false)", (fakes[who].base_url,))
    began = time.monotonic()
    with refused("PT502", "stripe_unreachable") as refusal:
        shop.checkout(connection, idempotency_key=who)
    assert time.monotonic() - began < GRACE
    assert "certificate" in refusal.message
    assert fakes[who].control.requests() == []
    assert shop.sessions() == []
    connection.execute("reset payments.stripe_api_base")


def test_the_right_certificate_is_trusted(impostors):
    """Else the test above would show nothing."""
    shop, fakes = impostors
    connection = shop.db.connect()
    trusted = fakes["trusted"]
    connection.execute("select set_config('payments.stripe_api_base', %s, false)", (trusted.base_url,))
    # This Stripe has other prices.
    with refused("22023", "invalid_argument"):
        shop.checkout(connection)
    assert trusted.control.requests() != []
