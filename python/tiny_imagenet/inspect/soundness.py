"""Whether a prototxt that was edited by hand is sound, with the line of each finding."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import caffe
from caffe.proto import caffe_pb2

from tiny_imagenet import files
from tiny_imagenet.errors import NetError
from tiny_imagenet.inspect import agreement, canonical, outline, solver_soundness
from tiny_imagenet.inspect.findings import Finding, NetFile
from tiny_imagenet.inspect.outline import Outline
from tiny_imagenet.inspect.stand_in import Shape
from tiny_imagenet.models import prototxt, solvers

_WEIGHTS = {"Convolution": "convolution_param", "InnerProduct": "inner_product_param"}
_SOURCES = {
    "CropData": "crop_data_param",
    "Data": "data_param",
    "HDF5Data": "hdf5_data_param",
    "ImageData": "image_data_param",
    "WindowData": "window_data_param",
}
_PARTNER = {"train_val.prototxt": "deploy.prototxt", "deploy.prototxt": "train_val.prototxt"}
Inputs = Mapping[str, Shape]
State = tuple[str, tuple[str, ...], int]  # phase, stages, level


@dataclass
class _Net:
    """A net as it stands in a file, and what it is in each of the states it was looked at."""

    file: NetFile
    net: caffe_pb2.NetParameter
    outlines: list[Outline]

    def of(self, phase: str) -> Outline | None:
        return next((made for made in self.outlines if made.phase == phase), None)


def check(path: str | os.PathLike[str], inputs: Inputs | None = None) -> list[Finding]:
    """Everything found in a net's or a solver's prototxt, and in the files that belong to it.

    A solver brings its nets; train_val.prototxt and deploy.prototxt in one folder bring each other.

    Args:
        path: the prototxt.
        inputs: shapes of blobs, by name, that cannot be told from the file (a data set that is not here).

    Raises:
        NetError: the file cannot be opened.
    """
    path = Path(path)
    checking = _Checking(dict(inputs or {}))
    if solvers.is_solver(prototxt.read_text(path)):
        checking.solver(path)
    else:
        checking.with_partner(path, None)
    return sorted(set(checking.found), key=lambda f: (f.path != str(path), f.path, f.line, not f.error, f.text))


class _Checking:
    """The findings so far."""

    def __init__(self, inputs: Inputs):
        self.inputs = inputs
        self.found: list[Finding] = []

    @property
    def failed(self) -> bool:
        return any(finding.error for finding in self.found)

    # --- solvers ---

    def solver(self, path: Path) -> None:
        solver = caffe_pb2.SolverParameter()
        try:
            lines = prototxt.parse(solver, prototxt.read_text(path), path)
        except NetError as error:
            self.found.append(_unparsed(path, error))
            return
        self.found += solver_soundness.check(solver, lines, path)
        trained, tested = _states_of(solver)
        nets: dict[str, _Net | None] = {}
        for field, states in (trained, *tested.items()):
            if tested and field == trained[0]:
                states = [*states, *tested.get(field, [])]
            if field and field not in nets:
                nets[field] = self._net_of(solver, field, states, path, lines)
        train = nets.get(trained[0])
        if not trained[0]:
            self.found.append(Finding(str(path), 0, 'names no net: add a line such as net: "train_val.prototxt"'))
        known = {stage for net in nets.values() if net for stage in outline.stages(net.net)}
        self.found += _unknown_stages(solver, known, path, lines)
        if not train or self.failed:
            return
        made = train.of("TRAIN")
        for field in tested:
            net = nets[field]
            for test in net.outlines if net else ():
                if test.phase == "TEST" and net is not train:  # of one file it is done
                    self.found += agreement.tested(made, test, net.file)
                self.found += _outputs(test, path, lines)
        if not any(any(canonical.layer(layer).loss_weight) for layer in made.net.layer):
            text = f"the net {train.file.path.name} has no loss in phase TRAIN: nothing is learned"
            self.found.append(Finding(str(path), lines.get(trained[0], 0), text))

    def _net_of(self, solver, field: str, states: list[State], path: Path, lines: dict[str, int]) -> _Net | None:
        """Check a net of a solver, which `field` names or holds."""
        name, _, index = field.partition("[")
        value = getattr(solver, name)
        value = value[int(index[:-1])] if index else value
        if not isinstance(value, str):
            return self._net(NetFile(path, value, lines, field), value, states)
        file = solvers.find(value, path)
        line = lines.get(field, lines.get(name, 0))
        if not file:
            kind = "test net" if name == "test_net" else "net"
            text = f"names the {kind} {value}, which is neither there nor beside the solver"
            self.found.append(Finding(str(path), line, text))
            return None
        other = next((place for place in solvers.places(value, path)[2:] if place.is_file()), file)
        if not (path.parent / value).is_file() and not other.samefile(file):
            text = f'names {value}, and the {file.name} beside it is taken: write {name}: "{file.name}" to say so'
            self.found.append(Finding(str(path), line, text, error=False))
        return self.with_partner(Path(files.shown(file)), states)

    # --- nets ---

    def with_partner(self, path: Path, states: list[State] | None) -> _Net | None:
        """Check a net's file, and the other of train_val and deploy where it is beside it."""
        own = self._file(path, states)
        partner = path.with_name(_PARTNER.get(path.name, path.name))
        if partner == path or not partner.is_file() or not own:
            return own
        other = self._file(partner, None)
        if other and own.outlines and other.outlines and not self.failed:
            train, deploy = (own, other) if path.name == "train_val.prototxt" else (other, own)
            self.found += agreement.deployed(train.outlines[-1], deploy.outlines[0], deploy.file)
        return own

    def _file(self, path: Path, states: list[State] | None) -> _Net | None:
        net = caffe_pb2.NetParameter()
        try:
            lines = prototxt.parse(net, prototxt.read_text(path), path)
        except NetError as error:
            self.found.append(_unparsed(path, error))
            return None
        if not net.layer and not net.layers:
            self.found.append(Finding(str(path), 0, "there are no layers in it"))
            return None
        try:
            file = NetFile(path, net, lines)
        except caffe.CaffeError as error:
            self.found.append(Finding(str(path), 0, str(error)))
            return None
        return self._net(file, net, states)

    def _net(self, file: NetFile, net: caffe_pb2.NetParameter, states: list[State] | None) -> _Net:
        outlines = []
        wrong: dict[State, list[Finding]] = {}
        for state in states or _states_in(net):
            wrong[state] = []
            try:
                made = outline.outline(net, state[0], state[1], self.inputs, state[2])
            except NetError as error:
                named = re.search(r"layer '([^']+)'|[Bb]lob '([^']+)'", str(error))
                wrong[state].append(file.named(named[1] or named[2] if named else "", str(error)))
                continue
            outlines.append(made)
            wrong[state] = _problems(made, file)
        for (phase, stages, _), findings in wrong.items():
            # A net may need a stage: without one it is wrong then, and that is not meant.
            staged = [found for (p, s, _), found in wrong.items() if p == phase and s]
            if states or stages or not any(not any(f.error for f in found) for found in staged):
                self.found += findings
            elif any(f.error for f in findings):
                outlines = [made for made in outlines if made.phase != phase or made.net.state.stage]
        self.found += _in_the_file(file)
        if outlines and outlines[0].phase == "TRAIN":
            self.found += _unfilled(outlines[0], file)
            for test in outlines[1:]:
                if test.phase == "TEST":
                    self.found += agreement.tested(outlines[0], test, file)
        return _Net(file, net, outlines)


