"""The events that webhooks bring to a shop: of many buyers at once, and not quite in order."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from psycopg import sql

from fake_stripe import FakeStripe
from harness import database
from harness.cluster import Cluster
from harness.database import Database
from story import Shop, lives

MONTHS = 6
TOGETHER = 40
"""So many buyers are in the midst of something at any time."""
WINDOW = 20
"""Among so many neighbours events overtake one another."""

UNSUBSCRIBED = ("invoice.created", "invoice.payment_succeeded")
"""What `configure_webhook` does not ask for."""


@dataclass(frozen=True)
class Business:
    """A shop whose checkouts are made, and who has heard of nothing that came of them."""

    origin: Database
    """Copied for each run."""
    stripe: FakeStripe
    bodies: list[str]
    """What Stripe would send, byte for byte."""

    def copy(self) -> Database:
        self.origin.disconnect()
        return database.create(self.origin.cluster, template=self.origin.name)


@contextmanager
def business(cluster: Cluster, buyers: int) -> Iterator[Business]:
    """Lets so many buyers live at the fake Stripe: sign-ups, renewals, purchases, refunds, disputes, cancellations."""
    with FakeStripe(seed=1) as stripe:
        origin = database.create(cluster)
        setting = sql.SQL("alter database {} set payments.stripe_api_base = {}")
        origin.execute(setting.format(sql.Identifier(origin.name), sql.Literal(stripe.base_url)))
        origin.disconnect()
        origin.execute("set synchronous_commit = off")
        origin.execute("select payments.set_webhook_secret('test', %s)", (stripe.webhook_secret,))
        told = lives(Shop(origin, stripe), buyers, MONTHS)
        yield Business(origin, stripe, _mingled(told, random.Random(1)))


def _mingled(lives: list[list[str]], dice: random.Random) -> list[str]:
    """All events, each life's own in their order but for what overtakes within the window."""
    waiting = [[body for body in life if json.loads(body)["type"] not in UNSUBSCRIBED] for life in lives]
    waiting.reverse()
    active: list[list[str]] = []
    told: list[str] = []
    while waiting or active:
        while waiting and len(active) < TOGETHER:
            active.append(waiting.pop()[::-1])
        life = dice.choice(active)
        told.append(life.pop())
        if not life:
            active.remove(life)
    late = [(place + dice.uniform(0, WINDOW), body) for place, body in enumerate(told)]
    return [body for _, body in sorted(late)]
