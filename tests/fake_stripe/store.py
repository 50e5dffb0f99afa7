"""One account's objects in one mode (test or live), and the events that their changes cause."""

from __future__ import annotations

import bisect
import copy
from collections.abc import Iterator
from typing import Any, Callable

from .clock import Clock
from .errors import no_such
from .ids import Ids

Object = dict[str, Any]

API_VERSION = "2026-10-28.endive"


class Collection:
    """All objects of one type, in the order that lists show them."""

    def __init__(self) -> None:
        self._objects: dict[str, Object] = {}
        self._order: list[tuple[int, int, str]] = []
        self._place: dict[str, tuple[int, int, str]] = {}
        self._added = 0

    def __len__(self) -> int:
        return len(self._objects)

    def __contains__(self, identifier: str) -> bool:
        return identifier in self._objects

    def add(self, obj: Object) -> None:
        self._added += 1
        place = (obj.get("created", 0), self._added, obj["id"])
        self._objects[obj["id"]] = obj
        self._place[obj["id"]] = place
        bisect.insort(self._order, place)

    def get(self, identifier: str) -> Object | None:
        return self._objects.get(identifier)

    def remove(self, identifier: str) -> None:
        del self._objects[identifier]
        # The place stays known: a page may start after an object that was deleted meanwhile.
        del self._order[bisect.bisect_left(self._order, self._place[identifier])]

    def oldest_first(self, after: str | None = None) -> Iterator[Object]:
        """Every object, or those newer than `after`."""
        index = 0 if after is None else bisect.bisect_right(self._order, self._place[after])
        while index < len(self._order):
            yield self._objects[self._order[index][2]]
            index += 1

    def newest_first(self, after: str | None = None) -> Iterator[Object]:
        """Every object, or those older than `after`."""
        index = len(self._order) if after is None else bisect.bisect_left(self._order, self._place[after])
        while index > 0:
            index -= 1
            yield self._objects[self._order[index][2]]

    def knows(self, identifier: str) -> bool:
        """Whether the object is or was here."""
        return identifier in self._place


def difference(before: Any, after: Object) -> Object:
    """`previous_attributes`: what `before` had where `after` differs, hashes by field and lists whole."""
    previous: Object = {}
    for key in {**before, **after}:
        old, new = before.get(key), after.get(key)
        if old == new:
            continue
        if isinstance(old, dict) and isinstance(new, dict) and old.get("object") in (None, "list"):
            previous[key] = difference(old, new)
        else:
            previous[key] = old
    return previous


class Store:
    """The objects of one account in one mode.

    Objects are kept as Stripe shows them, with ids where another object could be expanded. What belongs to an
    object without being shown (a session's `subscription_data`, say) is in `notes`, by id.
    """

    def __init__(self, account: str, livemode: bool, clock: Clock, ids: Ids) -> None:
        self.account = account
        self.livemode = livemode
        self.clock = clock
        self.ids = ids
        self.collections: dict[str, Collection] = {}
        self.tombstones: dict[str, Object] = {}
        self.notes: dict[str, dict[str, Any]] = {}
        # When open Checkout Sessions end, soonest first: a heap of (time, id).
        self.deadlines: list[tuple[int, str]] = []
        self.webhook_secret = ids.signing_secret()
        self.sibling: Store | None = None
        # Seconds that an event stays out of the Events API, which is eventually consistent.
        self.events_lag = 0.0
        # The API request being served, which its events name; automatic events name none.
        self.request: dict[str, str | None] = {"id": None, "idempotency_key": None}
        self.emitted: Callable[[Store, Object], None] = lambda store, event: None

    def collection(self, kind: str) -> Collection:
        return self.collections.setdefault(kind, Collection())

    def all(self, kind: str) -> Iterator[Object]:
        """Every object of a type, newest first."""
        return self.collection(kind).newest_first()

    def new(self, kind: str, **fields: Any) -> Object:
        """An object of this type with the fields that all have; not yet stored, so that it can be completed."""
        head: Object = {"id": self.ids.make(kind, self.livemode), "object": kind}
        return {**head, "created": self.clock.now(), "livemode": self.livemode, **fields}

    def add(self, obj: Object) -> Object:
        """Store a new object. Ids of deleted objects can come back, as products' own ids do."""
        self.tombstones.pop(obj["id"], None)
        self.collection(obj["object"]).add(obj)
        return obj

    def get(self, kind: str, identifier: str | None) -> Object | None:
        """The object, or None."""
        return None if identifier is None else self.collection(kind).get(identifier)

    def require(self, kind: str, identifier: str, param: str = "id") -> Object:
        """The object, or Stripe's refusal."""
        found = self.get(kind, identifier)
        if found is None:
            there = self.sibling is not None and self.sibling.get(kind, identifier) is not None
            raise no_such(kind, identifier, param, elsewhere=(not self.livemode) if there else None)
        return found

    def change(self, obj: Object, event: str | None = None, **fields: Any) -> Object:
        """Set fields, and send the event with `previous_attributes` if anything differs."""
        before = copy.deepcopy(obj)
        obj.update(fields)
        previous = difference(before, obj)
        if event and previous:
            self.emit(event, obj, previous)
        return obj

    def delete(self, obj: Object, event: str | None = None) -> Object:
        """Remove an object; what is left of it is `{id, object, deleted: true}`."""
        self.collection(obj["object"]).remove(obj["id"])
        self.tombstones[obj["id"]] = {"id": obj["id"], "object": obj["object"], "deleted": True}
        if event:
            self.emit(event, obj)
        return self.tombstones[obj["id"]]

    def emit(self, type: str, obj: Object, previous: Object | None = None, **more: Any) -> Object:
        """Record an event with the object as it is now; `more` are fields of the event that are to differ."""
        data: Object = {"object": copy.deepcopy(obj)}
        if previous is not None:
            data["previous_attributes"] = previous
        event = {
            "id": self.ids.make("event"),
            "object": "event",
            "api_version": API_VERSION,
            "created": self.clock.now(),
            "data": data,
            "livemode": self.livemode,
            "pending_webhooks": sum(1 for endpoint in self.all("webhook_endpoint") if wants(endpoint, type)),
            "request": dict(self.request),
            "type": type,
            **more,
        }
        self.collection("event").add(event)
        self.emitted(self, event)
        return event


def wants(endpoint: Object, type: str) -> bool:
    """Whether a webhook endpoint is sent events of this type."""
    return endpoint["status"] == "enabled" and ("*" in endpoint["enabled_events"] or type in endpoint["enabled_events"])
