"""cargo-fuzz on the targets of tests/fuzz, for `PAYMENTS_FUZZ_SECONDS` each.

Without a sanitizer: what is fuzzed has no `unsafe`, and is ten times faster so. What was found
interesting stays in target/fuzz/corpus, from where the next run goes on.
"""

from __future__ import annotations

import os

from harness import TARGET, run, toolchain
from harness.postgres import Postgres

TARGETS = ("signature", "event", "join", "projections")
HOME = TARGET / "fuzz"
SECONDS = int(os.environ.get("PAYMENTS_FUZZ_SECONDS", "600"))
LIMITS = ("-max_len=4096", "-len_control=0", "-timeout=20", "-rss_limit_mb=1024")
"""Bytes a case, seconds a case, and memory: beyond them libFuzzer calls it a failure."""


def fuzzed(_: Postgres) -> bool:
    """Whether every target stands all that is tried."""
    toolchain.install("cargo-fuzz", "0.13.2")
    how = ("--sanitizer", "none", "--fuzz-dir", "tests/fuzz", "--features", "libfuzzer", "--target-dir", HOME)
    if not run("cargo", "fuzz", "build", *how):
        return False
    stood = []
    for target in TARGETS:
        corpus = HOME / "corpus" / target
        corpus.mkdir(parents=True, exist_ok=True)
        time = f"-max_total_time={SECONDS}"
        stood.append(run("cargo", "fuzz", "run", *how, target, corpus, "--", time, *LIMITS, "-print_final_stats=1"))
    return all(stood)
