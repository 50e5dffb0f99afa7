"""Carries events to a database, as Stripe does, or a gateway in its place.

An event is made here where a test says what is in it, or by the fake Stripe where it only
says what happened.
"""

from __future__ import annotations

import itertools
import json
from typing import Any, NamedTuple

import psycopg

from fake_stripe.webhooks import sign
from harness.database import Database

SECRET = "whsec_test_of_the_test_environment"
LIVE_SECRET = "whsec_test_of_the_live_environment"
CREATED = 1_790_000_000
"""When events happened that do not say otherwise."""

_numbers = itertools.count(1)


def event(kind: str, object: Any, *, id: str | None = None, created: int = CREATED, **fields: Any) -> dict[str, Any]:
    """A snapshot event of Stripe's (https://docs.stripe.com/api/events/object)."""
    return {
        "id": id or f"evt_{next(_numbers)}",
        "object": "event",
        "api_version": "2026-10-28.endive",
        "created": created,
        "data": {"object": object},
        "livemode": False,
        "pending_webhooks": 1,
        "request": {"id": None, "idempotency_key": None},
        "type": kind,
        **fields,
    }


def product(id: str = "prod_1", **fields: Any) -> dict[str, Any]:
    """A product: what an event can tell without anything else having happened."""
    return {"id": id, "object": "product", "active": True, "created": CREATED, "metadata": {}, "name": "Tea", **fields}


class Answer(NamedTuple):
    """What a gateway answers Stripe."""

    status: int
    sqlstate: str | None
    receipt: Any


class Postman:
    """Delivers to one database, whose secrets and gateway it sets up."""

    def __init__(self, db: Database, secret: str = SECRET) -> None:
        self.db = db
        self.secret = secret
        db.execute("select payments.set_webhook_secret('test', %s)", (secret,))
        db.execute("create schema api; grant usage on schema api to anon, authenticated; select payments.expose('api')")
        db.execute("select payments.grant_webhook('anon')")

    def deliver(
        self,
        event: dict[str, Any] | str,
        *,
        signature: str | None = None,
        environment: str = "test",
        connection: psycopg.Connection | None = None,
    ) -> Any:
        """One delivery to `handle_webhook`, as the superuser unless a connection says otherwise: the receipt."""
        body = event if isinstance(event, str) else json.dumps(event)
        arguments = (environment, body, self.sign(body) if signature is None else signature)
        execute = (connection or self.db).execute
        return execute("select * from payments.handle_webhook(%s, %s, %s)", arguments).fetchone()

    def post(self, event: dict[str, Any] | str, *, signature: str | None = None, role: str | None = None) -> Answer:
        """One delivery by way of a gateway, as PostgREST passes it on and answers it.

        https://docs.postgrest.org/en/stable/references/errors.html#status-codes
        """
        body = event if isinstance(event, str) else json.dumps(event)
        headers = {"Stripe-Signature": self.sign(body) if signature is None else signature}
        try:
            with self.db.request(role=role, headers=headers, path="/rpc/stripe_webhook") as request:
                receipt = request.execute("select * from api.stripe_webhook(%s::json)", (body,)).fetchone()
                status = request.execute("select current_setting('response.status', true) as status").fetchone().status
                return Answer(int(status or 200), None, receipt)
        except psycopg.Error as error:
            return Answer(_status(error.sqlstate), error.sqlstate, None)

    def sign(self, body: str, **options: Any) -> str:
        return sign(body, [self.secret], **options)

    def recorded(self) -> list[Any]:
        """The log, in the order in which events came."""
        return self.db.execute("select * from payments.webhook_events order by received_at").fetchall()

    def mirrored(self) -> list[tuple[str, str]]:
        """The mirrored objects, by type and id."""
        return self.db.execute("select object_type, object_id from payments.stripe_objects order by 1, 2").fetchall()


def _status(sqlstate: str) -> int:
    if sqlstate.startswith("PT"):
        return int(sqlstate[2:])
    return {"22": 400, "42": 403}.get(sqlstate[:2], 500)
