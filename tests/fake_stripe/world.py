"""Everything the fake knows: accounts and keys, their objects, the clock, faults, and the request log."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Callable

from .clock import Clock
from .errors import expired_key, no_key, publishable_key, unknown_key
from .faults import Faults
from .idempotency import Idempotency
from .ids import Ids
from .resources.accounts import open_account
from .resources.portal import open_configuration
from .resources.sessions import expire_overdue
from .store import Object, Store

ACCOUNT = "acct_1FakeStripe00001"


def default_key(kind: str, mode: str) -> str:
    """The keys that every fake starts with. Put together here so that no scanner takes them for real ones."""
    return "_".join((kind, mode, "51FakeStripe" + mode.capitalize() + "Key0123456789"))


@dataclass
class Key:
    """An API key: a restricted one has only the permissions listed, such as `customer_write`."""

    secret: str
    account: str
    livemode: bool
    permissions: frozenset[str] | None = None
    revoked: bool = False

    def may(self, permission: str, write: bool) -> bool:
        """Whether the key has a permission; the right to write includes the right to read."""
        if self.permissions is None or permission + "_write" in self.permissions:
            return True
        return not write and permission + "_read" in self.permissions


class World:
    """All state, under one lock."""

    def __init__(self, seed: int | None = None) -> None:
        self.lock = threading.RLock()
        self.changed = threading.Condition(self.lock)
        self.on_event: Callable[[Store, Object], None] = lambda store, event: None
        self._seed = seed
        self.reset()

    def reset(self) -> None:
        """Back to an empty account; connections and open requests stay."""
        with self.lock:
            self.clock = Clock()
            self.ids = Ids(self._seed)
            self.idempotency = Idempotency(self.clock)
            self.faults = Faults()
            self.rate: int | None = None
            self._second = (0, 0)
            self.log: list[dict[str, Any]] = []
            self.logged = 0
            self.keys: dict[str, Key] = {}
            self.stores: dict[tuple[str, bool], Store] = {}
            for mode in ("test", "live"):
                self.add_key(default_key("sk", mode))

    def add_key(self, secret: str, account: str = ACCOUNT, permissions: Iterable[str] | None = None) -> Key:
        """Make a key known; its prefix says the mode. A new account is opened for it if need be."""
        livemode = secret.split("_")[1] == "live"
        if (account, livemode) not in self.stores:
            self._open(account)
        key = Key(secret, account, livemode, None if permissions is None else frozenset(permissions))
        self.keys[secret] = key
        return key

    def _open(self, account: str) -> None:
        pair = [Store(account, livemode, self.clock, self.ids) for livemode in (False, True)]
        for store, sibling in zip(pair, reversed(pair)):
            store.sibling = sibling
            open_account(store, "owner@{}.example".format(account.replace("_", "-").lower()))
            open_configuration(store)
            store.emitted = self._emitted
            self.stores[account, store.livemode] = store

    def _emitted(self, store: Store, event: Object) -> None:
        self.on_event(store, event)

    def limited(self) -> bool:
        """Counts a request: whether it is one too many in this second."""
        second, count = self._second
        now = int(time.monotonic())
        self._second = (now, count + 1 if second == now else 1)
        return self.rate is not None and self._second[1] > self.rate

    def authenticate(self, secret: str | None) -> Key:
        """The key, or Stripe's refusal."""
        if not secret:
            raise no_key()
        key = self.keys.get(secret)
        if key is None:
            raise publishable_key() if secret.startswith("pk_") else unknown_key(secret)
        if key.revoked:
            raise expired_key(secret)
        return key

    def store_of(self, key: Key) -> Store:
        return self.stores[key.account, key.livemode]

    def find(self, kind: str, identifier: str) -> tuple[Store, Object]:
        """An object of any account and mode."""
        for store in self.stores.values():
            found = store.get(kind, identifier)
            if found is not None:
                return store, found
        raise LookupError(f"no {kind} {identifier}")

    def tick(self) -> None:
        """Let happen what the clock has made due."""
        for store in self.stores.values():
            expire_overdue(store)

    def arrived(self, entry: dict[str, Any]) -> dict[str, Any]:
        """Log a request when it arrives; `status` is None until it is answered."""
        with self.changed:
            self.logged += 1
            entry.update(number=self.logged, at=time.time(), status=None, replayed=False, fault=None, request_id=None)
            self.log.append(entry)
            self.changed.notify_all()
        return entry

    def answered(self, entry: dict[str, Any], **more: Any) -> None:
        """Complete the log of a request."""
        with self.changed:
            entry.update(more, seconds=round(time.time() - entry["at"], 6))
            self.changed.notify_all()