def _states_of(solver) -> tuple[tuple[str, list[State]], dict[str, list[State]]]:
    """The field with the net that a solver trains, and those with the nets it tests; each with its states."""
    given = (name for name in ("net", "net_param", "train_net", "train_net_param") if solver.HasField(name))
    train = next(given, "")
    trained = (train, [_state("TRAIN", solver.train_state)])
    names = [f"test_net_param[{i}]" for i in range(len(solver.test_net_param))]
    names += [f"test_net[{i}]" for i in range(len(solver.test_net))]
    generic = max(len(solver.test_iter) - len(names), 0) if train in ("net", "net_param") else 0
    tested: dict[str, list[State]] = {}
    for i, name in enumerate([*names, *([train] * generic)]):
        state = solver.test_state[i] if i < len(solver.test_state) else caffe_pb2.NetState()
        tested.setdefault(name, []).append(_state("TEST", state))
    return trained, tested


def _state(phase: str, state: caffe_pb2.NetState) -> State:
    return phase, tuple(state.stage), state.level


def _states_in(net) -> list[State]:
    """The states that a net is made for, as far as it says: its phases, and in each the stages that rules name."""
    layers = [*net.layer, *net.layers]
    first = outline.default_phase(net)
    named = {rule.phase for layer in layers for rule in layer.include if rule.HasField("phase")}
    phases = [first, "TEST"] if first == "TRAIN" and (caffe_pb2.TEST in named or not named) else [first]
    states: list[State] = []
    for phase in phases:
        rules = [rule for layer in layers for rule in layer.include]
        rules = [rule for rule in rules if not rule.HasField("phase") or caffe_pb2.Phase.Name(rule.phase) == phase]
        stages = sorted({tuple(rule.stage) for rule in rules if rule.stage})
        states += [(phase, stage, 0) for stage in [(), *stages]]
    return states


