"""One idempotency key, one purchase: through lost answers, rolled-back transactions, twins and time."""

from __future__ import annotations

import json
import time
from contextlib import contextmanager

import psycopg
import pytest

from shop import Task, refused, waits_for_a_lock

ALICE = {"type": "user", "id": "alice"}
SESSIONS = "/v1/checkout/sessions"
DAY = 24 * 60 * 60


@contextmanager
def transaction(shop, sub="alice", **options):
    """A connection of a user's, in a transaction that the test ends."""
    connection = shop.db.connect("authenticated", autocommit=False, **options)
    connection.execute("select set_config('request.jwt.claims', %s, false)", (json.dumps({"sub": sub}),))
    connection.commit()
    yield connection
    connection.close()


def buy(shop, connection=None, **arguments):
    """Alice's checkout of order 7."""
    return shop.checkout(connection or "alice", subject=ALICE, **{"idempotency_key": "order:7", **arguments})


def subscribe(shop, **arguments):
    """Alice's subscription."""
    return buy(shop, mode="subscription", idempotency_key="pro", **arguments)


def sessions_at_stripe(shop):
    return shop.stripe.control.call("GET", SESSIONS)["data"]


def test_the_same_key_is_the_same_session(shop):
    first = buy(shop)
    assert buy(shop) == first
    assert len(shop.asked()) == len(shop.sessions()) == 1


def test_without_a_key_every_call_is_a_purchase(shop):
    assert buy(shop, idempotency_key=None).id != buy(shop, idempotency_key=None).id
    assert len(sessions_at_stripe(shop)) == 2


def test_a_rolled_back_transaction_keeps_its_session(shop):
    with transaction(shop) as connection:
        lost = buy(shop, connection)
        connection.rollback()
    assert shop.sessions() == []
    again = buy(shop)
    assert (again.id, again.stripe_checkout_session_id, again.url) == (
        lost.id,
        lost.stripe_checkout_session_id,
        lost.url,
    )
    assert len(sessions_at_stripe(shop)) == 1


def test_a_rolled_back_savepoint_keeps_its_session(shop):
    with transaction(shop) as connection:
        with pytest.raises(ZeroDivisionError), connection.transaction():
            lost = buy(shop, connection)
            raise ZeroDivisionError
        again = buy(shop, connection)
        connection.commit()
    assert again.stripe_checkout_session_id == lost.stripe_checkout_session_id


def test_a_lost_answer_is_asked_for_again_in_the_same_call(shop):
    shop.stripe.control.fault("drop", path=SESSIONS)
    row = buy(shop)
    assert row.status == "open"
    assert [asked["status"] for asked in shop.asked()] == [0, 200]
    assert len(sessions_at_stripe(shop)) == 1


def test_an_answer_lost_for_the_whole_call_is_found_by_the_next(shop):
    shop.set("payments.http_timeout", "300ms")
    shop.stripe.control.fault("silent", path=SESSIONS, processed=True)
    with refused("PT504", "stripe_timed_out"):
        buy(shop)
    shop.set("payments.http_timeout", "6s")
    row = buy(shop)
    assert [row.stripe_checkout_session_id] == [session["id"] for session in sessions_at_stripe(shop)]


def test_a_repeated_answer_is_old_news_and_not_believed(shop):
    with transaction(shop) as connection:
        lost = buy(shop, connection)
        connection.rollback()
    shop.stripe.control.complete(lost.stripe_checkout_session_id)
    row = buy(shop)
    assert shop.asked()[-1]["replayed"]
    assert (row.status, row.payment_status, row.url) == ("completed", "paid", None)
    assert row.stripe_checkout_session_id == lost.stripe_checkout_session_id


def test_a_session_that_expired_after_a_rollback_is_not_returned(shop):
    with transaction(shop) as connection:
        lost = buy(shop, connection)
        connection.rollback()
    shop.stripe.control.expire(lost.stripe_checkout_session_id)
    row = buy(shop)
    assert (row.status, row.generation) == ("open", 2)
    assert row.stripe_checkout_session_id != lost.stripe_checkout_session_id


