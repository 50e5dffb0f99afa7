"""Events done again: one, those that failed, and the log that is pruned at last."""

from __future__ import annotations

import json

import psycopg
import pytest

from harness import database
from harness.database import OWNER
from postman import CREATED, Postman, event, product
from test_webhook import changes, count_changes, refuse_products


@pytest.fixture
def postman(db) -> Postman:
    return Postman(db)


def replay(db, id: str):
    return db.execute("select * from payments.replay_event('test', %s)", (id,)).fetchone()


def replay_failed(db) -> list:
    return db.execute("select * from payments.replay_failed('test')").fetchall()


def failed_events(db) -> list[str]:
    return [id for (id,) in db.execute("select payments.failed_events('test')")]


def repair(db) -> None:
    db.execute("drop trigger refuse on payments.products")


class TestOne:
    def test_that_failed_succeeds_once_the_trigger_is_repaired(self, postman):
        refuse_products(postman.db)
        postman.deliver(event("product.created", product(), id="evt_1"))
        repair(postman.db)
        count_changes(postman.db)
        receipt = replay(postman.db, "evt_1")
        assert (receipt.status, receipt.duplicate, receipt.attempt_count, receipt.error) == (
            *("processed", False, 2, None),
        )
        [row] = postman.recorded()
        assert (row.processing_status, row.source, row.last_error, row.error) == ("processed", "webhook", None, None)
        assert postman.db.execute("select source from changes").fetchall() == [("replay",)]

    def test_that_fails_again_stays_failed_with_the_newest_error(self, postman):
        refuse_products(postman.db)
        postman.deliver(event("product.created", product(), id="evt_1"))
        postman.db.execute(
            "create or replace function refuse() returns trigger language plpgsql as "
            "$$ begin raise exception 'still none'; end $$"
        )
        assert replay(postman.db, "evt_1").error == "still none"
        [row] = postman.recorded()
        assert (row.processing_status, row.attempt_count, row.last_error) == ("failed", 2, "still none")

    def test_that_was_processed_changes_nothing(self, postman):
        postman.deliver(event("product.created", product(), id="evt_1"))
        count_changes(postman.db)
        assert replay(postman.db, "evt_1").status == "processed"
        assert changes(postman.db) == 0

    def test_that_is_old_news_does_not_undo_what_came_later(self, postman):
        postman.deliver(event("product.created", product(name="Old"), id="evt_1"))
        postman.deliver(event("product.updated", product(name="New"), created=CREATED + 1))
        replay(postman.db, "evt_1")
        assert postman.db.value("select name from payments.products") == "New"

    def test_repairs_a_row_that_was_changed_by_hand(self, postman):
        postman.deliver(event("product.created", product(), id="evt_1"))
        postman.db.execute("update payments.products set name = 'x'")
        replay(postman.db, "evt_1")
        assert postman.db.value("select name from payments.products") == "Tea"

    def test_that_was_ignored_is_ignored_again(self, postman):
        postman.deliver(event("invoice.upcoming", {"object": "invoice"}, id="evt_1"))
        assert replay(postman.db, "evt_1").status == "ignored"

    def test_whose_text_jsonb_cannot_hold(self, postman):
        postman.deliver(event("product.created", product(name="a\0\ud800"), id="evt_1"))
        assert replay(postman.db, "evt_1").status == "processed"

    def test_that_never_came_is_not_found(self, postman):
        with pytest.raises(psycopg.Error) as raised:
            replay(postman.db, "evt_x")
        assert raised.value.sqlstate == "PT404"
        detail = {"code": "no_event", "stripe_event_id": "evt_x"}
        assert json.loads(raised.value.diag.message_detail) == detail
        with pytest.raises(psycopg.Error):
            postman.db.execute("select payments.replay_event('live', 'evt_1')")

    def test_at_another_isolation_level_is_refused(self, postman):
        postman.deliver(event("product.created", product(), id="evt_1"))
        with postman.db.connect(autocommit=False) as connection:
            connection.execute("set transaction isolation level repeatable read")
            with pytest.raises(psycopg.Error) as raised:
                replay(connection, "evt_1")
        assert raised.value.sqlstate == "25000"


