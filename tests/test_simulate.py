"""Events that are made up for developers without a Stripe account, and their removal."""

from __future__ import annotations

import re

import psycopg
import pytest
from psycopg.types.json import Jsonb

from shop import refused

SIMULATED = re.compile(r"_simulated_[0-9a-f]{24}$")
TABLES = (
    "checkout_sessions customer_mappings customers disputes invoices payment_history prices products "
    "stripe_objects subscription_items subscriptions webhook_events"
).split()

ALICE = {"type": "user", "id": "alice"}


def simulate(connection, type, **overrides):
    """The receipt."""
    statement = "select * from payments.simulate_event(%s, %s)"
    return connection.execute(statement, (type, Jsonb(overrides))).fetchone()


def contents(db) -> dict[str, list[str]]:
    """Every row of every table, as text."""
    return {
        table: [row[0] for row in db.execute(f"select t::text from payments.{table} as t order by 1")]
        for table in TABLES
    }


def known_types(db) -> list[str]:
    with refused("22023", "invalid_argument", argument="type") as refusal:
        simulate(db, "no.such_event")
    return re.findall(r"[a-z_.]+\.[a-z_]+", refusal.hint)


def test_every_known_type_is_taken_in_and_goes_away_again(db):
    types = known_types(db)
    assert len(types) >= 40
    for type in types:
        receipt = simulate(db, type)
        said = (receipt.environment, receipt.event_type, receipt.status, receipt.duplicate, receipt.error)
        assert said == ("test", type, "processed", False, None)
        made = sum(len(rows) for rows in contents(db).values())
        assert db.value("select payments.remove_simulated()") == made
        assert not any(contents(db).values()), type


def test_everything_says_that_it_is_simulated(db):
    for type in known_types(db):
        assert simulate(db, type).status == "processed"
    events = db.execute("select * from payments.webhook_events").fetchall()
    assert {(event.environment, event.source, event.livemode, event.api_version) for event in events} == {
        ("test", "simulate", False, "2026-10-28.endive")
    }
    ids = [event.stripe_event_id for event in events]
    objects = db.execute("select object_id, body ->> 'livemode' as livemode from payments.stripe_objects").fetchall()
    ids += [row.object_id for row in objects]
    assert all(SIMULATED.search(id) for id in ids)
    # Subscription items do not say.
    assert {row.livemode for row in objects} <= {"false", None}
    assert all(
        row.stripe_checkout_session_id.startswith("cs_test_simulated_")
        for row in db.execute("select stripe_checkout_session_id from payments.checkout_sessions")
    )


def test_nothing_is_left_open_for_stripe_to_answer(db):
    for type in known_types(db):
        simulate(db, type)
    due = db.execute("select object_type, due, evidence from payments.stripe_objects where due is not null").fetchall()
    assert due == []


def test_the_rows_are_those_of_a_rebuild(db):
    for type in known_types(db):
        simulate(db, type, subject=ALICE)
    before = contents(db)
    db.execute("select payments.rebuild('test')")
    assert contents(db) == before


def test_one_call_fulfils_an_order(db):
    db.execute(
        """
        create table public.orders (id bigint primary key, user_id text, status text not null default 'pending');
        grant select, update on public.orders to payments_owner;
        insert into public.orders values (7, 'alice'), (8, 'alice');
        create function public.fulfil() returns trigger language plpgsql as $$
        begin
            update public.orders set status = 'fulfilled'
            where id::text = new.metadata ->> 'order_id' and user_id = new.subject_id and status = 'pending';
            return null;
        end $$;
        create trigger fulfil after insert or update of status on payments.payment_history
        for each row when (new.type = 'one_time_payment' and new.status = 'succeeded')
        execute function public.fulfil();
        """
    )
    overrides = {"subject": ALICE, "metadata": {"order_id": "7"}, "amount": 1900, "quantity": 2, "currency": "eur"}
    assert simulate(db, "checkout.session.completed", **overrides).status == "processed"
    assert db.execute("select id, status from public.orders order by id").fetchall() == [
        (7, "fulfilled"),
        (8, "pending"),
    ]
    session = db.execute("select * from payments.checkout_sessions").fetchone()
    assert (session.status, session.payment_status, session.mode) == ("completed", "paid", "payment")
    assert (session.subject_type, session.subject_id) == ("user", "alice")
    assert (session.metadata, session.line_items[0]["quantity"]) == ({"order_id": "7"}, 2)
    paid = db.execute("select * from payments.payment_history").fetchone()
    assert (paid.status, paid.amount, paid.currency, paid.metadata) == (
        "succeeded",
        3800,
        "eur",
        {"order_id": "7"},
    )
    assert paid.stripe_checkout_session_id == session.stripe_checkout_session_id
    assert paid.stripe_price_id == session.line_items[0]["stripe_price_id"]


