"""Run a script with its own checkout's packages: tiny_imagenet from python/, and the Python of .venv if there is one.

A Python of your own that has caffe (an installed wheel, a container) runs a checkout without .venv. Ctrl-C while the
script still loads is one line; after that `cli.run` handles it.
"""

import importlib.util
import os
import sys


def _end(kind, error, trace):
    if issubclass(kind, KeyboardInterrupt):
        print(f"{os.path.basename(sys.argv[0])}: error: interrupted", file=sys.stderr)
    else:
        sys.__excepthook__(kind, error, trace)


sys.excepthook = _end
_ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
_VENV = os.path.join(_ROOT, ".venv")
_PYTHON = os.path.join(_VENV, "bin", "python")
if os.path.exists(_PYTHON) and os.path.realpath(sys.prefix) != os.path.realpath(_VENV):
    os.execv(_PYTHON, [_PYTHON, *sys.argv])
sys.path.insert(1, os.path.join(_ROOT, "python"))  # after the script's own folder
if importlib.util.find_spec("caffe") is None:
    sys.exit(f"{os.path.basename(sys.argv[0])}: error: this checkout is not set up: run tools/setup.sh first")
