"""What an endpoint takes: names, types and limits, checked before it runs, with Stripe's own refusals."""

from __future__ import annotations

import re
from typing import Any
from urllib.parse import urlsplit

from .errors import StripeError, invalid


class Kind:
    """The type of one parameter. A *clearable* one takes an empty string as null."""

    needed = False
    clearable = False

    def read(self, raw: Any, name: str) -> Any:
        """The value of a decoded parameter, or the refusal Stripe would answer with."""
        if raw == "":
            if self.clearable:
                return None
            raise invalid(
                f"You passed an empty string for '{name}'. We assume empty values are an attempt to unset a parameter; "
                f"however '{name}' cannot be unset. You should remove '{name}' from your request or supply a non-empty "
                "value.",
                param=name,
                code="parameter_invalid_empty",
            )
        return self.value(raw, name)

    def value(self, raw: Any, name: str) -> Any:
        """The value of a parameter that is not empty."""
        raise NotImplementedError


def needed(kind: Kind) -> Kind:
    """A parameter that must be there."""
    kind.needed = True
    return kind


def clearable(kind: Kind) -> Kind:
    """A parameter that an empty string sets to null."""
    kind.clearable = True
    return kind


class Text(Kind):
    """A string of at most `limit` characters."""

    def __init__(self, limit: int = 5000, pattern: str | None = None) -> None:
        self.limit = limit
        self.pattern = re.compile(pattern) if pattern else None

    def value(self, raw: Any, name: str) -> str:
        if not isinstance(raw, str):
            raise invalid(f"Invalid string: {raw}", param=name)
        if len(raw) > self.limit:
            raise invalid(
                f"Invalid string: {raw[:10]}...{raw[-10:]}; must be at most {self.limit} characters",
                param=name,
            )
        if self.pattern and not self.pattern.fullmatch(raw):
            raise invalid(f"Invalid string: {raw}", param=name)
        return raw


class Url(Text):
    """An absolute http or https URL. `{CHECKOUT_SESSION_ID}` and the like may stand in it."""

    def value(self, raw: Any, name: str) -> str:
        text = super().value(raw, name)
        try:
            parts = urlsplit(text)
        except ValueError:
            parts = urlsplit("")
        if parts.scheme not in ("http", "https") or not parts.netloc or re.search(r"\s", text):
            raise invalid("Not a valid URL", param=name, code="url_invalid")
        return text


class Email(Text):
    """An e-mail address."""

    def __init__(self) -> None:
        super().__init__(limit=800)

    def value(self, raw: Any, name: str) -> str:
        text = super().value(raw, name)
        if not re.fullmatch(r"[^@\s]+@[^@\s.]+(\.[^@\s.]+)+", text):
            raise invalid(f"Invalid email address: {text}", param=name, code="email_invalid")
        return text


class Integer(Kind):
    """A whole number between two bounds."""

    def __init__(self, least: int | None = None, most: int | None = None) -> None:
        self.least, self.most = least, most

    def value(self, raw: Any, name: str) -> int:
        if not isinstance(raw, str) or not re.fullmatch(r"[+-]?\d{1,19}", raw):
            raise invalid(f"Invalid integer: {raw}", param=name, code="parameter_invalid_integer")
        number = int(raw)
        if self.least is not None and number < self.least:
            raise invalid(
                f"This value must be greater than or equal to {self.least}.",
                param=name,
                code="parameter_invalid_integer",
            )
        if self.most is not None and number > self.most:
            raise invalid(
                f"This value must be less than or equal to {self.most}.",
                param=name,
                code="parameter_invalid_integer",
            )
        return number


class Decimal(Kind):
    """A decimal number, kept as the text it is."""

    def value(self, raw: Any, name: str) -> str:
        if not isinstance(raw, str) or not re.fullmatch(r"-?\d{1,19}(\.\d{1,12})?", raw):
            raise invalid(f"Invalid decimal: {raw}", param=name)
        return raw


class Boolean(Kind):
    """`true` or `false`."""

    def value(self, raw: Any, name: str) -> bool:
        if raw not in ("true", "false"):
            raise invalid(f"Invalid boolean: {raw}", param=name)
        return bool(raw == "true")


class Choice(Kind):
    """One of a few words."""

    def __init__(self, *words: str) -> None:
        self.words = words

    def value(self, raw: Any, name: str) -> str:
        if raw not in self.words:
            *most, last = self.words
            said = "{}, or {}".format(", ".join(most), last) if most else last
            raise invalid(f"Invalid {name}: must be one of {said}", param=name)
        return str(raw)


