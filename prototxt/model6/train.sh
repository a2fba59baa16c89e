#!/bin/sh
# Train model6: prototxt/model6/train.sh --data DIR --run DIR (--help for the rest)
# digest: 03b7e13071a66c3a
here=$(dirname "$(readlink -f "$0")")
train="$here/../../tools/train.py"
[ -x "$train" ] || { echo "train.sh: error: $train is not there: call tools/train.py of a checkout with $here/solver.prototxt" >&2; exit 1; }
exec "$train" "$here/solver.prototxt" "$@"
