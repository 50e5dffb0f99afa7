#!/usr/bin/env bash
# What everything costs, beside the least that it could cost. `tests/bench.sh --help` says the options.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
. tests/harness/venv.sh
exec "$python" -m harness.bench "$@"