def test_of_two_backends_the_second_waits_and_gets_the_same_row(shop):
    with transaction(shop) as first, transaction(shop) as second:
        one = buy(shop, first)
        waiting = Task(lambda: buy(shop, second))
        assert waits_for_a_lock(shop.db, second.info.backend_pid)
        first.commit()
        assert waiting.result() == one
        second.commit()
    assert len(shop.asked()) == len(shop.sessions()) == 1


def test_of_two_backends_the_second_takes_over_when_the_first_rolls_back(shop):
    with transaction(shop) as first, transaction(shop) as second:
        lost = buy(shop, first)
        waiting = Task(lambda: buy(shop, second))
        assert waits_for_a_lock(shop.db, second.info.backend_pid)
        first.rollback()
        row = waiting.result()
        second.commit()
    assert row.stripe_checkout_session_id == lost.stripe_checkout_session_id
    assert [kept.id for kept in shop.sessions()] == [lost.id]


def test_of_two_backends_the_second_waits_no_longer_than_the_budget(shop):
    shop.set("payments.http_timeout", "300ms")
    with transaction(shop) as first, transaction(shop) as second:
        buy(shop, first)
        started = time.monotonic()
        with refused("PT503", "busy"):
            buy(shop, second)
        assert 0.3 <= time.monotonic() - started < 1.5


def test_many_backends_at_once_get_one_session(shop):
    rows = [task.result() for task in [Task(lambda: buy(shop)) for _ in range(8)]]
    assert len({row.stripe_checkout_session_id for row in rows}) == 1
    assert len(sessions_at_stripe(shop)) == 1


@pytest.mark.parametrize("told", [True, False], ids=["by webhook", "by nobody"])
def test_an_expired_session_makes_room_for_the_next(shop, told):
    first = buy(shop)
    shop.stripe.control.expire(first.stripe_checkout_session_id)
    if told:
        shop.deliver()
    second = buy(shop)
    assert (second.status, second.generation) == ("open", 2)
    assert second.stripe_checkout_session_id != first.stripe_checkout_session_id
    assert [row.status for row in shop.sessions()] == ["expired", "open"]
    assert buy(shop) == second


def test_a_session_that_stripe_knows_no_more_makes_room_for_the_next(shop):
    buy(shop)
    shop.db.execute("update payments.checkout_sessions set stripe_checkout_session_id = 'cs_test_gone'")
    second = buy(shop)
    assert (second.status, second.generation) == ("open", 2)
    first = shop.sessions()[0]
    assert (first.status, first.last_error) == (
        "failed",
        "Stripe refused the request: No such checkout.session: 'cs_test_gone'",
    )


def test_many_backends_at_once_find_a_session_expired_and_get_one_new(shop):
    first = buy(shop)
    shop.stripe.control.expire(first.stripe_checkout_session_id)
    rows = [task.result() for task in [Task(lambda: buy(shop)) for _ in range(4)]]
    assert {(row.status, row.generation) for row in rows} == {("open", 2)}
    assert len({row.id for row in rows}) == 1
    assert len(sessions_at_stripe(shop)) == 2


@pytest.mark.parametrize("told", [True, False], ids=["by webhook", "by nobody"])
def test_a_completed_payment_returns_its_row_for_ever(shop, told):
    first = buy(shop)
    shop.stripe.control.complete(first.stripe_checkout_session_id)
    if told:
        shop.deliver()
    for _ in range(2):
        again = buy(shop)
        assert (again.id, again.status, again.payment_status, again.url) == (first.id, "completed", "paid", None)
        shop.stripe.control.clock(advance=400 * DAY)
    assert len(sessions_at_stripe(shop)) == 1


def test_a_completed_payment_is_returned_without_asking_stripe(shop):
    first = buy(shop)
    shop.stripe.control.complete(first.stripe_checkout_session_id)
    shop.deliver()
    shop.stripe.control.clear_requests()
    shop.db.execute("select payments.remove_stripe_key('test')")
    shop.db.execute("select payments.open_to_apps('test')")
    assert buy(shop).status == "completed"
    assert shop.stripe.control.requests() == []


