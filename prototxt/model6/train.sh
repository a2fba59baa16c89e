#!/bin/sh
# Train model6: prototxt/model6/train.sh --data DIR --run DIR (--help for the rest)
# digest: 7ffe16e5080fd1a8
exec "$(dirname "$0")/../../tools/train.py" "$(dirname "$0")/solver.prototxt" "$@"
