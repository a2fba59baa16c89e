#!/usr/bin/env bash
# Build with CUDA and run everything that needs a GPU: upstream's GPU tests, the tests of our kernels and layers, cuDNN's
# convolutions, the nets compared with the CPU, a short training, several GPUs, compute-sanitizer, the benchmarks against
# PyTorch, and the Python tests that need a GPU.
#
#   tests/gpu.sh [-- CMAKE ARGUMENTS]                 build into build-gpu/ (needs nvcc), then run
#   tests/gpu.sh --pack DIR [-- CMAKE ARGUMENTS]      build, then copy everything that another machine needs into DIR
#   tests/gpu.sh --programs DIR                       run the programs in DIR: a packed folder, or another build
#
#   --only PART[,PART]   of kernels, layers, cudnn, upstream, sanitizer, nets, learning, several, python, bandwidth and
#                        benchmark (default: all, which takes about an hour)
#   --no-cuda            with --pack: without CUDA's libraries (2 GB), for a machine that has them
#
#   JOBS=N               number of compilers (default: one per core)
#   BUILD=DIR            the build folder (default: build-gpu)
#   PYTHON=PYTHON        for the nets (numpy), the benchmark (numpy, rich) and the Python tests (default: .venv's, python3)
#   TORCH_PYTHON=PYTHON  a Python with torch, for the benchmark
#   CUDA_HOME=DIR        CUDA's folder (default: /usr/local/cuda)
#
# For a machine without network, compiler and our libraries, copy this checkout and a packed folder there:
#
#   here:   tests/gpu.sh --pack packed --no-cuda -- -DCMAKE_CUDA_ARCHITECTURES=90     (its architecture: a small folder)
#   there:  tests/gpu.sh --programs packed        (CUDA's libraries: of CUDA_HOME, or of the nvidia packages of PYTHON)
#
# Without a GPU it only builds. Skipped parts are listed at the end. Exits with 0 if all parts that ran passed, 1 if one
# failed, 2 for bad use, and 77 if nothing could run.
set -uo pipefail

die() {
  echo "gpu.sh: error: $2" >&2
  exit "$1"
}

PARTS="kernels layers cudnn upstream sanitizer nets learning several python bandwidth benchmark"
cmake_arguments=()
programs=
pack=
only=$PARTS
cuda_too=true
while [ $# -gt 0 ]; do
  case "$1" in
    -h | --help) sed -n '2,31s/^# \{0,1\}//p' "$0"; exit 0 ;;
    --)
      shift
      cmake_arguments=("$@")
      break
      ;;
    --programs)
      [ $# -ge 2 ] && [ -d "$2" ] || die 2 "--programs needs an existing folder, got '${2-}'"
      programs=$(cd "$2" && pwd)
      shift
      ;;
    --pack)
      [ $# -ge 2 ] && [ -n "$2" ] || die 2 "--pack needs a folder to write"
      pack=$(realpath -m "$2")
      shift
      ;;
    --only)
      [ $# -ge 2 ] && [ -n "$2" ] || die 2 "--only needs one of ${PARTS// /, }, or several separated by commas"
      only=${2//,/ }
      for part in $only; do
        [[ " $PARTS " == *" $part "* ]] || die 2 "--only: unknown part '$part', expected one of ${PARTS// /, }"
      done
      shift
      ;;
    --no-cuda) cuda_too=false ;;
    *) die 2 "unknown argument '$1' (see tests/gpu.sh --help)" ;;
  esac
  shift
done
[ -n "$pack" ] || $cuda_too || die 2 "--no-cuda requires --pack"
if [ -n "$pack" ] && [ -e "$pack" ] && [ ! -e "$pack/.packed" ] && [ -n "$(ls -A "$pack" 2>/dev/null)" ]; then
  die 2 "$pack exists and was not written by --pack: name another folder"
fi
cd -P "$(dirname "$0")/.." || exit 1

failed=()
skipped=()
ran=0
work=$(mktemp -d) || exit 1
trap 'rm -rf "$work"' EXIT

# Run a command and record its name if it fails, or if it is skipped (status 77).
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

wanted() { [[ " $only " == *" $1 "* ]]; }

# The path of a CUDA program: on the PATH, or in CUDA's folder.
cuda_program() {
  command -v "$1" || ls "${CUDA_HOME:-/usr/local/cuda}/bin/$1" 2>/dev/null
}