def test_a_refunded_payment_is_still_the_keys(shop):
    first = buy(shop)
    shop.stripe.control.complete(first.stripe_checkout_session_id)
    shop.deliver()
    row = buy(shop)
    shop.stripe.control.refund(row.stripe_payment_intent_id)
    shop.deliver()
    assert buy(shop).id == first.id


def test_a_payment_that_the_bank_is_at_work_on_keeps_its_key(shop):
    first = buy(shop)
    shop.stripe.control.complete(first.stripe_checkout_session_id, outcome="processing")
    shop.deliver()
    again = buy(shop)
    assert (again.id, again.status, again.payment_status) == (first.id, "completed", "unpaid")
    shop.stripe.control.settle(first.stripe_checkout_session_id)
    shop.deliver()
    assert (buy(shop).id, buy(shop).payment_status) == (first.id, "paid")
    assert len(sessions_at_stripe(shop)) == 1


def test_a_payment_that_the_bank_refused_makes_room_for_the_next(shop):
    first = buy(shop)
    shop.stripe.control.complete(first.stripe_checkout_session_id, outcome="processing")
    shop.stripe.control.settle(first.stripe_checkout_session_id, succeeded=False)
    shop.deliver()
    second = buy(shop)
    assert (second.status, second.generation) == ("open", 2)
    assert shop.sessions()[0].status == "completed"


@pytest.mark.parametrize("told", [True, False], ids=["by webhook", "by nobody"])
def test_a_subscription_that_ended_makes_room_for_the_next(shop, told):
    first = subscribe(shop)
    shop.stripe.control.complete(first.stripe_checkout_session_id)
    if told:
        shop.deliver()
    bought = subscribe(shop)
    assert (bought.id, bought.status) == (first.id, "completed")
    shop.stripe.control.cancel(bought.stripe_subscription_id)
    if told:
        shop.deliver()
    second = subscribe(shop)
    assert (second.status, second.generation) == ("open", 2)


@pytest.mark.parametrize("state", ["active", "to be cancelled", "past due", "unpaid"])
def test_a_live_subscription_keeps_its_key(shop, state):
    first = subscribe(shop)
    shop.stripe.control.complete(first.stripe_checkout_session_id)
    subscription = shop.stripe.control.get(first.stripe_checkout_session_id)["subscription"]
    if state == "to be cancelled":
        shop.stripe.control.cancel(subscription, at_period_end=True)
    if state in ("past due", "unpaid"):
        shop.stripe.control.renew(subscription, succeeded=False)
    if state == "unpaid":
        shop.stripe.control.give_up(subscription, status="unpaid")
    shop.deliver()
    again = subscribe(shop)
    assert (again.id, again.status, again.stripe_subscription_id) == (first.id, "completed", subscription)
    assert len(sessions_at_stripe(shop)) == 1


def test_a_stored_failure_gives_way_to_the_next_generation_in_the_same_call(shop):
    shop.stripe.control.fault("server_error", path=SESSIONS, stored=True, should_retry=False)
    with refused("PT502", "stripe_failed"):
        buy(shop)
    row = buy(shop)
    assert (row.status, row.generation) == ("open", 2)
    first, second = shop.sessions()
    assert (first.status, first.stripe_checkout_session_id) == ("failed", None)
    assert first.last_error.startswith("Stripe failed")
    assert (second.id, second.status) == (row.id, "open")
    assert buy(shop) == row


def test_a_key_outlives_any_number_of_stored_failures(shop):
    shop.stripe.control.fault("server_error", path=SESSIONS, stored=True, times=40)
    for _ in range(3):
        with refused("PT502", "stripe_failed"):
            buy(shop)
    shop.stripe.control.clear_faults()
    row = buy(shop)
    assert row.status == "open"
    assert buy(shop) == row
    assert len(sessions_at_stripe(shop)) == 1


