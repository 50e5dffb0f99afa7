"""Everything between a bare clone and a test: toolchain, Postgres, servers.

`tests/run.sh`, `tests/prove.sh`, `tests/bench.sh` and `tests/demo.sh` are thin; what they do is here, in the order
in which it happens: `venv.sh` makes the Python, `toolchain` finds Rust,
`postgres` gets private copies of Postgres, `extension` builds into them,
`cluster` and `database` run servers on them, `plan`, `prove`, `bench` and
`demo` are the commands.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn

ROOT = Path(__file__).resolve().parents[2]
TESTS = ROOT / "tests"
TARGET = ROOT / "target"


class Unmet(Exception):
    """The machine lacks something; the message says what, and what to do."""


def say(text: str) -> None:
    """Tells whoever watches what happens next."""
    marker = "\033[1;34m==>\033[0m" if sys.stdout.isatty() else "==>"
    print(f"{marker} {text}", flush=True)


def run(*command: object, env: dict[str, str] | None = None) -> bool:
    """Runs a command in plain sight, and says whether it succeeded.

    Interrupted, it waits until the command has cleaned up after itself.
    """
    words = [str(word) for word in command]
    print("    $ " + " ".join(words), flush=True)
    process = subprocess.Popen(words, env={**os.environ, **(env or {})}, cwd=ROOT)
    try:
        return process.wait() == 0
    except KeyboardInterrupt:
        # The terminal has told the command too.
        process.wait()
        raise
    except SystemExit:
        process.terminate()
        process.wait()
        raise


def command_line(main: Callable[[], int | None]) -> NoReturn:
    """Runs a command's main function; what goes wrong by nature ends it with a message, not a traceback."""
    # By default SIGTERM ends Python on the spot, and what was started would stay.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    try:
        sys.exit(main())
    except Unmet as unmet:
        sys.exit(str(unmet))
    except KeyboardInterrupt:
        sys.exit(130)


def output(*command: object) -> str:
    """What a command prints, or the empty string if it cannot be run or fails."""
    words = [str(word) for word in command]
    try:
        done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True)
    except OSError:
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""
