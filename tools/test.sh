#!/usr/bin/env bash
# Set up, then lint, the gtests and the Python tests.
#
#   tools/test.sh [pytest arguments]
set -euo pipefail

case "${1-}" in -h | --help) sed -n '2,4s/^# \{0,1\}//p' "$0"; exit 0 ;; esac
cd "$(dirname "$0")/.."

tools/setup.sh
echo "==> Lint"
.venv/bin/ruff check .
.venv/bin/ruff format --check .
echo "==> C++ tests"
ctest --test-dir build --output-on-failure --parallel "$(nproc)" --progress
echo "==> Python tests"
.venv/bin/python -m pytest "$@"
