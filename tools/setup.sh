#!/usr/bin/env bash
# Set up this checkout: system packages, .venv, Caffe's source, build, install.
#
#   tools/setup.sh [--gpu | --cpu] [--cluster] [--dry-run]
#
# For Debian and Ubuntu, as root or with sudo. Running it again takes a second or two if nothing has changed.
#
#   --gpu       build Caffe for CPU and GPU (needs CUDA's nvcc; uses cuDNN and NCCL if installed); later calls keep it
#   --cpu       build Caffe for the CPU only; later calls keep it
#   --cluster   install Open MPI, mpi4py and Dask for several machines; later calls keep it
#   --dry-run   print the device to build for, and exit
#
# Without --gpu or --cpu, it builds for a GPU if nvcc and a GPU are found.
#
#   PYTHON=python3.12 tools/setup.sh      use this Python, 3.9 or newer (default: python3)
#   CAFFE_SOURCE_DIR=DIR tools/setup.sh   use a checkout of BVLC Caffe instead of the pinned source
#   JOBS=N tools/setup.sh                 number of compilers (default: one per core and 1.5 GB of memory)
#   CUDA_HOME=DIR tools/setup.sh --gpu    CUDA's folder if nvcc is not on the PATH (default: /usr/local/cuda)
#   CUDAARCHS=90 tools/setup.sh --gpu     compute capabilities (default: those of the installed GPUs, else many)
set -euo pipefail

device=
cluster=false
dry=false
for argument in "$@"; do
  case "$argument" in
    -h | --help) sed -n '2,21s/^# \{0,1\}//p' "$0"; exit 0 ;;
    --gpu | --cpu)
      [ -z "$device" ] || [ "$device" = "${argument#--}" ] || { echo "setup.sh: error: --gpu and --cpu exclude each other" >&2; exit 2; }
      device=${argument#--}
      ;;
    --cluster) cluster=true ;;
    --dry-run) dry=true ;;
    *) echo "setup.sh: error: unknown argument '$argument' (see tools/setup.sh --help)" >&2; exit 2 ;;
  esac
done

cd -P "$(dirname "$0")/.." # the form of the path in .venv and CMake's cache
start=$SECONDS
stamp=.venv/.setup-stamp
log=build/setup.log

die() {
  echo "setup.sh: error: $*" >&2
  exit 1
}
step() { echo "==> $*"; }

if [ -n "${TINY_IMAGENET_IMAGE-}" ]; then # a Docker image is set up already, and has no compilers
  step "In a Docker image: nothing to set up"
  exit 0
fi

# Run a command with its output in the log; on failure print the log's end and advice.
run() {
  local advice=$1
  shift
  echo "+ $*" >>"$log"
  "$@" >>"$log" 2>&1 || { tail -n 25 "$log" >&2; die "'$*' failed; $advice (whole log: $log)"; }
}

python=${PYTHON:-python3}

# --- CPU or GPU --------------------------------------------------------------------------------------
cuda=${CUDA_HOME:-/usr/local/cuda}
nvcc=$(command -v nvcc || ls "$cuda/bin/nvcc" 2>/dev/null || true)
gpu_here() { [ -e /dev/nvidia0 ] || nvidia-smi -L 2>/dev/null | grep -q '^GPU'; }
kept=build/.setup-for # --gpu or --cpu of an earlier call
requested=$device
if [ -z "$device" ]; then
  device=$(cat "$kept" 2>/dev/null || true)
  if [ "$device" = gpu ] && [ -n "$nvcc" ]; then
    step "Build for CPU and GPU, as with the earlier --gpu (--cpu builds for the CPU only)"
  elif [ "$device" != cpu ]; then
    device=cpu
    if [ -n "$nvcc" ] && gpu_here; then
      device=gpu
      step "Build for CPU and GPU: found a GPU and $nvcc (--cpu builds for the CPU only)"
    elif [ -n "$nvcc" ]; then
      step "Build for the CPU: found $nvcc, but no GPU (--gpu builds for a GPU anyway)"
    elif gpu_here; then
      step "Build for the CPU: found a GPU, but no nvcc (install the CUDA toolkit, then run tools/setup.sh --gpu)"
    fi
  fi
