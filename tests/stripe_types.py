"""Stripe's own word on what is sent and answered: the types of its npm package, by TypeScript's compiler.

Every request of ours, whichever test it is part of, and every object that the fake Stripe makes
meanwhile is kept, one of each shape, and written out as TypeScript in the end.
"""

from __future__ import annotations

import json
import re
import subprocess
from pathlib import Path
from typing import Any

from fake_stripe import FakeStripe
from fake_stripe.store import API_VERSION, Store
from harness import TESTS, npm

PACKAGE = TESTS / "stripe_sdk"

OPTIONS = {
    **{"strict": True, "noEmit": True, "module": "nodenext", "target": "es2022", "skipLibCheck": True, "types": []},
}

PATH = re.compile(r"/v1/((?:checkout/|billing_portal/)?\w+)(?:/([^/]+))?(?:/(\w+))?")
ON_ALL = {"GET": "List", "POST": "Create"}
ON_ONE = {"GET": "Retrieve", "POST": "Update", "DELETE": "Delete"}

ACTIONS = {
    ("GET", "/v1/account"): "AccountRetrieveCurrentParams",
    ("DELETE", "/v1/subscriptions/{id}"): "SubscriptionCancelParams",
}
"""The parameters' types that are not named by the rule."""


class Seen:
    """What went over the wire, as the name of a type and a literal of it; one of each shape."""

    def __init__(self) -> None:
        self.literals: dict[tuple[str, str], Any] = {}

    def watch(self, fake: FakeStripe) -> None:
        """From now on, keeps every request of ours to this fake that it does not refuse.

        A caller can add parameters of their own, which are theirs to get right.
        """
        answered = fake.world.answered

        def keep(entry: dict[str, Any], **more: Any) -> None:
            answered(entry, **more)
            if entry["headers"].get("user-agent", "").startswith("payments/") and entry["status"] != 400:
                self.add(parameters_of(entry["method"], entry["path"]), as_sent(entry["params"] or {}))

        fake.world.answered = keep  # type: ignore[method-assign]

    def take(self, fake: FakeStripe) -> None:
        """Keeps every object that this fake has, and every one that it had when it told an event.

        The package knows the shapes of its own version alone.
        """
        with fake.world.lock:
            for store in fake.world.stores.values():
                for kind in list(store.collections):
                    for found in store.all(kind):
                        if kind == "event" and not self._is_of_stripe(store, found):
                            continue
                        if kind == "event":
                            self.add_object(found["data"]["object"])
                            # The package has no type for the parts of `previous_attributes`.
                            found = {**found, "data": {"object": found["data"]["object"]}}
                        self.add_object(found)

    @staticmethod
    def _is_of_stripe(store: Store, event: dict[str, Any]) -> bool:
        """Whether an event is about an object of this fake, in this version: a test can make up others."""
        about = event["data"]["object"]
        collection = store.collections.get(about.get("object"))
        known = collection is not None and any(one["id"] == about.get("id") for one in store.all(about["object"]))
        return known and event["api_version"] == API_VERSION

    def add_object(self, found: dict[str, Any]) -> None:
        """Keeps an object, unless a test made it up."""
        if (kind := type_of(found)) is not None:
            self.add(kind, as_read(found))

    def add(self, kind: str, literal: Any) -> None:
        self.literals.setdefault((kind, json.dumps(shape(literal), sort_keys=True)), literal)

    def kinds(self) -> set[str]:
        """The names of the types."""
        return {kind for kind, _ in self.literals}

    def judge(self, directory: Path) -> str:
        """What the compiler has to say against it: nothing, if all is well."""
        lines = ["import Stripe from 'stripe';"]
        for number, ((kind, _), literal) in enumerate(self.literals.items()):
            lines.append(f"export const v{number}: Stripe.{kind} = {json.dumps(literal)};")
        modules = npm.install(PACKAGE)
        (directory / "seen.ts").write_text("\n".join(lines))
        (directory / "tsconfig.json").write_text(json.dumps({"compilerOptions": OPTIONS, "files": ["seen.ts"]}))
        (directory / "node_modules").symlink_to(modules)
        compiler = [modules / ".bin" / "tsc", "-p", directory]
        return subprocess.run(compiler, capture_output=True, text=True, timeout=300).stdout


SEEN = Seen()
"""What this run of the tests has seen."""


def parameters_of(method: str, path: str) -> str:
    """The name of the type of a request's parameters, as the package names them by its paths."""
    resource, identifier, action = PATH.fullmatch(path).groups(default="")
    if named := ACTIONS.get((method, f"/v1/{resource}" + "/{id}" * bool(identifier))):
        return named
    *space, name = (_camel(part) for part in resource.removesuffix("s").split("/"))
    verb = _camel(action) or (ON_ONE if identifier else ON_ALL)[method]
    return ".".join([*space, f"{name}{verb}Params"])


def type_of(found: dict[str, Any]) -> str | None:
    """The name of an object's type."""
    kind = found.get("object")
    if not isinstance(kind, str) or found.get("deleted"):
        return None
    *space, name = (_camel(part) for part in kind.split("."))
    return ".".join([*space, name])


def as_sent(value: Any, name: str = "") -> Any:
    """Form parameters, which are all text, as what the package would have made them from."""
    if isinstance(value, dict):
        # The package has a class of its own for decimals, which no literal is one of.
        return {
            key: as_sent(below, "metadata" if name == "metadata" else key)
            for key, below in value.items()
            if not key.endswith("_decimal")
        }
    if isinstance(value, list):
        return [as_sent(below, name) for below in value]
    if name in TEXTS or not isinstance(value, str):
        return value
    if value in ("true", "false"):
        return value == "true"
    return int(value) if re.fullmatch(r"-?\d{1,15}", value) else value


TEXTS = {"metadata", "name", "description", "lookup_key", "lookup_keys", "email", "expand"}
"""Parameters that may look like a number and are none."""


def as_read(value: Any) -> Any:
    """An object as Stripe's client reads it, but for decimals."""
    if isinstance(value, dict):
        return {key: None if key.endswith("_decimal") else as_read(below) for key, below in value.items()}
    return [as_read(below) for below in value] if isinstance(value, list) else value


def shape(value: Any) -> Any:
    """What of a value its type could depend on: words are kept, ids, names and numbers are not."""
    match value:
        case dict():
            return {key: shape(below) for key, below in value.items()}
        case list():
            return sorted({json.dumps(shape(below), sort_keys=True) for below in value})
        case str():
            return value if re.fullmatch(r"[a-z_.]{1,60}", value) else "text"
        case bool() | None:
            return value
    return 0


def _camel(words: str) -> str:
    return "".join(word.capitalize() for word in words.split("_"))
