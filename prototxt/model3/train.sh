#!/bin/sh
# Train model3: prototxt/model3/train.sh --data DIR --run DIR (--help for the rest)
# digest: ab44e0d936c871f8
exec "$(dirname "$0")/../../tools/train.py" "$(dirname "$0")/solver.prototxt" "$@"
