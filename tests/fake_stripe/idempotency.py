"""Idempotency keys (https://docs.stripe.com/api/idempotent_requests).

An answer is kept from the moment an endpoint begins to execute: whatever it then says, errors and 500s included, is
said again for 24 hours. What is refused earlier (keys, permissions, parameters, rate limits, a twin in flight) is not.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any

from .clock import Clock
from .errors import StripeError

KEPT_SECONDS = 24 * 60 * 60


@dataclass
class Kept:
    """What a key was first used for, and what was answered once that is known."""

    path: str
    fingerprint: str
    at: float
    request_id: str
    status: int | None = None
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b""


class Idempotency:
    """The keys of all accounts. Guarded by the caller's lock."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._kept: dict[tuple[str, bool, str], Kept] = {}

    def begin(
        self, scope: tuple[str, bool], key: str, path: str, params: dict[str, Any], request_id: str
    ) -> Kept | None:
        """The answer to replay, or None: then the key is taken until `finish` or `forget`."""
        if len(key) > 255:
            raise StripeError(400, "Keys for idempotent requests can be at most 255 characters long.")
        fingerprint = json.dumps(params, sort_keys=True)
        kept = self._kept.get((*scope, key))
        if kept is not None and self._clock.time() - kept.at >= KEPT_SECONDS:
            kept = None
        if kept is None:
            self._kept[(*scope, key)] = Kept(path, fingerprint, self._clock.time(), request_id)
            return None
        if kept.path != path:
            raise StripeError(
                400,
                "Keys for idempotent requests can only be used for the same endpoint they were first used for "
                f"('{path}' vs '{kept.path}'). Try using a key other than '{key}' if you meant to execute a "
                "different request.",
                type="idempotency_error",
            )
        if kept.fingerprint != fingerprint:
            raise StripeError(
                400,
                "Keys for idempotent requests can only be used with the same parameters they were first used with. "
                f"Try using a key other than '{key}' if you meant to execute a different request.",
                type="idempotency_error",
            )
        if kept.status is None:
            raise StripeError(
                409,
                "There is currently another in-progress request using this Idempotent Key (that probably means you "
                f"submitted twice, and the other request is still going through): {key}. Please try again later.",
                type="idempotency_error",
                code="idempotency_key_in_use",
            )
        return kept

    def finish(self, scope: tuple[str, bool], key: str, status: int, headers: dict[str, str], body: bytes) -> None:
        """Keep the answer."""
        kept = self._kept.get((*scope, key))
        if kept is not None:
            kept.status, kept.headers, kept.body = status, headers, body

    def forget(self, scope: tuple[str, bool], key: str) -> None:
        """Let go of a key whose request never began to execute."""
        self._kept.pop((*scope, key), None)
