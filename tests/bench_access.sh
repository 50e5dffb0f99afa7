#!/usr/bin/env bash
# What has_access() and current_subscription() cost inside row-level security policies, over a
# million subscriptions and a million rows of an app: plans and times.
#   tests/bench_access.sh [rows]    1000000 unless it says otherwise
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
. tests/harness/venv.sh
exec "$python" -m harness.bench_access "$@"
