#!/bin/sh
# Train model8: prototxt/model8/train.sh --data DIR --run DIR (--help for the rest)
exec "$(dirname "$0")/../../tools/train.py" model8 "$@"
