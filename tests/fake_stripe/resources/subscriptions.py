"""Subscriptions, their items and their periods (https://docs.stripe.com/api/subscriptions)."""

from __future__ import annotations

import calendar
from datetime import datetime, timedelta, timezone
from typing import Any

from ..api import Call, endpoint, listing, matches, page, page_of
from ..errors import invalid, no_such
from ..expand import listed
from ..schema import (
    Anything,
    Array,
    Boolean,
    Choice,
    Decimal,
    Either,
    Hash,
    Integer,
    Metadata,
    Moment,
    Text,
    clearable,
    merged,
    needed,
)
from ..store import Object, Store
from .invoices import invoice_line
from .prices import plan_of

SHOWN_ITEMS = 10
MOST_ITEMS = 20
STATUSES = ("active", "canceled", "incomplete", "incomplete_expired", "past_due", "paused", "trialing", "unpaid")


def live(subscription: Object) -> bool:
    """Whether it can still be billed."""
    return subscription["status"] not in ("canceled", "incomplete_expired")


def later(at: int, interval: str, count: int) -> int:
    """The end of a period: months keep their day, or take the last one they have."""
    start = datetime.fromtimestamp(at, timezone.utc)
    if interval in ("day", "week"):
        return int((start + timedelta(days=count * (7 if interval == "week" else 1))).timestamp())
    months = start.month - 1 + count * (12 if interval == "year" else 1)
    year, month = start.year + months // 12, months % 12 + 1
    day = min(start.day, calendar.monthrange(year, month)[1])
    return int(start.replace(year=year, month=month, day=day).timestamp())


def amount_of(price: Object, quantity: int | None) -> int:
    """What so many cost now: nothing where usage is billed afterwards."""
    if price["recurring"] and price["recurring"]["usage_type"] == "metered":
        return 0
    return round(float(price["unit_amount_decimal"] or 0) * (1 if quantity is None else quantity))


def items_of(store: Store, subscription: Object) -> list[Object]:
    """All items, also those beyond the ten that the subscription shows."""
    items: list[Object] = store.notes[subscription["id"]]["items"]
    return items


def _show_items(store: Store, subscription: Object) -> Object:
    items = items_of(store, subscription)
    url = "/v1/subscription_items?subscription=" + subscription["id"]
    return listed([dict(item) for item in items[:SHOWN_ITEMS]], url, len(items) > SHOWN_ITEMS)


def _new_item(store: Store, subscription: Object, price: Object, quantity: int | None, start: int) -> Object:
    recurring = price["recurring"]
    end = later(start, recurring["interval"], recurring["interval_count"])
    item = {
        "id": store.ids.make("subscription_item"),
        "object": "subscription_item",
        "billing_thresholds": None,
        "created": store.clock.now(),
        "current_period_end": subscription["trial_end"] or end,
        "current_period_start": start,
        "current_trial": None,
        "discounts": [],
        "metadata": {},
        "plan": plan_of(price),
        "price": dict(price),
        "subscription": subscription["id"],
        "tax_rates": [],
    }
    if recurring["usage_type"] != "metered":
        item["quantity"] = 1 if quantity is None else quantity
    return item


def open_subscription(
    store: Store, customer: Object, lines: list[Object], given: dict[str, Any], payment_method: str | None = None
) -> Object:
    """A subscription as Checkout makes it from its recurring line items and `subscription_data`."""
    now = store.clock.now()
    trial_end = given.get("trial_end")
    if given.get("trial_period_days"):
        trial_end = now + given["trial_period_days"] * 86400
    subscription = store.new(
        "subscription",
        application=None,
        application_fee_percent=None,
        automatic_tax={"disabled_reason": None, "enabled": False, "liability": None},
        billing_cycle_anchor=trial_end or now,
        billing_cycle_anchor_config=None,
        billing_mode={"flexible": {"proration_discounts": "included"}, "type": "flexible", "updated_at": now},
        billing_schedules=[],
        billing_thresholds=None,
        cancel_at=None,
        cancel_at_period_end=False,
        canceled_at=None,
        cancellation_details={"comment": None, "feedback": None, "feedback_option": None, "reason": None},
        collection_method="charge_automatically",
        currency=lines[0]["price"]["currency"],
        customer=customer["id"],
        customer_account=None,
        days_until_due=None,
        default_payment_method=payment_method,
        default_source=None,
        default_tax_rates=[],
        description=given.get("description"),
        discounts=[],
        ended_at=None,
        invoice_settings={
            "account_tax_ids": None,
            "custom_fields": None,
            "description": None,
            "footer": None,
            "issuer": {"type": "self"},
        },
        items=None,
        latest_invoice=None,
        managed_payments=None,
        metadata=dict(given.get("metadata", {})),
        next_pending_invoice_item_invoice=None,
        on_behalf_of=None,
        pause_collection=None,
        payment_settings={
            "payment_method_options": None,
            "payment_method_types": None,
            "save_default_payment_method": "off",
        },
        pending_invoice_item_interval=None,
        pending_setup_intent=None,
        pending_update=None,
        schedule=None,
        start_date=now,
        status="trialing" if trial_end else "incomplete",
        test_clock=None,
        transfer_data=None,
        trial_end=trial_end,
        trial_settings={"end_behavior": {"billing_cycle_anchor": None, "missing_payment_method": "create_invoice"}},
        trial_start=now if trial_end else None,
    )
    items = [_new_item(store, subscription, line["price"], line["quantity"], now) for line in lines]
    store.notes[subscription["id"]] = {"items": items}
    subscription["items"] = _show_items(store, subscription)
    return store.add(subscription)


