#!/bin/sh
# Train model7: prototxt/model7/train.sh --data DIR --run DIR (--help for the rest)
# digest: ef87d8bab157ceb6
exec "$(dirname "$0")/../../tools/train.py" "$(dirname "$0")/solver.prototxt" "$@"
