"""Who has access, which environment apps get, and customers who are linked by hand."""

from __future__ import annotations

import json
import time

import psycopg
import pytest

from harness import database


def raised(error: psycopg.Error) -> tuple[str, dict]:
    """The SQLSTATE, and the DETAIL as the object it is."""
    return error.sqlstate, json.loads(error.diag.message_detail)


def subscribe(db, subscription: str, subject: tuple[str, str], status: str = "active", **options) -> None:
    """A subscription with one item, as the projections would write it."""
    given = {
        "environment": "test",
        "price": "price_1",
        "product": "prod_1",
        "lookup_key": "pro_monthly",
        "created_at": "2026-01-01",
        "ended_at": None,
        **options,
    }
    db.execute(
        """
        insert into payments.subscriptions
            (environment, stripe_subscription_id, status, subject_type, subject_id, created_at, ended_at)
        values (%s, %s, %s, %s, %s, %s, %s)
        """,
        (given["environment"], subscription, status, *subject, given["created_at"], given["ended_at"]),
    )
    db.execute(
        """
        insert into payments.subscription_items
            (environment, stripe_subscription_item_id, stripe_subscription_id, stripe_price_id, stripe_product_id,
             lookup_key)
        values (%s, %s, %s, %s, %s, %s)
        """,
        (
            given["environment"],
            subscription.replace("sub_", "si_"),
            subscription,
            given["price"],
            given["product"],
            given["lookup_key"],
        ),
    )


@pytest.fixture
def open_db(db):
    """A database whose test environment is open to apps."""
    # Not on the connection that the tests go on with: it would not hear where the fake Stripe is.
    with db.connect() as connection:
        connection.execute("select payments.open_to_apps('test')")
        connection.execute("select payments.grant_app('authenticated')")
    return db


def access(db, subject_type="user", subject_id="1", key="pro_monthly"):
    return db.value("select payments.has_access(%s, %s, %s)", (subject_type, subject_id, key))


# has_access


@pytest.mark.parametrize(
    ("status", "expected"),
    [
        ("active", True),
        ("trialing", True),
        ("past_due", True),
        ("incomplete", False),
        ("incomplete_expired", False),
        ("unpaid", False),
        ("paused", False),
        ("canceled", False),
        ("a_status_of_tomorrow", False),
    ],
)
def test_access_follows_the_status(open_db, status, expected):
    subscribe(open_db, "sub_1", ("user", "1"), status)
    assert access(open_db) is expected


@pytest.mark.parametrize("key", ["pro_monthly", "price_1", "prod_1"])
def test_a_lookup_key_a_price_or_a_product_says_what_for(open_db, key):
    subscribe(open_db, "sub_1", ("user", "1"))
    assert access(open_db, key=key) is True


def test_the_lookup_key_that_the_price_has_now_counts_too(open_db):
    subscribe(open_db, "sub_1", ("user", "1"), lookup_key=None)
    assert access(open_db) is False
    open_db.execute(
        "insert into payments.prices (environment, stripe_price_id, lookup_key) values ('test', 'price_1', 'pro_monthly')"
    )
    assert access(open_db) is True


def test_others_and_other_prices_have_none(open_db):
    subscribe(open_db, "sub_1", ("user", "1"))
    assert access(open_db, subject_id="2") is False
    assert access(open_db, subject_type="team") is False
    assert access(open_db, key="pro_yearly") is False


def test_the_open_environment_alone_counts(open_db):
    subscribe(open_db, "sub_1", ("user", "1"), environment="live")
    assert access(open_db) is False
    subscribe(open_db, "sub_2", ("user", "1"))
    assert access(open_db) is True
    open_db.execute("select payments.open_to_apps(null)")
    assert access(open_db) is False


@pytest.mark.parametrize("odd", [None, "", "'; drop table payments.subscriptions; --", "\N{PILE OF POO}", "x" * 100_000])
def test_odd_input_is_no_access_and_no_error(open_db, odd):
    subscribe(open_db, "sub_1", ("user", "1"))
    assert access(open_db, subject_type=odd) is False
    assert access(open_db, subject_id=odd) is False
    assert access(open_db, key=odd) is False


def test_a_policy_of_the_app_asks_without_rights_on_the_tables(open_db):
    open_db.execute(
        """
        create table public.posts (id int, author text);
        insert into public.posts values (1, '1'), (2, '2');
        alter table public.posts enable row level security;
        grant select on public.posts to authenticated;
        create policy members on public.posts for select to authenticated
            using (payments.has_access('user', author, 'pro_monthly'));
        """
    )
    subscribe(open_db, "sub_1", ("user", "1"))
    with open_db.request(sub="7") as connection:
        assert connection.execute("select id from public.posts").fetchall() == [(1,)]
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            with connection.transaction():
                connection.execute("select * from payments.subscriptions")


