"""Node packages that tests use: pinned in a package-lock.json, installed beside it, kept out of git."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

from harness import output


def missing() -> str | None:
    """Why no Node package can be used here, if so."""
    version = output("node", "--version")
    if not version or not shutil.which("npm"):
        return "there is no node, or no npm"
    if int(version.removeprefix("v").split(".")[0]) < 20:
        return f"node {version} is older than 20"
    return None


def install(package: Path) -> Path:
    """Installs what a package's lock file names, unless that is there: its node_modules."""
    modules = package / "node_modules"
    lock = (package / "package-lock.json").read_text()
    installed = modules / "installed-lock.json"
    if not installed.exists() or installed.read_text() != lock:
        subprocess.run(["npm", "ci", "--no-audit", "--no-fund"], cwd=package, check=True, timeout=300)
        installed.write_text(lock)
    return modules