elif [ "$device" = gpu ] && [ -z "$nvcc" ]; then
  die "--gpu needs nvcc, which is neither on the PATH nor in $cuda/bin: install the CUDA toolkit or set CUDA_HOME to its folder"
fi
if $dry; then
  step "Build for $([ "$device" = gpu ] && echo "CPU and GPU, with $nvcc" || echo "the CPU")"
  exit 0
fi
mkdir -p build
if [ -n "$requested" ]; then echo "$requested" >"$kept"; fi
if $cluster; then touch build/.setup-cluster; fi # kept for later calls
if [ -e build/.setup-cluster ]; then cluster=true; fi
for_device=(-DCPU_ONLY=ON)
if [ "$device" = gpu ]; then
  for_device=(-DCPU_ONLY=OFF)
  export CUDACXX=$nvcc
  if [ -z "${CUDAARCHS-}" ]; then
    # Compiling for the installed GPUs only is much faster; the list of an earlier call is not kept.
    if gpu_here && [ "$(printf '%s\n' 3.24 "$(cmake --version 2>/dev/null | sed -n '1s/.* //p')" | sort -V | head -n 1)" = 3.24 ]; then
      for_device+=(-DCMAKE_CUDA_ARCHITECTURES=native)
    else
      for_device+=(-UCMAKE_CUDA_ARCHITECTURES)
    fi
  else
    for_device+=("-DCMAKE_CUDA_ARCHITECTURES=$CUDAARCHS")
  fi
fi

# --- System packages ----------------------------------------------------------------------------------------------
packages=(
  build-essential ccache cmake git ninja-build ca-certificates
  libboost-filesystem-dev libboost-thread-dev libgflags-dev libgoogle-glog-dev libgtest-dev libhdf5-dev libhwy-dev
  liblmdb-dev libopenblas-openmp-dev libopencv-core-dev libopencv-imgcodecs-dev libopencv-imgproc-dev libprotobuf-dev
  librandom123-dev protobuf-compiler graphviz
)
requirements=(-r tools/requirements.txt)
if $cluster; then
  packages+=(openmpi-bin libopenmpi-dev iproute2) # iproute2 is for tests with network namespaces
  requirements+=(-r tools/requirements-cluster.txt)
fi
# Debian splits its Python into packages; any other Python is used as it is.
base=$("$python" -c 'import sys; print(sys.base_prefix, "python%d.%d" % sys.version_info[:2])' 2>/dev/null || true)
case "$base" in
  "") packages+=(python3 python3-dev python3-venv) ;;
  "/usr "*) packages+=("${base#* }-dev" "${base#* }-venv") ;;
esac

missing=()
if command -v dpkg-query >/dev/null; then
  installed=$(dpkg-query -W -f '${db:Status-Abbrev} ${Package}\n' | sed -n 's/^ii *//p')
  for package in "${packages[@]}"; do
    grep -qx "$package" <<<"$installed" || missing+=("$package")
  done
