"""Prices (https://docs.stripe.com/api/prices)."""

from __future__ import annotations

from typing import Any

from ..api import Call, endpoint, listing, matches, page
from ..errors import invalid
from ..expand import included
from ..schema import (
    Anything,
    Array,
    Boolean,
    Choice,
    Decimal,
    Hash,
    Integer,
    Metadata,
    Text,
    clearable,
    merged,
    needed,
)
from ..store import Object, Store
from . import products

TAX_BEHAVIOR = Choice("exclusive", "inclusive", "unspecified")
INTERVALS = ("day", "month", "week", "year")


def _recurring(given: dict[str, Any]) -> Object:
    recurring = {
        "interval": given["interval"],
        "interval_count": given.get("interval_count", 1),
        "meter": given.get("meter"),
        "trial_period_days": None,
        "usage_type": given.get("usage_type", "licensed"),
    }
    if recurring["usage_type"] == "metered" and not recurring["meter"]:
        raise invalid("A meter is required for metered prices.", "recurring[meter]", "parameter_missing")
    return recurring


def _take_lookup_key(store: Store, lookup_key: str, transfer: bool) -> None:
    for price in store.all("price"):
        if price["lookup_key"] != lookup_key:
            continue
        if not transfer:
            raise invalid(
                "A price (`{}`) already uses that lookup key.".format(price["id"]),
                param="lookup_key",
                code="resource_already_exists",
            )
        store.change(price, "price.updated", lookup_key=None)


def open_price(store: Store, given: dict[str, Any]) -> Object:
    """Create a price from the parameters of an API call."""
    if ("product" in given) == ("product_data" in given):
        raise invalid("You must specify exactly one of `product` or `product_data`.", "product", "parameter_missing")
    amounts = [name for name in ("unit_amount", "unit_amount_decimal", "custom_unit_amount") if name in given]
    tiered = given.get("billing_scheme") == "tiered"
    if len(amounts) != (0 if tiered else 1):
        raise invalid(
            "You must specify exactly one of `unit_amount`, `unit_amount_decimal` or `custom_unit_amount`.",
            "unit_amount",
            "parameter_missing",
        )
    if "product" in given:
        product = store.require("product", given["product"], "product")
    else:
        product = products.open_product(store, given["product_data"])
    if given.get("lookup_key"):
        _take_lookup_key(store, given["lookup_key"], given.get("transfer_lookup_key", False))
    recurring = _recurring(given["recurring"]) if given.get("recurring") else None
    decimal = given.get("unit_amount_decimal") or (str(given["unit_amount"]) if "unit_amount" in given else None)
    whole = int(decimal) if decimal is not None and "." not in decimal else None
    price = store.new(
        "price",
        active=given.get("active", True),
        billing_scheme=given.get("billing_scheme", "per_unit"),
        currency=given["currency"].lower(),
        custom_unit_amount=given.get("custom_unit_amount"),
        lookup_key=given.get("lookup_key"),
        metadata=merged({}, given.get("metadata", {})),
        nickname=given.get("nickname"),
        product=product["id"],
        recurring=recurring,
        tax_behavior=given.get("tax_behavior", "unspecified"),
        tiers_mode=given.get("tiers_mode"),
        transform_quantity=given.get("transform_quantity"),
        type="recurring" if recurring else "one_time",
        unit_amount=whole,
        unit_amount_decimal=decimal,
    )
    store.add(price)
    store.notes[price["id"]] = {"tiers": given.get("tiers"), "currency_options": given.get("currency_options")}
    store.emit("price.created", price)
    return price


def plan_of(price: Object) -> Object:
    """The plan that Stripe still shows beside a recurring price, under the same id."""
    recurring = price["recurring"]
    return {
        "id": price["id"],
        "object": "plan",
        "active": price["active"],
        "amount": price["unit_amount"],
        "amount_decimal": price["unit_amount_decimal"],
        "billing_scheme": price["billing_scheme"],
        "created": price["created"],
        "currency": price["currency"],
        "interval": recurring["interval"],
        "interval_count": recurring["interval_count"],
        "livemode": price["livemode"],
        "metadata": price["metadata"],
        "meter": recurring["meter"],
        "nickname": price["nickname"],
        "product": price["product"],
        "tiers_mode": price["tiers_mode"],
        "transform_usage": price["transform_quantity"],
        "trial_period_days": None,
        "usage_type": recurring["usage_type"],
    }


