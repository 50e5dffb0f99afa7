"""Builds the extension and installs it into a copy of Postgres."""

from __future__ import annotations

import re
from pathlib import Path

from harness import Unmet, output, run, say
from harness.postgres import Postgres


def install(postgres: Postgres, release: bool = False) -> None:
    """Builds for this major (in the shared target directory) and installs."""
    say(f"building and installing the extension for {postgres.label}")
    built = run(
        *("cargo", "pgrx", "install", "--pg-config", postgres.pg_config),
        *("--no-default-features", "--features", f"pg{postgres.major}"),
        *(("--release",) if release else ()),
        env=environment(postgres),
    )
    if not built:
        raise Unmet(f"The extension does not build for {postgres.label}; the lines above say why.")


def environment(postgres: Postgres) -> dict[str, str]:
    """What cargo needs to compile against this Postgres, without a `cargo pgrx init`."""
    return {"PGRX_PG_CONFIG_PATH": str(postgres.pg_config)}


def directory(postgres: Postgres) -> Path:
    """Where this Postgres has the scripts and the control file."""
    return Path(output(postgres.pg_config, "--sharedir")) / "extension"


def version(postgres: Postgres) -> str | None:
    """The version that was installed last, if one was."""
    control = directory(postgres) / "payments.control"
    if not control.exists():
        return None
    return re.search(r"^default_version = '(.*)'$", control.read_text(), re.MULTILINE).group(1)
