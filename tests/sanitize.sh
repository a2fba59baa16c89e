#!/usr/bin/env bash
# Build with the address and undefined-behaviour sanitizers into build/sanitize/ and run the gtests.
#
#   tests/sanitize.sh [--fuzz CASES [arguments of tests/fuzz.py]]
#
#   tests/sanitize.sh --fuzz 20000 --seed 5   then run 20,000 cases of the fuzzer (tests/fuzz.py --help)
#   JOBS=N tests/sanitize.sh                  number of compilers (default: one per core)
#
# Exits with 1 after any report. The first build takes about ten minutes on two cores.
set -euo pipefail

cases=0
case "${1-}" in
  "") ;;
  -h | --help) sed -n '2,9s/^# \{0,1\}//p' "$0"; exit 0 ;;
  --fuzz)
    cases=${2-}
    [[ "$cases" =~ ^[0-9]+$ ]] || { echo "sanitize.sh: error: --fuzz needs a number, got '$cases'" >&2; exit 2; }
    shift 2
    ;;
  *) echo "sanitize.sh: error: unknown argument '$1' (see tests/sanitize.sh --help)" >&2; exit 2 ;;
esac
cd -P "$(dirname "$0")/.."

python=${PYTHON:-$PWD/.venv/bin/python}
build=build/sanitize
echo "==> Build with sanitizers into $build/"
generator=()
if [ ! -e "$build/CMakeCache.txt" ] && command -v ninja >/dev/null; then generator=(-G Ninja); fi
# -fno-sanitize=vptr: vptr checks need type information that pybind11 hides
cmake -B "$build" "${generator[@]}" -DCMAKE_BUILD_TYPE=Release -DBUILD_TESTING=ON -DBUILD_PYTHON=ON \
  -DCAFFE_SOURCE_DIR="${CAFFE_SOURCE_DIR-}" -DPython_EXECUTABLE="$python" \
  -DCMAKE_CXX_FLAGS="-fsanitize=address,undefined -fno-sanitize=vptr -fno-omit-frame-pointer" \
  -DCMAKE_CXX_FLAGS_RELEASE="-O1 -g1 -DNDEBUG" >/dev/null
cmake --build "$build" --parallel "${JOBS:-$(nproc)}" >"$build/build.log" ||
  { tail -n 25 "$build/build.log" >&2; echo "sanitize.sh: error: the build failed (log: $build/build.log)" >&2; exit 1; }

export UBSAN_OPTIONS=halt_on_error=1:print_stacktrace=1
# Failed allocations return null or throw std::bad_alloc, as without the sanitizers.
export ASAN_OPTIONS=allocator_may_return_null=1:max_allocation_size_mb=1024:detect_leaks=1
echo "==> gtests"
ctest --test-dir "$build" --output-on-failure --parallel "${JOBS:-$(nproc)}" --progress --label-exclude upstream

if [ "$cases" -gt 0 ]; then
  echo "==> Fuzz"
  cmake --install "$build" --component python --prefix "$build/py" >/dev/null
  packages=$("$python" -c 'import sysconfig; print(sysconfig.get_path("purelib"))')
  # Python leaks at exit. -S: packages that start before the sanitizers would cause reports.
  ASAN_OPTIONS=$ASAN_OPTIONS:detect_leaks=0 PYTHONPATH=$build/py:$packages \
    LD_PRELOAD="$(gcc -print-file-name=libasan.so):$(gcc -print-file-name=libubsan.so)" \
    "$python" -S tests/fuzz.py --memory 0 --timeout 120 --cases "$cases" "$@"
fi
