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


def test_views_share_memory_and_outlive_the_net(net_file):
    net = caffe.Net(str(net_file), caffe.TEST)
    net.params["fc"][0].data[...] = 3
    view = net.params["fc"][0].data
    assert view.dtype == np.float32
    assert view.shape == (6, 60)
    del net
    assert (view == 3).all()


def test_weights_are_saved_copied_and_shared(net_file, tmp_path):
    a, b, c = (caffe.Net(str(net_file), caffe.TEST) for _ in range(3))
    a.save(str(tmp_path / "a.caffemodel"))
    b.copy_from(str(tmp_path / "a.caffemodel"))
    c.share_with(a)
    a.params["fc"][0].data[0, 0] += 1
    assert c.params["fc"][0].data[0, 0] == a.params["fc"][0].data[0, 0]
    assert b.params["fc"][0].data[0, 0] == pytest.approx(a.params["fc"][0].data[0, 0] - 1)
    d = caffe.Net(str(net_file), caffe.TEST, weights=str(tmp_path / "a.caffemodel"))
    np.testing.assert_array_equal(d.params["fc"][0].data, b.params["fc"][0].data)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (NET % "LRelu", "Unknown layer type: LRelu"),
        (NET.replace("num_output", "num_outputs") % "ReLU", r":5:\d+: .*num_outputs"),
        (NET.replace('bottom: "fc"', 'bottom: "fd"') % "ReLU", "Unknown bottom blob 'fd'"),
        (NET.replace("num_output: 6", "num_output: 0") % "ReLU", None),
    ],
)
def test_a_mistake_is_an_exception_and_the_next_net_builds(text, says, tmp_path, net_file):
    wrong = tmp_path / "wrong.prototxt"
    wrong.write_text(text)
    with pytest.raises(caffe.CaffeError, match=says):
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
    with pytest.raises(caffe.CaffeError, match="layer 99"):
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


def test_nothing_is_shared_with_nothing(net_file):
    with pytest.raises(TypeError):
        caffe.Net(str(net_file), caffe.TEST).share_with(None)


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
    with pytest.raises(caffe.CaffeError, match="wrong height"):
        net.set_input_arrays(np.zeros((4, 1, 3, 2), "f"), np.zeros(4, "f"))


def test_a_folder_is_no_net(tmp_path):
    with pytest.raises(caffe.CaffeError, match="Could not open file"):
        caffe.Net(str(tmp_path), caffe.TEST)


def test_the_caffe_program_fails_in_one_line():
    program = Path(__file__).parent.parent / "build" / "caffe"
    if not program.exists():
        pytest.skip("the program is in the build folder, which is not here")
    done = subprocess.run([program, "train", "--solver", "nowhere"], capture_output=True, text=True)
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1].startswith("caffe: error: ")
    assert subprocess.run([program], capture_output=True).returncode == 1
    assert subprocess.run([program, "--version"], capture_output=True).returncode == 0
