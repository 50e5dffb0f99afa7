"""Refunds (https://docs.stripe.com/api/refunds)."""

from __future__ import annotations

from typing import Any

from ..api import Call, endpoint, listing, matches, page
from ..errors import invalid
from ..schema import Boolean, Choice, Integer, Metadata, Text, clearable, merged
from ..store import Object, Store


def open_refund(store: Store, charge: Object, given: dict[str, Any], status: str = "succeeded") -> Object:
    """Give back a charge or a part of it."""
    left = charge["amount_captured"] - charge["amount_refunded"]
    if left <= 0:
        raise invalid("Charge {} has already been refunded.".format(charge["id"]), code="charge_already_refunded")
    amount = given.get("amount", left)
    if amount > left:
        raise invalid(f"Refund amount ({amount}) is greater than unrefunded amount on charge ({left})", param="amount")
    refund = store.new(
        "refund",
        amount=amount,
        balance_transaction=store.ids.make("balance_transaction"),
        charge=charge["id"],
        currency=charge["currency"],
        customer=charge["customer"],
        customer_account=None,
        destination_details={
            "card": {"reference_status": "pending", "reference_type": "acquirer_reference_number", "type": "refund"},
            "type": "card",
        },
        metadata=merged({}, given.get("metadata", {})),
        payment_intent=charge["payment_intent"],
        payment_method=charge["payment_method"],
        reason=given.get("reason"),
        receipt_number=None,
        source_transfer_reversal=None,
        status=status,
        transfer_reversal=None,
    )
    del refund["livemode"]  # Refunds show none.
    store.add(refund)
    refunded = charge["amount_refunded"] + amount
    store.change(charge, "charge.refunded", amount_refunded=refunded, refunded=refunded >= charge["amount_captured"])
    store.emit("refund.created", refund)
    return refund


def _update(store: Store, refund: Object, event: str, **changes: Any) -> Object:
    store.change(refund, event, **changes)
    # The name that refund.updated had before 2024-10-28 is still sent.
    store.emit("charge.refund.updated", refund)
    return refund


def settle_refund(store: Store, refund: Object) -> Object:
    """A pending refund arrives."""
    return _update(store, refund, "refund.updated", status="succeeded")


def fail_refund(store: Store, refund: Object, reason: str = "lost_or_stolen_card") -> Object:
    """A refund comes back days later: its amount counts as paid again, and no charge event says so."""
    charge = store.require("charge", refund["charge"])
    store.change(charge, amount_refunded=charge["amount_refunded"] - refund["amount"], refunded=False)
    return _update(
        store,
        refund,
        "refund.failed",
        status="failed",
        failure_reason=reason,
        failure_balance_transaction=store.ids.make("balance_transaction"),
    )


def charge_of(store: Store, charge: str | None, intent: str | None) -> Object:
    """The charge that a refund or dispute is about."""
    if bool(charge) == bool(intent):
        raise invalid(
            "One of the following params should be provided for this request: payment_intent or charge.",
            code="parameter_missing",
            param="charge",
        )
    if charge:
        return store.require("charge", charge, "charge")
    found = store.require("payment_intent", str(intent), "payment_intent")
    if found["status"] not in ("succeeded", "requires_capture"):
        raise invalid(
            "This PaymentIntent ({}) does not have a successful charge to refund.".format(found["id"]),
            code="payment_intent_unexpected_state",
            param="payment_intent",
        )
    return store.require("charge", found["latest_charge"])


@endpoint(
    "POST",
    "/v1/refunds",
    permission="charge",
    amount=Integer(1),
    charge=Text(),
    currency=Text(3),
    customer=Text(),
    instructions_email=Text(),
    metadata=clearable(Metadata()),
    origin=Choice("customer_balance"),
    payment_intent=Text(),
    reason=Choice("duplicate", "fraudulent", "requested_by_customer"),
    refund_application_fee=Boolean(),
    reverse_transfer=Boolean(),
)
def create(call: Call) -> Object:
    charge = charge_of(call.store, call.get("charge"), call.get("payment_intent"))
    return open_refund(call.store, charge, call.params)


@endpoint("GET", "/v1/refunds/{id}", permission="charge")
def retrieve(call: Call) -> Object:
    return call.store.require("refund", call.id)


@endpoint("GET", "/v1/refunds", permission="charge", **listing(charge=Text(), payment_intent=Text()))
def index(call: Call) -> Object:
    return page(call, "refund", matches(call, "charge", "payment_intent"))
