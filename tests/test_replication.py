"""Logical replication: another server has the same rows, reads as this one does, and can take its place."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager

import psycopg
import pytest

import seasoned
import story
from fake_stripe import FakeStripe
from harness import database
from harness.cluster import Cluster
from harness.database import OWNER, Database
from harness.postgres import Postgres
from shop import refused

TABLES = ", ".join(f"payments.{table}" for table in seasoned.TABLES)


class Pair:
    """A shop on a server that publishes its tables, and a database elsewhere that subscribes to them."""

    def __init__(self, shop: story.Shop, subscriber: Database) -> None:
        self.shop, self.publisher, self.subscriber = shop, shop.db, subscriber

    def subscribe(self) -> None:
        self.publisher.execute(f"create publication payments for table {TABLES}")
        # What install() begins with would be in the way of what the publisher sends.
        self.subscriber.execute("delete from payments.stripe_connections")
        self.subscriber.execute(f"create subscription payments connection '{self.publisher.dsn}' publication payments")
        self._wait("select bool_and(srsubstate = 'r') from pg_subscription_rel", self.subscriber)

    def catch_up(self) -> None:
        """Waits until the subscriber has all that was committed."""
        written = self.publisher.value("select pg_current_wal_lsn()")
        arrived = f"select confirmed_flush_lsn >= '{written}' from pg_replication_slots where slot_name = 'payments'"
        self._wait(arrived, self.publisher)

    def _wait(self, question: str, where: Database, timeout: float = 30) -> None:
        deadline = time.monotonic() + timeout
        while not where.value(question):
            assert time.monotonic() < deadline, self.subscriber.cluster.log_text()[-2000:]
            time.sleep(0.05)

    def part(self) -> None:
        self.subscriber.execute("drop subscription if exists payments")


@pytest.fixture(params=[None, 16], ids=["from the same major", "from 16"])
def pair(
    request: pytest.FixtureRequest, postgres: Postgres, older: Callable[[int], Postgres], db: Database
) -> Iterator[Pair]:
    installation = older(request.param) if request.param else postgres
    with ExitStack() as stack:
        cluster = stack.enter_context(Cluster(installation, settings={"wal_level": "logical"}))
        stripe = stack.enter_context(FakeStripe())
        database.furnish(cluster)
        pair = Pair(seasoned.season(database.create(cluster), stripe), db)
        stack.callback(pair.part)
        yield pair


@contextmanager
def without_secrets() -> Iterator[None]:
    """The block must say that a secret is not here; if the server never had one, that its key file is not."""
    with pytest.raises(psycopg.errors.ObjectNotInPrerequisiteState) as caught:
        yield
    code = json.loads(caught.value.diag.message_detail)["code"]
    assert code in {"key_file_missing", "secret_missing"}, caught.value


def test_a_subscriber_has_the_same_rows_and_can_take_over(pair):
    publisher, subscriber, shop = pair.publisher, pair.subscriber, pair.shop
    # Columns of its own are no matter.
    subscriber.execute("alter table payments.prices add column note text")
    columns = seasoned.columns(publisher)
    pair.subscribe()
    assert all(seasoned.rows(publisher).values())
    assert seasoned.rows(subscriber, columns) == seasoned.rows(publisher)

    # What happens from then on: rows made, changed and deleted.
    session = seasoned.checkout(publisher, "erin", shop.price, "order:3")
    shop.stripe.control.complete(session.stripe_checkout_session_id)
    subscription = shop.stripe.control.complete(shop.checkout("subscription", "frank"))["subscription"]
    shop.stripe.control.renew(subscription)
    seasoned.deliver(publisher, shop.stripe)
    publisher.execute("delete from public.receipts")
    assert publisher.value("select payments.remove_simulated()") > 0
    pair.catch_up()
    assert seasoned.rows(subscriber, columns) == seasoned.rows(publisher)

    # It reads as the publisher does, and computes the same.
    assert subscriber.value("select payments.has_access('user', 'frank', 'pro')")
    assert subscriber.value("select (payments.current_subscription('test', 'user', 'frank')).status") == "active"
    assert subscriber.value("select payments.rebuild('test')") == 0
    assert subscriber.value("select payments.install()") == "select * from payments.status();"
    # But it has no secret, so that nothing is begun there.
    subscriber.execute(seasoned.APP)
    with without_secrets():
        seasoned.checkout(subscriber, "dave", shop.price, "order:4")
    with without_secrets():
        subscriber.execute("select payments.handle_webhook('test', '{}', 't=1,v1=0')")
    with refused("55000", "connected"):
        subscriber.execute("select payments.simulate_event('charge.refunded')")
    assert seasoned.rows(subscriber, columns) == seasoned.rows(publisher)

    # Until it takes over.
    pair.part()
    seasoned.point_at(subscriber, shop.stripe)
    subscriber.execute("select payments.set_stripe_key('test', %s)", (shop.stripe.test_key,))
    subscriber.execute("select payments.set_webhook_secret('test', %s)", (shop.stripe.webhook_secret,))
    shop.db = subscriber
    seasoned.sell_at(shop)


@pytest.mark.parametrize("pair", [None], indirect=True, ids=["from the same major"])
def test_triggers_fire_at_a_subscriber_if_they_are_told_to(pair):
    pair.subscriber.execute(
        f"""
        create table public.seen (trigger text);
        grant insert on public.seen to {OWNER};
        create function public.see() returns trigger language plpgsql set search_path = '' as $$
        begin
            insert into public.seen values (tg_name);
            return null;
        end
        $$;
        create trigger ordinary after insert on payments.payment_history for each row execute function public.see();
        create trigger told_to after insert on payments.payment_history for each row execute function public.see();
        alter table payments.payment_history enable always trigger told_to
        """
    )
    pair.subscribe()
    assert pair.subscriber.execute("select distinct trigger from public.seen").fetchall() == [("told_to",)]


def test_a_publication_of_the_schema_would_take_the_sealed_secrets_along(db):
    db.execute("create publication everything for tables in schema payments")
    published = "select tablename::text from pg_publication_tables where pubname = 'everything'"
    assert {name for (name,) in db.execute(published)} == {*seasoned.TABLES, "secrets"}


def test_every_table_says_which_row_is_meant(db):
    """By its primary key: only so can changes and deletions be sent."""
    unnamed = """
        select relname::text from pg_class
        where relnamespace = 'payments'::regnamespace and relkind = 'r'
            and (relreplident <> 'd' or not exists (select from pg_index where indrelid = pg_class.oid and indisprimary))
    """
    assert db.execute(unnamed).fetchall() == []
