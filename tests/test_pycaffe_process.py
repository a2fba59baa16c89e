"""pycaffe and its process: output, threads, memory, and errors in threads."""

import subprocess
import sys
import threading

import caffe
import numpy as np
import pytest

NET = """
layer { name: "x" type: "Input" top: "x" input_param { shape { dim: 8 dim: 3 dim: 32 dim: 32 } } }
layer { name: "conv" type: "Convolution" bottom: "x" top: "conv"
        convolution_param { num_output: 8 kernel_size: 3 weight_filler { type: "xavier" } } }
layer { name: "act" type: "LReLU" bottom: "conv" top: "conv" }
layer { name: "fc" type: "InnerProduct" bottom: "conv" top: "fc"
        inner_product_param { num_output: 10 weight_filler { type: "xavier" } } }
"""
LOSS = """
layer { name: "t" type: "DummyData" top: "t" dummy_data_param { shape { dim: 8 } } }
layer { name: "loss" type: "SoftmaxWithLoss" bottom: "fc" bottom: "t" top: "loss" }
"""


@pytest.fixture
def net_file(tmp_path):
    path = tmp_path / "net.prototxt"
    path.write_text(NET)
    return path


def python(code, *arguments, **options):
    return subprocess.run([sys.executable, "-c", code, *map(str, arguments)], capture_output=True, text=True, **options)


def test_the_log_is_quiet_until_it_is_opened(net_file):
    code = """
import caffe, sys
caffe.Net(sys.argv[1], caffe.TEST)
assert caffe.log_level() == caffe.log_level("INFO") == "warning"
caffe.log("opened")
caffe.Net(sys.argv[1], caffe.TEST)
assert caffe.log_level("warning") == "info"
caffe.log("closed")
"""
    done = python(code, net_file, check=True)
    assert done.stdout == ""
    lines = done.stderr.splitlines()
    assert lines[0].endswith("] opened")
    assert any("Creating Layer conv" in line for line in lines)
    assert not any("closed" in line for line in lines)


@pytest.mark.parametrize("level", ["loud", 3, ""])
def test_an_unknown_level_is_refused(level):
    with pytest.raises(caffe.CaffeError, match='"fatal"'):
        caffe.log_level(level)
    assert caffe.log_level() == "warning"


def test_an_import_prints_nothing():
    assert python("import caffe; caffe.io.load_image; import caffe.draw", check=True).stderr == ""


