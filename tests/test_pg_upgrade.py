"""pg_upgrade from 16 to the newest Postgres: everything is there, but for the key file, which is no part of a server."""

from __future__ import annotations

import difflib
import os
import shutil
import subprocess
from collections.abc import Callable, Iterator

import pytest

import catalog
import seasoned
from fake_stripe import FakeStripe
from harness import database
from harness.cluster import Cluster, account
from harness.database import Database
from harness.postgres import Postgres
from shop import refused


class Move:
    """A server of 16 that has sold for a while, and one of the newest major to take its place."""

    def __init__(self, source: Cluster, target: Cluster, stripe: FakeStripe) -> None:
        self.source, self.target = source, target
        source.start()
        target.start()
        database.furnish(source)
        self.shop = seasoned.season(database.create(source), stripe)

    def run(self, *options: str) -> Database:
        """Runs pg_upgrade: the database in its new place."""
        moved = Database(self.target, self.shop.db.name)
        self.shop.db.disconnect()
        self.source.stop()
        self.target.stop()
        # Only servers that are alike in this can follow one another, and 18 begins with checksums.
        self._program("pg_checksums", "--disable", "-D", self.target.data)
        self._program(
            *("pg_upgrade", "--no-sync", "-U", "postgres", *options),
            *("-b", self.source.postgres.bin, "-B", self.target.postgres.bin),
            *("-d", self.source.data, "-D", self.target.data, "--socketdir", self.target.directory),
        )
        self.target.start()
        self.shop.db = moved
        return moved

    def _program(self, name: str, *arguments: object) -> None:
        done = subprocess.run(
            [self.target.program(name), *map(str, arguments)],
            cwd=self.target.directory,
            env={"PATH": os.defpath, "LC_ALL": "C"},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            **account(),
        )
        assert done.returncode == 0, done.stdout


@pytest.fixture
def move(postgres: Postgres, older: Callable[[int], Postgres]) -> Iterator[Move]:
    source, target = Cluster(older(16)), Cluster(postgres)
    with FakeStripe() as stripe:
        try:
            yield Move(source, target, stripe)
        finally:
            source.remove()
            target.remove()


def key_file(cluster: Cluster):
    return cluster.data / "payments.key"


def test_by_link_with_the_key_file(move, db):
    before = seasoned.rows(move.shop.db)
    moved = move.run("--link")
    shutil.copy2(key_file(move.source), key_file(move.target))
    if who := account():
        os.chown(key_file(move.target), who["user"], who["group"])
    assert seasoned.rows(moved) == before
    seasoned.sell_at(move.shop)

    db.execute(seasoned.APP)
    difference = difflib.unified_diff(
        catalog.entries(moved.connect()), catalog.entries(db.connect()), "upgraded", "new", lineterm="", n=2
    )
    text = "\n".join(difference)
    assert not text, text


def test_by_copy_without_the_key_file(move):
    before = seasoned.rows(move.shop.db)
    moved = move.run("--copy")
    assert seasoned.rows(moved) == before
    status = moved.execute("select status, key_readable, signing_secrets, next_step from payments.status()").fetchone()
    assert status == (
        *("error", False, 0),
        "Set the key again, since it is not here or does not open: SELECT payments.set_stripe_key('test', $1);",
    )
    with refused("55000", "key_file_missing"):
        seasoned.checkout(moved, "bob", move.shop.price, "order:3")
    with refused("55000", "secret_unreadable"):
        moved.execute("select payments.handle_webhook('test', '{}', 't=1,v1=0')")
    assert seasoned.rows(moved) == before

    moved.execute("select payments.set_stripe_key('test', %s)", (move.shop.stripe.test_key,))
    moved.execute("select payments.set_webhook_secret('test', %s)", (move.shop.stripe.webhook_secret,))
    seasoned.sell_at(move.shop)


