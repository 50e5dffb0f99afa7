"""Invoices and what was paid on them (https://docs.stripe.com/api/invoices, /invoice-payment)."""

from __future__ import annotations

from ..api import Call, endpoint, listing, matches, page
from ..errors import invalid
from ..expand import included, listed
from ..schema import Choice, Hash, Text, needed
from ..store import Object, Store

NO_TAX = {"disabled_reason": None, "enabled": False, "liability": None, "provider": None, "status": None}


def invoice_line(store: Store, price: Object, quantity: int | None, amount: int, item: Object | None) -> Object:
    """One line: of a subscription item, or of a one-time price that was bought with it."""
    now = store.clock.now()
    period = {"start": now, "end": now}
    if item is None:
        parent = {
            "invoice_item_details": {
                "invoice_item": "ii_1" + store.ids.text(23),
                "proration": False,
                "proration_details": {"credited_items": None},
                "subscription": None,
            },
            "subscription_item_details": None,
            "type": "invoice_item_details",
        }
    else:
        period = {"start": item["current_period_start"], "end": item["current_period_end"]}
        parent = {
            "invoice_item_details": None,
            "subscription_item_details": {
                "invoice_item": None,
                "proration": False,
                "proration_details": {"credited_items": None},
                "subscription": item["subscription"],
                "subscription_item": item["id"],
            },
            "type": "subscription_item_details",
        }
    product = store.get("product", price["product"])
    return {
        "id": store.ids.make("line_item"),
        "object": "line_item",
        "amount": amount,
        "currency": price["currency"],
        "description": "{} × {}".format(quantity or 1, product["name"] if product else price["product"]),
        "discount_amounts": [],
        "discountable": True,
        "discounts": [],
        "invoice": None,
        "livemode": store.livemode,
        "metadata": {},
        "parent": parent,
        "period": period,
        "pretax_credit_amounts": [],
        "pricing": {
            "price_details": {"price": price["id"], "product": price["product"]},
            "type": "price_details",
            "unit_amount_decimal": price["unit_amount_decimal"],
        },
        "quantity": quantity,
        "quantity_decimal": None if quantity is None else str(quantity),
        "subscription": item["subscription"] if item else None,
        "subtotal": amount,
        "taxes": [],
    }


def open_invoice(
    store: Store,
    customer: Object,
    currency: str,
    lines: list[Object],
    reason: str,
    subscription: Object | None = None,
    metadata: Object | None = None,
) -> Object:
    """A draft. The subscription's metadata is a snapshot, as at Stripe."""
    total = sum(line["amount"] for line in lines)
    now = store.clock.now()
    invoice = store.new(
        "invoice",
        account_country="US",
        account_name="Fake Stripe",
        account_tax_ids=None,
        amount_due=max(total, 0),
        amount_overpaid=0,
        amount_paid=0,
        amount_remaining=max(total, 0),
        amount_shipping=0,
        application=None,
        attempt_count=0,
        attempted=False,
        auto_advance=True,
        automatic_tax=dict(NO_TAX),
        automatically_finalizes_at=now + 3600 if reason == "subscription_cycle" else None,
        billing_reason=reason,
        collection_method="charge_automatically",
        currency=currency,
        custom_fields=None,
        customer=customer["id"],
        customer_account=None,
        customer_address=customer["address"],
        customer_email=customer["email"],
        customer_name=customer["name"],
        customer_phone=customer["phone"],
        customer_shipping=customer["shipping"],
        customer_tax_exempt=customer["tax_exempt"],
        customer_tax_ids=[],
        default_payment_method=None,
        default_source=None,
        default_tax_rates=[],
        description=None,
        discounts=[],
        due_date=None,
        effective_at=None,
        ending_balance=None,
        footer=None,
        from_invoice=None,
        hosted_invoice_url=None,
        invoice_pdf=None,
        issuer={"type": "self"},
        last_finalization_error=None,
        latest_revision=None,
        lines=None,
        metadata=dict(metadata or {}),
        next_payment_attempt=None,
        number=None,
        on_behalf_of=None,
        parent={
            "quote_details": None,
            "subscription_details": {
                "metadata": dict(subscription["metadata"]),
                "subscription": subscription["id"],
            },
            "type": "subscription_details",
        }
        if subscription
        else None,
        payment_settings={"default_mandate": None, "payment_method_options": None, "payment_method_types": None},
        period_end=now,
        period_start=now,
        post_payment_credit_notes_amount=0,
        pre_payment_credit_notes_amount=0,
        receipt_number=None,
        rendering=None,
        shipping_cost=None,
        shipping_details=None,
        starting_balance=0,
        statement_descriptor=None,
        status="draft",
        status_transitions={"finalized_at": None, "marked_uncollectible_at": None, "paid_at": None, "voided_at": None},
        subtotal=total,
        subtotal_excluding_tax=total,
        test_clock=None,
        total=total,
        total_discount_amounts=[],
        total_excluding_tax=total,
        total_pretax_credit_amounts=[],
        total_taxes=[],
        webhooks_delivered_at=None,
    )
    for line in lines:
        line["invoice"] = invoice["id"]
    invoice["lines"] = listed(lines[:10], "/v1/invoices/{}/lines".format(invoice["id"]), len(lines) > 10)
    store.add(invoice)
    store.notes[invoice["id"]] = {"lines": lines}
    store.emit("invoice.created", invoice)
    return invoice


