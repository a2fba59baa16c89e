"""A net and its solver, fitted to a data set and a run.

The prototxt files stay as they are: only the parsed messages change, and each change is a line that is printed.
"""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from caffe.proto import caffe_pb2

from tiny_imagenet.data import datum, lmdb_reader
from tiny_imagenet.errors import DatasetError, NetError
from tiny_imagenet.inspect import solver_lint
from tiny_imagenet.models import nets, prototxt, solvers


@dataclass
class Plan:
    """A net, its solver and its data.

    Attributes:
        net, solver: the messages as the run uses them.
        path: the net's train_val.prototxt.
        data, manifest: the converted data folder and its manifest.
        train_images: records of the training LMDB.
        batch: images per iteration.
        changes: differences from the files, one line each.
    """

    net: caffe_pb2.NetParameter
    solver: caffe_pb2.SolverParameter
    path: Path
    data: Path
    manifest: dict[str, Any]
    train_images: int = 0
    batch: int = 0
    changes: list[str] = field(default_factory=list)

    @property
    def epoch(self) -> int:
        """Iterations per epoch."""
        return math.ceil(self.train_images / self.batch)

    @property
    def classes(self) -> int:
        """Classes of the data set."""
        return len(self.manifest["classes"])

    @property
    def mean(self) -> Path:
        """The mean image of the data set."""
        return self.data / self.manifest["mean"]

    def describe_data(self) -> str:
        """The data set in one line."""
        _, height, width = datum.read_mean(self.mean).shape
        return f"{self.train_images} training images of {self.classes} classes, {width}x{height} pixels"

    def change(self, name: str, old: object, new: object) -> None:
        """Note a value that is different from the file's."""
        if str(old) != str(new):
            self.changes.append(f"{name}: {new} (the file has {old})")


def read(
    solver: str | os.PathLike[str], data: str | os.PathLike[str], net: str | os.PathLike[str] | None = None
) -> Plan:
    """Read a solver, its net and the manifest of a data folder.

    Args:
        solver: solver prototxt.
        data: converted data folder.
        net: train_val prototxt; None for the one named by the solver (`solvers.net_path`).

    Raises:
        NetError, DatasetError: a file is missing or invalid.
    """
    message = solvers.read(solver)
    lines = prototxt.parse(caffe_pb2.SolverParameter(), prototxt.read_text(solver), solver)
    for finding in solver_lint.learning(message, lines, Path(solver)):
        if finding.is_error:
            raise NetError(f"{finding.place}: {finding.text}")
    path = Path(net) if net else solvers.net_path(message, solver)
    if path is None:
        raise NetError(
            f'{solver} contains its net: write the net to a file and name it, as in net: "train_val.prototxt"'
        )
    return Plan(nets.read(path), message, path, Path(data), lmdb_reader.read_manifest(data))


def fit_data(plan: Plan, batch: int | None = None) -> None:
    """Let the data layers read the data folder, and set the training batch.

    Raises:
        NetError: the net does not have exactly one LMDB layer for training, or a layer lacks its source or batch_size.
        DatasetError: an LMDB is missing or empty, or one of its records does not fit the data set.
    """
    layers = nets.lmdb_layers(plan.net)
    training = [layer for layer in layers if nets.is_training(layer)]
    if len(training) != 1:
        kinds = " or ".join(nets.LMDB_TYPES)
        raise NetError(f"{plan.path}: expected one {kinds} layer for training, got {len(training)}")
    for layer in layers:
        param, phase = nets.data_param(layer), _phase(layer)
        if not param.source or param.batch_size < 1:
            message = "crop_data_param" if layer.type == "CropData" else "data_param"
            raise NetError(
                f"{plan.path}: layer {layer.name!r} needs a source and a batch_size of 1 or more in {message}"
            )
        source = str(_lmdb(plan, Path(param.source).name))
        plan.change(f"{phase} data", param.source, source)
        param.source = source
        if layer.transform_param.mean_file:
            plan.change(f"{phase} mean", layer.transform_param.mean_file, plan.mean.resolve())
            layer.transform_param.mean_file = str(plan.mean.resolve())
    param = nets.data_param(training[0])
    if batch:
        plan.change("training batch", param.batch_size, batch)
        param.batch_size = batch
    plan.batch = param.batch_size * max(1, plan.solver.iter_size)
    shape = datum.read_mean(plan.mean).shape
    lmdbs = (param.source, validation_lmdb(plan.net, plan.data))
    counts = lmdb_reader.check_all([(path, plan.classes) for path in lmdbs], shape)
    plan.train_images = counts[0]
    if not plan.train_images:
        raise DatasetError(f"{param.source} has no records: convert a data set that has training images")


