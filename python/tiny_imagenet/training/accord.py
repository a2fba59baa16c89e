"""What processes that train together must have in common, and what is said where they have not."""

from __future__ import annotations

import dataclasses
import hashlib
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import caffe
from caffe.proto import caffe_pb2

import tiny_imagenet
from tiny_imagenet.data import lmdb_reader
from tiny_imagenet.errors import DatasetError, RunError
from tiny_imagenet.training.jobs import Options

# Options that may differ from machine to machine, or that rank 0 alone heeds.
_OWN = ("data", "run", "gpus", "quiet", "prototxt", "keep", "save_every", "answer_within")
_SHOWN = 12  # characters of a digest
_NAMED = 3  # ranks that one message names


def of_this_process(source: str | None, options: Options) -> dict[str, str]:
    """What must be the same in all ranks: what it is called, and a text that tells it from another.

    A file of the model or solver that is not on this machine is left out, since rank 0 sends what it trains.
    """
    package = Path(tiny_imagenet.__file__).parent
    given = {name: value for name, value in dataclasses.asdict(options).items() if name not in _OWN}
    return {
        "model or solver": str(source),
        **{f"--{name.replace('_', '-')}": str(value) for name, value in given.items()},
        "tiny_imagenet": f"{tiny_imagenet.__version__}, {_of_files(package, package.rglob('*.py'))}",
        "Caffe": f"{caffe.__version__}, {_digest(caffe_pb2.DESCRIPTOR.serialized_pb, *caffe.layer_type_list())}",
        **_of_sources(package.parent.parent / "caffe_layers"),
        **_of_prototxt(source, options.prototxt),
    }


def of_data(folder: Path) -> dict[str, str]:
    """As `of_this_process`, of a data folder: its records by the manifest, and its mean.

    Raises:
        DatasetError: it is missing or not whole.
    """
    manifest = lmdb_reader.read_manifest(folder)
    for name, about in manifest["lmdbs"].items():
        path = folder / f"{name}.lmdb"
        if path.is_dir() and (count := lmdb_reader.count(path)) != about["count"]:  # the test split may be elsewhere
            raise DatasetError(f"{path} has {count} records, its manifest says {about['count']}: copy it again")
    records = {name: sorted(about.items()) for name, about in manifest["lmdbs"].items()}
    wnids = [entry["wnid"] for entry in manifest["classes"]]
    try:
        mean = (folder / manifest["mean"]).read_bytes()
    except OSError as error:
        raise DatasetError(
            f"cannot read {folder / manifest['mean']}: {error.strerror or error}: copy it again"
        ) from error
    return {"data set": f"records {_digest(str(sorted(records.items())), str(wnids))}", "mean image": _digest(mean)}


def check(names: Sequence[str], given: Sequence[dict[str, str]]) -> None:
    """See that what the ranks have is the same, where they have it at all.

    Args:
        names: of the ranks.
        given: what each has, as `of_this_process`.

    Raises:
        RunError: it is not; the message says in what, and which ranks differ from rank 0.
    """
    for what, of_rank_0 in given[0].items():
        others = [rank for rank, own in enumerate(given) if own.get(what, of_rank_0) != of_rank_0]
        if others:
            who = ", ".join(names[rank] for rank in others[:_NAMED])
            if len(others) > _NAMED:
                who += f" and {len(others) - _NAMED} more"
            has = "has" if len(others) == 1 else "have"
            raise RunError(
                f"{who} {has} another {what} than {names[0]} ({given[others[0]][what]}, not {of_rank_0}): "
                "all must train the same, so give all of them the same files and the same command"
            )


def _digest(*parts: str | bytes) -> str:
    sha = hashlib.sha256()
    for part in parts:
        data = part if isinstance(part, bytes) else part.encode()
        sha.update(len(data).to_bytes(8, "little") + data)
    return f"sha256 {sha.hexdigest()[:_SHOWN]}"


def _of_files(folder: Path, files: Any) -> str:
    parts = [(str(file.relative_to(folder)), file.read_bytes()) for file in sorted(files)]
    return _digest(*(part for pair in parts for part in pair))


def _of_sources(folder: Path) -> dict[str, str]:
    """Of the layers' sources, where the package is in a checkout: each machine may have compiled them itself."""
    files = [file for file in folder.rglob("*") if file.suffix in (".cpp", ".hpp", ".cu", ".proto")]
    return {"caffe_layers": _of_files(folder, files)} if files else {}


def _of_prototxt(source: str | None, prototxt: Path) -> dict[str, str]:
    if source is None:
        return {}
    is_file = source.endswith(".prototxt") or os.sep in source
    folder = Path(source).parent if is_file else prototxt / source
    return {str(file): _digest(file.read_bytes()) for file in sorted(folder.rglob("*.prototxt"))}