def _unknown_stages(solver, known: set[str], path: Path, lines: dict[str, int]) -> Iterator[Finding]:
    """The stages of a solver's states that no rule of its nets names."""
    states = [("train_state", solver.train_state)]
    states += [(f"test_state[{i}]", state) for i, state in enumerate(solver.test_state)]
    for name, state in states:
        for k, stage in enumerate(state.stage):
            if stage not in known:
                text = f"no rule of the net names the stage {stage!r}: it names {', '.join(sorted(known)) or 'none'}"
                yield Finding(str(path), lines.get(f"{name}.stage[{k}]", lines.get(name, 0)), text, error=False)


def _unparsed(path: Path, error: NetError) -> Finding:
    place = re.escape(" ".join(str(path).split()))  # as in the error, which is one line
    match = re.match(rf"{place}:(\d+):\d+: (.*)", str(error))
    return Finding(str(path), int(match[1]) if match else 0, match[2] if match else str(error))


def _problems(made: Outline, file: NetFile) -> list[Finding]:
    """What keeps layers from having shapes."""
    return [
        file.finding(made, i, f"layer {la.name} ({la.type}): {la.problem}", la.problem_field, error=la.certain)
        for i, la in enumerate(made.layers)
        if la.problem
    ]


def _outputs(test: Outline, path: Path, lines: dict[str, int]) -> Iterator[Finding]:
    """Whether there is something to see of a test."""
    read = {bottom for layer in test.layers for bottom in layer.bottoms}
    if all(top in read for layer in test.layers for top in layer.tops) and "Loss" not in test.layers[-1].type:
        text = "the net has no output in phase TEST: there is nothing to test"
        yield Finding(str(path), lines.get("test_iter[0]", 0), text, error=False)


def _in_the_file(file: NetFile) -> list[Finding]:
    """What does nothing, parameters of another type of layer, and data that comes from nowhere."""
    found = []
    for i, layer in enumerate(file.layers):
        if layer.type not in caffe.layer_type_list():
            continue
        for name in canonical.idle(layer):
            text = f"layer {layer.name}: {layer.type} does not read {name}"
            found.append(file.finding(None, i, text, name, error=False))
        param = _SOURCES.get(layer.type)
        if param and not getattr(layer, param).source:
            text = f"layer {layer.name} ({layer.type}) has no source in its {param}"
            found.append(file.finding(None, i, text, param))
        if layer.type == "InnerProduct" and not layer.inner_product_param.num_output:
            text = f"layer {layer.name} (InnerProduct) needs a num_output of at least 1"
            found.append(file.finding(None, i, text, "inner_product_param.num_output"))
    return found


def _unfilled(made: Outline, file: NetFile) -> list[Finding]:
    found = []
    for i, layer in enumerate(made.net.layer):
        param = _WEIGHTS.get(layer.type)
        fixed = bool(layer.param) and all(p.HasField("lr_mult") and p.lr_mult == 0 for p in layer.param)
        taken = any(made.layers[i].shared)  # from the layer that fills them
        if param and not getattr(layer, param).HasField("weight_filler") and not fixed and not taken:
            text = f"layer {layer.name}: without a weight_filler its weights start at 0, all alike"
            found.append(file.finding(made, i, text, error=False))
    return found
