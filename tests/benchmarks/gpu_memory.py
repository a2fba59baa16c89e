"""Peak of the memory in use on a GPU, by all programs together, as nvidia-smi reports it."""

from __future__ import annotations

import subprocess

_QUERY = ["nvidia-smi", "--query-gpu=name,memory.used", "--format=csv,noheader,nounits"]
_INTERVAL = 20  # milliseconds between two readings


def name(number: int) -> str | None:
    """Return the GPU's name; None if nvidia-smi does not know the GPU or is missing."""
    try:
        done = subprocess.run([*_QUERY, f"--id={number}"], capture_output=True, text=True)
    except OSError:
        return None
    return done.stdout.rpartition(",")[0] or None if done.returncode == 0 else None


class Peak:
    """A context manager that measures by how many bytes the memory in use grows.

    Attributes:
        bytes: the largest growth; set at the end.
    """

    def __init__(self, number: int):
        self._command = [*_QUERY, f"--id={number}", f"--loop-ms={_INTERVAL}"]

    def __enter__(self) -> Peak:
        self._process = subprocess.Popen(self._command, stdout=subprocess.PIPE, text=True)
        self._before = self._process.stdout.readline()  # the block starts after the first reading
        return self

    def __exit__(self, *_: object) -> None:
        self._process.terminate()
        lines = [self._before, *self._process.communicate()[0].splitlines()]
        used = [int(line.rpartition(",")[2]) for line in lines if line.rpartition(",")[2].strip().isdecimal()]
        self.bytes = (max(used) - used[0]) << 20 if used else 0