def test_all_generations_of_a_call_share_one_budget(shop):
    shop.set("payments.http_timeout", "1s")
    shop.stripe.control.fault("server_error", path=SESSIONS, stored=True, before=0.4, times=40)
    started = time.monotonic()
    with pytest.raises(psycopg.Error, match="Stripe failed|timed out"):
        buy(shop)
    assert time.monotonic() - started < 1.6


def test_two_backends_that_meet_stored_failures_get_one_session(shop):
    shop.stripe.control.fault("server_error", path=SESSIONS, stored=True, should_retry=False, times=sum(range(6)))
    for _ in range(5):
        with refused("PT502", "stripe_failed"):
            buy(shop)
    one, other = (task.result() for task in [Task(lambda: buy(shop)) for _ in range(2)])
    assert (one.status, one.generation) == ("open", 6)
    assert one == other
    assert len(sessions_at_stripe(shop)) == 1


def test_a_customer_that_appeared_in_between_leads_to_the_next_generation(shop):
    with transaction(shop) as connection:
        lost = buy(shop, connection)
        connection.rollback()
    other = shop.stripe.control.call("POST", "/v1/customers", {"name": "Alice"})["id"]
    shop.db.execute(
        """
        insert into payments.customer_mappings
            (environment, subject_type, subject_id, stripe_customer_id, created_at)
        values ('test', 'user', 'alice', %s, now())
        """,
        (other,),
    )
    row = buy(shop)
    assert (row.status, row.generation, row.stripe_customer_id) == ("open", 2, other)
    assert row.stripe_checkout_session_id != lost.stripe_checkout_session_id


def test_a_customer_deleted_between_rolled_back_calls_is_replaced_in_each(shop):
    shop.buy("alice", metadata={"order_id": "1"})
    shop.stripe.control.delete(shop.db.value("select stripe_customer_id from payments.customers"))
    for _ in range(5):
        with transaction(shop) as connection:
            assert buy(shop, connection).status == "open"
            connection.rollback()
    assert buy(shop).status == "open"


@pytest.mark.parametrize(
    "changed",
    [
        {"metadata": {"order_id": "8"}},
        {"line_items": "two"},
        {"success_url": "https://shop.example/other"},
        {"cancel_url": "https://shop.example/other"},
        {"customer_email": "alice@example.com"},
        {"mode": "subscription"},
    ],
    ids=lambda changed: next(iter(changed)),
)
def test_a_changed_parameter_is_a_conflict(shop, changed):
    buy(shop, metadata={"order_id": "7"})
    shop.stripe.control.clear_requests()
    if "line_items" in changed:
        changed = {"line_items": [{"stripe_price_id": shop.shirt, "quantity": 2}]}
    with refused("23505", "key_reused") as refusal:
        buy(shop, **{"metadata": {"order_id": "7"}, **changed})
    assert refusal.hint == "Use one key for one purchase: a changed cart needs another key."
    assert shop.stripe.control.requests() == []


def test_a_changed_parameter_is_a_conflict_also_after_the_session_expired(shop):
    first = buy(shop)
    shop.stripe.control.expire(first.stripe_checkout_session_id)
    shop.deliver()
    with refused("23505", "key_reused"):
        buy(shop, metadata={"order_id": "8"})


def test_a_parameter_changed_after_a_rollback_gets_a_session_of_its_own(shop):
    with transaction(shop) as connection:
        lost = buy(shop, connection, metadata={"order_id": "7"})
        connection.rollback()
    row = buy(shop, metadata={"order_id": "8"})
    assert (row.status, row.metadata) == ("open", {"order_id": "8"})
    assert row.stripe_checkout_session_id != lost.stripe_checkout_session_id


def test_a_rolled_back_cart_that_is_paid_after_all_does_not_become_the_cart_that_followed(shop):
    with transaction(shop) as connection:
        old = buy(shop, connection)
        connection.rollback()
    new = buy(shop, metadata={"cart": "2"})
    shop.stripe.control.complete(old.stripe_checkout_session_id)
    shop.deliver()
    kept = {row.generation: (row.status, row.stripe_checkout_session_id) for row in shop.sessions()}
    assert kept == {1: ("failed", None), 2: ("open", new.stripe_checkout_session_id)}
    assert shop.db.value("select status from payments.payment_history") == "succeeded"