def validation_lmdb(net: caffe_pb2.NetParameter, data: Path) -> Path:
    """The LMDB in a data folder that a net's TEST-phase data layer names; val.lmdb if it has none."""
    tests = [layer for layer in nets.lmdb_layers(net) if not nets.is_training(layer)]
    return data / (Path(nets.data_param(tests[0]).source).name if tests else "val.lmdb")


def _phase(layer: caffe_pb2.LayerParameter) -> str:
    return "training" if nets.is_training(layer) else "validation"


def _lmdb(plan: Plan, name: str) -> Path:
    path = plan.data / name
    if not (path / "data.mdb").is_file():
        known = ", ".join(sorted(plan.manifest["lmdbs"]))
        raise DatasetError(f"{path} is missing: name one of {known} in {plan.path}, or convert the data set again")
    return path.resolve()


def fit_classes(plan: Plan, adapt: bool) -> None:
    """Give the net as many outputs as the data set has classes if `adapt`, else check that it has.

    Raises:
        NetError: the number of outputs is different and must not be changed.
    """
    outputs, layer = nets.outputs(plan.net), nets.classifier(plan.net).name
    if outputs != plan.classes and not adapt:
        raise NetError(
            f"{plan.path}: the net has {outputs} outputs, but the data has {plan.classes} classes: set num_output of "
            f"layer {layer!r} to {plan.classes}"
        )
    if outputs != plan.classes:
        plan.change(f"outputs of {layer}", outputs, plan.classes)
        nets.set_outputs(plan.net, plan.classes)
    for layer in list(plan.net.layer):
        if layer.type == "Accuracy" and layer.accuracy_param.top_k > plan.classes:
            plan.change(f"layer {layer.name}", f"top {layer.accuracy_param.top_k}", "removed")
            plan.net.layer.remove(layer)


def fit_solver(plan: Plan, seed: int, max_iter: int | None, base_lr: float | None, gpus: Sequence[int] = ()) -> None:
    """Set what belongs to the run: seed, length, rate and device; tests and snapshots are the loop's.

    Args:
        plan: the plan to change.
        seed: of the weights, and of data layers whose file has no seed.
        max_iter: iterations to train; None for the solver's own.
        base_lr: initial rate; None for the solver's own.
        gpus: numbers of the GPUs that train; empty for the CPU.
    """
    solver = plan.solver
    solver.net = "train_val.prototxt"
    solver.random_seed = seed
    for layer in plan.net.layer:
        if layer.type == "CropData" and not layer.crop_data_param.HasField("seed"):
            plan.change(f"{_phase(layer)} seed", "none", seed)
            layer.crop_data_param.seed = seed
    for name, value in (("max_iter", max_iter), ("base_lr", base_lr)):
        if value is not None:
            plan.change(name, f"{getattr(solver, name):g}", f"{value:g}")
            setattr(solver, name, value)
    for name in ("train_net", "train_net_param", "net_param", "test_net", "test_net_param", "test_state"):
        solver.ClearField(name)
    for name in ("test_iter", "test_interval", "test_initialization", "display", "snapshot", "snapshot_prefix"):
        solver.ClearField(name)
    solver.snapshot_after_train = False
    solver.snapshot_format = caffe_pb2.SolverParameter.BINARYPROTO
    solver.solver_mode = caffe_pb2.SolverParameter.GPU if gpus else caffe_pb2.SolverParameter.CPU
    solver.ClearField("device_id")
    if gpus:
        solver.device_id = gpus[0]


def check_shares(plan: Plan, names: Sequence[str], resumes: bool) -> None:
    """Check that a batch can be divided evenly between the ranks `names`.

    Raises:
        NetError: it cannot; the message names batches that can, or numbers of ranks if the run resumes.
    """
    batch, count = plan.batch // max(1, plan.solver.iter_size), len(names)
    if batch % count:
        below = batch // count * count
        nearest = " or ".join(f"{size}" for size in (below, below + count) if size)
        fitting = ", ".join(str(n) for n in range(1, 17) if batch % n == 0)
        advice = "" if resumes else f"use --batch {nearest}, or "
        raise NetError(f"{len(names)} ranks cannot share a batch of {batch} images evenly: {advice}{fitting} ranks")
