"""`create_checkout_session`: what may be asked for, what Stripe is asked, and who may ask."""

from __future__ import annotations

import json
import uuid

import psycopg
import pytest

from shop import URLS, Task, refused, waits_for_a_lock

RESERVED = {
    "payments_checkout_session_id",
    "payments_checkout_mode",
    "payments_generation",
    "payments_request_hash",
    "payments_requested_by",
    "payments_subject_type",
    "payments_subject_id",
    "payments_proof",
}


def test_a_payment_is_the_callers_row_and_a_session_at_stripe(shop):
    row = shop.checkout(
        "alice",
        line_items=[{"stripe_price_id": shop.shirt, "quantity": 2}],
        customer_email="alice@example.com",
        metadata={"order_id": "7"},
        idempotency_key="order:7",
    )
    at_stripe = shop.stripe.control.get(row.stripe_checkout_session_id)
    assert row == shop.sessions()[0]
    assert (row.environment, row.mode, row.status, row.payment_status) == ("test", "payment", "open", "unpaid")
    assert (row.subject_type, row.subject_id, row.requested_by) == ("user", "alice", "alice")
    assert row.customer_email == "alice@example.com"
    assert row.line_items == [{"stripe_price_id": shop.shirt, "quantity": 2}]
    assert (row.success_url, row.cancel_url) == (URLS["success_url"], URLS["cancel_url"])
    assert (row.idempotency_key, row.generation, row.metadata) == ("order:7", 1, {"order_id": "7"})
    assert (row.url, row.stripe_customer_id) == (at_stripe["url"], at_stripe["customer"])
    assert row.expires_at.timestamp() == at_stripe["expires_at"]
    assert row.last_error is None


def test_a_subscription_is_for_its_subject(shop):
    row = shop.checkout("alice", mode="subscription", subject={"type": "team", "id": "red"}, metadata={"seats": "3"})
    [asked] = shop.asked()
    assert (row.mode, row.status, row.subject_type, row.subject_id) == ("subscription", "open", "team", "red")
    assert asked["params"]["mode"] == "subscription"
    assert "payment_intent_data" not in asked["params"]
    assert asked["params"]["subscription_data"]["metadata"] == asked["params"]["metadata"]


def test_visitors_buy_once_without_a_subject(shop):
    row = shop.checkout(customer_email="visitor@example.com")
    [asked] = shop.asked()
    assert (row.status, row.subject_type, row.subject_id, row.requested_by) == ("open", None, None, "anon")
    assert asked["params"]["customer_email"] == "visitor@example.com"
    assert "customer" not in asked["params"]
    assert shop.asked("/v1/customers") == []


def test_a_subscription_needs_a_subject(shop):
    with refused("22023", "invalid_argument", argument="subject") as refusal:
        shop.checkout(mode="subscription")
    assert refusal.message == "a subscription needs a subject"
    assert refusal.hint.startswith("Say who subscribes")
    assert shop.asked() == []


@pytest.mark.parametrize("argument", ["mode", "line_items", "success_url", "cancel_url"])
def test_what_is_missing_is_named(shop, argument):
    with refused("22023", "invalid_argument", argument=argument) as refusal:
        shop.checkout("alice", **{argument: None})
    assert refusal.message == f"{argument} is missing"


