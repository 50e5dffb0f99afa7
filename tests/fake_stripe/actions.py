"""The remote control: each public method of `Control` is an action, in the process as `FakeStripe.control`, over HTTP
as `POST /_fake/<action>` with JSON arguments, and on the command line (see `control`).
"""

from __future__ import annotations

import inspect
import json
import time
from collections.abc import Sequence
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Any

from . import buyer, form, webhooks
from .api import Call, route
from .faults import KINDS
from .history import populate
from .ids import type_of
from .resources.disputes import close_dispute, open_dispute, update_dispute
from .resources.payments import capture_intent
from .resources.refunds import charge_of, fail_refund, open_refund, settle_refund
from .resources.sessions import expire_session
from .store import Object, Store, wants

if TYPE_CHECKING:
    from .fake import FakeStripe


class Control:
    """Every public method is an action, with plain values in and out."""

    def __init__(self, fake: FakeStripe) -> None:
        self._fake = fake
        self._world = fake.world
        self._handed: set[str] = set()

    def perform(self, action: str, arguments: dict[str, Any]) -> Any:
        """Do an action by name."""
        if action not in actions():
            raise LookupError("no such action: {}; there are {}".format(action, ", ".join(actions())))
        return getattr(self, action)(**arguments)

    def help(self) -> dict[str, str]:
        """Every action with its arguments."""
        return {name: f"{signature_of(name)}  {summary_of(name)}" for name in actions()}

    def about(self) -> dict[str, Any]:
        """Addresses, keys, the account and the default signing secret."""
        return self._fake.about()

    def reset(self) -> None:
        """Forget everything: objects, keys, faults, the log, and what the clock was set to."""
        with self._world.lock:
            self._handed.clear()
            self._world.reset()

    def clock(self, at: float | None = None, advance: float = 0, freeze: bool = False, unfreeze: bool = False) -> int:
        """Set Stripe's clock, let seconds pass, stop it or let it run: the time it then shows."""
        with self._world.lock:
            clock = self._world.clock
            if at is not None:
                clock.set(at)
            if advance:
                clock.advance(advance)
            if freeze:
                clock.freeze()
            if unfreeze:
                clock.unfreeze()
            self._world.tick()
            return clock.now()

    def add_key(self, key: str, account: str | None = None, permissions: list[str] | None = None) -> dict[str, Any]:
        """Make a key valid: of another account if named, restricted to permissions such as `customer_write`."""
        with self._world.lock:
            added = self._world.add_key(key, account or self._fake.account, permissions)
        return {"key": added.secret, "account": added.account, "livemode": added.livemode}

    def revoke_key(self, key: str) -> None:
        """Let a key expire."""
        with self._world.lock:
            self._world.keys[key].revoked = True

    def limit_rate(self, requests: int | None) -> None:
        """Answer 429 from so many requests a second on, as Stripe does beyond its limits; None lifts that."""
        with self._world.lock:
            self._world.rate = requests

    def lag_events(self, seconds: float, livemode: bool = False) -> None:
        """Keep events out of `GET /v1/events` for so long after they happened."""
        self._store(livemode).events_lag = seconds

    def call(self, method: str, path: str, params: dict[str, Any] | None = None, livemode: bool = False) -> Object:
        """An API call as the merchant, past faults and the log: the object it answers with."""
        with self._world.lock:
            self._world.tick()
            endpoint, ids = route(method.upper(), path)
            given = endpoint.schema.value(form.decode(form.encode(params or {})), "")
            return self._shown(endpoint.handler(Call(self._store(livemode), given, ids, path)))

    def price(
        self,
        unit_amount: int,
        name: str = "T-shirt",
        currency: str = "usd",
        interval: str | None = None,
        lookup_key: str | None = None,
        livemode: bool = False,
    ) -> Object:
        """A price of a new product, recurring if an interval is given."""
        params: dict[str, Any] = {"unit_amount": unit_amount, "currency": currency, "product_data": {"name": name}}
        if interval:
            params["recurring"] = {"interval": interval}
        if lookup_key:
            params["lookup_key"] = lookup_key
        return self.call("POST", "/v1/prices", params, livemode)

    def populate(self, objects: int, seconds: int = 3 * 365 * 86400, livemode: bool = False) -> dict[str, int]:
        """Years of business: so many objects of the past, without events; how many there are of each type."""
        with self._world.lock:
            return populate(self, self._store(livemode), objects, seconds)

    def get(self, id: str) -> Object:
        """Any object by its id, in whichever account and mode it is."""
        kind = type_of(id) or "product"
        with self._world.lock:
            return self._shown(self._world.find(kind, id)[1])

    def delete(self, id: str) -> Object:
        """Delete a customer or product, as in the dashboard."""
        kind = type_of(id) or "product"
        with self._world.lock:
            store, _ = self._world.find(kind, id)
            return self.call("DELETE", f"/v1/{kind}s/{id}", None, store.livemode)

    def update(self, id: str, changes: dict[str, Any]) -> Object:
        """Change a product, price, customer or subscription, as in the dashboard."""
        kind = type_of(id) or "product"
        with self._world.lock:
            store, _ = self._world.find(kind, id)
            return self.call("POST", f"/v1/{kind}s/{id}", changes, store.livemode)

    def complete(
        self, session: str, outcome: str = "paid", email: str | None = None, name: str | None = None
    ) -> Object:
        """The buyer completes a Checkout Session: `paid`, `processing` (then `settle`) or `free`."""
        if outcome not in ("paid", "processing", "free"):
            raise ValueError("outcome must be paid, processing or free")
        return self._with("checkout.session", session, buyer.complete, outcome=outcome, email=email, name=name)

    def decline(self, session: str, decline_code: str = "generic_decline") -> Object:
        """The buyer's card is declined; the session stays open."""
        return self._with("checkout.session", session, buyer.decline, decline_code=decline_code)

    def settle(self, session: str, succeeded: bool = True) -> Object:
        """The bank decides on a session that was completed with `processing`."""
        return self._with("checkout.session", session, buyer.settle, succeeded=succeeded)

    def expire(self, session: str) -> Object:
        """A Checkout Session expires."""
        return self._with("checkout.session", session, expire_session)

    def capture(self, payment_intent: str, amount: int | None = None) -> Object:
        """The merchant captures an authorised payment, or a part of it."""
        return self._with("payment_intent", payment_intent, capture_intent, amount=amount)

    def renew(self, subscription: str, succeeded: bool = True) -> Object:
        """The period ends: the next one is billed, or the subscription ends if it was to be cancelled."""
        return self._with("subscription", subscription, buyer.renew, succeeded=succeeded)

    def pay_invoice(self, invoice: str, succeeded: bool = True) -> Object:
        """Another attempt at an open invoice."""
        return self._with("invoice", invoice, buyer.pay_invoice, succeeded=succeeded)

    def cancel(self, subscription: str, at_period_end: bool = False) -> Object:
        """The subscriber cancels in the portal, now or at the end of the period."""
        return self._with("subscription", subscription, buyer.cancel, at_period_end=at_period_end)

    def resume(self, subscription: str) -> Object:
        """The subscriber takes a cancellation back."""
        return self._with("subscription", subscription, buyer.resume)

    def give_up(self, subscription: str, status: str = "canceled") -> Object:
        """The last retry failed: the subscription becomes `canceled` or `unpaid`."""
        return self._with("subscription", subscription, buyer.give_up, status=status)

    def refund(self, payment: str, amount: int | None = None, status: str = "succeeded") -> Object:
        """Refund a charge or payment intent, in part if an amount is given; `pending` waits for `settle_refund`."""
        with self._world.lock:
            kind = type_of(payment)
            store, _ = self._world.find(str(kind), payment)
            charge = charge_of(
                store, payment if kind == "charge" else None, payment if kind == "payment_intent" else None
            )
            given = {} if amount is None else {"amount": amount}
            return self._shown(open_refund(store, charge, given, status))

    def settle_refund(self, refund: str) -> Object:
        """A pending refund arrives."""
        return self._with("refund", refund, settle_refund)

    def fail_refund(self, refund: str) -> Object:
        """A refund comes back."""
        return self._with("refund", refund, fail_refund)

    def dispute(self, charge: str, amount: int | None = None, reason: str = "fraudulent") -> Object:
        """The buyer disputes a charge."""
        return self._with("charge", charge, open_dispute, amount=amount, reason=reason)

    def update_dispute(self, dispute: str, status: str) -> Object:
        """A dispute moves on, as to `under_review`."""
        return self._with("dispute", dispute, update_dispute, status=status)

    def close_dispute(self, dispute: str, status: str = "lost") -> Object:
        """A dispute is decided: `won` or `lost`."""
        return self._with("dispute", dispute, close_dispute, status=status)

    def events(self, after: str | None = None, types: list[str] | None = None, livemode: bool = False) -> list[Object]:
        """Events in the order they happened; types may end in `*`."""
        with self._world.lock:
            found = self._store(livemode).collection("event").oldest_first(after)
            return [self._shown(event) for event in found if _named(event["type"], types)]

    def emit(
        self,
        type: str,
        object: dict[str, Any],
        previous: dict[str, Any] | None = None,
        fields: dict[str, Any] | None = None,
        livemode: bool = False,
    ) -> Object:
        """An event of any type about any object, as `invoice.upcoming`, one of Connect, or a second one for a change.

        `fields` are set on the event itself: `account`, `api_version`, `created`, …
        """
        with self._world.lock:
            return self._shown(self._store(livemode).emit(type, object, previous, **(fields or {})))

    def deliveries(
        self,
        new: bool = True,
        types: list[str] | None = None,
        secrets: list[str] | None = None,
        timestamp: int | None = None,
        style: str = "plain",
        livemode: bool = False,
    ) -> list[dict[str, str]]:
        """Events as Stripe sends them, oldest first: `id`, `type`, exact `body`, `signature`.

        Each is handed over once, unless `new` is false. Without `secrets` they are signed with those of the endpoints
        that want them, else with the default secret. Styles are those of `sign`.
        """
        with self._world.lock:
            waiting = [
                event["id"]
                for event in self._store(livemode).collection("event").oldest_first()
                if _named(event["type"], types) and not (new and event["id"] in self._handed)
            ]
            self._handed.update(waiting)
            return [self.delivery(event, secrets, timestamp, style) for event in waiting]

    def delivery(
        self,
        event: str,
        secrets: list[str] | None = None,
        timestamp: int | None = None,
        style: str = "plain",
    ) -> dict[str, str]:
        """One event as Stripe sends it, signed afresh."""
        with self._world.lock:
            found = self._world.find("event", event)[1]
            body = webhooks.text(found)
        signature = webhooks.sign(body, secrets or self._secrets(event), timestamp, style)
        return {"id": event, "type": found["type"], "body": body, "signature": signature}

    def sign(
        self,
        body: str,
        secrets: list[str] | None = None,
        timestamp: int | None = None,
        style: str = "plain",
    ) -> str:
        """The `Stripe-Signature` of any text: `plain`, `v0`, `spaced`, `reordered`, `first_wrong`, `only_v0`, …"""
        return webhooks.sign(body, secrets or [self._fake.webhook_secret], timestamp, style)

    def send(
        self,
        url: str,
        types: list[str] | None = None,
        secrets: list[str] | None = None,
        new: bool = True,
        retries: int = 0,
        pause: float = 0.0,
        headers: dict[str, str] | None = None,
        livemode: bool = False,
    ) -> list[dict[str, Any]]:
        """Post events to a URL as Stripe does, in order: `id`, `type` and the `attempts` with `status` and `body`."""
        sent = []
        for one in self.deliveries(new, types, secrets, livemode=livemode):
            keys = secrets or self._secrets(one["id"])
            attempts = webhooks.post_until_accepted(url, one["body"], keys, retries, pause, headers)
            sent.append({"id": one["id"], "type": one["type"], "attempts": attempts})
        return sent

    def fault(self, kind: str, **options: Any) -> dict[str, Any]:
        """Queue a fault of one of `fault_kinds` for requests to come.

        The options are the fields of `faults.Fault`: path, method, times, skip, before, after, processed, stored, …
        """
        with self._world.lock:
            return self._world.faults.add(kind, **options)

    def fault_kinds(self) -> dict[str, str]:
        """What faults there are."""
        return {kind: what for kind, (what, _) in KINDS.items()}

    def faults(self) -> list[dict[str, Any]]:
        """Faults that are still queued."""
        with self._world.lock:
            return self._world.faults.waiting()

    def clear_faults(self) -> None:
        """Drop all queued faults."""
        with self._world.lock:
            self._world.faults.clear()

    def requests(self, path: str = "*", method: str = "*") -> list[dict[str, Any]]:
        """The request log, oldest first; `status` is None while in flight and 0 where nothing was answered."""
        with self._world.lock:
            return [
                dict(entry)
                for entry in self._world.log
                if fnmatchcase(entry["path"], path) and fnmatchcase(entry["method"], method)
            ]

    def clear_requests(self) -> None:
        """Empty the request log."""
        with self._world.lock:
            self._world.log.clear()

    def wait_for_requests(
        self, count: int = 1, path: str = "*", method: str = "*", timeout: float = 10.0
    ) -> list[dict[str, Any]]:
        """Wait until so many matching requests have arrived, answered or not."""
        deadline = time.monotonic() + timeout
        with self._world.changed:
            while True:
                found = self.requests(path, method)
                if len(found) >= count:
                    return found
                left = deadline - time.monotonic()
                if left <= 0:
                    raise TimeoutError(f"{len(found)} of {count} requests arrived within {timeout} s")
                self._world.changed.wait(left)

    def connections(self) -> dict[str, int]:
        """Connections to the API: `accepted` so far, TLS `handshakes` completed, and `open` now."""
        api = self._fake.api
        return {"accepted": api.accepted, "handshakes": api.handshakes, "open": api.open_connections()}

    def _store(self, livemode: bool) -> Store:
        return self._world.stores[self._fake.account, livemode]

    def _secrets(self, event: str) -> list[str]:
        with self._world.lock:
            store, found = self._world.find("event", event)
            hooks = [hook["id"] for hook in store.all("webhook_endpoint") if wants(hook, found["type"])]
            return [store.notes[hook]["secret"] for hook in hooks] or [store.webhook_secret]

    def _with(self, kind: str, identifier: str, act: Any, **options: Any) -> Object:
        with self._world.lock:
            self._world.tick()
            store, found = self._world.find(kind, identifier)
            return self._shown(act(store, found, **options))

    @staticmethod
    def _shown(obj: Object) -> Object:
        """A copy, so that nobody outside holds the fake's own state."""
        copied: Object = json.loads(json.dumps(obj))
        return copied


def _named(type: str, patterns: Sequence[str] | None) -> bool:
    return not patterns or any(fnmatchcase(type, pattern) for pattern in patterns)


def actions() -> list[str]:
    """The names of all actions."""
    return sorted(
        name
        for name, member in inspect.getmembers(Control, inspect.isfunction)
        if not name.startswith("_") and name != "perform"
    )


def parameters_of(action: str) -> list[inspect.Parameter]:
    """The arguments of an action."""
    return list(inspect.signature(getattr(Control, action)).parameters.values())[1:]


def signature_of(action: str) -> str:
    """The arguments of an action in words."""
    said = []
    for parameter in parameters_of(action):
        if parameter.kind is inspect.Parameter.VAR_KEYWORD:
            said.append("**options")
        elif parameter.default is inspect.Parameter.empty:
            said.append(parameter.name)
        else:
            said.append(f"{parameter.name}={json.dumps(parameter.default)}")
    return "({})".format(", ".join(said))


def summary_of(action: str) -> str:
    """The first line of an action's description."""
    return (inspect.getdoc(getattr(Control, action)) or "").splitlines()[0]
