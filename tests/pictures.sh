#!/usr/bin/env bash
# Make the README's pictures in .github/images from the runs of tools/demo.sh; needs chromium.
#
#   tests/pictures.sh [RUNS]      (default: runs/demo)
set -euo pipefail

case "${1-}" in
  -h | --help) sed -n '2,4s/^# \{0,1\}//p' "$0"; exit 0 ;;
esac
cd "$(dirname "$0")/.."
runs=$(realpath "${1:-runs/demo}")
out=.github/images
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

shot() { # URL, WIDTHxHEIGHT, FILE
  chromium --headless=new --no-sandbox --hide-scrollbars --force-device-scale-factor=1 --window-size="${2/x/,}" \
    --screenshot="$3" "$1" 2>/dev/null
}

mkdir -p "$out"
shot "file://$runs/report.html" 1300x1000 "$out/report.png"
tools/visualize.py curves "$runs/model1" "$runs/model6" --out "$out/curves.png"
tools/visualize.py errors "$runs/model6" --rows 2 --out "$out/errors.png"
tools/visualize.py tsne "$runs/model1" --out "$out/tsne.png"
tools/describe.py model1 --draw "$work/net.svg"
shot "file://$work/net.svg" 640x790 "$out/net.png"
ls -l "$out"