def test_another_users_same_key_is_another_session(shop):
    alices = buy(shop)
    bobs = shop.checkout("bob", idempotency_key="order:7")
    assert bobs.status == "open"
    assert bobs.stripe_checkout_session_id != alices.stripe_checkout_session_id
    visitors = shop.checkout(idempotency_key="order:7")
    assert visitors.stripe_checkout_session_id not in (
        alices.stripe_checkout_session_id,
        bobs.stripe_checkout_session_id,
    )


def test_a_teams_key_is_the_teams_whoever_calls(shop):
    red = {"type": "team", "id": "red"}
    alices = shop.checkout("alice", mode="subscription", subject=red, idempotency_key="pro")
    bobs = shop.checkout("bob", mode="subscription", subject=red, idempotency_key="pro")
    assert alices == bobs
    assert alices.requested_by == "alice"


def test_the_key_of_a_purchase_without_subject_is_the_callers(shop):
    shop.db.execute(
        """
        create policy gifts on payments.checkout_sessions for insert to authenticated
            with check (subject_type is null)
        """
    )
    alices = shop.checkout("alice", subject=None, idempotency_key="gift")
    bobs = shop.checkout("bob", subject=None, idempotency_key="gift")
    assert alices.id != bobs.id
    assert shop.checkout("alice", subject=None, idempotency_key="gift") == alices


def test_a_webhook_that_overtakes_its_checkout_waits_for_it_and_then_merges(shop):
    with transaction(shop) as connection:
        session = buy(shop, connection)
        shop.stripe.control.complete(session.stripe_checkout_session_id)
        [completed] = shop.stripe.control.deliveries(types=["checkout.session.completed"])
        webhook = shop.db.connect()
        waiting = Task(lambda: shop.receive(completed, webhook))
        assert waits_for_a_lock(shop.db, webhook.info.backend_pid)
        connection.commit()
        assert waiting.result().status == "processed"
    [row] = shop.sessions()
    assert (row.id, row.status, row.payment_status) == (session.id, "completed", "paid")
    assert row.line_items == [{"stripe_price_id": shop.shirt, "quantity": 1}]


def test_a_webhook_of_a_rolled_back_checkout_makes_its_row_again(shop):
    with transaction(shop) as connection:
        lost = buy(shop, connection, metadata={"order_id": "7"})
        shop.stripe.control.complete(lost.stripe_checkout_session_id)
        [completed] = shop.stripe.control.deliveries(types=["checkout.session.completed"])
        webhook = shop.db.connect()
        waiting = Task(lambda: shop.receive(completed, webhook))
        assert waits_for_a_lock(shop.db, webhook.info.backend_pid)
        connection.rollback()
        assert waiting.result().status == "processed"
    [row] = shop.sessions()
    kept = (
        "id",
        "mode",
        "subject_type",
        "subject_id",
        "idempotency_key",
        "metadata",
        "request_hash",
        "requested_by",
        "generation",
    )
    assert {name: getattr(row, name) for name in kept} == {name: getattr(lost, name) for name in kept}
    assert (row.status, row.success_url, row.cancel_url) == ("completed", lost.success_url, lost.cancel_url)
    again = buy(shop, metadata={"order_id": "7"})
    assert (again.id, again.status) == (lost.id, "completed")
    assert len(sessions_at_stripe(shop)) == 1


@pytest.mark.parametrize(
    "forged", ["payments_proof", "payments_subject_id", "payments_requested_by", "payments_idempotency_key"]
)
def test_forged_metadata_makes_no_row(shop, forged):
    with transaction(shop) as connection:
        genuine = shop.stripe.control.get(buy(shop, connection).stripe_checkout_session_id)
        connection.rollback()
    session = shop.stripe.control.call(
        "POST",
        SESSIONS,
        {
            "mode": "payment",
            "line_items": [{"price": shop.shirt, "quantity": "1"}],
            "success_url": "https://evil.example/",
            "client_reference_id": genuine["client_reference_id"],
            "metadata": {**genuine["metadata"], forged: "mallory"},
        },
    )
    shop.stripe.control.complete(session["id"])
    for delivery in shop.stripe.control.deliveries():
        body = json.loads(delivery["body"])
        if body["data"]["object"].get("id") == session["id"]:
            assert shop.receive(delivery).status == "processed"
    assert shop.sessions() == []


