"""`poll_events`: Stripe's Events API in place of webhooks, or beside them."""

from __future__ import annotations

import time
from typing import Any

import pytest

from fake_stripe import FakeStripe
from harness.database import Database
from shop import Shop, Task

EVENTS = "/v1/events"


def poll(db: Database) -> list[str]:
    """Polls: what was said."""
    said: list[str] = []
    with db.connect() as connection:
        connection.add_notice_handler(lambda notice: said.append(notice.message_primary))
        connection.execute("call payments.poll_events('test')")
    return said


def processed(db: Database) -> dict[str, str]:
    """What became of every event that came in, by its id."""
    rows = db.execute("select stripe_event_id, processing_status from payments.webhook_events").fetchall()
    return {row.stripe_event_id: row.processing_status for row in rows}


def ids(stripe: FakeStripe) -> set[str]:
    return {event["id"] for event in stripe.control.events()}


def watch(db: Database) -> None:
    """Has a trigger do on payment what an app would: fulfil."""
    db.execute(
        """
        create table public.fulfilled (payment uuid, source text);
        grant insert on public.fulfilled to payments_owner;
        create function public.fulfil() returns trigger language plpgsql as $$
        begin
            if new.status = 'succeeded' and (tg_op = 'INSERT' or old.status is distinct from new.status) then
                insert into public.fulfilled values (new.id, current_setting('payments.source'));
            end if;
            return null;
        end $$;
        create trigger fulfil after insert or update of status on payments.payment_history
            for each row execute function public.fulfil();
        """
    )


def fulfilled(db: Database) -> list[str]:
    """By what each payment was fulfilled; once, or this fails."""
    rows = db.execute("select * from public.fulfilled").fetchall()
    assert len({row.payment for row in rows}) == len(rows)
    return [row.source for row in rows]


def paid(shop: Shop, who: str = "alice") -> Any:
    """A checkout that is paid while nobody listens."""
    session = shop.checkout(who)
    shop.stripe.control.complete(session.stripe_checkout_session_id)
    return session


def test_a_database_without_a_public_url_catches_up(shop: Shop) -> None:
    watch(shop.db)
    session = paid(shop)
    assert shop.db.value("select count(*) from payments.payment_history") == 0
    poll(shop.db)
    row = shop.db.execute("select * from payments.payment_history").fetchone()
    assert (row.status, row.stripe_checkout_session_id) == ("succeeded", session.stripe_checkout_session_id)
    assert fulfilled(shop.db) == ["poll"]
    assert shop.sessions()[0].status == "completed"
    assert processed(shop.db).keys() == ids(shop.stripe)
    assert set(processed(shop.db).values()) <= {"processed", "ignored"}
    sources = shop.db.execute("select distinct source from payments.webhook_events").fetchall()
    assert [row.source for row in sources] == ["poll"]


def test_what_polling_leaves_is_what_webhooks_leave(shop: Shop, make_twin) -> None:
    twin = make_twin()
    paid(shop)
    plan = shop.checkout("bob", mode="subscription")
    subscription = shop.stripe.control.complete(plan.stripe_checkout_session_id)["subscription"]
    shop.stripe.control.renew(subscription)
    shop.stripe.control.cancel(subscription)
    poll(shop.db)
    for delivery in shop.stripe.control.deliveries():
        twin.execute("select payments.handle_webhook('test', %s, %s)", (delivery["body"], delivery["signature"]))
    for table in ("subscriptions", "subscription_items", "invoices", "customers", "prices"):
        columns = "to_jsonb(t) - 'subject_type' - 'subject_id'"
        query = f"select {columns} from payments.{table} t order by 1"
        assert shop.db.execute(query).fetchall() == twin.execute(query).fetchall(), table


@pytest.fixture
def make_twin(shop: Shop, server):
    """A second database on the same Stripe account."""
    from harness import database

    twins = []

    def make() -> Database:
        twin = database.create(server)
        twins.append(twin)
        twin.execute("select payments.set_webhook_secret('test', %s)", (shop.stripe.webhook_secret,))
        return twin

    yield make
    for twin in twins:
        twin.close()


def test_an_event_that_came_by_webhook_is_not_done_again(shop: Shop) -> None:
    watch(shop.db)
    shop.buy("alice")
    before = shop.db.execute("select stripe_event_id, attempt_count, source from payments.webhook_events order by 1").fetchall()
    poll(shop.db)
    after = shop.db.execute(
        "select stripe_event_id, attempt_count, source from payments.webhook_events where source = 'webhook' order by 1"
    ).fetchall()
    assert (before, fulfilled(shop.db)) == (after, ["webhook"])


