"""`kill -9` at random moments of a shop that sells, hears from Stripe, reads it and changes its keys.

`tests/prove.sh crash` does it hundreds of times.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import random
import re
import signal
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Iterator
from typing import Any

import psycopg
import pytest

from equality import differences
from fake_stripe import FakeStripe
from fake_stripe.webhooks import sign, text
from harness import database
from harness.cluster import Cluster
from harness.database import OWNER, Database
from shop import Shop, Task
from story import something_happens

KILLS = int(os.environ.get("PAYMENTS_KILLS", "8"))
A_ROUND = 24
"""So many kills a shop: then the next one begins anew, with other chances."""

pytestmark = pytest.mark.timeout(600)

FULFILMENT = f"""
    create table public.paid_before as select id from payments.payment_history where paid_at is not null;
    create table public.fulfilments (payment uuid not null, order_id text);
    grant insert on public.fulfilments to {OWNER};

    create function public.fulfil() returns trigger language plpgsql set search_path = '' as $$
    begin
        if new.paid_at is not null and (tg_op = 'INSERT' or old.paid_at is null) then
            insert into public.fulfilments values (new.id, new.metadata ->> 'order_id');
        end if;
        return null;
    end $$;
    create trigger fulfil after insert or update on payments.payment_history
        for each row execute function public.fulfil();
