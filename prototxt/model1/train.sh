#!/bin/sh
# Train model1: prototxt/model1/train.sh --data DIR --run DIR (--help for the rest)
exec "$(dirname "$0")/../../tools/train.py" model1 "$@"
