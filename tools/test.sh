#!/usr/bin/env bash
# Set up (--cluster as well), then lint, the gtests and the Python tests.
#
#   tools/test.sh [--all] [pytest arguments]
#   tools/test.sh -k crop_data     of the Python tests those with that name
#
#   --all   as well: Caffe's own tests on our library, the Python tests that take minutes, and tests/sanitize.sh with
#           10,000 cases of the fuzz (twenty minutes on two cores, most of them for building)
set -euo pipefail

all=false
arguments=()
for argument in "$@"; do
  case "$argument" in
    -h | --help) sed -n '2,8s/^# \{0,1\}//p' "$0"; exit 0 ;;
    --all) all=true ;;
    *) arguments+=("$argument") ;;
  esac
done
cd "$(dirname "$0")/.."

tools/setup.sh --cluster
echo "==> Lint"
.venv/bin/ruff check .
.venv/bin/ruff format --check .
which=(--label-exclude upstream) # build/ may have them from an earlier run
if $all; then
  echo "==> Build Caffe's own tests"
  cmake -B build -DBUILD_UPSTREAM_TESTS=ON >/dev/null
  cmake --build build --target upstream_tests -j "${JOBS:-$(nproc)}"
  which=()
  arguments=(-m "slow or not slow" "${arguments[@]}")
fi
echo "==> C++ tests"
ctest --test-dir build --output-on-failure --parallel "$(nproc)" --progress "${which[@]}"
echo "==> Python tests"
.venv/bin/python -m pytest "${arguments[@]}"
if $all; then
  tests/sanitize.sh --fuzz 10000
fi
