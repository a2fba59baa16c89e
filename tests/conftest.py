"""Shared fixtures: the scripts, a converted sample, a trained run, small nets."""

import contextlib
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="session")
def tool():
    """Call tools/<name>.py and return the finished process; with `fails=STATUS` also check that it failed cleanly."""

    def call(name, *arguments, fails=None, cwd=None):
        command = [sys.executable, str(ROOT / "tools" / f"{name}.py"), *map(str, arguments)]
        done = subprocess.run(command, capture_output=True, text=True, cwd=cwd)
        if fails is None:
            assert done.returncode == 0, done.stderr
        else:
            lines = done.stderr.strip().splitlines()
            assert done.returncode == fails, done.stderr
            assert lines and lines[-1].startswith(f"{name}.py: error: "), done.stderr
            assert "Traceback" not in done.stderr
        return done

    return call


@pytest.fixture(scope="session")
def dataset(tmp_path_factory):
    """A small sample in Tiny ImageNet's layout: 200 training, 40 validation and 20 test images of 10 classes."""
    from tiny_imagenet.data import sample

    path = tmp_path_factory.mktemp("sample") / "dataset"
    sample.write(path, train=200, val=40, test=20, seed=1)
    return path


@pytest.fixture(scope="session")
def data(dataset):
    """The sample converted."""
    from tiny_imagenet.data import convert

    path = dataset.parent / "data"
    convert.convert(dataset, path, workers=1, seed=1)
    return path


@pytest.fixture(scope="session")
def checkout(tmp_path_factory):
    """A folder with tools/reproduce.py and nets that train in a moment."""
    from dask_cluster import write_checkout

    return write_checkout(tmp_path_factory.mktemp("checkout") / "checkout")


@pytest.fixture
def cluster(tmp_path):
    """A Dask scheduler that can start workers."""
    from dask_cluster import Cluster

    with Cluster(tmp_path) as started:
        yield started


@contextlib.contextmanager
def interruptible(command, **options):
    """A process that reacts to Ctrl-C even if this one runs in the background; it is killed at the end of the block."""
    process = subprocess.Popen(
        list(map(str, command)), text=True, preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL), **options
    )
    with process:
        try:
            yield process
        finally:
            process.kill()


def wait_for(condition, *processes, seconds=180):
    """Wait until a condition holds, as long as the processes that bring it about are alive."""
    until = time.monotonic() + seconds
    while not condition():
        for process in processes:
            assert process.poll() is None, f"the process ended with status {process.returncode}"
        assert time.monotonic() < until, "timed out"
        time.sleep(0.005)


def stop_conversion(command, out, number, whole_group=False):
    """Send a signal to a process during its conversion to `out`; return its status, stdout and stderr."""
    for _ in range(20):
        with interruptible(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True) as process:
            wait_for(lambda: list(out.parent.glob(f".{out.name}.*/train.lmdb")) or out.exists())
            os.killpg(process.pid, signal.SIGSTOP)  # otherwise it might end before the signal arrives
            wait_for(lambda: Path(f"/proc/{process.pid}/stat").read_text().rpartition(")")[2].split()[0] in "TZ")
            done = out.exists()
            (os.killpg if whole_group else os.kill)(process.pid, number)
            os.killpg(process.pid, signal.SIGCONT)
            stdout, stderr = process.communicate(timeout=120)  # also waits for the workers, which inherited the pipes
        if not done:
            return process.returncode, stdout, stderr
        shutil.rmtree(out)
    raise AssertionError("the conversion always ended before the signal")


class StopAfter:
    """A StopRequest whose signal is set after a number of queries."""

    def __init__(self, questions):
        self.left = questions

    def __enter__(self):
        return self

    def __exit__(self, *_):
        pass

    @property
    def signal(self):
        self.left -= 1
        return "SIGTERM" if self.left < 0 else ""


