import gc
import subprocess
import sys
from pathlib import Path

import caffe
import numpy as np
import pytest

NET = """
force_backward: true
layer { name: "data" type: "Input" top: "data" input_param { shape { dim: 2 dim: 3 dim: 4 dim: 5 } } }
layer { name: "fc" type: "InnerProduct" bottom: "data" top: "fc"
        inner_product_param { num_output: 6 weight_filler { type: "xavier" } } }
layer { name: "act" type: "%s" bottom: "fc" top: "act" }
"""
TWO = NET % "ReLU" + (
    'layer { name: "fc2" type: "InnerProduct" bottom: "act" top: "fc2" inner_product_param { num_output: %d } }'
)


@pytest.fixture
def net_file(tmp_path):
    path = tmp_path / "net.prototxt"
    path.write_text(NET % "LReLU")
    return path


def test_our_layers_are_registered_beside_the_stock_ones():
    assert {"PReLU", "LReLU", "ReLU", "Convolution", "Data"} <= set(caffe.layer_type_list())


def test_forward_and_backward_agree_with_numpy(net_file):
    net = caffe.Net(str(net_file), caffe.TEST)
    rng = np.random.default_rng(1)
    x = rng.normal(size=(2, 3, 4, 5)).astype(np.float32)
    y = net.forward(data=x)["act"]
    weights, bias = (blob.data.astype(np.float64) for blob in net.params["fc"])
    z = x.reshape(2, -1) @ weights.T + bias
    np.testing.assert_allclose(y, np.where(z > 0, z, 0.01 * z), rtol=1e-5, atol=1e-6)
    dy = rng.normal(size=y.shape).astype(np.float32)
    net.blobs["act"].diff[...] = dy
    net._backward(len(net.layers) - 1, 0)
    np.testing.assert_allclose(
        net.params["fc"][0].diff, (dy * np.where(z > 0, 1, 0.01)).T @ x.reshape(2, -1), rtol=1e-4, atol=1e-5
    )


def test_weights_are_saved_copied_and_shared(net_file, tmp_path):
    a, b, c = (caffe.Net(str(net_file), caffe.TEST) for _ in range(3))
    a.save(str(tmp_path / "a.caffemodel"))
    b.copy_from(str(tmp_path / "a.caffemodel"))
    c.share_with(a)
    a.params["fc"][0].data[0, 0] += 1
    assert c.params["fc"][0].data[0, 0] == a.params["fc"][0].data[0, 0]
    assert b.params["fc"][0].data[0, 0] == pytest.approx(a.params["fc"][0].data[0, 0] - 1, abs=1e-6)
    d = caffe.Net(str(net_file), caffe.TEST, weights=str(tmp_path / "a.caffemodel"))
    np.testing.assert_array_equal(d.params["fc"][0].data, b.params["fc"][0].data)


@pytest.mark.parametrize(
    ("text", "named"),
    [
        (NET % "LRelu", "LRelu"),
        (NET.replace("num_output", "num_outputs") % "ReLU", r":5:\d+: .*num_outputs"),
        (NET.replace('bottom: "fc"', 'bottom: "fd"') % "ReLU", "'fd'"),
        (NET.replace("num_output: 6", "num_output: 0") % "ReLU", None),
    ],
)
def test_a_mistake_is_an_exception_and_the_next_net_builds(text, named, tmp_path, net_file):
    wrong = tmp_path / "wrong.prototxt"
    wrong.write_text(text)
    with pytest.raises(caffe.CaffeError, match=named):
        caffe.Net(str(wrong), caffe.TEST)
    assert issubclass(caffe.CaffeError, RuntimeError)
    assert caffe.Net(str(net_file), caffe.TEST).forward()


