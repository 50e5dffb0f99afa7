"""Webhook endpoints (https://docs.stripe.com/api/webhook_endpoints)."""

from __future__ import annotations

from typing import Any

from ..api import Call, endpoint, listing, page
from ..errors import invalid
from ..event_types import EVENT_TYPES
from ..schema import Array, Boolean, Metadata, Text, Url, clearable, merged, needed
from ..store import Object

MOST = 16


class _Events(Array):
    """What an endpoint is sent: known types of events, or all of them."""

    def __init__(self) -> None:
        super().__init__(Text())

    def value(self, raw: Any, name: str) -> list[Any]:
        events = super().value(raw, name)
        for index, event in enumerate(events):
            if event != "*" and event not in EVENT_TYPES:
                raise invalid(f"Invalid {name}[{index}]: must be one of *, {', '.join(sorted(EVENT_TYPES))}", name)
        if "*" in events and len(events) > 1:
            raise invalid("You cannot specify `*` together with other events.", name)
        return events


@endpoint(
    "POST",
    "/v1/webhook_endpoints",
    permission="webhook",
    api_version=Text(pattern=r"\d{4}-\d{2}-\d{2}(\.\w+)?"),
    connect=Boolean(),
    description=clearable(Text()),
    enabled_events=needed(_Events()),
    metadata=clearable(Metadata()),
    url=needed(Url()),
)
def create(call: Call) -> Object:
    store = call.store
    if store.livemode and not call.params["url"].startswith("https://"):
        raise invalid("Invalid URL: live mode webhook endpoints must use HTTPS.", param="url", code="url_invalid")
    if len(store.collection("webhook_endpoint")) >= MOST:
        raise invalid(f"You have reached the maximum of {MOST} test webhook endpoints.")
    hook = store.new(
        "webhook_endpoint",
        api_version=call.get("api_version"),
        application=None,
        description=call.get("description"),
        enabled_events=call.params["enabled_events"],
        metadata=merged({}, call.get("metadata", {})),
        status="enabled",
        url=call.params["url"],
    )
    secret = store.ids.signing_secret()
    store.notes[hook["id"]] = {"secret": secret}
    store.add(hook)
    # The secret is shown this once.
    return {**hook, "secret": secret}


@endpoint("GET", "/v1/webhook_endpoints/{id}", permission="webhook")
def retrieve(call: Call) -> Object:
    return call.store.require("webhook_endpoint", call.id)


@endpoint(
    "POST",
    "/v1/webhook_endpoints/{id}",
    permission="webhook",
    description=clearable(Text()),
    disabled=Boolean(),
    enabled_events=_Events(),
    metadata=clearable(Metadata()),
    url=Url(),
)
def update(call: Call) -> Object:
    hook = call.store.require("webhook_endpoint", call.id)
    changes: dict[str, Any] = {
        name: call.params[name] for name in ("description", "enabled_events", "url") if name in call.params
    }
    if "disabled" in call.params:
        changes["status"] = "disabled" if call.params["disabled"] else "enabled"
    if "metadata" in call.params:
        changes["metadata"] = merged(hook["metadata"], call.params["metadata"])
    return call.store.change(hook, **changes)


@endpoint("DELETE", "/v1/webhook_endpoints/{id}", permission="webhook")
def delete(call: Call) -> Object:
    return call.store.delete(call.store.require("webhook_endpoint", call.id))


@endpoint("GET", "/v1/webhook_endpoints", permission="webhook", **listing())
def index(call: Call) -> Object:
    return page(call, "webhook_endpoint")
