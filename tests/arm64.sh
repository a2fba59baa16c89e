#!/usr/bin/env bash
# Cross-compile the kernels of the CPU engine for arm64 into build/arm64/ and run their gtests in an emulator.
#
#   tests/arm64.sh
#
# For Debian on another processor. Needs g++-aarch64-linux-gnu and qemu-user-static; GoogleTest, Highway and OpenBLAS for
# arm64 are downloaded by apt into build/arm64/root and not installed. The emulated processors have NEON, and SVE with
# 128, 256 and 512 bits. Takes two minutes on two cores.
set -euo pipefail

die() { echo "arm64.sh: error: $*" >&2; exit 1; }

case "${1-}" in
  "") ;;
  -h | --help) sed -n '2,8s/^# \{0,1\}//p' "$0"; exit 0 ;;
  *) echo "arm64.sh: error: unknown argument '$1' (see tests/arm64.sh --help)" >&2; exit 2 ;;
esac
cd -P "$(dirname "$0")/.."

compiler=aarch64-linux-gnu-g++ emulator=qemu-aarch64-static
for program in $compiler $emulator; do
  command -v "$program" >/dev/null || die "$program is missing: apt-get install g++-aarch64-linux-gnu qemu-user-static"
done
build=$PWD/build/arm64
root=$build/root
libraries=$root/usr/lib/aarch64-linux-gnu

if [ ! -e "$root" ]; then
  echo "==> Libraries for arm64 into build/arm64/root/"
  work=$build/apt
  rm -rf "$work" "$root.new"
  mkdir -p "$work/lists/partial" "$work/archives/partial" "$root.new"
  touch "$work/status" # no installed packages
  options=(-qq -o APT::Architecture=arm64 -o APT::Architectures=arm64 -o APT::Sandbox::User=root
    -o "Dir::State=$work" -o "Dir::State::status=$work/status" -o "Dir::Cache=$work")
  { apt-get "${options[@]}" update &&
    apt-get "${options[@]}" install --yes --no-install-recommends --download-only \
      libgtest-dev libhwy-dev libopenblas-openmp-dev; } >"$build/apt.log" 2>&1 ||
    { tail -n 5 "$build/apt.log" >&2; die "the libraries could not be downloaded (log: $build/apt.log)"; }
  for package in "$work"/archives/*.deb; do
    case $package in */libc6_* | */libgcc-s1_* | */libstdc++6_*) continue ;; esac # part of the compiler
    dpkg-deb --extract "$package" "$root.new"
  done
  rm -rf "$work"
  mv "$root.new" "$root"
fi

echo "==> Build into build/arm64/"
compile() { # with the options of CMakeLists.txt
  local flags=(-std=c++17 -O3 -DNDEBUG -fopenmp -Wall -Wextra -Wno-unused-parameter -Wno-sign-compare)
  [ "$1" != caffe_layers/rectifier.cpp ] || flags+=(-ffp-contract=off)
  $compiler "${flags[@]}" -Icaffe_layers -isystem "$root/usr/include" \
    -isystem "$root/usr/include/aarch64-linux-gnu/openblas-openmp" -c "$1" -o "$build/$(basename "$1" .cpp).o"
}
export -f compile
export compiler root build
kernels=(image_convolution max_pooling rectifier sgd_update winograd winograd_kernels workspace)
tests=(convolution max_pooling rectifier sgd_update)
rm -f "$build"/*.o
printf '%s\n' "${kernels[@]/#/caffe_layers/}" "${tests[@]/#/tests/cpp/test_}" |
  xargs -P "${JOBS:-$(nproc)}" -I NAME bash -c 'compile NAME.cpp' || die "compilation failed"
$compiler -fopenmp "$build"/*.o -L"$libraries" -L"$libraries/openblas-openmp" -Wl,-rpath-link,"$libraries" \
  -lgtest_main -lgtest -lhwy -lopenblas -o "$build/kernels_test" || die "linking failed"

run() { # PROCESSOR TESTS
  echo "==> $2 on $1"
  OMP_NUM_THREADS=2 $emulator -cpu "$1" -L /usr/aarch64-linux-gnu \
    -E "LD_LIBRARY_PATH=$libraries:$libraries/openblas-openmp" "$build/kernels_test" --gtest_brief=1 --gtest_filter="$2"
}
run cortex-a57 '*'
for bytes in 16 32 64; do run "max,sve-default-vector-length=$bytes" 'Rectifier*:MaxPooling*'; done
