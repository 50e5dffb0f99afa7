"""One API request, from the bytes that came to the answer that leaves: no sockets here."""

from __future__ import annotations

import base64
import json
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from . import (
    form,
    resources,  # noqa: F401  (fills the table of endpoints)
)
from .api import Call, Endpoint, route
from .errors import StripeError, invalid, not_permitted, rate_limited
from .expand import render
from .faults import NONE, Fault
from .store import API_VERSION
from .world import Key, World


@dataclass
class Answer:
    """What to send, and what a fault makes of the sending. `status` 0 sends nothing at all."""

    status: int
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b""
    fault: Fault = field(default_factory=lambda: NONE)


def encoded(body: Any) -> bytes:
    """JSON as Stripe writes it."""
    return (json.dumps(body, indent=2, ensure_ascii=False) + "\n").encode("utf-8")


def bearer(authorization: str | None) -> str | None:
    """The key in an Authorization header, given as bearer token or as basic user name."""
    scheme, _, value = (authorization or "").partition(" ")
    if scheme.lower() == "bearer":
        return value.strip()
    if scheme.lower() == "basic":
        try:
            return base64.b64decode(value).decode().split(":")[0]
        except ValueError:
            return None
    return None


def _params(query: str, headers: Mapping[str, str], body: bytes) -> dict[str, Any]:
    kind = headers.get("content-type", "application/x-www-form-urlencoded").split(";")[0].strip()
    if body and kind != "application/x-www-form-urlencoded":
        raise invalid(
            "Invalid request (check that your POST content type is application/x-www-form-urlencoded). If you have "
            "any questions, we can help at https://support.stripe.com/."
        )
    try:
        text = body.decode("utf-8")
    except UnicodeDecodeError:
        raise invalid("Invalid request: parameters must be valid UTF-8") from None
    return form.decode("&".join(part for part in (query, text) if part))


class Service:
    """Answers requests out of a world."""

    def __init__(self, world: World) -> None:
        self.world = world

    def answer(
        self, method: str, path: str, query: str, headers: Mapping[str, str], body: bytes, connection: int = 0
    ) -> Answer:
        """Serve one request. `headers` has lower-case names."""
        world = self.world
        with world.lock:
            request_id = world.ids.request()
            fault = world.faults.take(method, path) or NONE
            entry = world.arrived(self._entry(method, path, query, headers, body, connection))
            entry["fault"] = None if fault is NONE else fault.kind
        if fault.kind in ("silent", "drop") and not fault.processed:
            time.sleep(fault.before)
            world.answered(entry, status=0)
            return Answer(0, fault=fault)
        request = _Request(world, method, path, query, headers, body, request_id, fault)
        try:
            status, own, sent = request.serve()
        except StripeError as error:
            status, own, sent = request.refuse(error)
        answer = Answer(status, {**request.head(), **own}, sent, fault)
        time.sleep(fault.after)
        world.answered(
            entry,
            status=0 if fault.kind in ("silent", "drop") else status,
            replayed="Idempotent-Replayed" in own,
            request_id=request_id,
        )
        return answer

    def _entry(
        self, method: str, path: str, query: str, headers: Mapping[str, str], body: bytes, connection: int
    ) -> dict[str, Any]:
        params: dict[str, Any] | None = None
        try:
            params = _params(query, headers, body)
        except StripeError:
            pass  # It is refused, and logged undecoded.
        return {
            "method": method,
            "path": path,
            "params": params,
            "body": body.decode("utf-8", "replace"),
            "key": bearer(headers.get("authorization")),
            "idempotency_key": headers.get("idempotency-key"),
            "stripe_version": headers.get("stripe-version"),
            "headers": {name: value for name, value in headers.items() if name != "authorization"},
            "connection": connection,
        }


