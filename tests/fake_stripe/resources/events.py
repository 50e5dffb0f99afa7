"""Events of the last 30 days (https://docs.stripe.com/api/events)."""

from __future__ import annotations

from ..api import Call, endpoint, listing, page
from ..errors import invalid, no_such
from ..schema import Array, Boolean, Text
from ..store import Object

KEPT_SECONDS = 30 * 86400


def _named(pattern: str, type: str) -> bool:
    return type.startswith(pattern[:-1]) if pattern.endswith("*") else type == pattern


@endpoint("GET", "/v1/events/{id}", permission="event")
def retrieve(call: Call) -> Object:
    event = call.store.require("event", call.id)
    if event["created"] < call.store.clock.now() - KEPT_SECONDS:
        raise no_such("event", call.id)
    return event


@endpoint(
    "GET",
    "/v1/events",
    permission="event",
    **listing(delivery_success=Boolean(), type=Text(), types=Array(Text(), most=20)),
)
def index(call: Call) -> Object:
    if call.get("type") and call.get("types"):
        raise invalid("You may only specify one of these parameters: type, types.", param="types")
    wanted = call.get("types") or ([call.params["type"]] if call.get("type") else [])
    oldest = call.store.clock.now() - KEPT_SECONDS
    newest = call.store.clock.time() - call.store.events_lag
    return page(
        call,
        "event",
        lambda event: (
            oldest <= event["created"] <= newest
            and (not wanted or any(_named(pattern, event["type"]) for pattern in wanted))
        ),
    )
