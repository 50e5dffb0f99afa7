"""`tests/prove.sh`: what the tests try for seconds, tried for long. Each part prints its figures."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass

from harness import command_line, extension, postgres, run, say, toolchain
from harness.fuzzing import fuzzed
from harness.postgres import Postgres


@dataclass(frozen=True)
class Part:
    """Something to prove: what `--help` says of it, and how it is done on a Postgres with the extension."""

    what: str
    prove: Callable[[Postgres], bool]


def tested(*arguments: str, **sizes: int) -> Callable[[Postgres], bool]:
    """Tests of the ordinary suite with these sizes, which they read as `PAYMENTS_<SIZE>`."""
    environment = {f"PAYMENTS_{size.upper()}": str(value) for size, value in sizes.items()}

    def prove(installation: Postgres) -> bool:
        return run(
            *(sys.executable, "-m", "pytest", "--postgres", installation.major, "--capture=no", "-v", *arguments),
            env=environment,
        )

    return prove


def denied(*checks: str) -> Callable[[Postgres], bool]:
    """What cargo-deny has against the dependencies."""

    def prove(_: Postgres) -> bool:
        toolchain.install("cargo-deny", "0.20.2")
        return run("cargo", "deny", "--workspace", "--config", "tests/deny.toml", "check", *checks)

    return prove


PARTS = {
    "crash": Part(
        "400 times kill -9 in the middle of everything loses nothing and does nothing twice",
        tested("tests/test_crash.py", kills=400),
    ),
    "cancel": Part(
        "2,800 waits of 14 kinds are ended from outside, at once, and leave nothing",
        tested("tests/test_cancel.py", cancels=50),
    ),
    "leak": Part(
        "a backend that has done 100,000 calls is no bigger than one that has done 1,000",
        tested("tests/test_leak.py", calls=100_000),
    ),
    "concurrency": Part(
        "20,000 shuffled events on 8 connections end in the rows of one connection",
        tested("tests/test_concurrency.py", events=20_000),
    ),
    "fuzz": Part(
        "no bytes bring the signature header, the event, the join or the projections to a panic",
        fuzzed,
    ),
    "hostile": Part(
        "everything that Stripe can do wrong, at every function that asks it, leaves nothing half done",
        tested("tests/test_hostile_stripe.py", hostile=1),
    ),
    "deny": Part(
        "cargo-deny finds no dependency, licence or source that tests/deny.toml forbids",
        denied("bans", "licenses", "sources"),
    ),
    "advisories": Part(
        "no dependency has a security advisory against it, as far as RustSec knows, which git fetches from GitHub",
        denied("advisories"),
    ),
    "events": Part(
        "20,000 disturbed events, signed as if Stripe had sent them, are taken or refused",
        tested("tests/test_hostile_webhooks.py", "-k", "knees", cases=20_000),
    ),
    "sync": Part(
        "100,000 objects are synced through 20 kill -9",
        tested("tests/test_sync.py", "-k", "killed_at_random", "--timeout=7200", "--sync-objects=100000"),
    ),
}


def main() -> int:
    options = _parse()
    toolchain.prepare()
    installation = postgres.at_hand([options.pg])[0] if options.pg else postgres.preferred()
    extension.install(installation, release=options.release)
    results = {}
    for name in options.parts or PARTS:
        say(f"{name}: {PARTS[name].what}")
        started = time.monotonic()
        outcome = "passed" if PARTS[name].prove(installation) else "FAILED"
        results[name] = f"{outcome} in {time.monotonic() - started:.0f} s"
    say(f"summary, on {installation.label}")
    for name, outcome in results.items():
        print(f"    {name}: {outcome}")
    return int(any("FAILED" in outcome for outcome in results.values()))


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="tests/prove.sh",
        description="Tries for long what tests/run.sh tries for seconds: the parts named, or all of them.",
        epilog="\n".join(f"  {name:12} {part.what}" for name, part in PARTS.items()),
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("parts", nargs="*", metavar="part", help="one or more of those below")
    parser.add_argument("--pg", type=int, metavar="18", help="on this Postgres (default: as tests/run.sh --quick)")
    parser.add_argument("--release", action="store_true", help="with the release build (default: the tests' own)")
    options = parser.parse_args()
    if unknown := set(options.parts) - PARTS.keys():
        parser.error(f"no such part: {', '.join(sorted(unknown))}")
    return options


if __name__ == "__main__":
    command_line(main)
