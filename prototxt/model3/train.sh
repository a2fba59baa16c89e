#!/bin/sh
# Train model3: prototxt/model3/train.sh --data DIR --run DIR (--help for the rest)
exec "$(dirname "$0")/../../tools/train.py" model3 "$@"