def test_one_call_gives_access_and_another_takes_it(db):
    db.execute(
        """
        create table public.entitlements (subject_id text primary key, active boolean);
        grant select, insert, update on public.entitlements to payments_owner;
        create function public.entitle() returns trigger language plpgsql as $$
        begin
            insert into public.entitlements values (new.subject_id, new.status in ('active', 'trialing'))
            on conflict (subject_id) do update set active = excluded.active;
            return null;
        end $$;
        create trigger entitle after insert or update of status on payments.subscriptions
        for each row execute function public.entitle();
        """
    )
    db.execute("select payments.open_to_apps('test')")

    def entitled():
        access = db.value("select payments.has_access('user', 'alice', 'pro_monthly')")
        return db.value("select active from public.entitlements where subject_id = 'alice'"), access

    simulate(db, "checkout.session.completed", mode="subscription", subject=ALICE, lookup_key="pro_monthly")
    assert entitled() == (True, True)
    simulate(db, "customer.subscription.created", subject={"type": "user", "id": "bob"}, lookup_key="pro_monthly")
    simulate(db, "invoice.payment_failed", subject=ALICE)
    assert db.value("select status from payments.subscriptions where subject_id = 'alice'") == "past_due"
    assert entitled() == (False, True)
    simulate(db, "invoice.paid", subject=ALICE)
    assert entitled() == (True, True)
    simulate(db, "customer.subscription.deleted", subject=ALICE)
    assert entitled() == (False, False)
    assert db.value("select active from public.entitlements where subject_id = 'bob'") is True
    bills = db.execute(
        "select status, amount, billing_reason from payments.payment_history where subject_id = 'alice' order by created_at, billing_reason"
    ).fetchall()
    assert bills == [("succeeded", 900, "subscription_create"), ("succeeded", 900, "subscription_cycle")]
    assert db.value("select count(*) from payments.prices where lookup_key = 'pro_monthly'") == 1


def test_the_same_call_again_is_another_purchase_by_the_same_customer(db):
    for _ in range(2):
        simulate(db, "checkout.session.completed", subject=ALICE, amount=1900, metadata={"order_id": "7"})
    sessions = db.execute("select * from payments.checkout_sessions").fetchall()
    assert len({session.stripe_checkout_session_id for session in sessions}) == 2
    assert len({session.stripe_customer_id for session in sessions}) == 1
    assert db.value("select count(*) from payments.payment_history where status = 'succeeded'") == 2
    assert db.value("select count(*) from payments.prices") == 1


@pytest.mark.parametrize(
    ("type", "overrides", "expected"),
    [
        ("checkout.session.completed", {"payment_status": "unpaid"}, ("completed", "unpaid", "pending")),
        ("checkout.session.completed", {"amount": 0}, ("completed", "no_payment_required", "succeeded")),
        ("checkout.session.async_payment_succeeded", {}, ("completed", "paid", "succeeded")),
        ("checkout.session.async_payment_failed", {}, ("completed", "unpaid", "failed")),
        ("payment_intent.payment_failed", {}, ("open", "unpaid", "failed")),
        ("payment_intent.canceled", {}, ("expired", "unpaid", "failed")),
        ("charge.refunded", {}, ("completed", "paid", "refunded")),
        ("charge.refunded", {"amount": 500}, ("completed", "paid", "partially_refunded")),
        ("refund.failed", {}, ("completed", "paid", "succeeded")),
    ],
)
def test_the_rows_say_what_happened(db, type, overrides, expected):
    simulate(db, type, **overrides)
    assert db.execute(
        """
        select s.status, s.payment_status, p.status as paid
          from payments.checkout_sessions as s
          join payments.payment_history as p using (environment, stripe_checkout_session_id)
         where p.type = 'one_time_payment'
        """
    ).fetchall() == [expected]


def test_a_second_card_pays_what_the_first_did_not(db):
    simulate(db, "payment_intent.payment_failed", subject=ALICE)
    simulate(db, "payment_intent.succeeded", subject=ALICE)
    assert db.execute("select status from payments.payment_history").fetchall() == [("succeeded",)]
    assert db.execute("select status from payments.checkout_sessions").fetchall() == [("completed",)]


def test_a_dispute_is_opened_and_lost(db):
    simulate(db, "charge.dispute.created", subject=ALICE)
    simulate(db, "charge.dispute.closed", subject=ALICE)
    assert db.execute("select status, reason from payments.disputes").fetchall() == [("lost", "fraudulent")]
    assert db.execute("select dispute_status from payments.payment_history").fetchall() == [("lost",)]