def test_missing_files_and_devices_are_exceptions(net_file, tmp_path):
    with pytest.raises(caffe.CaffeError, match=r"nowhere\.prototxt"):
        caffe.Net(str(tmp_path / "nowhere.prototxt"), caffe.TEST)
    with pytest.raises(caffe.CaffeError, match=r"nowhere\.caffemodel"):
        caffe.Net(str(net_file), caffe.TEST, weights=str(tmp_path / "nowhere.caffemodel"))
    with pytest.raises(caffe.CaffeError, match=r"nowhere\.prototxt"):
        caffe.SGDSolver(str(tmp_path / "nowhere.prototxt"))
    with pytest.raises(caffe.CaffeError, match="GPU"):
        caffe.set_mode_gpu()
    with pytest.raises(caffe.CaffeError, match="99"):
        caffe.Net(str(net_file), caffe.TEST)._forward(0, 99)


def test_nothing_is_written_to_the_terminal(net_file):
    code = f"import caffe; caffe.Net({str(net_file)!r}, caffe.TEST); caffe.init_log(2); caffe.init_log(2)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert (done.stdout, done.stderr) == ("", "")


def test_a_view_outlives_a_reshape_of_its_blob(net_file):
    blob = caffe.Net(str(net_file), caffe.TEST).blobs["data"]
    view = blob.data
    view[...] = 7
    blob.reshape(500, 3, 4, 5)
    others = [np.full(view.shape, 1, np.float32) for _ in range(100)]
    assert (view == 7).all()
    assert blob.data.shape == (500, 3, 4, 5)
    del others


def test_input_arrays_are_kept_and_must_be_float32(tmp_path):
    path = tmp_path / "memory.prototxt"
    path.write_text(
        'layer { name: "data" type: "MemoryData" top: "data" top: "label"'
        " memory_data_param { batch_size: 2 channels: 1 height: 2 width: 2 } }"
    )
    net = caffe.Net(str(path), caffe.TEST)
    net.set_input_arrays(np.full((4, 1, 2, 2), 7, np.float32), np.arange(4, dtype=np.float32))
    others = [np.full((4, 1, 2, 2), -1, np.float32) for _ in range(100)]
    assert (net.forward()["data"] == 7).all()
    del others
    for data, labels in [
        (np.zeros((4, 1, 2, 2)), np.zeros(4, np.float32)),
        (np.zeros((4, 1, 2, 2), "f"), np.arange(4)),
    ]:
        with pytest.raises(caffe.CaffeError, match="float32"):
            net.set_input_arrays(data, labels)
    with pytest.raises(caffe.CaffeError, match="height"):
        net.set_input_arrays(np.zeros((4, 1, 3, 2), "f"), np.zeros(4, "f"))


def test_the_caffe_program_fails_in_one_line():
    program = Path(__file__).parent.parent / "build" / "caffe"
    if not program.exists():
        pytest.skip("needs the build folder")
    done = subprocess.run([program, "train", "--solver", "nowhere"], capture_output=True, text=True)
    assert done.returncode == 1
    assert "nowhere" in done.stderr.splitlines()[-1]
    assert subprocess.run([program], capture_output=True).returncode == 1
    assert subprocess.run([program, "--version"], capture_output=True).returncode == 0


def message(text):
    from google.protobuf import text_format

    return text_format.Parse(text, caffe.proto.caffe_pb2.NetParameter())


def test_a_net_is_built_from_a_message():
    net = caffe.Net(message(NET % "ReLU"), caffe.TEST)
    assert net.forward()["act"].shape == (2, 6)
    old = 'layers { name: "x" type: DUMMY_DATA top: "x" dummy_data_param { num: 1 channels: 2 height: 3 width: 4 } }'
    assert caffe.Net(message(old), phase=caffe.TRAIN).blobs["x"].shape == [1, 2, 3, 4]
    with pytest.raises(TypeError, match="SolverParameter"):
        caffe.Net(caffe.proto.caffe_pb2.SolverParameter(), caffe.TEST)
    with pytest.raises(caffe.CaffeError, match="LRelu"):
        caffe.Net(message(NET % "LRelu"), caffe.TEST)


