#!/bin/sh
# Train model2: prototxt/model2/train.sh --data DIR --run DIR (--help for the rest)
# digest: 7f16ebe9bfa618aa
exec "$(dirname "$0")/../../tools/train.py" "$(dirname "$0")/solver.prototxt" "$@"