def subscription_lines(store: Store, subscription: Object) -> list[Object]:
    """The lines that the current period's invoice has: free of charge while on trial."""
    trial = subscription["status"] == "trialing"
    return [
        invoice_line(
            store,
            item["price"],
            item.get("quantity"),
            0 if trial else amount_of(item["price"], item.get("quantity")),
            item,
        )
        for item in items_of(store, subscription)
    ]


def period_end(store: Store, subscription: Object) -> int:
    """When the next of its items is due."""
    return min(int(item["current_period_end"]) for item in items_of(store, subscription))


def roll_period(store: Store, subscription: Object) -> None:
    """Move every item that is due to its next period; the caller sends the event."""
    due = period_end(store, subscription)
    for item in items_of(store, subscription):
        if item["current_period_end"] == due:
            recurring = item["price"]["recurring"]
            item["current_period_start"] = due
            item["current_period_end"] = later(due, recurring["interval"], recurring["interval_count"])


def change_subscription(store: Store, subscription: Object, **changes: Any) -> Object:
    """Set fields, show the items as they are, and send `customer.subscription.updated`."""
    return store.change(
        subscription, "customer.subscription.updated", items=_show_items(store, subscription), **changes
    )


def end_subscription(store: Store, subscription: Object, details: dict[str, Any] | None = None) -> Object:
    """It is over, now."""
    now = store.clock.now()
    reason = {**subscription["cancellation_details"], "reason": "cancellation_requested", **(details or {})}
    store.change(
        subscription,
        cancel_at=None,
        cancel_at_period_end=False,
        canceled_at=subscription["canceled_at"] or now,
        cancellation_details=reason,
        ended_at=now,
        status="canceled",
    )
    store.emit("customer.subscription.deleted", subscription)
    return subscription


DETAILS = Hash(
    comment=clearable(Text()),
    feedback=clearable(
        Choice(
            "customer_service",
            "low_quality",
            "missing_features",
            "other",
            "switched_service",
            "too_complex",
            "too_expensive",
            "unused",
        )
    ),
    feedback_option=Text(),
)


@endpoint("GET", "/v1/subscriptions/{id}", permission="subscription")
def retrieve(call: Call) -> Object:
    return call.store.require("subscription", call.id)


@endpoint(
    "GET",
    "/v1/subscriptions",
    permission="subscription",
    **listing(
        automatic_tax=Anything(),
        collection_method=Choice("charge_automatically", "send_invoice"),
        current_period_end=Moment(),
        current_period_start=Moment(),
        customer=Text(),
        customer_account=Text(),
        plan=Text(),
        price=Text(),
        status=Choice("all", "ended", *STATUSES),
        test_clock=Text(),
    ),
)
def index(call: Call) -> Object:
    alike, status = matches(call, "collection_method", "customer"), call.get("status")
    price = call.get("price") or call.get("plan")

    def keep(subscription: Object) -> bool:
        if status == "all":
            wanted = True
        elif status == "ended":
            wanted = not live(subscription)
        elif status is None:
            wanted = subscription["status"] != "canceled"
        else:
            wanted = subscription["status"] == status
        priced = price is None or any(item["price"]["id"] == price for item in items_of(call.store, subscription))
        return wanted and priced and alike(subscription)

    return page(call, "subscription", keep)


@endpoint(
    "DELETE",
    "/v1/subscriptions/{id}",
    permission="subscription",
    cancellation_details=DETAILS,
    invoice_now=Boolean(),
    prorate=Boolean(),
)
def cancel(call: Call) -> Object:
    subscription = call.store.require("subscription", call.id)
    if not live(subscription):
        raise no_such("subscription", call.id)
    return end_subscription(call.store, subscription, call.get("cancellation_details"))


def _change_items(store: Store, subscription: Object, given: list[dict[str, Any]]) -> None:
    items = items_of(store, subscription)
    for position, change in enumerate(given):
        name = f"items[{position}]"
        item = next((item for item in items if item["id"] == change.get("id")), None)
        if "id" in change and item is None:
            raise no_such("subscription_item", change["id"], param=name + "[id]")
        if item is not None and change.get("deleted"):
            items.remove(item)
            continue
        if "price" in change:
            price = store.require("price", change["price"], name + "[price]")
            if price["recurring"] is None:
                raise invalid("The price specified is one-time. This field only accepts recurring prices.", name)
        elif item is not None:
            price = item["price"]
        else:
            raise invalid(f"Missing required param: {name}[price].", name + "[price]", "parameter_missing")
        quantity = change.get("quantity", item.get("quantity") if item else None)
        fresh = _new_item(store, subscription, price, quantity, store.clock.now())
        if item is None:
            items.append(fresh)
            continue
        same_rhythm = item["price"]["recurring"] == price["recurring"]
        kept = ("id", "created", "metadata") + (("current_period_start", "current_period_end") if same_rhythm else ())
        item.update({**fresh, **{field: item[field] for field in kept}})
        if "metadata" in change:
            item["metadata"] = merged(item["metadata"], change["metadata"])
    if not items:
        raise invalid("A subscription must have at least one active plan.", "items")
    if len(items) > MOST_ITEMS:
        raise invalid(f"A subscription can have at most {MOST_ITEMS} items.", "items")


