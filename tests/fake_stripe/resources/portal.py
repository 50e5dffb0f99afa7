"""The customer portal (https://docs.stripe.com/api/customer_portal)."""

from __future__ import annotations

from typing import Any

from ..api import Call, endpoint, listing, matches, page
from ..errors import invalid, no_such
from ..schema import (
    Anything,
    Array,
    Boolean,
    Choice,
    Hash,
    Integer,
    Metadata,
    Text,
    Url,
    clearable,
    merged,
    needed,
)
from ..store import Object, Store


def open_configuration(store: Store) -> Object:
    """The default configuration that saving the portal's settings in the dashboard makes."""
    configuration = store.new(
        "billing_portal.configuration",
        active=True,
        application=None,
        business_profile={"headline": None, "privacy_policy_url": None, "terms_of_service_url": None},
        default_return_url=None,
        features={
            "customer_update": {"allowed_updates": ["email", "tax_id"], "enabled": True},
            "invoice_history": {"enabled": True},
            "payment_method_update": {"enabled": True, "payment_method_configuration": None},
            "subscription_cancel": {
                "cancellation_reason": {"enabled": False, "feedback_options": None, "options": []},
                "enabled": True,
                "mode": "at_period_end",
                "proration_behavior": "none",
            },
            "subscription_pause": {
                "duration": {
                    "interval_options": [{"interval": "month", "interval_count": 1}],
                    "type": "interval_options",
                },
                "enabled": False,
            },
            "subscription_update": {
                "billing_cycle_anchor": None,
                "default_allowed_updates": ["price"],
                "enabled": True,
                "proration_behavior": "none",
                "schedule_at_period_end": {"conditions": []},
                "trial_update_behavior": "end_trial",
            },
        },
        is_default=True,
        login_page={"enabled": False, "url": None},
        metadata={},
        name=None,
        updated=store.clock.now(),
    )
    return store.add(configuration)


def _flow(store: Store, customer: Object, given: dict[str, Any]) -> Object:
    kind = given["type"]
    target: dict[str, Any] | None = given.get(kind)
    if kind != "payment_method_update":
        if target is None:
            name = f"flow_data[{kind}]"
            raise invalid(f"Missing required param: {name}.", name, "parameter_missing")
        name = f"flow_data[{kind}][subscription]"
        subscription = store.require("subscription", target["subscription"], name)
        if subscription["customer"] != customer["id"]:
            raise no_such("subscription", subscription["id"], param=name)
    after = given.get("after_completion", {"type": "portal_homepage"})
    shown: Object = {
        "after_completion": {
            "hosted_confirmation": after.get("hosted_confirmation"),
            "redirect": after.get("redirect"),
            "type": after["type"],
        },
        "customer_update": None,
        "subscription_cancel": None,
        "subscription_pause": None,
        "subscription_update": None,
        "subscription_update_confirm": None,
        "type": kind,
    }
    if kind == "subscription_cancel":
        shown[kind] = {"retention": (target or {}).get("retention"), "subscription": (target or {})["subscription"]}
    elif kind in shown:
        shown[kind] = target
    return shown


@endpoint(
    "POST",
    "/v1/billing_portal/sessions",
    permission="customer_portal",
    configuration=Text(),
    customer=Text(),
    customer_account=Text(),
    flow_data=Hash(
        after_completion=Hash(
            hosted_confirmation=Hash(custom_message=Text(500)),
            redirect=Hash(return_url=needed(Url())),
            type=needed(Choice("hosted_confirmation", "portal_homepage", "redirect")),
        ),
        subscription_cancel=Hash(retention=Anything(), subscription=needed(Text())),
        subscription_pause=Hash(subscription=needed(Text())),
        subscription_update=Hash(subscription=needed(Text())),
        subscription_update_confirm=Hash(
            discounts=Anything(),
            items=needed(Array(Hash(id=needed(Text()), price=Text(), quantity=Integer(0)))),
            subscription=needed(Text()),
        ),
        type=needed(
            Choice(
                "payment_method_update",
                "subscription_cancel",
                "subscription_pause",
                "subscription_update",
                "subscription_update_confirm",
            )
        ),
    ),
    locale=Text(10),
    on_behalf_of=Text(),
    return_url=Url(),
)
def create(call: Call) -> Object:
    store = call.store
    if not call.get("customer"):
        raise invalid("Missing required param: customer.", "customer", "parameter_missing")
    customer = store.require("customer", call.params["customer"], "customer")
    if call.get("configuration"):
        configuration = store.require("billing_portal.configuration", call.params["configuration"], "configuration")
    else:
        configuration = next((found for found in store.all("billing_portal.configuration") if found["is_default"]), {})
    if not configuration.get("active"):
        mode = "live" if store.livemode else "test"
        raise invalid(
            f"No configuration provided and your {mode} mode default configuration has not been created. Provide a "
            f"configuration or create your default by saving your customer portal settings in {mode} mode at "
            "https://dashboard.stripe.com/settings/billing/portal."
        )
    session = store.new(
        "billing_portal.session",
        after_expiration=None,
        configuration=configuration["id"],
        customer=customer["id"],
        customer_account=None,
        flow=_flow(store, customer, call.params["flow_data"]) if call.get("flow_data") else None,
        locale=call.get("locale"),
        on_behalf_of=call.get("on_behalf_of"),
        return_url=call.get("return_url", configuration["default_return_url"]),
        url="https://billing.stripe.com/p/session/{}_{}".format(
            "live" if store.livemode else "test", store.ids.text(90)
        ),
    )
    store.add(session)
    store.emit("billing_portal.session.created", session)
    return session


CHANGEABLE = dict(
    business_profile=Anything(),
    default_return_url=clearable(Url()),
    features=Anything(),
    login_page=Anything(),
    metadata=clearable(Metadata()),
    name=clearable(Text()),
)


def _configure(store: Store, configuration: Object, given: dict[str, Any]) -> dict[str, Any]:
    changes: dict[str, Any] = {}
    changes.update((name, given[name]) for name in ("active", "default_return_url", "name") if name in given)
    if "metadata" in given:
        changes["metadata"] = merged(configuration["metadata"], given["metadata"])
    return {**changes, "updated": store.clock.now()}


@endpoint("POST", "/v1/billing_portal/configurations", permission="customer_portal", **CHANGEABLE)
def create_configuration(call: Call) -> Object:
    configuration = open_configuration(call.store)
    configuration.update(_configure(call.store, configuration, call.params), is_default=False)
    call.store.emit("billing_portal.configuration.created", configuration)
    return configuration


@endpoint(
    "POST",
    "/v1/billing_portal/configurations/{id}",
    permission="customer_portal",
    active=Boolean(),
    **CHANGEABLE,
)
def update_configuration(call: Call) -> Object:
    configuration = call.store.require("billing_portal.configuration", call.id)
    changes = _configure(call.store, configuration, call.params)
    return call.store.change(configuration, "billing_portal.configuration.updated", **changes)


@endpoint("GET", "/v1/billing_portal/configurations/{id}", permission="customer_portal")
def retrieve_configuration(call: Call) -> Object:
    return call.store.require("billing_portal.configuration", call.id)


@endpoint(
    "GET",
    "/v1/billing_portal/configurations",
    permission="customer_portal",
    **listing(active=Boolean(), is_default=Boolean()),
)
def index_configurations(call: Call) -> Object:
    return page(call, "billing_portal.configuration", matches(call, "active", "is_default"))
