"""A shop: a database with the extension, connected to the fake Stripe; its users buy for themselves and their teams."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import psycopg
import pytest
from psycopg import sql
from psycopg.types.json import Jsonb

from fake_stripe import FakeStripe
from harness.database import Database

APP = """
select payments.open_to_apps('test');
select payments.grant_app('authenticated');
select payments.grant_app('anon');

create function public.user_id() returns text
language sql stable
return nullif(pg_catalog.current_setting('request.jwt.claims', true), '')::json ->> 'sub';

create policy users on payments.checkout_sessions for insert to authenticated
    with check (subject_type = 'user' and subject_id = public.user_id());
create policy members on payments.checkout_sessions for insert to authenticated
    with check (subject_type = 'team' and subject_id = 'red' and public.user_id() in ('alice', 'bob'));
create policy visitors on payments.checkout_sessions for insert to anon
    with check (subject_type is null and mode = 'payment');
create policy users on payments.customer_portal_sessions for insert to authenticated
    with check (subject_type = 'user' and subject_id = public.user_id());
create policy members on payments.customer_portal_sessions for insert to authenticated
    with check (subject_type = 'team' and subject_id = 'red' and public.user_id() in ('alice', 'bob'));
"""

URLS = {
    "success_url": "https://shop.example/thanks?session={CHECKOUT_SESSION_ID}",
    "cancel_url": "https://shop.example/cart",
}

Who = str | psycopg.Connection | None
"""Who calls: a user by name, in a request of their own; an open connection; or a visitor without a name."""


class Refusal:
    """An error as a program sees it; filled in when it has been raised."""

    sqlstate: str
    message: str
    detail: dict[str, Any]
    hint: str | None


@contextmanager
def refused(sqlstate: str, code: str | None = None, **detail: Any) -> Iterator[Refusal]:
    """The block must raise this SQLSTATE, with this code and these fields in its DETAIL."""
    refusal = Refusal()
    with pytest.raises(psycopg.Error) as caught:
        yield refusal
    error = caught.value
    refusal.sqlstate, refusal.message, refusal.hint = (
        error.sqlstate,
        error.diag.message_primary,
        error.diag.message_hint,
    )
    refusal.detail = json.loads(error.diag.message_detail) if code else {}
    wanted = {"code": code, **detail} if code else {}
    said = {name: refusal.detail.get(name) for name in wanted}
    assert (refusal.sqlstate, said) == (sqlstate, wanted), error


class Task:
    """Something that runs in a thread of its own."""

    def __init__(self, work: Callable[[], Any]) -> None:
        self._outcome: list[Any] = []
        self._error: BaseException | None = None
        self.ended_at = 0.0
        self._thread = threading.Thread(target=self._run, args=(work,), daemon=True)
        self._thread.start()

    def _run(self, work: Callable[[], Any]) -> None:
        try:
            self._outcome.append(work())
        except BaseException as error:  # Raised again by `result`.
            self._error = error
        self.ended_at = time.monotonic()

    @property
    def running(self) -> bool:
        return self._thread.is_alive()

    def result(self, timeout: float = 20) -> Any:
        """What it returned, or raises what it raised."""
        self._thread.join(timeout)
        assert not self.running, f"still running after {timeout} s"
        if self._error:
            raise self._error
        return self._outcome[0]


class Shop:
    """The shop, with a shirt to sell, and a plan to subscribe to."""

    def __init__(self, db: Database, stripe: FakeStripe) -> None:
        self.db, self.stripe = db, stripe
        db.execute("select payments.set_stripe_key('test', %s)", (stripe.test_key,))
        db.execute("select payments.set_webhook_secret('test', %s)", (stripe.webhook_secret,))
        db.execute(APP)
        self.shirt = stripe.control.price(1900)["id"]
        self.plan = stripe.control.price(900, name="Pro", interval="month", lookup_key="pro_monthly")["id"]
        stripe.control.clear_requests()

    def checkout(self, who: Who = None, **arguments: Any) -> Any:
        """`create_checkout_session` for one shirt, or one plan in subscription mode, unless told otherwise."""
        mode = arguments.setdefault("mode", "payment")
        price = self.shirt if mode == "payment" else self.plan
        defaults: dict[str, Any] = {"line_items": [{"stripe_price_id": price}], **URLS}
        if isinstance(who, str):
            defaults["subject"] = {"type": "user", "id": who}
        return self.call("create_checkout_session", who, {**defaults, **arguments})

    def portal(self, who: Who = None, **arguments: Any) -> Any:
        """`create_customer_portal_session` for whoever calls."""
        if isinstance(who, str):
            arguments.setdefault("subject", {"type": "user", "id": who})
        return self.call("create_customer_portal_session", who, arguments)

    def call(self, function: str, who: Who, arguments: dict[str, Any]) -> Any:
        """Calls a function of payments by named arguments: the row it returns."""
        named = sql.SQL(", ").join(sql.SQL("{} => %s").format(sql.Identifier(name)) for name in arguments)
        statement = sql.SQL("select * from payments.{}({})").format(sql.Identifier(function), named)
        values = [Jsonb(value) if isinstance(value, (dict, list)) else value for value in arguments.values()]
        if isinstance(who, psycopg.Connection):
            return who.execute(statement, values).fetchone()
        with self.db.request(who) as connection:
            return connection.execute(statement, values).fetchone()

    def sessions(self) -> list[Any]:
        """The rows of checkout_sessions, oldest first."""
        return self.db.execute("select * from payments.checkout_sessions order by created_at, generation").fetchall()

    def asked(self, path: str = "/v1/checkout/sessions", method: str = "POST") -> list[dict[str, Any]]:
        """What Stripe was asked at a path."""
        return self.stripe.control.requests(path, method)

    def deliver(self, *types: str) -> list[Any]:
        """Hands over the webhooks that were not handed over yet: their receipts."""
        return [self.receive(event) for event in self.stripe.control.deliveries(types=list(types))]

    def receive(self, delivery: dict[str, str], connection: psycopg.Connection | None = None) -> Any:
        """Hands over one webhook."""
        statement = "select * from payments.handle_webhook('test', %s, %s)"
        receiver = connection or self.db
        return receiver.execute(statement, (delivery["body"], delivery["signature"])).fetchone()

    def buy(self, who: Who = None, **arguments: Any) -> Any:
        """A checkout that is paid and whose webhooks have come in: the row it had before."""
        session = self.checkout(who, **arguments)
        self.stripe.control.complete(session.stripe_checkout_session_id)
        self.deliver()
        return session

    def set(self, setting: str, value: str) -> None:
        """Sets a setting for every connection to come."""
        statement = sql.SQL("alter database {} set {} = {}")
        name = sql.Identifier(*setting.split("."))
        self.db.execute(statement.format(sql.Identifier(self.db.name), name, sql.Literal(value)))


def waits_for_a_lock(db: Database, pid: int, timeout: float = 5) -> bool:
    """Waits until a backend waits for a lock."""
    deadline = time.monotonic() + timeout
    while time.monotonic() < deadline:
        if db.value("select wait_event_type = 'Lock' from pg_stat_activity where pid = %s", (pid,)):
            return True
        time.sleep(0.01)
    return False
