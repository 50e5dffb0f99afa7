"""`create_customer_portal_session`: whose billing it opens, and for whom."""

from __future__ import annotations

import pytest
from psycopg.types.json import Jsonb

from shop import refused

PORTALS = "/v1/billing_portal/sessions"
RED = {"type": "team", "id": "red"}


def portals(shop):
    return shop.db.execute("select * from payments.customer_portal_sessions order by created_at").fetchall()


def link(shop, subject, **customer):
    """Another customer of a subject's, as an administrator links one."""
    made = shop.stripe.control.call("POST", "/v1/customers", customer)["id"]
    shop.db.execute("select payments.link_customer('test', %s, %s)", (Jsonb(subject), made))
    return made


def test_a_customer_who_bought_gets_a_portal(shop):
    bought = shop.buy("alice")
    row = shop.portal("alice", return_url="https://shop.example/billing")
    [asked] = shop.asked(PORTALS)
    assert row == portals(shop)[0]
    assert (row.environment, row.status, row.subject_type, row.subject_id) == ("test", "created", "user", "alice")
    assert (row.stripe_customer_id, row.return_url) == (bought.stripe_customer_id, "https://shop.example/billing")
    assert (row.requested_by, row.last_error) == ("alice", None)
    assert row.url.startswith("https://billing.stripe.com/p/session/test_")
    assert asked["params"] == {"customer": bought.stripe_customer_id, "return_url": "https://shop.example/billing"}
    assert asked["idempotency_key"].startswith(f"payments-portal-{row.id}")


def test_a_team_opens_what_one_of_it_bought(shop):
    bought = shop.buy("alice", mode="subscription", subject=RED)
    assert shop.portal("bob", subject=RED).stripe_customer_id == bought.stripe_customer_id


def test_every_visit_is_a_session_of_its_own(shop):
    shop.buy("alice")
    assert shop.portal("alice").url != shop.portal("alice").url


def test_a_policy_decides_whose_billing_is_opened(shop):
    shop.buy("alice")
    shop.stripe.control.clear_requests()
    with refused("42501") as refusal:
        shop.portal("mallory", subject={"type": "user", "id": "alice"})
    assert refusal.message == 'new row violates row-level security policy for table "customer_portal_sessions"'
    with refused("42501"):
        shop.portal(subject={"type": "user", "id": "alice"})
    assert shop.stripe.control.requests() == []


def test_an_insert_policy_is_all_it_takes(shop):
    shop.buy("alice")
    assert not shop.db.value(
        "select has_any_column_privilege('authenticated', 'payments.customer_portal_sessions', 'select')"
    )
    assert shop.portal("alice").status == "created"


def test_a_direct_insert_is_refused(shop):
    with refused("42501", "direct_insert") as refusal, shop.db.request("alice") as connection:
        connection.execute(
            "insert into payments.customer_portal_sessions (id, environment, subject_type, subject_id) "
            "values (gen_random_uuid(), 'test', 'user', 'alice')"
        )
    assert refusal.hint == "Call payments.create_customer_portal_session() instead."


def test_forced_row_level_security_holds_up_the_caller_alone(shop):
    for table in ("customer_portal_sessions", "customer_mappings", "customers", "subscriptions"):
        shop.db.execute(f"alter table payments.{table} force row level security")
    shop.buy("alice")
    assert shop.portal("alice").status == "created"


def test_without_a_customer_it_says_what_to_show_instead(shop):
    with refused("PT404", "no_customer") as refusal:
        shop.portal("alice")
    assert refusal.hint.startswith("Show a subscribe button")
    assert portals(shop) == []
    assert shop.stripe.control.requests() == []


def test_a_customer_of_an_uncompleted_checkout_does_not_count(shop):
    session = shop.checkout("alice")
    shop.deliver()
    with refused("PT404", "no_customer"):
        shop.portal("alice")
    shop.stripe.control.expire(session.stripe_checkout_session_id)
    shop.deliver()
    with refused("PT404", "no_customer"):
        shop.portal("alice")


def test_another_subjects_customer_does_not_count(shop):
    shop.buy("alice")
    with refused("PT404", "no_customer"):
        shop.portal("bob")
    with refused("PT404", "no_customer"):
        shop.portal("alice", subject=RED)


def test_a_linked_customer_counts(shop):
    linked = link(shop, {"type": "user", "id": "alice"})
    assert shop.portal("alice").stripe_customer_id == linked


def test_of_several_customers_the_newest_counts(shop):
    shop.buy("alice")
    shop.stripe.control.clock(advance=60)
    newer = link(shop, {"type": "user", "id": "alice"})
    assert shop.portal("alice").stripe_customer_id == newer


def test_of_several_customers_one_with_a_live_subscription_counts_first(shop):
    subscriber = shop.buy("alice", mode="subscription").stripe_customer_id
    shop.stripe.control.clock(advance=60)
    newer = link(shop, {"type": "user", "id": "alice"})
    assert shop.portal("alice").stripe_customer_id == subscriber
    [subscription] = shop.db.execute("select stripe_subscription_id from payments.subscriptions").fetchone()
    shop.stripe.control.cancel(subscription)
    shop.deliver()
    assert shop.portal("alice").stripe_customer_id == newer


def test_a_deleted_customer_does_not_count(shop):
    bought = shop.buy("alice")
    shop.stripe.control.delete(bought.stripe_customer_id)
    shop.deliver()
    with refused("PT404", "no_customer"):
        shop.portal("alice")


def test_a_customer_whose_deletion_nobody_told_does_not_count(shop):
    bought = shop.buy("alice")
    shop.stripe.control.delete(bought.stripe_customer_id)
    with refused("PT404", "no_customer"):
        shop.portal("alice")


