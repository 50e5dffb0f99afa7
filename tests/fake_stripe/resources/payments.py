"""Payment intents and their charges (https://docs.stripe.com/api/payment_intents, /charges)."""

from __future__ import annotations

from typing import Any

from ..api import Call, endpoint, listing, matches, page
from ..errors import card_declined
from ..expand import included, listed
from ..schema import Anything, Email, Metadata, Text, clearable, merged
from ..store import Object, Store


def open_intent(
    store: Store,
    amount: int,
    currency: str,
    *,
    customer: str | None = None,
    order_reference: str | None = None,
    given: dict[str, Any] | None = None,
) -> Object:
    """A payment intent about to be confirmed. `given` is a session's `payment_intent_data`."""
    given = given or {}
    intent = store.new(
        "payment_intent",
        allowed_payment_method_types=None,
        amount=amount,
        amount_capturable=0,
        amount_details={"tip": {}},
        amount_received=0,
        application=None,
        application_fee_amount=None,
        automatic_payment_methods=None,
        canceled_at=None,
        cancellation_reason=None,
        capture_method=given.get("capture_method", "automatic"),
        client_secret=None,
        confirmation_method="automatic",
        currency=currency,
        customer=customer,
        customer_account=None,
        description=given.get("description"),
        excluded_payment_method_types=None,
        last_payment_error=None,
        latest_charge=None,
        managed_payments=None,
        metadata=dict(given.get("metadata", {})),
        next_action=None,
        on_behalf_of=None,
        payment_details={"customer_reference": None, "order_reference": order_reference},
        payment_method=None,
        payment_method_configuration_details=None,
        payment_method_options={
            "card": {
                "installments": None,
                "mandate_options": None,
                "network": None,
                "request_three_d_secure": "automatic",
            }
        },
        payment_method_types=["card"],
        payment_record=None,
        processing=None,
        receipt_email=given.get("receipt_email"),
        review=None,
        setup_future_usage=given.get("setup_future_usage"),
        shipping=None,
        source=None,
        statement_descriptor=given.get("statement_descriptor"),
        statement_descriptor_suffix=given.get("statement_descriptor_suffix"),
        status="requires_payment_method",
        transfer_data=None,
        transfer_group=given.get("transfer_group"),
    )
    intent["client_secret"] = "{}_secret_{}".format(intent["id"], store.ids.text(25))
    store.add(intent)
    store.emit("payment_intent.created", intent)
    return intent


def _card(amount: int) -> Object:
    return {
        "amount_authorized": amount,
        "authorization_code": "123456",
        "brand": "visa",
        "checks": {"address_line1_check": None, "address_postal_code_check": None, "cvc_check": "pass"},
        "country": "US",
        "electronic_commerce_indicator": None,
        "exp_month": 12,
        "exp_year": 2034,
        "extended_authorization": {"status": "disabled"},
        "fingerprint": "Xt5EWLLDS7FJjR1c",
        "funding": "credit",
        "incremental_authorization": {"status": "unavailable"},
        "installments": None,
        "last4": "4242",
        "mandate": None,
        "multicapture": {"status": "unavailable"},
        "network": "visa",
        "network_token": {"used": False},
        "network_transaction_id": "104205110110210",
        "overcapture": {"maximum_amount_capturable": amount, "status": "unavailable"},
        "regulated_status": "unregulated",
        "three_d_secure": None,
        "transaction_link_id": None,
        "wallet": None,
    }


def _bank() -> Object:
    return {
        "bank_code": "37040044",
        "branch_code": "",
        "country": "DE",
        "fingerprint": "PbhEFpsTRl7wEc0q",
        "last4": "3000",
        "mandate": None,
    }


def _outcome(declined: str | None) -> Object:
    return {
        "advice_code": None,
        "network_advice_code": None,
        "network_decline_code": "01" if declined else None,
        "network_status": "declined_by_network" if declined else "approved_by_network",
        "reason": declined,
        "risk_level": "normal",
        "risk_score": 25,
        "seller_message": "The bank did not return any further details with this decline."
        if declined
        else "Payment complete.",
        "type": "issuer_declined" if declined else "authorized",
    }


def _open_charge(store: Store, intent: Object, buyer: Object, status: str, declined: str | None = None) -> Object:
    bank = status == "pending"
    charge = store.new(
        "charge",
        amount=intent["amount"],
        amount_captured=0,
        amount_refunded=0,
        application=None,
        application_fee=None,
        application_fee_amount=None,
        balance_transaction=None,
        billing_details={
            "address": {
                "city": None,
                "country": "US",
                "line1": None,
                "line2": None,
                "postal_code": "94107",
                "state": None,
            },
            "email": buyer["email"],
            "name": buyer["name"],
            "phone": None,
            "tax_id": None,
        },
        calculated_statement_descriptor="FAKE STRIPE",
        captured=False,
        currency=intent["currency"],
        customer=intent["customer"],
        description=intent["description"],
        disputed=False,
        failure_balance_transaction=None,
        failure_code="card_declined" if declined else None,
        failure_message="Your card was declined." if declined else None,
        fraud_details={},
        metadata=dict(intent["metadata"]),
        on_behalf_of=None,
        outcome=_outcome(declined),
        paid=False,
        payment_intent=intent["id"],
        payment_method=store.ids.make("payment_method"),
        payment_method_details={"sepa_debit": _bank(), "type": "sepa_debit"}
        if bank
        else {"card": _card(intent["amount"]), "type": "card"},
        radar_options={},
        receipt_email=intent["receipt_email"],
        receipt_number=None,
        receipt_url=None,
        refunded=False,
        review=None,
        shipping=None,
        source=None,
        source_transfer=None,
        statement_descriptor=intent["statement_descriptor"],
        statement_descriptor_suffix=intent["statement_descriptor_suffix"],
        status=status,
        transfer_data=None,
        transfer_group=intent["transfer_group"],
    )
    return store.add(charge)