def test_all_forms_of_the_constructor(net_file, tmp_path, monkeypatch):
    weights = tmp_path / "a.caffemodel"
    net = caffe.Net(net_file, caffe.TEST)
    net.save(weights)
    want = net.params["fc"][0].data.copy()
    for arguments, keywords in [
        ((str(net_file), str(weights), caffe.TEST), {}),
        ((net_file, caffe.TEST), {"weights": weights}),
        ((bytes(net_file), caffe.TRAIN, 0, None, bytes(weights)), {}),
        ((), {"network_file": net_file, "phase": caffe.TEST, "level": 1, "stages": ["a", "b"], "weights": weights}),
    ]:
        np.testing.assert_array_equal(caffe.Net(*arguments, **keywords).params["fc"][0].data, want)
    with pytest.raises(caffe.CaffeError, match="7"):
        caffe.Net(net_file, 7)
    with pytest.raises(TypeError):
        caffe.Net(net_file)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(caffe.CaffeError, match="file"):
        caffe.Net("", caffe.TEST)


def test_level_and_stages_choose_the_layers():
    rules = 'layer { name: "%s" type: "Input" top: "%s" input_param { shape { dim: 1 } } include { %s } }'
    text = "".join(rules % (n, n, r) for n, r in [("a", 'stage: "s"'), ("b", "min_level: 2"), ("c", "phase: TEST")])
    chosen = [
        list(caffe.Net(message(text), phase, level=level, stages=stages)._layer_names)
        for phase, level, stages in [(caffe.TEST, 2, ["s"]), (caffe.TRAIN, 1, ["s", "t"]), (caffe.TEST, 0, None)]
    ]
    assert chosen == [["a", "b", "c"], ["a"], ["c"]]


def test_forward_and_backward_from_layer_to_layer(net_file):
    net = caffe.Net(net_file, caffe.TEST)
    x = np.random.default_rng(2).normal(size=(2, 3, 4, 5)).astype(np.float32)
    net.forward(data=x, end="fc")
    net.blobs["fc"].data[...] = -2
    assert (net.forward(start="act")["act"] == np.float32(-0.02)).all()
    net.forward(data=x)
    diffs = net.backward(diffs=["fc"], act=np.ones((2, 6), np.float32), end="act")
    assert set(diffs) >= {"fc"}
    assert net.bottom_names["act"] == ["fc"]
    assert net.top_names["act"] == ["act"]
    assert net.inputs == ["data"]
    assert net.outputs == ["act"]
    assert list(net.blob_loss_weights.values()) == [0, 0, 0]
    for start, end in [(-1, 1), (0, 3), (5, 5)]:
        with pytest.raises(caffe.CaffeError, match="layer"):
            net._forward(start, end)
        with pytest.raises(caffe.CaffeError, match="layer"):
            net._backward(end, start)
    with pytest.raises(caffe.CaffeError, match="layer"):
        net._bottom_ids(3)


def test_callbacks_are_called_in_order_kept_and_may_raise(net_file):
    net = caffe.Net(net_file, caffe.TEST)
    seen = []
    for when in ["before_forward", "after_forward", "before_backward", "after_backward"]:
        getattr(net, when)(lambda layer, when=when: seen.append((when, layer)))
    net.forward()
    net.backward()
    want = [(f"{w}_forward", n) for n in range(3) for w in ("before", "after")]
    want += [(f"{w}_backward", n) for n in (2, 1, 0) for w in ("before", "after")]
    assert seen == want

    def fail(layer):
        raise LookupError(layer)

    net.after_forward(fail)
    with pytest.raises(LookupError, match="0"):
        net.forward()


def test_a_net_with_callbacks_on_itself_is_collected(net_file):
    import weakref

    net = caffe.Net(net_file, caffe.TEST)
    net.before_forward(lambda layer, net=net: None)
    alive = weakref.ref(net)
    del net
    gc.collect()
    assert alive() is None


