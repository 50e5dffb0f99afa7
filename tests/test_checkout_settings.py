"""`payments.configure_checkout`: what an administrator allows in checkouts, and adds to them."""

from __future__ import annotations

import pytest
from psycopg.types.json import Jsonb

from shop import URLS, Task, refused, waits_for_a_lock

SESSIONS = "/v1/checkout/sessions"
RED = {"type": "team", "id": "red"}


def configure(shop, **settings):
    statement = "select * from payments.configure_checkout('test', %s)"
    return shop.db.execute(statement, (Jsonb(settings),)).fetchone()


def sent(shop) -> dict:
    """The parameters of the last session that Stripe was asked to make."""
    return shop.asked()[-1]["params"]


def subscribe(shop, who: str = "alice", **arguments):
    return shop.checkout(who, mode="subscription", **arguments)


# What is set


def test_settings_are_kept_as_they_were_said_and_replaced_as_a_whole(shop):
    assert configure(shop, locale="de", trial_period_days=7).checkout_settings == {
        "locale": "de",
        "trial_period_days": 7,
    }
    assert configure(shop, locale="fr").checkout_settings == {"locale": "fr"}
    assert configure(shop).checkout_settings is None
    shop.checkout("alice")
    assert "locale" not in sent(shop)


def test_each_environment_has_its_own(shop):
    configure(shop, locale="de")
    shop.db.execute("select payments.configure_checkout('live', '{\"locale\": \"fr\"}')")
    shop.checkout("alice")
    assert sent(shop)["locale"] == "de"


def test_what_cannot_be_is_refused_when_it_is_set(shop):
    with refused("22023", "invalid_argument", argument="settings") as refusal:
        configure(shop, automatic_tax={"enabled": "yes"})
    assert refusal.message == "settings.automatic_tax.enabled must be true or false"
    with refused("22023", "invalid_argument", argument="settings") as refusal:
        configure(shop, succes_url="https://shop.example")
    assert "unknown key" in refusal.message
    with refused("22023", "invalid_argument", argument="settings"):
        shop.db.execute("select payments.configure_checkout('test', null)")


def test_app_roles_may_not(shop):
    for statement in (
        "select payments.configure_checkout('test', '{}')",
        "select checkout_settings from payments.stripe_connections",
    ):
        with refused("42501"), shop.db.request("alice") as connection:
            connection.execute(statement)


def test_settings_come_through_a_dump(shop, server):
    configure(shop, locale="de")
    dump = shop.db.dump("--data-only", "--table=payments.stripe_connections")
    assert '{"locale": "de"}' in dump


def test_settings_that_somebody_broke_say_so(shop):
    shop.db.execute("update payments.stripe_connections set checkout_settings = '{\"locale\": 7}'")
    with refused("55000", "settings_unreadable"):
        shop.checkout("alice")


# Stripe's parameters


PARAMETERS = {
    "adaptive_pricing": {"enabled": True},
    "allow_promotion_codes": True,
    "allowed_payment_method_types": ["card", "link"],
    "automatic_tax": {"enabled": True},
    "billing_address_collection": "required",
    "branding_settings": {"display_name": "Shop", "button_color": "#ff0000"},
    "consent_collection": {"terms_of_service": "required"},
    "custom_fields": [{"key": "size", "label": {"custom": "Size", "type": "custom"}, "type": "text"}],
    "custom_text": {"submit": {"message": "Thank you"}},
    "customer_creation": "always",
    "customer_update": {"address": "auto", "name": "auto"},
    "discounts": [{"coupon": "early"}],
    "excluded_payment_method_types": ["klarna"],
    "invoice_creation": {"enabled": True, "invoice_data": {"footer": "Thank you"}},
    "locale": "de",
    "payment_intent_data": {"statement_descriptor_suffix": "SHOP"},
    "payment_method_collection": "if_required",
    "payment_method_configuration": "pmc_1",
    "phone_number_collection": {"enabled": True},
    "shipping_address_collection": {"allowed_countries": ["DE", "FR"]},
    "shipping_options": [{"shipping_rate": "shr_1"}],
    "submit_type": "donate",
    "subscription_data": {"description": "Pro"},
    "tax_id_collection": {"enabled": True},
}
ELSEWHERE = {
    "payment": {"payment_method_collection", "subscription_data"},
    "subscription": {
        "customer_creation",
        "invoice_creation",
        "payment_intent_data",
        "shipping_options",
        "submit_type",
    },
}


def flat(value, name: str = "") -> dict:
    """Parameters as the form they are sent in."""
    if isinstance(value, dict):
        return {key: text for part, inner in value.items() for key, text in flat(inner, f"{name}[{part}]").items()}
    if isinstance(value, list):
        return {key: text for index, inner in enumerate(value) for key, text in flat(inner, f"{name}[{index}]").items()}
    return {name: {True: "true", False: "false"}.get(value, str(value))}


