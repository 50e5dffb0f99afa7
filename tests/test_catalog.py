"""Products and prices: changed at Stripe, and read back in the same breath."""

from __future__ import annotations

import json

import psycopg
import pytest


def raised(error: psycopg.Error) -> tuple[str, str]:
    """The SQLSTATE, and the code in the DETAIL."""
    return error.sqlstate, json.loads(error.diag.message_detail)["code"]


class Shop:
    """A database that is connected to the fake, and calls its functions by name."""

    def __init__(self, db, stripe) -> None:
        self.db, self.stripe, self.control = db, stripe, stripe.control
        db.execute("select payments.set_stripe_key('test', %s)", (stripe.test_key,))
        self.control.clear_requests()

    def __getattr__(self, function: str):
        def call(connection=None, **arguments):
            arguments = {"environment": "test", **arguments}
            given = ", ".join(f"{name} => %({name})s" for name in arguments)
            values = {
                name: json.dumps(value) if isinstance(value, (dict, list)) else value
                for name, value in arguments.items()
            }
            run = (connection or self.db).execute
            return run(f"select * from payments.{function}({given})", values).fetchone()

        return call

    def refusal(self, function: str, **arguments) -> tuple[str, str]:
        with pytest.raises(psycopg.Error) as refused:
            getattr(self, function)(**arguments)
        return raised(refused.value)

    def sent(self, path: str, method: str = "POST") -> list[dict]:
        return self.control.requests(path=path, method=method)


@pytest.fixture
def shop(db, stripe) -> Shop:
    return Shop(db, stripe)


@pytest.fixture
def product(shop):
    return shop.create_product(name="Tea")


@pytest.fixture
def price(shop, product):
    return shop.create_price(
        stripe_product_id=product.stripe_product_id, currency="usd", unit_amount=900, recurring_interval="month"
    )


# Creating


def test_a_new_product_is_read_back(shop):
    row = shop.create_product(name="Tea", description="Green", active=False, metadata={"shelf": "4"})
    assert (row.environment, row.name, row.description, row.active) == ("test", "Tea", "Green", False)
    assert (row.metadata, row.deleted) == ({"shelf": "4"}, False)
    assert shop.db.execute("select * from payments.products").fetchone() == row


def test_a_new_price_is_read_back(shop, product):
    row = shop.create_price(
        stripe_product_id=product.stripe_product_id,
        currency="EUR",
        unit_amount=2400,
        recurring_interval="month",
        recurring_interval_count=3,
        lookup_key="pro",
        active=True,
        tax_behavior="inclusive",
        metadata={"tier": "1"},
    )
    assert (row.stripe_product_id, row.currency, row.unit_amount) == (product.stripe_product_id, "eur", 2400)
    assert (row.type, row.recurring_interval, row.recurring_interval_count) == ("recurring", "month", 3)
    assert (row.lookup_key, row.active, row.tax_behavior, row.metadata) == ("pro", True, "inclusive", {"tier": "1"})
    assert shop.db.execute("select * from payments.prices").fetchone() == row


def test_further_parameters_of_stripes_go_along(shop):
    row = shop.create_product(
        name="Tea",
        params={"id": "tea", "default_price_data": {"currency": "usd", "unit_amount": 500}},
    )
    assert row.stripe_product_id == "tea"
    default = shop.db.execute("select * from payments.prices").fetchone()
    assert (default.stripe_price_id, default.unit_amount) == (row.default_price_id, 500)
    metered = shop.create_price(
        stripe_product_id="tea",
        currency="usd",
        unit_amount=None,
        recurring_interval="day",
        params={"unit_amount_decimal": "0.5", "recurring": {"usage_type": "metered", "meter": "mtr_1"}},
    )
    assert (metered.unit_amount, metered.unit_amount_decimal) == (None, "0.5")
    assert (metered.recurring_interval, metered.recurring_usage_type) == ("day", "metered")