python=${PYTHON:-}
if [ -z "$python" ]; then
  python=python3
  if [ -x .venv/bin/python ]; then python=$PWD/.venv/bin/python; fi
fi

# --- Build -----------------------------------------------------------------------------------------------------------
if [ -z "$programs" ]; then
  build=$(realpath -m "${BUILD:-build-gpu}")
  if ! nvcc=$(cuda_program nvcc); then
    skipped+=("everything: no nvcc on the PATH or in ${CUDA_HOME:-/usr/local/cuda}/bin (see --programs)")
    finish
  fi
  echo "==> Build with $nvcc into $build/"
  once=() # cannot be changed in a configured build folder
  if [ ! -e "$build/CMakeCache.txt" ]; then
    once=(-DCMAKE_CUDA_COMPILER="$nvcc")
    if command -v ninja >/dev/null; then once+=(-G Ninja); fi
  fi
  cmake -S . -B "$build" "${once[@]}" -DCPU_ONLY=OFF -DBUILD_UPSTREAM_TESTS=ON "${cmake_arguments[@]}" &&
    cmake --build "$build" --parallel "${JOBS:-$(nproc)}" --target all upstream_gpu_test || die 1 "the build failed"
  programs=$build/programs
fi
caffe=$programs/caffe
if [ ! -x "$caffe" ]; then caffe=$(dirname "$programs")/caffe; fi # its place in a build folder

# --- Pack ------------------------------------------------------------------------------------------------------------
# Libraries of every machine and of the driver.
SYSTEM='/(ld-linux[^/]*|lib(c|m|dl|rt|pthread|resolv|util|cuda|nvidia-[^/]*)\.so[^/]*)$'
CUDA='/lib(cudart|cublas|cublasLt|curand|cudnn[a-z_]*|nccl|nvrtc[^/]*|nvJitLink)\.so[^/]*$'

# Paths of the libraries that programs load, including those that cuDNN loads itself.
libraries_of() {
  local path
  ldd "$@" 2>/dev/null | sed -n 's/.*=> \(\/[^ ]*\) .*/\1/p' | sort -u | grep -vE "$SYSTEM" |
    while read -r path; do
      echo "$path"
      if [[ "$path" =~ /libcudnn\.so ]]; then ls "${path%/*}"/libcudnn_*.so.[0-9] 2>/dev/null; fi
    done
}

make_pack() {
  local program path missing
  rm -rf "$pack"
  mkdir -p "$pack" && touch "$pack/.packed" || die 1 "cannot make $pack"
  for program in "$programs"/* "$caffe"; do
    if [ -f "$program" ] && [ -x "$program" ] && [[ "$program" != *.so* ]]; then
      strip --strip-unneeded -o "$pack/${program##*/}" "$program" 2>/dev/null || cp "$program" "$pack" ||
        die 1 "cannot copy $program"
    fi
  done
  missing=$(ldd "$pack"/* 2>/dev/null | sed -n 's/^[[:space:]]*\(.*\) => not found/\1/p' | sort -u | grep -vE '^libcuda\.')
  [ -z "$missing" ] || die 1 "missing libraries: ${missing//$'\n'/, }"
  while read -r path; do
    if ! $cuda_too && [[ "$path" =~ $CUDA ]]; then continue; fi
    cp -L "$path" "$pack/" || die 1 "cannot copy $path"
    strip --strip-unneeded "$pack/${path##*/}" 2>/dev/null
  done < <(libraries_of "$pack"/* | sort -u)
  local source=${CAFFE_SOURCE_DIR:-build/caffe-source}
  if [ ! -d "$source/src/caffe/test" ]; then source=$(dirname "$caffe")/caffe-source; fi
  if [ -d "$source/src/caffe/test/test_data" ]; then # read by upstream's tests
    mkdir -p "$pack/caffe-source/src/caffe/test" "$pack/caffe-source/examples"
    cp -r "$source/src/caffe/test/test_data" "$pack/caffe-source/src/caffe/test/"
    cp -r "$source/examples/images" "$pack/caffe-source/examples/"
  else
    echo "note: Caffe's source is not in $source: upstream's tests that read files will fail (CAFFE_SOURCE_DIR)"
  fi
  if "$python" -c 'import caffe, tiny_imagenet' 2>/dev/null; then
    "$python" tests/gpu_models.py --write "$pack/nets" &&
      "$python" tools/benchmark.py nets --write-cases "$pack/cases.json" >/dev/null || die 1 "the nets could not be written"
  else
    echo "note: $python has no caffe and tiny_imagenet (tools/setup.sh): nets, learning and the benchmark are not packed"
  fi
  echo "==> $pack: $(du -sh "$pack" | cut -f 1), of which the largest:"
  du -h "$pack"/* | sort -rh | head -n 5
  echo "Packed again for the way (tar -cJf), it is about a quarter of that. There: tests/gpu.sh --programs ${pack##*/}"
}