TINY_NET = """
name: "tiny"
layer {{ name: "data" type: "Data" top: "data" top: "label" include {{ phase: TRAIN }}
  transform_param {{ crop_size: 56 mirror: true mean_file: "mean.binaryproto" }}
  data_param {{ source: "train.lmdb" batch_size: 20 backend: LMDB }} }}
layer {{ name: "pool0" type: "Pooling" bottom: "data" top: "pool0"
  pooling_param {{ pool: AVE kernel_size: 7 stride: 7 }} }}
layer {{ name: "conv1_1" type: "Convolution" bottom: "pool0" top: "conv1_1"
  convolution_param {{ num_output: 4 kernel_size: 3 weight_filler {{ type: "xavier" }} }} }}
layer {{ name: "lrelu1_1" type: "LReLU" bottom: "conv1_1" top: "conv1_1" }}
layer {{ name: "fc3" type: "InnerProduct" bottom: "conv1_1" top: "fc3"
  inner_product_param {{ num_output: {outputs} weight_filler {{ type: "xavier" }} }} }}
layer {{ name: "loss" type: "SoftmaxWithLoss" bottom: "fc3" bottom: "label" top: "loss" }}
"""


def write_tiny_net(folder, outputs=10, base_lr=0.0003):
    """Write a hand-made net that trains in a moment, and return its solver file."""
    folder.mkdir(parents=True, exist_ok=True)
    train_val = TINY_NET.format(outputs=outputs)
    body = train_val[train_val.index('layer { name: "pool0"') : train_val.index('layer { name: "loss"')]
    (folder / "train_val.prototxt").write_text(train_val)
    (folder / "deploy.prototxt").write_text(
        'name: "tiny"\nlayer { name: "data" type: "Input" top: "data"'
        " input_param { shape { dim: 1 dim: 3 dim: 56 dim: 56 } } }\n"
        + body
        + 'layer { name: "prob" type: "Softmax" bottom: "fc3" top: "prob" }\n'
    )
    solver = folder / "solver.prototxt"
    solver.write_text(
        f'net: "train_val.prototxt"\nbase_lr: {base_lr}\nlr_policy: "fixed"\nmomentum: 0.9\nmax_iter: 20\n'
        "solver_mode: CPU\n"
    )
    return solver


# Of a net that trains in a moment on the sample.
SMALL = {"hidden": (8,), "batch": 50, "classes": 10, "base_lr": 0.05}


def write_small_nets(folder):
    """Write the nine models' files, with nets that train in a moment."""
    from tiny_imagenet.models import generate, zoo

    rows = [
        row.replace(
            convs="3-2 | 3-4 | 3-4 |",
            drop_after_stage=0,
            shallow=("3-2 | 3-4 | 3-4 |",) if row.shallow else (),
            **SMALL,
        )
        for row in zoo.MODELS.values()
    ]
    generate.write(rows, folder, ROOT / "tools")


def without_kinks(solver):
    """Make a net smooth, in its files, so that rounding decides nothing in it; the same solver file."""
    for file in Path(solver).parent.glob("*.prototxt"):
        text = re.sub('type: "[LP]?ReLU"', 'type: "TanH"', file.read_text()).replace("pool: MAX", "pool: AVE")
        file.write_text(text)
    return solver


def apart(one, other):
    """The largest difference of two runs' last parameters, each blob's against its own size."""
    import caffe
    import numpy as np

    def parameters(run):
        net = caffe.Net(str(run.deploy), caffe.TEST, weights=str(run.weights("last")))
        return {f"{name}/{i}": blob.data.copy() for name, blobs in net.params.items() for i, blob in enumerate(blobs)}

    found, wanted = parameters(other), parameters(one)
    assert found.keys() == wanted.keys()
    return max(np.linalg.norm(found[name] - values) / np.linalg.norm(values) for name, values in wanted.items())


@pytest.fixture
def tiny_solver(tmp_path):
    """The solver file of a hand-written net of 10 classes."""
    return write_tiny_net(tmp_path / "net")


@pytest.fixture(scope="session")
def trained(data, tmp_path_factory):
    """The run folder of the hand-written net, trained for two epochs."""
    from tiny_imagenet.training.options import Options
    from tiny_imagenet.training.train import train

    folder = tmp_path_factory.mktemp("trained")
    train(str(write_tiny_net(folder / "net")), Options(data=data, run=folder / "run", epochs=2))
    return folder / "run"


os.environ.setdefault("MPLBACKEND", "Agg")
