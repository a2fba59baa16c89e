"""Provenance of a run: versions, commit and machine."""

from __future__ import annotations

import os
import platform
import subprocess
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import caffe
import numpy as np

import tiny_imagenet


def made_by(checkout: Path) -> dict[str, Any]:
    """Return the part of run.json about versions, the commit of `checkout`, the machine and the time."""
    return {
        "versions": {
            "python": platform.python_version(),
            "numpy": np.__version__,
            "caffe": caffe.__version__,
            "tiny_imagenet": tiny_imagenet.__version__,
        },
        "commit": _commit(checkout),
        "machine": {
            "name": platform.node(),
            "system": platform.platform(),
            "processor": platform.machine(),
            "cores": os.cpu_count(),
        },
        "started": datetime.now(timezone.utc).isoformat(timespec="seconds"),
    }


def _commit(folder: Path) -> str | None:
    command = ["git", "-C", str(folder), "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return os.environ.get("TINY_IMAGENET_COMMIT") or None  # a Docker image has neither git nor the history
