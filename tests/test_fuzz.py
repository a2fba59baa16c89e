"""A short run of tests/fuzz.py, and a case for each defect found by it or by reading upstream's layers."""

import contextlib
import os
import random
import re
import subprocess
import sys
from pathlib import Path

import caffe
import numpy as np
import pytest
from caffe.proto import caffe_pb2
from google.protobuf import text_format

import fuzz

PYTHON = [sys.executable, *(["-S"] if sys.flags.no_site else [])]
ROOT = Path(__file__).resolve().parent.parent
REFUSED = {  # net: (pattern that its error must match, prototxt)
    name: (pattern, text)
    for name, pattern, text in re.findall(
        r"^# ([^:\n]+): (.+)\n((?:[^#\n].*\n)+)", (ROOT / "tests/data/refused_nets.prototxt").read_text(), re.MULTILINE
    )
}


# --- The fuzzer ------------------------------------------------------------------------------------------------------
@pytest.mark.slow
def test_mutated_files_load_or_raise_caffe_error():
    command = [*PYTHON, ROOT / "tests" / "fuzz.py", "--cases", "5000", "--seed", "1"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stdout[-5000:] + done.stderr[-2000:]


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    before = Path.cwd()
    os.chdir(tmp_path_factory.mktemp("corpus"))
    try:
        yield fuzz.Corpus()
    finally:
        os.chdir(before)


def test_the_corpus_has_every_layer_and_solver_type():
    text = "".join([*fuzz.nets().values(), *fuzz.solvers().values()])
    assert set(re.findall(r'layer \{ name: "[^"]*" type: "(\w+)"', text)) >= set(fuzz.layer_types())
    types = {kind.__name__.removesuffix("Solver") for kind in caffe.SGDSolver.__subclasses__()} | {"SGD"}
    assert set(fuzz.SOLVERS) == types


@pytest.mark.parametrize("phase", [caffe.TRAIN, caffe.TEST])
def test_the_nets_of_the_corpus_run(corpus, phase):
    for net in corpus.nets.values():
        fuzz.run_net(caffe.Net(net, phase), random.Random(1), reshape=False)


def test_the_solvers_of_the_corpus_run(corpus):
    for solver in corpus.solvers.values():
        fuzz.run_solver(caffe.get_solver(solver))


def test_a_case_is_reproducible(corpus):
    def texts():
        cases = [fuzz.Case(corpus, 5, number) for number in range(40)]
        for case in cases:
            with contextlib.suppress(caffe.CaffeError):
                case.run()
        return [case.text for case in cases]

    first = texts()
    assert first == texts()
    assert len(set(first)) > 30


def test_a_worker_that_crashes_or_hangs_is_reported_and_replaced(tmp_path):
    stub = """
def stub(case):
    if case.number == 3: os.abort()
    if case.number == 4: signal.pause()
    if case.number == 5: raise ValueError("five")
    if case.number == 6: os.open(os.devnull, os.O_RDONLY)
Case.run = stub
"""
    text, main = (ROOT / "tests" / "fuzz.py").read_text().rsplit("if __name__", 1)
    program = tmp_path / "fuzz.py"
    program.write_text(text + stub + f"NETS = Path({str(fuzz.NETS)!r})\nif __name__" + main)
    command = [*PYTHON, program, "--cases", "9", "--jobs", "2", "--timeout", "3"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 1, done.stderr
    for found in ("case 3 of seed 1: ended by SIGABRT", "case 4 of seed 1: ended by SIGALRM", "ValueError: five"):
        assert found in done.stdout
    assert re.search("case 6 of seed 1: .*open", done.stdout)
    assert "5 loaded, 0 refused, 4 failed" in done.stdout


# --- Nets ------------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("name", REFUSED)
def test_a_net_that_crashed_is_refused(name, corpus):
    pattern, text = REFUSED[name]
    Path("refused.prototxt").write_text(text)
    with pytest.raises(caffe.CaffeError, match=pattern):
        caffe.Net("refused.prototxt", caffe.TRAIN).forward()


FC = 'layer { name: "fc" type: "InnerProduct" bottom: "x" top: "fc" inner_product_param { num_output: 4 } }\n'


def layer(kind, bottom, top, parameters=""):
    blobs = "".join(f'bottom: "{name}" ' for name in bottom.split()) + "".join(
        f'top: "{name}" ' for name in top.split()
    )
    return f'layer {{ name: "{kind}" type: "{kind}" {blobs}{parameters} }}\n'


def net_of(shapes, *layers, force_backward=True):
    """A net with an Input layer for each of {top: shape}, and these layers."""
    inputs = [
        layer("Input", "", top, f"input_param {{ shape {{ {' '.join(f'dim: {size}' for size in shape)} }} }}")
        for top, shape in shapes.items()
    ]
    text = f"force_backward: {str(force_backward).lower()}\n" + "".join([*inputs, *layers])
    return caffe.Net(text_format.Parse(text, caffe_pb2.NetParameter()), caffe.TRAIN)


@pytest.mark.parametrize("kind", ["SoftmaxWithLoss", "HingeLoss", "MultinomialLogisticLoss", "InfogainLoss"])
def test_a_label_that_becomes_invalid_before_the_backward_pass_is_refused(kind, corpus):
    source = 'infogain_loss_param { source: "infogain.binaryproto" }' if kind == "InfogainLoss" else ""
    net = net_of({"x": (2, 3), "label": (2,)}, FC, layer(kind, "fc label", "loss", source))
    net.forward()
    net.blobs["label"].data[...] = 1e6
    with pytest.raises(caffe.CaffeError, match="label"):
        net.backward()


def test_an_index_that_becomes_invalid_before_the_backward_pass_is_refused():
    reindex = layer("BatchReindex", "fc index", "y", "loss_weight: 1")
    net = net_of({"x": (3, 2), "index": (2,)}, FC, reindex, force_backward=False)
    net.forward()
    net.blobs["index"].data[...] = 1e6
    with pytest.raises(caffe.CaffeError, match="batch size"):
        net.backward()


def test_a_pooling_mask_with_invalid_indices_is_ignored():
    net = net_of({"x": (2, 3, 6, 6)}, layer("Pooling", "x", "y mask", "pooling_param { kernel_size: 2 }"))
    net.forward()
    net.blobs["mask"].data[...] = 1e7
    net.blobs["y"].diff[...] = 1
    net.backward()
    assert not net.blobs["x"].diff.any()


def test_a_filter_may_keep_nothing():
    layers = FC, layer("Filter", "fc keep", "y"), layer("Reduction", "y", "sum", "loss_weight: 1")
    net = net_of({"x": (3, 2), "keep": (3,)}, *layers, force_backward=False)
    net.forward()
    assert net.blobs["y"].data.shape == (0, 4)
    net.backward()


def test_a_loss_follows_the_sizes_of_its_bottoms():
    net = net_of({"a": (1, 2), "b": (1, 2), "same": (1,)}, layer("ContrastiveLoss", "a b same", "loss"))
    for name in ("a", "b", "same"):
        net.blobs[name].reshape(500, *net.blobs[name].shape[1:])
    net.blobs["a"].data[...] = 2
    net.blobs["same"].data[...] = 1
    assert net.forward()["loss"] == pytest.approx(4)
    net.backward()
    assert np.abs(net.blobs["a"].diff).sum() == pytest.approx(4)


@pytest.mark.parametrize(
    ("shape", "after", "layer_", "value"),
    [
        ((1, 9), (1, 2), layer("ArgMax", "x", "y", "argmax_param { top_k: 8 }"), "top_k"),
        (
            (1, 1, 1, 1),
            (1, 1, 9, 9),
            layer("Pooling", "x", "x", "pooling_param { pool: AVE kernel_size: 2 stride: 2 pad: 1 }"),
            "in place",
        ),
    ],
)
def test_a_reshaped_input_that_a_layer_cannot_use_is_refused(shape, after, layer_, value):
    net = net_of({"x": shape}, layer_)
    net.blobs["x"].reshape(*after)
    with pytest.raises(caffe.CaffeError, match=value):
        net.forward()


def test_a_blob_that_cannot_be_reshaped_keeps_its_shape():
    blob = net_of({"x": (2, 3)}).blobs["x"]
    for shape in ((4, -1), (65536, 65536), (0, 65536, 65536)):
        with pytest.raises(caffe.CaffeError):
            blob.reshape(*shape)
        assert list(blob.shape) == [2, 3]
        assert blob.data.shape == (2, 3)


def test_too_little_memory_is_a_caffe_error(tmp_path):
    code = (
        "import caffe, resource\n"
        "resource.setrlimit(resource.RLIMIT_AS, (3 << 30, 3 << 30))\n"
        "try: caffe.Net('net.prototxt', caffe.TEST).forward()\n"
        "except caffe.CaffeError as error: print(error)\n"
    )
    data = "dummy_data_param { shape { dim: 1024 dim: 1024 dim: 1024 } }"
    (tmp_path / "net.prototxt").write_text(layer("DummyData", "", "x", data))
    done = subprocess.run([*PYTHON, "-c", code], capture_output=True, text=True, cwd=tmp_path)
    assert "layer DummyData" in done.stdout and "allocation" in done.stdout, done.stderr


def test_a_test_net_whose_outputs_grow_is_refused():
    data = layer("DummyData", "", "x", "dummy_data_param { shape { dim: 64 dim: 1 } data_filler { type: 'gaussian' } }")
    test_net = data + layer("Threshold", "x", "keep") + layer("Filter", "x keep", "y")
    train_net = data + FC
    text = f"train_net_param {{ {train_net} }} test_net_param {{ {test_net} }} test_iter: 50 test_interval: 1"
    text += ' random_seed: 1 base_lr: 0.1 lr_policy: "fixed"'
    solver = caffe.get_solver(text_format.Parse(text, caffe_pb2.SolverParameter()))
    with pytest.raises(caffe.CaffeError, match="grown|grew"):
        solver.step(1)


# --- Text, weights and states ----------------------------------------------------------------------------------------
def test_text_that_is_not_utf8_is_refused(tmp_path):
    path = tmp_path / "net.prototxt"
    path.write_bytes(b'layer { name: "caf\xe9" type: "Input" top: "x" input_param { shape { dim: 1 } } }')
    with pytest.raises(caffe.CaffeError, match=r'name.*"caf\?".*UTF-8'):
        caffe.Net(str(path), caffe.TEST)
    path.write_text(path.read_bytes().decode("latin-1"), encoding="utf-8")
    assert caffe.Net(str(path), caffe.TEST)._layer_names == ["café"]
    with pytest.raises(caffe.CaffeError, match=r"no\?such"):
        caffe.Net(os.fsencode(tmp_path) + b"/no\xffsuch", caffe.TEST)


def test_a_message_without_a_required_field_is_refused():
    net = caffe_pb2.NetParameter()
    net.layer.add(type="Clip").clip_param.min = 1
    with pytest.raises(caffe.CaffeError, match="clip_param.max"):
        caffe.Net(net, caffe.TEST)


def test_a_file_that_does_not_parse_is_closed(tmp_path):
    path = tmp_path / "net.prototxt"
    path.write_text("layer {")
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(3):
        with pytest.raises(caffe.CaffeError):
            caffe.Net(str(path), caffe.TEST)
    assert len(os.listdir("/proc/self/fd")) == before


def test_weights_that_do_not_fit_change_nothing(corpus):
    other = caffe_pb2.NetParameter()
    other.CopyFrom(corpus.nets["trained"])
    other.layer[-3].inner_product_param.num_output = 7
    other = caffe.Net(other, caffe.TRAIN)
    other.save_hdf5("wrong.caffemodel.h5")
    other.save("wrong.caffemodel")
    gradients = caffe_pb2.NetParameter()
    gradients.CopyFrom(corpus.weights)
    gradients.layer[-2].blobs[-1].diff.append(1)
    Path("gradients.caffemodel").write_bytes(gradients.SerializeToString())
    net = caffe.Net("trained.prototxt", caffe.TRAIN)
    before = [blob.data.copy() for blobs in net.params.values() for blob in blobs]
    for name in ("wrong.caffemodel", "wrong.caffemodel.h5", "gradients.caffemodel"):
        with pytest.raises(caffe.CaffeError):
            net.copy_from(name)
        for old, new in zip(before, (blob.data for blobs in net.params.values() for blob in blobs)):
            np.testing.assert_array_equal(old, new)
    other.save_hdf5("wrong.caffemodel.h5")  # the failed load has closed the file


STATES = {
    "a negative iteration": lambda state: setattr(state, "iter", -1),
    "a negative step": lambda state: setattr(state, "current_step", -1),
    "missing history": lambda state: state.history.pop(),
    "another shape": lambda state: state.history[-1].shape.dim.append(1),
    "missing values": lambda state: state.history[-1].data.pop(),
    "surplus gradients": lambda state: state.history[-1].diff.append(1),
    "no weights": lambda state: setattr(state, "learned_net", "nowhere"),
}


@pytest.mark.parametrize("change", STATES)
def test_a_state_that_does_not_fit_changes_nothing(change, corpus):
    state = caffe_pb2.SolverState()
    state.CopyFrom(corpus.states["Adam"])
    STATES[change](state)
    Path("wrong.solverstate").write_bytes(state.SerializeToString())
    refuse(corpus, "wrong.solverstate")


def test_an_hdf5_state_of_another_solver_changes_nothing(corpus):
    message = caffe_pb2.SolverParameter()
    message.CopyFrom(corpus.solvers["SGD"])
    message.snapshot_format = caffe_pb2.SolverParameter.HDF5
    solver = caffe.get_solver(message)
    solver.step(2)
    solver.snapshot()
    refuse(corpus, "snap_iter_2.solverstate.h5")


def refuse(corpus, filename):
    solver = caffe.get_solver(corpus.solvers["Adam"])
    solver.step(1)
    before = fuzz.state_of(solver)
    with pytest.raises(caffe.CaffeError):
        solver.restore(filename)
    assert fuzz.state_of(solver) == before
    solver.step(1)
