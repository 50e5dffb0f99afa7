r"""Golden files: each `golden/NAME.sql` is played by psql and must print `golden/expected/NAME.out`.

psql echoes every statement and shows errors whole: SQLSTATE, DETAIL, HINT, CONTEXT.
`tests/run.sh tests/test_golden.py --accept` writes what was printed as expected; read
the diff before committing it. A script without expected output fails.

A script starts with `\i setup.sql`, which connects the fake Stripe and makes an example
app's tables and policies. It reaches the fake's buyers through
`python3 -m fake_stripe.control "$FAKE_STRIPE_CONTROL" ACTION …` in psql's backquotes.
Only what no two runs have in common is replaced, by `normalised`; a script does not
print times of day.
"""

from __future__ import annotations

import difflib
import os
import re
import sys
from pathlib import Path

import pytest

GOLDEN = Path(__file__).parent / "golden"
EXPECTED = GOLDEN / "expected"
SCRIPTS = sorted(script for script in GOLDEN.glob("*.sql") if script.name != "setup.sql")

VOLATILE = re.compile(
    r"""
      (?P<uuid>\b[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}\b)
      # Ids that a Stripe makes up are long and random; those that a script chose stay as they are.
    | \b(?P<prefix>[a-z]{2,7}(?:_test|_live)?)_(?=[a-z]*[A-Z0-9])[A-Za-z0-9]{14,}\b
    """,
    re.VERBOSE,
)


def normalised(output: str) -> str:
    """Replaces what differs from run to run.

    A UUID becomes `<uuid-1>` and a Stripe id `<cus-1>`, numbered by first appearance, so
    that the same one is still seen to be the same. The fake Stripe's address loses its
    port. Lines that name a place in the server's or psql's source or in the script go:
    they change with every release and every edit.
    """
    names: dict[str, str] = {}

    def name(found: re.Match[str]) -> str:
        kind = found["prefix"] or "uuid"
        number = 1 + sum(known.startswith(f"<{kind}-") for known in names.values())
        return names.setdefault(found[0], f"<{kind}-{number}>")

    output = re.sub(r"^LOCATION:.*\n", "", output, flags=re.MULTILINE)
    output = re.sub(r"^psql:[^\n]*?:\d+: ", "", output, flags=re.MULTILINE)
    output = re.sub(r"127\.0\.0\.1:\d+", "127.0.0.1:PORT", output)
    return VOLATILE.sub(name, output)


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda script: script.stem)
def test_golden(script, db, stripe, pytestconfig):
    played = db.psql(
        *("-a", "-q", "-v", "VERBOSITY=verbose", "-v", "SHOW_CONTEXT=errors", "-f", script.name),
        cwd=GOLDEN,
        env={
            "STRIPE_SECRET_KEY": stripe.test_key,
            "STRIPE_WEBHOOK_SECRET": stripe.webhook_secret,
            "FAKE_STRIPE_CONTROL": stripe.control_url,
            "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
            "PYTHONPATH": str(GOLDEN.parent),
        },
    )
    printed = normalised(played.stdout)
    expected = EXPECTED / f"{script.stem}.out"
    if pytestconfig.getoption("--accept"):
        expected.write_text(printed)
    if not expected.exists():
        pytest.fail(f"{expected} is missing. Printed:\n{printed}")
    difference = difflib.unified_diff(
        *(expected.read_text().splitlines(), printed.splitlines()),
        *(f"expected/{expected.name}", "printed"),
        lineterm="",
    )
    if lines := list(difference):
        pytest.fail("\n".join(lines), pytrace=False)


def test_normalising_keeps_what_a_script_chose_and_numbers_what_was_made_up():
    printed = (
        "cus_alice price_pro cus_Q1w2E3r4T5y6U7 cs_test_a1B2c3D4e5F6g7H8 cus_Q1w2E3r4T5y6U7 idempotency_key\n"
        "6f2a1c9e-0000-4000-8000-0123456789ab http://127.0.0.1:40123/v1\n"
        "psql:checkout.sql:12: ERROR:  22023: no\n"
        "LOCATION:  errorContext, error.rs:1\n"
    )
    assert normalised(printed) == (
        "cus_alice price_pro <cus-1> <cs_test-1> <cus-1> idempotency_key\n"
        "<uuid-1> http://127.0.0.1:PORT/v1\n"
        "ERROR:  22023: no\n"
    )
