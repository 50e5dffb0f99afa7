"""A private Postgres server: its own data directory, its own socket, nothing on the network."""

from __future__ import annotations

import contextlib
import os
import pwd
import shutil
import signal
import subprocess
import tempfile
import time
from pathlib import Path

from harness import Unmet
from harness.postgres import Postgres

SUPERUSER = "postgres"

SETTINGS = {
    "listen_addresses": "''",
    "max_connections": "200",
    "timezone": "'UTC'",
    "log_line_prefix": "'%m [%p] %q%u@%d '",
    # Written pages survive a killed server without it; only a machine's crash loses them.
    "fsync": "off",
}


def account() -> dict:
    """Whom Postgres runs as, for subprocess: it refuses root, so root gives it to an ordinary account."""
    if os.geteuid() != 0:
        return {}
    for name in ("postgres", "nobody"):
        try:
            entry = pwd.getpwnam(name)
        except KeyError:
            continue
        return {"user": entry.pw_uid, "group": entry.pw_gid, "extra_groups": []}
    raise Unmet("Postgres refuses to run as root, and there is no account postgres or nobody to run it as.")


class Cluster:
    """A server from initdb to removal. Connections come in over the socket in `directory`, without a password."""

    def __init__(
        self,
        postgres: Postgres,
        settings: dict[str, str] | None = None,
        environment: dict[str, str] | None = None,
        directory: Path | None = None,
    ) -> None:
        """Names a server; `start` makes it.

        `settings` go to postgresql.conf as written there; `environment` is added to the
        server's, which has nothing of ours otherwise: no key and no proxy may leak in.
        A `directory` that already has a server is taken over.
        """
        self.postgres = postgres
        # A socket's whole path must stay under 108 bytes, so not wherever TMPDIR may point.
        self.directory = directory or Path(tempfile.mkdtemp(prefix="payments-", dir="/tmp"))
        self.data = self.directory / "data"
        self.log = self.directory / "log"
        self._settings = {**SETTINGS, "unix_socket_directories": f"'{self.directory}'", **(settings or {})}
        # With it pgrx puts a backtrace into DETAIL: so every test also shows that no client sees one.
        self._environment = {"PATH": os.defpath, "LC_ALL": "C", "RUST_BACKTRACE": "1", **(environment or {})}

    def __enter__(self) -> Cluster:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.remove()

    @property
    def dsn(self) -> str:
        """How a superuser connects, less the database."""
        return f"host={self.directory} port=5432 user={SUPERUSER}"

    @property
    def pid(self) -> int | None:
        """The postmaster's process id, while it runs."""
        try:
            return int((self.data / "postmaster.pid").read_text().split()[0])
        except (FileNotFoundError, IndexError):
            return None

    def start(self) -> None:
        if not self.data.exists():
            self._initialise()
        self._control("start", "-l", self.log)

    def stop(self, mode: str = "fast") -> None:
        """Shuts down: `smart`, `fast` or `immediate`, as pg_ctl means them."""
        if self.pid:
            self._control("stop", "-m", mode)

    def restart(self) -> None:
        self.stop()
        self.start()

    def kill(self, alone: bool = False) -> None:
        """`kill -9` to the postmaster and every backend, as the OOM killer would; `start` then recovers.

        To the postmaster `alone`: then this waits until its backends have noticed, and ended.
        """
        postmaster = self.pid
        if postmaster is None:
            return
        # Stopped, it has no child that the list does not have.
        os.kill(postmaster, signal.SIGSTOP)
        listed = subprocess.run(["ps", "-o", "pid=", "--ppid", str(postmaster)], capture_output=True, text=True)
        processes = [postmaster, *map(int, listed.stdout.split())]
        for pid in processes[:1] if alone else processes:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        # A second server on the data of one that still has a backend would destroy them.
        deadline = time.monotonic() + 60
        while left := [pid for pid in processes if _runs(pid)]:
            assert time.monotonic() < deadline, f"still running: {left}"
            time.sleep(0.01)
        # Where process 1 does not reap, the dead postmaster still counts as a running one.
        for lock in (self.data / "postmaster.pid", self.directory / ".s.PGSQL.5432.lock"):
            lock.unlink(missing_ok=True)

    def remove(self) -> None:
        """Stops the server and leaves nothing of it."""
        self.stop("immediate")
        shutil.rmtree(self.directory, ignore_errors=True)

    def log_text(self) -> str:
        """The whole server log so far."""
        return self.log.read_text(errors="replace") if self.log.exists() else ""

    def program(self, name: str) -> str:
        """The path of one of this Postgres's own programs: psql, pg_dump …"""
        return str(self.postgres.bin / name)

    def _initialise(self) -> None:
        self.directory.mkdir(mode=0o700, exist_ok=True)
        if who := account():
            os.chown(self.directory, who["user"], who["group"])
        self._run("initdb", "-D", self.data, "-U", SUPERUSER, "-A", "trust", "-N", "--no-locale", "-E", "UTF8")
        with (self.data / "postgresql.conf").open("a") as conf:
            conf.writelines(f"{name} = {value}\n" for name, value in self._settings.items())

    def _control(self, action: str, *options: object) -> None:
        self._run("pg_ctl", "-D", self.data, "-w", "-s", action, *options)

    def _run(self, program: str, *arguments: object) -> None:
        with tempfile.TemporaryFile("w+") as said:
            done = subprocess.run(
                [self.program(program), *map(str, arguments)],
                cwd="/",
                env=self._environment,
                stdin=subprocess.DEVNULL,
                stdout=said,
                stderr=subprocess.STDOUT,
                **account(),
            )
            if done.returncode:
                said.seek(0)
                raise RuntimeError(f"{program} failed:\n{said.read()}{self.log_text()[-2000:]}")


def _runs(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    # A killed process whose parent has not asked yet is still listed.
    return "Z" not in subprocess.run(["ps", "-o", "stat=", "-p", str(pid)], capture_output=True, text=True).stdout
