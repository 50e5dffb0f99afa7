"""Identifiers in the shapes that Stripe gives them."""

from __future__ import annotations

import random
import string

_ALPHABET = string.ascii_letters + string.digits

# Object type: prefix, the fixed start of the random part, its whole length.
_SHAPES = {
    "account": ("acct_", "1", 16),
    "balance_transaction": ("txn_", "3", 24),
    "billing_portal.configuration": ("bpc_", "1", 24),
    "billing_portal.session": ("bps_", "1", 24),
    "charge": ("ch_", "3", 24),
    "customer": ("cus_", "", 14),
    "dispute": ("du_", "1", 24),
    "event": ("evt_", "1", 24),
    "invoice": ("in_", "1", 24),
    "invoice_payment": ("inpay_", "1", 24),
    "item": ("li_", "1", 24),
    "line_item": ("il_", "1", 24),
    "payment_intent": ("pi_", "3", 24),
    "payment_method": ("pm_", "1", 24),
    "price": ("price_", "1", 24),
    "product": ("prod_", "", 14),
    "refund": ("re_", "3", 24),
    "subscription": ("sub_", "1", 24),
    "subscription_item": ("si_", "", 14),
    "webhook_endpoint": ("we_", "1", 24),
}

_TYPE_OF_PREFIX = {prefix: kind for kind, (prefix, _, _) in _SHAPES.items()}
_TYPE_OF_PREFIX.update({"cs_": "checkout.session", "dp_": "dispute"})


def type_of(identifier: str) -> str | None:
    """The object type that an id's prefix tells, or None for a free-text id."""
    return _TYPE_OF_PREFIX.get(identifier.split("_", 1)[0] + "_")


class Ids:
    """A source of fresh ids; the same seed gives the same ids in the same order."""

    def __init__(self, seed: int | None = None) -> None:
        self._random = random.Random(seed)

    def text(self, length: int) -> str:
        """Random letters and digits."""
        return "".join(self._random.choice(_ALPHABET) for _ in range(length))

    def make(self, kind: str, livemode: bool = False) -> str:
        """A fresh id for an object of this type."""
        if kind == "checkout.session":
            return "cs_{}_a1{}".format("live" if livemode else "test", self.text(58))
        prefix, start, length = _SHAPES[kind]
        return prefix + start + self.text(length - len(start))

    def request(self) -> str:
        """A fresh `Request-Id`."""
        return "req_" + self.text(14)

    def signing_secret(self) -> str:
        """A fresh webhook signing secret."""
        return "whsec_" + self.text(32)