def test_metadata_of_a_session_that_is_not_ours_makes_no_row(shop):
    session = shop.stripe.control.call(
        "POST",
        SESSIONS,
        {
            "mode": "payment",
            "line_items": [{"price": shop.shirt, "quantity": "1"}],
            "success_url": "https://shop.example/",
            "metadata": {"payments_subject_type": "user", "payments_subject_id": "alice"},
        },
    )
    shop.stripe.control.complete(session["id"])
    shop.deliver()
    assert shop.sessions() == []
    assert shop.db.value("select count(*) from payments.customer_mappings") == 0


def test_a_restore_under_another_sealing_key_forgets_no_generation(shop):
    paid = buy(shop)
    shop.stripe.control.complete(paid.stripe_checkout_session_id)
    opened = buy(shop, idempotency_key="order:8")
    expired = buy(shop, idempotency_key="order:9")
    shop.stripe.control.expire(expired.stripe_checkout_session_id)
    shop.deliver()

    shop.set("payments.key_file", "another.key")
    shop.db.disconnect()
    shop.db.execute("select payments.remove_stripe_key('test')")
    shop.db.execute("select payments.set_stripe_key('test', %s)", (shop.stripe.test_key,))
    shop.db.execute("select payments.open_to_apps('test')")
    assert buy(shop).id == paid.id
    assert buy(shop, idempotency_key="order:8") == opened
    next_generation = buy(shop, idempotency_key="order:9")
    assert (next_generation.status, next_generation.generation) == ("open", 2)


def test_two_backends_that_find_a_customer_deleted_do_not_wait_for_each_other(shop):
    shop.buy("alice", metadata={"order_id": "1"})
    for _ in range(3):
        shop.stripe.control.delete(shop.checkout("alice").stripe_customer_id)
        tasks = [Task(lambda: buy(shop, idempotency_key=None)) for _ in range(4)]
        assert len({task.result().stripe_customer_id for task in tasks}) == 1


@pytest.mark.parametrize("level", ["REPEATABLE READ", "SERIALIZABLE"])
def test_another_isolation_level_is_refused_before_stripe_is_asked(shop, level):
    with transaction(shop) as connection:
        connection.isolation_level = psycopg.IsolationLevel[level.replace(" ", "_")]
        with refused("25000", "wrong_transaction") as refusal:
            buy(shop, connection)
    assert refusal.message == "payments works at isolation level READ COMMITTED only"
    assert refusal.hint == "Begin the transaction with: begin isolation level read committed"
    assert shop.stripe.control.requests() == []


def test_a_read_only_transaction_is_refused_before_stripe_is_asked(shop):
    with transaction(shop) as connection:
        connection.read_only = True
        with refused("25006", "wrong_transaction") as refusal:
            buy(shop, connection)
    assert refusal.hint.startswith("Through a gateway, call the function with POST")
    assert shop.stripe.control.requests() == []


def test_a_failed_look_leaves_an_open_session_open(shop):
    first = buy(shop)
    with shop.db.request("alice") as connection:
        connection.execute("set local payments.on_stripe_error = 'record'")
        shop.stripe.control.fault("rate_limit", path=SESSIONS + "/*", method="GET")
        with refused("PT429", "rate_limited"), connection.transaction():
            buy(shop, connection)
    assert buy(shop) == first


def test_a_recorded_failure_makes_room_for_the_next_generation(shop):
    with shop.db.request("alice") as connection:
        connection.execute("set local payments.on_stripe_error = 'record'")
        shop.stripe.control.fault("rate_limit", path=SESSIONS)
        assert buy(shop, connection).status == "failed"
    second = buy(shop)
    assert (second.status, second.generation) == ("open", 2)
    assert [row.status for row in shop.sessions()] == ["failed", "open"]