if [ -n "$pack" ]; then
  echo "==> Pack into $pack"
  make_pack
  exit 0
fi

# --- The libraries of the programs -----------------------------------------------------------------------------------
paths=
if [ -e "$programs/.packed" ]; then
  paths=$programs
  for folder in "${CUDA_HOME:-/usr/local/cuda}"/lib64 "${CUDA_HOME:-/usr/local/cuda}"/lib; do
    if [ -d "$folder" ]; then paths+=:$folder; fi
  done
  # PyPI's packages of CUDA, cuDNN and NCCL
  code='import glob, nvidia; print(*(f for path in nvidia.__path__ for f in glob.glob(path + "/*/lib")), sep="\n")'
  while read -r folder; do
    if [ -n "$folder" ]; then paths+=:$folder; fi
  done < <("$python" -c "$code" 2>/dev/null)
  if [ -d "$programs/caffe-source" ]; then export CAFFE_SOURCE=$programs/caffe-source; fi
fi
# Run a program with these libraries; Python has its own.
here() { LD_LIBRARY_PATH="$paths${LD_LIBRARY_PATH:+${paths:+:}$LD_LIBRARY_PATH}" "$@"; }
if [ -x "$caffe" ]; then
  printf '#!/bin/sh\nLD_LIBRARY_PATH="%s${LD_LIBRARY_PATH:+%s$LD_LIBRARY_PATH}" exec "%s" "$@"\n' \
    "$paths" "${paths:+:}" "$caffe" >"$work/caffe"
  chmod +x "$work/caffe"
fi

# Whether a program exists; otherwise it is recorded as skipped.
have() {
  if [ -x "$programs/$1" ]; then return 0; fi
  skipped+=("$1: not in $programs")
  return 1
}

# --- Is there a GPU? -------------------------------------------------------------------------------------------------
if [ -x "$programs/rectifier_cuda_test" ]; then
  # One quick test finds out whether there is a device; its output contains the reason.
  probe=$(here "$programs/rectifier_cuda_test" --gtest_filter='*/0.SizesOfZeroDoNothing' 2>&1)
elif [ -x "$programs/caffe_layers_test" ]; then
  probe=$(here "$programs/caffe_layers_test" --gpu --gtest_filter='-*' 2>&1)
else
  probe="SKIPPED no CUDA device: $programs has no program that could find one"
fi
if grep -q 'no CUDA device' <<<"$probe"; then
  skipped+=("everything: $(grep -o 'no CUDA device.*' <<<"$probe" | head -n 1)")
  finish
fi
nvidia-smi -L 2>/dev/null || true
# As CUDA counts them: CUDA_VISIBLE_DEVICES may hide some.
gpus=$(GLOG_logtostderr=1 GLOG_minloglevel=0 "$work/caffe" device_query --gpu=all 2>&1 | grep -c 'Device id:')
if [ "$gpus" -lt 1 ]; then gpus=1; fi # no caffe program

# --- Kernels and layers ----------------------------------------------------------------------------------------------
if wanted kernels && have rectifier_cuda_test; then
  check "Kernels against the formula" here "$programs/rectifier_cuda_test" --gtest_brief=1
fi
if wanted layers && have caffe_layers_test; then
  check "Layers on the GPU" here "$programs/caffe_layers_test" --gpu --gtest_filter='*ReLULayerTest*:CropData*' \
    --gtest_brief=1
fi
if wanted cudnn && have caffe_gpu_test; then
  check "cuDNN's convolutions and the GPU's settings" here "$programs/caffe_gpu_test" --gtest_brief=1
fi
if wanted upstream && have upstream_gpu_test; then
  check "Upstream's tests of the GPU" here "$programs/upstream_gpu_test" --gtest_brief=1
fi