@pytest.mark.parametrize(
    ("function", "arguments"),
    [
        ("create_product", {"name": ""}),
        ("create_product", {"name": None}),
        ("create_product", {"name": "Tea", "metadata": {"payments_x": "1"}}),
        ("create_product", {"name": "Tea", "params": {"name": "Coffee"}}),
        ("create_product", {"name": "Tea", "params": {"metadata": {"payments_x": "1"}}}),
        ("create_product", {"name": "Tea", "environment": "prod"}),
        ("create_price", {"stripe_product_id": "../x", "currency": "usd", "unit_amount": 1}),
        ("create_price", {"stripe_product_id": "prod_1", "currency": "dollars", "unit_amount": 1}),
        ("create_price", {"stripe_product_id": "prod_1", "currency": "usd", "unit_amount": -1}),
        ("create_price", {"stripe_product_id": "prod_1", "currency": "usd", "unit_amount": 1, "params": {"product": "x"}}),
        ("update_product", {"stripe_product_id": "prod_1", "changes": {}}),
        ("update_product", {"stripe_product_id": "prod_1", "changes": None}),
        ("update_product", {"stripe_product_id": "prod_1", "changes": {"metadata": {"payments_x": None}}}),
        ("update_price", {"stripe_price_id": "prod_1", "changes": {"active": False}}),
        ("archive_price", {"stripe_price_id": None}),
        ("delete_product", {"stripe_product_id": "a/b"}),
    ],
)
def test_bad_arguments_are_refused_before_stripe_is_asked(shop, function, arguments):
    assert shop.refusal(function, **arguments)[0] == "22023"
    assert shop.control.requests() == []


# Idempotency and failure


def test_a_key_makes_one_product(shop):
    first = shop.create_product(name="Tea", idempotency_key="a")
    again = shop.create_product(name="Tea", idempotency_key="a")
    other = shop.create_product(name="Tea", idempotency_key="b")
    assert first.stripe_product_id == again.stripe_product_id != other.stripe_product_id
    assert shop.refusal("create_product", name="Coffee", idempotency_key="a") == ("23505", "key_reused")


def test_a_key_is_one_functions_own(shop):
    product = shop.create_product(name="Tea", idempotency_key="a")
    given = {"stripe_product_id": product.stripe_product_id, "currency": "usd", "unit_amount": 1, "idempotency_key": "a"}
    assert shop.create_price(**given) == shop.create_price(**given)
    assert shop.db.value("select count(*) from payments.prices") == 1


def test_a_repeated_answer_does_not_undo_what_came_after(shop):
    product = shop.create_product(name="Tea", idempotency_key="a")
    shop.update_product(stripe_product_id=product.stripe_product_id, changes={"name": "Green tea"})
    again = shop.create_product(name="Tea", idempotency_key="a")
    assert again.name == "Green tea"
    assert shop.sent("/v1/products")[-1]["replayed"]


def test_what_was_rolled_back_is_found_again(shop):
    with shop.db.connect() as connection, pytest.raises(ZeroDivisionError), connection.transaction():
        made = shop.create_product(connection, name="Tea", idempotency_key="a")
        raise ZeroDivisionError
    assert shop.db.value("select count(*) from payments.products") == 0
    assert shop.create_product(name="Tea", idempotency_key="a").stripe_product_id == made.stripe_product_id


@pytest.mark.parametrize("fault", ["drop", "half", "server_error", "rate_limit"])
def test_a_passing_failure_is_not_seen(shop, fault):
    options = {"retry_after": 0} if fault == "rate_limit" else {}
    shop.control.fault(fault, method="POST", path="/v1/products", **options)
    shop.create_product(name="Tea")
    assert len({request["idempotency_key"] for request in shop.sent("/v1/products")}) == 1
    assert len(shop.control.events(types=["product.created"])) == 1


def test_a_failure_leaves_nothing(shop):
    shop.control.fault("server_error", path="/v1/products", times=None, should_retry=False)
    assert shop.refusal("create_product", name="Tea") == ("PT502", "stripe_failed")
    shop.control.clear_faults()
    shop.control.fault("rate_limit", path="/v1/products", times=None, should_retry=False)
    assert shop.refusal("create_product", name="Tea") == ("PT429", "rate_limited")
    assert shop.db.value("select count(*) from payments.stripe_objects") == 0


