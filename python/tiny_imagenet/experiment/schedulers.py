"""The flags --scheduler and --workers; loads nothing of Dask."""

from __future__ import annotations

import argparse
import importlib.util
import re

from tiny_imagenet import cli
from tiny_imagenet.errors import ClusterError

_KINDS = ("local", "slurm")
_ADDRESS = re.compile(r"(?:(tcp|tls)://)?(\[[0-9A-Fa-f:.]+\]|[^\s:/\[\]]+):([0-9]{1,5})")


def add_scheduler(parser: argparse.ArgumentParser, what: str) -> None:
    """Add --scheduler, described by `what`; None by default."""
    needs = f"{what}; needs tools/setup.sh --cluster"
    parser.add_argument("--scheduler", type=scheduler, metavar="ADDRESS|local|slurm", help=needs)


def scheduler(text: str) -> str:
    """An argparse type: "local", "slurm" or the address of a Dask scheduler, returned with its protocol."""
    if text in _KINDS:
        return text
    found = _ADDRESS.fullmatch(text)
    if not found or not 0 < int(found[3]) < 65536:
        raise argparse.ArgumentTypeError(
            f"expected local, slurm or the address of a Dask scheduler such as tcp://head:8786, got {text!r}"
            + cli.did_you_mean(text, _KINDS)
        )
    return text if found[1] else f"tcp://{text}"


def check_arguments(parser: cli.Parser, scheduler: str | None, workers: int | None) -> None:
    """Check --scheduler and --workers.

    Raises:
        ClusterError: a package for clusters is missing.
    """
    if scheduler is None:
        return
    if workers is not None and scheduler not in _KINDS:
        parser.error(f"--workers is the number to start with --scheduler local or slurm, not with {scheduler}")
    for name in ("distributed", *(["dask_jobqueue"] if scheduler == "slurm" else [])):
        if importlib.util.find_spec(name) is None:
            raise ClusterError(
                f"--scheduler {scheduler} needs the package {name.replace('_', '-')}: install it with "
                "tools/setup.sh --cluster (or: pip install .[cluster])"
            )
