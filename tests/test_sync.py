"""`sync`: whole lists read page by page, whatever happens meanwhile."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import psycopg
import pytest

from backend import Memory
from equality import TABLES, differences, lists, mirrored, rows
from fake_stripe import FakeStripe
from harness import database
from harness.database import Database
from shop import Task, refused
from story import something_happens

WITNESS = """
create table public.heard (number bigint generated always as identity, relation text, id text, at timestamptz, source text);
grant insert on public.heard to payments_owner;
create function public.hear() returns trigger language plpgsql as $$
begin
    insert into public.heard (relation, id, at, source)
    values (tg_table_name, pg_catalog.to_jsonb(new) ->> tg_argv[0], new.created_at, current_setting('payments.source'));
    return null;
end $$;
"""


@pytest.fixture
def connected(db: Database, stripe: FakeStripe) -> Database:
    """A database with a key, and nothing synced."""
    db.execute("select payments.set_stripe_key('test', %s)", (stripe.test_key,))
    db.execute("select payments.set_webhook_secret('test', %s)", (stripe.webhook_secret,))
    stripe.control.clear_requests()
    return db


def witness(db: Database) -> None:
    """Has a trigger on every projected table say what it heard of."""
    db.execute(WITNESS)
    for table, key in TABLES.items():
        db.execute(
            f"create trigger hear after insert or update on payments.{table} "
            f"for each row execute function public.hear('{key}')"
        )


def heard(db: Database, relation: str | None = None) -> list[Any]:
    """What the triggers heard, in order."""
    return db.execute(
        "select * from public.heard where relation = coalesce(%s, relation) order by number", (relation,)
    ).fetchall()


def run(db: Database, object: str) -> Any:
    """How far a list is."""
    return db.execute("select * from payments.sync_runs where object = %s", (object,)).fetchone()


def step_until_complete(db: Database) -> list[Any]:
    """Takes steps, as a scheduler would, until a run is over: what each returned."""
    steps = []
    while not steps or (steps[-1].object, steps[-1].status) != ("due", "complete"):
        steps.append(db.execute("select * from payments.sync_step('test')").fetchone())
    return steps


def test_all_of_an_account_comes_in(connected: Database, stripe: FakeStripe) -> None:
    stripe.control.populate(1500)
    connected.execute("call payments.sync('test')")
    assert differences(connected, stripe) == []
    runs = connected.execute("select * from payments.sync_runs").fetchall()
    assert {run.status for run in runs} == {"complete"}
    assert sum(run.listed for run in runs) == len(lists(stripe))
    assert connected.value("select count(*) from payments.stripe_objects where due is not null") == 0
    paid = connected.value("select count(*) from payments.payment_history where type <> 'refund'")
    assert paid == sum(1 for kind, _ in lists(stripe) if kind == "charge")


def test_steps_do_the_same_as_the_procedure(connected: Database, stripe: FakeStripe) -> None:
    stripe.control.populate(900)
    steps = step_until_complete(connected)
    assert differences(connected, stripe) == []
    assert len(steps) < 80
    before = stripe.world.logged
    again = connected.execute("select * from payments.sync_step('test')").fetchone()
    assert (again.object, again.listed, stripe.world.logged - before) == ("products", 2, 1), "the next run begins"


def test_the_lists_to_read_can_be_named(connected: Database, stripe: FakeStripe) -> None:
    stripe.control.populate(200)
    connected.execute("call payments.sync('test', array['prices', 'products'])")
    assert {kind for kind, _ in mirrored(connected)} == {"product", "price"}
    with refused("22023", "unknown_object") as refusal:
        connected.execute("call payments.sync('test', array['payouts'])")
    assert "payment_intents" in refusal.hint


def test_the_first_reading_fires_no_triggers_and_later_ones_do(connected: Database, stripe: FakeStripe) -> None:
    stripe.control.populate(300)
    witness(connected)
    connected.execute("call payments.sync('test')")
    assert heard(connected) == []
    assert connected.value("select count(*) from payments.payment_history") > 50
    price = stripe.control.price(700)
    stripe.control.update(price["product"], {"name": "Renamed"})
    connected.execute("call payments.sync('test')")
    assert [(row.relation, row.source) for row in heard(connected)] == [("products", "sync"), ("prices", "sync")]


def test_what_happens_during_the_first_reading_is_news(connected: Database, stripe: FakeStripe) -> None:
    stripe.control.populate(900)
    witness(connected)
    for _ in range(6):
        connected.execute("select payments.sync_step('test')")
    # Nothing tells of these two but the lists: no webhook comes.
    with stripe.world.lock:
        store = stripe.world.stores[stripe.account, False]
        old = next(sub for sub in store.collection("subscription").oldest_first() if sub["status"] == "active")
    stripe.control.clock(advance=2)
    stripe.control.cancel(old["id"])
    given = {"mode": "payment", "line_items": [{"price": stripe.control.price(500)["id"], "quantity": 1}]}
    urls = {"success_url": "https://shop.example/thanks", "cancel_url": "https://shop.example/cart"}
    session = stripe.control.call("POST", "/v1/checkout/sessions", {**given, **urls})
    intent = stripe.control.complete(session["id"])["payment_intent"]
    step_until_complete(connected)
    payment = connected.value("select id from payments.payment_history where stripe_payment_intent_id = %s", (intent,))
    assert {row.id for row in heard(connected, "subscriptions")} == {old["id"]}
    assert {row.id for row in heard(connected, "payment_history")} == {str(payment)}


def test_triggers_see_the_oldest_first(connected: Database, stripe: FakeStripe) -> None:
    connected.execute("call payments.sync('test')")
    witness(connected)
    stripe.control.populate(1500)
    connected.execute("call payments.sync('test')")
    for table in ("customers", "subscriptions", "invoices"):
        first = {row.id: row.at for row in reversed(heard(connected, table))}
        moments = list(reversed(first.values()))
        assert len(moments) > 90
        assert moments == sorted(moments), table


def test_what_a_list_does_not_show_is_asked_for_and_not_deleted(connected: Database, stripe: FakeStripe) -> None:
    stripe.control.populate(300)
    connected.execute("call payments.sync('test')")
    with stripe.world.lock:
        store = stripe.world.stores[stripe.account, False]
        gone, hidden = (customer["id"] for customer in list(store.all("customer"))[:2])
    stripe.control.delete(gone)
    stripe.control.clock(advance=5)
    stripe.control.clear_requests()
    with hiding(stripe, "customer", hidden):
        connected.execute("call payments.sync('test', array['customers'])")
    asked = {request["path"] for request in stripe.control.requests("/v1/customers/*")}
    assert asked == {f"/v1/customers/{gone}", f"/v1/customers/{hidden}"}
    deleted = connected.execute("select stripe_customer_id from payments.customers where deleted").fetchall()
    assert [row.stripe_customer_id for row in deleted] == [gone]
    assert run(connected, "customers").asked == 2


def test_what_stripe_knows_no_more_is_deleted(connected: Database, stripe: FakeStripe) -> None:
    product = stripe.control.call("POST", "/v1/products", {"name": "Mistake"})["id"]
    connected.execute("call payments.sync('test')")
    with stripe.world.lock:
        store = stripe.world.stores[stripe.account, False]
        store.collection("product").remove(product)
    stripe.control.clock(advance=5)
    connected.execute("call payments.sync('test')")
    assert connected.value("select deleted from payments.products where stripe_product_id = %s", (product,))


@contextmanager
def hiding(stripe: FakeStripe, kind: str, identifier: str) -> Iterator[None]:
    """An index of Stripe's that misses an object."""
    collection = stripe.world.stores[stripe.account, False].collection(kind)
    with stripe.world.lock:
        place = collection._place[identifier]
        collection._order.remove(place)
    yield
    with stripe.world.lock:
        collection._order.append(place)
        collection._order.sort()


