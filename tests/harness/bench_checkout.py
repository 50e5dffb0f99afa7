"""Checkouts: what is added to Stripe's own time, beside the least that can be; and a crowd and pools of them."""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from statistics import median, quantiles
from typing import TYPE_CHECKING, Any

from psycopg import sql

from fake_stripe import FakeStripe
from fake_stripe.server import make_certificate
from harness import database
from harness.database import Database

if TYPE_CHECKING:
    from harness.bench import Bench

SUBJECTS = 50_000
URLS = {"success_url": "https://shop.example/thanks", "cancel_url": "https://shop.example/cart"}

SHOP = f"""
select payments.open_to_apps('test');
select payments.grant_app('authenticated');
create policy everybody on payments.checkout_sessions for insert to authenticated with check (true);
insert into payments.customer_mappings (environment, subject_type, subject_id, stripe_customer_id, created_at, updated_at)
select 'test', 'user', n::text, 'cus_' || n, now(), now() from generate_series(1, {SUBJECTS}) as n;
create table public.floor_sessions (like payments.checkout_sessions including defaults, primary key (id));
vacuum analyze;
"""


def measure(bench: Bench) -> None:
    with certificates() as directory, bench.cluster(environment=trust(directory)) as cluster:
        database.furnish(cluster)
        shop = database.create(cluster)
        sale = open_shop(shop)
        sides = [side(shop, "ours"), side(shop, "floor")]
        _tell(bench, bench.client("checkout", {**_order(bench), **sale, "sides": sides, "certificates": directory}))


@contextmanager
def certificates() -> Iterator[str]:
    """A directory with a private authority and a certificate of it for this machine."""
    directory = Path(tempfile.mkdtemp(prefix="payments-", dir="/tmp"))
    try:
        make_certificate(directory)
        yield str(directory)
    finally:
        shutil.rmtree(directory)


def trust(certificates: str) -> dict[str, str]:
    """The environment of a server that trusts the authority."""
    return {"SSL_CERT_FILE": f"{certificates}/ca.pem"}


def side(shop: Database, way: str) -> dict[str, str]:
    """A database as the client takes it."""
    return {"dsn": shop.dsn, "database": shop.name, "way": way}


def open_shop(shop: Database) -> dict[str, Any]:
    """Opens the shop: what it sells, and a session as Stripe answers it."""
    with FakeStripe(seed=1) as stripe:
        setting = sql.SQL("alter database {} set payments.stripe_api_base = {}")
        shop.execute(setting.format(sql.Identifier(shop.name), sql.Literal(stripe.base_url)))
        shop.disconnect()
        shop.execute("select payments.set_stripe_key('test', %s)", (stripe.test_key,))
        for statement in SHOP.strip().split(";\n"):
            shop.execute(statement)
        price = stripe.control.price(1900)["id"]
        # A price that is not here is asked for at every checkout.
        shop.execute("call payments.sync('test')")
        sale = {"mode": "payment", "line_items": [{"price": price, "quantity": 1}], **URLS}
        session = stripe.control.call("POST", "/v1/checkout/sessions", sale)
        return {"session": session, "line_items": json.dumps([{"stripe_price_id": price, "quantity": 1}])}


def _order(bench: Bench) -> dict[str, Any]:
    calls = {0: 60, 50: 15, 500: 3} if bench.quick else {0: 500, 50: 100, 500: 20}
    return {
        "delays": [{"milliseconds": delay, "calls": count} for delay, count in calls.items()],
        "backends": 5 if bench.quick else 20,
        "crowd": 20 if bench.quick else 100,
        "pools": [10] if bench.quick else [1, 10, 50],
        "pool_seconds": 2 if bench.quick else 8,
    }


def _tell(bench: Bench, told: dict[str, Any]) -> None:
    add = partial(bench.add, "checkout")
    add("first call of a backend", "p50", "ms", *map(median, told["first"]))
    for later in told["later"]:
        case = f"later calls, Stripe takes {later['delay']} ms"
        tell_later(add, case, later["sides"])
        ours, floor = (median(side["over"]) for side in later["sides"])
        add(case, "p50 over the floor", "ms", ours - floor)
    ours, floor = told["crowds"]
    case = f"{len(ours['first'])} at once, Stripe takes 500 ms"
    add(case, "slowest first call over Stripe", "ms", max(ours["first"]), max(floor["first"]))
    add(case, "slowest later call over Stripe", "ms", max(ours["later"]), max(floor["later"]))
    add(case, "backends", "", len(ours["memory"]), len(floor["memory"]))
    add(case, "connections to Stripe", "", ours["connections"], floor["connections"])
    add(case, "a backend's own memory", "MB", median(ours["memory"]), median(floor["memory"]))
    add(case, "memory of all", "MB", sum(ours["memory"]), sum(floor["memory"]))
    for pool in told["pools"]:
        case = f"pool of {pool['connections']}, Stripe takes 500 ms"
        add(case, "throughput", "checkouts/s", *pool["calls_per_second"])


def tell_later(add: Callable[..., None], case: str, sides: list[dict[str, Any]]) -> None:
    """Figures of calls of a backend that has called before, of both sides."""
    calls = len(sides[0]["over"])
    one, other = (quantiles(side["over"], n=100) for side in sides)
    add(case, "p50 over Stripe", "ms", one[49], other[49])
    add(case, "p99 over Stripe", "ms", one[98], other[98])
    add(case, "backend's CPU", "ms", *(side["processor"] / calls * 1e3 for side in sides))
    add(case, "flushes of WAL", "a call", *(side["flushes"] for side in sides))
    add(case, "TLS handshakes", "", *(side["connections"] for side in sides))
