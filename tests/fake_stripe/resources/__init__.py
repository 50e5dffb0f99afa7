"""What Stripe does, one file a topic; importing this package fills the table of endpoints."""

from . import (  # noqa: F401
    accounts,
    customers,
    disputes,
    events,
    invoices,
    payments,
    portal,
    prices,
    products,
    refunds,
    sessions,
    subscriptions,
    webhook_endpoints,
)
