"""The app's own triggers fulfil what was paid, whichever of Stripe's events comes first."""

from __future__ import annotations

import itertools
import random

import pytest

from fake_stripe.webhooks import text
from harness.database import OWNER
from postman import Postman
from story import Shop

ORDERS = f"""
    create table orders (id text primary key, status text not null default 'pending', fulfilled int default 0);
    grant select, update on orders to {OWNER};

    create function fulfil_order() returns trigger language plpgsql security definer set search_path = '' as $$
    begin
        if new.type = 'one_time_payment' and new.status = 'succeeded' then
            update public.orders set status = 'paid', fulfilled = fulfilled + 1
            where id = new.metadata ->> 'order_id' and status = 'pending';
        end if;
        return new;
    end $$;
    create trigger fulfil_order after insert or update of status on payments.payment_history
    for each row execute function fulfil_order();
"""

ENTITLEMENTS = """
    create table team_entitlements (team text primary key, plan text, active boolean);

    create function sync_team_entitlement() returns trigger language plpgsql security definer set search_path = '' as $$
    begin
        insert into public.team_entitlements
        select new.subject_id, item.lookup_key, new.status in ('active', 'trialing')
        from payments.subscription_items item
        where item.environment = new.environment and item.stripe_subscription_id = new.stripe_subscription_id
            and new.subject_type = 'user'
        on conflict (team) do update set plan = excluded.plan, active = excluded.active;
        return new;
    end $$;
    create trigger sync_team_entitlement after insert or update on payments.subscriptions
    for each row execute function sync_team_entitlement();
"""

FIRES = """
    create table fires (tg_op text, old jsonb, new jsonb);

    create function note_fire() returns trigger language plpgsql security definer set search_path = '' as $$
    begin
        insert into public.fires values (tg_op, to_jsonb(old), to_jsonb(new));
        return null;
    end $$;
    create trigger note_fire after insert or update or delete on payments.payment_history
    for each row execute function note_fire();
"""


@pytest.fixture
def shop(db, stripe) -> Shop:
    return Shop(db, stripe)


@pytest.fixture
def postman(shop, stripe) -> Postman:
    return Postman(shop.db, stripe.webhook_secret)


def buy(shop: Shop, **outcome) -> list[str]:
    """A purchase of order 7, as the events it made."""
    shop.db.execute("insert into orders values ('7')")
    session = shop.checkout(metadata={"order_id": "7"})
    before = shop.events()[-1]["id"]
    shop.stripe.control.complete(session, **outcome)
    return [text(event) for event in shop.events(after=before)]


def says_paid(body: str) -> bool:
    """Whether this event alone tells that the money is there."""
    return any(
        f'"type": "{kind}"' in body
        for kind in ("payment_intent.succeeded", "charge.succeeded", "checkout.session.completed")
    )


def test_the_order_is_fulfilled_by_whichever_event_comes_first_and_once(shop, postman):
    shop.db.execute(ORDERS)
    events = buy(shop)
    assert sum(map(says_paid, events)) == 3
    orders = list(itertools.permutations(events))
    for order in random.Random(1).sample(orders, min(len(orders), 150)):
        with shop.db.connect(autocommit=False) as connection:
            paid = False
            for body in order:
                assert postman.deliver(body, connection=connection).status != "failed"
                paid = paid or says_paid(body)
                fulfilled = connection.execute("select status, fulfilled from orders").fetchone()
                assert fulfilled == (("paid", 1) if paid else ("pending", 0)), order
            connection.rollback()


@pytest.mark.parametrize("seed", range(8))
def test_a_bank_debit_fulfils_when_the_bank_says_so(shop, postman, seed):
    shop.db.execute(ORDERS)
    events = buy(shop, outcome="processing")
    for body in random.Random(seed).sample(events, len(events)):
        postman.deliver(body)
    assert shop.db.value("select status from orders") == "pending"
    before = shop.events()[-1]["id"]
    shop.stripe.control.settle(shop.db.value("select stripe_checkout_session_id from payments.checkout_sessions"))
    later = [text(event) for event in shop.events(after=before)]
    for body in random.Random(seed).sample(later + events, len(later + events)):
        postman.deliver(body)
    assert shop.db.execute("select status, fulfilled from orders").fetchone() == ("paid", 1)


