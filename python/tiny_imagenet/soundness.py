"""Whether a prototxt that was edited by hand is sound, with the line of each finding."""

from __future__ import annotations

import dataclasses
import os
import re
from pathlib import Path

import caffe
from caffe import _caffe
from caffe.proto import caffe_pb2

from tiny_imagenet import describe, net_diff, outline, prototxt, solvers
from tiny_imagenet.errors import NetError
from tiny_imagenet.outline import Outline

# The parameters that a type reads, where they are not those of its own name (InnerProduct: inner_product_param).
_READS = {
    "BatchNorm": {"batch_norm_param"},
    "CropData": {"crop_data_param", "transform_param"},
    "Data": {"data_param", "transform_param"},
    "Deconvolution": {"convolution_param"},
    "HDF5Data": {"hdf5_data_param"},
    "HDF5Output": {"hdf5_output_param"},
    "Im2col": {"convolution_param"},
    "ImageData": {"image_data_param", "transform_param"},
    "InfogainLoss": {"infogain_loss_param", "softmax_param"},
    "LReLU": {"relu_param"},
    "LSTM": {"recurrent_param"},
    "MemoryData": {"memory_data_param", "transform_param"},
    "RNN": {"recurrent_param"},
    "SoftmaxWithLoss": {"softmax_param"},
    "WindowData": {"window_data_param", "transform_param"},
    "MultinomialLogisticLoss": set(),
    "EuclideanLoss": set(),
    "SigmoidCrossEntropyLoss": set(),
}
_NEEDS = {"step": ("gamma", "stepsize"), "multistep": ("gamma", "stepvalue"), "exp": ("gamma",)}
_NEEDS |= {"inv": ("gamma", "power"), "sigmoid": ("gamma", "stepsize"), "poly": ("power",), "fixed": ()}
_WEIGHTS = {"Convolution": "convolution_param", "InnerProduct": "inner_product_param"}


@dataclasses.dataclass(frozen=True)
class Finding:
    """Something that is wrong (an error) or that is probably not meant (a warning).

    Attributes:
        path: the file.
        line: from 1; 0 where it concerns the file as a whole.
        text: what, and where it helps what to do.
        error: whether training or testing with the file must fail.
    """

    path: str
    line: int
    text: str
    error: bool = True

    def __str__(self) -> str:
        place = f"{self.path}:{self.line}" if self.line else self.path
        return f"{place}: {'error' if self.error else 'warning'}: {self.text}"


def check(path: str | os.PathLike[str], inputs=None) -> list[Finding]:
    """Everything found in a net's or a solver's prototxt, and in the files that belong to it.

    A solver brings its net; train_val.prototxt and deploy.prototxt in one folder bring each other.

    Args:
        path: the prototxt.
        inputs: shapes of blobs, by name, that cannot be told from the file (a data set that is not here).

    Raises:
        NetError: the file cannot be opened.
    """
    path = Path(path)
    text = prototxt.read_text(path)
    findings = _solver(path, text, inputs) if describe.is_solver(text) else _net_and_partner(path, inputs)
    return sorted(set(findings), key=lambda f: (f.path != str(path), f.path, f.line, not f.error))


def _solver(path: Path, text: str, inputs) -> list[Finding]:
    solver = caffe_pb2.SolverParameter()
    try:
        lines = prototxt.parse(solver, text, path)
    except NetError as error:
        return [_unparsed(path, error)]
    found = []

    def add(field, what, error=True):
        found.append(Finding(str(path), lines.get(field, lines.get(f"{field}[0]", 0)), what, error))

    if not 0 < solver.base_lr < float("inf"):
        add("base_lr", f"base_lr is {solver.base_lr:g}: it must be above 0")
    if not 0 <= solver.momentum < 1:
        add("momentum", f"momentum is {solver.momentum:g}: it must be at least 0 and below 1")
    if solver.weight_decay < 0:
        add("weight_decay", f"weight_decay is {solver.weight_decay:g}: below 0 it makes weights grow", False)
    if solver.max_iter < 1:
        add("max_iter", f"max_iter is {solver.max_iter}: nothing is trained")
    if solver.lr_policy not in _NEEDS:
        add("lr_policy", f'lr_policy is "{solver.lr_policy}": it must be one of {", ".join(_NEEDS)}')
    for field in _NEEDS.get(solver.lr_policy, ()):
        if not getattr(solver, field):
            add("lr_policy", f'lr_policy "{solver.lr_policy}" needs {field}')
    if solver.type not in describe.HISTORY:
        add("type", f'type is "{solver.type}": it must be one of {", ".join(describe.HISTORY)}')
    try:
        file = solvers.net_path(solver, path)
    except NetError as error:
        add("net", str(error).split(" ", 1)[1])
        return found
    if file is None:
        return found
    found += _net_and_partner(file, inputs)
    if any(f.error for f in found):
        return found
    net = prototxt.read(caffe_pb2.NetParameter(), file)
    tests = bool(solver.test_net or solver.test_net_param) or "Accuracy" in {
        la.type for la in _caffe._inspect.upgrade(net).layer
    }
    if solver.test_interval and not solver.test_iter:
        add("test_interval", "test_interval without test_iter: say how many batches a test has")
    if solver.test_iter and not tests:
        add("test_iter", "the net has nothing that is tested (no Accuracy layer)", False)
    return found