def test_what_stripe_refuses_is_told(shop):
    arguments = {"stripe_product_id": "prod_unknown", "currency": "usd", "unit_amount": 1}
    assert shop.refusal("create_price", **arguments) == ("PT400", "stripe_refused")


def test_a_permission_that_the_key_lacks_is_named(shop):
    key = shop.stripe.test_key.replace("sk_", "rk_")
    readable = ["product_read", "plan_read", "accounts_kyc_basic_read"]
    shop.control.add_key(key, permissions=readable)
    shop.db.execute("select payments.set_stripe_key('test', %s)", (key,))
    with pytest.raises(psycopg.Error) as refused:
        shop.create_product(name="Tea")
    assert raised(refused.value) == ("55000", "permission_missing")
    assert json.loads(refused.value.diag.message_detail)["missing_permissions"] == ["rak_product_write"]


# Changing


def test_changes_are_read_back_in_the_same_second(shop, product):
    shop.control.clock(freeze=True)
    shop.db.execute("select payments.set_webhook_secret('test', %s)", (shop.stripe.webhook_secret,))
    for name in ("Green", "Black", "White", "Green"):
        row = shop.update_product(stripe_product_id=product.stripe_product_id, changes={"name": name})
        assert row.name == name
        # The events of what was done come behind, all of one second.
        for delivery in shop.control.deliveries():
            shop.db.execute("select payments.handle_webhook('test', %(body)s, %(signature)s)", delivery)
        assert shop.db.value("select name from payments.products") == name


def test_null_clears(shop, product, price):
    id = product.stripe_product_id
    shop.update_product(stripe_product_id=id, changes={"description": "Green", "metadata": {"a": "1", "b": "2"}})
    row = shop.update_product(stripe_product_id=id, changes={"description": None, "metadata": {"a": None}})
    assert (row.description, row.metadata) == (None, {"b": "2"})

    id = price.stripe_price_id
    assert shop.update_price(stripe_price_id=id, changes={"lookupKey": "pro"}).lookup_key == "pro"
    assert shop.update_price(stripe_price_id=id, changes={"lookup_key": None}).lookup_key is None


def test_a_price_is_changed_and_archived(shop, price):
    changed = shop.update_price(
        stripe_price_id=price.stripe_price_id,
        changes={"active": True, "tax_behavior": "exclusive", "metadata": {"tier": "2"}, "nickname": "n"},
    )
    assert (changed.tax_behavior, changed.metadata, changed.active) == ("exclusive", {"tier": "2"}, True)
    assert shop.archive_price(stripe_price_id=price.stripe_price_id).active is False
    assert shop.archive_price(stripe_price_id=price.stripe_price_id).active is False


def test_a_products_default_price_stays_on_sale(shop, product, price):
    id = product.stripe_product_id
    shop.update_product(stripe_product_id=id, changes={"default_price": price.stripe_price_id})
    assert shop.refusal("archive_price", stripe_price_id=price.stripe_price_id) == ("PT400", "stripe_refused")
    other = shop.create_price(stripe_product_id=id, currency="usd", unit_amount=1)
    shop.update_product(stripe_product_id=id, changes={"defaultPrice": other.stripe_price_id})
    assert shop.archive_price(stripe_price_id=price.stripe_price_id).active is False


def test_a_lookup_key_moves(shop, product, price):
    old = shop.update_price(stripe_price_id=price.stripe_price_id, changes={"lookup_key": "pro"})
    arguments = {"stripe_product_id": product.stripe_product_id, "currency": "usd", "unit_amount": 1, "lookup_key": "pro"}
    assert shop.refusal("create_price", **arguments) == ("PT400", "stripe_refused")

    new = shop.create_price(**arguments, params={"transfer_lookup_key": True})

    holders = "select stripe_price_id from payments.prices where lookup_key = 'pro'"
    assert shop.db.execute(holders).fetchall() == [(new.stripe_price_id,)]
    shop.update_price(stripe_price_id=old.stripe_price_id, changes={"lookup_key": "pro", "transfer_lookup_key": True})
    assert shop.db.execute(holders).fetchall() == [(old.stripe_price_id,)]


