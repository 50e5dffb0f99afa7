"""Faults on demand: what a network, a proxy or Stripe itself can do to a request."""

from __future__ import annotations

import fnmatch
import itertools
from dataclasses import asdict, dataclass, field
from typing import Any

from .errors import (
    StripeError,
    card_declined,
    not_permitted,
    rate_limited,
    server_error,
)

# kind: what it does, and whether the request takes effect unless told.
KINDS = {
    "delay": ("answers properly, but late (`before` and `after` say when)", True),
    "drop": ("closes the connection without an answer", True),
    "half": ("sends half of the body, then closes; with a reset if the style is `reset`", True),
    "drip": ("sends the body, or in style `head` all of it, a few bytes at a time, `seconds` apart", True),
    "endless": ("sends a body that never ends, of a `length` if told; in style `head` headers that do not", True),
    "garbled": ("is not HTTP: another `protocol`, a `status` that is none, or bad `chunks`", True),
    "provisional": ("answers that there will be an answer, and again every `seconds`", True),
    "silent": ("never answers, and keeps the connection open", False),
    "status": ("answers with `status` and `body`", False),
    "rate_limit": ("429, with `retry_after` and `should_retry` if given", False),
    "server_error": ("`status` (500), kept for the idempotency key if `stored`", False),
    "card_declined": ("402 card_declined", False),
    "forbidden": ("403, as for a restricted key that lacks `permission`", False),
    "redirect": ("`status` (302) to `location`", False),
    "junk": (
        "a body that is `html`, `truncated` JSON, `empty`, `types` (JSON with every type wrong), `list`, `deep`, "
        "`huge`, `binary`, or a `file` instead of what was asked for",
        True,
    ),
    "wrong_length": ("a Content-Length that is `shorter` or `longer` than the body", True),
    "no_handshake": ("accepts the next connection and says nothing, not even in TLS", False),
}


@dataclass
class Fault:
    """One fault for the next `times` requests that match, after letting `skip` of them pass.

    `processed` says whether the request takes effect at Stripe; `stored` whether the answer is kept for its
    idempotency key. `before` and `after` are seconds to wait before and after processing.
    """

    kind: str
    path: str = "*"
    method: str = "*"
    times: int | None = 1
    skip: int = 0
    before: float = 0
    after: float = 0
    processed: bool | None = None
    stored: bool | None = None
    status: int = 0
    body: str | None = None
    headers: dict[str, str] = field(default_factory=dict)
    retry_after: float | None = None
    should_retry: bool | None = None
    location: str = "https://example.com/elsewhere"
    permission: str = "checkout_session_write"
    style: str = ""
    seconds: float = 0.05
    bytes: int = 1
    number: int = 0

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise ValueError("no such fault: {}; there are {}".format(self.kind, ", ".join(sorted(KINDS))))
        if self.processed is None:
            self.processed = KINDS[self.kind][1]
        if self.stored is None:
            # A declined card is an answer like any other, though nothing came of the request.
            self.stored = bool(self.processed) or self.kind == "card_declined"

    def matches(self, method: str, path: str) -> bool:
        """Whether a request is one that this fault is for."""
        return fnmatch.fnmatchcase(method, self.method) and fnmatch.fnmatchcase(path, self.path)

    def error(self, key: str, account: str) -> StripeError | None:
        """The error that the request is answered with, for the kinds that have one."""
        if self.kind == "rate_limit":
            return rate_limited(self.retry_after, self.should_retry)
        if self.kind == "server_error":
            return server_error(self.status or 500, self.should_retry)
        if self.kind == "card_declined":
            return card_declined()
        if self.kind == "forbidden":
            return not_permitted(key, account, self.permission)
        return None


NONE = Fault("delay")
"""No fault: a delay of no time."""


class Faults:
    """The queue: a request takes the oldest fault that matches it. Guarded by the caller's lock."""

    def __init__(self) -> None:
        self._queue: list[Fault] = []
        self._numbers = itertools.count(1)

    def add(self, kind: str, **options: Any) -> dict[str, Any]:
        """Queue a fault; what was queued."""
        fault = Fault(kind, **options, number=next(self._numbers))
        self._queue.append(fault)
        return asdict(fault)

    def take(self, method: str, path: str) -> Fault | None:
        """The fault for a request."""
        for fault in self._queue:
            if fault.kind == "no_handshake" or not fault.matches(method, path):
                continue
            if fault.skip > 0:
                fault.skip -= 1
                continue
            return self._use(fault)
        return None

    def take_connection(self) -> Fault | None:
        """The fault for a new connection."""
        for fault in self._queue:
            if fault.kind == "no_handshake":
                if fault.skip > 0:
                    fault.skip -= 1
                    return None
                return self._use(fault)
        return None

    def _use(self, fault: Fault) -> Fault:
        if fault.times is not None:
            fault.times -= 1
            if fault.times <= 0:
                self._queue.remove(fault)
        return fault

    def waiting(self) -> list[dict[str, Any]]:
        """What is still queued."""
        return [asdict(fault) for fault in self._queue]

    def clear(self) -> None:
        self._queue.clear()
