"""Fits a net and its solver to a data folder and a run: what is changed, and the words that say so.

The prototxt files stay as they are; only the parsed messages change, and each change is one printed line.
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
from tiny_imagenet.inspect import agreement, outline, solver_soundness
from tiny_imagenet.inspect.findings import NetFile
from tiny_imagenet.models import nets, prototxt, solvers


@dataclass
class Plan:
    """A net, its solver and the data they fit.

    Attributes:
        train_val, deploy, solver: the messages as a run uses them.
        data, manifest: the converted data folder and its manifest.
        path: the train_val file; the deploy file is beside it.
        train_images: records of the training LMDB.
        batch: images an iteration.
        changes: one line for each thing that is not as in the files.
    """

    train_val: caffe_pb2.NetParameter
    deploy: caffe_pb2.NetParameter
    solver: caffe_pb2.SolverParameter
    data: Path
    manifest: dict[str, Any]
    path: Path
    train_images: int = 0
    batch: int = 0
    changes: list[str] = field(default_factory=list)

    @property
    def epoch(self) -> int:
        """Iterations in which the net sees as many images as there are."""
        return math.ceil(self.train_images / self.batch)

    @property
    def classes(self) -> int:
        """Classes of the data set."""
        return len(self.manifest["classes"])

    @property
    def validation(self) -> Path:
        """The LMDB of the validation split."""
        return self.data / "val.lmdb"

    @property
    def mean(self) -> Path:
        """The data folder's mean image."""
        return self.data / self.manifest["mean"]


def load(
    solver: str | os.PathLike[str], data: str | os.PathLike[str], net: str | os.PathLike[str] | None = None
) -> Plan:
    """Read a solver, its net, the deploy net beside that and the data folder.

    Without `net` it is the one that the solver names; where that is looked for: `solvers.net_path`.

    Raises:
        NetError, DatasetError: one of them is missing or does not parse.
    """
    message = solvers.read(solver)
    lines = prototxt.parse(caffe_pb2.SolverParameter(), prototxt.read_text(solver), solver)
    wrong = [finding for finding in solver_soundness.learning(message, lines, Path(solver)) if finding.error]
    if wrong:
        raise NetError(f"{wrong[0].place}: {wrong[0].text}")
    path = Path(net) if net else solvers.net_path(message, solver)
    if path is None:
        raise NetError(f"{solver} has its net in itself: write that to a file beside it and name it, as in net: ...")
    deploy = path.with_name("deploy.prototxt")
    if not deploy.is_file():
        raise NetError(f"{deploy} is missing: training validates with the deploy net, put it beside {path.name}")
    return Plan(nets.read(path), nets.read(deploy), message, Path(data), lmdb_reader.read_manifest(data), path)


def fit_data(plan: Plan, batch: int | None = None) -> None:
    """Point the data layers at the data folder and set the training batch.

    Raises:
        NetError: there is no data layer for training, or its crop is not that of the deploy net.
        DatasetError: an LMDB is not in the folder, is empty, or has a record that does not fit the data set.
    """
    layers = [layer for layer in plan.train_val.layer if layer.type in nets.LMDB_TYPES]
    training = [layer for layer in layers if not any(rule.phase == caffe_pb2.TEST for rule in layer.include)]
    if len(training) != 1:
        kinds = " or ".join(nets.LMDB_TYPES)
        raise NetError(f"net {plan.train_val.name!r} needs one {kinds} layer for training, it has {len(training)}")
    for layer in layers:
        param = nets.data_param(layer)
        if not param.source or param.batch_size < 1:
            message = "crop_data_param" if layer.type == "CropData" else "data_param"
            raise NetError(
                f"{_phase(layer)} layer {layer.name!r} ({layer.type}) needs a source and a batch_size of at least 1 "
                f"in its {message}"
            )
        source = _lmdb(plan, Path(param.source).name)
        _change(plan, f"{_phase(layer)} data", param.source, str(source))
        param.source = str(source)
        transform = layer.transform_param
        if transform.scale != 1 or transform.mean_value or transform.force_gray or not transform.mean_file:
            raise NetError(
                f"layer {layer.name!r}: its transform_param must have a mean_file and no scale, mean_value or "
                "force_gray, which validation could not repeat (a Power layer scales in the net itself)"
            )
        _change(plan, f"{_phase(layer)} mean", transform.mean_file, str(plan.mean.resolve()))
        transform.mean_file = str(plan.mean.resolve())
    param = nets.data_param(training[0])
    side, deploy_side = training[0].transform_param.crop_size, nets.crop_size(plan.deploy)
    if side and side != deploy_side:
        raise NetError(f"training crops {side} pixels, the deploy net takes {deploy_side}: make the two the same")
    if batch:
        _change(plan, "training batch", param.batch_size, batch)
        param.batch_size = batch
    plan.batch = param.batch_size * max(1, plan.solver.iter_size)
    shape = datum.read_mean(plan.mean).shape
    plan.train_images = lmdb_reader.check(param.source, shape, plan.classes)
    if not plan.train_images:
        raise DatasetError(f"{param.source} has no records: there is nothing to train on")
    lmdb_reader.check(_lmdb(plan, "val.lmdb"), shape, plan.classes)


