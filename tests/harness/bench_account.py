"""What the client's stand-in for Stripe lists: a few life-cycles, told again and again."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from fake_stripe import FakeStripe
from fake_stripe.history import MOMENT, stories

PATHS = {
    "product": "/v1/products",
    "price": "/v1/prices",
    "customer": "/v1/customers",
    "checkout.session": "/v1/checkout/sessions",
    "subscription": "/v1/subscriptions",
    "subscription_item": "/v1/subscription_items",
    "invoice": "/v1/invoices",
    "invoice_payment": "/v1/invoice_payments",
    "charge": "/v1/charges",
    "payment_intent": "/v1/payment_intents",
    "refund": "/v1/refunds",
    "dispute": "/v1/disputes",
    "event": "/v1/events",
}
SHARED = ("product", "price")
"""What all life-cycles have in common."""
DIGITS = 8
"""So many of an id's last characters give way to the number of the round."""


def write(path: Path, counted: tuple[str, ...], most: int, seconds: int) -> int:
    """Lays out an account with so many objects of the types counted, spread over so many seconds before now.

    How many there are of these types in the end.
    """
    with FakeStripe(seed=1) as stripe:
        stripe.clock.advance(-seconds)
        for live in stories(stripe.control):
            live()
        store = stripe.world.stores[stripe.account, False]
        objects = {kind: json.loads(json.dumps(list(store.all(kind)))) for kind in PATHS}
    told = sum(len(objects[kind]) for kind in counted if kind not in SHARED)
    rounds = max(most // told, 1)
    shared = {object["id"] for kind in SHARED for object in objects[kind]}
    ids = {id for kind in PATHS for object in objects[kind] for id in _ids(object)} - shared
    lists = {PATHS[kind]: [_sketch(object, ids) for object in objects[kind]] for kind in PATHS}
    path.write_text(json.dumps({"rounds": rounds, "apart": seconds // (rounds + 1), "lists": lists}))
    return sum(1 if object["id"] in shared else rounds for kind in counted for object in objects[kind])


def _ids(value: Any) -> Iterator[str]:
    """The ids of an object and of all that are in it."""
    if isinstance(value, list):
        for part in value:
            yield from _ids(part)
    elif isinstance(value, dict):
        for name, part in value.items():
            if name == "id" and isinstance(part, str):
                yield part
            yield from _ids(part)


def _sketch(object: dict[str, Any], ids: set[str]) -> dict[str, Any]:
    """An object with marks where a round has its number, and where a moment is another."""
    text = json.dumps(object, separators=(",", ":"), ensure_ascii=False)
    is_shared = object["id"] not in ids
    if not is_shared:
        for id in ids:
            text = text.replace(id, id[:-DIGITS] + "\x01")
        text = MOMENT.sub(lambda moment: "\x02" + moment[0], text)
    return {
        "text": text,
        "id": object["id"] if is_shared else object["id"][:-DIGITS],
        "created": object["created"],
        "shared": is_shared,
    }
