"""The remote control from outside: `python3 -m fake_stripe.control URL <action> …`, or `RemoteControl(URL)`."""

from __future__ import annotations

import argparse
import inspect
import json
import sys
import urllib.error
import urllib.request
from typing import Any

from . import form
from .actions import Control, actions, parameters_of, summary_of


class RemoteControl:
    """The same actions on a fake in another process: `RemoteControl(url).complete(session="cs_test_…")`."""

    def __init__(self, control_url: str) -> None:
        self._url = control_url.rstrip("/")

    def __getattr__(self, action: str) -> Any:
        def perform(**arguments: Any) -> Any:
            request = urllib.request.Request(
                f"{self._url}/_fake/{action}",
                json.dumps(arguments).encode(),
                {"Content-Type": "application/json"},
                method="POST",
            )
            opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
            try:
                with opener.open(request) as answer:
                    return json.load(answer)
            except urllib.error.HTTPError as error:
                raise RuntimeError(json.load(error)["error"]) from None

        return perform


def _value(text: str) -> Any:
    """A value from the command line: JSON where it is JSON, else the text itself."""
    try:
        return json.loads(text)
    except ValueError:
        return text


def _argument(parameter: inspect.Parameter, text: str) -> Any:
    if "dict" in str(parameter.annotation):
        return json.loads(text) if text.startswith("{") else form.decode(text)
    if "list" in str(parameter.annotation):
        return text.split(",")
    return text if "str" in str(parameter.annotation) else _value(text)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python3 -m fake_stripe.control",
        description="Make the fake Stripe at URL do something, and print what came of it as JSON.",
        epilog="Lists are given as a,b,c; objects as JSON or as name=value&name=value; booleans as true or false.",
    )
    parser.add_argument("url", metavar="URL", help="the control_url that the fake printed")
    parser.add_argument("--field", help="print only this field of the result, as text", metavar="NAME")
    below = parser.add_subparsers(dest="action", metavar="ACTION", required=True)
    for action in actions():
        sub = below.add_parser(action, help=summary_of(action), description=inspect.getdoc(getattr(Control, action)))
        for parameter in parameters_of(action):
            if parameter.kind is inspect.Parameter.VAR_KEYWORD:
                sub.add_argument("options", nargs="*", metavar="name=value", help="further options")
            elif parameter.default is inspect.Parameter.empty:
                sub.add_argument(parameter.name)
            else:
                told = f"default: {json.dumps(parameter.default)}"
                sub.add_argument("--" + parameter.name.replace("_", "-"), default=None, help=told)
    return parser


def main(arguments: list[str] | None = None) -> int:
    """The command line."""
    given = _parser().parse_args(arguments)
    wanted: dict[str, Any] = {}
    for parameter in parameters_of(given.action):
        text = getattr(given, parameter.name)
        if parameter.kind is inspect.Parameter.VAR_KEYWORD:
            wanted.update((name, _value(value)) for name, _, value in (option.partition("=") for option in text))
        elif text is not None:
            wanted[parameter.name] = _argument(parameter, text)
    try:
        result = getattr(RemoteControl(given.url), given.action)(**wanted)
    except (RuntimeError, OSError) as error:
        print(error, file=sys.stderr)
        return 1
    if given.field:
        result = result[given.field]
    print(result if isinstance(result, str) else json.dumps(result, indent=2, ensure_ascii=False))
    return 0


if __name__ == "__main__":
    sys.exit(main())
