"""Layers that are written in Python: type "Python"."""

import gc
import subprocess
import sys
import textwrap
import weakref

import caffe
import numpy as np
import pytest

LAYERS = '''
import caffe
import numpy as np


class Scale(caffe.Layer):
    """y = (k + w) x, with a parameter w."""

    def setup(self, bottom, top):
        self.k = float(self.param_str or 1)
        self.calls = []
        self.blobs.add_blob(1)

    def reshape(self, bottom, top):
        top[0].reshape(*bottom[0].shape)

    def forward(self, bottom, top):
        self.calls.append("forward")
        top[0].data[...] = (self.k + self.blobs[0].data[0]) * bottom[0].data

    def backward(self, top, propagate_down, bottom):
        self.calls.append(tuple(propagate_down))
        self.blobs[0].diff[0] += (top[0].diff * bottom[0].data).sum()
        if propagate_down[0]:
            bottom[0].diff[...] = (self.k + self.blobs[0].data[0]) * top[0].diff


class Raises(caffe.Layer):
    where, error = "forward", ValueError("no good today")

    def setup(self, bottom, top):
        self.do("setup")

    def reshape(self, bottom, top):
        top[0].reshape(*bottom[0].shape)
        self.do("reshape")

    def forward(self, bottom, top):
        self.do("forward")

    def backward(self, top, propagate_down, bottom):
        self.do("backward")

    def do(self, where):
        if self.where == where:
            raise self.error


class Keeps(caffe.Layer):
    def setup(self, bottom, top):
        pass

    def reshape(self, bottom, top):
        top[0].reshape(*bottom[0].shape)

    def forward(self, bottom, top):
        self.bottom, self.top = bottom, top
        top[0].data[...] = 7


class NoReshape(caffe.Layer):
    def forward(self, bottom, top):
        pass


class NoLayer:
    def __init__(self, param):
        pass


class ForgetsToCallInit(caffe.Layer):
    def __init__(self, param):
        pass
'''

NET = """
force_backward: true
layer {{ name: "x" type: "Input" top: "x" input_param {{ shape {{ dim: 2 dim: 3 }} }} }}
layer {{ name: "fc" type: "InnerProduct" bottom: "x" top: "fc"
        inner_product_param {{ num_output: 4 weight_filler {{ type: "xavier" }} }} }}
layer {{ name: "python" type: "Python" bottom: "fc" top: "y" python_param {{ {param} }} }}
"""


@pytest.fixture
def module(tmp_path, monkeypatch):
    """The module of the layers above, under a name of its own in each test."""
    name = f"layers_{abs(hash(tmp_path))}"
    (tmp_path / f"{name}.py").write_text(LAYERS)
    monkeypatch.syspath_prepend(tmp_path)
    yield __import__(name)
    del sys.modules[name]


@pytest.fixture
def net_of(module, tmp_path):
    def build(layer, param_str="", phase=caffe.TEST, module_name=None):
        param = f'module: "{module_name or module.__name__}" layer: "{layer}" param_str: "{param_str}"'
        path = tmp_path / "net.prototxt"
        path.write_text(NET.format(param=param))
        return caffe.Net(path, phase)

    return build


def test_values_gradients_and_parameters_are_those_of_the_class(net_of):
    net = net_of("Scale", "2.5")
    x = np.random.default_rng(1).normal(size=(2, 3)).astype(np.float32)
    assert net.params["python"][0].shape == [1]
    net.params["python"][0].data[...] = 0.5
    y = net.forward(x=x)["y"].copy()
    fc = net.blobs["fc"].data.copy()
    np.testing.assert_allclose(y, 3 * fc, rtol=1e-6)
    net.clear_param_diffs()
    net.backward(y=np.ones_like(y))
    np.testing.assert_allclose(net.params["python"][0].diff, [fc.sum()], rtol=1e-5)
    np.testing.assert_allclose(net.blobs["fc"].diff, np.full_like(fc, 3))
    np.testing.assert_allclose(
        net.blobs["x"].diff, np.full_like(fc, 3).astype(np.float64) @ net.params["fc"][0].data, rtol=1e-5
    )


def test_the_net_holds_the_instance_itself(net_of, module):
    net = net_of("Scale", "2", phase=caffe.TRAIN)
    layer = net.layers[2]
    assert type(layer) is module.Scale
    assert layer is net.layers[2] is net.layer_dict["python"]
    assert (layer.k, layer.param_str, layer.phase, layer.type) == (2, "2", caffe.TRAIN, "Python")
    net.forward()
    assert layer.calls == ["forward"]
    layer.k = 0  # what a notebook changes counts at once
    assert not net.forward()["y"].any()


def test_shapes_follow_the_input(net_of):
    net = net_of("Scale")
    net.blobs["x"].reshape(5, 3)
    assert net.forward(x=np.ones((5, 3), np.float32))["y"].shape == (5, 4)


@pytest.mark.parametrize("where", ["setup", "reshape", "forward", "backward"])
@pytest.mark.parametrize("error", [ValueError("no good today"), KeyboardInterrupt(), SystemExit(3)], ids=repr)
def test_an_exception_passes_through_as_it_is(where, error, net_of, module):
    module.Raises.where, module.Raises.error = where, error
    with pytest.raises(type(error)) as raised:
        net = net_of("Raises")
        net.forward()
        net.backward()
    assert raised.value is error
    assert any(entry.name == "do" for entry in raised.traceback)  # the line in the user's file
    module.Raises.where = "nowhere"
    assert net_of("Raises").forward()


