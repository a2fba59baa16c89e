#!/usr/bin/env bash
# Build the package for each Python, install it with numpy 1 and with numpy 2, and run the tests of pycaffe and upstream's.
#
#   tests/pythons.sh PYTHON...
#   tests/pythons.sh python3.9 /usr/local/bin/python3.13
#
# Uses build/pythons. Exits with 0 if all combinations that can be installed pass, 1 if a test fails, and 2 for bad use.
# The last lines list the results and the combinations that cannot be installed.
set -uo pipefail

case "${1---help}" in
  -h | --help) sed -n '2,8s/^# \{0,1\}//p' "$0"; [ $# -gt 0 ] && exit 0 || exit 2 ;;
esac
for python in "$@"; do
  "$python" -c 'import sys; sys.exit(sys.version_info < (3, 9))' 2>/dev/null ||
    { echo "pythons.sh: error: '$python' is not a Python 3.9 or newer" >&2; exit 2; }
done
cd "$(dirname "$0")/.." || exit 2

folder=build/pythons
results=()
status=0
mkdir -p "$folder"
for python in "$@"; do
  version=$("$python" -c 'import platform; print(platform.python_version())')
  rm -rf "$folder/wheel-$version"
  echo "==> Python $version: build"
  # Shared build folder: only the module is compiled again.
  if ! "$python" -m pip wheel -q . --no-deps -w "$folder/wheel-$version" --config-settings=build-dir="$folder/build" \
    >"$folder/$version.log" 2>&1; then
    tail -n 20 "$folder/$version.log"
    results+=("Python $version: does not build")
    status=1
    continue
  fi
  for numpy in "numpy<2" "numpy>=2"; do
    echo "==> Python $version, $numpy: test"
    venv=$folder/venv
    rm -rf "$venv"
    "$python" -m venv "$venv"
    if ! "$venv/bin/pip" install -q --only-binary=:all: "$numpy" >"$folder/$version.log" 2>&1; then
      results+=("Python $version, $numpy: not available for this Python")
      continue
    fi
    if ! "$venv/bin/pip" install -q "$numpy" pytest hypothesis "$folder/wheel-$version"/*.whl \
      >"$folder/$version.log" 2>&1; then
      tail -n 5 "$folder/$version.log"
      results+=("Python $version, $numpy: FAILED to install")
      status=1
      continue
    fi
    have=$("$venv/bin/python" -c 'import numpy; print(numpy.__version__)')
    if "$venv/bin/python" -m pytest -q -m "slow or not slow" -p no:cacheprovider tests/test_pycaffe*.py tests/test_python_layers.py \
      tests/test_upstream_python.py; then
      results+=("Python $version, numpy $have: passed")
    else
      results+=("Python $version, numpy $have: FAILED")
      status=1
    fi
  done
done
echo "==> Results"
printf '%s\n' "${results[@]}"
exit $status