def test_the_object_to_go_on_from_may_be_deleted(connected: Database, stripe: FakeStripe) -> None:
    stripe.control.populate(2000)
    connected.execute("select payments.sync_step('test', array['customers'])")
    while run(connected, "customers").listed < 100:
        connected.execute("select payments.sync_step('test', array['customers'])")
    at = run(connected, "customers").cursor["listing"]["place"]["after"]["id"]
    stripe.control.delete(at)
    store = stripe.world.stores[stripe.account, False]
    with stripe.world.lock:
        del store.collection("customer")._place[at]
    connected.execute("call payments.sync('test')")
    stripe.control.clock(advance=5)
    connected.execute("call payments.sync('test', array['customers'])")
    assert differences(connected, stripe) == []


def test_all_items_of_a_subscription_come_in(connected: Database, stripe: FakeStripe) -> None:
    prices = [stripe.control.price(100 + n, name=f"Part {n}", interval="month")["id"] for n in range(15)]
    lines = [{"price": price, "quantity": 1} for price in prices]
    given = {"mode": "subscription", "line_items": lines, "success_url": "https://shop.example/thanks"}
    session = stripe.control.call("POST", "/v1/checkout/sessions", given)
    stripe.control.complete(session["id"])
    connected.execute("call payments.sync('test')")
    assert connected.value("select count(*) from payments.subscription_items") == 15
    assert connected.value("select count(*) from payments.stripe_objects where due is not null") == 0


