#!/usr/bin/env bash
# Fetch BVLC Caffe at commit 99bd997 (1.0 with the fixes of 2018), verify it and unpack it into a folder.
#
#   tools/fetch_caffe.sh DIR
#
# Uses the source package of Debian or Ubuntu (the same file), else the upstream repository. DIR appears complete or not
# at all.
set -euo pipefail

die() {
  echo "fetch_caffe.sh: error: $*" >&2
  exit 1
}

if [ $# -ne 1 ] || [ "${1#-}" != "$1" ]; then
  if [ "${1-}" = --help ] || [ "${1-}" = -h ]; then sed -n '2,7s/^# \{0,1\}//p' "$0"; exit 0; fi
  echo "fetch_caffe.sh: error: expected one folder, for example tools/fetch_caffe.sh build/caffe-source" >&2
  exit 2
fi
target=$1
[ ! -e "$target/src/caffe/proto/caffe.proto" ] || { echo "Caffe's source is in $target already"; exit 0; }
[ ! -e "$target" ] || die "$target exists and is not Caffe's source: remove it or name another folder"

commit=99bd99795dcdf0b1d3086a8d67ab1782a8a08383
archive=caffe_1.0.0+git20180821.99bd997.orig.tar.gz
sha256=e0eb3f06794f7402c77b7dec8e8480273ee1a1bb192e9122b621a69d4147ad0c

mkdir -p "$(dirname "$target")"
target=$(cd "$(dirname "$target")" && pwd)/$(basename "$target") # apt resolves relative paths itself
work=$(mktemp -d "$(dirname "$target")/.caffe-source.XXXXXX")
trap 'rm -rf "$work"' EXIT

# The last release of each distribution with the source package.
case "$(. /etc/os-release 2>/dev/null && echo "${ID-}")" in
  debian) origin=Debian suite="bullseye main" ;;
  ubuntu) origin=Ubuntu suite="focal universe" ;;
  *) origin="" ;;
esac

# The mirrors in apt's configuration (all sources if no list has been fetched yet).
mirrors() {
  local found
  found=$(apt-get indextargets --format '$(REPO_URI)' 'Created-By: Packages' "Origin: $origin" 2>/dev/null | sort -u)
  [ -n "$found" ] || found=$(apt-get indextargets --no-release-info --format '$(REPO_URI)' 'Created-By: Packages' 2>/dev/null | sort -u)
  echo "$found" | grep -v security
}

from_apt() {
  [ -n "$origin" ] && command -v apt-get >/dev/null || return 1
  local keyring="/usr/share/keyrings/${origin,,}-archive-keyring.gpg" mirror trust
  trust=trusted=yes # the checksum below is verified
  [ ! -e "$keyring" ] || trust=signed-by=$keyring
  echo "Caffe's source: $origin's source package caffe 1.0.0+git20180821.99bd997, from this machine's mirror"
  for mirror in $(mirrors); do
    mkdir -p "$work/apt/lists/partial" "$work/apt/archives/partial"
    echo "deb-src [$trust] $mirror $suite" >"$work/apt/sources.list"
    local options=(-qq -o "Dir::Etc::SourceList=$work/apt/sources.list" -o "Dir::Etc::SourceParts=/dev/null"
      -o "Dir::State::Lists=$work/apt/lists" -o "Dir::Cache=$work/apt" -o "Dir::Cache::archives=$work/apt/archives"
      -o "Acquire::Check-Valid-Until=false" -o "APT::Sandbox::User=root")
    if apt-get "${options[@]}" update 2>>"$work/errors" &&
      (cd "$work" && apt-get "${options[@]}" source --download-only caffe) 2>>"$work/errors"; then
      echo "$sha256  $work/$archive" | sha256sum --check --quiet ||
        die "$archive has the wrong sha256: try again, or use another mirror"
      mkdir "$work/tree"
      tar -xzf "$work/$archive" -C "$work/tree"
      return 0
    fi
    rm -rf "$work/apt"
  done
  return 1
}

from_git() {
  command -v git >/dev/null || return 1
  echo "Caffe's source: the upstream repository at commit ${commit:0:7}"
  {
    git init -q "$work/tree" &&
      git -C "$work/tree" fetch -q --depth 1 https://github.com/BVLC/caffe.git "$commit" &&
      git -C "$work/tree" checkout -q FETCH_HEAD && rm -rf "$work/tree/.git"
  } 2>>"$work/errors"
}

from_apt || from_git || {
  cat "$work/errors" >&2
  die "cannot reach the distribution's source package or the upstream repository: check the network, or download BVLC Caffe" \
    "at commit ${commit:0:7} and set CAFFE_SOURCE_DIR to its folder"
}

root=$(dirname "$(dirname "$(dirname "$(find "$work/tree" -maxdepth 4 -path '*/src/caffe' -type d | head -n 1)")/x")")
[ -e "$root/src/caffe/proto/caffe.proto" ] || die "the download is not BVLC Caffe: it has no src/caffe/proto/caffe.proto"
mv "$root" "$target"
echo "Caffe's source is in $target"
