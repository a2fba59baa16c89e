#!/bin/sh
# Train model5: prototxt/model5/train.sh --data DIR --run DIR (--help for the rest)
exec "$(dirname "$0")/../../tools/train.py" model5 "$@"