def test_stripe_asks_to_wait(connected: Database, stripe: FakeStripe) -> None:
    stripe.control.populate(100)
    stripe.control.fault("rate_limit", path="/v1/prices", retry_after=2)
    connected.execute("set payments.http_timeout = '1s'")
    began = time.monotonic()
    step = connected.execute("select * from payments.sync_step('test', array['prices'])").fetchone()
    assert (step.status, step.listed, step.attempts) == ("listing", 0, 1)
    assert "rate" in step.last_error
    asked = stripe.world.logged
    connected.execute("select payments.sync_step('test', array['prices'])")
    assert stripe.world.logged == asked, "Stripe is left alone"
    connected.execute("call payments.sync('test', array['prices'])")
    assert time.monotonic() - began > 2
    assert (run(connected, "prices").listed, run(connected, "prices").last_error) == (2, None)


def test_a_sync_keeps_within_stripes_limits(connected: Database, stripe: FakeStripe) -> None:
    stripe.control.populate(1200)
    stripe.control.limit_rate(8)
    connected.execute("call payments.sync('test')")
    assert differences(connected, stripe) == []
    refused = [request for request in stripe.control.requests() if request["status"] == 429]
    assert 0 < len(refused) < 15


def test_stripe_fails_for_a_moment_and_for_good(connected: Database, stripe: FakeStripe) -> None:
    stripe.control.populate(100)
    connected.execute("set payments.http_timeout = '300ms'")
    stripe.control.fault("server_error", path="/v1/prices", times=3)
    connected.execute("call payments.sync('test', array['prices'])")
    assert run(connected, "prices").status == "complete"
    stripe.control.fault("server_error", path="/v1/prices", times=None)
    connected.execute("select payments.sync_step('test', array['prices'])")
    connected.execute("update payments.sync_runs set attempts = 7, resume_at = null where object = 'prices'")
    with refused("PT502", "stripe_failed"):
        connected.execute("call payments.sync('test', array['prices'])")


def test_a_restricted_key_says_what_it_lacks(connected: Database, stripe: FakeStripe) -> None:
    key = "rk_test_51FakeStripeReader000000001"
    stripe.control.add_key(key, permissions=["product_read", "plan_read", "accounts_kyc_basic_read"])
    connected.execute("select payments.set_stripe_key('test', %s)", (key,))
    with refused("55000", "permission_missing"):
        connected.execute("call payments.sync('test')")
    assert run(connected, "prices").status == "complete"


def test_an_answer_that_is_too_large_is_asked_for_in_parts(connected: Database, stripe: FakeStripe) -> None:
    stripe.control.populate(1000)
    connected.execute("set payments.http_max_response_size = '64kB'")
    connected.execute("call payments.sync('test', array['invoices'])")
    invoices = sum(1 for kind, _ in lists(stripe) if kind == "invoice")
    assert connected.value("select count(*) from payments.invoices") == invoices > 90


