"""Lets a script run under any Python: it goes on in the checkout's .venv when this one lacks the package."""

import importlib.util
import os
import sys

if importlib.util.find_spec("tiny_imagenet") is None:
    root = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
    python = os.path.join(root, ".venv", "bin", "python")
    if not os.path.exists(python) or os.path.realpath(sys.prefix) == os.path.realpath(os.path.join(root, ".venv")):
        script = os.path.basename(sys.argv[0])
        sys.exit(f"{script}: error: the package tiny_imagenet is not installed: run tools/setup.sh first")
    os.execv(python, [python, *sys.argv])