def test_two_nets_in_two_threads_compute_what_one_does(net_file):
    nets = [caffe.Net(net_file, caffe.TEST) for _ in range(2)]
    images = [np.random.default_rng(n).normal(size=(8, 3, 32, 32)).astype(np.float32) for n in range(2)]
    want = [net.forward(x=x)["fc"].copy() for net, x in zip(nets, images)]
    wrong = []

    def run(net, x, y):
        for _ in range(30):
            if not np.array_equal(net.forward(x=x)["fc"], y):
                wrong.append(net)

    threads = [threading.Thread(target=run, args=job) for job in zip(nets, images, want)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


GIL = """
import caffe, sys, threading, time
from google.protobuf import text_format
folder = sys.argv[1]
net_text = open(folder + "/net.prototxt").read().replace("num_output: 10", "num_output: 300") + sys.argv[2]
param = caffe.proto.caffe_pb2.SolverParameter(base_lr=0.1, lr_policy="fixed", max_iter=5, snapshot_after_train=False)
text_format.Parse(net_text, param.net_param)
param.snapshot_prefix = folder + "/s"
solver = caffe.get_solver(param)
net, file = solver.net, folder + "/a.caffemodel"
solver.snapshot()
calls = {
    "build": lambda: caffe.Net(folder + "/net.prototxt", caffe.TEST),
    "solver": lambda: caffe.get_solver(param),
    "forward": lambda: net._forward(0, 5),
    "backward": lambda: net._backward(5, 0),
    "save": lambda: net.save(file),
    "copy_from": lambda: net.copy_from(file),
    "save_hdf5": lambda: net.save_hdf5(folder + "/a.h5"),
    "load_hdf5": lambda: net.load_hdf5(folder + "/a.h5"),
    "step": lambda: solver.step(3),
    "solve": solver.solve,
    "snapshot": solver.snapshot,
    "restore": lambda: solver.restore(folder + "/s_iter_0.solverstate"),
}
seen, running = 0, True
def other():
    global seen
    while running:
        seen += 1
        time.sleep(0)
sys.setswitchinterval(1000)  # a thread runs only if another one releases the GIL itself
thread = threading.Thread(target=other)
thread.start()
for name, call in calls.items():
    for attempt in range(50):
        before = seen
        call()
        if seen > before:
            break
    else:
        print("held in", name)
running = False
thread.join()
"""


def test_python_runs_on_while_caffe_computes(net_file):
    done = python(GIL, net_file.parent, LOSS, timeout=120)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


GROWTH = """
import caffe, gc, os, sys
def build():
    net = caffe.Net(sys.argv[1], caffe.TEST)
    net.before_forward(lambda layer: net)
    views = net.forward(), net.blobs["x"].data, net.params["fc"][0].diff
    net.save(sys.argv[1] + ".caffemodel")
    net.copy_from(sys.argv[1] + ".caffemodel")
    try:
        caffe.Net(sys.argv[2], caffe.TEST)
    except caffe.CaffeError:
        return len(views)
    raise SystemExit("the wrong net was built")
def memory():
    gc.collect()
    return int(open("/proc/self/statm").read().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 2**20
def files():
    return len(os.listdir("/proc/self/fd"))
for _ in range(30):
    build(), gc.collect()  # a net in a cycle waits for the collector
memory_before, files_before = memory(), files()
references = [sys.getrefcount(thing) for thing in (None, caffe.Net, caffe.Blob, caffe.CaffeError)]
for _ in range(200):
    build(), gc.collect()
grown = memory() - memory_before
assert grown < 4, f"{grown} MiB more after 200 nets"  # one of these nets has 0.7 MiB
assert files() == files_before
for before, thing in zip(references, (None, caffe.Net, caffe.Blob, caffe.CaffeError)):
    assert sys.getrefcount(thing) - before < 20, thing
"""


def test_two_hundred_nets_built_and_dropped_leave_nothing(net_file, tmp_path):
    wrong = tmp_path / "wrong.prototxt"
    wrong.write_text(NET.replace("num_output: 10", "num_output: -1"))
    done = python(GROWTH, net_file, wrong, timeout=300)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    ("old", "new"), [("LReLU", "LeakyReLU"), ("kernel_size: 3", "kernel_size: 99"), ("xavier", "savier"), ("{", "")]
)
def test_after_a_mistake_another_net_trains_in_the_same_process(old, new, tmp_path):
    wrong = tmp_path / "wrong.prototxt"
    wrong.write_text(NET.replace(old, new))
    with pytest.raises(caffe.CaffeError) as error:
        caffe.Net(wrong, caffe.TRAIN)
    assert len(str(error.value).splitlines()) == 1
    solver_file = tmp_path / "solver.prototxt"
    train = tmp_path / "train.prototxt"
    train.write_text(NET + LOSS)
    solver_file.write_text(f'net: "{wrong}" base_lr: 0.01 lr_policy: "fixed"')
    with pytest.raises(caffe.CaffeError):
        caffe.SGDSolver(solver_file)
    solver_file.write_text(f'net: "{train}" base_lr: 0.01 lr_policy: "fixed" snapshot_prefix: "{tmp_path}/s"')
    solver = caffe.SGDSolver(solver_file)
    solver.net.blobs["x"].data[...] = np.random.default_rng(1).normal(size=(8, 3, 32, 32))
    solver.step(1)
    first = float(solver.net.blobs["loss"].data)
    solver.step(10)
    assert float(solver.net.blobs["loss"].data) < first


