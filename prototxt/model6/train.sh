#!/bin/sh
# Train model6: prototxt/model6/train.sh --data DIR --run DIR (--help for the rest)
exec "$(dirname "$0")/../../tools/train.py" model6 "$@"