def check_shares(plan: Plan, names: Sequence[str], resumes: bool) -> None:
    """See that a batch can be split evenly between those that train together, of whom `names` has one each.

    Raises:
        NetError: it cannot; the message says what can: other batches, but where a run goes on, which keeps its own.
    """
    batch, count = plan.batch // max(1, plan.solver.iter_size), len(names)
    if batch % count:
        below = batch // count * count
        nearest = " and ".join(f"{size}" for size in (below, below + count) if size)
        fitting = ", ".join(str(n) for n in range(1, 17) if batch % n == 0)
        others = "" if resumes else f"the nearest that do are {nearest} (--batch); "
        raise NetError(
            f"a batch of {batch} images does not split evenly between {', '.join(names)}: {others}{batch} splits "
            f"between {fitting} of them"
        )


def _lmdb(plan: Plan, name: str) -> Path:
    path = plan.data / name
    if not (path / "data.mdb").is_file():
        there = ", ".join(sorted(plan.manifest["lmdbs"]))
        raise DatasetError(
            f"{name} is not in {plan.data}, which should have {there}: name one of them or convert again"
        )
    return path.resolve()


def fit_classes(plan: Plan, adapt: bool) -> None:
    """Give the nets as many outputs as the data set has classes, where `adapt`; else only check that they have.

    Raises:
        NetError: the outputs do not fit and may not be changed.
    """
    deploy = plan.path.with_name("deploy.prototxt")
    for form, net, path in (("train_val", plan.train_val, plan.path), ("deploy", plan.deploy, deploy)):
        outputs = nets.outputs(net)
        if outputs != plan.classes and not adapt:
            raise NetError(
                f"{path}: the net has {outputs} outputs, the data set {plan.classes} classes: set num_output of layer "
                f"{nets.classifier(net).name!r} to {plan.classes}, in {plan.path.name} and {deploy.name} alike"
            )
        if outputs != plan.classes:
            if form == "train_val":
                _change(plan, f"outputs of {nets.classifier(net).name}", outputs, plan.classes)
            nets.set_outputs(net, plan.classes)
    for layer in list(plan.train_val.layer):
        if layer.type == "Accuracy" and layer.accuracy_param.top_k > plan.classes:
            _change(plan, f"layer {layer.name}", f"top {layer.accuracy_param.top_k}", "left out")
            plan.train_val.layer.remove(layer)


def fit_solver(
    plan: Plan, folder: Path, seed: int, max_iter: int | None, base_lr: float | None, gpus: Sequence[int] = ()
) -> None:
    """Set what belongs to the run: the net's place, seed, length, rate; tests and snapshots are the loop's own.

    Args:
        plan: what to change.
        folder: the run folder, where train_val.prototxt is going to be.
        seed: of the weights, and of the data layer where its file names none.
        max_iter: iterations to train, None for the solver's own.
        base_lr: the rate to begin with, None for the solver's own.
        gpus: the GPUs that are going to train; none for the CPU.
    """
    solver = plan.solver
    solver.net = str((folder / "train_val.prototxt").resolve())
    solver.random_seed = seed
    for layer in plan.train_val.layer:
        if layer.type == "CropData" and not layer.crop_data_param.HasField("seed"):
            _change(plan, f"{_phase(layer)} seed", "none", seed)
            layer.crop_data_param.seed = seed
    for name, value in (("max_iter", max_iter), ("base_lr", base_lr)):
        if value is not None:
            _change(plan, name, f"{getattr(solver, name):g}", f"{value:g}")
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


def _phase(layer: caffe_pb2.LayerParameter) -> str:
    return "validation" if any(rule.phase == caffe_pb2.TEST for rule in layer.include) else "training"


def _change(plan: Plan, what: str, old: object, new: object) -> None:
    if str(old) != str(new):
        plan.changes.append(f"{what}: {new} (the file says {old})")


def check_deploy(plan: Plan) -> None:
    """See that weights mean in the deploy net, which validates, what they mean in the net that learns them.

    A net that does not build at all is left to Caffe, which says why.

    Raises:
        NetError: they do not; the message says where.
    """
    path = plan.path.with_name("deploy.prototxt")
    try:
        deploy = outline.outline(plan.deploy, "TEST")
        train = next(
            (net for net in (outline.outline(plan.train_val, p) for p in ("TEST", "TRAIN")) if net.whole), None
        )
    except NetError:
        return
    if train is None or not deploy.whole:
        return
    found = agreement.deployed(train, deploy, NetFile(path, plan.deploy, {}))
    errors = [finding for finding in found if finding.error]
    if errors:
        raise NetError(
            f"{path} is not the net of {plan.path.name}: {errors[0].text} (tools/describe.py --check says where)"
        )


def describe_data(plan: Plan) -> str:
    """The data set in one line."""
    shape = datum.read_mean(plan.mean).shape
    return f"{plan.train_images} training images of {plan.classes} classes, {shape[2]}x{shape[1]} pixels"