@pytest.mark.parametrize("setting", PARAMETERS)
def test_no_setting_breaks_a_checkout(shop, setting):
    """In each mode, for a visitor, a new customer and one who comes again."""
    configure(shop, **{setting: PARAMETERS[setting]})
    for mode, who in (
        ("payment", None),
        ("payment", "alice"),
        ("payment", "alice"),
        ("subscription", "bob"),
        ("subscription", "bob"),
    ):
        session = shop.checkout(who, mode=mode)
        assert session.status == "open"
        goes = setting not in ELSEWHERE[mode]
        if setting == "customer_creation":
            goes = who is None
        if setting == "customer_update":
            goes = who is not None
        given = flat(sent(shop).get(setting), setting)
        wanted = flat(PARAMETERS[setting], setting)
        assert (wanted.items() <= given.items()) == goes, (mode, who)
        if not goes and setting not in ("payment_intent_data", "subscription_data"):
            assert setting not in sent(shop)
        shop.stripe.control.complete(session.stripe_checkout_session_id)
        shop.deliver()


def test_no_combination_breaks_a_checkout(shop):
    together = {name: value for name, value in PARAMETERS.items() if name != "discounts"}
    together["customer_update"] = {"address": "auto", "name": "auto", "shipping": "auto"}
    configure(shop, **together, trial_period_days=14)
    for mode, who in (("payment", None), ("payment", "alice"), ("payment", "alice"), ("subscription", "alice")):
        shop.buy(who, mode=mode)


@pytest.mark.parametrize(
    ("setting", "update"),
    [
        ({"automatic_tax": {"enabled": True}}, {"address": "auto"}),
        ({"tax_id_collection": {"enabled": True}}, {"name": "auto"}),
        (
            {
                "automatic_tax": {"enabled": True},
                "shipping_address_collection": {"allowed_countries": ["DE"]},
            },
            {"address": "auto", "shipping": "auto"},
        ),
        ({"automatic_tax": {"enabled": False}, "tax_id_collection": {"enabled": False}}, None),
    ],
)
def test_a_returning_customer_can_type_in_what_tax_needs(shop, setting, update):
    configure(shop, **setting)
    shop.buy("alice")
    shop.checkout("alice")
    assert sent(shop).get("customer_update") == update
    shop.checkout()
    assert "customer_update" not in sent(shop)


def test_what_a_caller_says_and_what_is_set_go_together(shop):
    configure(shop, payment_intent_data={"description": "Shirts"})
    row = shop.checkout("alice", metadata={"order_id": "7"})
    data = sent(shop)["payment_intent_data"]
    assert data["description"] == "Shirts"
    assert data["metadata"]["order_id"] == "7"
    assert data["metadata"]["payments_checkout_session_id"] == str(row.id)


# Idempotency


def test_changed_settings_are_no_changed_request(shop):
    first = shop.checkout("alice", idempotency_key="order:7")
    configure(shop, locale="de")
    again = shop.checkout("alice", idempotency_key="order:7")
    assert again.id == first.id


def test_a_key_whose_transaction_was_rolled_back_is_not_stuck_after_settings_changed(shop):
    arguments = {
        "mode": "payment",
        "subject": {"type": "user", "id": "alice"},
        "line_items": [{"stripe_price_id": shop.shirt}],
        "idempotency_key": "order:7",
        **URLS,
    }
    with pytest.raises(ZeroDivisionError), shop.db.request("alice") as connection:
        shop.call("create_checkout_session", connection, arguments)
        raise ZeroDivisionError
    configure(shop, locale="de")
    row = shop.call("create_checkout_session", "alice", arguments)
    assert (row.status, sent(shop)["locale"]) == ("open", "de")


# Origins

ALLOWED = "https://shop.example"

TRICKS = [
    "http://shop.example/",
    "https://shop.example:8443/",
    "https://shop.example.evil.example/",
    "https://evil.example/https://shop.example/",
    "https://evil.example/?https://shop.example",
    "https://evil.example/#https://shop.example",
    "https://evilshop.example/",
    "https://www.shop.example/",
    "https://shop.example./",
    "https://ｓhop.example/",
    "https://ѕhop.example/",
    "https://shop。example/",
    "https://shop.example%2eevil.example/",
    "https://shop%2eexample/",
    "https://[::1]/",
    "https://2130706433/",
    "http://localhost/",
]


@pytest.mark.parametrize("argument", ["success_url", "cancel_url"])
@pytest.mark.parametrize("url", TRICKS)
def test_other_origins_are_refused(shop, argument, url):
    configure(shop, allowed_origins=[ALLOWED])
    is_url = url.isascii() and "%" not in url
    with refused("42501" if is_url else "22023", "url_not_allowed" if is_url else None) as refusal:
        shop.checkout("alice", **{argument: url})
    assert refusal.message.startswith(argument)
    assert shop.asked("*") == []
    assert shop.sessions() == []


