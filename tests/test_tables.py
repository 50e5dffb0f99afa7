"""What users put on our tables counts with every row that Stripe's events write, whichever way it is written."""

from __future__ import annotations

import json
import threading

import psycopg
import pytest

from fake_stripe.webhooks import text
from harness.database import Database
from postman import Postman
from story import Shop, rows

NOTE = """
    create table noted (what text);
    grant insert on noted to public;
    create function note() returns trigger language plpgsql as $$
    begin
        insert into public.noted values (tg_table_name || ' ' || lower(tg_op) || ' ' || lower(tg_level));
        return new;
    end $$
"""


@pytest.fixture
def shop(db, stripe) -> Shop:
    return Shop(db, stripe)


@pytest.fixture
def postman(shop, stripe) -> Postman:
    return Postman(shop.db, stripe.webhook_secret)


@pytest.fixture
def story(shop) -> list[str]:
    """A purchase, a subscription and a refund, as bodies of webhooks in their order."""
    session = shop.checkout()
    intent = shop.stripe.control.complete(session)["payment_intent"]
    shop.stripe.control.complete(shop.checkout("subscription", "red"))
    shop.stripe.control.clock(advance=5)
    shop.stripe.control.refund(intent, 500)
    return [text(event) for event in shop.events()]


def delivered(postman: Postman, story: list[str]) -> set[str]:
    return {postman.deliver(body).status for body in story}


def column(db: Database, statement: str) -> list:
    return [value for (value,) in db.execute(statement).fetchall()]


def test_a_column_of_the_users_own_gets_its_default_and_keeps_its_value(shop, postman, story):
    for table in ("webhook_events", "stripe_objects", "payment_history", "subscriptions"):
        shop.db.execute(f"alter table payments.{table} add column note text default 'new'")
    half = len(story) // 2
    assert "failed" not in delivered(postman, story[:half])
    for table in ("stripe_objects", "payment_history", "subscriptions"):
        shop.db.execute(f"update payments.{table} set note = 'seen'")
    assert "failed" not in delivered(postman, story[half:])
    assert shop.db.value("select count(*) from payments.webhook_events where note = 'new'") == len(story)
    notes = "select distinct note from payments.payment_history order by 1"
    assert column(shop.db, notes) == ["new", "seen"]
    assert shop.db.value("select bool_and(note = 'seen') from payments.subscriptions")


def test_a_column_that_was_dropped_and_one_that_was_added_leave_ours_where_they_belong(shop, postman, story, db):
    shop.db.execute(
        """
        alter table payments.payment_history add column passing integer;
        alter table payments.payment_history drop column passing;
        alter table payments.stripe_objects add column passing integer;
        alter table payments.stripe_objects drop column passing
        """
    )
    assert "failed" not in delivered(postman, story)
    payment = "select amount, amount_refunded, status from payments.payment_history where type = 'one_time_payment'"
    assert shop.db.execute(payment).fetchone() == (1900, 500, "partially_refunded")
    before = rows(shop.db)
    shop.db.execute("select payments.rebuild('test')")
    assert rows(shop.db) == before


def test_triggers_of_rows_and_of_statements_see_every_row(shop, postman, story):
    shop.db.execute(NOTE)
    shop.db.execute(
        """
        create trigger note after insert on payments.webhook_events
        for each statement execute function note();
        create trigger note after insert or update on payments.stripe_objects
        for each row execute function note();
        create trigger note after insert or update on payments.invoices
        for each statement execute function note();
        create trigger note after update on payments.payment_history
        for each row execute function note();
        create trigger note after insert on payments.subscriptions
        for each row execute function note()
        """
    )
    objects = "select count(*) from payments.stripe_objects"
    before = shop.db.value(objects)
    assert "failed" not in delivered(postman, story)
    noted = dict(shop.db.execute("select what, count(*) from noted group by what").fetchall())
    assert noted["webhook_events insert statement"] == len(story)
    assert noted["stripe_objects insert row"] == shop.db.value(objects) - before > 0
    assert noted["stripe_objects update row"] > 0
    assert noted["invoices insert statement"] > 0
    assert noted["payment_history update row"] > 0
    assert noted["subscriptions insert row"] == 1


