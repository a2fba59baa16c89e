#!/bin/sh
# Train model1: prototxt/model1/train.sh --data DIR --run DIR (--help for the rest)
# digest: 90db4924b6c4c29b
here=$(dirname "$(readlink -f "$0")")
train="$here/../../tools/train.py"
[ -x "$train" ] || { echo "train.sh: error: $train is not there: call tools/train.py of a checkout with $here/solver.prototxt" >&2; exit 1; }
exec "$train" "$here/solver.prototxt" "$@"
