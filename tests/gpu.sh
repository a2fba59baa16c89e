#!/usr/bin/env bash
# Build with CUDA, then everything that needs a GPU: the kernels' tests, the layers' gtests with the layers on the GPU,
# compute-sanitizer (memcheck, racecheck, initcheck) over the kernels' tests, and the kernels' bandwidth.
#
#   tests/gpu.sh [-- CMAKE ARGUMENTS]    build into build-gpu/ (needs nvcc), then run
#   tests/gpu.sh --programs DIR          run programs that are built already: those of rectifier_cuda_test,
#                                        rectifier_cuda_benchmark and caffe_layers_test that are in DIR
#
#   tests/gpu.sh -- -DCMAKE_CUDA_ARCHITECTURES=90
#   JOBS=N tests/gpu.sh                  so many compilers at once (default: one a core)
#
# Without a GPU the build is still made. What could not run is listed at the end. Ends with 0 when all that ran passed,
# 1 when something failed, 2 for bad use, 77 when nothing could run.
set -uo pipefail

cmake_arguments=()
programs=
case "${1-}" in
  "") ;;
  -h | --help) sed -n '2,15s/^# \{0,1\}//p' "$0"; exit 0 ;;
  --)
    shift
    cmake_arguments=("$@")
    ;;
  --programs)
    [ $# -eq 2 ] && [ -d "$2" ] || { echo "gpu.sh: error: --programs needs one folder, not '${*:2}'" >&2; exit 2; }
    programs=$(cd "$2" && pwd)
    ;;
  *) echo "gpu.sh: error: unknown argument '$1' (see tests/gpu.sh --help)" >&2; exit 2 ;;
esac
cd -P "$(dirname "$0")/.." || exit 1

failed=()
skipped=()
ran=0

# Runs what follows the name, and notes the name where it fails; 77 says that it was skipped.
check() {
  local name=$1 result=0
  shift
  echo "==> $name"
  "$@" || result=$?
  case $result in
    0) ran=$((ran + 1)) ;;
    77) skipped+=("$name") ;;
    *) failed+=("$name") ;;
  esac
}

finish() {
  if [ ${#skipped[@]} -gt 0 ]; then printf 'Skipped: %s\n' "${skipped[@]}"; fi
  if [ ${#failed[@]} -gt 0 ]; then
    printf 'Failed: %s\n' "${failed[@]}" >&2
    exit 1
  fi
  if [ "$ran" -eq 0 ]; then
    echo "Nothing ran on a GPU."
    exit 77
  fi
  echo "All $ran checks on the GPU passed."
  exit 0
}

# A CUDA program by its name: on the PATH, or where CUDA puts it.
cuda_program() {
  command -v "$1" || ls "${CUDA_HOME:-/usr/local/cuda}/bin/$1" 2>/dev/null
}

if [ -z "$programs" ]; then
  if ! nvcc=$(cuda_program nvcc); then
    skipped+=("everything: no nvcc on the PATH or in ${CUDA_HOME:-/usr/local/cuda}/bin (see --programs)")
    finish
  fi
  echo "==> Build with $nvcc into build-gpu/"
  once=() # what a build folder cannot be told again
  if [ ! -e build-gpu/CMakeCache.txt ]; then
    once=(-DCMAKE_CUDA_COMPILER="$nvcc")
    if command -v ninja >/dev/null; then once+=(-G Ninja); fi
  fi
  cmake -S . -B build-gpu "${once[@]}" -DCPU_ONLY=OFF "${cmake_arguments[@]}" &&
    cmake --build build-gpu --parallel "${JOBS:-$(nproc)}" || { echo "gpu.sh: error: the build failed" >&2; exit 1; }
  programs=$PWD/build-gpu/programs
fi

# The program where it is there to be run, else a note of what is left out.
have() {
  if [ -x "$programs/$1" ]; then return 0; fi
  skipped+=("$1: not in $programs")
  return 1
}

if have rectifier_cuda_test; then
  # One quick test says whether there is a device; the reason is in its output.
  probe=$("$programs/rectifier_cuda_test" --gtest_filter='*/0.SizesOfZeroDoNothing' 2>&1)
  if grep -q 'SKIPPED' <<<"$probe"; then
    skipped+=("everything: $(grep -o 'no CUDA device.*' <<<"$probe" | head -n 1)")
    finish
  fi
  check "Kernels against the formula" "$programs/rectifier_cuda_test" --gtest_brief=1
fi
if have caffe_layers_test; then
  check "Layers on the GPU" "$programs/caffe_layers_test" --gpu --gtest_filter='*ReLULayerTest*:CropData*' --gtest_brief=1
fi
if [ -x "$programs/rectifier_cuda_test" ]; then
  if sanitizer=$(cuda_program compute-sanitizer); then
    for tool in memcheck racecheck initcheck; do # the large sizes would take hours
      check "compute-sanitizer $tool" "$sanitizer" --tool "$tool" --error-exitcode 1 "$programs/rectifier_cuda_test" \
        --gtest_filter='-*LargeSizes*' --gtest_brief=1
    done
  else
    skipped+=("memcheck, racecheck and initcheck: no compute-sanitizer")
  fi
fi
if have rectifier_cuda_benchmark; then
  check "Bandwidth" "$programs/rectifier_cuda_benchmark"
fi
finish
