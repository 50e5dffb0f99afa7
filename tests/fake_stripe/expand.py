"""Objects as they leave: copies, with what `expand[]` asks for in place of ids."""

from __future__ import annotations

import copy
from typing import Any, Callable

from .errors import invalid
from .ids import type_of
from .store import Object, Store

DEPTH = 4

_included: dict[tuple[str, str], Callable[[Store, Object], Any]] = {}

# Ids that look expandable and are not.
_PLAIN = {
    ("billing_portal.session", "customer"),
    ("charge", "payment_method"),
    ("event", "id"),
    ("subscription_item", "subscription"),
}


def included(kind: str, field: str) -> Callable[[Callable[[Store, Object], Any]], Callable[[Store, Object], Any]]:
    """Declare a field that objects of this type show only when it is expanded."""

    def declare(make: Callable[[Store, Object], Any]) -> Callable[[Store, Object], Any]:
        _included[kind, field] = make
        return make

    return declare


def listed(data: list[Object], url: str, has_more: bool = False) -> Object:
    """A list object."""
    return {"object": "list", "data": data, "has_more": has_more, "url": url}


def _fetch(store: Store, identifier: str) -> Any:
    kind = type_of(identifier) or "product"
    found = store.get(kind, identifier) or store.tombstones.get(identifier)
    return copy.deepcopy(found)


def _refuse(path: str) -> None:
    raise invalid(
        f"This property cannot be expanded ({path}). You may want to try expanding 'data.{path}' instead, if this is a "
        "list.",
        param="expand",
    )


def _expand(store: Store, node: Any, path: list[str], whole: str) -> None:
    if isinstance(node, list):
        for below in node:
            _expand(store, below, path, whole)
        return
    if not isinstance(node, dict) or not path:
        return
    field, rest = path[0], path[1:]
    kind = node.get("object", "")
    if node.get("deleted"):
        return
    make = _included.get((kind, field))
    if make is not None and node.get(field) is None:
        node[field] = copy.deepcopy(make(store, node))
    elif field not in node or (kind, field) in _PLAIN or field == "id":
        # Fields of hashes come and go; fields of objects are fixed.
        if kind:
            _refuse(whole)
        return
    value = node[field]
    if isinstance(value, str):
        fetched = _fetch(store, value)
        if fetched is None:
            _refuse(whole)
        node[field] = fetched
    elif isinstance(value, list):
        node[field] = [_fetch(store, below) or below if isinstance(below, str) else below for below in value]
    elif value is not None and not isinstance(value, (dict, list)):
        _refuse(whole)
    _expand(store, node[field], rest, whole)


def render(store: Store, obj: Any, paths: list[str]) -> Any:
    """A copy of `obj` with the paths expanded, at most four levels deep."""
    shown = copy.deepcopy(obj)
    for whole in paths:
        path = whole.split(".")
        levels = path[1:] if path[0] == "data" else path
        if len(levels) > DEPTH:
            raise invalid(f"You cannot expand more than 4 levels of a property. Property: {whole}", "expand")
        _expand(store, shown, path, whole)
    return shown
