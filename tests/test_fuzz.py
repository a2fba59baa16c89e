"""A short run of tests/fuzz.py, and a case for each defect that it and a reading of upstream's layers have found."""

import contextlib
import os
import random
import subprocess
import sys
from pathlib import Path

import caffe
import numpy as np
import pytest
from caffe.proto import caffe_pb2
from google.protobuf import text_format

import fuzz
import fuzz_corpus
from fuzz_corpus import FC, ONE, PLACE, X_LABEL, XAVIER, dummy, layer

PYTHON = [sys.executable, *(["-S"] if sys.flags.no_site else [])]
ROOT = Path(__file__).resolve().parent.parent


# --- The run and its parts -------------------------------------------------------------------------------------------
def test_mutated_files_load_or_raise_caffe_error():
    command = [*PYTHON, ROOT / "tests" / "fuzz.py", "--cases", "5000", "--seed", "1"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stdout[-5000:] + done.stderr[-2000:]
    assert " 0 failed" in done.stdout


def test_the_commands_show_help_and_refuse_what_they_do_not_know():
    for command in ([*PYTHON, ROOT / "tests" / "fuzz.py"], [ROOT / "tests" / "sanitize.sh"]):
        shown = subprocess.run([*command, "--help"], capture_output=True, text=True, check=True)
        assert f"tests/{command[-1].name}" in shown.stdout
        assert subprocess.run([*command, "--no-such-flag"], capture_output=True).returncode == 2


@pytest.fixture(scope="module")
def hdf5():
    return fuzz_corpus.Hdf5()


@pytest.fixture(scope="module")
def corpus(hdf5, tmp_path_factory):
    before, folder = Path.cwd(), tmp_path_factory.mktemp("corpus")
    os.chdir(folder)
    try:
        yield fuzz.Corpus(hdf5)
    finally:
        os.chdir(before)


@pytest.fixture
def here(corpus, monkeypatch):
    """The folder with the corpus' files, as the current one."""
    return Path.cwd()


def test_the_corpus_has_every_layer_type():
    assert fuzz_corpus.layer_types() >= set(caffe.layer_type_list()) - {"Python"}


def test_the_corpus_has_every_solver():
    types = {kind.__name__[: -len("Solver")] for kind in caffe.SGDSolver.__subclasses__()} | {"SGD"}
    assert set(fuzz_corpus.KINDS) == types


@pytest.mark.parametrize("phase", [caffe.TRAIN, caffe.TEST])
@pytest.mark.parametrize("name", fuzz_corpus.nets())
def test_the_nets_run_as_they_stand(name, phase, corpus):
    fuzz.run_net(caffe.Net(corpus.nets[name], phase), random.Random(1), reshape=False)


@pytest.mark.parametrize("name", fuzz_corpus.solvers())
def test_the_solvers_run_as_they_stand(name, corpus):
    fuzz.run_solver(caffe.get_solver(corpus.solvers[name]))


def test_a_case_is_always_the_same(corpus, hdf5):
    def texts():
        cases = [fuzz.Case(corpus, hdf5, 5, number) for number in range(40)]
        for case in cases:
            with contextlib.suppress(caffe.CaffeError):
                case.run()
        return [case.text for case in cases]

    first = texts()
    assert first == texts()
    assert len(set(first)) > 35


def test_mutations_change_messages_texts_bytes_and_trees(corpus):
    rng = random.Random(3)
    net = corpus.nets["convolution"]
    text = text_format.MessageToString(net)
    trees = repr(corpus.weight_tree)
    changes = [
        (lambda: fuzz.mutated(rng, net), net),
        (lambda: fuzz.mutate_text(rng, text), text),
        (lambda: fuzz.mutate_bytes(rng, text.encode()), text.encode()),
    ]
    for mutate, original in changes:
        different = sum(mutate() != original for _ in range(100))
        assert different > 80
    assert text == text_format.MessageToString(net)
    tree = fuzz.copied(corpus.weight_tree)
    for _ in range(20):
        fuzz.mutate_tree(rng, tree)
    assert repr(tree) != trees == repr(corpus.weight_tree)


def test_a_worker_that_dies_or_hangs_is_reported_and_replaced(tmp_path):
    code = (
        "import os, sys, time\n"
        f"sys.path.insert(0, {str(ROOT / 'tests')!r})\n"
        "import fuzz\n"
        "def run(case):\n"
        "    if case.number == 3: os.abort()\n"
        "    if case.number == 4: time.sleep(60)\n"
        "    if case.number == 5: open(os.devnull).__class__; raise ValueError('five')\n"
        "    if case.number == 6: case.kept = os.open(os.devnull, os.O_RDONLY)\n"
        "fuzz.Case.run = run\n"
        "sys.exit(fuzz.main(['--cases', '9', '--jobs', '2', '--timeout', '3']))\n"
    )
    done = subprocess.run([*PYTHON, "-c", code], capture_output=True, text=True, cwd=tmp_path, timeout=300)
    assert done.returncode == 1, done.stderr
    for says in (
        "case 3 of seed 1: ended by SIGABRT",
        "case 4 of seed 1: no end after 3 seconds",
        "ValueError: five",
        "case 6 of seed 1: files left open",
        "6 loaded, 0 refused, 4 failed",
    ):
        assert says in done.stdout


# --- Nets that crashed -----------------------------------------------------------------------------------------------
def image(*shape):
    return layer("Input", "", "x", f"input_param {{ shape {{ {' '.join(f'dim: {n}' for n in shape)} }} }}")


def convolution(text, kind="Convolution"):
    return PLACE + layer(kind, "x", "y", f"convolution_param {{ num_output: 2 {text} }}")


def labelled(kind, value, text="", before=""):
    """A loss whose labels are all `value`."""
    data = dummy("x label", (2, 3), (2,), filler=('type: "constant" value: 0.3', f'type: "constant" value: {value}'))
    return data + before + layer(kind, "x label", "y", text)


def window(source="windows.txt", more="", transform="crop_size: 6"):
    text = f'source: "{source}" batch_size: 2 fg_threshold: 0.5 bg_threshold: 0.4 {more}'
    return layer("WindowData", "", "x label", f"window_data_param {{ {text} }} transform_param {{ {transform} }}")


EMPTY = ("Softmax", "BatchNorm", "MVN", "LRN", "ArgMax", "Scale", "Bias", "SPP")
REFUSED = {
    # divided by zero
    **{f"empty {kind}": (image(2, 0, 3, 3) + layer(kind, "x", "y"), "layer y .*bottom x is empty") for kind in EMPTY},
    "empty loss": (dummy("t", (2,)) + image(0, 3) + layer("HingeLoss", "x x", "y"), "is empty"),
    "reshape of nothing": (
        image(2, 0, 3) + layer("Reshape", "x", "y", "reshape_param { shape { dim: 0 dim: 0 dim: -1 } }"),
        "nothing to infer",
    ),
    "reshape beyond an int": (
        image(2, 3) + layer("Reshape", "x", "y", "reshape_param { shape { dim: 65536 dim: 65536 dim: -1 } }"),
        "product of the sizes",
    ),
    "group 0": (convolution("kernel_size: 1 group: 0"), r"layer y \(Convolution\): .*group is 0: it must be 1 to"),
    "stride 0": (convolution("kernel_size: 1 stride: 0"), "stride is 0"),
    "stride_h alone": (convolution("kernel_size: 1 stride_h: 1"), "stride_h and stride_w"),
    "stride_h alone, im2col": (convolution("kernel_size: 1 stride_h: 1", "Im2col"), "stride_h and stride_w"),
    "pooling stride 0": (
        PLACE + layer("Pooling", "x", "y", "pooling_param { kernel_size: 2 stride: 0 }"),
        "stride is 0",
    ),
    # wrote beyond the heap
    "no output": (convolution("kernel_size: 9"), "outputs for 6 inputs"),
    "no output, im2col": (convolution("kernel_size: 9", "Im2col"), "outputs for 6 inputs"),
    "no output, deconvolution": (convolution("kernel_size: 2 pad: 5", "Deconvolution"), "outputs for 6 inputs"),
    "kernel beyond an int": (convolution("kernel_size: 2097153"), "kernel_size is 2097153: it must be 1 to 1048576"),
    "pad beyond an int": (convolution("kernel_size: 1 pad: 4294967295"), "pad is 4294967295"),
    "dilation 0": (convolution("kernel_size: 2 dilation: 0"), "dilation is 0: it must be 1 to 1024"),
    "tile in place": (PLACE + layer("Tile", "x", "x", "tile_param { tiles: 3 }", "t"), "layer t .*in place"),
    "loss in place": (dummy("x t", (2, 3), (2, 3)) + layer("EuclideanLoss", "x t", "x", "", "l"), "layer l "),
    "tiles beyond an int": (PLACE + layer("Tile", "x", "y", "tile_param { tiles: 2147483647 }"), "tiles"),
    "blobs of another shape": (
        PLACE
        + layer(
            "InnerProduct",
            "x",
            "y",
            "inner_product_param { num_output: 2 bias_term: false } blobs { shape { dim: 1 dim: 1 } data: 1 }",
        ),
        "blob 0 is given with another shape",
    ),
    "blobs too few": (
        PLACE + layer("BatchNorm", "x", "y", "blobs { shape { dim: 3 } data: 1 data: 1 data: 1 }"),
        "the blobs given",
    ),
    "sizes beside a 0": (image(0, 65536, 65536), "exceeds INT_MAX"),
    "a size beyond an int": (image(4294967300), "dim is 4294967300"),
    "axes beyond an int": (PLACE + layer("Scale", "x", "y", "scale_param { num_axes: 2147483647 }"), "num_axes is"),
    "input_dim too short": ('input: "x" input: "y" input_dim: 1 input_dim: 2 input_dim: 3 input_dim: 4', "input_dim"),
    "input_shape too short": ('input: "x" input: "y" input_shape { dim: 1 }', "input_shape"),
    "pooling kernel beyond an int": (
        image(1, 1, 2, 2) + layer("Pooling", "x", "y", "pooling_param { kernel_size: 1048576 }"),
        "the size of its kernel",
    ),
    # labels and indices
    **{
        f"label {value} of {kind}": (labelled(kind, value), "layer y .*label")
        for kind in ("HingeLoss", "MultinomialLogisticLoss", "SoftmaxWithLoss", "Accuracy")
        for value in (3, -1)
    },
    "label of infogain": (
        dummy("x label h", (2, 3), (2,), (3, 3), filler=('type: "gaussian"', 'type: "constant" value: 3', ONE))
        + layer("InfogainLoss", "x label h", "y"),
        "a label and the number of classes",
    ),
    "index of embed": (
        dummy("i", (2,), filler='type: "constant" value: 9')
        + layer("Embed", "i", "y", f"embed_param {{ num_output: 2 input_dim: 4 {XAVIER} }}"),
        "an index",
    ),
    "third bottom of contrastive": (
        dummy("a b c", (3, 2), (3, 2), (1,)) + layer("ContrastiveLoss", "a b c", "y"),
        "layer y",
    ),
    # never ended
    "no prefetch": (
        layer("Data", "", "x", 'data_param { source: "lmdb" batch_size: 1 backend: LMDB prefetch: 0 }'),
        r"prefetch is 0: it must be 1 to 1024",
    ),
    "filler of infinite range": (dummy("x", (2,), filler='type: "uniform" min: -3e38 max: 3e38'), "min is -3"),
    "dropout of all": (PLACE + layer("Dropout", "x", "y", "dropout_param { dropout_ratio: 1 }"), "dropout_ratio is 1"),
    # data
    "empty database": (
        layer("Data", "", "x", 'data_param { source: "empty_lmdb" batch_size: 1 backend: LMDB }'),
        "empty",
    ),
    "no windows": (window("windows_empty.txt"), "Check failed"),
    "windows that break off": (window("windows_short.txt"), "breaks off"),
    "windows of odd numbers": (window("windows_odd.txt"), "x1 y1 x2 y2"),
    "all of a crop is context": (window(more="context_pad: 3"), "context_pad"),
    "a share above 1": (window(more="fg_fraction: 3"), "fg_fraction is 3: it must be 0 to 1"),
    "a mean smaller than a crop": (window(transform='crop_size: 6 mean_file: "small_mean.binaryproto"'), "the mean"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_a_net_that_crashed_is_refused(name, here):
    text, says = REFUSED[name]
    Path("refused.prototxt").write_text(text)
    with pytest.raises(caffe.CaffeError, match=says):
        caffe.Net("refused.prototxt", caffe.TRAIN).forward()


def built(text, **options):
    return caffe.Net(text_format.Parse(text, caffe_pb2.NetParameter()), caffe.TRAIN, **options)


def test_windows_need_not_be_numbered_from_0(here):
    odd = Path("windows.txt").read_text().replace("# 0", "# 7").replace("# 3", "# 90")
    Path("numbered.txt").write_text(odd)
    assert built(window("numbered.txt")).forward()["label"].shape == (2,)


@pytest.mark.parametrize("kind", ["SoftmaxWithLoss", "HingeLoss", "MultinomialLogisticLoss", "InfogainLoss"])
def test_labels_that_change_before_the_backward_pass_are_refused(kind, here):
    text = 'infogain_loss_param { source: "infogain.binaryproto" }' if kind == "InfogainLoss" else ""
    net = built("force_backward: true " + X_LABEL + FC + layer(kind, "fc label", "y", text))
    net.forward()
    net.blobs["label"].data[...] = 1e6
    with pytest.raises(caffe.CaffeError, match="label"):
        net.backward()


def test_indices_that_change_before_the_backward_pass_are_refused(here):
    data = dummy("x index", (3, 2), (2,), filler=('type: "gaussian"', ONE))
    net = built(data + FC + layer("BatchReindex", "fc index", "y", "loss_weight: 1"))
    net.forward()
    net.blobs["index"].data[...] = 1e6
    with pytest.raises(caffe.CaffeError, match="greater than batch size"):
        net.backward()


def test_a_pooling_mask_that_others_wrote_to_stays_within_the_bottom():
    net = built("force_backward: true " + PLACE + layer("Pooling", "x", "y mask", "pooling_param { kernel_size: 2 }"))
    net.forward()
    net.blobs["mask"].data[...] = 1e7
    net.blobs["y"].diff[...] = 1
    net.backward()
    assert not net.blobs["x"].diff.any()


def test_nothing_is_left_by_a_filter():
    data = dummy("x keep", (3, 2), (3,), filler=('type: "gaussian"', 'type: "constant" value: 0'))
    net = built(data + FC + layer("Filter", "fc keep", "y") + layer("Reduction", "fc", "sum", "loss_weight: 1"))
    net.blobs["x"].data[...] = 1
    assert net.forward()["y"].shape == (0, 4)
    net.backward()
    np.testing.assert_array_equal(net.blobs["fc"].diff, 1)  # the other way alone


def test_losses_follow_the_sizes_of_their_bottoms():
    inputs = "".join(
        layer("Input", "", top, f"input_param {{ shape {{ {dims} }} }}")
        for top, dims in (("a", "dim: 1 dim: 2"), ("b", "dim: 1 dim: 2"), ("same", "dim: 1"))
    )
    net = built("force_backward: true " + inputs + layer("ContrastiveLoss", "a b same", "loss"))
    net.forward()
    for name, blob in net.blobs.items():
        if name != "loss":
            blob.reshape(500, *blob.shape[1:])
    net.blobs["a"].data[...] = 2
    net.blobs["same"].data[...] = 1
    assert net.forward()["loss"] == pytest.approx(4)
    net.backward()
    assert np.abs(net.blobs["a"].diff).sum() == pytest.approx(4)


def test_argmax_of_fewer_than_top_k_is_refused():
    net = built(image(1, 9) + layer("ArgMax", "x", "y", "argmax_param { top_k: 8 }"))
    net.blobs["x"].reshape(1, 2)
    with pytest.raises(caffe.CaffeError, match="top_k"):
        net.forward()


def test_a_layer_in_place_that_would_change_its_shape_after_a_reshape_is_refused():
    pooling = "pooling_param { pool: AVE kernel_size: 2 stride: 2 pad: 1 }"
    net = built(image(1, 1, 1, 1) + layer("Pooling", "x", "x", pooling, "p"))
    net.blobs["x"].reshape(1, 1, 9, 9)
    with pytest.raises(caffe.CaffeError, match="in place"):
        net.forward()


def test_a_blob_that_cannot_be_reshaped_keeps_its_shape():
    blob = built(image(2, 3)).blobs["x"]
    for shape in ((4, -1), (65536, 65536), (0, 65536, 65536)):
        with pytest.raises(caffe.CaffeError):
            blob.reshape(*shape)
        assert list(blob.shape) == [2, 3]
        assert blob.data.shape == (2, 3)


def test_given_blobs_are_taken():
    given = "blobs { shape { dim: 1 dim: 2 } data: 3 data: 4 } blobs { shape { dim: 1 } data: 5 }"
    net = built(image(1, 2) + layer("InnerProduct", "x", "y", f"inner_product_param {{ num_output: 1 }} {given}"))
    net.blobs["x"].data[...] = [[1, 10]]
    assert net.forward()["y"] == 48


# --- Text ------------------------------------------------------------------------------------------------------------
def test_text_that_is_not_utf8_is_refused(tmp_path):
    path = tmp_path / "net.prototxt"
    path.write_bytes(b'layer { name: "caf\xe9" type: "Input" top: "x" input_param { shape { dim: 1 } } }')
    with pytest.raises(caffe.CaffeError, match=r'name is "caf\?", which is not UTF-8'):
        caffe.Net(str(path), caffe.TEST)
    path.write_text(path.read_bytes().decode("latin-1"), encoding="utf-8")
    assert caffe.Net(str(path), caffe.TEST)._layer_names == ["café"]


def test_an_error_about_a_file_whose_name_is_not_utf8_can_be_shown(tmp_path):
    with pytest.raises(caffe.CaffeError, match=r"no\?such"):
        caffe.Net(os.fsencode(tmp_path) + b"/no\xffsuch", caffe.TEST)


def test_a_message_without_a_required_field_is_refused():
    net = caffe_pb2.NetParameter()
    net.layer.add(type="Clip").clip_param.min = 1
    with pytest.raises(caffe.CaffeError, match="clip_param.max"):
        caffe.Net(net, caffe.TEST)


def test_too_little_memory_is_a_caffe_error(tmp_path):
    (tmp_path / "net.prototxt").write_text(dummy("x", (1024, 1024, 1024)))
    code = (
        "import caffe, resource\n"
        "resource.setrlimit(resource.RLIMIT_AS, (3 << 30, 3 << 30))\n"
        "try: caffe.Net('net.prototxt', caffe.TEST).forward()\n"
        "except caffe.CaffeError as error: print(error)\n"
    )
    done = subprocess.run([*PYTHON, "-c", code], capture_output=True, text=True, cwd=tmp_path)
    assert done.stdout.startswith("layer x (DummyData): "), done.stderr
    assert "allocation" in done.stdout


# --- Weights, states and HDF5 ----------------------------------------------------------------------------------------
def open_files():
    return sorted(os.listdir("/proc/self/fd"))


def test_a_file_that_does_not_parse_is_closed(tmp_path):
    path = tmp_path / "net.prototxt"
    path.write_text("layer {")
    before = open_files()
    for _ in range(3):
        with pytest.raises(caffe.CaffeError):
            caffe.Net(str(path), caffe.TEST)
    assert open_files() == before


TREES = {
    "no group": lambda tree: tree.pop("data"),
    "no blob": lambda tree: tree["data"]["fc"].pop("1"),
    "another shape": lambda tree: tree["data"]["fc"].update({"1": np.zeros((4, 4), np.float32)}),
    "a text": lambda tree: tree["data"]["fc"].update({"1": b"text"}),
    "a group": lambda tree: tree["data"]["fc"].update({"1": {}}),
}


@pytest.mark.parametrize("change", TREES)
def test_hdf5_weights_that_do_not_fit_change_nothing_and_are_closed(change, corpus, hdf5, here):
    tree = fuzz.copied(corpus.weight_tree)
    TREES[change](tree)
    hdf5.write("weights.h5", tree)
    net = caffe.Net("trained.prototxt", caffe.TRAIN)
    before = [blob.data.copy() for blobs in net.params.values() for blob in blobs]
    with pytest.raises(caffe.CaffeError):
        net.copy_from("weights.h5")
    for old, new in zip(before, (blob.data for blobs in net.params.values() for blob in blobs)):
        np.testing.assert_array_equal(old, new)
    assert hdf5.open_objects() == 0
    hdf5.write("weights.h5", corpus.weight_tree)  # the file is free
    net.copy_from("weights.h5")


STATES = {
    "an iteration below 0": lambda state: setattr(state, "iter", -1),
    "a step below 0": lambda state: setattr(state, "current_step", -1),
    "too little history": lambda state: state.history.pop(),
    "another shape": lambda state: state.history[-1].shape.dim.append(1),
    "too few values": lambda state: state.history[-1].data.pop(),
    "gradients that do not fit": lambda state: state.history[-1].diff.append(1),
    "no weights": lambda state: setattr(state, "learned_net", "nowhere"),
}


@pytest.mark.parametrize("change", STATES)
def test_a_state_that_does_not_fit_changes_nothing(change, corpus, here):
    state = caffe_pb2.SolverState()
    state.CopyFrom(corpus.states["Adam"])
    STATES[change](state)
    Path("wrong.solverstate").write_bytes(state.SerializeToString())
    refuse_state("wrong.solverstate", corpus)


HDF5_STATES = {
    "many iterations": {"iter": np.ones(5000, np.int32)},
    "an iteration below 0": {"iter": np.array([-1], np.int32)},
    "a text for an iteration": {"iter": b"text"},
    "numbers for a text": {"learned_net": np.ones(3, np.float32)},
    "a step below 0": {"current_step": np.array([-1], np.int32)},
    "no history": {"history": {}},
    "a text for history": {"history": b"text"},
}


@pytest.mark.parametrize("change", HDF5_STATES)
def test_an_hdf5_state_that_does_not_fit_changes_nothing(change, corpus, hdf5, here):
    hdf5.write("wrong.solverstate.h5", {**corpus.state_trees["Adam"], **HDF5_STATES[change]})
    refuse_state("wrong.solverstate.h5", corpus)
    assert hdf5.open_objects() == 0


def refuse_state(filename, corpus):
    solver = caffe.get_solver(corpus.solvers["Adam"])
    solver.step(1)
    before = fuzz.state_of(solver)
    with pytest.raises(caffe.CaffeError):
        solver.restore(filename)
    assert fuzz.state_of(solver) == before
    solver.step(1)


def test_weights_whose_gradients_do_not_fit_change_nothing(corpus, here):
    weights = caffe_pb2.NetParameter()
    weights.CopyFrom(corpus.weights)
    weights.layer[-2].blobs[-1].diff.append(1)
    weights.layer[1].blobs[0].data[0] = 77
    Path("wrong.caffemodel").write_bytes(weights.SerializeToString())
    net = caffe.Net("trained.prototxt", caffe.TRAIN)
    with pytest.raises(caffe.CaffeError, match="gradients"):
        net.copy_from("wrong.caffemodel")
    assert net.params["conv"][0].data.flat[0] != 77


def test_a_second_hdf5_file_with_shorter_rows_is_refused(hdf5, here):
    hdf5.write("short.h5", {"data": np.ones((4, 2), np.float32), "label": np.zeros(4, np.float32)})
    Path("two.txt").write_text("data1.h5\nshort.h5\n")
    net = built(layer("HDF5Data", "", "data label", 'hdf5_data_param { source: "two.txt" batch_size: 3 }'))
    net.forward()
    with pytest.raises(caffe.CaffeError, match="the values of a row of data in short.h5"):
        net.forward()


def test_an_hdf5_file_without_rows_is_refused(hdf5, here):
    hdf5.write("none.h5", {"data": np.ones((0, 2), np.float32)})
    Path("one.txt").write_text("none.h5\n")
    with pytest.raises(caffe.CaffeError, match="layer data "):
        built(layer("HDF5Data", "", "data", 'hdf5_data_param { source: "one.txt" batch_size: 3 }'))


def test_a_test_net_whose_outputs_grow_is_refused():
    test_net = dummy("x", (64, 1)) + layer("Threshold", "x", "keep") + layer("Filter", "x keep", "y")
    train_net = dummy("x", (1, 1)) + layer(
        "InnerProduct", "x", "z", f"inner_product_param {{ num_output: 1 {XAVIER} }}"
    )
    solver = caffe.get_solver(
        text_format.Parse(
            f"train_net_param {{ {train_net} }} test_net_param {{ {test_net} }} test_iter: 50 test_interval: 1"
            ' random_seed: 1 base_lr: 0.1 lr_policy: "fixed"',
            caffe_pb2.SolverParameter(),
        )
    )
    with pytest.raises(caffe.CaffeError, match="have grown"):
        solver.step(1)