@pytest.mark.parametrize(
    ("function", "arguments", "code"),
    [
        ("update_product", {"stripe_product_id": "prod_unknown", "changes": {"name": "x"}}, "no_such_product"),
        ("delete_product", {"stripe_product_id": "prod_unknown"}, "no_such_product"),
        ("update_price", {"stripe_price_id": "price_unknown", "changes": {"active": False}}, "no_such_price"),
        ("archive_price", {"stripe_price_id": "price_unknown"}, "no_such_price"),
    ],
)
def test_what_is_not_there_is_not_found(shop, function, arguments, code):
    assert shop.refusal(function, **arguments) == ("PT404", code)


def test_a_missing_reference_is_no_missing_product(shop, product):
    changes = {"default_price": "price_unknown"}
    refusal = shop.refusal("update_product", stripe_product_id=product.stripe_product_id, changes=changes)
    assert refusal == ("PT400", "stripe_refused")


# Deleting


def test_a_product_is_deleted_once(shop, product):
    row = shop.delete_product(stripe_product_id=product.stripe_product_id)
    assert (row.deleted, row.name) == (True, "Tea")
    assert shop.delete_product(stripe_product_id=product.stripe_product_id) == row


def test_a_lost_answer_to_a_deletion_is_no_failure(shop, product):
    shop.control.fault("drop", method="DELETE")
    assert shop.delete_product(stripe_product_id=product.stripe_product_id).deleted is True


def test_a_product_with_prices_is_archived_and_that_is_said(shop, product, price):
    connection = shop.db.connect()
    said = []
    connection.add_notice_handler(lambda notice: said.append(notice.message_primary))
    row = shop.delete_product(connection, stripe_product_id=product.stripe_product_id)
    assert (row.active, row.deleted) == (False, False)
    assert len(said) == 1 and "archived" in said[0] and "prices" in said[0]


def test_an_id_can_be_used_again(shop):
    shop.create_product(name="Tea", params={"id": "tea"})
    shop.delete_product(stripe_product_id="tea")
    shop.control.clock(advance=1)
    row = shop.create_product(name="Other tea", params={"id": "tea"})
    assert (row.name, row.deleted) == ("Other tea", False)


# The pricing page


def test_the_catalog_is_ready_for_a_pricing_page(shop):
    tea = shop.create_product(name="Tea", description="Green", metadata={"margin": "80%"}).stripe_product_id
    shop.create_product(name="Coffee")
    gone = shop.create_product(name="Cocoa").stripe_product_id
    shop.delete_product(stripe_product_id=gone)
    shop.create_product(name="Milk", active=False)
    monthly = shop.create_price(stripe_product_id=tea, currency="usd", unit_amount=900, recurring_interval="month")
    once = shop.create_price(stripe_product_id=tea, currency="usd", unit_amount=500, lookup_key="once")
    old = shop.create_price(stripe_product_id=tea, currency="usd", unit_amount=1)
    shop.archive_price(stripe_price_id=old.stripe_price_id)

    rows = shop.db.execute("select * from payments.catalog('test')").fetchall()

    assert [(row.name, row.description, len(row.prices)) for row in rows] == [("Coffee", None, 0), ("Tea", "Green", 2)]
    assert rows[1].prices == [
        {
            "stripe_price_id": once.stripe_price_id,
            "lookup_key": "once",
            "currency": "usd",
            "unit_amount": 500,
            "unit_amount_decimal": "500",
            "type": "one_time",
            "billing_scheme": "per_unit",
            "tax_behavior": "unspecified",
            "recurring_interval": None,
            "recurring_interval_count": None,
            "recurring_usage_type": None,
        },
        {
            "stripe_price_id": monthly.stripe_price_id,
            "lookup_key": None,
            "currency": "usd",
            "unit_amount": 900,
            "unit_amount_decimal": "900",
            "type": "recurring",
            "billing_scheme": "per_unit",
            "tax_behavior": "unspecified",
            "recurring_interval": "month",
            "recurring_interval_count": 1,
            "recurring_usage_type": "licensed",
        },
    ]
    assert "80%" not in str(rows)