def _unparsed(path: Path, error: NetError) -> Finding:
    match = re.match(rf"{re.escape(str(path))}:(\d+):\d+: (.*)", str(error))
    return Finding(str(path), int(match[1]) if match else 0, match[2] if match else str(error))


def _net_and_partner(path: Path, inputs) -> list[Finding]:
    found, nets, places = _net(path, inputs)
    partner = {"train_val.prototxt": "deploy.prototxt", "deploy.prototxt": "train_val.prototxt"}.get(path.name)
    if partner is None or not (path.parent / partner).is_file() or not nets:
        return found
    more, others, their_places = _net(path.parent / partner, inputs)
    found += more
    if others and not any(f.error for f in found):
        if path.name == "train_val.prototxt":
            nets, others, places = others, nets, their_places
        found += _agree(others, nets, path.parent / "deploy.prototxt", places)
    return found


def _net(path: Path, inputs) -> tuple[list[Finding], list[Outline], _Places | None]:
    """The findings in one file, its nets, one a phase, and where their layers stand in it."""
    net, text = caffe_pb2.NetParameter(), prototxt.read_text(path)
    try:
        lines = prototxt.parse(net, text, path)
    except NetError as error:
        return [_unparsed(path, error)], [], None
    if not net.layer and not net.layers:
        return [Finding(str(path), 0, "there are no layers in it")], [], None
    places = _Places(net, lines)
    found: list[Finding] = []
    outlines = []
    first = outline.default_phase(net)
    for phase, stages in _states(net, first):
        try:
            made = outline.outline(net, phase, stages, inputs=inputs)
        except NetError as error:
            named = re.search(r"layer '?([^' ]+)'?", str(error))
            found.append(Finding(str(path), places.layer(named[1]) if named else 0, str(error)))
            continue
        outlines.append(made)
        found += _problems(made, path, places)
    found += _not_read(net, path, places)
    if first == "TRAIN" and outlines:
        found += _unfilled(outlines[0], path, places)
    return found, outlines, places


def _states(net, first: str) -> list[tuple[str, list[str]]]:
    """The phases, and where rules name stages each of them: a net may have a data layer for one stage alone."""
    states = []
    for phase in (first, "TEST") if first == "TRAIN" else (first,):
        rules = [rule for la in (*net.layer, *net.layers) for rule in la.include]
        rules = [rule for rule in rules if not rule.HasField("phase") or caffe_pb2.Phase.Name(rule.phase) == phase]
        stages = sorted({stage for rule in rules for stage in rule.stage})
        states += [(phase, [stage]) for stage in stages] or [(phase, [])]
    return states


class _Places:
    """Lines of layers and of their fields."""

    def __init__(self, net, lines):
        self.lines = lines
        self.names: dict[str, list[str]] = {}
        for field in ("layer", "layers"):
            for i, layer in enumerate(getattr(net, field)):
                name = layer.layer.name if field == "layers" and layer.HasField("layer") else layer.name
                self.names.setdefault(name, []).append(f"{field}[{i}]")

    def layer(self, name: str, field: str = "", index: int = 0) -> int:
        """The line of a field of the layer, else that where the layer begins; 0 where there is no such layer."""
        paths = self.names.get(name, [])
        path = paths[min(index, len(paths) - 1)] if paths else ""
        return self.lines.get(f"{path}.{field}", self.lines.get(path, 0))


def _problems(made: Outline, path: Path, places: _Places) -> list[Finding]:
    found = []
    for layer in made.layers:
        if not layer.problem:
            continue
        missing = re.search(r"no blob '([^']*)'", layer.problem)
        field = "type" if "layer type" in layer.problem else ""
        if missing and missing[1] in layer.bottoms:
            field = f"bottom[{layer.bottoms.index(missing[1])}]"
        data = layer.type in (*outline.DATA_TYPES, "Python")
        text = f"layer {layer.name} ({layer.type}): {layer.problem}"
        found.append(Finding(str(path), places.layer(layer.name, field), text, error=not data))
    return found


