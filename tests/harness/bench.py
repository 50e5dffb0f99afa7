"""`tests/bench.sh`: builds for release, measures the items named, prints a table and writes a CSV."""

from __future__ import annotations

import argparse
import csv
import json
import os
import platform
import subprocess
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from harness import (
    TARGET,
    Unmet,
    bench_access,
    bench_checkout,
    bench_growth,
    bench_instructions,
    bench_micro,
    bench_sync,
    bench_webhook,
    command_line,
    extension,
    output,
    postgres,
    run,
    say,
    toolchain,
)
from harness.cluster import Cluster
from harness.postgres import Postgres

SETTINGS = {
    "fsync": "on",
    "shared_buffers": "'512MB'",
    # No checkpoint in the midst of a run unless the run is long.
    "max_wal_size": "'4GB'",
    "checkpoint_timeout": "'30min'",
}


TOLERATED = 1.02
"""Times as many instructions as before: ids and times of day make some tenths of a percent."""


@dataclass(frozen=True)
class Figure:
    """One thing measured, beside what its item is compared with."""

    item: str
    case: str
    measure: str
    unit: str
    ours: float
    beside: float | None = None

    @property
    def ratio(self) -> float | None:
        return self.ours / self.beside if self.beside else None


@dataclass
class Bench:
    """What the items measure with."""

    installation: Postgres
    quick: bool
    full: bool
    figures: list[Figure] = field(default_factory=list)
    client_program = TARGET / "release" / "payments-bench"

    def cluster(self, environment: dict[str, str] | None = None, **settings: str) -> Cluster:
        """A server that keeps what it acknowledges, as a production server does."""
        return Cluster(self.installation, settings={**SETTINGS, **settings}, environment=environment)

    def client(self, command: str, order: dict[str, Any]) -> Any:
        """What the outside client measured."""
        done = subprocess.run([self.client_program, command], input=json.dumps(order), capture_output=True, text=True)
        if done.returncode:
            raise Unmet(f"payments-bench {command} failed:\n{done.stderr[-2000:]}")
        return json.loads(done.stdout)

    def add(self, item: str, case: str, measure: str, unit: str, ours: float, beside: float | None = None) -> None:
        self.figures.append(Figure(item, case, measure, unit, ours, beside))


class Item(NamedTuple):
    """Something that can be measured."""

    measure: Callable[[Bench], None]
    beside: str
    """What ours is compared with."""


FLOOR = "the least that must be done"
ITEMS = {
    "webhook": Item(bench_webhook.measure, FLOOR),
    "checkout": Item(bench_checkout.measure, FLOOR),
    "sync": Item(bench_sync.measure, "what Stripe itself takes at least"),
    "micro": Item(bench_micro.measure, ""),
    "growth": Item(bench_growth.measure, "the same on empty tables"),
    "access": Item(bench_access.measure, "no access asked for"),
    "instructions": Item(bench_instructions.measure, FLOOR),
}


def main() -> int:
    options = _parse()
    toolchain.prepare()
    installation = postgres.at_hand([options.pg])[0] if options.pg else postgres.preferred()
    extension.install(installation, release=True)
    if not run("cargo", "build", "--release", "--package", "payments-bench"):
        raise Unmet("The client does not build; the lines above say why.")

    bench = Bench(installation, options.quick, options.full)
    items = options.items or list(ITEMS)
    try:
        for name in items:
            say(name)
            ITEMS[name].measure(bench)
    finally:
        # What was measured before something went wrong is worth as much.
        about = (machine(), installation.label, revision())
        say("; ".join(about))
        table(bench.figures)
        for name in items:
            if ITEMS[name].beside:
                print(f"    {name}: beside {ITEMS[name].beside}")
        write(bench.figures, about, options.csv)
    return int(bool(options.against and dearer(bench.figures, options.against)))


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="tests/bench.sh",
        description="What everything costs, beside the least that it could cost, on a private server.",
        allow_abbrev=False,
    )
    parser.add_argument("items", nargs="*", metavar="item", help=f"which of {', '.join(ITEMS)} (default: all)")
    parser.add_argument("--pg", type=int, metavar="18", help="this major (default: the machine's own)")
    parser.add_argument("--quick", action="store_true", help="smaller, in seconds; the figures are rough")
    parser.add_argument("--full", action="store_true", help="millions of rows; takes hours, and 60 GB of disk")
    default = TARGET / "bench.csv"
    parser.add_argument("--csv", type=Path, default=default, metavar="FILE", help="where the figures go (%(default)s)")
    against = "fail if anything takes 2 %% more instructions than in this CSV of the same items and options"
    parser.add_argument("--against", type=Path, metavar="FILE", help=against)
    options = parser.parse_args()
    if unknown := [item for item in options.items if item not in ITEMS]:
        parser.error(f"no such item: {', '.join(unknown)}")
    return options


def dearer(figures: list[Figure], before: Path) -> list[str]:
    """What takes more instructions than it did; times are not compared, which differ by themselves."""
    with before.open() as file:
        known = {(row["item"], row["case"], row["measure"]): float(row["ours"]) for row in csv.DictReader(file)}
    counted = [figure for figure in figures if figure.measure == "instructions"]
    grown = []
    for figure in counted:
        was = known.get((figure.item, figure.case, figure.measure))
        if was and figure.ours > was * TOLERATED:
            grown.append(f"{figure.item}, {figure.case}: {was:,.0f} instructions became {figure.ours:,.0f}")
    print("\n".join(grown) or f"    {len(counted)} counts of instructions, none {TOLERATED - 1:.0%} higher than before")
    return grown


def machine() -> str:
    """What it was measured on."""
    cpu = next((line for line in _lines("/proc/cpuinfo") if line.startswith("model name")), platform.machine())
    memory = next((line.split()[1] for line in _lines("/proc/meminfo") if line.startswith("MemTotal")), "0")
    return f"{os.cpu_count()} cores ({cpu.split(': ')[-1]}), {int(memory) >> 20} GB, Linux {platform.release()}"


def revision() -> str:
    """Which sources were measured."""
    changed = output("git", "status", "--porcelain")
    return output("git", "rev-parse", "--short", "HEAD") + ("+" if changed else "")


def _lines(path: str) -> list[str]:
    return Path(path).read_text().splitlines() if Path(path).exists() else []


def table(figures: list[Figure]) -> None:
    """Prints the figures, one a line."""
    heads = ("item", "case", "measure", "ours", "beside", "ratio", "unit")
    lines = [heads] + [
        (f.item, f.case, f.measure, _number(f.ours), _number(f.beside), _number(f.ratio), f.unit) for f in figures
    ]
    widths = [max(map(len, column)) for column in zip(*lines)]
    for line in lines:
        texts, numbers, unit = line[:3], line[3:6], line[6]
        words = [word.ljust(width) for word, width in zip(texts, widths)]
        words += [word.rjust(width) for word, width in zip(numbers, widths[3:])]
        print("  ".join([*words, unit]).rstrip())


def _number(value: float | None) -> str:
    if value is None:
        return ""
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.2f}"


def write(figures: list[Figure], about: tuple[str, str, str], path: Path) -> None:
    """Writes the figures, one a line, each with what it was measured on."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="") as file:
        rows = csv.writer(file)
        heads = ("item", "case", "measure", "unit", "ours", "beside", "ratio", "machine", "postgres", "revision")
        rows.writerow(heads)
        for f in figures:
            rows.writerow([f.item, f.case, f.measure, f.unit, f.ours, f.beside, f.ratio, *about])
    print(f"    written to {path}")


if __name__ == "__main__":
    command_line(main)
