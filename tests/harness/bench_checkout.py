"""Checkouts: what is added to Stripe's own time, beside the least that can be; and a crowd and pools of them."""

from __future__ import annotations

import json
import shutil
import tempfile
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
    certificates = Path(tempfile.mkdtemp(prefix="payments-", dir="/tmp"))
    try:
        authority, _ = make_certificate(certificates)
        with bench.cluster(environment={"SSL_CERT_FILE": str(authority)}) as cluster:
            database.furnish(cluster)
            shop = database.create(cluster)
            told = bench.client("checkout", _order(bench, shop, _opened(shop), certificates))
    finally:
        shutil.rmtree(certificates)
    _tell(bench, told)


def _opened(shop: Database) -> dict[str, Any]:
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


def _order(bench: Bench, shop: Database, sale: dict[str, Any], certificates: Path) -> dict[str, Any]:
    calls = {0: 60, 50: 15, 500: 3} if bench.quick else {0: 500, 50: 100, 500: 20}
    return {
        "dsn": shop.dsn,
        "database": shop.name,
        "certificates": str(certificates),
        **sale,
        "delays": [{"milliseconds": delay, "calls": count} for delay, count in calls.items()],
        "backends": 5 if bench.quick else 20,
        "crowd": 20 if bench.quick else 100,
        "pools": [10] if bench.quick else [1, 10, 50],
        "pool_seconds": 2 if bench.quick else 8,
    }


def _tell(bench: Bench, told: dict[str, Any]) -> None:
    first = told["first"]
    bench.add("checkout", "first call of a backend", "p50", "ms", median(first["ours"]), median(first["floor"]))
    for later in told["later"]:
        case = f"later calls, Stripe takes {later['delay']} ms"
        ours, floor = later["ours"], later["floor"]
        calls = len(ours["over"])
        over = [quantiles(side["over"], n=100) for side in (ours, floor)]
        bench.add("checkout", case, "p50 over Stripe", "ms", over[0][49], over[1][49])
        bench.add("checkout", case, "p99 over Stripe", "ms", over[0][98], over[1][98])
        bench.add("checkout", case, "p50 over the floor", "ms", over[0][49] - over[1][49])
        bench.add("checkout", case, "backend's CPU", "ms", *(side["processor"] / calls * 1e3 for side in (ours, floor)))
        bench.add("checkout", case, "flushes of WAL", "a call", ours["flushes"], floor["flushes"])
        bench.add("checkout", case, "TLS handshakes", "", ours["connections"], floor["connections"])
    crowd = told["crowd"]
    case = f"{len(crowd['first'])} at once, Stripe takes 500 ms"
    bench.add("checkout", case, "slowest first call over Stripe", "ms", max(crowd["first"]))
    bench.add("checkout", case, "slowest later call over Stripe", "ms", max(crowd["later"]))
    bench.add("checkout", case, "backends", "", len(crowd["first"]), len(crowd["memory"]["floor"]))
    bench.add("checkout", case, "connections to Stripe", "", crowd["connections"])
    memory = crowd["memory"]
    bench.add("checkout", case, "a backend's own memory", "MB", median(memory["ours"]), median(memory["floor"]))
    bench.add("checkout", case, "memory of all", "MB", sum(memory["ours"]), sum(memory["floor"]))
    for pool in told["pools"]:
        case = f"pool of {pool['connections']}, Stripe takes 500 ms"
        rates = pool["calls_per_second"]
        bench.add("checkout", case, "throughput", "checkouts/s", rates["ours"], rates["floor"])