LIMITS = [
    ("mode", {"mode": "setup"}, 'mode must be "payment" or "subscription"'),
    ("line_items", {"line_items": []}, "line_items must be a JSON array of 1 to 100 items"),
    (
        "line_items",
        {"line_items": [{"lookup_key": "pro_monthly"}] * 101},
        "line_items must be a JSON array of 1 to 100 items",
    ),
    ("line_items", {"line_items": {"price": "x"}}, "line_items must be a JSON array of 1 to 100 items"),
    ("line_items", {"line_items": [{}]}, "line_items[0] needs either stripe_price_id or lookup_key"),
    (
        "line_items",
        {"line_items": [{"stripe_price_id": "price_1", "lookup_key": "pro"}]},
        "line_items[0] needs either stripe_price_id or lookup_key",
    ),
    (
        "line_items",
        {"line_items": [{"stripe_price_id": "prod_1"}]},
        "line_items[0].stripe_price_id is not a Stripe price id (price_…)",
    ),
    (
        "line_items",
        {"line_items": [{"stripe_price_id": "price_1", "quantity": 0}]},
        "line_items[0].quantity must be a whole number from 1 to 999",
    ),
    (
        "line_items",
        {"line_items": [{"stripe_price_id": "price_1", "quantity": 1000}]},
        "line_items[0].quantity must be a whole number from 1 to 999",
    ),
    (
        "line_items",
        {"line_items": [{"stripe_price_id": "price_1", "quantity": 1.5}]},
        "line_items[0].quantity must be a whole number from 1 to 999",
    ),
    (
        "line_items",
        {"line_items": [{"stripe_price_id": "price_1", "price": 5}]},
        'line_items[0] has an unknown key "price"',
    ),
    ("success_url", {"success_url": "/thanks"}, "success_url must be an absolute http or https URL"),
    ("cancel_url", {"cancel_url": "javascript:alert(1)"}, "cancel_url must be an absolute http or https URL"),
    ("success_url", {"success_url": "https://a.example@b.example/"}, "success_url must not have a user name in it"),
    ("success_url", {"success_url": "https://a.example/" + "x" * 5000}, "success_url must have 1 to 5000 characters"),
    ("subject", {"subject": {"type": "user"}}, "subject.id is missing"),
    ("subject", {"subject": {"type": "user", "id": ""}}, "subject.id must have 1 to 255 characters"),
    ("subject", {"subject": {"type": "t" * 101, "id": "1"}}, "subject.type must have 1 to 100 characters"),
    ("subject", {"subject": {"type": "user", "id": "i" * 256}}, "subject.id must have 1 to 255 characters"),
    ("subject", {"subject": {"type": "user", "id": 7}}, "subject.id must be a string"),
    ("customer_email", {"customer_email": "alice"}, "customer_email must be an e-mail address"),
    ("metadata", {"metadata": ["a"]}, "metadata must be a JSON object"),
    ("metadata", {"metadata": {"a": 1}}, 'metadata value of "a" must be a string of at most 500 characters'),
    ("metadata", {"metadata": {"a": "x" * 501}}, 'metadata value of "a" must be a string of at most 500 characters'),
    (
        "metadata",
        {"metadata": {"k" * 41: "x"}},
        'metadata key "' + "k" * 41 + '" must have 1 to 40 characters and no square brackets',
    ),
    (
        "metadata",
        {"metadata": {"a[b]": "x"}},
        'metadata key "a[b]" must have 1 to 40 characters and no square brackets',
    ),
    ("metadata", {"metadata": {f"k{n}": "x" for n in range(41)}}, "metadata can have at most 40 keys"),
    ("metadata", {"metadata": {"payments_subject_id": "bob"}}, 'metadata key "payments_subject_id" is reserved'),
    ("idempotency_key", {"idempotency_key": " "}, "idempotency_key must have 1 to 200 characters"),
    ("idempotency_key", {"idempotency_key": "k" * 201}, "idempotency_key must have 1 to 200 characters"),
    ("environment", {"environment": "prod"}, 'environment must be "test" or "live"'),
]


def test_every_limit_is_named_before_anything_happens(shop):
    wrong = []
    for argument, arguments, message in LIMITS:
        code = "unknown_environment" if argument == "environment" else "invalid_argument"
        with refused("22023", code, argument=argument) as refusal:
            shop.checkout("alice", **arguments)
        if refusal.message != message:
            wrong.append((refusal.message, message))
    assert wrong == []
    assert shop.sessions() == []
    assert shop.stripe.control.requests() == []


def test_hints_say_what_to_do(shop):
    for arguments, hint in [
        ({"success_url": "/thanks"}, "For example https://shop.example/thanks?session={CHECKOUT_SESSION_ID}."),
        ({"metadata": {"payments_x": "1"}}, "Keys that start with payments_ are set by this extension."),
        ({"subject": {"type": "user", "ident": "1"}}, "It can have type, id."),
    ]:
        with refused("22023", "invalid_argument") as refusal:
            shop.checkout("alice", **arguments)
        assert refusal.hint == hint


