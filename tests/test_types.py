"""Stripe's types for what we send and for what the fake answers. Runs last, over what all tests before it have seen."""

from __future__ import annotations

import pytest
from harness import npm
from psycopg.types.json import Jsonb
from shop import Shop
from stripe_types import SEEN, Seen, parameters_of

pytestmark = pytest.mark.timeout(600)


@pytest.fixture(autouse=True)
def node() -> None:
    if reason := npm.missing():
        pytest.skip(f"Stripe's types need npm and node 20 or newer: {reason}")


def test_everything_that_went_over_the_wire(shop: Shop, tmp_path):
    # Both before any webhook, after which no price has to be asked for.
    for session in (
        shop.checkout("alice", mode="subscription", line_items=[{"lookup_key": "pro_monthly", "quantity": 2}]),
        shop.checkout("alice", metadata={"order_id": "7"}, customer_email="alice@example.com", idempotency_key="o:7"),
    ):
        shop.stripe.control.complete(session.stripe_checkout_session_id)
    shop.deliver()
    shop.portal("alice", return_url="https://shop.example/billing")
    subscription = shop.db.value("select stripe_subscription_id from payments.subscriptions")
    for flow in (
        {"type": "payment_method_update"},
        {"type": "subscription_cancel", "subscription": subscription},
        {"type": "subscription_update", "subscription": subscription},
    ):
        shop.portal("alice", flow=flow)
    shop.db.execute("call payments.sync('test')")
    shop.db.execute("call payments.poll_events('test')")
    manage(shop, subscription)
    SEEN.take(shop.stripe)
    assert SEEN.judge(tmp_path) == ""
    assert SEEN.kinds() >= {
        *("AccountRetrieveCurrentParams", "CustomerCreateParams", "PriceListParams", "PriceRetrieveParams"),
        *("Checkout.SessionCreateParams", "BillingPortal.SessionCreateParams", "EventListParams", "ChargeListParams"),
        *("ProductCreateParams", "ProductUpdateParams", "ProductDeleteParams"),
        *("PriceCreateParams", "PriceUpdateParams"),
        *("SubscriptionUpdateParams", "SubscriptionCancelParams", "RefundCreateParams"),
        *("Customer", "Product", "Price", "Checkout.Session", "Subscription", "Invoice", "PaymentIntent", "Charge"),
    }


def manage(shop: Shop, subscription: str) -> None:
    """Has an admin change the catalog, the subscription and a payment."""
    value = shop.db.value
    blue = Jsonb({"color": "blue"})
    mug = value("select (payments.create_product('test', 'Mug', 'Hot', true, %s, 'mug')).stripe_product_id", (blue,))
    value("select payments.update_product('test', %s, %s)", (mug, Jsonb({"name": "Cup", "active": True})))
    price = value("select (payments.create_price('test', %s, 'usd', 900, 'month', 1, 'mug')).stripe_price_id", (mug,))
    value("select payments.update_price('test', %s, %s)", (price, Jsonb({"metadata": {"size": "L"}})))
    value("select payments.archive_price('test', %s)", (price,))
    value("select payments.delete_product('test', (payments.create_product('test', 'Cap')).stripe_product_id)")
    value("select payments.update_subscription('test', %s, %s)", (subscription, Jsonb({"quantity": 3})))
    value("select payments.cancel_subscription('test', %s)", (subscription,))
    value("select payments.cancel_subscription('test', %s, false)", (subscription,))
    payment = value("select id from payments.payment_history where type = 'one_time_payment'")
    value("select payments.refund_payment('test', %s, 100, 'requested_by_customer')", (payment,))


@pytest.mark.parametrize(
    ("kind", "literal", "complaint"),
    [
        ("Checkout.SessionCreateParams", {"mode": True}, "Mode"),
        ("Checkout.SessionCreateParams", {"mode": "payment", "customer_mail": "a@example.com"}, "customer_mail"),
        ("PriceListParams", {"limit": "many"}, "number"),
        ("Refund", {"id": "re_1", "object": "refund"}, "missing"),
    ],
)
def test_what_is_wrong_is_seen(tmp_path, kind, literal, complaint):
    seen = Seen()
    seen.add(kind, literal)
    assert complaint in seen.judge(tmp_path)


@pytest.mark.parametrize(
    ("method", "path", "kind"),
    [
        ("POST", "/v1/checkout/sessions", "Checkout.SessionCreateParams"),
        ("POST", "/v1/checkout/sessions/cs_1/expire", "Checkout.SessionExpireParams"),
        ("GET", "/v1/checkout/sessions/cs_1", "Checkout.SessionRetrieveParams"),
        ("GET", "/v1/invoice_payments", "InvoicePaymentListParams"),
        ("POST", "/v1/billing_portal/configurations/bpc_1", "BillingPortal.ConfigurationUpdateParams"),
        ("DELETE", "/v1/subscriptions/sub_1", "SubscriptionCancelParams"),
    ],
)
def test_a_request_s_type_has_the_package_s_name(method, path, kind):
    assert parameters_of(method, path) == kind
