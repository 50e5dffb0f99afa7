"""What happens at Stripe without an API call of ours: buyers pay, banks decide, time passes.

Each function changes the objects as Stripe would and sends the events in an order that Stripe has been seen to use.
"""

from __future__ import annotations

from .errors import invalid
from .resources.customers import open_customer
from .resources.invoices import (
    attach_intent,
    finalize_invoice,
    invoice_failed,
    invoice_line,
    invoice_paid,
    open_invoice,
    payments_of,
)
from .resources.payments import (
    await_intent,
    charge_intent,
    decline_intent,
    open_intent,
    settle_intent,
)
from .resources.subscriptions import (
    change_subscription,
    end_subscription,
    live,
    open_subscription,
    period_end,
    roll_period,
    subscription_lines,
)
from .store import Object, Store

ADDRESS = {"city": None, "country": "US", "line1": None, "line2": None, "postal_code": "94107", "state": None}


def _require_open(session: Object) -> None:
    if session["status"] != "open":
        raise invalid("This Checkout Session is {}, not open.".format(session["status"]))


def _buyer(store: Store, session: Object, email: str | None, name: str | None) -> Object:
    customer = store.get("customer", session["customer"])
    known = email or (customer["email"] if customer else None) or session["customer_email"]
    return {"email": known or "jenny.rosen@example.com", "name": name or (customer or {}).get("name") or "Jenny Rosen"}


def _customer(store: Store, session: Object, buyer: Object, always: bool) -> Object | None:
    customer = store.get("customer", session["customer"])
    data = store.notes[session["id"]]["payment_intent_data"]
    wanted = always or session["customer_creation"] == "always" or "setup_future_usage" in data
    if customer is None and wanted:
        customer = open_customer(store, {"email": buyer["email"], "name": buyer["name"], "address": ADDRESS})
    return customer


def _complete(store: Store, session: Object, buyer: Object, payment_status: str, **ids: str | None) -> Object:
    """The buyer is sent to the success URL."""
    store.change(
        session,
        **ids,
        collected_information={"business_name": None, "individual_name": None, "shipping_details": None},
        customer_details={
            "address": dict(ADDRESS),
            "business_name": None,
            "email": buyer["email"],
            "individual_name": None,
            "name": buyer["name"],
            "phone": None,
            "tax_exempt": "none",
            "tax_ids": None,
        },
        payment_status=payment_status,
        status="complete",
        url=None,
    )
    store.emit("checkout.session.completed", session)
    return session


def _session_intent(store: Store, session: Object, customer: Object | None) -> Object:
    """The session's payment intent, which comes to be when the buyer first tries to pay."""
    intent = store.get("payment_intent", session["payment_intent"] or store.notes[session["id"]].get("intent"))
    if intent is not None:
        return intent
    intent = open_intent(
        store,
        session["amount_total"],
        session["currency"],
        customer=customer["id"] if customer else None,
        order_reference=session["id"],
        given=store.notes[session["id"]]["payment_intent_data"],
    )
    if session["mode"] == "payment":
        store.change(session, payment_intent=intent["id"])
    store.notes[session["id"]]["intent"] = intent["id"]
    return intent


def decline(
    store: Store,
    session: Object,
    decline_code: str = "generic_decline",
    email: str | None = None,
    name: str | None = None,
) -> Object:
    """The buyer's card is declined; the session stays open for another try."""
    _require_open(session)
    buyer = _buyer(store, session, email, name)
    customer = store.get("customer", session["customer"])
    return decline_intent(store, _session_intent(store, session, customer), buyer, decline_code)


def complete(
    store: Store, session: Object, outcome: str = "paid", email: str | None = None, name: str | None = None
) -> Object:
    """The buyer completes the session.

    `outcome` is `paid`; `processing` for a bank debit that `settle` decides later; or `free` for a promotion code
    that takes everything off.
    """
    _require_open(session)
    buyer = _buyer(store, session, email, name)
    if outcome == "free":
        off = session["amount_subtotal"]
        details = {**session["total_details"], "amount_discount": off}
        store.change(session, amount_total=0, total_details=details)
    if session["mode"] == "setup":
        customer = _customer(store, session, buyer, always=False)
        return _complete(store, session, buyer, "no_payment_required", customer=customer["id"] if customer else None)
    if session["mode"] == "subscription":
        return _subscribe(store, session, buyer, outcome)
    return _buy(store, session, buyer, outcome)


