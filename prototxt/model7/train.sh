#!/bin/sh
# Train model7: prototxt/model7/train.sh --data DIR --run DIR (--help for the rest)
exec "$(dirname "$0")/../../tools/train.py" model7 "$@"
