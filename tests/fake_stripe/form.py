"""Form decoding as Stripe does it: `a[b]=1`, `a[0][b]=1`, `a[]=1`, and an empty string that clears."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any, Union
from urllib.parse import parse_qsl, urlencode

from .errors import invalid

Tree = Union[str, list[Any], dict[str, Any]]

_PART = re.compile(r"\[([^\[\]]*)\]")


def _path(name: str) -> list[str]:
    head, bracket, _ = name.partition("[")
    rest = name[len(head) :]
    parts = _PART.findall(rest)
    if bracket and "".join(f"[{part}]" for part in parts) != rest:
        raise invalid(f"Invalid request: malformed parameter name '{name}'", param=name)
    return [head] + parts


def _put(tree: dict[str, Any], path: list[str], value: str, name: str) -> None:
    """Every container is a dict while decoding; `[]` takes the next free number."""
    key = path[0]
    if key == "":
        # `a[][x]=1&a[][y]=2` is one element until a name repeats, as in Rack.
        last = str(len(tree) - 1)
        open_element = len(path) > 1 and isinstance(tree.get(last), dict) and path[1] not in tree[last]
        key = last if open_element else str(len(tree))
    if len(path) == 1:
        tree[key] = value
        return
    below = tree.setdefault(key, {})
    if not isinstance(below, dict):
        raise invalid(f"Invalid request: '{name}' is both a value and a container", param=name)
    _put(below, path[1:], value, name)


def _lists(node: Any) -> Any:
    """Turn containers numbered 0..n into lists."""
    if not isinstance(node, dict):
        return node
    below = {key: _lists(value) for key, value in node.items()}
    if below and all(key.isdigit() for key in below):
        return [below[key] for key in sorted(below, key=int)]
    return below


def decode(text: str) -> dict[str, Any]:
    """The parameters of a query string or form body, as nested dicts, lists and strings."""
    tree: dict[str, Any] = {}
    try:
        pairs = parse_qsl(text, keep_blank_values=True, errors="strict")
    except UnicodeDecodeError:
        raise invalid("Invalid request: parameters must be valid UTF-8") from None
    for name, value in pairs:
        _put(tree, _path(name), value, name)
    return {key: _lists(value) for key, value in tree.items()}


def _flatten(prefix: str, value: Any) -> Iterable[tuple[str, str]]:
    if isinstance(value, dict):
        for key, below in value.items():
            yield from _flatten(f"{prefix}[{key}]" if prefix else key, below)
    elif isinstance(value, (list, tuple)):
        for index, below in enumerate(value):
            yield from _flatten(f"{prefix}[{index}]", below)
    elif isinstance(value, bool):
        yield prefix, "true" if value else "false"
    else:
        yield prefix, "" if value is None else str(value)


def encode(params: dict[str, Any]) -> str:
    """The inverse of `decode`, as Stripe's own libraries write it."""
    return urlencode(list(_flatten("", params)))
