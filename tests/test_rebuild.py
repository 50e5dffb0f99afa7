"""`rebuild`: the tables computed afresh from the mirror."""

from __future__ import annotations

import threading
from pathlib import Path

import psycopg
import pytest

from harness.database import OWNER
from postman import Postman, event, product
from story import TABLES, Shop, rows, year

PROJECTED = [table for table in TABLES if table not in ("checkout_sessions", "stripe_objects")]


@pytest.fixture
def postman(db) -> Postman:
    return Postman(db)


@pytest.fixture
def told(db, stripe) -> Postman:
    """A database to which a year was told."""
    shop = Shop(db, stripe)
    bodies = year(shop, buyers=14, months=3)
    postman = Postman(db, stripe.webhook_secret)
    for body in bodies:
        assert postman.deliver(body).status != "failed"
    return postman


def rebuild(db, *arguments) -> int:
    places = ", ".join(["%s"] * (1 + len(arguments)))
    return db.value(f"select payments.rebuild({places})", ("test", *arguments))


def places(db) -> dict[str, list]:
    """Where every row version is: what is written moves."""
    return {
        table: db.execute(f"select ctid::text, xmin::text from payments.{table} order by 1").fetchall()
        for table in TABLES
    }


def test_nothing_is_written_when_all_is_right(told):
    before, where = rows(told.db), places(told.db)
    assert rebuild(told.db) == 0
    assert (rows(told.db), places(told.db)) == (before, where)


@pytest.mark.parametrize("table", PROJECTED)
def test_a_table_that_was_emptied_is_filled_again(told, table):
    before = rows(told.db)
    assert before[table], "the story has none"
    removed = told.db.execute(f"delete from payments.{table}").rowcount
    assert rebuild(told.db) >= removed
    assert rows(told.db) == before


def test_everything_is_computed_from_the_mirror_and_the_sessions_alone(told):
    before = rows(told.db)
    told.db.execute("truncate " + ", ".join(f"payments.{table}" for table in PROJECTED))
    rebuild(told.db)
    assert rows(told.db) == before


def test_rows_that_were_changed_by_hand_are_put_right(told):
    before = rows(told.db)
    told.db.execute(
        """
        update payments.checkout_sessions set status = 'open', url = 'https://evil.example', payment_status = null;
        update payments.customer_mappings set subject_id = subject_id || 'x';
        update payments.customers set email = 'x', deleted = true;
        update payments.products set name = null;
        update payments.prices set unit_amount = -1, lookup_key = 'x';
        update payments.subscriptions set status = 'x', subject_id = 'mallory', stripe_customer_id = 'cus_x';
        update payments.subscription_items set quantity = 9, stripe_subscription_id = 'sub_x';
        update payments.payment_history
        set status = 'failed', subject_id = 'mallory', metadata = '{}', stripe_payment_intent_id = 'pi_x',
            stripe_invoice_id = null, stripe_charge_id = null, stripe_checkout_session_id = null, created_at = now();
        update payments.invoices set subject_id = 'mallory', stripe_subscription_id = null, updated_at = now();
        update payments.disputes set status = 'x';
        """
    )
    assert rebuild(told.db) > 0
    assert rows(told.db) == before