def test_a_trigger_that_fails_does_not_hold_up_the_others(connected: Database, stripe: FakeStripe) -> None:
    connected.execute("call payments.sync('test')")
    stripe.control.populate(200)
    with stripe.world.lock:
        victim = next(stripe.world.stores[stripe.account, False].all("customer"))["id"]
    connected.execute(
        f"""
        create function public.refuse() returns trigger language plpgsql as $$
        begin
            if new.stripe_customer_id = '{victim}' then raise exception 'not this one'; end if;
            return new;
        end $$;
        create trigger refuse before insert on payments.customers for each row execute function public.refuse();
        """
    )
    connected.execute("call payments.sync('test')")
    assert run(connected, "customers").failed == 1
    customers = [id for kind, id in lists(stripe) if kind == "customer"]
    assert connected.value("select count(*) from payments.customers") == len(customers) - 1
    connected.execute("drop trigger refuse on payments.customers")
    connected.execute("call payments.sync('test')")
    assert (run(connected, "customers").failed, differences(connected, stripe)) == (0, [])
    assert connected.value("select count(*) from payments.customers") == len(customers)


def test_two_sessions_do_not_sync_twice(connected: Database, stripe: FakeStripe) -> None:
    stripe.control.populate(600)
    stripe.control.fault("delay", path="/v1/products", before=1.0)
    first = Task(lambda: connected.connect().execute("call payments.sync('test')"))
    stripe.control.wait_for_requests(1, "/v1/products")
    notices: list[str] = []
    second = connected.connect()
    second.add_notice_handler(lambda notice: notices.append(notice.message_primary))
    second.execute("call payments.sync('test')")
    assert notices == ['another session is syncing the environment "test"']
    assert second.execute("select payments.sync_step('test')").fetchone()[0] is None
    first.result()
    assert len(stripe.control.requests("/v1/products")) == 1
    assert differences(connected, stripe) == []


def test_it_commits_and_so_cannot_run_inside_a_transaction(connected: Database) -> None:
    with connected.connect() as connection, pytest.raises(psycopg.errors.InvalidTransactionTermination):
        with connection.transaction():
            connection.execute("call payments.sync('test')")


def test_what_stripe_refuses_to_tell_holds_up_nothing(connected: Database, stripe: FakeStripe) -> None:
    prices = [stripe.control.price(100 + n, name=f"Part {n}", interval="month")["id"] for n in range(11)]
    lines = [{"price": price, "quantity": 1} for price in prices]
    given = {"mode": "subscription", "line_items": lines, "success_url": "https://shop.example/thanks"}
    for _ in range(2):
        stripe.control.complete(stripe.control.call("POST", "/v1/checkout/sessions", given)["id"])
    stripe.control.fault("forbidden", path="/v1/subscription_items", permission="subscription_read")
    connected.execute("call payments.sync('test')")
    assert connected.value("select count(*) from payments.stripe_objects where due is not null") == 1
    connected.execute("call payments.poll_events('test')")
    assert connected.value("select count(*) from payments.stripe_objects where due is not null") == 0
    assert connected.value("select count(*) from payments.subscription_items") == 22


def test_a_revoked_key_is_told(connected: Database, stripe: FakeStripe) -> None:
    stripe.control.revoke_key(stripe.test_key)
    with refused("55000", "key_revoked"):
        connected.execute("call payments.sync('test')")


def test_it_refuses_transactions_that_see_no_news(connected: Database) -> None:
    with connected.connect() as connection, refused("25000", "wrong_transaction"):
        connection.execute("begin isolation level repeatable read")
        connection.execute("select payments.sync_step('test')")


def test_an_admin_may_and_others_may_not(connected: Database, stripe: FakeStripe) -> None:
    connected.execute("create role chief nologin; select payments.grant_admin('chief')")
    try:
        stripe.control.price(500)
        connected.connect("chief").execute("call payments.sync('test')")
        assert connected.value("select count(*) from payments.prices") == 1
        for statement in ("call payments.sync('test')", "select payments.sync_step('test')", "call payments.poll_events('test')"):
            with pytest.raises(psycopg.errors.InsufficientPrivilege):
                connected.connect("authenticated").execute(statement)
    finally:
        connected.disconnect()
        connected.execute("drop owned by chief; drop role chief")


