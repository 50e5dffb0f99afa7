"""The fixtures. One server a session, one database a test."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from contextlib import ExitStack

import pytest
import stripe_types
from psycopg import sql

from fake_stripe import FakeStripe
from harness import database, extension
from harness.cluster import Cluster
from harness.database import Database
from harness.postgres import Postgres, at_hand
from shop import Shop


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--postgres",
        type=int,
        metavar="MAJOR",
        help="the Postgres to test on; tests/run.sh installs the extension there first",
    )
    parser.addoption(
        "--sync-objects",
        type=int,
        default=5000,
        metavar="COUNT",
        help="how many objects the account has that is synced while the server is killed",
    )
    parser.addoption("--accept", action="store_true", help="write the golden files' output as expected")


def pytest_configure() -> None:
    # By default SIGTERM ends Python on the spot, and the servers would stay.
    signal.signal(signal.SIGTERM, lambda *_: pytest.exit("terminated", returncode=143))


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if "postgres" in getattr(item, "fixturenames", ()):
            item.add_marker("postgres")
    # It judges what all others sent.
    items.sort(key=lambda item: item.path.name == "test_types.py")


@pytest.fixture(scope="session")
def postgres(pytestconfig: pytest.Config) -> Postgres:
    """The installation under test."""
    major = pytestconfig.getoption("--postgres")
    if major is None:
        pytest.fail("which Postgres? Run the tests by tests/run.sh, or name one: --postgres 18")
    return at_hand([major])[0]


@pytest.fixture(scope="session")
def older(postgres: Postgres) -> Callable[[int], Postgres]:
    """`older(16)`: an older Postgres that has this extension too. What crosses majors is tested once, on the newest."""

    def find(major: int) -> Postgres:
        found = {installation.major: installation for installation in at_hand()}
        if postgres.major != max(found) or major not in found:
            pytest.skip(f"on the newest Postgres only, and where {major} is at hand")
        if extension.version(found[major]) != extension.version(postgres):
            pytest.skip(f"the extension is not installed for {major}: tests/run.sh does that")
        return found[major]

    return find


@pytest.fixture(scope="session")
def make_cluster(postgres: Postgres) -> Iterator[Callable[..., Cluster]]:
    """`make_cluster(settings=…, environment=…)`: a further server of one's own, running, empty."""
    with ExitStack() as clusters:
        yield lambda **options: clusters.enter_context(Cluster(postgres, **options))


@pytest.fixture(scope="session")
def server(make_cluster: Callable[..., Cluster]) -> Cluster:
    """The server that all tests share. Who restarts or kills it leaves it running."""
    cluster = make_cluster()
    database.furnish(cluster)
    return cluster


@pytest.fixture
def db(server: Cluster) -> Iterator[Database]:
    """A new database with the extension, its tables owned by `payments_owner`, and a gateway's roles."""
    created = database.create(server)
    yield created
    created.close()


@pytest.fixture
def empty_db(server: Cluster) -> Iterator[Database]:
    """A new database without the extension."""
    created = database.create(server, template="template0")
    yield created
    created.close()


@pytest.fixture
def stripe(db: Database) -> Iterator[FakeStripe]:
    """The fake Stripe, which `db` is pointed at."""
    with FakeStripe() as fake:
        statement = sql.SQL("alter database {} set payments.stripe_api_base = {}")
        with db.connect() as connection:
            connection.execute(statement.format(sql.Identifier(db.name), sql.Literal(fake.base_url)))
        stripe_types.SEEN.watch(fake)
        yield fake
        stripe_types.SEEN.take(fake)


@pytest.fixture
def shop(db: Database, stripe: FakeStripe) -> Shop:
    """An app on `db` that sells through the fake Stripe."""
    return Shop(db, stripe)