"""
"""Nothing keeps the app from fulfilling twice but that its trigger fires once."""

AIMS = {
    "webhook": "handle_webhook(",
    "checkout": "create_checkout_session",
    "portal": "create_customer_portal_session",
    "sync": "payments.sync(",
    "poll": "payments.poll_events(",
    "key": "set_stripe_key",
    "secret": "set_webhook_secret",
    "endpoint": "configure_webhook",
}
"""What a kill is aimed at: a backend that runs such a statement."""

SET_KEY = "select payments.set_stripe_key('test', %s)"

PASSING = {None, "57P01", "57P02", "57P03", "55P03", "PT409", "PT503", "PT504"}
"""The server is gone, or busy: whoever gets this comes again."""


class Mail:
    """Stripe's side of the webhooks. What is not acknowledged is sent again, and so is some that is.

    There is an endpoint that somebody made by hand, whose secret is rolled, and there are those that
    the database makes, which get some of the events too.
    """

    def __init__(self, stripe: FakeStripe, chance: random.Random) -> None:
        self._stripe, self._chance = stripe, chance
        self._waiting: deque[tuple[str, str | None]] = deque()
        self.secrets = [stripe.webhook_secret]
        self.acknowledged: Counter[str] = Counter()
        self.known_endpoints: set[str] = set()
        stripe.world.on_event = lambda store, event: self._happened(event["id"])

    def _happened(self, event: str) -> None:
        self._waiting.append((event, None))
        if self._chance.random() < 0.2:
            hooks = self._stripe.world.stores[self._stripe.account, False].all("webhook_endpoint")
            self._waiting.extend((event, hook["id"]) for hook in hooks)

    @property
    def is_empty(self) -> bool:
        return not self._waiting

    def hand_over(self, connection: psycopg.Connection) -> None:
        """One delivery; raises what the database does, and then it is to come again."""
        # Networks reorder, too.
        self._waiting.rotate(self._chance.randrange(3))
        try:
            event, endpoint = letter = self._waiting.popleft()
        except IndexError:
            time.sleep(0.01)
            return
        with self._stripe.world.lock:
            store, found = self._stripe.world.find("event", event)
            body = text(found)
            if endpoint is not None and store.get("webhook_endpoint", endpoint) is None:
                return
            secrets = self.secrets if endpoint is None else [store.notes[endpoint]["secret"]]
        was_acknowledged, was_known = event in self.acknowledged, endpoint in self.known_endpoints | {None}
        try:
            receipt = connection.execute(
                "select status, duplicate from payments.handle_webhook('test', %s, %s)", (body, sign(body, secrets))
            ).fetchone()
        except psycopg.Error as error:
            self._waiting.append(letter)
            # Stripe made the endpoint, and the crash came before the database could keep its secret.
            if error.sqlstate == "22023" and not was_known:
                return
            raise
        assert receipt.status in ("processed", "ignored"), receipt
        assert receipt.duplicate or not was_acknowledged, f"{event} was forgotten"
        self.acknowledged[event] += 1
        if self._chance.random() < 0.1:
            self._waiting.append((event, None))


class Orders:
    """Buyers, each of whom asks for a checkout until it is there, and then pays."""

    def __init__(self, shop: Shop, chance: random.Random, name: str) -> None:
        self._shop, self._chance, self._name = shop, chance, name
        self._numbers = itertools.count(1)
        self.sessions: dict[str, set[str]] = {}
        self._customers: list[str] = []
        self._next()

    def _next(self) -> None:
        number = next(self._numbers)
        self._key = f"{self._name}:{number}"
        # Three orders a buyer: who comes again is known.
        self._buyer = f"{self._name}{number // 3}"
        self._mode = self._chance.choice(["payment", "payment", "subscription"])
        # Some pay while the transaction that made the session is still open, and may have to ask again.
        # Nobody subscribes so: once the subscription has ended, the same key starts another.
        self._hasty = self._mode == "payment" and self._chance.random() < 0.5
        self._is_paid = False

    def buy(self, _: psycopg.Connection) -> None:
        """Goes on with an order, or begins the next."""
        with self._shop.db.request(self._buyer) as connection:
            row = self._shop.checkout(
                connection,
                mode=self._mode,
                subject={"type": "user", "id": self._buyer},
                idempotency_key=self._key,
                metadata={"order_id": self._key},
            )
            assert row.status in ("open", "completed"), row
            self.sessions.setdefault(self._key, set()).add(row.stripe_checkout_session_id)
            if self._hasty:
                self._pay(row)
        self._pay(row)
        self._customers.append(self._buyer)
        self._next()

    def _pay(self, row: Any) -> None:
        if self._is_paid:
            return
        control = self._shop.stripe.control
        # A payment that the bank refuses makes room for another under the same key: not for the hasty,
        # who may have to ask again.
        slowly = self._mode == "payment" and not self._hasty and self._chance.random() < 0.2
        control.complete(row.stripe_checkout_session_id, outcome="processing" if slowly else "paid")
        self._is_paid = True
        if slowly:
            control.settle(row.stripe_checkout_session_id, succeeded=self._chance.random() < 0.8)

    def portal(self, connection: psycopg.Connection) -> None:
        """A buyer of before looks at the bills."""
        if not self._customers:
            time.sleep(0.02)
            return
        buyer = self._chance.choice(self._customers)
        try:
            row = self._shop.portal(connection, subject={"type": "user", "id": buyer})
            assert row.status == "created" and row.url
        except psycopg.Error as error:
            # The webhook that says whose customer it is may still be on its way.
            if error.sqlstate != "PT404":
                raise


class Keys:
    """An administrator who never stops changing keys, and repeats what a crash has interrupted."""

    def __init__(self, shop: Shop, mail: Mail) -> None:
        self._shop, self._mail = shop, mail
        self._numbers = itertools.count(1)
        self.usable = {shop.stripe.test_key[-4:]}
        self._changes = self._all_changes()
        self._do = next(self._changes)
        self.changed = 0

    def change(self, connection: psycopg.Connection) -> None:
        self._do(connection)
        self.changed += 1
        self._do = next(self._changes)
        time.sleep(0.02)

    def _all_changes(self) -> Iterator[Callable[[psycopg.Connection], None]]:
        control = self._shop.stripe.control
        keys = deque([self._shop.stripe.test_key])
        for number in self._numbers:
            new_key = f"sk_test_51FakeStripeRolled{number:08}"
            control.add_key(new_key)
            self.usable = {keys[-1][-4:], new_key[-4:]}
            yield lambda connection: connection.execute(SET_KEY, (new_key,))
            self.usable = {new_key[-4:]}
            keys.append(new_key)
            # Not at once: somebody who waits for a lock may be about to ask with an older one.
            if len(keys) > 4:
                control.revoke_key(keys.popleft())

            # Stripe signs with both while a secret is being rolled.
            secret = f"whsec_rolled{number:08}abcdefghijklmnop"
            self._mail.secrets = [secret, self._mail.secrets[0]]
            yield lambda connection: connection.execute("select payments.set_webhook_secret('test', %s)", (secret,))
            self._mail.secrets = [secret]

            yield lambda connection: self._configure(connection, number)
            if number % 2 == 0:
                for endpoint in control.call("GET", "/v1/webhook_endpoints")["data"]:
                    control.call("DELETE", f"/v1/webhook_endpoints/{endpoint['id']}")

    def _configure(self, connection: psycopg.Connection, number: int) -> None:
        (endpoint,) = connection.execute(
            "select webhook_endpoint_id from payments.configure_webhook('test', %s)",
            (f"https://shop.example/{number}",),
        ).fetchone()
        self._mail.known_endpoints.add(endpoint)


class Worker:
    """Does one thing over and over, and goes on when the server is back."""

    def __init__(self, db: Database, act: Callable[[psycopg.Connection], None]) -> None:
        self._db, self._act = db, act
        self._stopping = threading.Event()
        self.done = self.interrupted = 0
        self._task = Task(self._live)

    def check(self) -> None:
        """Raises what ended it, if something did."""
        if not self._task.running:
            self._task.result()

    def stop(self) -> None:
        """Ends when it has done once more what it does."""
        self._stopping.set()

    def wait(self) -> None:
        """Until it has ended; raises what it raised."""
        self._task.result(90)

    def _live(self) -> None:
        connection = self._db.reconnect()
        while True:
            try:
                self._act(connection)
                self.done += 1
                if self._stopping.is_set():
                    connection.close()
                    return
            except psycopg.Error as error:
                if error.sqlstate not in PASSING:
                    raise
                self.interrupted += connection.broken or error.sqlstate is None
                time.sleep(0.02)
            if connection.closed:
                connection = self._db.reconnect()


class Killer:
    """Kills backends in the middle of every kind of work, all of them, or the postmaster alone."""

    def __init__(self, cluster: Cluster, db: Database, workers: list[Worker], chance: random.Random) -> None:
        self._cluster, self._db, self._workers, self._chance = cluster, db, workers, chance
        self.hits: Counter[tuple[str, str]] = Counter()

    def kill(self, aim: str) -> None:
        connection = self._db.reconnect()
        how = self._chance.choices(["backend", "everything", "postmaster"], [6, 3, 1])[0]
        victim = self._victim(connection, AIMS[aim])
        time.sleep(self._chance.uniform(0, 0.06))
        if how == "backend":
            while not (signalled(victim) and has_crashed(connection)):
                victim = self._victim(connection, AIMS[aim])
        else:
            self._cluster.kill(alone=how == "postmaster")
            self._cluster.start()
        connection.close()
        self.hits[aim, how] += 1

    def _victim(self, connection: psycopg.Connection, statement: str) -> int:
        busy = (
            "select pid from pg_stat_activity where state = 'active' and pid <> pg_backend_pid()"
            " and strpos(query, %s) > 0 order by random() limit 1"
        )
        deadline = time.monotonic() + 30
        while not (found := connection.execute(busy, (statement,)).fetchone()):
            for worker in self._workers:
                worker.check()
            assert time.monotonic() < deadline, f"nobody runs {statement}"
            time.sleep(0.002)
        return found.pid


def has_crashed(witness: psycopg.Connection) -> bool:
    """The server takes everybody's connection down with one that was killed, unless that had ended already."""
    deadline = time.monotonic() + 2
    while time.monotonic() < deadline:
        try:
            witness.execute("select pg_sleep(0.002)")
        except psycopg.OperationalError:
            return True
    return False


