#!/bin/sh
# Train model4: prototxt/model4/train.sh --data DIR --run DIR (--help for the rest)
# digest: 6674fdd4590a2c6a
exec "$(dirname "$0")/../../tools/train.py" "$(dirname "$0")/solver.prototxt" "$@"