def _buy(store: Store, session: Object, buyer: Object, outcome: str) -> Object:
    invoicing = session["invoice_creation"]["enabled"]
    customer = _customer(store, session, buyer, always=invoicing)
    ids = {"customer": customer["id"] if customer else None}
    if not session["amount_total"]:
        return _complete(store, session, buyer, "no_payment_required", **ids)
    intent = _session_intent(store, session, customer)
    store.change(intent, customer=ids["customer"])
    if outcome == "processing":
        await_intent(store, intent, buyer)
        return _complete(store, session, buyer, "unpaid", **ids)
    charge_intent(store, intent, buyer)
    _complete(store, session, buyer, "paid" if intent["status"] == "succeeded" else "unpaid", **ids)
    if invoicing and customer:
        # The invoice follows the payment, and only then does the session name it.
        lines = [
            invoice_line(store, line["price"], line["quantity"], line["amount_total"], None)
            for line in store.notes[session["id"]]["lines"]
        ]
        given = session["invoice_creation"]["invoice_data"]["metadata"]
        invoice = open_invoice(store, customer, session["currency"], lines, "manual", metadata=given)
        finalize_invoice(store, invoice)
        attach_intent(store, invoice, intent)
        invoice_paid(store, invoice)
        store.change(session, invoice=invoice["id"])
    return session


def _subscribe(store: Store, session: Object, buyer: Object, outcome: str) -> Object:
    notes = store.notes[session["id"]]
    customer = _customer(store, session, buyer, always=True)
    assert customer is not None
    recurring = [line for line in notes["lines"] if line["price"]["recurring"]]
    once = [line for line in notes["lines"] if not line["price"]["recurring"]]
    method = store.ids.make("payment_method")
    subscription = open_subscription(store, customer, recurring, notes["subscription_data"], method)
    store.emit("customer.subscription.created", subscription)
    lines = subscription_lines(store, subscription)
    lines += [invoice_line(store, line["price"], line["quantity"], line["amount_total"], None) for line in once]
    if outcome == "free":
        for line in lines:
            line["amount"] = 0
    invoice = open_invoice(store, customer, session["currency"], lines, "subscription_create", subscription)
    finalize_invoice(store, invoice)
    ids = {"customer": customer["id"], "subscription": subscription["id"], "invoice": invoice["id"]}
    running = "trialing" if subscription["status"] == "trialing" else "active"
    if not invoice["amount_due"]:
        invoice_paid(store, invoice)
        change_subscription(store, subscription, status=running, latest_invoice=invoice["id"])
        return _complete(store, session, buyer, "no_payment_required", **ids)
    intent = _session_intent(store, session, customer)
    details = {**intent["payment_details"], "order_reference": invoice["id"]}
    store.change(intent, customer=customer["id"], setup_future_usage="off_session", payment_details=details)
    attach_intent(store, invoice, intent)
    if outcome == "processing":
        await_intent(store, intent, buyer)
        change_subscription(store, subscription, status=running, latest_invoice=invoice["id"])
        return _complete(store, session, buyer, "unpaid", **ids)
    charge_intent(store, intent, buyer)
    invoice_paid(store, invoice)
    change_subscription(store, subscription, status=running, latest_invoice=invoice["id"])
    return _complete(store, session, buyer, "paid", **ids)


def settle(store: Store, session: Object, succeeded: bool = True) -> Object:
    """The bank decides on a session that was completed with `processing`."""
    if session["status"] != "complete" or session["payment_status"] != "unpaid":
        raise invalid("This Checkout Session is not waiting for its payment.")
    intent = store.require("payment_intent", store.notes[session["id"]]["intent"])
    settle_intent(store, intent, succeeded)
    if session["mode"] == "subscription":
        invoice = store.require("invoice", session["invoice"])
        subscription = store.require("subscription", session["subscription"])
        if succeeded:
            invoice_paid(store, invoice)
        else:
            invoice_failed(store, invoice)
            change_subscription(store, subscription, status="past_due")
    if succeeded:
        store.change(session, payment_status="paid")
        store.emit("checkout.session.async_payment_succeeded", session)
    else:
        # The session itself stays `complete` and `unpaid`.
        store.emit("checkout.session.async_payment_failed", session)
    return session