class TestTheFailed:
    def test_are_replayed_in_the_order_in_which_they_happened(self, postman):
        refuse_products(postman.db)
        for seconds, name in ((2, "third"), (0, "first"), (1, "second")):
            update = event("product.updated", product(name=name), id=f"evt_{name}", created=CREATED + seconds)
            assert postman.deliver(update).status == "failed"
        postman.deliver(event("price.created", {"id": "price_1", "object": "price"}, id="evt_fine"))
        assert failed_events(postman.db) == ["evt_first", "evt_second", "evt_third"]
        repair(postman.db)
        receipts = replay_failed(postman.db)
        assert [(receipt.stripe_event_id, receipt.status) for receipt in receipts] == [
            ("evt_first", "processed"),
            ("evt_second", "processed"),
            ("evt_third", "processed"),
        ]
        assert postman.db.value("select name from payments.products") == "third"
        assert (failed_events(postman.db), replay_failed(postman.db)) == ([], [])

    def test_that_still_fail_do_not_hold_up_the_others(self, postman):
        refuse_products(postman.db)
        for number in (1, 2, 3):
            postman.deliver(event("product.created", product(f"prod_{number}"), id=f"evt_{number}"))
        repair(postman.db)
        postman.db.execute("alter table payments.products add check (stripe_product_id <> 'prod_2')")
        statuses = [receipt.status for receipt in replay_failed(postman.db)]
        assert statuses == ["processed", "failed", "processed"]
        assert failed_events(postman.db) == ["evt_2"]
        assert postman.db.value("select error ->> 'sqlstate' from payments.webhook_events where error is not null") == (
            "23514"
        )

    def test_may_be_more_than_the_server_has_locks_for(self, make_cluster):
        server = make_cluster(settings={"max_connections": "10", "max_locks_per_transaction": "10"})
        database.furnish(server)
        postman = Postman(database.create(server))
        intent = {"id": "pi_N", "object": "payment_intent", "status": "succeeded", "amount": 5, "customer": "cus_N"}
        failed = json.dumps(event("payment_intent.succeeded", intent, id="evt_N"))
        postman.db.execute(
            """
            insert into payments.webhook_events
                (environment, stripe_event_id, event_type, source, processing_status, payload)
            select 'test', 'evt_' || n, 'payment_intent.succeeded', 'webhook', 'failed', replace(%s, '_N', '_' || n)::json
            from generate_series(1, 3000) as n
            """,
            (failed,),
        )
        assert {receipt.status for receipt in replay_failed(postman.db)} == {"processed"}
        assert len(postman.mirrored()) == 3000

    def test_each_have_an_end_of_their_own(self, postman):
        """What is deferred to the end of an event sees all of it, and none of the next."""
        refuse_products(postman.db)
        for number in (1, 2):
            price = {"id": f"price_{number}", "object": "price", "currency": "usd", "product": product(f"p{number}")}
            postman.deliver(event("price.created", price, id=f"evt_{number}"))
        repair(postman.db)
        postman.db.execute(
            f"""
            create table seen (product text, prices int); grant insert on seen to {OWNER};
            create function look() returns trigger language plpgsql as $$
            begin
                insert into public.seen select new.stripe_product_id, count(*) from payments.prices;
                return null;
            end $$;
            create constraint trigger look after insert on payments.products
            deferrable initially deferred for each row execute function look();
            """
        )
        assert [receipt.status for receipt in replay_failed(postman.db)] == ["processed"] * 2
        assert postman.db.execute("select * from seen").fetchall() == [("p1", 1), ("p2", 2)]

    def test_of_the_other_environment_are_not_touched(self, postman):
        refuse_products(postman.db)
        postman.deliver(event("product.created", product()))
        assert postman.db.execute("select * from payments.replay_failed('live')").fetchall() == []


class TestThePrunedLog:
    def age(self, db, days: int) -> None:
        db.execute("update payments.webhook_events set received_at = received_at - make_interval(days => %s)", (days,))

    def test_loses_what_is_done_and_old_and_nothing_else(self, postman):
        postman.deliver(event("product.created", product("prod_old"), id="evt_old"))
        postman.deliver(event("invoice.upcoming", {"object": "invoice"}, id="evt_old_ignored"))
        refuse_products(postman.db)
        postman.deliver(event("product.created", product("prod_failed"), id="evt_old_failed"))
        repair(postman.db)
        self.age(postman.db, 31)
        postman.deliver(event("product.created", product("prod_new"), id="evt_new"))
        assert postman.db.value("select payments.prune_webhook_events('30 days')") == 2
        assert {row.stripe_event_id for row in postman.recorded()} == {"evt_old_failed", "evt_new"}
        products = postman.db.execute("select stripe_product_id from payments.products order by 1").fetchall()
        assert products == [("prod_new",), ("prod_old",)]
        assert postman.db.value("select payments.prune_webhook_events('30 days')") == 0

    def test_lets_an_old_event_come_again_without_effect(self, postman):
        old = event("product.created", product())
        postman.deliver(old)
        self.age(postman.db, 31)
        postman.db.execute("select payments.prune_webhook_events('30 days')")
        count_changes(postman.db)
        assert postman.deliver(old).duplicate is False
        assert changes(postman.db) == 0

    def test_needs_to_be_told_how_old(self, postman):
        with pytest.raises(psycopg.errors.InvalidParameterValue):
            postman.db.execute("select payments.prune_webhook_events(null)")


@pytest.mark.parametrize(
    "call",
    ["replay_event('test', 'evt_1')", "replay_failed('test')", "failed_events('test')", "prune_webhook_events('1 day')"],
)
def test_it_is_for_admins(postman, call):
    postman.deliver(event("product.created", product(), id="evt_1"))
    for role in ("anon", "authenticated"):
        with postman.db.connect(role) as connection, pytest.raises(psycopg.errors.InsufficientPrivilege):
            connection.execute(f"select payments.{call}")
    postman.db.execute("select payments.grant_admin('service_role')")
    with postman.db.connect("service_role") as connection:
        connection.execute(f"select payments.{call}")