def test_a_connection_hears_of_what_others_do_to_the_tables(shop, postman, story):
    """Of a column, an index, a trigger, and another table of the same name, in turn."""
    shop.db.execute(NOTE)
    changes = iter(
        (
            "alter table payments.stripe_objects drop column note, add column note text default 'new'",
            "drop index payments.stripe_objects_payment_intent_idx, payments.stripe_objects_charge_idx",
            "create trigger note before insert on payments.webhook_events for each row execute function note()",
            """
            alter table payments.webhook_events rename to earlier_events;
            create table payments.webhook_events (like payments.earlier_events including all);
            grant all on payments.webhook_events to public
            """,
            "alter table payments.stripe_objects drop column note",
        )
    )
    shop.db.execute("alter table payments.stripe_objects add column note text")
    step = len(story) // 6
    with shop.db.connect() as connection:
        for number, body in enumerate(story, 1):
            assert postman.deliver(body, connection=connection).status != "failed"
            if number % step == 0:
                shop.db.execute(next(changes, "select"))
    assert next(changes, None) is None
    assert shop.db.value("select count(*) from noted") == step
    assert shop.db.value("select count(*) from payments.earlier_events") == 4 * step
    assert shop.db.value("select count(*) from payments.webhook_events") == len(story) - 4 * step
    payment = "select amount_refunded, subject_id from payments.payment_history where type = 'one_time_payment'"
    assert shop.db.execute(payment).fetchone() == (500, "alice")


def test_a_change_of_a_table_that_is_rolled_back_is_forgotten(shop, postman, story):
    first, *others = story
    with shop.db.connect(autocommit=False) as connection:
        connection.execute("savepoint before")
        for table in ("webhook_events", "stripe_objects", "payment_history"):
            connection.execute(f"alter table payments.{table} add column note text default 'new'")
        assert postman.deliver(first, connection=connection).status != "failed"
        connection.execute("rollback to before")
        assert {postman.deliver(body, connection=connection).status for body in story} <= {"processed", "ignored"}
        connection.commit()
    assert shop.db.value("select count(*) from payments.webhook_events") == len(story)


def test_a_constraint_of_the_users_own_refuses_the_row_and_the_event_says_so(shop, postman, story):
    shop.db.execute("alter table payments.payment_history add constraint small check (amount < 1000)")
    statuses = {postman.deliver(body).status for body in story}
    assert "failed" in statuses
    refused = "select distinct error ->> 'constraint' from payments.webhook_events where processing_status = 'failed'"
    assert column(shop.db, refused) == ["small"]


def test_a_unique_index_of_the_users_own_refuses_a_second_row(shop, postman, story):
    shop.db.execute("create unique index once on payments.payment_history (environment)")
    assert "failed" in {postman.deliver(body).status for body in story}
    refused = "select distinct error ->> 'constraint' from payments.webhook_events where processing_status = 'failed'"
    assert column(shop.db, refused) == ["once"]
    assert shop.db.value("select count(*) from payments.payment_history") == 1


def test_without_its_key_a_table_gets_no_row_rather_than_two(shop, postman, story):
    shop.db.execute("alter table payments.payment_history drop constraint payment_history_pkey")
    assert "failed" in {postman.deliver(body).status for body in story}
    said = "select distinct error ->> 'sqlstate' from payments.webhook_events where processing_status = 'failed'"
    assert column(shop.db, said) == ["42P10"]
    assert shop.db.value("select count(*) from payments.payment_history") == 0


def test_indexes_of_the_users_own_know_every_row(shop, postman, story):
    shop.db.execute(
        """
        create index by_status on payments.payment_history (lower(status));
        create index of_red on payments.subscriptions (stripe_subscription_id) where subject_id = 'red';
        create index by_hash on payments.stripe_objects using hash (object_id)
        """
    )
    assert "failed" not in delivered(postman, story)
    with shop.db.connect() as connection:
        connection.execute("set enable_seqscan = off")
        for found, there in (
            ("select count(*) from payments.payment_history where lower(status) = 'succeeded'",) * 2,
            ("select count(*) from payments.subscriptions where subject_id = 'red'",) * 2,
            (
                "select count(*) from payments.stripe_objects o where object_id = any (array(select object_id from payments.stripe_objects))",
                "select count(*) from payments.stripe_objects",
            ),
        ):
            by_index = connection.execute(found).fetchone()
            with shop.db.connect() as other:
                other.execute("set enable_indexscan = off; set enable_bitmapscan = off; set enable_indexonlyscan = off")
                assert by_index == other.execute(there).fetchone()