def finalize_invoice(store: Store, invoice: Object) -> Object:
    """The draft becomes an open invoice with a number."""
    customer = store.require("customer", invoice["customer"])
    number = "{}-{:04d}".format(customer["invoice_prefix"], customer["next_invoice_sequence"])
    customer["next_invoice_sequence"] += 1
    now = store.clock.now()
    page_url = f"https://invoice.stripe.com/i/{store.account}/{store.ids.text(24)}"
    store.change(
        invoice,
        automatically_finalizes_at=None,
        effective_at=now,
        ending_balance=0,
        hosted_invoice_url=page_url,
        invoice_pdf=page_url + "/pdf",
        number=number,
        status="open",
        status_transitions={**invoice["status_transitions"], "finalized_at": now},
        webhooks_delivered_at=now,
    )
    store.emit("invoice.finalized", invoice)
    return invoice


def attach_intent(store: Store, invoice: Object, intent: Object) -> Object:
    """The link between an invoice and the payment intent that is to pay it; its creation sends no event."""
    payment = store.new(
        "invoice_payment",
        amount_paid=None,
        amount_requested=intent["amount"],
        currency=invoice["currency"],
        invoice=invoice["id"],
        is_default=True,
        payment={"payment_intent": intent["id"], "type": "payment_intent"},
        status="open",
        status_transitions={"canceled_at": None, "paid_at": None},
    )
    return store.add(payment)


def payments_of(store: Store, invoice: Object) -> list[Object]:
    """The payments of an invoice, newest first."""
    return [payment for payment in store.all("invoice_payment") if payment["invoice"] == invoice["id"]]


def invoice_paid(store: Store, invoice: Object) -> Object:
    """All of it is paid: by its intents, by nothing where nothing was due, or out of band."""
    now = store.clock.now()
    due = payments_of(store, invoice)
    open_payments = [payment for payment in due if payment["status"] == "open"]
    for payment in open_payments:
        store.change(
            payment,
            amount_paid=payment["amount_requested"],
            status="paid",
            status_transitions={"canceled_at": None, "paid_at": now},
        )
    store.change(
        invoice,
        "invoice.updated",
        amount_paid=invoice["amount_due"] if due else 0,
        amount_remaining=0,
        attempt_count=invoice["attempt_count"] + (1 if due else 0),
        attempted=True,
        auto_advance=False,
        next_payment_attempt=None,
        status="paid",
        status_transitions={**invoice["status_transitions"], "paid_at": now},
    )
    store.emit("invoice.paid", invoice)
    store.emit("invoice.payment_succeeded", invoice)
    for payment in open_payments:
        store.emit("invoice_payment.paid", payment)
    return invoice


def invoice_failed(store: Store, invoice: Object) -> Object:
    """An attempt to pay failed; the next one is days away."""
    store.change(
        invoice,
        "invoice.updated",
        attempt_count=invoice["attempt_count"] + 1,
        attempted=True,
        next_payment_attempt=store.clock.now() + 3 * 86400,
    )
    store.emit("invoice.payment_failed", invoice)
    return invoice


def void_invoice(store: Store, invoice: Object) -> Object:
    """An open invoice that is not to be paid any more."""
    for payment in payments_of(store, invoice):
        if payment["status"] == "open":
            canceled = {"canceled_at": store.clock.now(), "paid_at": None}
            store.change(payment, status="canceled", status_transitions=canceled)
    voided = {**invoice["status_transitions"], "voided_at": store.clock.now()}
    store.change(invoice, "invoice.updated", status="void", auto_advance=False, status_transitions=voided)
    store.emit("invoice.voided", invoice)
    return invoice


@included("invoice", "payments")
def _payments(store: Store, invoice: Object) -> Object:
    return listed(payments_of(store, invoice), "/v1/invoices/{}/payments".format(invoice["id"]))


@included("invoice", "confirmation_secret")
def _confirmation_secret(store: Store, invoice: Object) -> Object | None:
    for payment in payments_of(store, invoice):
        intent = store.require("payment_intent", payment["payment"]["payment_intent"])
        return {"client_secret": intent["client_secret"], "type": "payment_intent"}
    return None


@endpoint("GET", "/v1/invoices/{id}", permission="invoice")
def retrieve(call: Call) -> Object:
    return call.store.require("invoice", call.id)


@endpoint(
    "GET",
    "/v1/invoices",
    permission="invoice",
    **listing(
        collection_method=Choice("charge_automatically", "send_invoice"),
        customer=Text(),
        customer_account=Text(),
        status=Choice("draft", "open", "paid", "uncollectible", "void"),
        subscription=Text(),
    ),
)
def index(call: Call) -> Object:
    alike = matches(call, "collection_method", "customer", "status")
    subscription = call.get("subscription")

    def keep(invoice: Object) -> bool:
        details = (invoice["parent"] or {}).get("subscription_details") or {}
        return alike(invoice) and (not subscription or details.get("subscription") == subscription)

    return page(call, "invoice", keep)


@endpoint("GET", "/v1/invoice_payments/{id}", permission="invoice")
def retrieve_payment(call: Call) -> Object:
    return call.store.require("invoice_payment", call.id)


@endpoint(
    "GET",
    "/v1/invoice_payments",
    permission="invoice",
    **listing(
        invoice=Text(),
        payment=Hash(
            payment_intent=Text(),
            payment_record=Text(),
            type=needed(Choice("payment_intent", "payment_record")),
        ),
        status=Choice("canceled", "open", "paid"),
    ),
)
def index_payments(call: Call) -> Object:
    alike, payment = matches(call, "invoice", "status"), call.get("payment") or {}
    if payment and "payment_intent" not in payment and "payment_record" not in payment:
        raise invalid(
            "Missing required param: payment[payment_intent].", "payment[payment_intent]", "parameter_missing"
        )
    return page(
        call,
        "invoice_payment",
        lambda found: alike(found) and all(found["payment"].get(name) == value for name, value in payment.items()),
    )
