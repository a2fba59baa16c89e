"""Checks of nets and solvers, each finding with its file, line and column."""

from __future__ import annotations

import math
import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import caffe
from caffe.proto import caffe_pb2

from tiny_imagenet import files
from tiny_imagenet.errors import NetError
from tiny_imagenet.inspect import diff, layer_fields, normalize, outline, solver_lint
from tiny_imagenet.inspect.findings import Finding, NetFile, at
from tiny_imagenet.inspect.outline import Outline
from tiny_imagenet.inspect.shape_stubs import Shape
from tiny_imagenet.models import derive, prototxt, solvers
from tiny_imagenet.models.prototxt import Position

_FILLED = ("Convolution", "InnerProduct")  # their weights start at 0 without a filler
Inputs = Mapping[str, Shape]
State = tuple[str, tuple[str, ...], int]  # phase, stages, level


def check(path: str | os.PathLike[str], inputs: Inputs | None = None) -> list[Finding]:
    """Check the prototxt of a net or a solver and the files that belong to it, its own findings first.

    Args:
        path: the prototxt.
        inputs: shapes of blobs of data layers, by name, that the file does not determine.

    Raises:
        NetError: the file cannot be read.
    """
    found = solver(path, inputs) if solvers.is_solver(prototxt.read_text(path)) else net(path, inputs)
    return sorted(set(found), key=lambda f: (f.file != str(path), f.file, f.line, f.column, f.severity, f.text))


def net(path: str | os.PathLike[str], inputs: Inputs | None = None) -> list[Finding]:
    """Check a net's prototxt, and compare a deploy.prototxt with the train_val.prototxt in its folder.

    Arguments and errors as `check`.
    """
    return _file(Path(path), None, inputs or {}).findings


def solver(path: str | os.PathLike[str], inputs: Inputs | None = None) -> list[Finding]:
    """Check a solver's prototxt and its nets. Arguments and errors as `check`."""
    path, inputs = Path(path), inputs or {}
    message = caffe_pb2.SolverParameter()
    try:
        positions = prototxt.parse(message, prototxt.read_text(path), path)
    except prototxt.PrototxtError as error:
        return _unparsed(path, error)
    found = solver_lint.fields(message, positions, path)
    (trained, train_state), tested = _states_of(message)
    if not trained:
        return [*found, Finding(str(path), 0, 0, "error", 'no net: add a line such as net: "train_val.prototxt"')]
    nets: dict[str, _Net] = {}
    for name in dict.fromkeys([trained, *tested]):
        states = [*([train_state] if name == trained else []), *tested.get(name, [])]
        nets[name] = _net_of(message, name, states, path, positions, inputs)
        found += nets[name].findings
    found += _unknown_stages(message, {stage for one in nets.values() for stage in one.stages}, path, positions)
    if any(finding.is_error for finding in found):
        return found
    made = nets[trained].of("TRAIN")
    for name in tested:
        for test in nets[name].outlines:
            if test.phase == "TEST":
                if name != trained:  # else `_net` has compared them
                    found += _weights(made, test, nets[name].file)
                found += _outputs(test, path, positions)
    if not any(any(normalize.layer(layer).loss_weight) for layer in made.net.layer):
        found.append(at(path, positions, trained, "the net has no loss in phase TRAIN: nothing is learned"))
    return found


@dataclass
class _Net:
    """A checked net: its file, its outline in each state, and the findings."""

    file: NetFile | None = None
    outlines: list[Outline] = field(default_factory=list)
    stages: list[str] = field(default_factory=list)
    findings: list[Finding] = field(default_factory=list)

    def of(self, phase: str) -> Outline | None:
        return next((made for made in self.outlines if made.phase == phase), None)