def test_without_our_indexes_everything_is_found_all_the_same(shop, postman, story):
    """And never by an index that does not have every row."""
    shop.db.execute(
        """
        drop index payments.stripe_objects_payment_intent_idx, payments.stripe_objects_charge_idx,
            payments.stripe_objects_invoice_idx, payments.stripe_objects_subscription_idx,
            payments.customer_mappings_customer_idx;
        create index a_few on payments.customer_mappings (stripe_customer_id, environment) where subject_id = 'nobody';
        create index others on payments.stripe_objects (environment, payment_intent_id) where deleted;
        create index folded on payments.stripe_objects (environment, (upper(charge_id)))
        """
    )
    for body in story:
        assert postman.deliver(body).status != "failed"
    payment = "select amount_refunded, subject_id from payments.payment_history where type = 'one_time_payment'"
    assert shop.db.execute(payment).fetchone() == (500, "alice")
    before = rows(shop.db)
    shop.db.execute("select payments.install()")
    shop.db.execute("select payments.rebuild('test')")
    assert rows(shop.db) == before


def test_nothing_is_written_in_a_transaction_that_may_only_read(shop, postman, story):
    with shop.db.connect(autocommit=False) as connection:
        connection.execute("set transaction read only")
        with pytest.raises(psycopg.errors.ReadOnlySqlTransaction):
            postman.deliver(story[0], connection=connection)


def test_a_published_table_without_an_identity_refuses_changes_as_it_does_to_anybody(shop, postman, story):
    shop.db.execute(
        """
        alter table payments.payment_history replica identity nothing;
        create publication everything for table payments.payment_history
        """
    )
    statuses = {postman.deliver(body).status for body in story}
    assert "failed" in statuses
    said = "select distinct error ->> 'sqlstate' from payments.webhook_events where processing_status = 'failed'"
    assert column(shop.db, said) == ["55000"]


def test_a_row_that_somebody_is_changing_is_waited_for_and_written_after(shop, postman, story):
    *before, refund = story
    assert "failed" not in delivered(postman, before)
    outcome = []
    with shop.db.connect(autocommit=False) as connection:
        connection.execute("update payments.payment_history set description = 'mine', amount_refunded = 1")
        connection.execute("update payments.stripe_objects set due = null")
        delivery = threading.Thread(target=lambda: outcome.append(postman.deliver(refund).status))
        delivery.start()
        delivery.join(0.5)
        assert delivery.is_alive()
        connection.commit()
        delivery.join(10)
    assert outcome == ["processed"]
    for body in story:
        postman.deliver(body)
    payment = "select amount_refunded from payments.payment_history where type = 'one_time_payment'"
    assert shop.db.value(payment) == 500


def test_what_a_caller_asked_for_is_kept_though_it_is_changed_meanwhile(shop, postman, story):
    """By then there is another version of the row, so that a statement writes it."""
    completed = next(body for body in story if json.loads(body)["type"] == "checkout.session.completed")
    outcome = []
    with shop.db.connect(autocommit=False) as connection:
        connection.execute("update payments.checkout_sessions set customer_email = 'new@example.com'")
        delivery = threading.Thread(target=lambda: outcome.append(postman.deliver(completed).status))
        delivery.start()
        delivery.join(0.5)
        assert delivery.is_alive()
        connection.commit()
        delivery.join(10)
    assert outcome == ["processed"]
    row = "select status, customer_email from payments.checkout_sessions where status = 'completed'"
    assert shop.db.execute(row).fetchone() == ("completed", "new@example.com")


def test_a_wait_for_somebodys_row_can_be_cancelled(shop, postman, story):
    """For the row of an object, for one that is computed from it, and for an event that a twin is recording."""
    refund = next(body for body in story if json.loads(body)["type"] == "charge.refunded")
    assert "failed" not in delivered(postman, [body for body in story if "refund" not in json.loads(body)["type"]])
    for held in (
        "update payments.stripe_objects set due = due",
        "update payments.payment_history set description = 'mine'",
        "insert into payments.webhook_events (environment, stripe_event_id) values ('test', %(event)s)",
    ):
        with shop.db.connect(autocommit=False) as holder, shop.db.connect() as connection:
            holder.execute(held, {"event": json.loads(refund)["id"]})
            connection.execute("set statement_timeout = '300ms'")
            role = connection.execute("select current_user").fetchone()
            for _ in range(3):
                with pytest.raises(psycopg.errors.QueryCanceled):
                    postman.deliver(refund, connection=connection)
            assert connection.execute("select current_user").fetchone() == role
            assert connection.execute("select count(*) from payments.status()").fetchone() == (2,)
            holder.rollback()
            connection.execute("set statement_timeout = 0")
            connection.execute("begin")
            assert postman.deliver(refund, connection=connection).status == "processed"
            connection.execute("rollback")
