"""tools/benchmark.py nets: that the figures hang together and the nets are the right ones. No timings, no GPU."""

import json
import os
import subprocess
import sys

import pytest

from conftest import ROOT
from tiny_imagenet import gpu_memory, net_benchmark, net_cases, net_tables, nets, timing, zoo
from tiny_imagenet.errors import BenchmarkError, GpuError

BUILD = ROOT / "build"
TORCH = os.environ.get("TORCH_PYTHON")
needs_caffe = pytest.mark.skipif(not (BUILD / "caffe").is_file(), reason="no caffe program in build/: tools/setup.sh")


@pytest.fixture(scope="module")
def cases():
    return {name: net_cases.case(ROOT / "prototxt" / name, 2) for name in zoo.MODELS}


def test_a_case_is_the_net(cases):
    for name, model in zoo.MODELS.items():
        case = cases[name]
        assert (case["model"], case["parameters"], case["side"], case["classes"]) == (name, model.parameters, 56, 200)
        assert (case["base_lr"], case["weight_decay"]) == (model.base_lr, model.weight_decay)
        kinds = [layer["type"] for layer in case["layers"]]
        assert kinds.count("Convolution") == sum(map(len, model.stages))
        assert kinds.count(model.activation) >= kinds.count("Convolution")
        assert kinds[0] == "Power" and kinds[-1] == "InnerProduct"
        assert [layer["kernel"] for layer in case["layers"] if layer["type"] == "Convolution"] == [
            conv.kernel for stage in model.stages for conv in stage
        ]
    assert {layer["slope"] for layer in cases["model6"]["layers"] if layer["type"] == "LReLU"} == {0.01}
    assert json.loads(json.dumps(cases)) == cases


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        ('type: "Softmax"', 'type: "Sigmoid"', "does not end in a Softmax|no Softmax"),
        ("    pad: 2\n", "    pad: 2\n    group: 1\n    dilation: 2\n", "conv1_1 .* is none that PyTorch is given"),
        ("pool: MAX", "pool: AVE", "pool1 .* is none that PyTorch is given"),
        ('type: "ReLU"', 'type: "TanH"', "relu1_1 .TanH. is none that PyTorch is given"),
        ('bottom: "pool1"', 'bottom: "scaled"', "is no chain of layers"),
    ],
)
def test_a_net_that_pytorch_is_not_given(old, new, says, tmp_path):
    for name in ("solver", "deploy"):
        text = (ROOT / "prototxt" / "model1" / f"{name}.prototxt").read_text()
        (tmp_path / f"{name}.prototxt").write_text(text.replace(old, new, 1))
    with pytest.raises(Exception, match=says):
        net_cases.case(tmp_path, 2)


@pytest.fixture(scope="module")
def result(tool, tmp_path_factory):
    file = tmp_path_factory.mktemp("cases") / "cases.json"
    tool("benchmark", "nets", "model1", "--batch", 3, "--write-cases", file)
    arguments = "nets", "--cases", file, "--rounds", 2, "--iterations", 1, "--threads", 1, "--json"
    return json.loads(tool("benchmark", *arguments).stdout)


@needs_caffe
def test_rates_are_images_over_time(result):
    (row,) = result["nets"]
    assert (row["model"], row["batch"]) == ("model1", 3)
    ours = row["measured"]["ours"]
    for name in ("best", "median"):
        assert ours["images_per_second"][name] == pytest.approx(3 / (ours["ms"][name] / 1000))
    assert 0 < ours["ms"]["best"] <= ours["ms"]["median"]
    assert ours["memory"] is None and result["machine"]["gpu"] is None
    assert result["settings"]["tf32"] == [False]


