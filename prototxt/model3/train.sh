#!/bin/sh
# Train model3: prototxt/model3/train.sh --data DIR --run DIR (--help lists all options)
# digest: bc85d85457cf72c8
here=$(dirname "$(readlink -f "$0")")
train="$here/../../tools/train.py"
[ -x "$train" ] || { echo "train.sh: error: $train is missing: run tools/train.py of a checkout with $here/solver.prototxt" >&2; exit 1; }
exec "$train" "$here/solver.prototxt" "$@"