# --- Whole nets ------------------------------------------------------------------------------------------------------
nets=$programs/nets
cases=$programs/cases.json
if [ ! -d "$nets" ] && { wanted nets || wanted learning || wanted several || wanted benchmark; } &&
  "$python" -c 'import caffe, tiny_imagenet' 2>/dev/null; then
  nets=$work/nets cases=$work/cases.json
  "$python" tests/gpu_models.py --write "$nets" && "$python" tools/benchmark.py nets --write-cases "$cases" >/dev/null
fi
# Whether nets can be trained: the program, the nets, and a Python with these modules exist.
trainable() {
  local what=$1 modules=$2
  if [ ! -x "$work/caffe" ]; then
    skipped+=("$what: no caffe program in $programs or its parent")
  elif [ ! -d "$nets" ]; then
    skipped+=("$what: no nets in $programs, and $python has no caffe and tiny_imagenet to write them (tools/setup.sh)")
  elif ! "$python" -c "import $modules" 2>/dev/null; then
    skipped+=("$what: $python has no $modules (PYTHON names another)")
  else
    return 0
  fi
  return 1
}
models=("$python" tests/gpu_models.py "$work/caffe" "$nets")
if wanted nets && trainable "The nets compared with the CPU" numpy; then
  check "The nets compared with the CPU" "${models[@]}" --tf32 --deterministic
fi
if wanted learning && trainable "A short training" numpy; then
  check "A short training and a test" "${models[@]}" --learn
fi
if wanted several; then
  if [ "$gpus" -lt 2 ]; then
    skipped+=("Several GPUs: only one found")
  elif ! here ldd "$caffe" 2>/dev/null | grep -q libnccl; then
    skipped+=("Several GPUs: this build has no NCCL (libnccl-dev)")
  elif trainable "Several GPUs" numpy; then
    for number in 2 4 8; do # divisors of the nets' batch of 8
      if [ "$number" -gt "$gpus" ]; then break; fi
      check "$number GPUs compared with the CPU" "${models[@]}" model1 model5 model6 --gpu "$(seq -s , 0 $((number - 1)))"
    done
    check "2 GPUs learn" "${models[@]}" --learn --gpu 0,1
  fi
fi
if wanted python; then
  if problem=$("$python" -c 'from tiny_imagenet import gpu; import pytest; gpu.choose((0,))' 2>&1); then
    check "The Python tests that need a GPU" "$python" -m pytest -q tests/test_gpu_training.py
  else
    skipped+=("The Python tests ($python): $(tail -n 1 <<<"$problem")")
  fi
fi

# --- compute-sanitizer -----------------------------------------------------------------------------------------------
if wanted sanitizer && have rectifier_cuda_test; then
  if sanitizer=$(cuda_program compute-sanitizer); then
    for tool in memcheck racecheck initcheck; do # the large sizes take hours
      check "compute-sanitizer $tool" here "$sanitizer" --tool "$tool" --error-exitcode 1 "$programs/rectifier_cuda_test" \
        --gtest_filter='-*LargeSizes*' --gtest_brief=1
    done
    if have caffe_layers_test; then
      check "compute-sanitizer memcheck of CropData" here "$sanitizer" --tool memcheck --error-exitcode 1 \
        "$programs/caffe_layers_test" --gpu --gtest_filter='CropData*' --gtest_brief=1
    fi
  else
    skipped+=("memcheck, racecheck and initcheck: no compute-sanitizer")
  fi
fi

# --- Speed -----------------------------------------------------------------------------------------------------------
if wanted bandwidth && have rectifier_cuda_benchmark; then
  check "Bandwidth" here "$programs/rectifier_cuda_benchmark"
fi
if wanted benchmark && trainable "Training speed" "numpy, rich"; then
  torch=()
  if [ -n "${TORCH_PYTHON-}" ]; then
    torch=(--torch-python "$TORCH_PYTHON")
  elif ! "$python" -c 'import importlib.util, sys; sys.exit(importlib.util.find_spec("torch") is None)'; then
    skipped+=("PyTorch's speed: set TORCH_PYTHON to a Python with torch")
  fi
  for task in training inference; do
    check "${task^} speed" env PYTHONPATH="$PWD/python${PYTHONPATH:+:$PYTHONPATH}" "$python" tools/benchmark.py nets \
      --cases "$cases" --build "$work" --gpu 0 --task "$task" "${torch[@]}"
  done
fi
finish
