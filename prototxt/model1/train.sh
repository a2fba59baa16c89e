#!/bin/sh
# Train model1: prototxt/model1/train.sh --data DIR --run DIR (--help for the rest)
# digest: 3a305a8d58f9a555
exec "$(dirname "$0")/../../tools/train.py" "$(dirname "$0")/solver.prototxt" "$@"
