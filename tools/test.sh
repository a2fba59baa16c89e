#!/usr/bin/env bash
# Set up (with --cluster), then run the linter, the gtests and the Python tests.
#
#   tools/test.sh [--all] [pytest arguments]
#   tools/test.sh -k crop_data     only the Python tests with this name
#
#   --all   also run Caffe's own tests with our library, the slow Python tests, and tests/sanitize.sh with 10,000 cases of
#           the fuzzer (twenty minutes on two cores, most of them for compiling)
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
which=(--label-exclude upstream) # an earlier run may have built them
if $all; then
  echo "==> Build Caffe's own tests"
  cmake -B build -DBUILD_UPSTREAM_TESTS=ON >/dev/null
  cmake --build build --target upstream_tests -j "${JOBS:-$(nproc)}"
  which=()
  arguments=(-m "slow or not slow" --durations=25 "${arguments[@]}")
fi
echo "==> C++ tests"
ctest --test-dir build --output-on-failure --parallel "$(nproc)" --progress "${which[@]}"
echo "==> Python tests"
.venv/bin/python -m pytest --numprocesses "$(nproc)" --maxprocesses 8 --dist loadfile "${arguments[@]}"
if $all; then
  tests/sanitize.sh --fuzz 10000
fi
