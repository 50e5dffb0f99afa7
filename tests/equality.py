"""Whether a database says what Stripe says."""

from __future__ import annotations

from typing import Any

from fake_stripe import FakeStripe
from fake_stripe.history import LISTED
from harness.database import Database

TABLES = {
    "customers": "stripe_customer_id",
    "products": "stripe_product_id",
    "prices": "stripe_price_id",
    "subscriptions": "stripe_subscription_id",
    "subscription_items": "stripe_subscription_item_id",
    "invoices": "stripe_invoice_id",
    "payment_history": "id",
    "disputes": "stripe_dispute_id",
}
"""The projected tables, and what their rows are known by."""


def lists(stripe: FakeStripe) -> dict[tuple[str, str], dict[str, Any]]:
    """Every listed object, as Stripe has it."""
    with stripe.world.lock:
        store = stripe.world.stores[stripe.account, False]
        return {(kind, obj["id"]): stripe.control._shown(obj) for kind in LISTED for obj in store.all(kind)}


def mirrored(db: Database) -> dict[tuple[str, str], dict[str, Any]]:
    """Every listed object that the mirror has and that is not deleted."""
    with db.connect() as connection, connection.transaction(), connection.cursor(name="objects") as objects:
        objects.execute(
            "select object_type, object_id, body from payments.stripe_objects where object_type = any (%s) and not deleted",
            (list(LISTED),),
        )
        return {(row.object_type, row.object_id): row.body for row in objects}


SILENT = {"next_invoice_sequence"}
"""Fields that Stripe changes without an event."""


def differences(db: Database, stripe: FakeStripe) -> list[str]:
    """Where the mirror and Stripe disagree."""
    ours, theirs = mirrored(db), lists(stripe)
    found = [f"{key} is not mirrored" for key in theirs.keys() - ours.keys()]
    found += [f"{key} is no more at Stripe" for key in ours.keys() - theirs.keys()]
    for key in theirs.keys() & ours.keys():
        wrong = [name for name, value in theirs[key].items() if name not in SILENT and ours[key].get(name) != value]
        found += [f"{key}: {', '.join(wrong)}"] * bool(wrong)
    return found


def rows(db: Database) -> dict[str, list[Any]]:
    """All projected rows."""
    return {
        table: [tuple(row) for row in db.execute(f"select * from payments.{table} order by {key}")]
        for table, key in TABLES.items()
    }