def test_rows_that_nothing_supports_are_removed(told):
    before = rows(told.db)
    told.db.execute(
        """
        insert into payments.customer_mappings (environment, subject_type, subject_id, stripe_customer_id)
        select 'test', 'user', 'mallory', stripe_customer_id from payments.customers
        union all values ('test', 'user', 'mallory', 'cus_nowhere');
        insert into payments.customers (environment, stripe_customer_id, deleted) values ('test', 'cus_x', false);
        insert into payments.products (environment, stripe_product_id, deleted) values ('test', 'prod_x', false);
        insert into payments.prices (environment, stripe_price_id, deleted) values ('test', 'price_x', false);
        insert into payments.subscriptions (environment, stripe_subscription_id, status, stripe_customer_id, metadata)
        select 'test', 'sub_x', 'active', stripe_customer_id,
            '{"payments_subject_type": "user", "payments_subject_id": "mallory"}'
        from payments.customers limit 1;
        insert into payments.subscription_items (environment, stripe_subscription_item_id, stripe_subscription_id)
        select 'test', 'si_' || stripe_subscription_id, stripe_subscription_id from payments.subscriptions;
        insert into payments.payment_history (environment, id, type, status, stripe_payment_intent_id)
        select 'test', gen_random_uuid(), 'one_time_payment', 'succeeded', stripe_payment_intent_id
        from payments.payment_history
        union all values ('test', gen_random_uuid(), 'refund', 'refunded', null);
        insert into payments.invoices (environment, stripe_invoice_id, deleted) values ('test', 'in_x', false);
        insert into payments.disputes (environment, stripe_dispute_id) values ('test', 'dp_x');
        """
    )
    assert rebuild(told.db) > 0
    assert rows(told.db) == before


def test_what_callers_asked_for_stays(told):
    told.db.execute(
        """
        insert into payments.checkout_sessions (environment, id, mode) values ('test', gen_random_uuid(), 'payment');
        insert into payments.customer_portal_sessions (environment, id) values ('test', gen_random_uuid());
        insert into payments.customer_mappings
            (environment, subject_type, subject_id, stripe_customer_id, linked_at, created_at, updated_at)
        values ('test', 'user', 'linked', 'cus_by_hand', now(), now(), now());
        alter table payments.payment_history add note text;
        update payments.payment_history set note = 'mine';
        update payments.payment_history set status = 'failed' where type = 'one_time_payment';
        """
    )
    portals = told.db.execute("select * from payments.customer_portal_sessions").fetchall()
    before = rows(told.db)
    assert rebuild(told.db) > 0
    after = rows(told.db)
    assert after["checkout_sessions"] == before["checkout_sessions"]
    assert after["customer_mappings"] == before["customer_mappings"]
    assert told.db.execute("select * from payments.customer_portal_sessions").fetchall() == portals
    assert told.db.value("select count(*) from payments.payment_history where note is distinct from 'mine'") == 0


def test_the_other_environment_is_left_alone(told):
    told.db.execute(
        "insert into payments.products (environment, stripe_product_id, deleted) values ('live', 'prod_x', false)"
    )
    rebuild(told.db)
    assert told.db.value("select count(*) from payments.products where environment = 'live'") == 1
    assert told.db.value("select payments.rebuild('live')") == 1


class TestTriggers:
    def listen(self, db) -> None:
        db.execute(
            f"""
            create table heard (what text, source text, who text); grant insert on heard to {OWNER};
            create function hear() returns trigger language plpgsql as $$
            begin
                insert into public.heard values (tg_op, current_setting('payments.source'), current_user);
                return null;
            end $$;
            create trigger hear after insert or update or delete on payments.products
            for each row execute function hear();
            create constraint trigger hear_later after insert or update on payments.prices
            deferrable initially deferred for each row execute function hear();
            """
        )

    def break_off(self, postman) -> None:
        price = {"id": "price_1", "object": "price", "currency": "usd", "product": product()}
        postman.deliver(event("price.created", price))
        self.listen(postman.db)
        postman.db.execute("set session_replication_role = replica; delete from payments.products")
        postman.db.execute("update payments.prices set currency = 'eur'; set session_replication_role = origin")

    def test_they_are_silent(self, postman):
        self.break_off(postman)
        assert rebuild(postman.db) == 2
        assert postman.db.execute("select * from heard").fetchall() == []
        assert postman.db.value("show session_replication_role") == "origin"

    def test_unless_asked(self, postman):
        self.break_off(postman)
        assert rebuild(postman.db, True) == 2
        heard = postman.db.execute("select * from heard order by 1").fetchall()
        assert heard == [("INSERT", "rebuild", OWNER), ("UPDATE", "rebuild", OWNER)]

    def test_they_fire_on_what_is_removed(self, postman):
        self.listen(postman.db)
        unsupported = "insert into payments.products (environment, stripe_product_id, deleted) values ('test', 'p', false)"
        postman.db.execute(f"{unsupported}; truncate heard")
        assert rebuild(postman.db) == 1
        assert postman.db.execute("select what, source from heard").fetchall() == [("DELETE", "rebuild")]

    def test_a_foreign_key_of_the_app_s_holds(self, postman):
        postman.db.execute(
            """
            insert into payments.products (environment, stripe_product_id, deleted) values ('test', 'p', false);
            create table shelf (environment text, product text,
                foreign key (environment, product) references payments.products);
            insert into shelf values ('test', 'p');
            """
        )
        with pytest.raises(psycopg.errors.ForeignKeyViolation):
            rebuild(postman.db)