def test_what_the_bank_refuses_is_not_fulfilled(shop, postman):
    shop.db.execute(ORDERS)
    events = buy(shop, outcome="processing")
    session = shop.db.value("select stripe_checkout_session_id from payments.checkout_sessions")
    shop.stripe.control.settle(session, succeeded=False)
    events = [text(event) for event in shop.events()]
    for seed in range(20):
        with shop.db.connect(autocommit=False) as connection:
            for body in random.Random(seed).sample(events, len(events)):
                postman.deliver(body, connection=connection)
            assert connection.execute("select status from orders").fetchone() == ("pending",)
            connection.rollback()


def test_a_free_purchase_is_fulfilled(shop, postman):
    shop.db.execute(ORDERS)
    for body in buy(shop, outcome="free"):
        postman.deliver(body)
    assert shop.db.execute("select status, fulfilled from orders").fetchone() == ("paid", 1)


def test_a_subscriber_is_entitled_in_every_order_of_events(shop, postman):
    shop.db.execute(ENTITLEMENTS)
    session = shop.checkout("subscription", "red")
    subscription = shop.stripe.control.complete(session)["subscription"]
    bought = [text(event) for event in shop.events()]
    shop.stripe.control.clock(advance=5)
    shop.stripe.control.cancel(subscription)
    everything = [text(event) for event in shop.events()]
    for events, entitled in ((bought, True), (everything, False)):
        for seed in range(40):
            with shop.db.connect(autocommit=False) as connection:
                for body in random.Random(seed).sample(events, len(events)):
                    assert postman.deliver(body, connection=connection).status != "failed"
                entitlements = connection.execute("select * from team_entitlements").fetchall()
                assert entitlements == [("red", "pro", entitled)]
                connection.rollback()


@pytest.mark.parametrize("seed", range(5))
def test_a_trigger_fires_once_for_a_real_change_and_never_for_noise(shop, postman, seed):
    shop.db.execute(ORDERS + FIRES)
    events = buy(shop)
    for body in random.Random(seed).choices(events, k=3 * len(events)) + events + events:
        postman.deliver(body)
    fires = shop.db.execute("select * from fires").fetchall()
    assert [fire.tg_op for fire in fires[:1]] == ["INSERT"]
    assert all(fire.tg_op == "UPDATE" and fire.old != fire.new for fire in fires[1:])
    assert all(before.new == after.old for before, after in itertools.pairwise(fires))
    assert fires[-1].new == shop.db.value("select to_jsonb(p) from payments.payment_history p")


def test_a_trigger_on_any_column_fires_when_a_row_changes(shop, postman):
    """`UPDATE OF status` fires when a statement sets the column, so every statement must set them all."""
    shop.db.execute(ORDERS)
    shop.db.execute(
        """
        create table touched (what text);
        create function touch() returns trigger language plpgsql security definer set search_path = '' as
        $$ begin insert into public.touched values (tg_argv[0]); return null; end $$;
        """
    )
    columns = [
        name
        for (name,) in shop.db.execute(
            "select attname from pg_attribute where attrelid = 'payments.payment_history'::regclass and attnum > 0"
        )
        if name not in ("id", "environment")
    ]
    for column in columns:
        shop.db.execute(
            f"create trigger touch_{column} after update of {column} on payments.payment_history "
            f"for each row execute function touch('{column}')"
        )
    for body in buy(shop):
        postman.deliver(body)
    shop.db.execute("truncate touched")
    payment = shop.db.value("select stripe_payment_intent_id from payments.payment_history")
    before = shop.events()[-1]["id"]
    shop.stripe.control.refund(payment)
    [refunded] = [event for event in shop.events(after=before) if event["type"] == "charge.refunded"]
    postman.deliver(text(refunded))
    touched = {what for (what,) in shop.db.execute("select what from touched")}
    assert touched == set(columns)


def test_a_completion_that_overtakes_its_checkout_waits_for_it(shop, postman):
    """Stripe can be faster than the transaction that made the session."""
    shop.db.execute(ORDERS)
    shop.db.execute("insert into orders values ('7')")
    with shop.db.connect(autocommit=False) as slow:
        session = shop.checkout(metadata={"order_id": "7"}, connection=slow)
        shop.stripe.control.complete(session)
        events = [text(event) for event in shop.events()]
        completed = next(body for body in events if '"type": "checkout.session.completed"' in body)
        assert postman.post(completed).status == 503
        slow.rollback()
    for body in events:
        assert postman.post(body).status == 200
    # The row is made from what the session remembers.
    row = shop.db.execute("select status, subject_id, metadata from payments.checkout_sessions").fetchone()
    assert row == ("completed", "alice", {"order_id": "7"})
    assert shop.db.execute("select status, fulfilled from orders").fetchone() == ("paid", 1)