@pytest.mark.parametrize(
    "url",
    [
        "https://shop.example",
        "https://SHOP.Example/thanks?s={CHECKOUT_SESSION_ID}#top",
        "https://shop.example:443/",
        "HTTPS://shop.example/a/../..//b",
        "https://shop.example/@evil.example",
        "https://shop.example?@evil.example",
    ],
)
def test_the_allowed_origin_is_known_in_any_spelling(shop, url):
    configure(shop, allowed_origins=["http://localhost:3000", "HTTPS://Shop.Example:443"])
    assert shop.checkout("alice", success_url=url, cancel_url="http://localhost:3000/").status == "open"


def test_urls_with_user_names_are_refused_as_ever(shop):
    configure(shop, allowed_origins=[ALLOWED])
    for url in ("https://shop.example@evil.example/", "https://shop.example:443@evil.example/"):
        with refused("22023", "invalid_argument", argument="success_url"):
            shop.checkout("alice", success_url=url)


def test_the_portal_returns_to_allowed_origins_only(shop):
    shop.buy("alice")
    configure(shop, allowed_origins=[ALLOWED])
    shop.portal("alice", return_url="https://shop.example/billing")
    with refused("42501", "url_not_allowed", argument="return_url"):
        shop.portal("alice", return_url="https://evil.example/")
    flow = {
        "type": "payment_method_update",
        "after_completion": {"type": "redirect", "redirect": {"return_url": "https://evil.example/"}},
    }
    with refused("42501", "url_not_allowed", argument="flow"):
        shop.portal("alice", flow=flow)


def test_the_portal_has_allowed_configurations_only(shop):
    shop.buy("alice")
    made = [
        shop.stripe.control.call(
            "POST", "/v1/billing_portal/configurations", {"features": {"invoice_history": {"enabled": "true"}}}
        )["id"]
        for _ in range(3)
    ]
    configure(shop, allowed_portal_configurations=made[:2])
    assert shop.portal("alice").configuration == made[0]
    assert shop.portal("alice", configuration=made[1]).configuration == made[1]
    with refused("42501", "configuration_not_allowed", argument="configuration"):
        shop.portal("alice", configuration=made[2])
    configure(shop)
    assert shop.portal("alice").configuration is None


# Prices


def test_only_listed_prices_are_sold(shop):
    other = shop.stripe.control.price(500, lookup_key="sticker")["id"]
    configure(shop, allowed_prices=[shop.shirt, "pro_monthly"])
    assert shop.checkout("alice").status == "open"
    assert subscribe(shop).status == "open"
    assert subscribe(shop, line_items=[{"lookup_key": "pro_monthly"}]).status == "open"
    for item in ({"stripe_price_id": other}, {"lookup_key": "sticker"}):
        asked = len(shop.asked())
        with refused("42501", "price_not_allowed", stripe_price_id=other):
            shop.checkout("alice", line_items=[{"stripe_price_id": shop.shirt}, item])
        assert len(shop.asked()) == asked


def test_a_price_listed_by_its_lookup_key_can_be_named_by_its_id(shop):
    configure(shop, allowed_prices=["pro_monthly"])
    assert subscribe(shop, line_items=[{"stripe_price_id": shop.plan}]).status == "open"
    with refused("42501", "price_not_allowed"):
        shop.checkout("alice")


def test_active_prices_are_those_of_active_products(shop):
    configure(shop, allowed_prices="active")
    assert shop.checkout("alice").status == "open"
    product = shop.stripe.control.get(shop.shirt)["product"]
    shop.stripe.control.update(product, {"active": "false"})
    shop.deliver("product.updated")
    with refused("42501", "price_not_allowed", stripe_price_id=shop.shirt):
        shop.checkout("alice")


# One live subscription


def test_a_second_subscription_is_refused(shop):
    configure(shop, one_live_subscription=True)
    shop.buy("alice", mode="subscription")
    with refused("23505", "already_subscribed") as refusal:
        subscribe(shop)
    assert "portal" in refusal.hint
    assert subscribe(shop, "bob").status == "open"
    assert subscribe(shop, "alice", subject=RED).status == "open"
    assert shop.checkout("alice").status == "open"


def test_a_second_is_refused_before_any_webhook(shop):
    configure(shop, one_live_subscription=True)
    first = subscribe(shop)
    shop.stripe.control.complete(first.stripe_checkout_session_id)
    with refused("23505", "already_subscribed"):
        subscribe(shop)


def test_the_same_key_still_returns_what_was_bought(shop):
    configure(shop, one_live_subscription=True)
    first = subscribe(shop, idempotency_key="pro")
    shop.stripe.control.complete(first.stripe_checkout_session_id)
    again = subscribe(shop, idempotency_key="pro")
    assert (again.id, again.status) == (first.id, "completed")


