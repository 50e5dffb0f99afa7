"""The table of endpoints: each file in `resources/` adds its own with `@endpoint`."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from re import Pattern
from typing import Any, Callable

from .errors import invalid, no_such, unknown_url
from .expand import listed
from .schema import Array, Hash, Integer, Kind, Moment, Text
from .store import Object, Store


@dataclass
class Call:
    """One request that passed every check, on its way to the function that serves it."""

    store: Store
    params: dict[str, Any]
    ids: tuple[str, ...] = ()
    url: str = ""

    @property
    def id(self) -> str:
        """The id in the path."""
        return self.ids[0]

    def get(self, name: str, otherwise: Any = None) -> Any:
        """A parameter, or what it is when absent."""
        return self.params.get(name, otherwise)


Handler = Callable[[Call], Object]


@dataclass
class Endpoint:
    """A method and path, what it takes, and the restricted-key permission it asks for."""

    method: str
    path: str
    handler: Handler
    permission: str
    schema: Hash
    pattern: Pattern[str] = field(init=False)

    def __post_init__(self) -> None:
        self.pattern = re.compile(re.sub(r"\{\w+\}", "([^/]+)", self.path))


_endpoints: list[Endpoint] = []


def endpoint(method: str, path: str, permission: str, **params: Kind) -> Callable[[Handler], Handler]:
    """Declare the function that serves a method and path. Every endpoint takes `expand`."""

    def declare(handler: Handler) -> Handler:
        schema = Hash(expand=Array(Text()), **params)
        _endpoints.append(Endpoint(method, path, handler, permission, schema))
        return handler

    return declare


def route(method: str, path: str) -> tuple[Endpoint, tuple[str, ...]]:
    """The endpoint for a request, and the ids in its path."""
    for candidate in _endpoints:
        match = candidate.method == method and candidate.pattern.fullmatch(path)
        if match:
            return candidate, match.groups()
    raise unknown_url(method, path)


def listing(**filters: Kind) -> dict[str, Kind]:
    """The parameters of a list endpoint."""
    return dict(limit=Integer(1, 100), starting_after=Text(), ending_before=Text(), created=Moment(), **filters)


def within(moment: dict[str, int] | None, at: int) -> bool:
    """Whether a time passes a `created` filter."""
    if not moment:
        return True
    return (
        ("gt" not in moment or at > moment["gt"])
        and ("gte" not in moment or at >= moment["gte"])
        and ("lt" not in moment or at < moment["lt"])
        and ("lte" not in moment or at <= moment["lte"])
    )


def page(call: Call, kind: str, keep: Callable[[Object], bool] = lambda obj: True) -> Object:
    """One page of a list: newest first, `limit` of 10 unless told, cursors by id."""
    collection = call.store.collection(kind)
    after, before = call.get("starting_after"), call.get("ending_before")
    if after and before:
        raise invalid("You cannot use both `starting_after` and `ending_before`.", param="starting_after")
    for name, cursor in (("starting_after", after), ("ending_before", before)):
        if cursor and not collection.knows(cursor):
            raise no_such(kind, cursor, param=name)
    objects = collection.oldest_first(before) if before else collection.newest_first(after)
    limit = call.get("limit", 10)
    found: list[Object] = []
    for obj in objects:
        if within(call.get("created"), obj.get("created", 0)) and keep(obj):
            found.append(obj)
            if len(found) > limit:
                break
    data = found[:limit]
    return listed(data[::-1] if before else data, call.url, has_more=len(found) > limit)


def page_of(call: Call, objects: list[Object]) -> Object:
    """One page of a list that belongs to another object and keeps its own order."""
    ids = [obj["id"] for obj in objects]
    start, stop = 0, len(objects)
    for name in ("starting_after", "ending_before"):
        if call.get(name) and call.params[name] not in ids:
            raise no_such("item", call.params[name], param=name)
    if call.get("starting_after"):
        start = ids.index(call.params["starting_after"]) + 1
    if call.get("ending_before"):
        stop = ids.index(call.params["ending_before"])
        start = max(start, stop - call.get("limit", 10))
    end = min(stop, start + call.get("limit", 10))
    return listed(objects[start:end], call.url, has_more=start > 0 if call.get("ending_before") else end < len(objects))


def matches(call: Call, *fields: str) -> Callable[[Object], bool]:
    """A filter: every field that was given has the value that was given."""
    given = {name: call.params[name] for name in fields if call.params.get(name) is not None}
    return lambda obj: all(obj.get(name) == value for name, value in given.items())