def test_limits_themselves_are_allowed(shop):
    row = shop.checkout(
        "alice",
        line_items=[{"stripe_price_id": shop.shirt, "quantity": 999}],
        metadata={f"key_{n:02}".ljust(40, "k"): "v" * 500 for n in range(40)},
        idempotency_key="k" * 200,
    )
    assert row.status == "open"
    assert len(shop.asked()[0]["params"]["metadata"]) <= 50


def test_a_hundred_prices_can_be_bought_at_once(shop):
    row = shop.checkout("alice", line_items=[{"stripe_price_id": shop.shirt}] * 100)
    assert len(shop.asked()[0]["params"]["line_items"]) == len(row.line_items) == 100


def prices(shop, count, **options):
    return [{"stripe_price_id": shop.stripe.control.price(500, **options)["id"]} for _ in range(count)]


@pytest.mark.parametrize("interval, kind", [("month", "recurring"), (None, "one-time")])
def test_a_subscription_takes_twenty_prices_of_a_kind(shop, interval, kind):
    plan = [{"stripe_price_id": shop.plan}] if interval is None else []
    items = prices(shop, 21, interval=interval)
    with refused("22023", "invalid_argument", argument="line_items") as refusal:
        shop.checkout("alice", mode="subscription", line_items=plan + items)
    assert refusal.message == f"line_items of a subscription can have at most 20 {kind} prices"
    assert shop.checkout("alice", mode="subscription", line_items=plan + items[:20]).status == "open"


def test_mode_and_prices_must_go_together(shop):
    for arguments, message in [
        (
            {"line_items": [{"stripe_price_id": shop.plan}]},
            "line_items[0] is a recurring price, which cannot be paid once",
        ),
        (
            {"mode": "subscription", "line_items": [{"stripe_price_id": shop.shirt}]},
            "line_items of a subscription need a recurring price",
        ),
    ]:
        with refused("22023", "invalid_argument", argument="line_items") as refusal:
            shop.checkout("alice", **arguments)
        assert refusal.message == message
    assert shop.asked() == []


def test_a_quantity_is_one_unless_said_and_never_sent_for_metered_prices(shop):
    metered = shop.stripe.control.call(
        "POST",
        "/v1/prices",
        {
            "currency": "usd",
            "unit_amount": 5,
            "product_data": {"name": "Calls"},
            "recurring": {"interval": "month", "usage_type": "metered", "meter": "mtr_calls"},
        },
    )["id"]
    row = shop.checkout(
        "alice", mode="subscription", line_items=[{"stripe_price_id": metered}, {"stripe_price_id": shop.plan}]
    )
    [asked] = shop.asked()
    assert row.status == "open"
    assert asked["params"]["line_items"] == [{"price": metered}, {"price": shop.plan, "quantity": "1"}]
    with refused("22023", "invalid_argument", argument="line_items") as refusal:
        shop.checkout("alice", mode="subscription", line_items=[{"stripe_price_id": metered, "quantity": 2}])
    assert refusal.message == "line_items[0] is billed by usage and cannot have a quantity"


def test_a_lookup_key_that_only_stripe_knows_is_looked_up_once(shop):
    subscribe = {"mode": "subscription", "line_items": [{"lookup_key": "pro_monthly"}]}
    first = shop.checkout("alice", **subscribe)
    assert shop.asked()[0]["params"]["line_items"] == [{"price": shop.plan, "quantity": "1"}]
    assert first.line_items == [{"lookup_key": "pro_monthly", "quantity": 1}]
    shop.checkout("alice", **subscribe)
    assert len(shop.asked("/v1/prices", "GET")) == 1


def test_a_lookup_key_that_is_known_here_is_not_looked_up(shop):
    shop.deliver("price.*")
    shop.checkout("alice", mode="subscription", line_items=[{"lookup_key": "pro_monthly"}])
    assert shop.asked("/v1/prices*", "GET") == []
    assert shop.asked()[0]["params"]["line_items"] == [{"price": shop.plan, "quantity": "1"}]