class _Request:
    """The steps of one request, in the order in which Stripe takes them."""

    def __init__(
        self,
        world: World,
        method: str,
        path: str,
        query: str,
        headers: Mapping[str, str],
        body: bytes,
        request_id: str,
        fault: Fault,
    ) -> None:
        self.world, self.method, self.path, self.query = world, method, path, query
        self.headers, self.body, self.request_id, self.fault = headers, body, request_id, fault
        self.key: Key | None = None

    def head(self) -> dict[str, str]:
        """The headers that every answer has."""
        head = {
            "Server": "nginx",
            "Date": self.world.clock.date(),
            "Content-Type": "application/json",
            "Cache-Control": "no-cache, no-store",
            "Request-Id": self.request_id,
            "Stripe-Version": self.headers.get("stripe-version", API_VERSION),
        }
        if self.method == "POST" and "idempotency-key" in self.headers:
            head["Idempotency-Key"] = self.headers["idempotency-key"]
            head["Original-Request"] = self.request_id
        return head

    def refuse(self, error: StripeError) -> tuple[int, dict[str, str], bytes]:
        """An error as an answer."""
        body = error.body()
        if self.key is not None:
            body["error"]["request_log_url"] = "https://dashboard.stripe.com/{}/logs/{}?t={}".format(
                "live" if self.key.livemode else "test", self.request_id, self.world.clock.now()
            )
        return error.status, dict(error.headers), encoded(body)

    def serve(self) -> tuple[int, dict[str, str], bytes]:
        secret = bearer(self.headers.get("authorization"))
        with self.world.lock:
            self.key = key = self.world.authenticate(secret)
            if self.world.limited():
                raise rate_limited()
        endpoint, ids = route(self.method, self.path)
        write = self.method != "GET"
        if not key.may(endpoint.permission, write):
            wanted = endpoint.permission + ("_write" if write else "_read")
            raise not_permitted(key.secret, key.account, wanted)
        planned = self.fault.error(key.secret, key.account)
        if planned and not self.fault.processed and not self.fault.stored:
            time.sleep(self.fault.before)
            raise planned
        given = _params(self.query, self.headers, self.body)
        params = endpoint.schema.value(given, "")
        reuse = self.headers.get("idempotency-key") if self.method == "POST" else None
        if reuse is None:
            time.sleep(self.fault.before)
            return self._execute(key, endpoint, ids, params, planned)
        scope = (key.account, key.livemode)
        with self.world.lock:
            kept = self.world.idempotency.begin(scope, reuse, self.path, given, self.request_id)
        if kept is not None and kept.status is not None:
            replayed = {"Idempotent-Replayed": "true", "Original-Request": kept.request_id}
            return kept.status, {**kept.headers, **replayed}, kept.body
        done = None
        try:
            time.sleep(self.fault.before)
            done = self._execute(key, endpoint, ids, params, planned)
        finally:
            with self.world.lock:
                if done is not None and self.fault.stored:
                    self.world.idempotency.finish(scope, reuse, *done)
                else:
                    self.world.idempotency.forget(scope, reuse)
        return done

    def _execute(
        self, key: Key, endpoint: Endpoint, ids: tuple[str, ...], params: dict[str, Any], planned: StripeError | None
    ) -> tuple[int, dict[str, str], bytes]:
        """Run the endpoint, unless a fault comes first; an error from here on is an answer like any other."""
        fault = self.fault
        done: tuple[int, dict[str, str], bytes] | None = None
        if fault.processed:
            done = self._run(key, endpoint, ids, params)
        if planned is not None:
            if planned.status >= 500 and fault.stored:
                # A retry would only get the same again, and Stripe says so.
                planned.headers.setdefault("Stripe-Should-Retry", "false")
            done = self.refuse(planned)
        elif fault.kind == "status":
            done = (fault.status or 500, dict(fault.headers), (fault.body or "").encode())
        elif fault.kind == "redirect":
            done = (fault.status or 302, {"Location": fault.location}, b"")
        return done if done is not None else (200, {}, b"")

    def _run(
        self, key: Key, endpoint: Endpoint, ids: tuple[str, ...], params: dict[str, Any]
    ) -> tuple[int, dict[str, str], bytes]:
        paths: list[str] = params.get("expand", [])
        with self.world.lock:
            self.world.tick()
            store = self.world.store_of(key)
            store.request = {"id": self.request_id, "idempotency_key": self.headers.get("idempotency-key")}
            try:
                found = endpoint.handler(Call(store, params, ids, self.path))
                return 200, {}, encoded(render(store, found, paths))
            except StripeError as error:
                return self.refuse(error)
            finally:
                store.request = {"id": None, "idempotency_key": None}
