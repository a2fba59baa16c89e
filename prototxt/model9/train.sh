#!/bin/sh
# Train model9: prototxt/model9/train.sh --data DIR --run DIR (--help for the rest)
exec "$(dirname "$0")/../../tools/train.py" model9 "$@"