def _not_read(net, path: Path, places: _Places) -> list[Finding]:
    """Parameters of another type of layer: they stand there and do nothing."""
    found = []
    for layer in net.layer:
        if layer.type not in caffe.layer_type_list():
            continue
        for name in _idle(layer):
            text = f"layer {layer.name}: {layer.type} does not read {name}"
            found.append(Finding(str(path), places.layer(layer.name, name), text, error=False))
    return found


def _idle(layer) -> list[str]:
    """The parameters of a layer that its type does not read."""
    words = re.findall(r"[A-Z]+(?=[A-Z][a-z]|$)|[A-Z][a-z0-9]*", layer.type)
    reads = _READS.get(layer.type, {"_".join(words).lower() + "_param", f"{layer.type.lower()}_param"})
    fields = [field.name for field, _ in layer.ListFields()]
    return [name for name in fields if name.endswith("_param") and name not in reads | {"loss_param"}]


def _unfilled(made: Outline, path: Path, places: _Places) -> list[Finding]:
    found = []
    for layer in made.net.layer:
        param = _WEIGHTS.get(layer.type)
        fixed = bool(layer.param) and all(p.HasField("lr_mult") and p.lr_mult == 0 for p in layer.param)
        if param and not getattr(layer, param).HasField("weight_filler") and not fixed:
            text = f"layer {layer.name}: without a weight_filler its weights start at 0, all alike"
            found.append(Finding(str(path), places.layer(layer.name), text, error=False))
    return found


def _agree(train: list[Outline], deploy: list[Outline], path: Path, places: _Places) -> list[Finding]:
    """Whether a caffemodel of the one net means the same in the other."""
    learned = {layer.name: layer for made in train for layer in made.layers}
    trained = {param.name: param for made in train for param in made.net.layer}
    found = []

    def add(name, text):
        found.append(Finding(str(path), places.layer(name), text))

    for layer, param in zip(deploy[0].layers, deploy[0].net.layer):
        other = learned.get(layer.name)
        if layer.parameters and other is None:
            add(layer.name, f"layer {layer.name} has weights, and train_val.prototxt has no layer of that name")
        elif layer.parameters and other.shapes is not None and other.parameters != layer.parameters:
            add(
                layer.name,
                f"layer {layer.name} has weights of {_shapes(layer)}, in train_val.prototxt {_shapes(other)}",
            )
        elif other is not None and layer.type not in ("Input", *outline.DATA_TYPES):
            changed = _other_settings(param, trained[layer.name])
            if changed:
                add(layer.name, f"layer {layer.name}: {changed} in train_val.prototxt")
    names = {layer.name for layer in deploy[0].layers}
    for layer in _on_the_way(train[-1], names):
        if layer.name not in names and layer.type not in (*outline.DATA_TYPES, "Dropout", "Split"):
            add("", f"train_val.prototxt has the layer {layer.name} ({layer.type}), and deploy.prototxt has not")
    return found


def _on_the_way(made: Outline, names: set[str]) -> list[outline.Layer]:
    """The layers of a net that lead to the last of its layers that has weights and one of these names."""
    ends = [i for i, layer in enumerate(made.layers) if layer.parameters and layer.name in names]
    if not ends:
        return []
    needed, found = set(made.layers[ends[-1]].bottoms), []
    for layer in reversed(made.layers[: ends[-1]]):
        if needed & set(layer.tops):
            needed.difference_update(set(layer.tops) - set(layer.bottoms))
            needed.update(layer.bottoms)
            found.append(layer)
    return found[::-1]


def _other_settings(deploy, train) -> str:
    """What a layer computes with in the one net and not in the other; how it is filled and learns does not count."""
    pair = []
    for layer in (train, deploy):
        same = caffe_pb2.LayerParameter()
        same.CopyFrom(layer)
        for field in ("include", "exclude", "param", "bottom", "top", "phase", "loss_weight", "propagate_down"):
            same.ClearField(field)
        for field in _idle(layer):
            same.ClearField(field)
        for param in (same.convolution_param, same.inner_product_param, same.prelu_param):
            for filler in ("weight_filler", "bias_filler", "filler"):
                if filler in param.DESCRIPTOR.fields_by_name:
                    param.ClearField(filler)
        pair.append(caffe_pb2.NetParameter(layer=[same]))
    changes = net_diff.nets(*pair)
    return _said(changes[0]) if changes else ""


def _said(change: str) -> str:
    match = re.match(r"layer \S+: (\S+) (.*) -> (.*)", change)
    return f"{match[1]} is {match[3]}, and {match[2]}" if match else change


def _shapes(layer) -> str:
    return ", ".join("x".join(map(str, shape)) for shape in layer.parameters)