def _net_of(message, name: str, states: list[State], path: Path, positions, inputs: Inputs) -> _Net:
    """Check a net of a solver: `name` is the field that names or contains it, such as test_net[1]."""
    kind, _, index = name.partition("[")
    value = getattr(message, kind)
    value = value[int(index[:-1])] if index else value
    if not isinstance(value, str):
        return _net(NetFile(path, value, positions, name), value, states, inputs)
    file = solvers.find(value, path)
    if not file:
        return _Net(findings=[at(path, positions, name, f"the {kind.replace('_', ' ')} {value} is missing")])
    one = _file(Path(files.shown(file)), states, inputs)
    others = [place for place in solvers.places(value, path) if place.is_file() and not place.samefile(file)]
    if others and file != path.resolve().parent / value:
        text = f'{value} is read from {file.name} of the same folder: write {kind}: "{file.name}"'
        one.findings.append(at(path, positions, name, text, "warning"))
    return one


def _file(path: Path, states: list[State] | None, inputs: Inputs) -> _Net:
    """Check a net's file, and its deploy.prototxt against its train_val.prototxt if both are in its folder."""
    message = caffe_pb2.NetParameter()
    try:
        positions = prototxt.parse(message, prototxt.read_text(path), path)
        if not message.layer and not message.layers:
            return _Net(findings=[Finding(str(path), 0, 0, "error", "the file has no layers")])
        file = NetFile(path, message, positions)
    except prototxt.PrototxtError as error:
        return _Net(findings=_unparsed(path, error))
    except caffe.CaffeError as error:
        return _Net(findings=[Finding(str(path), 0, 0, "error", str(error))])
    one = _net(file, message, states, inputs)
    train_val, deploy = path.with_name("train_val.prototxt"), path.with_name("deploy.prototxt")
    both = path.name in (train_val.name, deploy.name) and train_val.is_file() and deploy.is_file()
    if both and not _failed(one.findings):
        one.findings += _deploy(train_val, deploy)
    return one


def _deploy(train_val: Path, deploy: Path) -> list[Finding]:
    """Warnings where deploy.prototxt differs from the net that train_val.prototxt stands for."""
    given = caffe_pb2.NetParameter()
    try:
        positions = prototxt.parse(given, prototxt.read_text(deploy), deploy)
        derived = derive.deploy(prototxt.read(caffe_pb2.NetParameter(), train_val))
        file = NetFile(deploy, given, positions)
    except prototxt.PrototxtError as error:
        return _unparsed(deploy, error) if str(error).startswith(str(deploy)) else []
    except (NetError, caffe.CaffeError):  # not a classifier, or an invalid net: found by its own check
        return []
    found = []
    for change in diff.nets(derived, given, normalize.computed):
        number = next((i for i, layer in enumerate(file.layers) if layer.name == change.layer), None)
        what = {
            "renamed": f"layer {change.layer} has a different name in {train_val.name}",
            "added": f"layer {change.layer} is not in {train_val.name}",
            "removed": f"layer {change.layer} of {train_val.name} is missing",
            "order": f"the layers are in a different order in {train_val.name}",
        }
        text = f"layer {change.layer}: {change.field} is {change.new or 'missing'}, but {change.old or 'missing'} in "
        if change.layer or change.kind == "order":  # not the net's name
            found.append(file.finding(number, what.get(change.kind, text + train_val.name), change.field, "warning"))
    return found


def _net(file: NetFile, message: caffe_pb2.NetParameter, states: list[State] | None, inputs: Inputs) -> _Net:
    """Check a net in each of the states, or in those that its rules name."""
    one = _Net(file, stages=outline.stages(message))
    by_state: dict[State, list[Finding]] = {}
    for state in states or _states_in(message):
        phase, stages, level = state
        try:
            made = outline.outline(message, phase, stages, inputs, level)
        except NetError as error:
            named = re.search(r"'([^']+)'", str(error))
            numbers = [i for i, layer in enumerate(file.layers) if named and layer.name == named[1]]
            by_state[state] = [file.finding(numbers[0] if numbers else None, str(error))]
            continue
        one.outlines.append(made)
        by_state[state] = [*_problems(made, file), *_sharing(made, file)]
    for (phase, stages, _), findings in by_state.items():
        # A net that needs a stage is invalid without it.
        sound = [s for (p, s, _), found in by_state.items() if p == phase and s and not _failed(found)]
        if states or stages or not sound:
            one.findings += findings
        elif _failed(findings):
            one.outlines = [made for made in one.outlines if made.phase != phase or made.net.state.stage]
    one.findings += _unused(file)
    if one.outlines and one.outlines[0].phase == "TRAIN":
        one.findings += _unfilled(one.outlines[0], file)
        for test in one.outlines[1:]:
            if test.phase == "TEST":
                one.findings += _weights(one.outlines[0], test, file)
    return one