def _capture(store: Store, charge: Object, amount: int) -> None:
    charge.update(
        amount_captured=amount,
        captured=True,
        balance_transaction=store.ids.make("balance_transaction"),
        receipt_url="https://pay.stripe.com/receipts/payment/" + store.ids.text(40),
    )


def charge_intent(store: Store, intent: Object, buyer: Object) -> Object:
    """The bank says yes: the intent has succeeded, or awaits its capture."""
    charge = _open_charge(store, intent, buyer, "succeeded")
    charge["paid"] = True
    done: Object = {
        "latest_charge": charge["id"],
        "last_payment_error": None,
        "payment_method": charge["payment_method"],
    }
    if intent["capture_method"] == "manual":
        store.emit("charge.succeeded", charge)
        store.change(intent, status="requires_capture", amount_capturable=intent["amount"], **done)
        store.emit("payment_intent.amount_capturable_updated", intent)
        return charge
    _capture(store, charge, intent["amount"])
    store.emit("charge.succeeded", charge)
    store.change(intent, status="succeeded", amount_received=intent["amount"], **done)
    store.emit("payment_intent.succeeded", intent)
    return charge


def decline_intent(store: Store, intent: Object, buyer: Object, decline_code: str = "generic_decline") -> Object:
    """The bank says no: the intent waits for another payment method."""
    charge = _open_charge(store, intent, buyer, "failed", declined=decline_code)
    store.emit("charge.failed", charge)
    error = card_declined(charge["id"], decline_code).error
    store.change(intent, status="requires_payment_method", latest_charge=charge["id"], last_payment_error=error)
    store.emit("payment_intent.payment_failed", intent)
    return charge


def await_intent(store: Store, intent: Object, buyer: Object) -> Object:
    """A bank debit starts: the answer comes days later."""
    charge = _open_charge(store, intent, buyer, "pending")
    store.emit("charge.pending", charge)
    store.change(
        intent,
        status="processing",
        latest_charge=charge["id"],
        payment_method=charge["payment_method"],
        payment_method_types=["sepa_debit"],
    )
    store.emit("payment_intent.processing", intent)
    return charge


def settle_intent(store: Store, intent: Object, succeeded: bool) -> Object:
    """The answer to a bank debit."""
    charge = store.require("charge", intent["latest_charge"])
    if succeeded:
        _capture(store, charge, intent["amount"])
        store.change(charge, status="succeeded", paid=True)
        store.emit("charge.succeeded", charge)
        store.change(intent, status="succeeded", amount_received=intent["amount"])
        store.emit("payment_intent.succeeded", intent)
        return charge
    store.change(
        charge, status="failed", failure_code="insufficient_funds", failure_message="The account has too little money."
    )
    store.emit("charge.failed", charge)
    error = {
        "charge": charge["id"],
        "code": "payment_intent_payment_attempt_failed",
        "doc_url": "https://stripe.com/docs/error-codes/payment-intent-payment-attempt-failed",
        "message": "The payment failed.",
        "type": "card_error",
    }
    store.change(intent, status="requires_payment_method", last_payment_error=error, payment_method=None)
    store.emit("payment_intent.payment_failed", intent)
    return charge


def capture_intent(store: Store, intent: Object, amount: int | None = None) -> Object:
    """Take the money of an authorised intent, or less of it; the rest is let go."""
    amount = intent["amount_capturable"] if amount is None else amount
    charge = store.require("charge", intent["latest_charge"])
    _capture(store, charge, amount)
    store.emit("charge.captured", charge)
    store.change(intent, status="succeeded", amount_capturable=0, amount_received=amount)
    store.emit("payment_intent.succeeded", intent)
    return charge


@included("charge", "refunds")
def _refunds(store: Store, charge: Object) -> Object:
    data = [refund for refund in store.all("refund") if refund["charge"] == charge["id"]]
    return listed(data[:10], "/v1/charges/{}/refunds".format(charge["id"]), len(data) > 10)


@endpoint("GET", "/v1/payment_intents/{id}", permission="payment_intent")
def retrieve_intent(call: Call) -> Object:
    return call.store.require("payment_intent", call.id)


@endpoint(
    "GET", "/v1/payment_intents", permission="payment_intent", **listing(customer=Text(), customer_account=Text())
)
def index_intents(call: Call) -> Object:
    return page(call, "payment_intent", matches(call, "customer", "customer_account"))


@endpoint("GET", "/v1/charges/{id}", permission="charge")
def retrieve_charge(call: Call) -> Object:
    return call.store.require("charge", call.id)


@endpoint(
    "POST",
    "/v1/charges/{id}",
    permission="charge",
    customer=Text(),
    description=Text(40000),
    fraud_details=Anything(),
    metadata=clearable(Metadata()),
    receipt_email=Email(),
    shipping=Anything(),
    transfer_group=Text(),
)
def update_charge(call: Call) -> Object:
    charge = call.store.require("charge", call.id)
    changes = {name: value for name, value in call.params.items() if name != "expand"}
    if "metadata" in changes:
        changes["metadata"] = merged(charge["metadata"], changes["metadata"])
    return call.store.change(charge, "charge.updated", **changes)


@endpoint(
    "GET",
    "/v1/charges",
    permission="charge",
    **listing(customer=Text(), payment_intent=Text(), transfer_group=Text()),
)
def index_charges(call: Call) -> Object:
    return page(call, "charge", matches(call, "customer", "payment_intent", "transfer_group"))
