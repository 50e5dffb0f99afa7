"""The Rust toolchain, libclang and cargo-pgrx: found, or fetched where they can be."""

from __future__ import annotations

import glob
import os
import re
import shutil
import sys
from collections.abc import Iterable
from pathlib import Path

from harness import ROOT, TARGET, Unmet, output, run, say

TOOLS = TARGET / "tools"
MANIFEST = (ROOT / "Cargo.toml").read_text()


def prepare() -> None:
    """Sets this process's environment so that `cargo pgrx` builds the extension."""
    os.environ["PATH"] = f"{TOOLS / 'bin'}:{os.environ['PATH']}"
    _choose_rust()
    _find_libclang()
    _install_cargo_pgrx()


def has(component: str) -> bool:
    """Whether the toolchain has `cargo <component>`, adding it through rustup if it can."""
    if output("cargo", component, "--version"):
        return True
    name = {"fmt": "rustfmt"}.get(component, component)
    return bool(shutil.which("rustup")) and run("rustup", "component", "add", name)


def _wanted(pattern: str) -> str:
    return re.search(pattern, MANIFEST, re.MULTILINE).group(1)


def _rust_version(toolchain: str | None = None) -> tuple[int, ...]:
    named = ["rustup", "run", toolchain] if toolchain else []
    found = re.match(r"rustc (\d+)\.(\d+)", output(*named, "rustc", "--version"))
    return tuple(map(int, found.groups())) if found else ()


def _choose_rust() -> None:
    """Takes the active toolchain if it is new enough, else the first installed one that is."""
    minimum = _wanted(r'^rust-version = "([\d.]+)"')
    enough = tuple(map(int, minimum.split(".")))
    if _rust_version() >= enough:
        return
    if "RUSTUP_TOOLCHAIN" in os.environ:
        raise Unmet(
            f"RUSTUP_TOOLCHAIN={os.environ['RUSTUP_TOOLCHAIN']} is older than Rust {minimum}, or is not installed."
        )
    for line in output("rustup", "toolchain", "list").splitlines():
        toolchain = line.split()[0]
        if _rust_version(toolchain) >= enough:
            say(f"building with the toolchain {toolchain}: the active one is older than Rust {minimum}")
            os.environ["RUSTUP_TOOLCHAIN"] = toolchain
            return
    raise Unmet(
        f"Rust {minimum} or newer is needed. Install it with: rustup toolchain install stable\n"
        "(or rustup itself from https://rustup.rs)."
    )


def _find_libclang() -> None:
    """Leaves bindgen to find the system's libclang, or points it at the one from PyPI."""
    if "LIBCLANG_PATH" in os.environ:
        return
    # libclang-cpp is the C++ interface and libclang_rt the sanitizers' runtime.
    library = re.compile(r"libclang[.-]\d*\.?(so|dylib)")
    places = ("/usr/lib*", "/usr/lib*/*", "/usr/lib*/llvm*/lib*", "/usr/local/lib*", "/opt/homebrew/opt/llvm/lib")
    if not any(library.match(Path(path).name) for path in _existing(f"{place}/libclang*" for place in places)):
        home = TOOLS / "libclang"
        if not (home / "clang/native").is_dir():
            say("fetching libclang from PyPI")
            if not run(sys.executable, "-m", "pip", "install", "--quiet", "--target", home, "libclang==18.1.1"):
                raise Unmet("libclang is needed: install libclang-dev, or set LIBCLANG_PATH.")
        os.environ["LIBCLANG_PATH"] = str(home / "clang/native")
    elif _existing(f"{place}/clang/*/include/stddef.h" for place in places):
        return
    # The bare library, from PyPI or Debian's libclang1, lacks stddef.h and its kin: the C
    # compiler's do, after all others, because its vector intrinsics are not for clang.
    headers = output(os.environ.get("CC", "cc"), "-print-file-name=include")
    os.environ.setdefault("BINDGEN_EXTRA_CLANG_ARGS", f"-idirafter{headers}")


def _existing(patterns: Iterable[str]) -> list[str]:
    return [path for pattern in patterns for path in glob.glob(pattern) if os.path.exists(path)]


def _install_cargo_pgrx() -> None:
    """cargo-pgrx refuses any pgrx but its own version, so that exact version, in target/."""
    version = _wanted(r'^pgrx = "=([\d.]+)"')
    if output("cargo", "pgrx", "--version") == f"cargo-pgrx {version}":
        return
    say(f"installing cargo-pgrx {version} into target/tools (a few minutes, once)")
    if not run("cargo", "install", "--locked", "--root", TOOLS, f"cargo-pgrx@{version}"):
        raise Unmet(f"cargo-pgrx {version} could not be installed; the lines above say why.")


def install_postrust() -> None:
    """The gateway of the tests, in target/tools. Without it, those that need it are skipped, and say so."""
    if (TOOLS / "bin" / "postrust").exists():
        return
    say("installing the gateway postrust into target/tools (two or three minutes, once)")
    # Unoptimised it builds in half the time, and is fast enough for tests.
    unoptimised = ("--debug", "--config", "profile.dev.debug=false")
    run("cargo", "install", *unoptimised, "--root", TOOLS, "postrust-server@3.1.0")


def install(command: str, version: str) -> None:
    """A command of cargo's, in target/tools unless the machine has one."""
    if output("cargo", command.removeprefix("cargo-"), "--version"):
        return
    say(f"installing {command} {version} into target/tools (a few minutes, once)")
    if not run("cargo", "install", "--locked", "--root", TOOLS, f"{command}@{version}"):
        raise Unmet(f"{command} {version} could not be installed; the lines above say why.")
