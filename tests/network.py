"""A network that misbehaves: names that take long to look up, and peers that say nothing."""

from __future__ import annotations

import shutil
import socket
import subprocess
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def slow_lookups() -> Iterator[Path | None]:
    """A library that makes looking up slow.test slow, and slower.test endless; None where it cannot be compiled."""
    directory = Path(tempfile.mkdtemp(prefix="payments-", dir="/tmp"))
    directory.chmod(0o755)
    library = directory / "slow_lookup.so"
    source = Path(__file__).parent / "slow_lookup.c"
    compiler = shutil.which("cc")
    if compiler:
        subprocess.run([compiler, "-shared", "-fPIC", "-o", library, source, "-ldl"], check=True)
    yield library if compiler else None
    shutil.rmtree(directory)


@contextmanager
def deaf_port() -> Iterator[int]:
    """A port where connecting takes for ever: nobody accepts, and the queue is full."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        port = listener.getsockname()[1]
        waiting = [socket.socket() for _ in range(6)]
        for one in waiting:
            one.setblocking(False)
            one.connect_ex(("127.0.0.1", port))
        yield port
        for one in waiting:
            one.close()


class Staller:
    """A peer on a local port that answers whatever comes with the same bytes, and then says nothing more."""

    def __init__(self, said: bytes = b"") -> None:
        self._said = said
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=256)
        self.port = self._listener.getsockname()[1]
        self._open: set[socket.socket] = set()
        self._guard = threading.Lock()

    @property
    def base_url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def open(self) -> int:
        """How many connections the other side has not closed."""
        with self._guard:
            return len(self._open)

    def __enter__(self) -> Staller:
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            with self._guard:
                self._open.add(connection)
            threading.Thread(target=self._stall, args=(connection,), daemon=True).start()

    def _stall(self, connection: socket.socket) -> None:
        with connection:
            try:
                while connection.recv(65536):
                    connection.sendall(self._said)
            except OSError:
                pass  # Reset: closed as well.
            finally:
                with self._guard:
                    self._open.discard(connection)
