"""The recipe for pg_cron, with pg_cron itself.

Where the machine has none for this Postgres, Debian's package is unpacked for as long as the test
runs; where that cannot be had either, there is nothing to test with.
"""

from __future__ import annotations

import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from fake_stripe import FakeStripe
from harness import database
from harness.postgres import Postgres

RECIPE = """
select cron.schedule('poll', '* * * * *', $$call payments.poll_events('test')$$);
select cron.schedule('sync', '* * * * *', $$call payments.sync('test')$$);
"""


def directory(postgres: Postgres, what: str) -> Path:
    """Where this Postgres has its libraries or extensions."""
    told = subprocess.run([postgres.pg_config, f"--{what}"], capture_output=True, text=True, check=True)
    return Path(told.stdout.strip())


@pytest.fixture(scope="module")
def pg_cron(postgres: Postgres, tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """pg_cron, installed in the Postgres under test."""
    libraries, extensions = directory(postgres, "pkglibdir"), directory(postgres, "sharedir") / "extension"
    if (extensions / "pg_cron.control").exists():
        yield
        return
    added = []
    for file in unpacked(postgres, tmp_path_factory.mktemp("pg_cron")):
        place = libraries if file.suffix == ".so" else extensions
        added.append(Path(shutil.copy(file, place)))
    yield
    for file in added:
        file.unlink()


def unpacked(postgres: Postgres, into: Path) -> list[Path]:
    """The files of Debian's package for this Postgres."""
    package = f"postgresql-{postgres.major}-cron"
    if postgres.origin != "the machine's own" or not (shutil.which("apt-get") and shutil.which("dpkg-deb")):
        pytest.skip(f"pg_cron is not installed, and Debian's {package} is for Debian's PostgreSQL {postgres.major}")
    fetched = subprocess.run(["apt-get", "download", package], cwd=into, capture_output=True, text=True)
    if fetched.returncode:
        pytest.skip(f"pg_cron is not installed, and apt-get cannot fetch {package}: {fetched.stderr.strip()}")
    (deb,) = into.glob("*.deb")
    subprocess.run(["dpkg-deb", "--extract", deb, into / "files"], check=True)
    found = [*into.glob("files/usr/lib/**/pg_cron.so"), *into.glob("files/usr/share/**/extension/pg_cron*")]
    assert any(file.suffix == ".so" for file in found)
    return found


def test_cron_keeps_a_database_in_step(pg_cron: None, make_cluster: Any) -> None:
    cluster = make_cluster(settings={"shared_preload_libraries": "'pg_cron'", "cron.database_name": "'shop'"})
    database.furnish(cluster)
    shop = database.create(cluster, "shop")
    with FakeStripe() as stripe:
        stripe.control.populate(200)
        shop.execute(f"alter database shop set payments.stripe_api_base = '{stripe.base_url}'")
        shop.execute("create extension pg_cron")
        # Here, over the socket that clients use; by default pg_cron connects to localhost.
        shop.execute(f"alter system set cron.host = '{cluster.directory}'")
        shop.disconnect()
        cluster.restart()
        shop.execute("select payments.set_stripe_key('test', %s)", (stripe.test_key,))
        shop.execute("create role bookkeeper login; select payments.grant_admin('bookkeeper')")
        shop.execute("grant usage on schema cron to bookkeeper")
        shop.connect(user="bookkeeper").execute(RECIPE)
        shirt = stripe.control.price(1900)

        assert done(shop) == {"poll": "succeeded", "sync": "succeeded"}
        assert shop.value("select count(*) from payments.payment_history") > 20
        assert shop.value("select count(*) from payments.prices where stripe_price_id = %s", (shirt["id"],)) == 1
        assert shop.value("select bool_and(processing_status in ('processed', 'ignored')) from payments.webhook_events")
        status = shop.execute("select * from payments.status() where environment = 'test'").fetchone()
        assert status.last_sync_at is not None and status.last_poll_at is not None


def done(shop: database.Database, timeout: float = 150) -> dict[str, str]:
    """What became of the first run of every job."""
    deadline = time.monotonic() + timeout
    while time.monotonic() < deadline:
        runs = shop.execute(
            "select distinct on (jobname) jobname, status, return_message "
            "from cron.job join cron.job_run_details using (jobid) order by jobname, runid"
        ).fetchall()
        if len(runs) == 2 and all(run.status in ("succeeded", "failed") for run in runs):
            assert all(run.status == "succeeded" for run in runs), runs
            return {run.jobname: run.status for run in runs}
        time.sleep(0.5)
    raise TimeoutError(f"cron is not done after {timeout} s: {runs}")
