"""What happens to a shop in a year, told as Stripe's events: purchases, subscriptions, refunds, disputes."""

from __future__ import annotations

import itertools
import json
import random
from typing import Any

import psycopg

from fake_stripe import FakeStripe
from fake_stripe.webhooks import text
from harness.database import Database

DAY = 86_400

CHECKOUT = """
    select stripe_checkout_session_id
    from payments.create_checkout_session(
        environment => 'test',
        mode => %(mode)s,
        line_items => %(line_items)s,
        success_url => 'https://shop.example/',
        cancel_url => 'https://shop.example/',
        subject => %(subject)s,
        metadata => %(metadata)s
    )
"""

TABLES = (
    *("checkout_sessions", "customer_mappings", "customers", "products", "prices", "subscriptions"),
    *("subscription_items", "payment_history", "invoices", "disputes", "stripe_objects"),
)
"""Whatever depends on what Stripe said, and on nothing else."""


class Shop:
    """A database that sells at the fake Stripe."""

    def __init__(self, db: Database, stripe: FakeStripe) -> None:
        self.db, self.stripe = db, stripe
        db.execute("select payments.set_stripe_key('test', %s)", (stripe.test_key,))
        self.price = stripe.control.price(1900)["id"]
        self.plan = stripe.control.price(900, name="Pro", interval="month", lookup_key="pro")["id"]

    def checkout(
        self,
        mode: str = "payment",
        subject: str | None = "alice",
        metadata: dict | None = None,
        connection: psycopg.Connection | None = None,
    ) -> str:
        """The id of a session at Stripe, for a user."""
        price = self.price if mode == "payment" else self.plan
        arguments = {
            "mode": mode,
            "line_items": json.dumps([{"stripe_price_id": price, "quantity": 1}]),
            "subject": subject and json.dumps({"type": "user", "id": subject}),
            "metadata": json.dumps(metadata or {}),
        }
        return (connection or self.db).execute(CHECKOUT, arguments).fetchone()[0]

    def events(self, after: str | None = None) -> list[dict[str, Any]]:
        """What Stripe has to tell, in the order in which it happened."""
        return self.stripe.control.events(after=after)


def rows(db: Database) -> dict[str, list[Any]]:
    """All that there is in the tables, in an order that does not depend on how it came in."""
    return {table: db.execute(f"select t::text from payments.{table} t order by 1").fetchall() for table in TABLES}


def year(shop: Shop, buyers: int, months: int) -> list[str]:
    """The events of a year, as the bodies of webhooks: buyers of every kind, billed for so many months."""
    return [body for life in lives(shop, buyers, months) for body in life]


def lives(shop: Shop, buyers: int, months: int) -> list[list[str]]:
    """The same, apart for each buyer; what happened before the first sale is the first one's."""
    kinds = itertools.cycle([_faithful, _fickle, _poor, _cautious, _regretful, _quarrelsome, _free])
    told, last = [], None
    for number, live in zip(range(buyers), kinds):
        live(shop, f"buyer{number}", months)
        shop.stripe.control.clock(advance=DAY)
        events = shop.events(after=last)
        last = events[-1]["id"]
        told.append([text(event) for event in events])
    return told


def something_happens(stripe: FakeStripe, chance: random.Random) -> None:
    """One of the things that buyers and merchants do in an account that has something of everything."""
    control = stripe.control
    with stripe.world.lock:
        store = stripe.world.stores[stripe.account, False]
        subscription, charge, customer, product = (
            chance.choice(list(itertools.islice(store.all(kind), 400)))
            for kind in ("subscription", "charge", "customer", "product")
        )
        match chance.randrange(5):
            case 0 if subscription["status"] == "active":
                control.cancel(subscription["id"], at_period_end=True)
            case 1 if charge["amount"] - charge["amount_refunded"] > 10 and charge["paid"] and not charge["disputed"]:
                control.refund(charge["id"], 5)
            case 2:
                control.update(customer["id"], {"name": f"Name {chance.random()}"})
            case 3:
                control.update(product["id"], {"name": f"Name {chance.random()}"})
            case _:
                control.renew(subscription["id"]) if subscription["status"] == "active" else None


def _subscribe(shop: Shop, buyer: str, outcome: str = "paid") -> str:
    session = shop.checkout("subscription", buyer)
    return shop.stripe.control.complete(session, outcome=outcome)["subscription"]


def _faithful(shop: Shop, buyer: str, months: int) -> None:
    subscription = _subscribe(shop, buyer)
    for _ in range(months):
        shop.stripe.control.clock(advance=30 * DAY)
        shop.stripe.control.renew(subscription)


def _fickle(shop: Shop, buyer: str, months: int) -> None:
    """Cancels, takes it back within the same second, and cancels again."""
    control = shop.stripe.control
    subscription = _subscribe(shop, buyer)
    control.clock(freeze=True)
    control.cancel(subscription, at_period_end=True)
    control.resume(subscription)
    control.cancel(subscription, at_period_end=True)
    control.clock(unfreeze=True, advance=31 * DAY)
    control.renew(subscription)


def _poor(shop: Shop, buyer: str, months: int) -> None:
    """Cannot pay every month."""
    control = shop.stripe.control
    subscription = _subscribe(shop, buyer)
    for month in range(months):
        control.clock(advance=30 * DAY)
        invoice = control.renew(subscription, succeeded=month % 2 == 0)
        if month % 2:
            control.clock(advance=DAY)
            control.pay_invoice(invoice["id"])
    control.clock(advance=30 * DAY)
    control.renew(subscription, succeeded=False)
    control.give_up(subscription)


def _cautious(shop: Shop, buyer: str, months: int) -> None:
    """Is declined, pays by bank, and comes back."""
    control = shop.stripe.control
    session = shop.checkout(subject=buyer, metadata={"order_id": buyer})
    control.decline(session)
    control.clock(advance=60)
    control.complete(session, outcome="processing")
    control.clock(advance=3 * DAY)
    control.settle(session, succeeded=buyer.endswith("3"))
    control.complete(shop.checkout(subject=buyer, metadata={"order_id": f"{buyer}-2"}))


def _regretful(shop: Shop, buyer: str, months: int) -> None:
    """Is paid back in parts, of which one comes back."""
    control = shop.stripe.control
    payment = _buy(shop, buyer)
    control.refund(payment, 500)
    pending = control.refund(payment, 700, status="pending")
    control.clock(advance=DAY)
    control.fail_refund(pending["id"])
    control.refund(payment, 300)


def _quarrelsome(shop: Shop, buyer: str, months: int) -> None:
    control = shop.stripe.control
    payment = _buy(shop, buyer)
    dispute = control.dispute(control.get(payment)["latest_charge"])
    control.clock(advance=DAY)
    control.update_dispute(dispute["id"], "under_review")
    control.clock(advance=DAY)
    control.close_dispute(dispute["id"], "won" if buyer.endswith("5") else "lost")


def _free(shop: Shop, buyer: str, months: int) -> None:
    """Has a code that takes everything off; and leaves another cart behind."""
    control = shop.stripe.control
    control.complete(shop.checkout(subject=buyer, metadata={"order_id": buyer}), outcome="free")
    control.expire(shop.checkout(subject=buyer))
    control.update(shop.plan, {"metadata": {"seen": buyer}})


def _buy(shop: Shop, buyer: str) -> str:
    """A purchase: the payment intent."""
    session = shop.checkout(subject=buyer, metadata={"order_id": buyer})
    return shop.stripe.control.complete(session)["payment_intent"]
