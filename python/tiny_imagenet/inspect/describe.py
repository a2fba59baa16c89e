"""A net as a table and as JSON."""

from __future__ import annotations

import dataclasses
import io
import os
from pathlib import Path
from typing import Any

import caffe
from caffe.proto import caffe_pb2
from google.protobuf import json_format

from tiny_imagenet import files
from tiny_imagenet.cli import did_you_mean
from tiny_imagenet.errors import NetError, UnknownModelError
from tiny_imagenet.inspect import costs
from tiny_imagenet.inspect.outline import Outline
from tiny_imagenet.models import paper, prototxt, solvers

# Values that a solver keeps per parameter.
HISTORY = {"SGD": 1, "Nesterov": 2, "AdaGrad": 2, "RMSProp": 2, "AdaDelta": 4, "Adam": 3}


@dataclasses.dataclass(frozen=True)
class Source:
    """The net, and the solver if there is one, behind a MODEL or FILE argument.

    Attributes:
        name: the argument.
        path: the named file; for a model or a folder its solver.
        net: as it is in its file; without layers if the solver's net is missing.
        net_path: the net's file; the solver's if the net is written in it.
        solver, solver_path: the solver and its file, or None.
        model: name of the model in the zoo, if the file is one of its files.
        problem: why the net is missing, or "".
    """

    name: str
    path: Path
    net: caffe_pb2.NetParameter
    net_path: Path
    solver: caffe_pb2.SolverParameter | None = None
    solver_path: Path | None = None
    model: str | None = None
    problem: str = ""

    @property
    def names_solver(self) -> bool:
        """Whether the argument is a solver, and not a net with a solver in its folder."""
        return self.solver is not None and self.path == self.solver_path

    @property
    def history(self) -> int:
        """Values that the solver keeps per parameter."""
        return HISTORY.get(self.solver.type, 1) if self.solver else 1

    def state(self, phase: str) -> caffe_pb2.NetState:
        """Return the level and stages that the solver sets for a phase."""
        states = []
        if self.solver:
            states = {"TRAIN": [self.solver.train_state], "TEST": list(self.solver.test_state)}[phase]
        return states[0] if states else caffe_pb2.NetState()


def quiet() -> None:
    """Log only Caffe's errors in this process, and not its notes on old formats."""
    caffe.log_level("error")


def find(what: str, models: Path) -> Path:
    """Return the file of a MODEL, FILE or folder argument; for a model or a folder its solver.

    Args:
        what: the argument.
        models: the folder of the zoo's models.

    Raises:
        UnknownModelError: it is neither a model nor a file.
        NetError: it is a folder without a solver.
    """
    path = Path(what)
    if not path.exists() and (models / what / "solver.prototxt").is_file():
        path = models / what
    if path.is_dir():
        path = path / "solver.prototxt"
        if not path.exists():
            raise NetError(f"the folder {what} has no solver.prototxt: name a file in it")
    if not path.exists():
        known = sorted(p.parent.name for p in models.glob("*/solver.prototxt"))
        hint = did_you_mean(what, known) or f" Known models: {', '.join(known) or 'none'}"
        raise UnknownModelError(f"{what!r} is neither a file nor a model.{hint}")
    return path


def load(what: str, models: Path) -> Source:
    """Read a model of the zoo (from its files in `models`), a net's prototxt or a solver's. Arguments as `find`.

    Raises:
        UnknownModelError: it is neither a model nor a file.
        NetError: a file does not parse or has no layers.
    """
    path = find(what, models)
    folder = path.resolve().parent
    model = folder.name if folder.parent == models.resolve() else None
    text = prototxt.read_text(path)
    if not solvers.is_solver(text):
        net = caffe_pb2.NetParameter()
        prototxt.parse(net, text, path)
        if not net.layer and not net.layers:
            raise NetError(f"{path} has no layers: expected the prototxt of a net or a solver")
        solver_path = path.with_name("solver.prototxt")
        if model and path.name == "train_val.prototxt" and solver_path.is_file():
            return Source(what, path, net, path, _solver_of(solver_path), solver_path, model)
        return Source(what, path, net, path, model=model)
    solver = _solver_of(path)
    try:
        file = solvers.net_path(solver, path)
    except NetError as error:
        return Source(what, path, caffe_pb2.NetParameter(), path, solver, path, model, str(error))
    if file is None:
        net = solver.net_param if solver.HasField("net_param") else solver.train_net_param
        return Source(what, path, net, path, solver, path, model)
    return Source(what, path, prototxt.read(caffe_pb2.NetParameter(), file), file, solver, path, model)


