#!/usr/bin/env bash
# Train, evaluate and combine two models on the built-in sample of handwritten digits.
#
#   tools/demo.sh [--quick] [RUNS]
#
# Sets up, writes and converts the sample, trains Model 1 and Model 6 briefly, evaluates both and their ensemble, prints
# the table and writes RUNS/report.html (default: runs/demo, which is replaced). After the setup it takes one to four
# minutes on two cores; with --quick it takes 30 seconds and only checks that everything runs.
set -euo pipefail

quick=
if [ "${1-}" = --quick ]; then
  quick=yes
  shift
fi
case "${1-}" in
  -h | --help) sed -n '2,8s/^# \{0,1\}//p' "$0"; exit 0 ;;
  -*) echo "demo.sh: error: unknown argument '$1' (see tools/demo.sh --help)" >&2; exit 2 ;;
esac
root=$(cd "$(dirname "$0")/.." && pwd)
runs=$(realpath -m "${1:-$root/runs/demo}")
begin=$SECONDS

if [ -e "$runs" ] && [ ! -e "$runs/.demo" ]; then
  echo "demo.sh: error: $runs exists and was not written by the demo: name another folder or remove it" >&2
  exit 1
fi
"$root/tools/setup.sh"
rm -rf "$runs"
mkdir -p "$runs"
touch "$runs/.demo"
export PATH="$root/.venv/bin:$PATH"
cd "$root"

echo "==> Sample: handwritten digits in Tiny ImageNet's layout"
tools/sample.py "$runs/sample" ${quick:+--train 400 --val 100 --test 20}
echo "==> Convert: screening, LMDBs, mean"
tools/convert.py "$runs/sample" "$runs/data"

# Minutes instead of the paper's days: few, small batches.
train() {
  echo "==> Train $1"
  "prototxt/$1/train.sh" --data "$runs/data" --run "$runs/$1" "${@:2}"
  tools/evaluate.py "$runs/$1"
}
if [ "$quick" ]; then
  train model1 --batch 10 --max-iter 60
  train model6 --batch 5 --max-iter 20
else
  train model1 --batch 25 --epochs 5
  train model6 --batch 25 --epochs 2
fi

echo "==> Ensemble"
tools/ensemble.py --json "$runs/model1/predictions.npz" "$runs/model6/predictions.npz" \
  --out "$runs/ensemble.npz" >"$runs/ensemble.json"
tools/report.py "$runs/model1" "$runs/model6" --ensemble "$runs/ensemble.json" --out "$runs/report.html"
echo "==> Results on the validation split"
tools/ensemble.py "$runs/model1/predictions.npz" "$runs/model6/predictions.npz"
echo "==> Done in $((SECONDS - begin)) seconds: open $runs/report.html"
