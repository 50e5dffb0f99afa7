#!/usr/bin/env bash
# Freezes what this version installs in tests/releases/, once it is released.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
. tests/harness/venv.sh
exec "$python" -m harness.release "$@"