def test_a_backward_pass_needs_the_shapes_of_the_forward_pass(net_file):
    net = caffe.Net(net_file, caffe.TEST)
    net.forward()
    net.blobs["act"].reshape(1000, 6)
    with pytest.raises(caffe.CaffeError, match="layer act"):
        net.backward()
    net.forward()
    net.backward()


def test_weights_that_do_not_fit_change_nothing(tmp_path):
    target = caffe.Net(message(TWO % 4), caffe.TEST)
    before = [blob.data.copy() for blobs in target.params.values() for blob in blobs]
    caffe.Net(message(TWO % 5), caffe.TEST).save(tmp_path / "five.caffemodel")
    with pytest.raises(caffe.CaffeError, match="fc2"):
        target.copy_from(tmp_path / "five.caffemodel")
    after = [blob.data for blobs in target.params.values() for blob in blobs]
    for a, b in zip(before, after):
        np.testing.assert_array_equal(a, b)


def test_weights_that_cannot_be_written_leave_the_file_before(net_file, tmp_path):
    net = caffe.Net(net_file, caffe.TEST)
    with pytest.raises(caffe.CaffeError, match="nowhere"):
        net.save(tmp_path / "nowhere" / "a.caffemodel")
    with pytest.raises(caffe.CaffeError, match="Is a directory"):
        net.save(tmp_path)
    with pytest.raises(caffe.CaffeError, match="/dev/full.*No space left"):
        net.save("/dev/full")
    assert [path.name for path in tmp_path.iterdir()] == ["net.prototxt"]


def test_parameters_are_a_list_of_blobs(net_file):
    params = caffe.Net(net_file, caffe.TEST).params["fc"]
    weights, bias = params
    assert len(params) == 2
    assert params[-1] is bias
    assert params[:1] == [weights]
    assert (weights.count, bias.num, bias.channels) == (360, 6, 1)
    assert repr(weights) == "<caffe.Blob (6, 60)>"
    with pytest.raises(IndexError, match="2"):
        params[2]
    with pytest.raises(TypeError):  # the solver would keep the old one
        params[0] = bias
    with pytest.raises(TypeError):
        params.append(None)
    with pytest.raises((TypeError, AttributeError)):
        del params[0]
    params.extend(params)
    assert len(params) == 4
    with pytest.raises(RuntimeError):
        params.extend([bias, "no blob"])
    assert len(params) == 4
    with pytest.raises(caffe.CaffeError, match="-3"):
        weights.reshape(2, -3)
    with pytest.raises(TypeError):
        weights.reshape(2.5)
    assert weights.shape == [6, 60]


def test_a_net_whose_parameters_were_reshaped_computes_no_more(net_file):
    net = caffe.Net(net_file, caffe.TEST)
    net.params["fc"][0].reshape(3, 7)
    for run in (net.forward, net.backward):
        with pytest.raises(caffe.CaffeError, match="layer fc "):
            run()


@pytest.mark.parametrize(
    "build",
    [
        lambda file: caffe.Net(None, caffe.TEST),
        lambda file: caffe.Net(5, caffe.TEST),
        lambda file: caffe.Net(file, caffe.TEST, weights=5),
        lambda file: caffe.Net(file, caffe.TEST, stages="abc"),
        lambda file: caffe.Net(file, caffe.TEST, stages=[1]),
        lambda file: caffe.SGDSolver(None),
    ],
)
def test_arguments_of_the_wrong_type_are_type_errors(build, net_file):
    with pytest.raises(TypeError) as error:
        build(net_file)
    assert "PYBIND11" not in str(error.value)


def test_scikit_image_is_imported_on_first_use():
    code = (
        "import sys, caffe, caffe.io\n"
        "assert 'skimage' not in sys.modules\n"
        "from caffe.io import Transformer\n"
        "assert caffe.io.Transformer is Transformer and 'skimage' in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
