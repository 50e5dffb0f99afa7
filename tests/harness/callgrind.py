"""Instructions, counted by valgrind: the same at any load, so that two commits compare."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

from harness import TARGET, Unmet


def instructions(name: str, inside: str, command: list[object], *, since: str | None = None, **options) -> int:
    """How many a command executes inside a function, since another was called if one is named.

    The profile is kept for callgrind_annotate; `options` are subprocess's.
    """
    if not shutil.which("valgrind"):
        raise Unmet("Instructions are counted by valgrind: apt-get install valgrind")
    profile = TARGET / f"callgrind.{name}"
    # Postgres runs as another user than whoever owns the target directory.
    profile.unlink(missing_ok=True)
    draft = Path(options.pop("directory", TARGET)) / profile.name
    watch = ["--collect-atstart=no", f"--toggle-collect={inside}", *([f"--zero-before={since}"] if since else [])]
    valgrind = ["valgrind", "--tool=callgrind", f"--callgrind-out-file={draft}", *watch]
    done = subprocess.run([*valgrind, *map(str, command)], capture_output=True, text=True, **options)
    failed = [line for line in done.stderr.splitlines() if "ERROR:" in line or "FATAL:" in line]
    if done.returncode or failed:
        raise Unmet("\n".join(failed) or done.stderr[-2000:])
    text = draft.read_text()
    if draft != profile:
        shutil.copy(draft, profile)
    print(f"    callgrind_annotate --inclusive=yes {profile}")
    return int(re.search(r"^(?:summary|totals): (\d+)", text, re.MULTILINE)[1])