class Hash(Kind):
    """Named parameters inside a parameter; anything else is unknown."""

    def __init__(self, **fields: Kind) -> None:
        self.fields = fields

    def value(self, raw: Any, name: str) -> dict[str, Any]:
        if not isinstance(raw, dict):
            raise invalid("Invalid object", param=name)

        def full(field: str) -> str:
            return f"{name}[{field}]" if name else field

        unknown = [full(field) for field in raw if field not in self.fields]
        if unknown:
            plural = "s" if len(unknown) > 1 else ""
            raise invalid(
                "Received unknown parameter{}: {}".format(plural, ", ".join(unknown)),
                param=unknown[0],
                code="parameter_unknown",
            )
        values = {field: self.fields[field].read(below, full(field)) for field, below in raw.items()}
        for field, kind in self.fields.items():
            if kind.needed and field not in values:
                raise invalid(f"Missing required param: {full(field)}.", param=full(field), code="parameter_missing")
        return values


class Array(Kind):
    """A list of one kind of value."""

    def __init__(self, item: Kind, most: int | None = None) -> None:
        self.item, self.most = item, most

    def value(self, raw: Any, name: str) -> list[Any]:
        if not isinstance(raw, list):
            raise invalid("Invalid array", param=name)
        if self.most is not None and len(raw) > self.most:
            raise invalid(f"Array {name} exceeded maximum {self.most} allowed elements.", param=name)
        return [self.item.read(below, f"{name}[{index}]") for index, below in enumerate(raw)]


class Metadata(Kind):
    """Up to 50 pairs of strings; an empty value deletes its key (https://docs.stripe.com/api/metadata)."""

    def value(self, raw: Any, name: str) -> dict[str, str]:
        if isinstance(raw, list):
            raw = {str(index): below for index, below in enumerate(raw)}
        if not isinstance(raw, dict):
            raise invalid("Invalid object", param=name)
        if len(raw) > 50:
            raise invalid(f"Metadata can have at most 50 keys, but you passed in {len(raw)}.", param=name)
        for key, text in raw.items():
            if not isinstance(text, str):
                raise invalid(f"Invalid string: {text}", param=f"{name}[{key}]")
            if len(key) > 40:
                raise invalid(
                    "Metadata keys can have up to 40 characters, but you passed in a key that is "
                    f"{len(key)} characters. Invalid key: {key}",
                    param=name,
                )
            if len(text) > 500:
                raise invalid(
                    "Metadata values can have up to 500 characters, but you passed in a value that is "
                    f"{len(text)} characters. Invalid value: {text}",
                    param=name,
                )
        return dict(raw)


class Moment(Kind):
    """A time in whole seconds, or a range of them with `gt`, `gte`, `lt`, `lte`: what list filters take."""

    _range = Hash(gt=Integer(), gte=Integer(), lt=Integer(), lte=Integer())

    def value(self, raw: Any, name: str) -> dict[str, int]:
        if isinstance(raw, str):
            at = Integer().value(raw, name)
            return {"gte": at, "lte": at}
        return self._range.value(raw, name)


class Anything(Kind):
    """A parameter that Stripe has and this fake takes without reading it."""

    clearable = True

    def value(self, raw: Any, name: str) -> Any:
        return raw


class Either(Kind):
    """The first of several kinds that accepts the value."""

    def __init__(self, *kinds: Kind) -> None:
        self.kinds = kinds

    def value(self, raw: Any, name: str) -> Any:
        *most, last = self.kinds
        for kind in most:
            try:
                return kind.value(raw, name)
            except StripeError:
                continue
        return last.value(raw, name)


def merged(before: dict[str, str] | None, given: dict[str, str] | None) -> dict[str, str]:
    """Metadata after an update: given keys win, empty values delete, null clears everything."""
    if given is None:
        return {}
    both = {**(before or {}), **given}
    return {key: text for key, text in both.items() if text != ""}


ADDRESS = dict(
    city=clearable(Text()),
    country=clearable(Text(2)),
    line1=clearable(Text()),
    line2=clearable(Text()),
    postal_code=clearable(Text()),
    state=clearable(Text()),
)


def address(given: dict[str, Any] | None) -> dict[str, Any] | None:
    """An address in full, as Stripe shows it."""
    return None if given is None else {field: given.get(field) for field in ADDRESS}