def test_an_error_in_a_prefetch_thread_comes_out_of_forward(tmp_path):
    import lmdb

    datum = caffe.proto.caffe_pb2.Datum(channels=1, height=2, width=2, data=b"1234", label=1)
    with lmdb.open(str(tmp_path / "db"), map_size=2**20) as db, db.begin(write=True) as transaction:
        for n in range(12):
            transaction.put(f"{n:03}".encode(), datum.SerializeToString() if n != 9 else b"no datum")
    net_file = tmp_path / "net.prototxt"
    net_file.write_text(
        'layer { name: "data" type: "Data" top: "x" '
        f'data_param {{ source: "{tmp_path}/db" batch_size: 2 backend: LMDB }} }}'
    )
    net = caffe.Net(net_file, caffe.TEST)
    for _ in range(4):  # the batches before it
        net.forward()
    for _ in range(2):
        with pytest.raises(caffe.CaffeError, match="009"):
            net.forward()
    del net
    assert caffe.Net(net_file, caffe.TEST).forward()["x"].shape == (2, 1, 2, 2)


def test_a_net_in_use_by_one_thread_is_refused_to_another(net_file):
    net = caffe.Net(net_file, caffe.TEST)
    inside, outside = threading.Event(), threading.Event()

    def wait(layer):
        inside.set()
        outside.wait(20)

    net.before_forward(wait)
    thread = threading.Thread(target=net.forward)
    thread.start()
    assert inside.wait(20)
    try:
        for call in (net.forward, net.reshape, lambda: net.copy_from("nowhere")):
            with pytest.raises(caffe.CaffeError, match="thread"):
                call()
    finally:
        outside.set()
        thread.join()
    net.before_forward(lambda layer: net.reshape() if layer == 1 else None)  # the same thread may
    net.forward()


END = """
import caffe, sys, threading, time
net = caffe.Net(sys.argv[1], caffe.TEST)
if sys.argv[2] == "callback":
    net.before_forward(lambda layer: None)
passes = []
def run():
    while True:
        net._forward(0, 3)
        passes.append(1)
threading.Thread(target=run, daemon=True).start()
while len(passes) < 3:
    time.sleep(0.001)
"""


@pytest.mark.parametrize("how", ["plain", "callback"])
def test_a_script_may_end_while_a_daemon_thread_computes(how, net_file):
    for _ in range(5):
        done = python(END, net_file, how, timeout=60)
        assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


FORK = """
import caffe, multiprocessing, sys, warnings
warnings.simplefilter("ignore")  # Python 3.12 and newer warn of threads
net = caffe.Net(sys.argv[1], caffe.TEST)
net.forward()
def child(net_file):
    caffe.Net(net_file, caffe.TEST).forward()
    net.forward()
process = multiprocessing.get_context("fork").Process(target=child, args=sys.argv[1:])
process.start()
process.join(30)
print(process.exitcode)
process.kill()
"""


def test_a_forked_process_computes(net_file):
    net_file.write_text(NET.replace("dim: 32 dim: 32", "dim: 96 dim: 96"))
    assert python(FORK, net_file, timeout=60).stdout == "0\n"


FORKED_DATA = """
import caffe, os, sys
net = caffe.Net(sys.argv[1], caffe.TEST)
net.forward()
child = os.fork()
if child == 0:
    try:
        net.forward()
    except caffe.CaffeError as error:
        print(error, flush=True)
    os._exit(0)
os.waitpid(child, 0)
"""


@pytest.mark.parametrize("kind", ["Data", "CropData"])
def test_a_forked_process_is_told_that_the_data_threads_stayed_behind(kind, tmp_path):
    import lmdb

    datum = caffe.proto.caffe_pb2.Datum(channels=3, height=4, width=4, data=bytes(48), label=1)
    with lmdb.open(str(tmp_path / "db"), map_size=2**20) as db, db.begin(write=True) as transaction:
        for n in range(4):
            transaction.put(f"{n:03}".encode(), datum.SerializeToString())
    net_file = tmp_path / "net.prototxt"
    param = "data_param { backend: LMDB" if kind == "Data" else "crop_data_param {"
    net_file.write_text(
        f'layer {{ name: "data" type: "{kind}" top: "x" top: "y" transform_param {{ crop_size: 3 }} '
        f'{param} source: "{tmp_path}/db" batch_size: 2 }} }}'
    )
    done = python(FORKED_DATA, net_file, timeout=60)
    assert "fork" in done.stdout