def _solver_of(path: Path) -> caffe_pb2.SolverParameter:
    return solvers.upgraded(prototxt.read(caffe_pb2.SolverParameter(), path))


def setting(layer: caffe_pb2.LayerParameter) -> str:
    """Return the main settings of a layer in short: "5x5 /2", "MAX 2x2 /2", "0.5"."""
    if layer.type in ("Convolution", "Deconvolution"):
        p = layer.convolution_param
        group = f" group {p.group}" if p.group > 1 else ""
        dilation = f" dilation {p.dilation[0]}" if p.dilation and p.dilation[0] > 1 else ""
        return _window(p) + dilation + group
    if layer.type == "Pooling":
        p = layer.pooling_param
        kind = caffe_pb2.PoolingParameter.PoolMethod.Name(p.pool)
        return f"{kind} all" if p.global_pooling else f"{kind} {_window(p)}"
    if layer.type == "Dropout":
        return f"{layer.dropout_param.dropout_ratio:g}"
    if layer.type in ("LReLU", "ReLU"):
        slope = layer.relu_param.negative_slope if layer.relu_param.HasField("negative_slope") else 0
        return f"{slope:g}" if slope else ""
    if layer.type == "Accuracy" and layer.accuracy_param.top_k > 1:
        return f"top {layer.accuracy_param.top_k}"
    return ""


def _window(p) -> str:
    def pair(name, default):
        h, w = getattr(p, f"{name}_h"), getattr(p, f"{name}_w")
        if h or w:
            return h or default, w or default
        value = getattr(p, name if hasattr(p, name) else f"{name}_size")
        if not isinstance(value, int):  # a convolution has a list
            value = list(value) or [default]
            return (value * 2)[:2] if len(value) == 1 else tuple(value)
        return value or default, value or default

    kernel, stride = pair("kernel", 0), pair("stride", 1)
    steps = f" /{stride[0]}" if len(set(stride)) == 1 else " /" + "x".join(map(str, stride))
    return "x".join(map(str, kernel)) + ("" if set(stride) == {1} else steps)


def depth(net: Outline) -> int:
    """Return the number of layers with weights: those whose first parameter has more than one axis."""
    return sum(bool(layer.parameters) and len(layer.parameters[0]) > 1 for layer in net.layers)


def to_json(source: Source, net: Outline, as_printed: bool = True) -> dict[str, Any]:
    """Return the net as JSON values: counts per image, except in `layers`, which is per batch; sizes in bytes.

    Args:
        source: the net's source.
        net: its outline.
        as_printed: whether the shapes are those of the file, so that the paper's figures apply.
    """
    layers = []
    for layer in net.layers:
        row = dataclasses.asdict(layer)
        row["parameter_count"] = layer.parameter_count if layer.shapes is not None else None
        row["activation_bytes"] = layer.activation_bytes if layer.shapes is not None else None
        layers.append(row)
    column = _paper(source) if as_printed else None
    return {
        "name": net.name,
        "file": os.fspath(source.net_path),
        "phase": net.phase,
        "batch": net.batch,
        "whole": net.whole,
        "depth": depth(net),
        "parameters": net.parameter_count,
        "multiply_adds": net.multiply_adds,
        "activation_bytes": net.activation_bytes,
        "training_bytes": net.training_bytes(source.history),
        "layers": layers,
        "solver": json_format.MessageToDict(source.solver, preserving_proto_field_name=True) if source.solver else None,
        "problem": source.problem,
        "paper": dataclasses.asdict(column) if column else None,
    }


def _paper(source: Source) -> paper.PaperModel | None:
    return paper.PAPER.get(source.model) if source.model else None


