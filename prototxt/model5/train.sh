#!/bin/sh
# Train model5: prototxt/model5/train.sh --data DIR --run DIR (--help for the rest)
# digest: a138ebc4dc4ce9ed
here=$(dirname "$(readlink -f "$0")")
train="$here/../../tools/train.py"
[ -x "$train" ] || { echo "train.sh: error: $train is not there: call tools/train.py of a checkout with $here/solver.prototxt" >&2; exit 1; }
exec "$train" "$here/solver.prototxt" "$@"