@included("price", "tiers")
def _tiers(store: Store, price: Object) -> Any:
    return store.notes[price["id"]]["tiers"]


@included("price", "currency_options")
def _currency_options(store: Store, price: Object) -> Any:
    return store.notes[price["id"]]["currency_options"]


@endpoint(
    "POST",
    "/v1/prices",
    permission="plan",
    currency=needed(Text(3, "[A-Za-z]{3}")),
    active=Boolean(),
    billing_scheme=Choice("per_unit", "tiered"),
    currency_options=Anything(),
    custom_unit_amount=Anything(),
    lookup_key=Text(200),
    metadata=Metadata(),
    nickname=Text(),
    product=Text(),
    product_data=Hash(
        active=Boolean(),
        id=Text(),
        metadata=Metadata(),
        name=needed(Text(250)),
        statement_descriptor=Text(22),
        tax_code=Text(),
        tax_details=Anything(),
        unit_label=Text(12),
    ),
    recurring=Hash(
        interval=needed(Choice(*INTERVALS)),
        interval_count=Integer(1, 1095),
        meter=Text(),
        trial_period_days=Integer(0),
        usage_type=Choice("licensed", "metered"),
    ),
    tax_behavior=TAX_BEHAVIOR,
    tiers=Anything(),
    tiers_mode=Choice("graduated", "volume"),
    transfer_lookup_key=Boolean(),
    transform_quantity=Hash(divide_by=needed(Integer(1)), round=needed(Choice("down", "up"))),
    unit_amount=Integer(0, 99999999999),
    unit_amount_decimal=Decimal(),
)
def create(call: Call) -> Object:
    return open_price(call.store, call.params)


@endpoint("GET", "/v1/prices/{id}", permission="plan")
def retrieve(call: Call) -> Object:
    return call.store.require("price", call.id)


@endpoint(
    "POST",
    "/v1/prices/{id}",
    permission="plan",
    active=Boolean(),
    currency_options=Anything(),
    lookup_key=clearable(Text(200)),
    metadata=clearable(Metadata()),
    nickname=clearable(Text()),
    tax_behavior=TAX_BEHAVIOR,
    transfer_lookup_key=Boolean(),
)
def update(call: Call) -> Object:
    price = call.store.require("price", call.id)
    changes: dict[str, Any] = {
        name: call.params[name] for name in ("active", "lookup_key", "nickname", "tax_behavior") if name in call.params
    }
    if changes.get("tax_behavior", price["tax_behavior"]) != price["tax_behavior"] != "unspecified":
        raise invalid("You cannot change the tax_behavior of a price once it is set.", param="tax_behavior")
    product = call.store.get("product", price["product"])
    if changes.get("active") is False and product and product["default_price"] == price["id"]:
        raise invalid("This price cannot be archived because it is the default price of its product.", param="active")
    if changes.get("lookup_key", price["lookup_key"]) not in (None, price["lookup_key"]):
        _take_lookup_key(call.store, changes["lookup_key"], call.get("transfer_lookup_key", False))
    if "metadata" in call.params:
        changes["metadata"] = merged(price["metadata"], call.params["metadata"])
    return call.store.change(price, "price.updated", **changes)


@endpoint(
    "GET",
    "/v1/prices",
    permission="plan",
    **listing(
        active=Boolean(),
        currency=Text(3),
        lookup_keys=Array(Text(200), most=10),
        product=Text(),
        recurring=Hash(interval=Choice(*INTERVALS), meter=Text(), usage_type=Choice("licensed", "metered")),
        type=Choice("one_time", "recurring"),
    ),
)
def index(call: Call) -> Object:
    alike = matches(call, "active", "currency", "product", "type")
    keys, recurring = call.get("lookup_keys"), call.get("recurring") or {}

    def keep(price: Object) -> bool:
        return (
            alike(price)
            and (not keys or price["lookup_key"] in keys)
            and all((price["recurring"] or {}).get(name) == value for name, value in recurring.items())
        )

    return page(call, "price", keep)