def test_a_customer_whose_deletion_nobody_told_gives_way_to_the_next(shop):
    older = shop.buy("alice")
    shop.stripe.control.clock(advance=60)
    shop.stripe.control.delete(link(shop, {"type": "user", "id": "alice"}))
    row = shop.portal("alice")
    assert (row.status, row.stripe_customer_id) == ("created", older.stripe_customer_id)


@pytest.mark.parametrize("kind", ["subscription_cancel", "subscription_update"])
@pytest.mark.parametrize("named", [True, False], ids=["named", "found"])
def test_a_flow_is_about_the_subjects_subscription(shop, kind, named):
    shop.buy("alice", mode="subscription")
    subscription = shop.db.value("select stripe_subscription_id from payments.subscriptions")
    flow = {"type": kind, "subscription": subscription} if named else {"type": kind}
    row = shop.portal("alice", flow=flow)
    [asked] = shop.asked(PORTALS)
    assert (row.status, row.flow) == ("created", flow)
    assert asked["params"]["flow_data"] == {"type": kind, kind: {"subscription": subscription}}


def test_a_flow_for_the_payment_method(shop):
    shop.buy("alice")
    flow = {
        "type": "payment_method_update",
        "afterCompletion": {"type": "redirect", "redirect": {"returnUrl": "https://shop.example/"}},
    }
    assert shop.portal("alice", flow=flow).status == "created"
    assert shop.asked(PORTALS)[0]["params"]["flow_data"] == {
        "type": "payment_method_update",
        "after_completion": {"type": "redirect", "redirect": {"return_url": "https://shop.example/"}},
    }


def test_a_flow_without_a_subscription_says_so(shop):
    shop.buy("alice")
    with refused("PT404", "no_subscription"):
        shop.portal("alice", flow={"type": "subscription_cancel"})
    assert shop.asked(PORTALS) == []


def test_somebody_elses_subscription_cannot_be_cancelled(shop):
    shop.buy("alice")
    shop.buy("bob", mode="subscription")
    bobs = shop.db.value("select stripe_subscription_id from payments.subscriptions")
    with refused("PT400", "stripe_refused", stripe_code="resource_missing"):
        shop.portal("alice", flow={"type": "subscription_cancel", "subscription": bobs})


def test_a_configuration_is_passed_on(shop):
    shop.buy("alice")
    configuration = shop.stripe.control.call("POST", "/v1/billing_portal/configurations", {"name": "teams"})["id"]
    row = shop.portal("alice", configuration=configuration)
    assert row.configuration == configuration
    assert shop.asked(PORTALS)[0]["params"]["configuration"] == configuration


def test_a_configuration_that_is_not_there_is_stripes_to_refuse(shop):
    shop.buy("alice")
    with refused("PT400", "stripe_refused", stripe_code="resource_missing", param="configuration"):
        shop.portal("alice", configuration="bpc_gone")


def test_arguments_are_checked_before_anything_happens(shop):
    for argument, arguments, message in [
        ("subject", {"subject": None}, "subject is missing"),
        ("subject", {"subject": {"type": "user"}}, "subject.id is missing"),
        ("return_url", {"return_url": "/billing"}, "return_url must be an absolute http or https URL"),
        (
            "configuration",
            {"configuration": "cus_1"},
            "configuration is not a Stripe portal configuration id (bpc_…)",
        ),
        (
            "flow",
            {"flow": {"type": "cancel"}},
            "flow.type must be one of payment_method_update, subscription_cancel, subscription_update",
        ),
    ]:
        with refused("22023", "invalid_argument", argument=argument) as refusal:
            shop.portal("alice", **arguments)
        assert refusal.message == message
    assert portals(shop) == []
    assert shop.stripe.control.requests() == []


def test_a_closed_environment_is_refused(shop):
    with refused("42501", "environment_closed"):
        shop.portal("alice", environment="live")


def test_without_an_environment_it_is_the_open_one(shop):
    shop.buy("alice")
    assert shop.portal("alice", environment=None).environment == "test"


def test_a_failure_of_stripes_leaves_nothing(shop):
    shop.buy("alice")
    shop.stripe.control.fault("rate_limit", path=PORTALS)
    with refused("PT429", "rate_limited"):
        shop.portal("alice")
    assert portals(shop) == []


@pytest.mark.parametrize(
    "fault, status", [({"kind": "rate_limit", "path": PORTALS}, "429"), (None, "404")], ids=["by Stripe", "no customer"]
)
def test_recording_keeps_a_failed_row_and_tells_the_gateway(shop, fault, status):
    if fault:
        shop.buy("alice")
        shop.stripe.control.fault(**fault)
    with shop.db.request("alice") as connection:
        connection.execute("set local payments.on_stripe_error = 'record'")
        row = shop.portal(connection, subject={"type": "user", "id": "alice"})
        told = connection.execute("select current_setting('response.status')").fetchone()[0]
    assert [row] == portals(shop)
    assert (row.status, row.url, told) == ("failed", None, status)
    assert row.last_error


def test_a_lost_answer_is_asked_for_again_in_the_same_call(shop):
    shop.buy("alice")
    shop.stripe.control.fault("drop", path=PORTALS)
    assert shop.portal("alice").status == "created"
    assert [asked["status"] for asked in shop.asked(PORTALS)] == [0, 200]


def test_a_read_only_transaction_is_refused(shop):
    connection = shop.db.connect("authenticated", autocommit=False)
    connection.read_only = True
    with refused("25006", "wrong_transaction"):
        shop.portal(connection, subject=RED)


def test_users_columns_on_the_table_do_no_harm(shop):
    shop.db.execute("alter table payments.customer_portal_sessions add column tenant text default 'acme'")
    shop.buy("alice")
    assert shop.portal("alice").status == "created"
    assert portals(shop)[0].tenant == "acme"