def _pay_invoice(store: Store, invoice: Object, subscription: Object, succeeded: bool) -> Object:
    customer = store.require("customer", invoice["customer"])
    buyer = {"email": customer["email"], "name": customer["name"]}
    payments = payments_of(store, invoice)
    if payments:
        intent = store.require("payment_intent", payments[0]["payment"]["payment_intent"])
    else:
        intent = open_intent(
            store,
            invoice["amount_due"],
            invoice["currency"],
            customer=customer["id"],
            order_reference=invoice["id"],
            given={"description": "Subscription update", "setup_future_usage": "off_session"},
        )
        attach_intent(store, invoice, intent)
    if succeeded:
        charge_intent(store, intent, buyer)
        invoice_paid(store, invoice)
        if subscription["status"] in ("past_due", "unpaid", "incomplete"):
            change_subscription(store, subscription, status="active")
    else:
        decline_intent(store, intent, buyer)
        invoice_failed(store, invoice)
        if subscription["status"] == "active":
            change_subscription(store, subscription, status="past_due")
    return invoice


def renew(store: Store, subscription: Object, succeeded: bool = True) -> Object:
    """The period ends: the subscription ends with it if it was to be cancelled, else the next one is billed.

    The clock stays where it is, as it does for Stripe's own test clocks.
    """
    if not live(subscription):
        raise invalid("This subscription is {}.".format(subscription["status"]))
    due = period_end(store, subscription)
    if subscription["cancel_at"] is not None and subscription["cancel_at"] <= due:
        return end_subscription(store, subscription)
    customer = store.require("customer", subscription["customer"])
    roll_period(store, subscription)
    running = "active" if subscription["status"] == "trialing" else subscription["status"]
    lines = _renewal_lines(store, subscription, due)
    invoice = open_invoice(store, customer, subscription["currency"], lines, "subscription_cycle", subscription)
    change_subscription(store, subscription, status=running, latest_invoice=invoice["id"])
    finalize_invoice(store, invoice)
    if not invoice["amount_due"]:
        return invoice_paid(store, invoice)
    return _pay_invoice(store, invoice, subscription, succeeded)


def _renewal_lines(store: Store, subscription: Object, due: int) -> list[Object]:
    after_trial = {**subscription, "status": "active"}
    return [line for line in subscription_lines(store, after_trial) if line["period"]["start"] == due]


def pay_invoice(store: Store, invoice: Object, succeeded: bool = True) -> Object:
    """Another attempt at an open invoice of a subscription."""
    if invoice["status"] != "open":
        raise invalid("This invoice is {}.".format(invoice["status"]))
    subscription = store.require("subscription", invoice["parent"]["subscription_details"]["subscription"])
    return _pay_invoice(store, invoice, subscription, succeeded)


def cancel(store: Store, subscription: Object, at_period_end: bool = False) -> Object:
    """The subscriber cancels in the portal, which sets `cancel_at` where billing is flexible."""
    if not at_period_end:
        return end_subscription(store, subscription)
    details = {**subscription["cancellation_details"], "reason": "cancellation_requested"}
    return change_subscription(
        store,
        subscription,
        cancel_at=period_end(store, subscription),
        canceled_at=store.clock.now(),
        cancellation_details=details,
    )


def resume(store: Store, subscription: Object) -> Object:
    """The subscriber takes the cancellation back."""
    details = {**subscription["cancellation_details"], "reason": None}
    return change_subscription(
        store, subscription, cancel_at=None, cancel_at_period_end=False, canceled_at=None, cancellation_details=details
    )


def give_up(store: Store, subscription: Object, status: str = "canceled") -> Object:
    """The last retry failed: the subscription ends, or stays as `unpaid`."""
    if status == "canceled":
        return end_subscription(store, subscription, {"reason": "payment_failed"})
    return change_subscription(store, subscription, status=status)
