"""What a backend holds: memory, for now."""

from __future__ import annotations

import re
import threading
from pathlib import Path

from harness.database import Database


class Memory:
    """Watches the memory of a connection's backend: what is its own, without what all backends share."""

    def __init__(self, db: Database) -> None:
        self._db = db
        self.samples: list[int] = []

    def __enter__(self) -> Memory:
        self.connection = self._db.connect()
        self._status = Path(f"/proc/{self.connection.info.backend_pid}/status")
        self._ended = threading.Event()
        self._watch = threading.Thread(target=self._sample, daemon=True)
        self._watch.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._watch.join()

    @property
    def peak(self) -> int:
        return max(self.samples, default=0)

    def _sample(self) -> None:
        while not self._ended.wait(0.05):
            try:
                resident = re.search(r"RssAnon:\s+(\d+) kB", self._status.read_text())
            except OSError:
                return
            if resident:
                self.samples.append(int(resident.group(1)))
