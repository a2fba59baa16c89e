#!/bin/sh
# Train model2: prototxt/model2/train.sh --data DIR --run DIR (--help lists all options)
# digest: 852e5e095c65d6ff
here=$(dirname "$(readlink -f "$0")")
train="$here/../../tools/train.py"
[ -x "$train" ] || { echo "train.sh: error: $train is missing: run tools/train.py of a checkout with $here/solver.prototxt" >&2; exit 1; }
exec "$train" "$here/solver.prototxt" "$@"
