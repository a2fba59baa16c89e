"""Upstream's programs for data sets, built on request, for comparisons."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PROGRAMS = ("convert_imageset_stock", "compute_image_mean_stock")
QUIET = {**os.environ, "GLOG_minloglevel": "2"}


def build() -> tuple[Path, Path]:
    """Return convert_imageset and compute_image_mean; builds them in build/ if they are missing (two minutes)."""
    folder = ROOT / "build"
    command = ["cmake", "--build", str(folder), "--target", *PROGRAMS]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"{' '.join(command)} failed (tools/setup.sh creates build/):\n{done.stdout[-2000:]}")
    convert, mean = (folder / name for name in PROGRAMS)
    return convert, mean


def write_list(path: Path, root: Path, records: list[tuple[str, int]]) -> None:
    """Write a list of images for convert_imageset: paths relative to `root`, and labels."""
    path.write_text("".join(f"{os.path.relpath(name, root)} {label}\n" for name, label in records))


def convert_imageset(program: Path, root: Path, images: Path, out: Path, *flags: str) -> None:
    """Write the LMDB `out` from the list `images`."""
    subprocess.run([program, *flags, "--backend=lmdb", f"{root}/", images, out], check=True, env=QUIET)