def signalled(pid: int) -> bool:
    """Kills a process, unless it is gone already."""
    try:
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        return False
    return True


@pytest.fixture(scope="module")
def cluster(make_cluster) -> Cluster:
    cluster = make_cluster()
    database.furnish(cluster)
    return cluster


@pytest.mark.parametrize("number", range(-(-KILLS // A_ROUND)))
def test_killed_at_random_moments_it_loses_and_repeats_nothing(cluster, capsys, number):
    db = database.create(cluster)
    chance = random.Random(number)
    with FakeStripe(seed=number) as stripe:
        point_at(db, stripe)
        shop = Shop(db, stripe)
        stripe.control.populate(120)
        db.execute("call payments.sync('test')")
        db.execute(FULFILMENT)
        for path in ("/v1/checkout/sessions", "/v1/customers", "/v1/webhook_endpoints*", "/v1/balance", "/v1/account"):
            stripe.control.fault("delay", path=path, before=0.01, after=0.01, times=None)
        mail = Mail(stripe, chance)
        orders = [Orders(shop, chance, name) for name in ("ann", "bob")]
        keys = Keys(shop, mail)

        def sync(connection: psycopg.Connection) -> None:
            connection.execute("call payments.sync('test')")

        def poll(connection: psycopg.Connection) -> None:
            connection.execute("call payments.poll_events('test')")

        def life(_: psycopg.Connection) -> None:
            something_happens(stripe, chance)
            time.sleep(0.1)

        acts = [mail.hand_over] * 3 + [each.buy for each in orders] + [orders[0].portal, keys.change, life]
        # Every other shop lives by webhooks alone: what they lost, nothing else would bring.
        aims = AIMS if number % 2 == 0 else AIMS.keys() - {"sync", "poll"}
        if number % 2 == 0:
            acts += [sync, poll]
        workers = [Worker(db, act) for act in acts]
        killer = Killer(cluster, db, workers, chance)
        began = time.monotonic()
        try:
            for aim in itertools.islice(itertools.cycle(sorted(aims)), min(KILLS, A_ROUND)):
                killer.kill(aim)
                with db.reconnect() as connection:
                    assert_keys_are_usable(connection, keys)
        finally:
            for worker in workers:
                worker.stop()
        for worker in workers:
            worker.wait()
        with db.reconnect() as connection:
            while not mail.is_empty:
                mail.hand_over(connection)
            # What one second told in two ways is asked for, and nothing else.
            while connection.execute("select payments.poll_due('test')").fetchone().poll_due:
                pass
        db.disconnect()
        with capsys.disabled():
            report(killer, workers, mail, orders, keys, time.monotonic() - began)

        assert_events_are_done_once(db, mail)
        assert_sessions_are_made_once(db, stripe, orders)
        assert_fulfilled_once(db)
        assert differences(db, stripe) == []
        assert db.value("select payments.rebuild('test')") == 0, "rows do not follow from the mirror"
        left = "select count(*) from pg_locks where database = (select oid from pg_database where datname = %s)"
        assert db.value(f"{left} and locktype = 'advisory'", (db.name,)) == 0
        assert re.findall(r".*(?:PANIC:|panicked|corrupt|TRAP:).*", cluster.log_text()) == []


def test_a_key_file_is_whole_or_not_there(cluster):
    """The first secret makes it; killed on the way, the next call makes it, or finds it made."""
    db = database.create(cluster)
    chance = random.Random(KILLS)
    key_file = cluster.data / "payments.key"
    with FakeStripe() as stripe:
        point_at(db, stripe)
        for _ in range(KILLS):
            key_file.unlink(missing_ok=True)
            witness, connection = db.reconnect(), db.reconnect()
            setting = Task(lambda: connection.execute(SET_KEY, (stripe.test_key,)))
            time.sleep(chance.uniform(0, 0.03))
            os.kill(connection.info.backend_pid, signal.SIGKILL)
            assert has_crashed(witness)
            with contextlib.suppress(psycopg.OperationalError):
                setting.result()
            assert not key_file.exists() or re.fullmatch(r"[0-9a-f]{64}\n", key_file.read_text())
            assert [file for file in cluster.data.glob("payments.key*") if file.stat().st_mode & 0o077] == []
            with db.reconnect() as after:
                after.execute(SET_KEY, (stripe.test_key,))
                status = after.execute("select * from payments.status() where environment = 'test'").fetchone()
            assert status.key_readable


def point_at(db: Database, stripe: FakeStripe) -> None:
    db.execute(f"alter database {db.name} set payments.stripe_api_base = '{stripe.base_url}'")
    db.disconnect()


def assert_keys_are_usable(connection: psycopg.Connection, keys: Keys) -> None:
    """A key is the old one or the new one, and opens."""
    before = keys.usable
    status = connection.execute("select * from payments.status() where environment = 'test'").fetchone()
    assert status.status == "connected" and status.key_readable and status.signing_secrets >= 1
    assert status.masked_key[-4:] in before | keys.usable


def assert_events_are_done_once(db: Database, mail: Mail) -> None:
    """Every acknowledged event is recorded as done, at the first attempt."""
    recorded = {
        row.stripe_event_id: (row.processing_status in ("processed", "ignored"), row.attempt_count)
        for row in db.execute("select * from payments.webhook_events")
    }
    assert {event: recorded.get(event) for event in mail.acknowledged} == dict.fromkeys(mail.acknowledged, (True, 1))


def assert_sessions_are_made_once(db: Database, stripe: FakeStripe, orders: list[Orders]) -> None:
    """One session a key, at Stripe and here, and it is the one that every caller got; one customer a buyer."""
    with stripe.world.lock:
        store = stripe.world.stores[stripe.account, False]
        made = [(s["metadata"], s["id"], s["status"], s["payment_status"]) for s in store.all("checkout.session")]
        subjects = [customer["metadata"].get("payments_subject_id") for customer in store.all("customer")]
    made = [(metadata["payments_idempotency_key"], *rest) for metadata, *rest in made if "payments_proof" in metadata]
    kept = db.execute(
        """
        select idempotency_key, stripe_checkout_session_id, replace(status, 'completed', 'complete'), payment_status
        from payments.checkout_sessions
        """
    ).fetchall()
    assert sorted(made) == sorted(map(tuple, kept))
    keys = Counter(key for key, *_ in made)
    assert [session for session in made if keys[session[0]] > 1] == []
    told = {key: {session} for key, session, *_ in made}
    assert {key: sessions for each in orders for key, sessions in each.sessions.items()}.items() <= told.items()
    assert [subject for subject, count in Counter(filter(None, subjects)).items() if count > 1] == []
    assert db.value("select count(*) from payments.customer_portal_sessions where url is null") == 0


def assert_fulfilled_once(db: Database) -> None:
    """The app's trigger has done its work for every payment that it heard of, once."""
    wrong = db.execute(
        """
        with done as (select payment, count(*) as times from public.fulfilments group by payment)
        select id, paid_at, metadata ->> 'order_id', times
        from payments.payment_history
        full join done on payment = id
        where coalesce(times, 0) <> (paid_at is not null and id not in (select id from public.paid_before))::integer
        """
    ).fetchall()
    assert wrong == []


def report(
    killer: Killer, workers: list[Worker], mail: Mail, orders: list[Orders], keys: Keys, seconds: float
) -> None:
    ways = Counter(how for _, how in killer.hits.elements())
    aims = Counter(aim for aim, _ in killer.hits.elements())
    print(
        f"\n{killer.hits.total()} kills in {seconds:.0f} s ({', '.join(f'{n} {how}' for how, n in ways.items())}),"
        f" in the middle of {', '.join(f'{n} {aim}' for aim, n in aims.items())};"
        f"\n{sum(worker.interrupted for worker in workers)} calls lost their connection;"
        f" {mail.acknowledged.total()} deliveries of {len(mail.acknowledged)} events acknowledged,"
        f" {sum(len(each.sessions) for each in orders)} sessions, {keys.changed} changes of keys"
    )
