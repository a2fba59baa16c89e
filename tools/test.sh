#!/usr/bin/env bash
# Set up, then lint, the gtests and the Python tests.
#
#   tools/test.sh [--all] [pytest arguments]
#
#   --all   as well: Caffe's own tests on our library, and the Python tests that take minutes (five minutes on two cores)
set -euo pipefail

all=false
case "${1-}" in
  -h | --help) sed -n '2,6s/^# \{0,1\}//p' "$0"; exit 0 ;;
  --all) all=true; shift ;;
esac
cd "$(dirname "$0")/.."

tools/setup.sh
echo "==> Lint"
.venv/bin/ruff check .
.venv/bin/ruff format --check .
which=(--label-exclude upstream) # build/ may have them from an earlier run
if $all; then
  echo "==> Build Caffe's own tests"
  cmake -B build -DBUILD_UPSTREAM_TESTS=ON >/dev/null
  cmake --build build --target upstream_tests -j "${JOBS:-$(nproc)}"
  which=()
  set -- -m "slow or not slow" "$@"
fi
echo "==> C++ tests"
ctest --test-dir build --output-on-failure --parallel "$(nproc)" --progress "${which[@]}"
echo "==> Python tests"
.venv/bin/python -m pytest "$@"
