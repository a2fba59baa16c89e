#!/usr/bin/env bash
# Make this checkout ready to use: system packages, .venv, Caffe's source, build, install.
#
#   tools/setup.sh [--gpu | --cpu] [--cluster] [--dry-run]
#
# For Debian and Ubuntu, as root or with sudo. Safe to run again; takes a second or two when nothing has changed.
#
#   --gpu       build Caffe for a GPU too (with CUDA's nvcc, cuDNN and NCCL where they are); it stays so in later calls
#   --cpu       build it for the CPU alone; it stays so in later calls
#   --cluster   with what several machines together need: Open MPI, mpi4py, Dask; it stays so in later calls
#   --dry-run   say for which device it would be, and do nothing
#
# Without --gpu or --cpu it is for a GPU where nvcc and a GPU are both there.
#
#   PYTHON=python3.12 tools/setup.sh      another Python than python3 (3.9 or newer)
#   CAFFE_SOURCE_DIR=DIR tools/setup.sh   your own checkout of BVLC Caffe instead of the pinned source
#   JOBS=N tools/setup.sh                 so many compilers at once (default: one a core, and 1.5 GB of memory each)
#   CUDA_HOME=DIR tools/setup.sh --gpu    CUDA's folder, where nvcc is not on the PATH (default: /usr/local/cuda)
#   CUDAARCHS=90 tools/setup.sh --gpu     compute capabilities (default: of the GPUs that are there, else many)
set -euo pipefail

device=
cluster=false
dry=false
for argument in "$@"; do
  case "$argument" in
    -h | --help) sed -n '2,21s/^# \{0,1\}//p' "$0"; exit 0 ;;
    --gpu | --cpu)
      [ -z "$device" ] || [ "$device" = "${argument#--}" ] || { echo "setup.sh: error: --gpu or --cpu, not both" >&2; exit 2; }
      device=${argument#--}
      ;;
    --cluster) cluster=true ;;
    --dry-run) dry=true ;;
    *) echo "setup.sh: error: unknown argument '$argument' (see tools/setup.sh --help)" >&2; exit 2 ;;
  esac
done

cd -P "$(dirname "$0")/.." # as .venv and CMake write it
begin=$SECONDS
stamp=.venv/.setup-stamp
log=build/setup.log

die() {
  echo "setup.sh: error: $*" >&2
  exit 1
}
step() { echo "==> $*"; }

if [ -n "${TINY_IMAGENET_IMAGE-}" ]; then # an image of docker/ is set up already, and has no compilers
  step "In a Docker image: nothing to set up"
  exit 0
fi

# Runs a command into the log; on failure shows its end and says what to do.
run() {
  local advice=$1
  shift
  echo "+ $*" >>"$log"
  "$@" >>"$log" 2>&1 || { tail -n 25 "$log" >&2; die "'$*' failed; $advice (whole log: $log)"; }
}

python=${PYTHON:-python3}

# --- For the CPU or for a GPU? --------------------------------------------------------------------------------------
cuda=${CUDA_HOME:-/usr/local/cuda}
nvcc=$(command -v nvcc || ls "$cuda/bin/nvcc" 2>/dev/null || true)
gpu_here() { [ -e /dev/nvidia0 ] || nvidia-smi -L 2>/dev/null | grep -q '^GPU'; }
chosen=build/.setup-for # what an earlier call was told
told=$device
if [ -z "$device" ]; then
  device=$(cat "$chosen" 2>/dev/null || true)
  if [ "$device" = gpu ] && [ -n "$nvcc" ]; then
    step "Build for a GPU, as an earlier --gpu said (--cpu builds for the CPU alone)"
  elif [ "$device" != cpu ]; then
    device=cpu
    if [ -n "$nvcc" ] && gpu_here; then
      device=gpu
      step "Build for a GPU: there is one, and $nvcc (--cpu builds for the CPU alone)"
    elif [ -n "$nvcc" ]; then
      step "Build for the CPU: there is $nvcc, but no GPU (--gpu builds for a GPU all the same)"
    elif gpu_here; then
      step "Build for the CPU: there is a GPU, but no nvcc (install CUDA's toolkit, then tools/setup.sh --gpu)"
    fi
  fi
elif [ "$device" = gpu ] && [ -z "$nvcc" ]; then
  die "--gpu needs CUDA's compiler, and nvcc is neither on the PATH nor in $cuda/bin: install CUDA's toolkit or name its folder in CUDA_HOME"
fi
if $dry; then
  step "Build for $([ "$device" = gpu ] && echo "a GPU, with $nvcc" || echo "the CPU alone")"
  exit 0
fi
mkdir -p build
if [ -n "$told" ]; then echo "$told" >"$chosen"; fi
if $cluster; then touch build/.setup-cluster; fi # an earlier call may have been told
if [ -e build/.setup-cluster ]; then cluster=true; fi
for_device=(-DCPU_ONLY=ON)
if [ "$device" = gpu ]; then
  for_device=(-DCPU_ONLY=OFF)
  export CUDACXX=$nvcc
  if [ -z "${CUDAARCHS-}" ]; then
    # Those of the GPUs here compile in a fraction of the time; a list from an earlier call is made anew.
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
  packages+=(openmpi-bin libopenmpi-dev iproute2) # the last for the tests, whose machines are network namespaces
  requirements+=(-r tools/requirements-cluster.txt)
