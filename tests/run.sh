#!/usr/bin/env bash
# All tests, on every Postgres at hand. `tests/run.sh --help` says the options.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
. tests/harness/venv.sh
exec "$python" -m harness.plan "$@"
