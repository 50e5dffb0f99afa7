#!/usr/bin/env bash
# The whole story in a real Postgres: tests/demo.sql, played step by step.
#   tests/demo.sh         plays it, and leaves the server running to go on with
#   tests/demo.sh stop    ends that server and removes it
# Against Stripe itself instead of the fake: STRIPE_SECRET_KEY=sk_test_… tests/demo.sh
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
. tests/harness/venv.sh
exec "$python" -m harness.demo "$@"
