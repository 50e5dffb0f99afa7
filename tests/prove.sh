#!/usr/bin/env bash
# What the tests try for seconds, tried for long. `tests/prove.sh --help` says the parts.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
. tests/harness/venv.sh
exec "$python" -m harness.prove "$@"