def test_a_lookup_key_follows_the_price_that_has_it_now(shop):
    shop.deliver("price.*")
    newer = shop.stripe.control.call(
        "POST",
        "/v1/prices",
        {
            "currency": "usd",
            "unit_amount": 1200,
            "product_data": {"name": "Pro"},
            "recurring": {"interval": "month"},
            "lookup_key": "pro_monthly",
            "transfer_lookup_key": True,
        },
    )["id"]
    shop.deliver("price.*")
    shop.checkout("alice", mode="subscription", line_items=[{"lookup_key": "pro_monthly"}])
    assert shop.asked()[0]["params"]["line_items"][0]["price"] == newer


@pytest.mark.parametrize("named", [{"lookup_key": "gone"}, {"stripe_price_id": "price_gone"}])
def test_a_price_that_is_nowhere_is_named(shop, named):
    with refused("22023", "invalid_argument", argument="line_items") as refusal:
        shop.checkout("alice", line_items=[{"stripe_price_id": shop.shirt}, named])
    [name] = named.values()
    assert refusal.message == f"line_items[1] names a price that does not exist: {name}"
    assert refusal.hint.startswith("Prices differ between test and live")
    assert shop.asked() == []
    assert shop.sessions() == []


def test_a_price_that_was_archived_is_refused_by_stripe(shop):
    shop.deliver("price.*")
    shop.stripe.control.update(shop.shirt, {"active": False})
    with refused("PT400", "stripe_refused", param="line_items[0][price]"):
        shop.checkout("alice")
    assert shop.sessions() == []


def test_metadata_goes_to_the_session_and_to_the_payment(shop):
    row = shop.checkout("alice", metadata={"order_id": "7", "größe": "L"}, idempotency_key="order:7")
    session = shop.stripe.control.get(row.stripe_checkout_session_id)
    ours = {name: value for name, value in session["metadata"].items() if name.startswith("payments_")}
    assert set(ours) == RESERVED | {"payments_idempotency_key"}
    assert ours["payments_checkout_session_id"] == str(row.id) == session["client_reference_id"]
    assert {name: session["metadata"][name] for name in ("order_id", "größe")} == {"order_id": "7", "größe": "L"}
    shop.stripe.control.complete(session["id"])
    intent = shop.stripe.control.get(shop.stripe.control.get(session["id"])["payment_intent"])
    assert intent["metadata"] == session["metadata"]


def test_metadata_goes_to_the_session_and_to_the_subscription(shop):
    row = shop.checkout("alice", mode="subscription", metadata={"seats": "3"})
    shop.stripe.control.complete(row.stripe_checkout_session_id)
    session = shop.stripe.control.get(row.stripe_checkout_session_id)
    assert session["metadata"]["seats"] == "3"
    assert shop.stripe.control.get(session["subscription"])["metadata"] == session["metadata"]


def test_stripe_gets_the_literal_placeholder(shop):
    shop.checkout("alice")
    [asked] = shop.asked()
    assert asked["params"]["success_url"] == "https://shop.example/thanks?session={CHECKOUT_SESSION_ID}"


def test_the_email_is_the_customers_and_is_sent_once(shop):
    shop.checkout("alice", customer_email=" alice@example.com ")
    [customer] = shop.asked("/v1/customers")
    [session] = shop.asked()
    assert customer["params"]["email"] == "alice@example.com"
    assert customer["params"]["metadata"] == {"payments_subject_type": "user", "payments_subject_id": "alice"}
    assert "customer_email" not in session["params"]


def test_an_existing_customer_is_used_again(shop):
    first = shop.checkout("alice")
    second = shop.checkout("alice", customer_email="other@example.com")
    assert first.stripe_customer_id == second.stripe_customer_id
    shop.stripe.control.complete(first.stripe_checkout_session_id)
    shop.deliver()
    assert shop.checkout("alice").stripe_customer_id == first.stripe_customer_id
    assert len(shop.asked("/v1/customers")) == 1


def test_a_deleted_customer_is_replaced(shop):
    first = shop.buy("alice")
    shop.stripe.control.delete(first.stripe_customer_id)
    shop.deliver()
    second = shop.checkout("alice")
    assert second.status == "open"
    assert second.stripe_customer_id != first.stripe_customer_id


