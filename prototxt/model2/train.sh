#!/bin/sh
# Train model2: prototxt/model2/train.sh --data DIR --run DIR (--help for the rest)
exec "$(dirname "$0")/../../tools/train.py" model2 "$@"
