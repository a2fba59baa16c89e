"""Where steps are done or images decoded on other machines: the scheduler that people name."""

from __future__ import annotations

import argparse
import importlib.util
import re

from tiny_imagenet import cli
from tiny_imagenet.errors import ClusterError

_KINDS = ("local", "slurm")
_MOST = 256  # workers of this machine
_ADDRESS = re.compile(r"(?:(tcp|tls)://)?(\[[0-9A-Fa-f:.]+\]|[^\s:/\[\]]+):([0-9]{1,5})")


def add_scheduler(parser: argparse.ArgumentParser, what: str) -> None:
    """Add --scheduler (`scheduler`, None or as of `scheduler`); `what` says what it does."""
    needs = f"{what}; needs tools/setup.sh --cluster"
    parser.add_argument("--scheduler", type=scheduler, metavar="ADDRESS|local|slurm", help=needs)


def scheduler(text: str) -> str:
    """An argparse type: "local", "slurm", or the address of a Dask scheduler with its protocol."""
    if text in _KINDS:
        return text
    found = _ADDRESS.fullmatch(text)
    if not found or not 0 < int(found[3]) < 65536:
        raise argparse.ArgumentTypeError(
            f"{text!r} is neither the address of a Dask scheduler, such as tcp://head:8786, nor local nor slurm"
        )
    return text if found[1] else f"tcp://{text}"


def check_arguments(parser: cli.Parser, scheduler: str | None, workers: int | None) -> None:
    """End with an error of use where --workers does not go with --scheduler.

    Raises:
        ClusterError: a package for clusters is missing.
    """
    if scheduler is None:
        return
    if workers is not None and scheduler not in _KINDS:
        parser.error(f"--workers says how many to start, and those of {scheduler} are there already")
    if scheduler == "local" and workers is not None and workers > _MOST:
        parser.error(f"--workers is {workers}: at most {_MOST} are started on one machine")
    for name in ("distributed", *(["dask_jobqueue"] if scheduler == "slurm" else [])):
        if importlib.util.find_spec(name) is None:
            raise ClusterError(
                f"--scheduler {scheduler} needs the package {name.replace('_', '-')}, which is not installed: "
                "tools/setup.sh --cluster installs it (or: pip install .[cluster])"
            )