@endpoint(
    "POST",
    "/v1/subscriptions/{id}",
    permission="subscription",
    cancel_at=clearable(Either(Integer(), Choice("max_billed_until", "max_period_end", "min_period_end"))),
    cancel_at_period_end=Boolean(),
    cancellation_details=DETAILS,
    default_payment_method=Text(),
    description=clearable(Text(500)),
    items=Array(
        Hash(
            billing_thresholds=Anything(),
            clear_usage=Boolean(),
            deleted=Boolean(),
            discounts=Anything(),
            id=Text(),
            metadata=clearable(Metadata()),
            plan=Text(),
            price=Text(),
            price_data=Hash(
                currency=needed(Text(3)),
                product=needed(Text()),
                recurring=needed(Anything()),
                tax_behavior=Text(),
                unit_amount=Integer(0),
                unit_amount_decimal=Decimal(),
            ),
            quantity=Integer(0),
            tax_rates=Anything(),
        ),
        most=MOST_ITEMS,
    ),
    metadata=clearable(Metadata()),
    off_session=Boolean(),
    pause_collection=clearable(
        Hash(behavior=needed(Choice("keep_as_draft", "mark_uncollectible", "void")), resumes_at=Integer())
    ),
    payment_behavior=Choice("allow_incomplete", "default_incomplete", "error_if_incomplete", "pending_if_incomplete"),
    proration_behavior=Choice("always_invoice", "create_prorations", "none"),
    proration_date=Integer(),
    trial_end=Either(Choice("now"), Integer()),
    trial_settings=Anything(),
)
def update(call: Call) -> Object:
    store, given = call.store, call.params
    subscription = store.require("subscription", call.id)
    if subscription["status"] == "canceled" and set(given) - {"expand", "cancellation_details", "metadata"}:
        raise invalid("A canceled subscription can only update its cancellation_details and metadata.")
    if "cancel_at" in given and "cancel_at_period_end" in given:
        raise invalid("You may only specify one of these parameters: cancel_at, cancel_at_period_end.", "cancel_at")
    if given.get("items"):
        _change_items(store, subscription, given["items"])
    changes: dict[str, Any] = {
        field: given[field] for field in ("default_payment_method", "description") if field in given
    }
    ends = [item["current_period_end"] for item in items_of(store, subscription)]
    if "cancel_at_period_end" in given:
        at_end = given["cancel_at_period_end"]
        changes.update(cancel_at_period_end=at_end, cancel_at=max(ends) if at_end else None)
    if "cancel_at" in given:
        words = {"max_billed_until": max(ends), "max_period_end": max(ends), "min_period_end": min(ends)}
        changes["cancel_at"] = words.get(given["cancel_at"], given["cancel_at"])
    if "cancel_at" in changes:
        canceling = changes["cancel_at"] is not None
        changes["canceled_at"] = store.clock.now() if canceling else None
        reason = "cancellation_requested" if canceling else None
        changes["cancellation_details"] = {**subscription["cancellation_details"], "reason": reason}
    if "cancellation_details" in given:
        changes.setdefault("cancellation_details", subscription["cancellation_details"])
        changes["cancellation_details"] = {**changes["cancellation_details"], **given["cancellation_details"]}
    if "metadata" in given:
        changes["metadata"] = merged(subscription["metadata"], given["metadata"])
    if "pause_collection" in given:
        pause = given["pause_collection"]
        changes["pause_collection"] = pause and {"behavior": pause["behavior"], "resumes_at": pause.get("resumes_at")}
    if "trial_end" in given:
        end = store.clock.now() if given["trial_end"] == "now" else given["trial_end"]
        changes.update(trial_end=end, status="active" if given["trial_end"] == "now" else "trialing")
    return change_subscription(store, subscription, **changes)


@endpoint("GET", "/v1/subscription_items/{id}", permission="subscription")
def retrieve_item(call: Call) -> Object:
    for subscription in call.store.all("subscription"):
        for item in items_of(call.store, subscription):
            if item["id"] == call.id:
                return item
    raise no_such("subscription_item", call.id)


@endpoint(
    "GET",
    "/v1/subscription_items",
    permission="subscription",
    limit=Integer(1, 100),
    starting_after=Text(),
    ending_before=Text(),
    subscription=needed(Text()),
)
def index_items(call: Call) -> Object:
    subscription = call.store.require("subscription", call.params["subscription"], "subscription")
    return page_of(call, items_of(call.store, subscription))