@pytest.mark.parametrize("keyed", [{}, {"idempotency_key": "order:8"}])
def test_a_customer_whose_deletion_nobody_told_is_replaced_in_the_same_call(shop, keyed):
    first = shop.buy("alice")
    shop.stripe.control.delete(first.stripe_customer_id)
    second = shop.checkout("alice", **keyed)
    assert second.status == "open"
    assert second.stripe_customer_id not in (None, first.stripe_customer_id)
    assert shop.db.value(
        "select deleted from payments.customers where stripe_customer_id = %s", (first.stripe_customer_id,)
    )


def test_a_customer_deleted_before_anything_was_bought_is_replaced(shop):
    first = shop.checkout("alice")
    shop.stripe.control.delete(first.stripe_customer_id)
    second = shop.checkout("alice")
    assert second.status == "open"
    assert second.stripe_customer_id not in (None, first.stripe_customer_id)


def test_customers_deleted_again_and_again_are_replaced(shop):
    customers = set()
    for _ in range(6):
        row = shop.checkout("alice")
        customers.add(row.stripe_customer_id)
        shop.stripe.control.delete(row.stripe_customer_id)
    assert len(customers) == 6


def test_a_customer_is_made_after_any_number_of_stored_failures(shop):
    shop.stripe.control.fault("server_error", path="/v1/customers", stored=True, times=40)
    for _ in range(5):
        with refused("PT502", "stripe_failed"):
            shop.checkout("alice")
    shop.stripe.control.clear_faults()
    assert shop.checkout("alice").status == "open"


def test_two_first_checkouts_at_once_make_one_customer(shop):
    shop.stripe.control.fault("delay", path="/v1/customers", after=0.3)
    both = [Task(lambda: shop.checkout("alice")) for _ in range(2)]
    first, second = (task.result() for task in both)
    assert first.stripe_customer_id == second.stripe_customer_id
    assert first.id != second.id
    assert len(shop.asked("/v1/customers")) == 1


def test_one_statement_and_one_transaction_may_make_several(shop):
    with shop.db.request("alice") as connection:
        rows = connection.execute(
            """
            select session.*
            from generate_series(1, 2) as number
            cross join lateral payments.create_checkout_session(
                mode => 'payment',
                line_items => jsonb_build_array(jsonb_build_object('stripe_price_id', %s::text)),
                success_url => 'https://shop.example/',
                cancel_url => 'https://shop.example/',
                subject => '{"type": "user", "id": "alice"}',
                idempotency_key => 'order:' || number) as session
            """,
            (shop.shirt,),
        ).fetchall()
        rows.append(shop.checkout(connection, subject={"type": "user", "id": "alice"}))
    assert {row.status for row in rows} == {"open"}
    assert len({row.stripe_customer_id for row in rows}) == 1
    assert len(shop.sessions()) == 3


def test_on_a_pooled_connection_every_caller_has_their_own_rights(shop):
    connection = shop.db.connect(user="authenticator", autocommit=False)

    def become(role, sub=None):
        connection.execute("select set_config('role', %s, true)", (role,))
        connection.execute("select set_config('request.jwt.claims', %s, true)", (json.dumps({"sub": sub}),))

    for _ in range(7):  # A plan may be kept from the sixth execution on.
        with connection.transaction():
            become("authenticated", "alice")
            assert shop.checkout(connection, subject={"type": "user", "id": "alice"}).requested_by == "alice"
        with connection.transaction():
            become("anon")
            assert shop.checkout(connection).requested_by == "anon"
        with refused("42501"), connection.transaction():
            become("anon")
            shop.checkout(connection, subject={"type": "user", "id": "alice"})
        with refused("42501"), connection.transaction():
            become("authenticated", "mallory")
            shop.checkout(connection, subject={"type": "user", "id": "alice"})
    assert len(shop.sessions()) == 14