def _failed(findings: list[Finding]) -> bool:
    return any(finding.is_error for finding in findings)


def _unparsed(path: Path, error: prototxt.PrototxtError) -> list[Finding]:
    return [Finding(str(path), line, column, "error", text) for line, column, text in error.errors]


# --- the states of a net ---


def _states_of(solver) -> tuple[tuple[str, State], dict[str, list[State]]]:
    """The field with the net that a solver trains and its state, and the fields with the nets that it tests."""
    train = next((name for name in solver_lint.NETS if solver.HasField(name)), "")
    names = [f"test_net_param[{i}]" for i in range(len(solver.test_net_param))]
    names += [f"test_net[{i}]" for i in range(len(solver.test_net))]
    generic = max(len(solver.test_iter) - len(names), 0) if train in ("net", "net_param") else 0
    tested: dict[str, list[State]] = {}
    for i, name in enumerate([*names, *([train] * generic)]):
        state = solver.test_state[i] if i < len(solver.test_state) else caffe_pb2.NetState()
        tested.setdefault(name, []).append(("TEST", tuple(state.stage), state.level))
    return (train, ("TRAIN", tuple(solver.train_state.stage), solver.train_state.level)), tested


def _states_in(net: caffe_pb2.NetParameter) -> list[State]:
    """The states that a net is made for: its phases, each without a stage and with those that rules name."""
    layers = [*net.layer, *net.layers]
    first = outline.default_phase(net)
    named = {rule.phase for layer in layers for rule in layer.include if rule.HasField("phase")}
    phases = [first, "TEST"] if first == "TRAIN" and (caffe_pb2.TEST in named or not named) else [first]
    states: list[State] = []
    for phase in phases:
        rules = [rule for layer in layers for rule in layer.include]
        rules = [rule for rule in rules if not rule.HasField("phase") or caffe_pb2.Phase.Name(rule.phase) == phase]
        states += [(phase, stage, 0) for stage in [(), *sorted({tuple(rule.stage) for rule in rules if rule.stage})]]
    return states


def _unknown_stages(solver, known: set[str], path: Path, positions: Mapping[str, Position]) -> Iterator[Finding]:
    states = [("train_state", solver.train_state)]
    states += [(f"test_state[{i}]", state) for i, state in enumerate(solver.test_state)]
    for name, state in states:
        for k, stage in enumerate(state.stage):
            if stage not in known:
                text = f"no rule of the net names the stage {stage!r}, only {', '.join(sorted(known)) or 'none'}"
                yield at(path, positions, f"{name}.stage[{k}]", text, "warning")


# --- the rules ---


def _problems(made: Outline, file: NetFile) -> Iterator[Finding]:
    """Layers without shapes."""
    for number, layer in zip(file.numbers(made), made.layers):
        if layer.problem:
            text = f"layer {layer.name} ({layer.type}): {layer.problem}"
            yield file.finding(number, text, layer.problem_field, "error" if layer.certain else "warning")


