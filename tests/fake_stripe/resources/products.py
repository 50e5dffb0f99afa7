"""Products (https://docs.stripe.com/api/products)."""

from __future__ import annotations

from typing import Any

from ..api import Call, endpoint, listing, matches, page
from ..errors import invalid
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
    Url,
    clearable,
    merged,
    needed,
)
from ..store import Object, Store
from . import prices

SHOWN: dict[str, Any] = dict(
    active=True,
    description=None,
    images=[],
    marketing_features=[],
    package_dimensions=None,
    shippable=None,
    statement_descriptor=None,
    tax_code=None,
    tax_details=None,
    unit_label=None,
    url=None,
)


def open_product(store: Store, given: dict[str, Any]) -> Object:
    """Create a product from the parameters of an API call."""
    identifier = given.get("id")
    if identifier and store.get("product", identifier):
        raise invalid("Product already exists.", param="id", code="resource_already_exists")
    product = store.new("product", name=given["name"], default_price=None, type=given.get("type", "service"))
    product.update({**SHOWN, **{field: given[field] for field in SHOWN if field in given}})
    product.update(metadata=merged({}, given.get("metadata", {})), updated=product["created"])
    if identifier:
        product["id"] = identifier
    store.add(product)
    store.emit("product.created", product)
    return product


PRICE_DATA = Hash(
    currency=needed(Text(3)),
    currency_options=Anything(),
    custom_unit_amount=Anything(),
    metadata=Metadata(),
    recurring=Hash(interval=needed(Choice("day", "month", "week", "year")), interval_count=Integer(1, 1095)),
    tax_behavior=Choice("exclusive", "inclusive", "unspecified"),
    unit_amount=Integer(0),
    unit_amount_decimal=Decimal(),
)

CHANGEABLE = dict(
    active=Boolean(),
    description=clearable(Text(40000)),
    images=clearable(Array(Text(), most=8)),
    marketing_features=clearable(Array(Hash(name=needed(Text(80))), most=15)),
    metadata=clearable(Metadata()),
    package_dimensions=Anything(),
    shippable=Boolean(),
    statement_descriptor=Text(22),
    tax_code=clearable(Text()),
    tax_details=Anything(),
    unit_label=clearable(Text(12)),
    url=clearable(Url()),
)


@endpoint(
    "POST",
    "/v1/products",
    permission="product",
    id=Text(),
    name=needed(Text(250)),
    default_price_data=PRICE_DATA,
    type=Choice("good", "service"),
    **CHANGEABLE,
)
def create(call: Call) -> Object:
    product = open_product(call.store, call.params)
    if call.get("default_price_data"):
        price = prices.open_price(call.store, {**call.params["default_price_data"], "product": product["id"]})
        call.store.change(product, default_price=price["id"])
    return product


@endpoint("GET", "/v1/products/{id}", permission="product")
def retrieve(call: Call) -> Object:
    return call.store.tombstones.get(call.id) or call.store.require("product", call.id)


@endpoint("POST", "/v1/products/{id}", permission="product", name=Text(250), default_price=Text(), **CHANGEABLE)
def update(call: Call) -> Object:
    product = call.store.require("product", call.id)
    changes = {field: value for field, value in call.params.items() if field != "expand"}
    if changes.get("default_price"):
        price = call.store.require("price", changes["default_price"], "default_price")
        if price["product"] != product["id"]:
            raise invalid(
                "The price `{}` does not belong to the product `{}`.".format(price["id"], product["id"]),
                param="default_price",
            )
    if "metadata" in changes:
        changes["metadata"] = merged(product["metadata"], changes["metadata"])
    for field in ("images", "marketing_features"):
        if field in changes:
            changes[field] = changes[field] or []
    if any(product.get(field) != value for field, value in changes.items()):
        changes["updated"] = call.store.clock.now()
    return call.store.change(product, "product.updated", **changes)


@endpoint("DELETE", "/v1/products/{id}", permission="product")
def delete(call: Call) -> Object:
    product = call.store.require("product", call.id)
    if any(price["product"] == product["id"] for price in call.store.all("price")):
        raise invalid("This product cannot be deleted because it has one or more user-created prices.")
    return call.store.delete(product, "product.deleted")


@endpoint(
    "GET",
    "/v1/products",
    permission="product",
    **listing(active=Boolean(), ids=Array(Text()), shippable=Boolean(), type=Choice("good", "service"), url=Text()),
)
def index(call: Call) -> Object:
    ids = call.get("ids")
    alike = matches(call, "active", "shippable", "type", "url")
    return page(call, "product", lambda product: alike(product) and (not ids or product["id"] in ids))