def test_a_function_of_the_callers_own_is_never_called(open_db):
    """A caller who puts an operator of its own first would otherwise run it as the owner of the tables."""
    subscribe(open_db, "sub_1", ("user", "1"))
    open_db.execute("create schema trap; grant usage, create on schema trap to authenticated")
    connection = open_db.connect("authenticated")
    connection.execute(
        """
        create function trap.equal(text, text) returns boolean language plpgsql
            as $$ begin raise exception 'ran as %', current_user; end $$;
        create operator trap.= (function = trap.equal, leftarg = text, rightarg = text);
        set search_path = trap, pg_catalog;
        """
    )
    assert connection.execute("select payments.has_access('user', '1', 'pro_monthly')").fetchone() == (True,)
    assert connection.execute("show search_path").fetchone() == ("trap, pg_catalog",)


def test_it_sees_what_the_statement_around_it_sees(open_db):
    """A policy must not let rows of one statement in by what happened while it ran."""
    connection = open_db.connect(autocommit=False)
    connection.execute("set transaction isolation level repeatable read")
    assert connection.execute("select payments.has_access('user', '1', 'pro_monthly')").fetchone() == (False,)
    subscribe(open_db, "sub_1", ("user", "1"))
    assert connection.execute("select payments.has_access('user', '1', 'pro_monthly')").fetchone() == (False,)
    connection.commit()
    assert connection.execute("select payments.has_access('user', '1', 'pro_monthly')").fetchone() == (True,)


@pytest.mark.parametrize("owner_is_held_up", [False, True])
def test_row_level_security_does_not_hold_up_the_owner(open_db, owner_is_held_up):
    force = "force" if owner_is_held_up else "no force"
    for table in ("subscriptions", "subscription_items", "stripe_connections", "prices"):
        open_db.execute(f"alter table payments.{table} {force} row level security")
    subscribe(open_db, "sub_1", ("user", "1"))
    connection = open_db.connect("authenticated")
    assert connection.execute("select payments.has_access('user', '1', 'pro_monthly')").fetchone() == (True,)


def test_it_works_in_a_read_only_transaction(open_db):
    subscribe(open_db, "sub_1", ("user", "1"))
    connection = open_db.connect("authenticated")
    connection.execute("set default_transaction_read_only = on")
    assert connection.execute("select payments.has_access('user', '1', 'pro_monthly')").fetchone() == (True,)
    assert open_db.value("select payments.has_access('user', '1', 'pro_monthly')") is True


def test_it_is_fast_over_a_million_rows(open_db):
    """Once a statement, and once a row, over a million subscriptions."""
    open_db.execute(
        """
        insert into payments.subscriptions (environment, stripe_subscription_id, status, subject_type, subject_id)
        select 'test', 'sub_' || n, 'active', 'user', n::text from generate_series(1, 1000000) as n
        """
    )
    open_db.execute(
        """
        insert into payments.subscription_items
            (environment, stripe_subscription_item_id, stripe_subscription_id, lookup_key)
        select 'test', 'si_' || n, 'sub_' || n, 'pro_monthly' from generate_series(1, 1000000) as n
        """
    )
    open_db.execute("analyze payments.subscriptions, payments.subscription_items")
    connection = open_db.connect("authenticated")
    ask = "select count(*) filter (where payments.has_access('user', n::text, 'pro_monthly')) from generate_series(%s::int, %s) as n"
    assert connection.execute(ask, (1, 1000)).fetchone() == (1000,)
    started = time.monotonic()
    assert connection.execute(ask, (500_001, 510_000)).fetchone() == (10_000,)
    each = (time.monotonic() - started) / 10_000
    print(f"has_access: {each * 1e6:.1f} µs a row")
    assert each < 0.001


def test_it_finds_by_index(open_db):
    """However the plan is kept: the first five are made for the values at hand, the next for any."""
    open_db.execute(
        """
        insert into payments.subscriptions (environment, stripe_subscription_id, status, subject_type, subject_id)
        select 'test', 'sub_' || n, 'active', 'user', n::text from generate_series(1, 20000) as n
        """
    )
    open_db.execute(
        """
        insert into payments.subscription_items
            (environment, stripe_subscription_item_id, stripe_subscription_id, stripe_price_id)
        select 'test', 'si_' || n, 'sub_' || n, 'price_' || n from generate_series(1, 20000) as n
        """
    )
    open_db.execute(
        """
        insert into payments.prices (environment, stripe_price_id, lookup_key, deleted)
        select 'test', 'price_' || n, 'plan_' || n, false from generate_series(1, 20000) as n
        """
    )
    open_db.execute("analyze payments.subscriptions, payments.subscription_items, payments.prices")

    def scans():
        open_db.execute("select pg_stat_force_next_flush()")
        return open_db.execute(
            """
            select coalesce(sum(seq_scan), 0)::int as all_of_it, coalesce(sum(idx_scan), 0)::int as by_index
              from pg_stat_user_tables
             where schemaname = 'payments' and relname in ('subscriptions', 'subscription_items', 'prices')
            """
        ).fetchone()

    before = scans()
    asked = open_db.execute(
        """
        select bool_and(payments.has_access('user', n::text, 'plan_' || n)) as access,
               bool_and((payments.current_subscription('test', 'user', n::text)).status = 'active') as current
          from generate_series(1, 100) as n
        """
    ).fetchone()
    assert asked == (True, True)
    after = scans()
    assert after.all_of_it == before.all_of_it
    assert after.by_index - before.by_index >= 400


