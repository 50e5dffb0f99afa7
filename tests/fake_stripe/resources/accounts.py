"""The account behind a key (https://docs.stripe.com/api/accounts)."""

from __future__ import annotations

from ..api import Call, endpoint
from ..store import Object, Store


def open_account(store: Store, email: str) -> Object:
    """The account's own object, the same in both modes."""
    return store.add(
        {
            "id": store.account,
            "object": "account",
            "business_profile": {
                "annual_revenue": None,
                "estimated_worker_count": None,
                "mcc": None,
                "minority_owned_business_designation": None,
                "name": "Fake Stripe",
                "product_description": None,
                "specified_commercial_transactions_act_url": None,
                "support_address": None,
                "support_email": None,
                "support_phone": None,
                "support_url": None,
                "url": None,
            },
            "business_type": "company",
            "capabilities": {"card_payments": "active", "transfers": "active"},
            "charges_enabled": True,
            "controller": {"type": "account"},
            "country": "US",
            "created": store.clock.now(),
            "default_currency": "usd",
            "details_submitted": True,
            "email": email,
            "external_accounts": {
                "object": "list",
                "data": [],
                "has_more": False,
                "url": f"/v1/accounts/{store.account}/external_accounts",
            },
            "metadata": {},
            "payouts_enabled": True,
            "settings": {
                "branding": {"icon": None, "logo": None, "primary_color": None, "secondary_color": None},
                "card_payments": {
                    "statement_descriptor_prefix": "FAKE",
                    "statement_descriptor_prefix_kana": None,
                    "statement_descriptor_prefix_kanji": None,
                },
                "dashboard": {"display_name": "Fake Stripe", "timezone": "Etc/UTC"},
                "payments": {
                    "statement_descriptor": "FAKE STRIPE",
                    "statement_descriptor_kana": None,
                    "statement_descriptor_kanji": None,
                    "statement_descriptor_prefix_kana": None,
                    "statement_descriptor_prefix_kanji": None,
                },
            },
            "tos_acceptance": {"date": None, "ip": None, "user_agent": None},
            "type": "standard",
        }
    )


@endpoint("GET", "/v1/account", permission="accounts_kyc_basic")
def current(call: Call) -> Object:
    return call.store.require("account", call.store.account)