@needs_caffe
def test_what_the_program_prints_is_read(tmp_path):
    """The first round does not count; of 2 rounds of 3 iterations there are 10 iterations."""
    lines = ["Iteration 0 (-1 iter/s, 0.1s/3 iters), loss = 5"]
    lines += [f"I1 solver.cpp:1] Iteration {3 * n} ({n}.5 iter/s, {n}e-1s/3 iters), loss = 5.2" for n in (1, 2, 3)]
    program = tmp_path / "caffe"
    program.write_text(
        "#!/bin/sh\ncat $(echo $2 | cut -d= -f2) >&2\necho " + repr("\n".join(lines)) + ' >&2\necho "$@" >&2\n'
    )
    program.chmod(0o755)
    times = timing.iteration_times(program, 'name: "x"', "base_lr: 1", 2, 3, 1, {})
    assert times == pytest.approx([1000 * 0.2 / 3, 1000 * 0.3 / 3])
    with pytest.raises(BenchmarkError, match=r"train failed \(status 0\): train --solver=\S+$"):
        timing.iteration_times(program, 'name: "x"', "base_lr: 1", 4, 3, None, {})
    with pytest.raises(BenchmarkError, match="Unknown layer type: NoSuchLayer"):
        timing.iteration_times(BUILD / "caffe", 'layer { type: "NoSuchLayer" }', "base_lr: 1", 1, 1, None, {})


@needs_caffe
def test_the_data_of_a_case_stays_what_it_is(cases, tmp_path):
    """It is drawn once: not zeros, and not more with each iteration."""
    import caffe
    import numpy as np

    (tmp_path / "net.prototxt").write_text(cases["model1"]["net"])
    net = caffe.Net(str(tmp_path / "net.prototxt"), caffe.TRAIN)
    net.forward()
    first = net.blobs["data"].data.copy()
    labels = [net.forward() and net.blobs["label"].data.astype(int).tolist() for _ in range(50)]
    assert (net.blobs["data"].data == first).all()
    assert 55 < first.std() < 65
    assert min(map(min, labels)) >= 0 and max(map(max, labels)) < 200 and len(np.unique(labels)) > 20
    assert nets.read(tmp_path / "net.prototxt").layer[1].param[0].lr_mult == 0


def test_ours_as_a_multiple_of_pytorchs(capsys):
    found = {
        "ours": {"ms": {"best": 10.0, "median": 20.0}, "memory": 2_000_000_000},
        "torch": {"ms": {"best": 20.0, "median": 30.0}, "memory": None},
        "ours TF32": {"ms": {"best": 4.0, "median": 4.0}, "memory": 1_000_000},
        "torch TF32": {"ms": {"best": 3.0, "median": 4.0}, "memory": 1_000_000},
    }
    measured = net_benchmark._rates({"batch": 200}, found)
    assert measured["ours"]["images_per_second"] == {"best": 20_000, "median": 10_000}
    assert "ours_over_this" not in measured["ours"]
    assert measured["torch"]["ours_over_this"] == {"best": 2, "median": 1.5}
    assert measured["torch TF32"]["ours_over_this"] == {"best": 0.75, "median": 1}
    settings = vars(net_benchmark.Settings(threads=2, gpu=0, tf32=(False, True)))
    machine = {"processor": "P", "cores": 2, "gpu": "Model", "torch": "2.0"}
    row = {"model": "model1", "batch": 200, "parameters": 1_969_544, "measured": measured}
    net_tables.show({"settings": settings, "machine": machine, "nets": [row], "not_measured": {"memory": "so"}})
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "GPU 0, Model; 5 rounds of 20 iterations of training"
    cells = next(line for line in lines if line.startswith("model1")).split()
    rates = "20000 (10000) 2,000 10000 (6667) - 2.00 50000 (50000) 1 66667 (50000) 1 0.75"
    assert " ".join(cells[1:]) == f"200 1,969,544 {rates}"
    assert "memory was not measured: so" in lines and "PyTorch 2.0, channels_last" in lines


