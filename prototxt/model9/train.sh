#!/bin/sh
# Train model9: prototxt/model9/train.sh --data DIR --run DIR (--help for the rest)
# digest: 70c64e558ed28cdc
exec "$(dirname "$0")/../../tools/train.py" "$(dirname "$0")/solver.prototxt" "$@"
