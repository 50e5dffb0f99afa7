"""Subscriptions and refunds in the hands of whoever runs the payments."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor

import psycopg
import pytest

PAGES = {"success_url": "https://shop.example/thanks", "cancel_url": "https://shop.example/cart"}


def raised(error: psycopg.Error) -> tuple[str, str]:
    """The SQLSTATE, and the code in the DETAIL."""
    return error.sqlstate, json.loads(error.diag.message_detail)["code"]


class Business:
    """A database that is connected to the fake, with a customer who buys there."""

    def __init__(self, db, stripe) -> None:
        self.db, self.stripe, self.control = db, stripe, stripe.control
        db.execute("select payments.set_stripe_key('test', %s)", (stripe.test_key,))
        db.execute("select payments.set_webhook_secret('test', %s)", (stripe.webhook_secret,))
        self.customer = self.control.call("POST", "/v1/customers", {"email": "ada@example.com"})["id"]

    def call(self, function: str, *arguments, connection=None):
        values = [json.dumps(value) if isinstance(value, dict) else value for value in arguments]
        places = ", ".join(["'test'", *["%s"] * len(values)])
        return (connection or self.db).execute(f"select * from payments.{function}({places})", values).fetchone()

    def cancel(self, *arguments, **options):
        return self.call("cancel_subscription", *arguments, **options)

    def update(self, *arguments, **options):
        return self.call("update_subscription", *arguments, **options)

    def refund(self, payment, amount=None, reason=None, key=None, **options):
        return self.call("refund_payment", payment, amount, reason, key, **options)

    def refusal(self, function, *arguments, **options) -> tuple[str, str]:
        with pytest.raises(psycopg.Error) as refused:
            function(*arguments, **options)
        return raised(refused.value)

    def deliver(self) -> None:
        """Every event that was not delivered yet."""
        for delivery in self.control.deliveries():
            self.db.execute("select payments.handle_webhook('test', %(body)s, %(signature)s)", delivery)

    def buy(self, *prices: str, mode: str = "payment", quantity: int = 1) -> dict:
        """A completed checkout, of which nothing was delivered yet."""
        items = [{"price": price, "quantity": quantity} for price in prices]
        session = {"mode": mode, "customer": self.customer, "line_items": items, **PAGES}
        return self.control.complete(self.control.call("POST", "/v1/checkout/sessions", session)["id"])

    def subscribe(self, *prices: str) -> str:
        """The id of a subscription that is known here."""
        prices = prices or (self.price(900),)
        subscription = self.buy(*prices, mode="subscription")["subscription"]
        self.deliver()
        self.control.clear_requests()
        return subscription

    def price(self, amount: int, lookup_key: str | None = None, interval: str = "month") -> str:
        return self.control.price(amount, lookup_key=lookup_key, interval=interval)["id"]

    def pay(self, amount: int = 1000):
        """The row of a payment."""
        intent = self.buy(self.control.price(amount)["id"])["payment_intent"]
        self.deliver()
        self.control.clear_requests()
        return self.payment(stripe_payment_intent_id=intent)

    def payment(self, **where):
        conditions = " and ".join(f"{column} = %({column})s" for column in where)
        statement = f"select * from payments.payment_history where type <> 'refund' and {conditions}"
        return self.db.execute(statement, where).fetchone()

    def items(self, subscription: str) -> list[tuple]:
        statement = """
            select stripe_price_id, quantity, stripe_subscription_item_id from payments.subscription_items
            where stripe_subscription_id = %s order by created_at, stripe_subscription_item_id
        """
        return self.db.execute(statement, (subscription,)).fetchall()

    def refunds(self) -> int:
        """How many refunds there are at Stripe."""
        return len(self.control.events(types=["refund.created"]))

    def sent(self, path: str, method: str = "POST") -> list[dict]:
        return self.control.requests(path=path, method=method)


@pytest.fixture
def business(db, stripe) -> Business:
    return Business(db, stripe)


# Cancelling


def test_a_subscription_is_cancelled_at_the_end_of_its_period(business):
    subscription = business.subscribe()
    row = business.cancel(subscription)
    assert (row.stripe_subscription_id, row.status, row.cancel_at_period_end) == (subscription, "active", True)
    assert row.cancel_at == row.current_period_end
    assert business.db.execute("select * from payments.subscriptions").fetchone() == row


def test_a_subscription_is_cancelled_now(business):
    subscription = business.subscribe()
    row = business.cancel(subscription, False)
    assert (row.status, row.ended_at is not None) == ("canceled", True)


@pytest.mark.parametrize("at_period_end", [True, False])
def test_cancelling_twice_is_cancelling_once(business, at_period_end):
    # At a period's end, Stripe's `canceled_at` is the time of the last request.
    business.control.clock(freeze=True)
    subscription = business.subscribe()
    row = business.cancel(subscription, at_period_end)
    assert business.cancel(subscription, at_period_end) == row
    business.deliver()
    assert business.cancel(subscription, at_period_end) == row


def test_what_has_ended_stays_as_it_is(business):
    subscription = business.subscribe()
    ended = business.cancel(subscription, False)
    assert business.cancel(subscription, True) == ended


def test_an_end_that_nobody_told_us_of_is_found(business):
    subscription = business.subscribe()
    business.control.cancel(subscription)
    assert business.cancel(subscription, False).status == "canceled"


def test_a_lost_answer_is_no_failure(business):
    subscription = business.subscribe()
    business.control.fault("drop", method="DELETE")
    assert business.cancel(subscription, False).status == "canceled"


def test_cancelling_again_after_resuming_cancels_again(business):
    subscription = business.subscribe()
    business.control.clock(freeze=True)
    for _ in range(2):
        assert business.cancel(subscription).cancel_at_period_end is True
        assert business.update(subscription, {"cancel_at_period_end": False}).cancel_at_period_end is False


# Changing


def test_a_quantity_is_changed(business):
    subscription = business.subscribe()
    ((price, _, item),) = business.items(subscription)
    row = business.update(subscription, {"quantity": 5, "proration_behavior": "none"})
    assert row.stripe_subscription_id == subscription
    assert business.items(subscription) == [(price, 5, item)]
    assert business.sent("/v1/subscriptions/*")[0]["params"]["proration_behavior"] == "none"


@pytest.mark.parametrize("known", [True, False])
def test_a_price_is_changed_by_its_lookup_key(business, known):
    subscription = business.subscribe()
    pro = business.price(1900, lookup_key="pro")
    if known:
        business.deliver()
    business.update(subscription, {"lookupKey": "pro"})
    assert [(price, quantity) for price, quantity, _ in business.items(subscription)] == [(pro, 1)]


def test_items_are_changed_added_and_removed(business):
    subscription = business.subscribe(business.price(900), business.price(100))
    seats = business.price(50)
    (first, _, one), (_, _, two) = business.items(subscription)
    assert business.refusal(business.update, subscription, {"quantity": 2}) == ("22023", "invalid_argument")
    business.update(
        subscription,
        {
            "items": [
                {"stripe_subscription_item_id": one, "quantity": 3},
                {"stripe_subscription_item_id": two, "deleted": True},
                {"stripe_price_id": seats, "quantity": 7},
            ]
        },
    )
    assert {(price, quantity) for price, quantity, _ in business.items(subscription)} == {(first, 3), (seats, 7)}


def test_what_the_portal_cancelled_is_resumed(business):
    subscription = business.subscribe()
    business.control.cancel(subscription, at_period_end=True)
    business.deliver()
    assert business.db.value("select cancel_at is not null from payments.subscriptions")
    row = business.update(subscription, {"cancel_at_period_end": False})
    assert (row.cancel_at, row.cancel_at_period_end, row.status) == (None, False, "active")


def test_metadata_is_merged_and_the_subject_stays(business):
    db = business.db
    db.execute("select payments.link_customer('test', %s, %s)", ('{"type": "team", "id": "1"}', business.customer))
    subscription = business.subscribe()
    row = business.update(subscription, {"metadata": {"note": "vip"}})
    assert (row.metadata["note"], row.subject_type, row.subject_id) == ("vip", "team", "1")
    for metadata in ({"payments_subject_id": "2"}, None):
        refusal = business.refusal(business.update, subscription, {"metadata": metadata})
        assert refusal == ("22023", "invalid_argument")


def test_updates_are_read_back_in_the_same_second(business):
    subscription = business.subscribe()
    business.control.clock(freeze=True)
    for quantity in (2, 3, 2, 1, 2):
        business.update(subscription, {"quantity": quantity})
        assert business.items(subscription)[0].quantity == quantity
        business.deliver()
        assert business.items(subscription)[0].quantity == quantity


@pytest.mark.parametrize("fault", ["drop", "half", "server_error"])
def test_an_update_survives_a_passing_failure(business, fault):
    subscription = business.subscribe()
    business.control.fault(fault, method="POST", path="/v1/subscriptions/*")
    business.update(subscription, {"quantity": 4})
    assert business.items(subscription)[0].quantity == 4
    assert len({request["idempotency_key"] for request in business.sent("/v1/subscriptions/*")}) == 1


def test_a_failed_change_leaves_no_trace(business):
    subscription = business.subscribe()
    before = business.db.execute("select * from payments.subscriptions").fetchone()
    for fault, expected in (("server_error", "PT502"), ("rate_limit", "PT429"), ("card_declined", "PT402")):
        business.control.fault(fault, method="POST", times=None, should_retry=False)
        assert business.refusal(business.update, subscription, {"quantity": 4})[0] == expected
        assert business.refusal(business.cancel, subscription)[0] == expected
        business.control.clear_faults()
    assert business.db.execute("select * from payments.subscriptions").fetchone() == before


@pytest.mark.parametrize(
    ("function", "arguments", "expected"),
    [
        ("cancel", ("sub_unknown",), ("PT404", "no_such_subscription")),
        ("cancel", ("sub_unknown", False), ("PT404", "no_such_subscription")),
        ("update", ("sub_unknown", {"quantity": 2}), ("PT404", "no_such_subscription")),
        ("cancel", ("cus_1",), ("22023", "invalid_argument")),
        ("cancel", (None,), ("22023", "invalid_argument")),
        ("update", ("sub_1", {}), ("22023", "invalid_argument")),
        ("update", ("sub_1", {"quantity": "2"}), ("22023", "invalid_argument")),
    ],
)
def test_what_cannot_be_done_to_a_subscription_is_said(business, function, arguments, expected):
    assert business.refusal(getattr(business, function), *arguments) == expected


def test_what_stripe_refuses_is_told(business):
    subscription = business.subscribe()
    refused = ("PT400", "stripe_refused")
    assert business.refusal(business.update, subscription, {"no_such_parameter": 1}) == refused
    assert business.refusal(business.update, subscription, {"lookup_key": "nowhere"})[0] == "22023"
    business.cancel(subscription, False)
    assert business.refusal(business.update, subscription, {"quantity": 2}) == refused


# Refunds


def test_a_payment_is_given_back(business):
    payment = business.pay(1000)
    row = business.refund(payment.id, reason="requested_by_customer")
    assert (row.type, row.status, row.amount, row.currency) == ("refund", "refunded", 1000, "usd")
    assert row.stripe_payment_intent_id == payment.stripe_payment_intent_id
    assert not any(key.startswith("payments_") for key in row.metadata)
    after = business.payment(id=payment.id)
    assert (after.status, after.amount_refunded) == ("refunded", 1000)
    business.deliver()
    assert business.payment(id=payment.id).amount_refunded == 1000
    assert business.db.value("select count(*) from payments.payment_history") == 2


def test_a_part_is_given_back_and_then_the_rest(business):
    payment = business.pay(1000)
    assert business.refund(payment.id, 300).amount == 300
    after = business.payment(id=payment.id)
    assert (after.status, after.amount_refunded) == ("partially_refunded", 300)
    assert business.refund(payment.id).amount == 700
    assert business.payment(id=payment.id).status == "refunded"


def test_an_invoices_payment_is_given_back(business):
    subscription = business.subscribe()
    payment = business.payment(stripe_subscription_id=subscription)
    row = business.refund(payment.id, 100)
    assert (row.stripe_invoice_id, row.stripe_subscription_id) == (payment.stripe_invoice_id, subscription)
    assert business.payment(id=payment.id).amount_refunded == 100


def test_what_paid_an_invoice_is_asked_for_if_nobody_told(business):
    subscription = business.buy(business.price(900), mode="subscription")["subscription"]
    for delivery in business.control.deliveries(types=["invoice.paid"]):
        business.db.execute("select payments.handle_webhook('test', %(body)s, %(signature)s)", delivery)
    payment = business.payment(stripe_subscription_id=subscription)
    assert (payment.stripe_payment_intent_id, payment.stripe_charge_id) == (None, None)

    business.refund(payment.id, 100)

    business.deliver()
    after = business.payment(id=payment.id)
    assert (after.amount_refunded, after.status) == (100, "partially_refunded")


def test_the_same_refund_on_purpose_is_a_second_one(business):
    payment = business.pay(1000)
    first = business.refund(payment.id, 100)
    second = business.refund(payment.id, 100)
    assert first.stripe_refund_id != second.stripe_refund_id
    assert business.payment(id=payment.id).amount_refunded == 200


def test_a_refund_that_was_rolled_back_is_found_again(business):
    payment = business.pay(1000)
    with business.db.connect() as connection, pytest.raises(ZeroDivisionError), connection.transaction():
        first = business.refund(payment.id, 100, connection=connection)
        raise ZeroDivisionError
    assert business.refund(payment.id, 100).stripe_refund_id == first.stripe_refund_id
    assert business.refunds() == 1


@pytest.mark.parametrize("told", [True, False])
def test_a_key_refunds_once_for_ever(business, told):
    payment = business.pay(1000)
    first = business.refund(payment.id, 100, None, "ticket 7")
    if told:
        business.deliver()
    business.control.clock(advance=3 * 24 * 60 * 60)
    assert business.refund(payment.id, 100, None, "ticket 7").id == first.id
    assert business.refusal(business.refund, payment.id, 200, None, "ticket 7") == ("23505", "key_reused")
    assert business.refund(payment.id, 100, None, "ticket 8").id != first.id
    assert business.refunds() == 2


def test_a_key_is_remembered_by_the_refund_itself(business):
    payment = business.pay(1000)
    with business.db.connect() as connection, pytest.raises(ZeroDivisionError), connection.transaction():
        first = business.refund(payment.id, 100, None, "ticket 7", connection=connection)
        raise ZeroDivisionError
    business.control.clock(advance=3 * 24 * 60 * 60)
    assert business.refund(payment.id, 100, None, "ticket 7").stripe_refund_id == first.stripe_refund_id
    assert business.refunds() == 1


def test_a_key_is_one_payments_own(business):
    one, other = business.pay(1000), business.pay(1000)
    first, second = (business.refund(payment.id, 100, None, "ticket 7") for payment in (one, other))
    assert first.stripe_refund_id != second.stripe_refund_id


def test_a_key_with_a_lost_answer_refunds_once_though_the_webhook_came_first(business):
    payment = business.pay(1000)
    business.db.execute("set payments.http_timeout = '300ms'")
    business.control.fault("drop", path="/v1/refunds", times=1)
    business.control.fault("silent", path="/v1/refunds", times=None)
    assert business.refusal(business.refund, payment.id, 100, None, "ticket 7")[0] in ("PT502", "PT504")
    business.control.clear_faults()
    business.db.execute("reset payments.http_timeout")
    business.deliver()
    assert business.refund(payment.id, 100, None, "ticket 7").amount == 100
    assert business.refunds() == 1


@pytest.mark.parametrize("fault", ["drop", "half", "server_error", "rate_limit"])
def test_a_refund_survives_a_passing_failure_once(business, fault):
    payment = business.pay(1000)
    business.control.fault(fault, method="POST", path="/v1/refunds", **({"retry_after": 0} if fault == "rate_limit" else {}))
    assert business.refund(payment.id, 100).amount == 100
    assert business.refunds() == 1


@pytest.mark.parametrize("processed", [True, False])
def test_an_error_that_stripe_keeps_does_not_stick(business, processed):
    payment = business.pay(1000)
    business.control.fault("server_error", method="POST", path="/v1/refunds", stored=True, processed=processed)
    assert business.refusal(business.refund, payment.id, 100) == ("PT502", "stripe_failed")
    assert business.refund(payment.id, 100).amount == 100
    assert business.refunds() == 1


def test_a_failed_refund_can_be_made_again(business):
    payment = business.pay(1000)
    first = business.refund(payment.id)
    business.control.fail_refund(first.stripe_refund_id)
    business.deliver()
    assert business.payment(id=payment.id).status == "succeeded"
    second = business.refund(payment.id)
    assert (second.amount, second.status) == (1000, "refunded")
    assert second.stripe_refund_id != first.stripe_refund_id


def test_two_clicks_at_once_are_one_refund(business):
    payment = business.pay(1000)
    business.control.fault("delay", path="/v1/refunds", before=0.5)
    connections = [business.db.connect() for _ in range(2)]
    with ThreadPoolExecutor() as clicks:
        rows = list(clicks.map(lambda connection: business.refund(payment.id, 100, connection=connection), connections))
    assert rows[0].id == rows[1].id
    assert business.refunds() == 1


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (("00000000-0000-4000-8000-000000000000",), ("PT404", "no_such_payment")),
        ((None,), ("22023", "invalid_argument")),
        (("payment", 0), ("22023", "invalid_argument")),
        (("payment", 1, None, ""), ("22023", "invalid_argument")),
        (("payment", 1001), ("PT400", "stripe_refused")),
        (("payment", 1, "because"), ("PT400", "stripe_refused")),
    ],
)
def test_what_cannot_be_refunded_is_said(business, arguments, expected):
    payment = business.pay(1000)
    arguments = [payment.id if argument == "payment" else argument for argument in arguments]
    assert business.refusal(business.refund, *arguments) == expected
    assert business.refunds() == 0


def test_neither_a_refund_nor_what_cost_nothing_is_refunded(business):
    refund = business.refund(business.pay(1000).id)
    assert business.refusal(business.refund, refund.id) == ("22023", "not_refundable")
    price = business.control.price(500)["id"]
    session = {"mode": "payment", "line_items": [{"price": price, "quantity": 1}], **PAGES}
    session = business.control.call("POST", "/v1/checkout/sessions", session)["id"]
    business.control.complete(session, outcome="free")
    business.deliver()
    free = business.payment(stripe_checkout_session_id=session)
    assert business.refusal(business.refund, free.id) == ("PT400", "nothing_paid")


def test_the_other_environments_payment_is_not_found(business):
    payment = business.pay(1000)
    business.db.execute("select payments.set_stripe_key('live', %s)", (business.stripe.live_key,))
    with pytest.raises(psycopg.Error) as refused:
        business.db.execute("select payments.refund_payment('live', %s)", (payment.id,))
    assert raised(refused.value) == ("PT404", "no_such_payment")


# Who may


def test_apps_may_do_none_of_it_and_admins_all(business):
    db, subscription, payment = business.db, business.subscribe(), business.pay(1000)
    db.execute("select payments.grant_app('authenticated'), payments.grant_admin('service_role')")
    statements = [
        (f"select payments.update_subscription('test', '{subscription}', '{{\"quantity\": 2}}')"),
        (f"select payments.cancel_subscription('test', '{subscription}')"),
        (f"select payments.refund_payment('test', '{payment.id}')"),
    ]
    for statement in statements:
        with pytest.raises(psycopg.errors.InsufficientPrivilege, match="permission denied for function"):
            with db.request(sub="1") as request:
                request.execute(statement)
        with db.request(role="service_role") as request:
            request.execute(statement)
    assert business.refunds() == 1
