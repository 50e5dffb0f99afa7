"""`tests/release.sh`: freezes what this version installs, for the tests of every later one.

`tests/releases/VERSION/extension.sql` is what CREATE EXTENSION runs, less pgrx's own comments;
`database.sql.gz` is the dump of a database that lived with this version, tables and rows, from
the oldest Postgres there is, so that all can restore it.
"""

from __future__ import annotations

import gzip
import re
import shutil

import seasoned
from fake_stripe import FakeStripe
from harness import TESTS, Unmet, command_line, database, extension, postgres, say, toolchain
from harness.cluster import Cluster
from harness.postgres import Postgres

RELEASES = TESTS / "releases"


def main() -> None:
    toolchain.prepare()
    oldest = postgres.at_hand()[0]
    extension.install(oldest)
    version = extension.version(oldest)
    home = RELEASES / version
    if home.exists():
        raise Unmet(f"{home} is there already: a release is frozen once.")
    home.mkdir(parents=True)
    try:
        script = extension.directory(oldest) / f"payments--{version}.sql"
        (home / "extension.sql").write_text(without_pgrx(script.read_text()))
        say(f"living with {version} for a while, on {oldest.label}")
        dump = lived_in(oldest)
        # Without a time in it, the same dump is the same file.
        (home / "database.sql.gz").write_bytes(gzip.compress(dump.encode(), mtime=0))
    except BaseException:
        shutil.rmtree(home)
        raise
    say(f"frozen in {home}")


def without_pgrx(script: str) -> str:
    """A generated script less the marks of its generator, which change with every build."""
    for mark in (
        r"^/\* </?(?:begin|end) connected objects> \*/\n",
        r"^/\*\nThis file is auto generated(?s:.*?)\*/\n",
        r"^-- src/.*\n(?:-- payments::.*\n-- Skipped.*\n|-- (?:bootstrap|finalize)\n)?(?:-- requires:\n(?:--   .*\n)+)?",
    ):
        script = re.sub(mark, "", script, flags=re.M)
    return re.sub(r"\n{3,}", "\n\n", script).strip() + "\n"


def lived_in(installation: Postgres) -> str:
    """The dump of a database that was used."""
    with Cluster(installation) as cluster, FakeStripe() as stripe:
        database.furnish(cluster)
        db = database.create(cluster)
        seasoned.season(db, stripe)
        # Not every Postgres is built with the compression that this one prefers.
        return db.dump("--no-toast-compression")


if __name__ == "__main__":
    command_line(main)