def test_wrong_arguments(tool, tmp_path):
    assert "go with nets" in tool("benchmark", "layers", "model1", fails=2).stderr
    assert "goes with layers" in tool("benchmark", "nets", "--no-stock", fails=2).stderr
    assert "model10" in tool("benchmark", "nets", "model10", fails=1).stderr
    assert "leave MODEL and --batch out" in tool("benchmark", "nets", "--cases", "x", "--batch", 2, fails=2).stderr
    assert "--write-cases" in tool("benchmark", "nets", "--cases", tmp_path / "none", fails=1).stderr
    assert "tools/setup.sh" in tool("benchmark", "nets", "model1", "--build", tmp_path, fails=1).stderr


@needs_caffe
@pytest.mark.skipif(not TORCH, reason="TORCH_PYTHON names no Python that has torch")
def test_pytorch_has_the_same_nets(cases, tool):
    """It counts the parameters, and another number is an error."""
    result = json.loads(
        tool("benchmark", "nets", "model1", "model5", "model6", "--quick", "--torch", TORCH, "--json").stdout
    )
    for row in result["nets"]:
        assert row["measured"]["torch"]["ours_over_this"]["best"] > 0
    case = {**cases["model1"], "parameters": 5}
    settings = net_benchmark.Settings(threads=1, rounds=1, iterations=1)
    with pytest.raises(BenchmarkError, match=r"model1: PyTorch's net has 1,969,544 parameters, Caffe's 5"):
        net_benchmark.nets([case], settings, BUILD, TORCH)


# --- What the driver says of memory, by a driver made for the test ---

DRIVER = r"""
#include <string.h>
int cuInit(unsigned flags) { return flags; }
int cuDeviceGet(int* device, int number) { *device = 40 + number; return number == 2 ? 101 : 0; }
int cuDeviceGetName(char* name, int size, int device) { return size < 8 || !strcpy(name, "Model 7") || device < 40; }
int cuDeviceGetPCIBusId(char* bus, int size, int device) {
  strcpy(bus, "0000:41:00.0");
  return size < 20 || device < 40;
}
int nvmlInit_v2(void) { return 0; }
int nvmlDeviceGetHandleByPciBusId_v2(const char* bus, void** handle) {
  *handle = (void*)0x123456789abcdefL;
  return strcmp(bus, "0000:41:00.0");
}
int nvmlDeviceGetMemoryInfo(void* handle, unsigned long long* memory) {
  static unsigned long long used = 1ull << 33;
  memory[0] = 1ull << 36;
  memory[2] = used;
  memory[1] = memory[0] - memory[2];
  if (used < (1ull << 33) + 5000) used += 1000;
  return handle != (void*)0x123456789abcdefL;
}
"""


def test_the_drivers_memory(tmp_path):
    (tmp_path / "driver.c").write_text(DRIVER)
    for name in ("libcuda.so.1", "libnvidia-ml.so.1"):
        command = ["cc", "-shared", "-fPIC", "-w", "-o", tmp_path / name, tmp_path / "driver.c"]
        subprocess.run(command, check=True)
    code = (
        "import time\n"
        "from tiny_imagenet import gpu_memory\n"
        "memory = gpu_memory.Memory(1)\n"
        "with gpu_memory.Peak(memory) as peak:\n"
        "    time.sleep(0.3)\n"
        "print(memory.name, memory.used() > 2**33, peak.bytes)\n"
        "try:\n"
        "    gpu_memory.Memory(2)\n"
        "except gpu_memory.GpuError as error:\n"
        "    print(error)\n"
    )
    environment = {**os.environ, "LD_LIBRARY_PATH": str(tmp_path)}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment, check=True)
    first, second = done.stdout.splitlines()
    assert first == "Model 7 True 5000"
    assert second == "GPU 2 cannot be asked: cuDeviceGet gave error 101; nvidia-smi -L lists those there are"


def test_without_a_driver(monkeypatch):
    def none(name):
        raise OSError("not found")

    monkeypatch.setattr(gpu_memory.ctypes, "CDLL", none)
    with pytest.raises(GpuError, match=r"there is no NVIDIA driver \(libcuda.so.1\)"):
        gpu_memory.Memory(0)
    memory, problem = net_benchmark._memory(0)
    assert memory is None and "no NVIDIA driver" in problem["memory"]
