"""Facts that ranks which train together must have in common: code, options, prototxt and data."""

from __future__ import annotations

import dataclasses
import hashlib
import os
from collections.abc import Iterable
from pathlib import Path

import caffe
from caffe.proto import caffe_pb2

import tiny_imagenet
from tiny_imagenet.data import lmdb_reader
from tiny_imagenet.errors import DatasetError, RunError
from tiny_imagenet.training import jobs
from tiny_imagenet.training.options import Options, flag
from tiny_imagenet.training.ranks import Ranks

# Options that may differ between machines, or that only rank 0 uses.
_LOCAL = ("data", "run", "gpus", "quiet", "prototxt", "keep", "save_every", "timeout")


def check(ranks: Ranks, facts: dict[str, str]) -> None:
    """Check that all ranks have the same facts; facts that a rank lacks are not compared.

    Raises:
        RunError: in rank 0, a fact differs; the message names it and the ranks that differ from rank 0.
    """
    gathered = ranks.gather(facts)
    for name, value in facts.items() if gathered else ():
        different = [rank for rank, own in enumerate(gathered) if own.get(name, value) != value]
        if different:
            who = ", ".join(ranks.names[rank] for rank in different[:3]) + (", ..." if len(different) > 3 else "")
            raise RunError(
                f"{name} of {who} is {gathered[different[0]][name]}, different from {value} of {ranks.names[0]}: "
                "give all ranks the same files and the same command"
            )


def process_facts(source: str | None, options: Options) -> dict[str, str]:
    """Return the facts of this process: command, options, and digests of the code and of the model's files.

    Files that are missing on this machine are left out, since rank 0 broadcasts its own.
    """
    package = Path(tiny_imagenet.__file__).parent
    given = {name: value for name, value in dataclasses.asdict(options).items() if name not in _LOCAL}
    return {
        "model or solver": str(source),
        **{flag(name): str(value) for name, value in given.items()},
        "tiny_imagenet": f"{tiny_imagenet.__version__}, {_of_files(package, package.rglob('*.py'))}",
        "Caffe": f"{caffe.__version__}, {_digest(caffe_pb2.DESCRIPTOR.serialized_pb, *caffe.layer_type_list())}",
        **_of_sources(package.parent.parent / "caffe_layers"),
        **_of_prototxt(source, options.prototxt),
    }


def data_facts(folder: Path) -> dict[str, str]:
    """Return the facts of a data folder: digests of its records, by the manifest, and of its mean image.

    Raises:
        DatasetError: it is missing or incomplete.
    """
    manifest = lmdb_reader.read_manifest(folder)
    for name, about in manifest["lmdbs"].items():
        path = folder / f"{name}.lmdb"
        if path.is_dir() and (count := lmdb_reader.count(path)) != about["count"]:  # the test split may be missing
            raise DatasetError(f"{path} has {count} records, but its manifest {about['count']}: copy it again")
    records = {name: sorted(about.items()) for name, about in manifest["lmdbs"].items()}
    wnids = [entry["wnid"] for entry in manifest["classes"]]
    mean = folder / manifest["mean"]
    try:
        digest = _digest(mean.read_bytes())
    except OSError as error:
        raise DatasetError(f"cannot read {mean}: {error.strerror or error}: copy it again") from error
    return {"data set": f"records {_digest(str(sorted(records.items())), str(wnids))}", "mean image": digest}


def _digest(*parts: str | bytes) -> str:
    sha = hashlib.sha256()
    for part in parts:
        data = part if isinstance(part, bytes) else part.encode()
        sha.update(len(data).to_bytes(8, "little") + data)
    return f"sha256 {sha.hexdigest()[:12]}"


def _of_files(folder: Path, files: Iterable[Path]) -> str:
    parts = [(str(file.relative_to(folder)), file.read_bytes()) for file in sorted(files)]
    return _digest(*(part for pair in parts for part in pair))


def _of_sources(folder: Path) -> dict[str, str]:
    """Digest of the layers' sources if the package is in a checkout: each machine may have compiled its own."""
    files = [file for file in folder.rglob("*") if file.suffix in (".cpp", ".hpp", ".cu", ".proto")]
    return {"caffe_layers": _of_files(folder, files)} if files else {}


def _of_prototxt(source: str | None, prototxt: Path) -> dict[str, str]:
    if source is None:
        return {}
    source = jobs.solver_in(source)
    is_file = source.endswith(".prototxt") or os.sep in source
    folder = Path(source).parent if is_file else prototxt / source
    return {str(file): _digest(file.read_bytes()) for file in sorted(folder.rglob("*.prototxt"))}