# current_subscription


def current(connection, environment=None, subject=("user", "1")):
    found = connection.execute(
        "select (c).* from payments.current_subscription(%s, %s, %s) as c", (environment, *subject)
    ).fetchone()
    return found.stripe_subscription_id


def test_the_one_that_gives_access_counts_then_one_that_runs_then_the_newest(open_db):
    admin = open_db.connect()
    assert current(admin) is None
    subscribe(open_db, "sub_old", ("user", "1"), "canceled", created_at="2026-01-01", ended_at="2026-02-01")
    subscribe(open_db, "sub_older", ("user", "1"), "canceled", created_at="2025-01-01", ended_at="2025-02-01")
    assert current(admin) == "sub_old"
    subscribe(open_db, "sub_unpaid", ("user", "1"), "unpaid", created_at="2025-06-01")
    assert current(admin) == "sub_unpaid"
    subscribe(open_db, "sub_active", ("user", "1"), "past_due", created_at="2025-03-01")
    assert current(admin) == "sub_active"
    subscribe(open_db, "sub_newer", ("user", "1"), "active", created_at="2026-05-01")
    assert current(admin) == "sub_newer"
    assert current(admin, subject=("user", "2")) is None


def test_an_administrator_names_the_environment(open_db):
    subscribe(open_db, "sub_test", ("user", "1"))
    subscribe(open_db, "sub_live", ("user", "1"), environment="live")
    admin = open_db.connect()
    assert current(admin) == "sub_test"
    assert current(admin, "live") == "sub_live"


def test_the_owner_of_the_tables_sees_every_subscription(open_db):
    subscribe(open_db, "sub_1", ("user", "1"))
    open_db.execute(
        f"grant execute on function payments.current_subscription(text, text, text) to {database.OWNER}"
    )
    assert current(open_db.connect(database.OWNER)) == "sub_1"


def test_an_app_sees_what_its_policy_shows(open_db):
    subscribe(open_db, "sub_1", ("user", "1"))
    open_db.execute(
        """
        grant execute on function payments.current_subscription(text, text, text) to authenticated;
        grant select on payments.subscriptions to authenticated;
        """
    )
    connection = open_db.connect("authenticated")
    assert current(connection) is None
    open_db.execute("create policy own on payments.subscriptions for select to authenticated using (subject_id = '1')")
    assert current(connection) == "sub_1"


def test_an_app_without_rights_on_the_table_is_refused(open_db):
    open_db.execute("grant execute on function payments.current_subscription(text, text, text) to authenticated")
    with pytest.raises(psycopg.errors.InsufficientPrivilege):
        current(open_db.connect("authenticated"))


# The environment of a caller


@pytest.fixture
def app(open_db):
    """A connection of an app that may ask for current subscriptions."""
    open_db.execute(
        """
        grant execute on function payments.current_subscription(text, text, text) to authenticated;
        grant select on payments.subscriptions to authenticated;
        create policy everything on payments.subscriptions for select to authenticated using (true);
        """
    )
    subscribe(open_db, "sub_test", ("user", "1"))
    subscribe(open_db, "sub_live", ("user", "1"), environment="live")
    return open_db.connect("authenticated")


def test_an_app_gets_the_environment_that_is_open(app):
    assert current(app) == "sub_test"
    assert current(app, "test") == "sub_test"


@pytest.mark.parametrize("environment", ["live", "test", None])
def test_a_closed_environment_is_refused_to_apps(open_db, app, environment):
    if environment != "live":
        open_db.execute("select payments.open_to_apps(null)")
    with pytest.raises(psycopg.Error) as refused:
        current(app, environment)
    state, detail = raised(refused.value)
    assert (state, detail["code"]) == ("42501", "environment_closed")
    assert refused.value.diag.message_hint