def test_it_waits_for_writers_and_keeps_them_waiting(postman):
    with postman.db.connect(autocommit=False) as writer, postman.db.connect() as rebuilder:
        postman.deliver(event("product.created", product()), connection=writer)
        rebuilder.execute("set lock_timeout = '200ms'")
        with pytest.raises(psycopg.errors.LockNotAvailable):
            rebuilder.execute("select payments.rebuild('test')")
        rebuilder.execute("select payments.rebuild('live')")
    with postman.db.connect(autocommit=False) as rebuilder:
        rebuilder.execute("select payments.rebuild('test')")
        assert postman.post(event("product.created", product("prod_2"))).status == 503
        rebuilder.rollback()
    assert postman.post(event("product.created", product("prod_2"))).status == 200


def test_at_another_isolation_level_it_is_refused(postman):
    with postman.db.connect(autocommit=False) as connection:
        connection.execute("set transaction isolation level repeatable read")
        with pytest.raises(psycopg.Error) as raised:
            connection.execute("select payments.rebuild('test')")
        assert raised.value.sqlstate == "25000"


def test_it_is_for_admins(postman):
    for role in ("anon", "authenticated"):
        with postman.db.connect(role) as connection, pytest.raises(psycopg.errors.InsufficientPrivilege):
            connection.execute("select payments.rebuild('test')")
    postman.db.execute("select payments.grant_admin('service_role')")
    with postman.db.connect("service_role") as connection:
        assert connection.execute("select payments.rebuild('test')").fetchone()[0] == 0


def test_it_tells_how_far_it_is_and_its_memory_does_not_grow_with_the_tables(postman):
    """The mirror here is several times larger than what a rebuild may take."""
    db = postman.db
    db.execute(
        """
        insert into payments.stripe_objects (environment, object_type, object_id, body, as_of)
        select 'test', 'product', id,
            json_build_object('id', id, 'object', 'product', 'name', id, 'active', true, 'description', repeat(id, 500)),
            now()
        from (select 'prod_' || lpad(n::text, 6, '0') from generate_series(1, 15000) n) as made (id)
        """
    )
    told: list[str] = []
    with db.connect() as connection:
        connection.add_notice_handler(lambda notice: told.append(notice.message_primary))
        connection.execute("select payments.rebuild('live')")
        before = anonymous_memory(connection)
        with Highest(connection) as highest:
            assert connection.execute("select payments.rebuild('test')").fetchone()[0] == 15_000
    assert highest.seen - before < 40_000_000
    assert told[0].startswith('rebuilding "test": 10000 of 15000 objects and rows, ')


def anonymous_memory(connection: psycopg.Connection) -> int:
    """The bytes that a backend has to itself."""
    status = Path(f"/proc/{connection.info.backend_pid}/status").read_text()
    [kilobytes] = [line.split()[1] for line in status.splitlines() if line.startswith("RssAnon")]
    return int(kilobytes) * 1024


class Highest:
    """The most memory that a backend has had in a block."""

    def __init__(self, connection: psycopg.Connection) -> None:
        self.seen = 0
        self._connection = connection
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._watch)

    def __enter__(self) -> Highest:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._over.wait(0.01):
            self.seen = max(self.seen, anonymous_memory(self._connection))