def test_a_first_checkout_that_rolls_back_leaves_its_customer_to_the_next(shop):
    with shop.db.connect("authenticated", autocommit=False) as first, shop.db.connect("authenticated") as second:
        for connection in (first, second):
            connection.execute("select set_config('request.jwt.claims', %s, false)", (json.dumps({"sub": "alice"}),))
        subject = {"type": "user", "id": "alice"}
        lost = shop.checkout(first, subject=subject)
        waiting = Task(lambda: shop.checkout(second, subject=subject))
        assert waits_for_a_lock(shop.db, second.info.backend_pid)
        first.rollback()
        assert waiting.result().stripe_customer_id == lost.stripe_customer_id


def test_the_row_comes_back_whole_and_can_be_read_by_name(shop):
    with shop.db.request("alice") as connection:
        row = shop.checkout(connection, subject={"type": "user", "id": "alice"})
    columns = shop.db.execute(
        """
        select attname from pg_attribute
        where attrelid = 'payments.checkout_session'::regclass and attnum > 0
        order by attnum
        """
    ).fetchall()
    assert row._fields == tuple(column.attname for column in columns)
    assert isinstance(row.id, uuid.UUID)


def test_json_may_be_spelt_as_in_javascript(shop):
    shop.checkout("alice", line_items=[{"stripePriceId": shop.shirt, "quantity": 2}])
    shop.checkout("alice", mode="subscription", line_items=[{"lookupKey": "pro_monthly"}])
    shirts, plan = shop.asked()
    assert shirts["params"]["line_items"] == [{"price": shop.shirt, "quantity": "2"}]
    assert plan["params"]["line_items"] == [{"price": shop.plan, "quantity": "1"}]


def test_both_spellings_are_one_request(shop):
    one = shop.checkout("alice", line_items=[{"stripePriceId": shop.shirt}], idempotency_key="a")
    other = shop.checkout("alice", line_items=[{"stripe_price_id": shop.shirt, "quantity": 1}], idempotency_key="a")
    assert one.id == other.id


def test_without_an_environment_it_is_the_open_one(shop):
    assert shop.checkout("alice").environment == "test"
    assert shop.checkout("alice", environment=None).environment == "test"
    assert shop.checkout("alice", environment="test").environment == "test"


def test_a_closed_environment_is_refused(shop):
    with refused("42501", "environment_closed", environment="live") as refusal:
        shop.checkout("alice", environment="live")
    assert refusal.hint == "Leave the environment out to use the one that is open."
    shop.db.execute("select payments.open_to_apps(null)")
    for environment in (None, "test"):
        with refused("42501", "environment_closed"):
            shop.checkout("alice", environment=environment)
    assert shop.stripe.control.requests() == []


def test_what_no_policy_allows_stripe_never_hears_of(shop):
    with refused("42501") as refusal:
        shop.checkout("mallory", subject={"type": "user", "id": "alice"})
    assert refusal.message == 'new row violates row-level security policy for table "checkout_sessions"'
    with refused("42501"):
        shop.checkout(subject={"type": "user", "id": "alice"})
    assert shop.stripe.control.requests() == []
    assert shop.sessions() == []


def test_another_users_session_cannot_be_had_by_its_key(shop):
    shop.checkout("alice", idempotency_key="order:7")
    shop.stripe.control.clear_requests()
    with refused("42501"):
        shop.checkout("mallory", subject={"type": "user", "id": "alice"}, idempotency_key="order:7")
    assert shop.stripe.control.requests() == []


def test_who_was_granted_nothing_can_call_nothing(shop):
    with refused("42501"):
        with shop.db.request("alice", role="service_role") as connection:
            shop.checkout(connection)


def test_an_insert_policy_is_all_it_takes_also_for_a_retry(shop):
    assert not shop.db.value("select has_table_privilege('authenticated', 'payments.checkout_sessions', 'select')")
    assert not shop.db.value("select has_any_column_privilege('authenticated', 'payments.checkout_sessions', 'select')")
    first = shop.checkout("alice", idempotency_key="order:7")
    again = shop.checkout("alice", idempotency_key="order:7")
    assert again == first


def test_a_direct_insert_is_refused(shop):
    with refused("42501", "direct_insert") as refusal:
        with shop.db.request("alice") as connection:
            connection.execute(
                "insert into payments.checkout_sessions (id, environment, mode, subject_type, subject_id) "
                "values (gen_random_uuid(), 'test', 'payment', 'user', 'alice')"
            )
    assert refusal.hint == "Call payments.create_checkout_session() instead."