def test_an_event_that_was_polled_is_not_done_again_by_its_webhook(shop: Shop) -> None:
    paid(shop)
    poll(shop.db)
    assert all(receipt.duplicate for receipt in shop.deliver())


def test_a_webhook_settles_what_a_poll_has_only_recorded(shop: Shop) -> None:
    watch(shop.db)
    paid(shop)
    shop.db.execute("select payments.poll_page('test')")
    assert set(processed(shop.db).values()) == {"pending"}
    shop.deliver()
    assert set(processed(shop.db).values()) <= {"processed", "ignored"}
    poll(shop.db)
    assert fulfilled(shop.db) == ["webhook"]
    assert shop.db.value("select max(attempt_count) from payments.webhook_events") == 1


def test_the_window_overlaps_for_events_that_show_up_late(shop: Shop) -> None:
    shop.stripe.control.lag_events(40)
    paid(shop)
    poll(shop.db)
    assert processed(shop.db) == {}
    # Meanwhile younger ones are seen, so that the late ones are behind what was read.
    shop.stripe.control.clock(advance=30)
    poll(shop.db)
    shop.stripe.control.clock(advance=30)
    poll(shop.db)
    assert processed(shop.db).keys() == ids(shop.stripe)
    assert shop.db.value("select status from payments.payment_history") == "succeeded"


def test_the_next_poll_asks_for_what_is_new(shop: Shop) -> None:
    paid(shop)
    poll(shop.db)
    shop.stripe.control.clock(advance=3600)
    paid(shop, "bob")
    shop.stripe.control.clear_requests()
    poll(shop.db)
    (request,) = shop.asked(EVENTS, "GET")
    read_until = int(request["params"]["created"]["gte"]) + 300
    assert 60 <= shop.stripe.clock.now() - 3600 - read_until < 90, "a minute's lag, five minutes of overlap"
    assert shop.db.value("select count(*) from payments.payment_history where status = 'succeeded'") == 2


def test_many_pages_are_read_the_oldest_first(shop: Shop) -> None:
    product = shop.stripe.control.call("POST", "/v1/products", {"name": "Version 0"})["id"]
    for version in range(1, 350):
        shop.stripe.control.clock(advance=1)
        shop.stripe.control.update(product, {"name": f"Version {version}"})
    shop.db.execute(
        """
        create table public.names (number bigint generated always as identity, name text);
        grant insert on public.names to payments_owner;
        create function public.note() returns trigger language plpgsql as $$
        begin
            insert into public.names (name) values (new.name);
            return null;
        end $$;
        """
    )
    shop.db.execute("create trigger note after insert or update on payments.products for each row execute function note()")
    poll(shop.db)
    assert len(shop.asked(EVENTS, "GET")) < 20
    names = [row.name for row in shop.db.execute("select name from public.names order by number")]
    assert [name for name in names if name.startswith("Version")] == [f"Version {version}" for version in range(350)]
    assert len(processed(shop.db)) == len(ids(shop.stripe)) > 350


def test_a_scheduler_takes_steps(shop: Shop) -> None:
    watch(shop.db)
    for number in range(30):
        paid(shop, f"user {number}")
    steps = [shop.db.execute("select * from payments.poll_step('test')").fetchone() for _ in range(12)]
    assert steps[-1].status == "complete"
    assert len(fulfilled(shop.db)) == 30
    assert processed(shop.db).keys() == ids(shop.stripe)


def test_pollers_do_not_collide(shop: Shop) -> None:
    watch(shop.db)
    for number in range(40):
        paid(shop, f"user {number}")
    shop.stripe.control.fault("delay", path=EVENTS, before=0.5)
    pollers = [Task(lambda: poll(shop.db)) for _ in range(4)]
    said = [message for poller in pollers for message in poller.result(60)]
    assert 'another session is polling the environment "test"' in said
    deadline = time.monotonic() + 30
    while "pending" in processed(shop.db).values() and time.monotonic() < deadline:
        time.sleep(0.1)
    assert fulfilled(shop.db) == ["poll"] * 40
    assert shop.db.value("select max(attempt_count) from payments.webhook_events") == 1


def test_polling_and_webhooks_at_once_do_everything_once(shop: Shop) -> None:
    watch(shop.db)
    for number in range(40):
        paid(shop, f"user {number}")
    deliveries = shop.stripe.control.deliveries()
    connection = shop.db.connect()
    webhooks = Task(lambda: [shop.receive(delivery, connection) for delivery in reversed(deliveries)])
    poll(shop.db)
    webhooks.result(60)
    assert len(fulfilled(shop.db)) == 40
    assert "failed" not in processed(shop.db).values() and "pending" not in processed(shop.db).values()