def _sharing(made: Outline, file: NetFile) -> Iterator[Finding]:
    """Shared parameters of different shapes, or with different factors."""
    owners: dict[str, tuple[str, Shape, caffe_pb2.ParamSpec]] = {}
    for number, layer, message in zip(file.numbers(made), made.layers, made.net.layer):
        for k, (spec, shape) in enumerate(zip(message.param, layer.parameters)):
            if not spec.name:
                continue
            owner, owned, first = owners.setdefault(spec.name, (layer.name, shape, spec))
            where = f"layer {layer.name}: the shared parameter {spec.name!r}"
            permissive = spec.share_mode == caffe_pb2.ParamSpec.PERMISSIVE and math.prod(shape) == math.prod(owned)
            if shape != owned and not permissive:
                text = f"{where} has the shape {_shapes([shape])}, but {_shapes([owned])} in layer {owner}"
                yield file.finding(number, text, f"param[{k}]")
            for factor in ("lr_mult", "decay_mult"):
                own, other = getattr(spec, factor), getattr(first, factor)
                if spec.HasField(factor) and first.HasField(factor) and own != other:
                    text = f"{where} has {factor} {own:g}, but {other:g} in layer {owner}: write it once"
                    yield file.finding(number, text, f"param[{k}].{factor}")


def _weights(train: Outline, test: Outline, file: NetFile) -> Iterator[Finding]:
    """Layers of the tested net, in `file`, that cannot take the weights of the trained one."""
    counts: dict[str, int] = {}
    for layer in (*train.layers, *test.layers):
        counts[layer.name] = counts.get(layer.name, 0) + bool(layer.parameters)
    learned = {layer.name: layer.parameters for layer in train.layers if layer.parameters}
    for number, layer in zip(file.numbers(test), test.layers):
        if not layer.parameters or counts[layer.name] > 2:  # names that are not unique match nothing
            continue
        if layer.name not in learned:
            text = f"layer {layer.name} has weights in phase {test.phase}, but is not trained in {train.phase}"
            yield file.finding(number, text, severity="warning")
        elif layer.parameters != learned[layer.name]:
            sizes = f"{_shapes(layer.parameters)} in phase {test.phase}, but {_shapes(learned[layer.name])}"
            yield file.finding(number, f"layer {layer.name} has weights of shape {sizes} in {train.phase}")


def _shapes(shapes) -> str:
    return ", ".join("x".join(map(str, shape)) for shape in shapes)


def _outputs(test: Outline, path: Path, positions: Mapping[str, Position]) -> Iterator[Finding]:
    read = {bottom for layer in test.layers for bottom in layer.bottoms}
    if all(top in read for layer in test.layers for top in layer.tops) and "Loss" not in test.layers[-1].type:
        yield at(path, positions, "test_iter[0]", "the net has no output in phase TEST: nothing is tested", "warning")


def _unused(file: NetFile) -> Iterator[Finding]:
    """Parameters of other layer types, and data layers without a source."""
    for number, layer in enumerate(file.layers):
        if layer.type not in caffe.layer_type_list():
            continue
        for name in layer_fields.unread(layer):
            yield file.finding(number, f"layer {layer.name}: {layer.type} does not read {name}", name, "warning")
        param, name = layer_fields.of(layer), layer_fields.name(layer.type)
        if layer.type in layer_fields.DATA and layer_fields.has(param, "source") and not param.source:
            yield file.finding(number, f"layer {layer.name} ({layer.type}): source is missing", f"{name}.source")
        if layer.type == "InnerProduct" and not param.num_output:  # which Caffe accepts
            text = f"layer {layer.name} (InnerProduct): num_output is missing or 0"
            yield file.finding(number, text, f"{name}.num_output")


def _unfilled(made: Outline, file: NetFile) -> Iterator[Finding]:
    """Weights that start at 0."""
    for number, layer, message in zip(file.numbers(made), made.layers, made.net.layer):
        fixed = bool(message.param) and all(p.HasField("lr_mult") and p.lr_mult == 0 for p in message.param)
        if layer.type not in _FILLED or fixed or any(layer.shared):
            continue
        if not layer_fields.of(message).HasField("weight_filler"):
            text = f"layer {layer.name}: all weights start at 0, add a weight_filler"
            yield file.finding(number, text, layer_fields.name(layer.type), "warning")