@pytest.mark.parametrize("column", ["status", "url", "stripe_checkout_session_id", "payment_status", "created_at"])
def test_no_answer_can_be_forged(shop, column):
    with refused("42501"):
        with shop.db.request("alice") as connection:
            connection.execute(f"insert into payments.checkout_sessions ({column}) values (default)")


def test_a_trigger_cannot_let_a_second_row_in(shop):
    shop.db.execute(
        """
        create function public.sneak() returns trigger language plpgsql as $$
        begin
            insert into payments.checkout_sessions (id, environment, mode, subject_type, subject_id, idempotency_key)
            values (gen_random_uuid(), 'test', 'payment', 'user', new.subject_id, 'squatted');
            return null;
        end $$;
        create trigger sneak after insert on payments.checkout_sessions
            for each row when (new.idempotency_key is null) execute function public.sneak();
        """
    )
    with refused("42501", "direct_insert"):
        shop.checkout("alice")
    assert shop.sessions() == []


def test_forced_row_level_security_holds_up_the_caller_alone(shop):
    for table in ("checkout_sessions", "customers", "stripe_objects", "stripe_connections", "customer_mappings"):
        shop.db.execute(f"alter table payments.{table} force row level security")
    first = shop.checkout("alice", idempotency_key="order:7")
    assert first.status == "open"
    shop.stripe.control.complete(first.stripe_checkout_session_id)
    assert {receipt.status for receipt in shop.deliver()} <= {"processed", "ignored"}
    assert shop.checkout("alice", idempotency_key="order:7").status == "completed"
    with refused("42501"):
        shop.checkout("mallory", subject={"type": "user", "id": "alice"})


def test_users_columns_and_triggers_on_the_table_work(shop):
    shop.db.execute(
        """
        alter table payments.checkout_sessions add column tenant text default 'acme', add column note text;
        create table public.audit (row_id uuid, status text, ran_as name, source text);
        grant insert on public.audit to authenticated;
        create function public.audited() returns trigger language plpgsql as $$
        begin
            insert into public.audit
            values (new.id, new.status, current_user, current_setting('payments.source', true));
            return null;
        end $$;
        create trigger audited after insert or update on payments.checkout_sessions
            for each row execute function public.audited();
        create function public.noted() returns trigger language plpgsql as $$
        begin
            new.note := 'seen';
            return new;
        end $$;
        create trigger noted before insert on payments.checkout_sessions
            for each row execute function public.noted();
        grant insert on public.audit to payments_owner;
        """
    )
    row = shop.checkout("alice", idempotency_key="order:7")
    assert row.status == "open"
    assert shop.checkout("alice", idempotency_key="order:7") == row
    [stored] = shop.sessions()
    assert (stored.tenant, stored.note) == ("acme", "seen")
    audit = shop.db.execute("select status, ran_as, source from public.audit").fetchall()
    assert audit == [("initialized", "authenticated", ""), ("open", "payments_owner", "api")]


def test_what_a_users_trigger_raises_arrives_whole(shop):
    shop.db.execute(
        """
        create function public.refuse() returns trigger language plpgsql as $$
        begin
            raise exception 'no stock' using errcode = 'PT409', detail = 'shirts: 0', hint = 'come again';
        end $$;
        create trigger refuse before insert on payments.checkout_sessions
            for each row execute function public.refuse();
        """
    )
    with pytest.raises(psycopg.Error) as caught:
        shop.checkout("alice")
    diag = caught.value.diag
    assert (diag.sqlstate, diag.message_primary, diag.message_detail, diag.message_hint) == (
        "PT409",
        "no stock",
        "shirts: 0",
        "come again",
    )
    assert "public.refuse()" in diag.context or "refuse()" in diag.context
    assert shop.stripe.control.requests() == []


def test_a_row_that_a_trigger_skips_is_told(shop):
    shop.db.execute(
        """
        create function public.skip() returns trigger language plpgsql as $$ begin return null; end $$;
        create trigger skip before insert on payments.checkout_sessions
            for each row execute function public.skip();
        """
    )
    with refused("55000", "row_skipped"):
        shop.checkout("alice")
    assert shop.stripe.control.requests() == []


