#!/usr/bin/env bash
# Set up, then lint, the gtests and the Python tests.
#
#   tools/test.sh [--upstream] [pytest arguments]
#
#   --upstream   Caffe's own tests as well, on our library (on two cores a minute to build and half a minute to run)
set -euo pipefail

upstream=false
case "${1-}" in
  -h | --help) sed -n '2,6s/^# \{0,1\}//p' "$0"; exit 0 ;;
  --upstream) upstream=true; shift ;;
esac
cd "$(dirname "$0")/.."

tools/setup.sh
echo "==> Lint"
.venv/bin/ruff check .
.venv/bin/ruff format --check .
which=(--label-exclude upstream) # build/ may have them from an earlier run
if $upstream; then
  echo "==> Build Caffe's own tests"
  cmake -B build -DBUILD_UPSTREAM_TESTS=ON >/dev/null
  cmake --build build --target upstream_tests -j "${JOBS:-$(nproc)}"
  which=()
fi
echo "==> C++ tests"
ctest --test-dir build --output-on-failure --parallel "$(nproc)" --progress "${which[@]}"
echo "==> Python tests"
.venv/bin/python -m pytest "$@"
