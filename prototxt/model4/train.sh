#!/bin/sh
# Train model4: prototxt/model4/train.sh --data DIR --run DIR (--help lists all options)
# digest: da1df7aef1c3e41c
here=$(dirname "$(readlink -f "$0")")
train="$here/../../tools/train.py"
[ -x "$train" ] || { echo "train.sh: error: $train is missing: run tools/train.py of a checkout with $here/solver.prototxt" >&2; exit 1; }
exec "$train" "$here/solver.prototxt" "$@"
