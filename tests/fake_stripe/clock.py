"""Stripe's clock: the machine's own, shifted by tests or standing still."""

from __future__ import annotations

import time
from email.utils import formatdate


class Clock:
    """Tells the time that Stripe writes into `created`, `Date` and `expires_at`."""

    def __init__(self) -> None:
        self._offset = 0.0
        self._frozen: float | None = None

    def time(self) -> float:
        """Seconds since 1970, with a fraction."""
        return self._frozen if self._frozen is not None else time.time() + self._offset

    def now(self) -> int:
        """Whole seconds since 1970, which is all that Stripe shows."""
        return int(self.time())

    def date(self) -> str:
        """The `Date` header."""
        return formatdate(self.now(), usegmt=True)

    def set(self, at: float) -> None:
        """Jump to a time, forwards or backwards."""
        if self._frozen is not None:
            self._frozen = float(at)
        self._offset = float(at) - time.time()

    def advance(self, seconds: float) -> None:
        """Let so many seconds pass at once."""
        self.set(self.time() + seconds)

    def freeze(self) -> None:
        """Stand still, so that everything which follows shares one second."""
        self._frozen = self.time()

    def unfreeze(self) -> None:
        """Run on from where the clock stands."""
        now, self._frozen = self.time(), None
        self.set(now)