def test_visitors_see_the_open_environment_alone(shop, product):
    db = shop.db
    db.execute("grant usage on schema payments to anon; grant execute on function payments.catalog(text) to anon")
    read = "select name from payments.catalog({})"

    def refused(environment: str) -> tuple[str, str]:
        with pytest.raises(psycopg.Error) as refusal, db.request(method="GET") as request:
            request.execute(read.format(environment))
        return raised(refusal.value)

    assert refused("") == refused("'test'") == ("42501", "environment_closed")
    db.execute("select payments.open_to_apps('test')")
    with db.request(method="GET") as request:
        request.execute("set transaction read only")
        assert request.execute(read.format("")).fetchall() == request.execute(read.format("'test'")).fetchall() == [("Tea",)]
    assert refused("'live'") == ("42501", "environment_closed")
    with pytest.raises(psycopg.errors.InsufficientPrivilege), db.request() as request:
        request.execute("select from payments.products")


def test_a_wrapper_serves_it_through_a_gateway(shop, price):
    shop.db.execute(
        """
        create schema api;
        grant usage on schema api, payments to anon;
        grant execute on function payments.catalog(text) to anon;
        create function api.catalog() returns setof payments.catalog_product
            language sql stable as 'select * from payments.catalog()';
        select payments.open_to_apps('test');
        """
    )
    with shop.db.request(method="GET") as request:
        (shown,) = request.execute("select * from api.catalog()")
    assert (shown.name, [price["unit_amount"] for price in shown.prices]) == ("Tea", [900])


def test_the_catalog_is_no_app_functions_by_default(shop):
    shop.db.execute("select payments.grant_app('anon')")
    for function in (
        "catalog(null)",
        "create_product('test', 'x')",
        "update_product('test', 'x', null)",
        "delete_product('test', 'x')",
        "create_price('test', 'x', 'usd', 1)",
        "update_price('test', 'x', null)",
        "archive_price('test', 'x')",
    ):
        with pytest.raises(psycopg.errors.InsufficientPrivilege, match="permission denied for function"):
            with shop.db.request() as request:
                request.execute(f"select payments.{function}")


def test_an_admin_needs_no_right_on_the_tables(shop):
    shop.db.execute("select payments.grant_admin('service_role')")
    with shop.db.request(role="service_role") as request:
        row = shop.create_product(request, name="Tea")
        assert shop.update_product(request, stripe_product_id=row.stripe_product_id, changes={"name": "T"}).name == "T"


def test_a_trigger_of_the_apps_sees_the_change_and_can_refuse_it(shop, product):
    shop.db.execute(
        """
        create function veto() returns trigger language plpgsql as
            $$ begin raise exception 'no %', current_setting('payments.source') using errcode = 'PT409'; end $$;
        create trigger veto before update on payments.products for each row execute function veto();
        """
    )
    with pytest.raises(psycopg.Error, match="no api") as refused:
        shop.update_product(stripe_product_id=product.stripe_product_id, changes={"name": "Green"})
    assert refused.value.sqlstate == "PT409"
    assert shop.db.value("select name from payments.products") == "Tea"


@pytest.mark.parametrize("level", ["repeatable read", "serializable"])
def test_other_isolation_levels_are_refused(shop, level):
    with shop.db.connect(autocommit=False) as connection:
        connection.execute(f"set transaction isolation level {level}")
        with pytest.raises(psycopg.Error) as refused:
            shop.create_product(connection, name="Tea")
        assert raised(refused.value) == ("25000", "wrong_transaction")
    assert shop.control.requests() == []