def to_text(source: Source, net: Outline, as_printed: bool = True) -> str:
    """Return the net as a table with the files and totals. Arguments as `to_json`."""
    from rich.console import Console
    from rich.table import Table

    if not net.layers:
        return "\n".join([*_files(source), *_solver(source), source.problem]) + "\n"
    table = Table(box=None, pad_edge=False, show_footer=net.whole)
    table.add_column("layer")
    table.add_column("type")
    table.add_column("output")
    table.add_column("parameters", f"{net.parameter_count:,}", justify="right")
    table.add_column("multiply-adds", f"{net.multiply_adds:,}", justify="right")
    table.add_column("activation bytes", f"{net.activation_bytes:,}", justify="right")
    for number, layer in enumerate(net.layers):
        table.add_row(*cells(net, number), f"{layer.activation_bytes // net.batch:,}" if layer.activation_bytes else "")
    out = io.StringIO()
    console = Console(file=out, width=10_000, highlight=False, markup=False, emoji=False)
    console.print(table)
    lines = [line.rstrip() for line in out.getvalue().rstrip().splitlines()]
    column = _paper(source) if as_printed else None
    return "\n".join([*lines, "", *_files(source), *_totals(source, net, column)]) + "\n"


def cells(net: Outline, number: int, times: str = "x") -> list[str]:
    """Return name, type, output, parameters and multiply-adds per image of a layer; "?" for an unknown output.

    Args:
        net: the outline.
        number: of the layer.
        times: between the sizes of a shape.
    """
    layer = net.layers[number]
    shapes = "?" if layer.shapes is None else ", ".join(times.join(map(str, s)) or "1" for s in layer.shapes)
    return [
        layer.name,
        f"{layer.type} {setting(net.net.layer[number])}".strip(),
        f"{shapes} in place" if layer.in_place else shapes,
        f"{layer.parameter_count:,}" if layer.parameter_count else "",
        f"{layer.multiply_adds // net.batch:,}" if layer.multiply_adds else "",
    ]


def _files(source: Source) -> list[str]:
    """The files of the net and the solver."""
    lines = [] if source.problem else [f"net: {files.shown(source.net_path)}"]
    return lines + ([f"solver: {files.shown(source.solver_path)}"] if source.solver_path else [])


def _totals(source: Source, net: Outline, column: paper.PaperModel | None) -> list[str]:
    lines = []
    for layer in net.layers:
        if layer.problem:
            lines.append(f"{layer.name}: unknown shape: {layer.problem}")
    if not net.whole:
        lines.append(f"{net.name or source.name}: the counts leave out the layers of unknown shape (?)")
        return [*lines, *_solver(source)]
    lines.append(
        f"{net.name or source.name}, {net.phase} phase: {depth(net)} layers with weights, {net.parameter_count:,} "
        f"parameters ({size(costs.FLOAT * net.parameter_count)})"
    )
    lines.append(
        f"per image: {net.multiply_adds / 1e6:,.1f} M multiply-adds, {size(net.activation_bytes)} of activations"
    )
    if net.phase == "TRAIN":
        kind = f" with {source.solver.type}" if source.solver else ""
        memory = size(net.training_bytes(source.history))
        lines.append(f"training at batch {net.batch}{kind}: about {memory} of memory on the CPU, without tests")
    lines += _solver(source)
    if column:
        lines.append(
            f"the paper: {column.depth} layers with weights, {column.parameters_millions:g} M parameters, "
            f"{column.validation_accuracy:.2f} % top-1 on validation"
        )
    return lines


def _solver(source: Source) -> list[str]:
    """The solver in one line."""
    solver = source.solver
    if solver is None:
        return []
    rest = "".join(
        f", {name} {getattr(solver, name):g}" for name in ("gamma", "power", "stepsize") if getattr(solver, name)
    )
    rest += f", at {', '.join(map(str, solver.stepvalue))}" if solver.stepvalue else ""
    return [
        f"trained by {solver.type}, rate {solver.base_lr:g} {solver.lr_policy}{rest}, momentum {solver.momentum:g}, "
        f"weight decay {solver.weight_decay:g}, {solver.max_iter:,} iterations"
    ]


def size(count: int) -> str:
    """Return a number of bytes with a unit: "242.3 MB"."""
    for unit, factor in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if count >= factor:
            return f"{count / factor:.1f} {unit}"
    return f"{count} bytes"
