"""Lets a script run under any Python: it goes on in the checkout's .venv when this one lacks the package.

And Ctrl-C is one line while the script still loads what it needs; then `cli.run` sees to that.
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
if importlib.util.find_spec("tiny_imagenet") is None:
    root = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
    python = os.path.join(root, ".venv", "bin", "python")
    if not os.path.exists(python) or os.path.realpath(sys.prefix) == os.path.realpath(os.path.join(root, ".venv")):
        script = os.path.basename(sys.argv[0])
        sys.exit(f"{script}: error: the package tiny_imagenet is not installed: run tools/setup.sh first")
    os.execv(python, [python, *sys.argv])
