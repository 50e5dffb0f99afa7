"""What a backend holds."""

from __future__ import annotations

import os
import re
import threading
from pathlib import Path

from harness.database import Database


def resident(pid: int) -> int:
    """The kilobytes of memory that are a process's own, without what all backends share."""
    status = Path(f"/proc/{pid}/status").read_text()
    found = re.search(r"RssAnon:\s+(\d+) kB", status)
    # A process that is about to end has none.
    return int(found.group(1)) if found else 0


def sockets(pid: int) -> int:
    """How many sockets a process has open; a backend has one, to its client."""
    with os.scandir(f"/proc/{pid}/fd") as descriptors:
        return sum(os.readlink(descriptor.path).startswith("socket:") for descriptor in descriptors)


class Memory:
    """Watches the memory of a connection's backend."""

    def __init__(self, db: Database) -> None:
        self._db = db
        self.samples: list[int] = []

    def __enter__(self) -> Memory:
        self.connection = self._db.connect()
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
        pid = self.connection.info.backend_pid
        while not self._ended.wait(0.05):
            try:
                self.samples.append(resident(pid))
            except OSError:
                return