def test_a_failing_trigger_is_told_as_for_webhooks(shop: Shop) -> None:
    shop.db.execute(
        """
        create function public.refuse() returns trigger language plpgsql as $$
        begin raise exception 'out of stock' using errcode = 'P0815'; end $$;
        create trigger refuse before insert on payments.payment_history for each row execute function public.refuse();
        """
    )
    paid(shop)
    poll(shop.db)
    failed = shop.db.execute("select * from payments.webhook_events where processing_status = 'failed'").fetchall()
    assert {(row.last_error, row.error["sqlstate"]) for row in failed} == {("out of stock", "P0815")}
    shop.db.execute("drop trigger refuse on payments.payment_history")
    poll(shop.db)
    assert "failed" in processed(shop.db).values(), "a poll leaves them to replay_failed"
    shop.db.execute("select payments.replay_failed('test')")
    assert shop.db.value("select status from payments.payment_history") == "succeeded"


def test_an_event_in_an_old_version_is_a_notice_to_ask(shop: Shop) -> None:
    product = shop.stripe.control.call("POST", "/v1/products", {"name": "Tea"})
    old = {"id": product["id"], "object": "product", "name": "not to be read", "created": product["created"]}
    event = shop.stripe.control.emit("product.updated", old, fields={"api_version": "2019-12-03"})
    gone = {"id": "prod_gone", "object": "product", "created": product["created"]}
    shop.stripe.control.emit("product.updated", gone, fields={"api_version": "2019-12-03"})
    shop.stripe.control.clear_requests()
    poll(shop.db)
    assert shop.db.value("select name from payments.products where stripe_product_id = %s", (product["id"],)) == "Tea"
    assert len(shop.asked(f"/v1/products/{product['id']}", "GET")) == 1
    assert processed(shop.db)[event["id"]] == "processed"
    assert shop.db.value("select count(*) from payments.products where stripe_product_id = 'prod_gone'") == 0
    assert "pending" not in processed(shop.db).values()


def test_an_event_waits_for_who_is_at_work_and_the_others_do_not(shop: Shop) -> None:
    session = paid(shop)
    shop.stripe.control.call("POST", "/v1/products", {"name": "Tea"})
    with shop.db.connect() as busy, busy.transaction():
        busy.execute(
            "select from payments.checkout_sessions where stripe_checkout_session_id = %s for update",
            (session.stripe_checkout_session_id,),
        )
        shop.db.execute("select payments.poll_step('test')")
        waiting = [event for event, status in processed(shop.db).items() if status == "pending"]
        assert waiting
        assert shop.db.value("select count(*) from payments.products where name = 'Tea'") == 1
    poll(shop.db)
    assert "pending" not in processed(shop.db).values()
    assert shop.sessions()[0].status == "completed"


def test_what_is_due_is_asked_for(shop: Shop) -> None:
    # Nothing says what this payment is for: no session, no invoice.
    session = shop.stripe.control.get(paid(shop).stripe_checkout_session_id)
    intent = shop.stripe.control.get(session["payment_intent"])
    lone = {**intent, "id": "pi_3LoneLoneLoneLoneLoneLone", "metadata": {}, "latest_charge": None, "payment_details": {"customer_reference": None, "order_reference": None}}
    poll(shop.db)
    with shop.stripe.world.lock:
        shop.stripe.world.stores[shop.stripe.account, False].add(lone)
    shop.stripe.control.emit("payment_intent.succeeded", lone)
    poll(shop.db)
    assert shop.db.value("select count(*) from payments.stripe_objects where due is not null") == 0
    payment = shop.db.execute("select * from payments.payment_history where stripe_payment_intent_id = %s", (lone["id"],))
    assert payment.fetchone().type == "one_time_payment"


def test_history_is_left_to_sync(shop: Shop) -> None:
    shop.stripe.control.populate(100)
    watch(shop.db)
    paid(shop)
    poll(shop.db)
    assert len(fulfilled(shop.db)) == 1
    shop.db.execute("call payments.sync('test')")
    assert len(fulfilled(shop.db)) == 1


def test_a_gap_that_events_cannot_fill_is_told(shop: Shop) -> None:
    poll(shop.db)
    shop.stripe.control.clock(advance=31 * 86400)
    assert any("CALL payments.sync('test')" in message for message in poll(shop.db))
    assert not any("payments.sync" in message for message in poll(shop.db))


def test_a_rate_limit_is_waited_for(shop: Shop) -> None:
    paid(shop)
    shop.stripe.control.fault("rate_limit", path=EVENTS)
    said = poll(shop.db)
    assert any(message.startswith("waiting until") for message in said)
    assert processed(shop.db).keys() == ids(shop.stripe)
