#!/bin/sh
# Train model8: prototxt/model8/train.sh --data DIR --run DIR (--help for the rest)
# digest: 79ab63721d1ee1a5
exec "$(dirname "$0")/../../tools/train.py" "$(dirname "$0")/solver.prototxt" "$@"
