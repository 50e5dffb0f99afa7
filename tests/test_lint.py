"""What can be said of the code and of what it is built on without running it."""

from __future__ import annotations

import json
import re
import subprocess
import sys

import pytest

from harness import ROOT

if sys.version_info >= (3, 11):
    import tomllib
else:
    # pytest brings it where Python does not.
    import tomli as tomllib

DENY = tomllib.loads((ROOT / "tests/deny.toml").read_text())
MAY_BE_UNSAFE = re.compile(r"src/(postgres/\w+|guard)\.rs")
"""Where Rust meets Postgres. What reads Stripe's bytes, and what makes rows of them, is elsewhere."""


def unsafe(source: str) -> int:
    """How many blocks, functions, implementations and foreign signatures are unsafe."""
    code = re.sub(r"//.*", "", source)
    return len(re.findall(r"\bunsafe\s*(?:\{|fn\b|impl\b|extern\b)", code))


def test_unsafe_code_is_where_rust_meets_postgres_and_counted():
    counted = {}
    for path in sorted((ROOT / "src").rglob("*.rs")):
        if count := unsafe(path.read_text()):
            counted[path.relative_to(ROOT).as_posix()] = count
    for name, count in counted.items():
        print(f"{count:4} {name}")
    assert all(MAY_BE_UNSAFE.fullmatch(name) for name in counted)
    told = re.search(r"`unsafe` stands in (\d+) places, in (\d+) files", (ROOT / "README.md").read_text())
    assert told, "the README says how much of it there is"
    assert (int(told[1]), int(told[2])) == (sum(counted.values()), len(counted))


def test_every_unsafe_block_says_why_it_is_safe():
    """By clippy, which `tests/run.sh` has refuse every warning."""
    manifest = tomllib.loads((ROOT / "Cargo.toml").read_text())
    lints = manifest["workspace"]["lints"]
    assert lints["clippy"]["undocumented_unsafe_blocks"] == "deny"
    assert lints["rust"]["unsafe_op_in_unsafe_fn"] == "deny"
    members = [ROOT / member for member in manifest["workspace"]["members"]]
    for directory in (ROOT, *members):
        assert tomllib.loads((directory / "Cargo.toml").read_text())["lints"] == {"workspace": True}, directory
    for crate in ("ledger", "stripe"):
        assert "#![forbid(unsafe_code)]" in (ROOT / "src" / crate / "lib.rs").read_text()


def may_be_used(licence: str) -> bool:
    """Whether an SPDX expression leaves us a licence that is allowed."""
    words = re.findall(r"\(|\)|[\w.-]+", licence.replace("/", " OR "))

    def any_of() -> bool:
        allowed = all_of()
        while words and words[0] == "OR":
            words.pop(0)
            allowed |= all_of()
        return allowed

    def all_of() -> bool:
        allowed = one()
        while words and words[0] == "AND":
            words.pop(0)
            allowed &= one()
        return allowed

    def one() -> bool:
        word = words.pop(0)
        if word == "(":
            allowed = any_of()
            assert words.pop(0) == ")", licence
            return allowed
        if words and words[0] == "WITH":
            # An exception only gives more.
            del words[:2]
        return word in DENY["licenses"]["allow"]

    allowed = any_of()
    assert not words, licence
    return allowed


@pytest.mark.parametrize(
    ("licence", "allowed"),
    [
        ("MIT", True),
        ("GPL-3.0-only", False),
        ("MIT OR GPL-3.0-only", True),
        ("MIT/Apache-2.0", True),
        ("MIT AND GPL-3.0-only", False),
        ("(MIT OR Apache-2.0) AND Unicode-3.0", True),
        ("GPL-3.0-only OR (MIT AND AGPL-3.0-only)", False),
        ("Apache-2.0 WITH LLVM-exception", True),
    ],
)
def test_a_licence_is_read_as_it_is_meant(licence, allowed):
    assert may_be_used(licence) is allowed


def metadata() -> dict:
    """What cargo knows of all that is built on this machine, tests included."""
    host = re.search(r"host: (\S+)", subprocess.check_output(["rustc", "-vV"], text=True)).group(1)
    told = subprocess.run(
        ["cargo", "metadata", "--format-version=1", "--locked", "--filter-platform", host],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    return json.loads(told.stdout)


def in_the_server(metadata: dict) -> set[str]:
    """The names of all packages that are linked into the extension."""
    needs = {
        node["id"]: [need["pkg"] for need in node["deps"] if any(kind["kind"] is None for kind in need["dep_kinds"])]
        for node in metadata["resolve"]["nodes"]
    }
    names = {package["id"]: package["name"] for package in metadata["packages"]}
    reached, to_visit = set(), [package for package, name in names.items() if name == "payments"]
    while to_visit:
        package = to_visit.pop()
        if package not in reached:
            reached.add(package)
            to_visit += needs[package]
    return {names[package] for package in reached}


def test_what_it_is_built_on_comes_from_crates_io_under_licences_that_let_us():
    for package in metadata()["packages"]:
        name = f"{package['name']} {package['version']}"
        assert package["source"] in (None, "registry+https://github.com/rust-lang/crates.io-index"), name
        assert package["license"] and may_be_used(package["license"]), f"{name}: {package['license']}"


def test_what_is_banned_is_not_in_the_server():
    linked = in_the_server(metadata())
    assert {"pgrx", "rustls", "payments-ledger"} <= linked
    assert linked.isdisjoint(ban["crate"] for ban in DENY["bans"]["deny"])