def test_after_the_first_has_ended_there_can_be_another(shop):
    configure(shop, one_live_subscription=True)
    shop.buy("alice", mode="subscription")
    [(subscription,)] = shop.db.execute("select stripe_subscription_id from payments.subscriptions").fetchall()
    shop.stripe.control.cancel(subscription)
    assert subscribe(shop).status == "open"


def test_older_open_sessions_are_expired(shop):
    configure(shop, one_live_subscription=True)
    first = subscribe(shop)
    others = [subscribe(shop, "bob"), subscribe(shop, "alice", subject=RED), shop.checkout("alice")]
    second = subscribe(shop)
    state = {row.id: row.status for row in shop.sessions()}
    assert (state[first.id], state[second.id]) == ("expired", "open")
    assert {state[row.id] for row in others} == {"open"}
    assert shop.stripe.control.get(first.stripe_checkout_session_id)["status"] == "expired"


def test_a_session_that_was_rolled_back_here_is_expired_there(shop):
    configure(shop, one_live_subscription=True)
    subscribe(shop, "alice")
    with pytest.raises(ZeroDivisionError), shop.db.request("alice") as connection:
        lost = shop.call(
            "create_checkout_session",
            connection,
            {
                "mode": "subscription",
                "subject": {"type": "user", "id": "alice"},
                "line_items": [{"stripe_price_id": shop.plan}],
                **URLS,
            },
        )
        raise ZeroDivisionError
    subscribe(shop)
    assert shop.stripe.control.get(lost.stripe_checkout_session_id)["status"] == "expired"


def test_a_session_that_is_completed_while_it_is_expired_counts(shop):
    configure(shop, one_live_subscription=True)
    first = subscribe(shop)
    shop.stripe.control.fault("delay", method="POST", path=f"{SESSIONS}/*/expire", before=0.5)
    second = Task(lambda: subscribe(shop))
    shop.stripe.control.wait_for_requests(1, f"{SESSIONS}/*/expire", "POST")
    shop.stripe.control.complete(first.stripe_checkout_session_id)
    with refused("23505", "already_subscribed"):
        second.result()


def test_two_at_once_leave_one_open(shop):
    configure(shop, one_live_subscription=True)
    shop.stripe.control.fault("delay", method="POST", path=SESSIONS, before=0.5)
    arguments = {
        "mode": "subscription",
        "subject": {"type": "user", "id": "alice"},
        "line_items": [{"stripe_price_id": shop.plan}],
        **URLS,
    }
    first = Task(lambda: subscribe(shop))
    shop.stripe.control.wait_for_requests(1, SESSIONS, "POST")
    with shop.db.request("alice") as connection:
        second = Task(lambda: shop.call("create_checkout_session", connection, arguments))
        assert waits_for_a_lock(shop.db, connection.info.backend_pid)
        first.result()
        second.result()
    assert sorted(row.status for row in shop.sessions()) == ["expired", "open"]


def test_a_deleted_customer_is_no_obstacle(shop):
    configure(shop, one_live_subscription=True, trial_period_days=7)
    first = subscribe(shop)
    shop.stripe.control.delete(first.stripe_customer_id)
    assert subscribe(shop).status == "open"


# One trial


def test_a_trial_is_for_the_first_time(shop):
    configure(shop, trial_period_days=14)
    first = subscribe(shop)
    assert sent(shop)["subscription_data"]["trial_period_days"] == "14"
    shop.stripe.control.complete(first.stripe_checkout_session_id)
    # No webhook has told of it yet.
    subscribe(shop)
    assert "trial_period_days" not in sent(shop)["subscription_data"]
    shop.deliver()
    [(subscription,)] = shop.db.execute("select stripe_subscription_id from payments.subscriptions").fetchall()
    shop.stripe.control.cancel(subscription)
    shop.deliver()
    assert subscribe(shop).status == "open"
    assert "trial_period_days" not in sent(shop)["subscription_data"]
    subscribe(shop, "bob")
    assert sent(shop)["subscription_data"]["trial_period_days"] == "14"


def test_payments_have_no_trial(shop):
    configure(shop, trial_period_days=14)
    shop.checkout("alice")
    assert "subscription_data" not in sent(shop)


def test_what_ends_a_trial_is_said_with_a_trial_only(shop):
    end = {"end_behavior": {"missing_payment_method": "cancel"}}
    configure(shop, trial_period_days=14, subscription_data={"trial_settings": end})
    shop.buy("alice", mode="subscription")
    assert sent(shop)["subscription_data"]["trial_settings"] == end
    shop.buy("alice", mode="subscription")
    assert "trial_settings" not in sent(shop)["subscription_data"]