def test_an_exception_of_a_layer_leaves_the_solver_usable(net_of, module, tmp_path):
    net = tmp_path / "train.prototxt"
    param = f'module: "{module.__name__}" layer: "Raises"'
    net.write_text(
        NET.format(param=param) + 'layer { name: "loss" type: "Reduction" bottom: "y" top: "loss" loss_weight: 1 }'
    )
    solver_file = tmp_path / "solver.prototxt"
    solver_file.write_text(f'net: "{net}" base_lr: 0.1 lr_policy: "fixed" snapshot_prefix: "{tmp_path}/s"')
    module.Raises.where = "nowhere"
    solver = caffe.SGDSolver(solver_file)
    solver.step(2)
    module.Raises.where = "backward"
    with pytest.raises(ValueError, match="no good today"):
        solver.step(5)
    assert solver.iter == 2
    module.Raises.where = "nowhere"
    solver.step(1)
    solver.snapshot()
    assert (tmp_path / "s_iter_3.solverstate").exists()


@pytest.mark.parametrize(
    ("layer", "module_name", "error", "value"),
    [
        ("Scale", "no_such_module", ModuleNotFoundError, "no_such_module"),
        ("Nothing", None, AttributeError, "Nothing"),
        ("NoLayer", None, caffe.CaffeError, "NoLayer"),
        ("NoReshape", None, NotImplementedError, "reshape"),
        ("ForgetsToCallInit", None, TypeError, "__init__"),
        ("", None, caffe.CaffeError, "layer python .*python_param"),
    ],
)
def test_an_invalid_python_layer_is_refused(layer, module_name, error, value, net_of):
    with pytest.raises(error, match=value):
        net_of(layer, module_name=module_name)
    assert net_of("Scale").forward()


def test_a_missing_forward_is_an_attribute_error(net_of, module):
    del module.Keeps.forward
    with pytest.raises(AttributeError, match="forward"):
        net_of("Keeps").forward()


def test_blobs_may_be_kept_for_longer_than_the_net(net_of):
    net = net_of("Keeps")
    net.forward()
    layer = net.layers[2]
    bottom, top = layer.bottom[0], layer.top[0]
    assert top is net.blobs["y"]
    del net, layer
    gc.collect()
    others = [np.full((2, 4), 1, np.float32) for _ in range(100)]
    assert (top.data == 7).all()
    assert bottom.shape == [2, 4]
    del others


def test_net_and_layers_go_together(net_of):
    net = net_of("Scale")
    layer, alive = weakref.ref(net.layers[2]), weakref.ref(net)
    net.forward()
    del net
    gc.collect()
    assert layer() is None
    assert alive() is None


def test_a_layer_that_knows_its_net_goes_with_it(net_of):
    net = net_of("Scale")
    layer, alive = weakref.ref(net.layers[2]), weakref.ref(net)
    net.layers[2].net = net
    net.layers[2].me = net.layers[2]
    del net
    gc.collect()
    assert layer() is None
    assert alive() is None


def test_a_layer_that_asks_before_init_has_run_is_told_so(net_of, module):
    def early(self, param):
        self.blobs.add_blob(3)
        caffe.Layer.__init__(self, param)

    module.Scale.__init__ = early
    with pytest.raises(TypeError, match=r"before self\.blobs"):
        net_of("Scale")


def test_a_layer_outlives_its_net(net_of):
    layer = net_of("Scale", "3").layers[2]
    gc.collect()
    assert layer.k == 3
    assert layer.blobs[0].shape == [1]


def test_an_instance_made_by_hand_is_a_layer(module):
    layer = module.Scale(caffe.proto.caffe_pb2.LayerParameter(name="a"))
    layer.blobs.add_blob(2, 3)
    assert layer.blobs[0].data.shape == (2, 3)
    with pytest.raises(TypeError, match="LayerParameter"):
        module.Scale(caffe.proto.caffe_pb2.NetParameter())
    with pytest.raises(TypeError):
        module.Scale("name: 'a'")


def test_a_net_of_python_layers_runs_in_a_thread_of_its_own(net_of):
    from concurrent.futures import ThreadPoolExecutor

    net = net_of("Scale", "2")
    with ThreadPoolExecutor(1) as pool:
        y = pool.submit(lambda: net.forward(x=np.ones((2, 3), np.float32))["y"].copy()).result()
    np.testing.assert_allclose(y, 2 * net.blobs["fc"].data)


def test_a_layer_of_main_is_found_and_the_interpreter_ends_with_it_alive(tmp_path):
    script = tmp_path / "main.py"
    script.write_text(
        LAYERS
        + textwrap.dedent("""
        import sys
        net = caffe.Net(sys.argv[1], caffe.TEST)
        print(type(net.layers[2]).__name__, net.forward()["y"].shape)
        caffe.kept_until_the_end = net
        """)
    )
    net = tmp_path / "net.prototxt"
    net.write_text(NET.format(param='module: "__main__" layer: "Scale"'))
    done = subprocess.run([sys.executable, str(script), str(net)], capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (0, "Scale (2, 4)\n", "")


def test_the_caffe_program_rejects_python_layers(tmp_path):
    from conftest import ROOT

    program = ROOT / "build" / "caffe"
    if not program.exists():
        pytest.skip("the program is in the build folder, which is not here")
    (tmp_path / "net.prototxt").write_text(NET.format(param='module: "m" layer: "L"'))
    done = subprocess.run([program, "time", "--model", tmp_path / "net.prototxt"], capture_output=True, text=True)
    assert done.returncode == 1
    assert "Unknown layer type: Python" in done.stderr.splitlines()[-1]