def test_an_event_goes_on_with_the_object_it_is_told_to(db):
    for subject in "alice", "bob":
        simulate(db, "customer.subscription.created", subject={"type": "user", "id": subject})
    alices = db.value("select stripe_subscription_id from payments.subscriptions where subject_id = 'alice'")
    simulate(db, "customer.subscription.updated", subscription=alices, cancel_at_period_end=True, quantity=3)
    changed = db.execute(
        """
        select s.subject_id, s.cancel_at_period_end, i.quantity
          from payments.subscriptions as s
          join payments.subscription_items as i using (environment, stripe_subscription_id)
         order by s.subject_id
        """
    ).fetchall()
    assert changed == [("alice", True, 3), ("bob", False, 1)]


def test_a_real_object_is_not_gone_on_with(db):
    with refused("22023", "invalid_argument", argument="overrides"):
        simulate(db, "customer.subscription.deleted", subscription="sub_1PgafmB7WZ01zgkW6dKueIc5")


def test_null_overrides_are_none(db):
    assert db.value("select status from payments.simulate_event('customer.created', null)") == "processed"
    assert db.value("select status from payments.simulate_event('customer.created')") == "processed"


def test_a_failing_trigger_is_told_and_its_event_can_be_replayed(db):
    db.execute(
        """
        create function public.fail() returns trigger language plpgsql as $$
        begin raise exception 'out of stock' using errcode = 'P0042'; end $$;
        create trigger fail after insert on payments.subscriptions for each row execute function public.fail();
        """
    )
    receipt = simulate(db, "customer.subscription.created", subject=ALICE)
    assert (receipt.status, receipt.error, receipt.error_detail["sqlstate"]) == ("failed", "out of stock", "P0042")
    db.execute("drop trigger fail on payments.subscriptions")
    assert db.value("select bool_and(status = 'processed') from payments.replay_failed('test')") is True
    assert db.value("select status from payments.subscriptions") == "active"


def test_a_side_event_that_fails_is_warned_of(db):
    db.execute(
        """
        create function public.fail() returns trigger language plpgsql as $$
        begin raise exception 'no such product'; end $$;
        create trigger fail after insert on payments.products for each row execute function public.fail();
        """
    )
    notices: list[str] = []
    with db.connect() as connection:
        connection.add_notice_handler(lambda notice: notices.append(notice.message_primary))
        assert simulate(connection, "checkout.session.completed").status == "processed"
    assert notices == ["the event product.created that goes with it failed: no such product"]


def test_triggers_are_told_that_it_is_simulated(db):
    db.execute(
        """
        create table public.log (operation text, source text);
        grant insert on public.log to payments_owner;
        create function public.log() returns trigger language plpgsql as $$
        begin insert into public.log values (tg_op, current_setting('payments.source')); return null; end $$;
        create trigger log after insert or delete on payments.payment_history
        for each row execute function public.log();
        create trigger log after insert or delete on payments.checkout_sessions
        for each row execute function public.log();
        """
    )
    simulate(db, "checkout.session.completed")
    db.execute("select payments.remove_simulated()")
    assert set(db.execute("select * from public.log").fetchall()) == {("INSERT", "simulate"), ("DELETE", "simulate")}


def test_what_is_real_stays_as_it_is(shop):
    """Beside the fake Stripe, which is a stand-in too, but whose objects have ids like Stripe's own."""
    shop.buy("alice")
    shop.buy("bob", mode="subscription")
    before = contents(shop.db)
    for type in known_types(shop.db):
        simulate(shop.db, type, subject=ALICE)
    after = contents(shop.db)
    assert all(set(before[table]) < set(after[table]) for table in TABLES if before[table])
    shop.db.execute("select payments.remove_simulated()")
    assert contents(shop.db) == before


@pytest.mark.parametrize("environment", ["test", "live"])
def test_it_is_refused_where_stripe_itself_tells(db, environment):
    db.execute("update payments.stripe_connections set status = 'connected' where environment = %s", (environment,))
    with refused("55000", "connected", environment=environment):
        simulate(db, "checkout.session.completed")
    assert not any(contents(db).values())


def test_no_key_is_set_beside_what_is_simulated(db):
    simulate(db, "product.created")
    with refused("55000", "simulated") as refusal:
        db.execute("select payments.set_stripe_key('test', 'sk_test_51PgafmB7WZ01zgkW6dKueIc5')")
    assert refusal.hint == "SELECT payments.remove_simulated();"


def test_administrators_alone_may(db):
    with db.connect() as connection:
        connection.execute("select payments.grant_app('authenticated')")
        connection.execute("select payments.grant_admin('service_role')")
    for statement in "select payments.simulate_event('customer.created')", "select payments.remove_simulated()":
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            db.connect("authenticated").execute(statement)
        db.connect("service_role").execute(statement)


def test_it_is_refused_where_it_could_go_wrong_without_a_sign(db):
    connection = db.connect(autocommit=False)
    connection.execute("set transaction isolation level repeatable read")
    with refused("25000", "wrong_transaction"):
        simulate(connection, "customer.created")
