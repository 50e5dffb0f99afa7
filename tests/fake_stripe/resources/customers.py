"""Customers (https://docs.stripe.com/api/customers)."""

from __future__ import annotations

from typing import Any

from ..api import Call, endpoint, listing, matches, page
from ..expand import included, listed
from ..schema import (
    ADDRESS,
    Anything,
    Array,
    Boolean,
    Choice,
    Email,
    Hash,
    Integer,
    Metadata,
    Text,
    address,
    clearable,
    merged,
)
from ..store import Object, Store
from .subscriptions import end_subscription, live


def open_customer(store: Store, given: dict[str, Any]) -> Object:
    """Create a customer from the parameters of an API call."""
    customer = store.new(
        "customer",
        address=address(given.get("address")),
        balance=given.get("balance", 0),
        currency=None,
        customer_account=None,
        default_source=None,
        delinquent=False,
        description=given.get("description"),
        discount=None,
        email=given.get("email"),
        invoice_prefix=given.get("invoice_prefix", store.ids.text(8).upper()),
        invoice_settings={
            "custom_fields": None,
            "default_payment_method": None,
            "footer": None,
            "rendering_options": None,
        },
        metadata=merged({}, given.get("metadata", {})),
        name=given.get("name"),
        next_invoice_sequence=given.get("next_invoice_sequence", 1),
        phone=given.get("phone"),
        preferred_locales=given.get("preferred_locales", []),
        shipping=given.get("shipping"),
        tax_exempt=given.get("tax_exempt") or "none",
        test_clock=None,
    )
    store.add(customer)
    store.emit("customer.created", customer)
    return customer


def remove_customer(store: Store, customer: Object) -> Object:
    """Delete a customer, and with it every subscription that still runs."""
    for subscription in list(store.all("subscription")):
        if subscription["customer"] == customer["id"] and live(subscription):
            end_subscription(store, subscription)
    return store.delete(customer, "customer.deleted")


@included("customer", "subscriptions")
def _subscriptions(store: Store, customer: Object) -> Object:
    data = [sub for sub in store.all("subscription") if sub["customer"] == customer["id"] and live(sub)]
    return listed(data[:10], "/v1/customers/{}/subscriptions".format(customer["id"]), len(data) > 10)


@included("customer", "sources")
def _sources(store: Store, customer: Object) -> Object:
    return listed([], "/v1/customers/{}/sources".format(customer["id"]))


@included("customer", "tax_ids")
def _tax_ids(store: Store, customer: Object) -> Object:
    return listed([], "/v1/customers/{}/tax_ids".format(customer["id"]))


CHANGEABLE = dict(
    address=clearable(Hash(**ADDRESS)),
    balance=Integer(),
    business_name=clearable(Text(150)),
    cash_balance=Anything(),
    description=clearable(Text()),
    email=clearable(Email()),
    individual_name=clearable(Text(150)),
    invoice_prefix=Text(12),
    invoice_settings=Anything(),
    metadata=clearable(Metadata()),
    name=clearable(Text(256)),
    next_invoice_sequence=Integer(1),
    phone=clearable(Text(20)),
    preferred_locales=Array(Text()),
    shipping=Anything(),
    source=Text(),
    tax=Anything(),
    tax_exempt=clearable(Choice("exempt", "none", "reverse")),
    validate=Boolean(),
)

SHOWN = (
    "balance",
    "description",
    "email",
    "invoice_prefix",
    "name",
    "next_invoice_sequence",
    "phone",
    "preferred_locales",
    "shipping",
)


@endpoint(
    "POST",
    "/v1/customers",
    permission="customer",
    payment_method=Text(),
    tax_id_data=Anything(),
    test_clock=Text(),
    **CHANGEABLE,
)
def create(call: Call) -> Object:
    return open_customer(call.store, call.params)


@endpoint("GET", "/v1/customers/{id}", permission="customer")
def retrieve(call: Call) -> Object:
    return call.store.tombstones.get(call.id) or call.store.require("customer", call.id)


@endpoint("POST", "/v1/customers/{id}", permission="customer", default_source=Text(), **CHANGEABLE)
def update(call: Call) -> Object:
    customer = call.store.require("customer", call.id)
    changes = {name: call.params[name] for name in SHOWN if name in call.params}
    if "address" in call.params:
        changes["address"] = address(call.params["address"])
    if "metadata" in call.params:
        changes["metadata"] = merged(customer["metadata"], call.params["metadata"])
    if "tax_exempt" in call.params:
        changes["tax_exempt"] = call.params["tax_exempt"] or "none"
    return call.store.change(customer, "customer.updated", **changes)


@endpoint("DELETE", "/v1/customers/{id}", permission="customer")
def delete(call: Call) -> Object:
    return remove_customer(call.store, call.store.require("customer", call.id))


@endpoint("GET", "/v1/customers", permission="customer", **listing(email=Text(), test_clock=Text()))
def index(call: Call) -> Object:
    return page(call, "customer", matches(call, "email"))