@pytest.mark.parametrize("environment", ["production", "", "TEST"])
def test_what_is_no_environment_is_a_bad_argument(app, environment):
    with pytest.raises(psycopg.Error) as refused:
        current(app, environment)
    state, detail = raised(refused.value)
    assert (state, detail["code"]) == ("22023", "unknown_environment")


def test_an_administrator_has_to_name_one_when_none_is_open(open_db):
    open_db.execute("select payments.open_to_apps(null)")
    with pytest.raises(psycopg.Error) as refused:
        current(open_db.connect())
    state, detail = raised(refused.value)
    assert (state, detail["code"]) == ("22023", "environment_required")


def test_who_may_open_environments_may_name_either(open_db, app):
    open_db.execute("grant execute on function payments.open_to_apps(text) to authenticated")
    assert current(app, "live") == "sub_live"


# link_customer


@pytest.fixture
def customer(open_db, stripe) -> str:
    open_db.execute("select payments.set_stripe_key('test', %s)", (stripe.test_key,))
    return stripe.control.call("POST", "/v1/customers", {"email": "ada@example.com", "name": "Ada"})["id"]


def link(db, customer: str, subject=None, environment="test"):
    subject = {"type": "team", "id": "42"} if subject is None else subject
    return db.connect().execute(
        "select * from payments.link_customer(%s, %s, %s)", (environment, json.dumps(subject), customer)
    ).fetchone()


def test_a_customer_of_stripes_becomes_a_subject_of_the_app(open_db, customer):
    mapping = link(open_db, customer)

    assert (mapping.environment, mapping.stripe_customer_id) == ("test", customer)
    assert (mapping.subject_type, mapping.subject_id) == ("team", "42")
    assert mapping.linked_at is not None
    known = open_db.execute("select * from payments.customers").fetchone()
    assert (known.stripe_customer_id, known.email, known.name) == (customer, "ada@example.com", "Ada")


def test_linking_again_changes_nothing(open_db, customer):
    assert link(open_db, customer) == link(open_db, customer)
    assert open_db.value("select count(*) from payments.customer_mappings") == 1


def test_a_customer_may_be_several_subjects(open_db, customer):
    link(open_db, customer)
    link(open_db, customer, {"type": "user", "id": "7"})
    assert open_db.value("select count(*) from payments.customer_mappings") == 2


@pytest.mark.parametrize("state", ["unknown", "deleted"])
def test_a_customer_who_is_not_there_is_not_linked(open_db, stripe, customer, state):
    if state == "deleted":
        stripe.control.call("DELETE", f"/v1/customers/{customer}")
    with pytest.raises(psycopg.Error) as refused:
        link(open_db, customer if state == "deleted" else "cus_unknown")
    state, detail = raised(refused.value)
    assert (state, detail["code"]) == ("PT404", "no_such_customer")
    assert open_db.value("select count(*) from payments.customer_mappings") == 0


@pytest.mark.parametrize(
    ("subject", "customer_id"),
    [
        ({"type": "team"}, "cus_1"),
        ({"type": "team", "id": ""}, "cus_1"),
        ({"type": "team", "id": "x" * 256}, "cus_1"),
        ("team:42", "cus_1"),
        ({"type": "team", "id": "42"}, "cus_1/../../v1/refunds"),
        ({"type": "team", "id": "42"}, "sub_1"),
    ],
)
def test_bad_arguments_are_refused_before_stripe_is_asked(open_db, stripe, customer, subject, customer_id):
    stripe.control.clear_requests()
    with pytest.raises(psycopg.Error) as refused:
        link(open_db, customer_id, subject)
    assert refused.value.sqlstate == "22023"
    assert stripe.control.requests() == []


def test_what_the_customer_already_pays_gets_the_subject(open_db, stripe, customer):
    price = stripe.control.price(900, lookup_key="pro_monthly", interval="month")
    session = stripe.control.call(
        "POST",
        "/v1/checkout/sessions",
        {"mode": "subscription", "customer": customer, "success_url": "https://example.com/",
         "line_items": [{"price": price["id"], "quantity": 1}]},
    )
    stripe.control.complete(session["id"])
    open_db.execute("select payments.set_webhook_secret('test', %s)", (stripe.webhook_secret,))
    for delivery in stripe.control.deliveries():
        open_db.execute("select payments.handle_webhook('test', %(body)s, %(signature)s)", delivery)
    assert access(open_db, "team", "42") is False
    assert open_db.value("select unmapped_subscriptions from payments.status() where environment = 'test'") == 1

    link(open_db, customer)

    subscription = open_db.execute("select * from payments.subscriptions").fetchone()
    assert (subscription.subject_type, subscription.subject_id) == ("team", "42")
    paid = open_db.execute("select * from payments.payment_history").fetchone()
    assert (paid.subject_type, paid.subject_id) == ("team", "42")
    assert access(open_db, "team", "42") is True
