"""A fake Stripe for tests and demos: the API, the buyers, the webhooks and the failures, on a local port.

with FakeStripe() as stripe:
    price = stripe.control.price(1900, lookup_key="pro", interval="month")
    ...                                             # the code under test calls stripe.base_url
    stripe.control.complete(session="cs_test_…")    # the buyer pays
    for event in stripe.control.deliveries():       # and Stripe tells
        ...                                         # event["body"], event["signature"]
"""

from .fake import FakeStripe

__all__ = ["FakeStripe"]