def test_a_row_that_a_unique_index_of_the_app_keeps_out_is_told(shop):
    shop.db.execute(
        """
        create unique index one_at_a_time on payments.checkout_sessions (subject_id)
        where status in ('initialized', 'open')
        """
    )
    shop.checkout("alice")
    shop.stripe.control.clear_requests()
    with refused("55000", "row_skipped"):
        shop.checkout("alice")
    assert shop.stripe.control.requests() == []


def record(connection):
    connection.execute("set local payments.on_stripe_error = 'record'")
    return connection


def test_recording_keeps_a_failed_row_and_tells_the_gateway(shop):
    shop.stripe.control.fault("rate_limit", path="/v1/checkout/sessions")
    with shop.db.request("alice") as connection:
        row = shop.checkout(record(connection), subject={"type": "user", "id": "alice"})
        status = connection.execute("select current_setting('response.status')").fetchone()[0]
    [kept] = shop.sessions()
    assert kept == row
    assert (row.status, row.url, status) == ("failed", None, "429")
    assert row.last_error.startswith("Stripe limits the rate of requests")


def test_recording_works_through_a_gateway(shop):
    shop.db.execute("create schema api; grant usage on schema api to authenticated; select payments.expose('api')")
    shop.stripe.control.fault("server_error", path="/v1/checkout/sessions", should_retry=False)
    with shop.db.request("alice") as connection:
        row = (
            record(connection)
            .execute(
                """
            select * from api.create_checkout_session(
                mode => 'payment',
                line_items => jsonb_build_array(jsonb_build_object('stripe_price_id', %s::text)),
                success_url => 'https://shop.example/',
                cancel_url => 'https://shop.example/',
                subject => '{"type": "user", "id": "alice"}')
            """,
                (shop.shirt,),
            )
            .fetchone()
        )
        status = connection.execute("select current_setting('response.status')").fetchone()[0]
    assert (row.status, status) == ("failed", "502")


def test_recording_does_not_hide_what_is_not_stripes_fault(shop):
    with refused("22023", "invalid_argument"):
        with shop.db.request("alice") as connection:
            shop.checkout(record(connection), mode="setup")
    with refused("42501"):
        with shop.db.request("mallory") as connection:
            shop.checkout(record(connection), subject={"type": "user", "id": "alice"})
    shop.db.execute("select payments.remove_stripe_key('test')")
    shop.db.execute("select payments.open_to_apps('test')")
    with refused("55000", "not_configured"):
        with shop.db.request("alice") as connection:
            shop.checkout(record(connection), subject={"type": "user", "id": "alice"})
    assert shop.sessions() == []


def test_without_recording_a_failure_leaves_nothing(shop):
    shop.stripe.control.fault("rate_limit", path="/v1/checkout/sessions")
    with refused("PT429", "rate_limited"):
        shop.checkout("alice")
    assert shop.sessions() == []


def test_without_a_key_the_error_says_how_to_set_one(shop):
    shop.db.execute("select payments.remove_stripe_key('test')")
    shop.db.execute("select payments.open_to_apps('test')")
    with refused("55000", "not_configured", environment="test") as refusal:
        shop.checkout("alice")
    assert "payments.set_stripe_key('test'" in refusal.hint


def test_an_administrator_may_name_either_environment(shop):
    shop.db.execute("select payments.grant_admin('service_role')")
    shop.db.execute("select payments.grant_app('service_role')")
    shop.db.execute("select payments.set_stripe_key('live', %s)", (shop.stripe.live_key,))
    live = shop.stripe.control.price(1900, livemode=True)["id"]
    shop.db.execute("create policy admins on payments.checkout_sessions for insert to service_role with check (true)")
    with shop.db.request("ops", role="service_role") as connection:
        row = shop.checkout(connection, environment="live", line_items=[{"stripe_price_id": live}])
    assert (row.environment, row.status) == ("live", "open")
    assert shop.asked()[0]["key"] == shop.stripe.live_key