fi
# Debian's own Python comes in parts (a virtual environment of it too); any other is taken as it is.
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
    command -v sudo >/dev/null || die "these packages are missing and there is no sudo: as root, apt-get install ${missing[*]}"
    sudo true || die "sudo refused: as root, apt-get install ${missing[*]}"
    apt=(sudo "${apt[@]}")
  fi
  run "check the network and apt's sources" "${apt[@]}" update
  run "install these packages by hand and run this script again" "${apt[@]}" install -y --no-install-recommends "${missing[@]}"
else
  step "System packages: all there"
fi

version=$("$python" -c 'import sys; print("%d.%d" % sys.version_info[:2])' 2>/dev/null) ||
  die "there is no $python that runs: install Python 3.9 or newer, or set PYTHON to one"
"$python" -c 'import sys; sys.exit(sys.version_info < (3, 9))' || die "$python is Python $version: 3.9 or newer is needed, set PYTHON to one"

# --- Nothing new? ---------------------------------------------------------------------------------------------------
# What the build is made from, by content; tiny_imagenet is used where it stands and needs no build.
inputs() {
  find CMakeLists.txt pyproject.toml tools/requirements.txt tools/fetch_caffe.sh tests/cpp caffe_layers -type f -print0 |
    sort -z | xargs -0 sha256sum
  echo "$("$python" -c 'import sys; print(sys.base_prefix, sys.version)')" "${CAFFE_SOURCE_DIR-}" "$PWD"
  if $cluster; then sha256sum tools/requirements-cluster.txt; fi
  if [ "$device" = gpu ]; then
    echo "${for_device[@]}" "${CUDNN_ROOT-}" "$("$nvcc" --version | tail -n 1)"
    # cuDNN and NCCL, which may have been installed since
    find -H "${CUDNN_ROOT:-/usr}/include" "$(dirname "$(realpath "$nvcc")")/../include" /usr/include /usr/include/*-linux-gnu \
      -maxdepth 1 '(' -name 'cudnn_version*.h' -o -name nccl.h ')' -exec sha256sum {} + 2>/dev/null || true
  fi
}
wanted=$(inputs | sha256sum)
if [ -x .venv/bin/python ] && [ "$(cat "$stamp" 2>/dev/null)" = "$wanted" ] && [ -e build/build.ninja ] &&
  .venv/bin/python -c 'import tiny_imagenet, caffe' 2>/dev/null; then
  step "Nothing changed: .venv and build/ are up to date"
  exit 0
fi
rm -f "$stamp"

# --- .venv ----------------------------------------------------------------------------------------------------------
step "Python $version in .venv, with the packages of tools/requirements.txt$($cluster && echo " and requirements-cluster.txt")"
# Made anew for another Python, and where the checkout was moved: both name their folder inside.
if [ "$(.venv/bin/python -c 'import sys; print("%d.%d" % sys.version_info[:2])' 2>/dev/null)" != "$version" ] ||
  ! grep -qF "$PWD/.venv" .venv/bin/activate; then
  run "is the venv module installed (python3-venv)?" "$python" -m venv --clear .venv
fi
# requirements.txt has a pip too: the one that comes with an old Python knows no editable wheels.
run "check the network and pip's configuration" .venv/bin/python -m pip install --disable-pip-version-check "${requirements[@]}"

# --- Caffe ----------------------------------------------------------------------------------------------------------
if [ -z "${CAFFE_SOURCE_DIR-}" ]; then
  step "Caffe's source, fetched and checked"
  tools/fetch_caffe.sh build/caffe-source || die "Caffe's source could not be fetched (see above)"
fi

cores=$(nproc)
memory=$(awk '/MemAvailable/ {print int($2 / 1572864)}' /proc/meminfo)
jobs=${JOBS:-$((memory < 1 ? 1 : memory < cores ? memory : cores))}
long="two to five minutes on two cores"
if [ "$device" = gpu ]; then long="ten minutes or more on two cores, less for few kinds of GPU"; fi
step "Build with $jobs compilers at once ($long the first time)"
# CMake's cache holds on to its generator and folder.
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

step "Install caffe into .venv, and tiny_imagenet as it stands in python/"
packages=$(.venv/bin/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))')
run "see the lines above" .venv/bin/python -m pip uninstall --disable-pip-version-check -y tiny-imagenet-caffe
run "see the lines above" cmake --install build --component python --prefix "$packages"
echo "$PWD/python" >"$packages/tiny_imagenet.pth"
.venv/bin/python -c 'import caffe, tiny_imagenet; assert "LReLU" in caffe.layer_type_list()' ||
  die "the installed packages do not import (see above): remove .venv and build and run this script again"

echo "$wanted" >"$stamp"
step "Ready after $((SECONDS - begin)) seconds: tools/demo.sh shows it all, tools/test.sh tests it"
