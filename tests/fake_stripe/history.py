"""A past: an account in which years of business went by before anybody looked."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from .store import Object, Store

if TYPE_CHECKING:
    from .actions import Control

LISTED = (
    "product",
    "price",
    "customer",
    "checkout.session",
    "subscription",
    "invoice",
    "invoice_payment",
    "charge",
    "payment_intent",
    "refund",
    "dispute",
)
"""The types that have a list of their own."""

MOMENT = re.compile(r"(?<![\w.\"])1[5-9]\d{8}(?![\w.\"])")
_URLS = {"success_url": "https://shop.example/thanks", "cancel_url": "https://shop.example/cart"}


def populate(control: Control, store: Store, objects: int, seconds: int) -> dict[str, int]:
    """Fill an account with at least so many listed objects, spread evenly over so many seconds before now.

    One story of each kind is lived through for real; the others are the same under other ids, at other times. None of
    them sends an event: that was long ago. How many there are of each type.
    """
    events = {event["id"] for event in store.all("event")}
    store.clock.advance(-seconds)
    lives = stories(control)
    known = {obj["id"] for kind in LISTED for obj in store.all(kind)}
    told = [_taken(store, known, live) for live in lives]
    store.clock.advance(seconds)
    for event in list(store.all("event")):
        if event["id"] not in events:
            store.collection("event").remove(event["id"])
    size = sum(len(story) for story, _ in told)
    # Not quite up to now, because the stories themselves take some seconds.
    rounds = -(-(objects - sum(len(store.collection(kind)) for kind in LISTED)) // size)
    apart = (seconds - 60) // max(rounds, 1)
    for number in range(max(rounds, 0)):
        for story, notes in told:
            _retold(store, story, notes, later=(number + 1) * apart)
    return {kind: len(store.collection(kind)) for kind in LISTED}


def stories(control: Control) -> list[Callable[[], None]]:
    """What buyers do, each with one price that all of them have in common."""
    shirt = control.price(1900)["id"]
    plan = control.price(900, name="Pro", interval="month")["id"]

    def buy(mode: str, price: str, email: str, **more: Any) -> Object:
        lines = [{"price": price, "quantity": 1}]
        given = {"mode": mode, "line_items": lines, "customer_email": email, **_URLS, **more}
        if mode == "payment":
            given["customer_creation"] = "always"
        return control.complete(control.call("POST", "/v1/checkout/sessions", given)["id"])

    def subscribed() -> None:
        session = buy("subscription", plan, "subscriber@example.com")
        control.renew(session["subscription"])

    def cancelled() -> None:
        control.cancel(buy("subscription", plan, "leaver@example.com")["subscription"])

    def bought() -> None:
        buy("payment", shirt, "buyer@example.com")

    def refunded() -> None:
        control.refund(buy("payment", shirt, "regretter@example.com")["payment_intent"], 900)

    def disputed() -> None:
        intent = control.get(buy("payment", shirt, "fraudster@example.com")["payment_intent"])
        control.close_dispute(control.dispute(intent["latest_charge"])["id"])

    return [subscribed, cancelled, bought, refunded, disputed]


def _taken(store: Store, known: set[str], live: Callable[[], None]) -> tuple[list[Object], dict[str, Any]]:
    live()
    story = [obj for kind in LISTED for obj in store.all(kind) if obj["id"] not in known]
    known |= {obj["id"] for obj in story}
    return story, {obj["id"]: store.notes[obj["id"]] for obj in story if obj["id"] in store.notes}


def _retold(store: Store, story: list[Object], notes: dict[str, Any], later: int) -> None:
    told = json.dumps([story, notes])
    names = {obj["id"]: obj["object"] for obj in story}
    names |= {item["id"]: "subscription_item" for note in notes.values() for item in note.get("items", [])}
    for name, kind in names.items():
        told = told.replace(name, store.ids.make(kind, store.livemode))
    told = MOMENT.sub(lambda moment: str(int(moment.group()) + later), told)
    story, notes = json.loads(told)
    for obj in story:
        store.add(obj)
    store.notes.update(notes)
