"""Disputes (https://docs.stripe.com/api/disputes)."""

from __future__ import annotations

from ..api import Call, endpoint, listing, matches, page
from ..schema import Text
from ..store import Object, Store

_EVIDENCE = (
    "access_activity_log billing_address cancellation_policy cancellation_policy_disclosure cancellation_rebuttal "
    "customer_communication customer_email_address customer_name customer_purchase_ip customer_signature "
    "duplicate_charge_documentation duplicate_charge_explanation duplicate_charge_id product_description receipt "
    "refund_policy refund_policy_disclosure refund_refusal_explanation service_date service_documentation "
    "shipping_address shipping_carrier shipping_date shipping_documentation shipping_tracking_number "
    "uncategorized_file uncategorized_text"
).split()


def _moved(store: Store, dispute: Object, amount: int, type: str) -> Object:
    now = store.clock.now()
    return {
        "id": store.ids.make("balance_transaction"),
        "object": "balance_transaction",
        "amount": amount,
        "available_on": now,
        "balance_type": "payments",
        "created": now,
        "currency": dispute["currency"],
        "description": "Chargeback {} for {}".format(type, dispute["charge"]),
        "exchange_rate": None,
        "fee": 1500 if amount < 0 else 0,
        "fee_details": [],
        "net": amount - (1500 if amount < 0 else 0),
        "reporting_category": "dispute" if amount < 0 else "dispute_reversal",
        "source": dispute["id"],
        "status": "available",
        "type": "adjustment",
    }


def open_dispute(store: Store, charge: Object, amount: int | None = None, reason: str = "fraudulent") -> Object:
    """The buyer's bank takes the money back until the case is decided."""
    dispute = store.new(
        "dispute",
        amount=charge["amount"] if amount is None else amount,
        balance_transactions=[],
        charge=charge["id"],
        currency=charge["currency"],
        enhanced_eligibility_types=[],
        evidence={**{field: None for field in _EVIDENCE}, "enhanced_evidence": {}},
        evidence_details={
            "due_by": store.clock.now() + 9 * 86400,
            "enhanced_eligibility": {},
            "has_evidence": False,
            "past_due": False,
            "submission_count": 0,
            "submission_method": "not_submitted",
        },
        intended_submission_method=None,
        is_charge_refundable=False,
        metadata={},
        payment_intent=charge["payment_intent"],
        payment_method_details={
            "card": {"brand": "visa", "case_type": "chargeback", "network": "visa", "network_reason_code": "10.4"},
            "type": "card",
        },
        reason=reason,
        status="needs_response",
    )
    store.add(dispute)
    store.change(charge, "charge.updated", disputed=True)
    store.emit("charge.dispute.created", dispute)
    taken = _moved(store, dispute, -dispute["amount"], "withdrawal")
    store.change(dispute, "charge.dispute.funds_withdrawn", balance_transactions=[taken])
    return dispute


def update_dispute(store: Store, dispute: Object, status: str) -> Object:
    """The case moves on without an end, as to `under_review`."""
    return store.change(dispute, "charge.dispute.updated", status=status)


def close_dispute(store: Store, dispute: Object, status: str) -> Object:
    """The case is decided: `won` brings the money back."""
    store.change(dispute, "charge.dispute.closed", status=status)
    if status == "won":
        back = _moved(store, dispute, dispute["amount"], "reversal")
        moved = dispute["balance_transactions"] + [back]
        store.change(dispute, "charge.dispute.funds_reinstated", balance_transactions=moved)
    return dispute


@endpoint("GET", "/v1/disputes/{id}", permission="dispute")
def retrieve(call: Call) -> Object:
    return call.store.require("dispute", call.id)


@endpoint("GET", "/v1/disputes", permission="dispute", **listing(charge=Text(), payment_intent=Text()))
def index(call: Call) -> Object:
    return page(call, "dispute", matches(call, "charge", "payment_intent"))
