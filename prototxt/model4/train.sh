#!/bin/sh
# Train model4: prototxt/model4/train.sh --data DIR --run DIR (--help for the rest)
exec "$(dirname "$0")/../../tools/train.py" model4 "$@"