fi
if [ ${#missing[@]} -gt 0 ]; then
  step "System packages: ${missing[*]}"
  apt=(env DEBIAN_FRONTEND=noninteractive apt-get -o DPkg::Lock::Timeout=300)
  if [ "$(id -u)" -ne 0 ]; then
    command -v sudo >/dev/null || die "packages are missing and sudo is not installed: as root, run apt-get install ${missing[*]}"
    sudo true || die "sudo failed: as root, run apt-get install ${missing[*]}"
    apt=(sudo "${apt[@]}")
  fi
  run "check the network and the apt sources" "${apt[@]}" update
  run "install these packages yourself and run this script again" "${apt[@]}" install -y --no-install-recommends "${missing[@]}"
else
  step "System packages: all installed"
fi

version=$("$python" -c 'import sys; print("%d.%d" % sys.version_info[:2])' 2>/dev/null) ||
  die "$python does not run: install Python 3.9 or newer, or set PYTHON"
"$python" -c 'import sys; sys.exit(sys.version_info < (3, 9))' || die "$python is Python $version, expected 3.9 or newer: set PYTHON to another one"

# --- Up to date? ---------------------------------------------------------------------------------------------------
# Digests of the inputs of the build. Changes of python/ need no build.
inputs() {
  find CMakeLists.txt pyproject.toml tools/requirements.txt tools/fetch_caffe.sh tests/cpp caffe_layers -type f -print0 |
    sort -z | xargs -0 sha256sum
  echo "$("$python" -c 'import sys; print(sys.base_prefix, sys.version)')" "${CAFFE_SOURCE_DIR-}" "$PWD"
  if $cluster; then sha256sum tools/requirements-cluster.txt; fi
  if [ "$device" = gpu ]; then
    echo "${for_device[@]}" "${CUDNN_ROOT-}" "$("$nvcc" --version | tail -n 1)"
    # cuDNN and NCCL may have been installed since the last call
    find -H "${CUDNN_ROOT:-/usr}/include" "$(dirname "$(realpath "$nvcc")")/../include" /usr/include /usr/include/*-linux-gnu \
      -maxdepth 1 '(' -name 'cudnn_version*.h' -o -name nccl.h ')' -exec sha256sum {} + 2>/dev/null || true
  fi
}
wanted=$(inputs | sha256sum)
if [ -x .venv/bin/python ] && [ "$(cat "$stamp" 2>/dev/null)" = "$wanted" ] && [ -e build/build.ninja ] &&
  .venv/bin/python -c 'import tiny_imagenet, caffe' 2>/dev/null; then
  step "Up to date: nothing changed since the last call"
  exit 0
fi
rm -f "$stamp"

# --- .venv ----------------------------------------------------------------------------------------------------------
step "Python $version in .venv, with the packages of tools/requirements.txt$($cluster && echo " and requirements-cluster.txt")"
# Recreated for another Python and after the checkout was moved, since its files contain paths.
if [ "$(.venv/bin/python -c 'import sys; print("%d.%d" % sys.version_info[:2])' 2>/dev/null)" != "$version" ] ||
  ! grep -qF "$PWD/.venv" .venv/bin/activate; then
  run "check that the venv module is installed (python3-venv)" "$python" -m venv --clear .venv
fi
run "check the network and the configuration of pip" .venv/bin/python -m pip install --disable-pip-version-check "${requirements[@]}"

# --- Caffe ----------------------------------------------------------------------------------------------------------
if [ -z "${CAFFE_SOURCE_DIR-}" ]; then
  step "Fetch and check Caffe's source"
  tools/fetch_caffe.sh build/caffe-source || die "cannot fetch Caffe's source (see above)"
fi

cores=$(nproc)
memory=$(awk '/MemAvailable/ {print int($2 / 1572864)}' /proc/meminfo)
jobs=${JOBS:-$((memory < 1 ? 1 : memory < cores ? memory : cores))}
long="two to five minutes on two cores"
if [ "$device" = gpu ]; then long="ten minutes or more on two cores, less for few kinds of GPU"; fi
step "Build with $jobs parallel compilers ($long the first time)"
# CMake's cache cannot change its generator or folder.
if ! { grep -qx 'CMAKE_GENERATOR:INTERNAL=Ninja' build/CMakeCache.txt &&
  grep -qxF "CMAKE_HOME_DIRECTORY:INTERNAL=$PWD" build/CMakeCache.txt; } 2>/dev/null; then
  rm -rf build/CMakeCache.txt build/CMakeFiles
fi
run "see the lines above" cmake -B build -G Ninja -DCMAKE_BUILD_TYPE=Release -DBUILD_TESTING=ON -DBUILD_PYTHON=ON \
  -DCAFFE_SOURCE_DIR="${CAFFE_SOURCE_DIR-}" -DPython_EXECUTABLE="$PWD/.venv/bin/python" "${for_device[@]}"
if [ -t 1 ]; then
  cmake --build build -j "$jobs" || die "the build failed (see above)"
else
  run "see the lines above" cmake --build build -j "$jobs"
fi

step "Install caffe into .venv, and link python/"
packages=$(.venv/bin/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))')
run "see the lines above" .venv/bin/python -m pip uninstall --disable-pip-version-check -y tiny-imagenet-caffe
run "see the lines above" cmake --install build --component python --prefix "$packages"
echo "$PWD/python" >"$packages/tiny_imagenet.pth"
.venv/bin/python -c 'import caffe, tiny_imagenet; assert "LReLU" in caffe.layer_type_list()' ||
  die "the installed packages do not import (see above): remove .venv and build and run this script again"

echo "$wanted" >"$stamp"
step "Ready after $((SECONDS - start)) seconds: next, tools/demo.sh or tools/test.sh"
