#!/bin/sh
# Train model5: prototxt/model5/train.sh --data DIR --run DIR (--help for the rest)
# digest: b7d31ddf88545717
exec "$(dirname "$0")/../../tools/train.py" "$(dirname "$0")/solver.prototxt" "$@"