def test_killed_at_random_moments_it_ends_where_stripe_is(
    make_cluster: Any, request: pytest.FixtureRequest, capsys: pytest.CaptureFixture[str]
) -> None:
    """Webhooks change what is being read, and `kill -9` takes everything down in between.

    With `--sync-objects 100000` an account of that size; by default one of five thousand.
    """
    count = request.config.getoption("--sync-objects")
    kills = 6 if count <= 10_000 else 20
    cluster = make_cluster()
    database.furnish(cluster)
    db = database.create(cluster)
    with FakeStripe(seed=count) as stripe:
        db.execute(f"alter database {db.name} set payments.stripe_api_base = '{stripe.base_url}'")
        stripe.control.populate(count)
        db.disconnect()
        db.execute("select payments.set_stripe_key('test', %s)", (stripe.test_key,))
        db.execute("select payments.set_webhook_secret('test', %s)", (stripe.webhook_secret,))
        buyers = Buyers(db, stripe)
        began = time.monotonic()
        peaks: list[int] = []
        chance = random.Random(count)
        while True:
            doomed = kills > 0
            with Memory(db) as memory:
                sync = Task(lambda: memory.connection.execute("call payments.sync('test')"))
                if doomed:
                    killed_at = time.monotonic() + chance.uniform(0.2, count / 3000)
                    while sync.running and time.monotonic() < killed_at:
                        time.sleep(0.01)
                    kills -= 1
                    buyers.pause()
                    cluster.kill()
                    cluster.start()
                    buyers.resume()
                try:
                    sync.result(3600)
                except psycopg.Error:
                    assert doomed, "nobody killed it"
            peaks.append(memory.peak)
            if not doomed:
                break
        seconds = time.monotonic() - began
        buyers.stop()
        assert buyers.delivered > 50
        db.disconnect()
        # What happened after its list was read came by webhook; now nothing is left to learn.
        assert differences(db, stripe) == []
        assert db.value("select count(*) from payments.stripe_objects where due is not null") == 0

        told = rows(db)
        with capsys.disabled():
            print(
                f"\n{len(lists(stripe))} objects, {buyers.delivered} webhooks meanwhile: {seconds:.0f} s, "
                f"peak memory of the backend {max(peaks)} kB"
            )
        # Rows are what a database has that only now looks, undisturbed.
        twin = database.create(cluster)
        twin.execute(f"alter database {twin.name} set payments.stripe_api_base = '{stripe.base_url}'")
        twin.disconnect()
        twin.execute("select payments.set_stripe_key('test', %s)", (stripe.test_key,))
        with Memory(twin) as memory:
            memory.connection.execute("call payments.sync('test')")
            first, last = memory.samples[len(memory.samples) // 4], memory.samples[-1]
        with capsys.disabled():
            print(f"undisturbed: memory {first} kB after a quarter, {last} kB at the end")
        assert last - first < 20_000, "memory grows with the account"
        for table, twins in rows(twin).items():
            assert told[table] == twins, table


class Buyers:
    """Who buys, cancels and is refunded while the account is read, and the webhooks about it."""

    def __init__(self, db: Database, stripe: FakeStripe) -> None:
        self._db, self._stripe = db, stripe
        self._running, self._open = threading.Event(), threading.Event()
        self._running.set()
        self._open.set()
        self._idle = threading.Event()
        self._chance = random.Random(1)
        self.delivered = 0
        self._task = Task(self._live)

    def pause(self) -> None:
        self._open.clear()
        assert self._idle.wait(30)

    def resume(self) -> None:
        self._open.set()

    def stop(self) -> None:
        self._running.clear()
        self._task.result(60)

    def _live(self) -> None:
        while self._running.is_set():
            if not self._open.is_set():
                self._idle.set()
                self._open.wait()
                self._idle.clear()
            something_happens(self._stripe, self._chance)
            self._deliver()

    def _deliver(self) -> None:
        with psycopg.connect(self._db.dsn, autocommit=True) as connection:
            for delivery in self._stripe.control.deliveries():
                self._insist(connection, delivery)
                self.delivered += 1

    @staticmethod
    def _insist(connection: psycopg.Connection, delivery: dict[str, str]) -> None:
        """Stripe sends an event again after a 503."""
        while True:
            try:
                statement = "select status from payments.handle_webhook('test', %s, %s)"
                (status,) = connection.execute(statement, (delivery["body"], delivery["signature"])).fetchone()
                assert status != "failed"
                return
            except psycopg.errors.LockNotAvailable:
                time.sleep(0.1)
