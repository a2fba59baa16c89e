"""Whether a prototxt that was edited by hand is sound, with the line of each finding."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping
from pathlib import Path

import caffe
from caffe.proto import caffe_pb2

from tiny_imagenet import agreement, canonical, describe, files, outline, prototxt, solver_soundness, solvers
from tiny_imagenet.errors import NetError
from tiny_imagenet.findings import Finding, NetFile
from tiny_imagenet.outline import Outline
from tiny_imagenet.stand_in import DATA_TYPES, Shape

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
    text = prototxt.read_text(path)
    findings = _solver(path, text, inputs or {}) if describe.is_solver(text) else _net_and_partner(path, inputs or {})
    return sorted(set(findings), key=lambda f: (f.path != str(path), f.path, f.line, not f.error, f.text))


def _solver(path: Path, text: str, inputs: Inputs) -> list[Finding]:
    solver = caffe_pb2.SolverParameter()
    try:
        lines = prototxt.parse(solver, text, path)
    except NetError as error:
        return [_unparsed(path, error)]
    solver = solvers.upgraded(solver)
    found = solver_soundness.check(solver, lines, path)
    try:
        file = solvers.net_path(solver, path)
    except NetError as error:
        line = lines.get("net", lines.get("train_net", 0))
        return [*found, Finding(str(path), line, str(error).removeprefix(f"{path} "))]
    if file is None:
        return found
    file = Path(files.shown(file))
    field = "net" if solver.net else "train_net"
    named = getattr(solver, field)
    rest = solvers.places(named, path)[2:]
    if not (path.parent / named).is_file() and any(p.is_file() and not p.samefile(file) for p in rest):
        text = f'names {named}, and the {file.name} beside it is taken: write {field}: "{file.name}" to say so'
        found.append(Finding(str(path), lines.get(field, 0), text, error=False))
    found += _net_and_partner(file, inputs)
    tests = [
        place for place in (solvers.find(name, path) for name in solver.test_net) if place and not place.samefile(file)
    ]
    for test in tests:
        found += _net_and_partner(Path(files.shown(test)), inputs)
    if not any(f.error for f in found):
        found += _learns(solver, path, lines, file, inputs)
    return found


def _learns(solver, path: Path, lines, file: Path, inputs: Inputs) -> Iterable[Finding]:
    """Whether the solver's net has a loss, and something to test where tests are asked for."""
    net = prototxt.read(caffe_pb2.NetParameter(), file)
    made = outline.outline(net, "TRAIN", solver.train_state.stage, inputs)
    line = lines.get("net", lines.get("train_net", 0))
    if not any(canonical.layer(layer).loss_weight for layer in made.net.layer):
        yield Finding(str(path), line, f"the net {file.name} has no loss in phase TRAIN: nothing is learned")
    if solver.test_iter and not (solver.test_net or solver.test_net_param):
        stages = [stage for state in solver.test_state for stage in state.stage]
        tested = outline.outline(net, "TEST", stages, inputs)
        read = {bottom for layer in tested.layers for bottom in layer.bottoms}
        if all(top in read for layer in tested.layers for top in layer.tops):
            text = f"the net {file.name} has no output in phase TEST: there is nothing to test"
            yield Finding(str(path), lines.get("test_iter[0]", 0), text, error=False)


def _unparsed(path: Path, error: NetError) -> Finding:
    place = re.escape(" ".join(str(path).split()))  # as in the error, which is one line
    match = re.match(rf"{place}:(\d+):\d+: (.*)", str(error))
    return Finding(str(path), int(match[1]) if match else 0, match[2] if match else str(error))


def _net_and_partner(path: Path, inputs: Inputs) -> list[Finding]:
    found, nets, file = _net(path, inputs)
    partner = path.with_name(_PARTNER.get(path.name, path.name))
    if partner == path or not partner.is_file() or not nets:
        return found
    more, others, other_file = _net(partner, inputs)
    found += more
    if others and not any(f.error for f in found):
        train, deploy = (nets, others) if path.name == "train_val.prototxt" else (others, nets)
        found += agreement.deployed(train[-1], deploy[0], other_file if path.name == "train_val.prototxt" else file)
    return found


def _net(path: Path, inputs: Inputs) -> tuple[list[Finding], list[Outline], NetFile | None]:
    """The findings in one file, its nets, one a phase, and where their layers stand in it."""
    net, text = caffe_pb2.NetParameter(), prototxt.read_text(path)
    try:
        lines = prototxt.parse(net, text, path)
    except NetError as error:
        return [_unparsed(path, error)], [], None
    if not net.layer and not net.layers:
        return [Finding(str(path), 0, "there are no layers in it")], [], None
    try:
        file = NetFile(path, net, lines)
    except caffe.CaffeError as error:
        return [Finding(str(path), 0, str(error))], [], None
    found: list[Finding] = []
    outlines = []
    for phase, stages in _states(net, outline.default_phase(net)):
        try:
            made = outline.outline(net, phase, stages, inputs=inputs)
        except NetError as error:
            named = re.search(r"layer '?([^' ]+)'?", str(error))
            found.append(file.named(named[1] if named else "", str(error)))
            continue
        outlines.append(made)
        found += _problems(made, file)
    found += _in_the_file(file)
    if outlines:
        found += agreement.phases(outlines, file)
        if outlines[0].phase == "TRAIN":
            found += _unfilled(outlines[0], file)
    return found, outlines, file


def _states(net, first: str) -> list[tuple[str, list[str]]]:
    """The phases, and where rules name stages each of them: a net may have a data layer for one stage alone."""
    states = []
    for phase in (first, "TEST") if first == "TRAIN" else (first,):
        rules = [rule for la in (*net.layer, *net.layers) for rule in la.include]
        rules = [rule for rule in rules if not rule.HasField("phase") or caffe_pb2.Phase.Name(rule.phase) == phase]
        stages = sorted({stage for rule in rules for stage in rule.stage})
        states += [(phase, [stage]) for stage in stages] or [(phase, [])]
    return states


def _problems(made: Outline, file: NetFile) -> list[Finding]:
    """What keeps layers from having shapes."""
    found = []
    for i, layer in enumerate(made.layers):
        if not layer.problem:
            continue
        missing = re.search(r"no blob '([^']*)'", layer.problem)
        field = "type" if "layer type" in layer.problem else ""
        if missing and missing[1] in layer.bottoms:
            field = f"bottom[{layer.bottoms.index(missing[1])}]"
        data = layer.type in (*DATA_TYPES, "Python")
        text = f"layer {layer.name} ({layer.type}): {layer.problem}"
        found.append(file.finding(made, i, text, field, error=not data))
    return found


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
        if param and not getattr(layer, param).HasField("weight_filler") and not fixed:
            text = f"layer {layer.name}: without a weight_filler its weights start at 0, all alike"
            found.append(file.finding(made, i, text, error=False))
    return found
