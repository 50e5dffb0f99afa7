"""`tests/run.sh`: what is checked, in which order, and the summary."""

from __future__ import annotations

import argparse
import re
import sys
import time
from collections.abc import Callable

from harness import Unmet, command_line, extension, postgres, run, say, toolchain
from harness.postgres import Postgres


def main() -> int:
    options, pytest_arguments = _parse()
    toolchain.prepare()
    # It takes minutes once, so not for whoever names other tests.
    if not options.quick and (not pytest_arguments or "gateway" in " ".join(pytest_arguments)):
        toolchain.install_postrust()
    installations = [postgres.preferred()] if options.quick and not options.pg else postgres.at_hand(options.pg)

    results: dict[str, str] = {}

    def stage(name: str, step: Callable[..., bool], *arguments: object) -> None:
        started = time.monotonic()
        try:
            outcome = "passed" if step(*arguments) else "FAILED"
        except Unmet as unmet:
            print(unmet, file=sys.stderr)
            outcome = "FAILED"
        results[name] = f"{outcome} in {time.monotonic() - started:.0f} s"

    # Whoever names tests wants those, and wants them now.
    if not pytest_arguments:
        stage("without Postgres", _without_postgres, installations[0], options.quick)
    for installation in installations:
        stage(installation.label, _with, installation, options.quick, pytest_arguments)

    say("summary")
    for name, outcome in results.items():
        print(f"    {name}: {outcome}")
    return int(any("FAILED" in outcome for outcome in results.values()))


def _parse() -> tuple[argparse.Namespace, list[str]]:
    parser = argparse.ArgumentParser(
        prog="tests/run.sh",
        description="All tests, on every Postgres at hand. Arguments that are not listed go to pytest; with them, "
        "only those tests run: tests/run.sh --pg 18 tests/test_extension.py -k schema",
        allow_abbrev=False,
    )
    parser.add_argument(
        "--pg",
        metavar="15,18",
        type=lambda text: [int(major) for major in text.split(",")],
        help="these majors only (default: the machine's own, and 16 and 18 from PyPI)",
    )
    parser.add_argument(
        "--quick", action="store_true", help="one Postgres unless --pg names more, no lints, no slow tests"
    )
    return parser.parse_known_args()


def _without_postgres(first: Postgres, quick: bool) -> bool:
    say("formatting, lints and the tests that need no server")
    return all(
        [
            quick or _lints(first),
            run("cargo", "test", "-p", "payments-stripe", "-p", "payments-ledger", "-p", "payments-fuzz"),
            _pytest("-m", "not postgres" + " and not slow" * quick),
        ]
    )


def _lints(first: Postgres) -> bool:
    strict = ("--workspace", "--all-targets", "--features", f"pg{first.major}", "--", "-D", "warnings")
    return all(
        [
            toolchain.has("fmt") and run("cargo", "fmt", "--all", "--check"),
            toolchain.has("clippy") and run("cargo", "clippy", *strict, env=extension.environment(first)),
        ]
    )


def _with(installation: Postgres, quick: bool, arguments: list[str]) -> bool:
    extension.install(installation)
    say(f"testing on {installation.label}")
    chosen = arguments or ["-m", "postgres" + " and not slow" * quick]
    return _pytest("--postgres", installation.major, *chosen)


def _pytest(*arguments: object) -> bool:
    named = any(re.match(r"(tests/|[\w/]*test_\w+)", str(argument)) for argument in arguments)
    return run(sys.executable, "-m", "pytest", *([] if named else ["tests"]), *arguments)


if __name__ == "__main__":
    command_line(main)
