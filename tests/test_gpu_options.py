"""--gpu, --tf32 and --deterministic: values, defaults and errors. Needs no GPU."""

import ctypes
import dataclasses
import shutil
from types import SimpleNamespace

import caffe
import pytest

from tiny_imagenet import cli, gpu
from tiny_imagenet.errors import GpuError, RunError
from tiny_imagenet.evaluation import evaluate
from tiny_imagenet.report import folders
from tiny_imagenet.runs import Run
from tiny_imagenet.training import jobs, ranks, solving, spawn, train
from tiny_imagenet.training.options import Options

on_cpu_build = pytest.mark.skipif(gpu._runtime() is not None, reason="this build of Caffe supports GPUs")


class FakeRuntime:
    """A CUDA runtime with `count` GPUs."""

    def __init__(self, count, error=0):
        self._count, self._error = count, error

    def cudaGetDeviceCount(self, count):  # noqa: N802
        count._obj.value = self._count
        return self._error

    def cudaGetDeviceProperties(self, properties, number):  # noqa: N802
        ctypes.memmove(properties, f"Model {number}".encode(), 7)
        return 0

    def cudaRuntimeGetVersion(self, version):  # noqa: N802
        version._obj.value = 12040
        return 0


@pytest.fixture
def three(monkeypatch):
    """Three GPUs."""
    monkeypatch.setattr(gpu, "_runtime", lambda: FakeRuntime(3))
    monkeypatch.setattr(caffe, "has_nccl", lambda: True)


@pytest.fixture
def calls(three, monkeypatch):
    """Calls that select a GPU, in order; Caffe computes on the CPU all the same."""
    made = []
    for name in ("set_device", "set_mode_gpu", "set_mode_cpu", "set_tf32", "set_deterministic"):
        monkeypatch.setattr(caffe, name, lambda *given, name=name: made.append((name, *given)), raising=False)
    monkeypatch.setattr(caffe, "tf32", lambda: False, raising=False)
    monkeypatch.setattr(caffe, "deterministic", lambda: True, raising=False)
    return made


@pytest.fixture
def run_on_gpus(trained, tmp_path):
    """A run that records two GPUs and TF32."""
    shutil.copytree(trained, tmp_path / "run", symlinks=True)
    run = Run(tmp_path / "run")
    run.update(gpus=[0, 2], tf32=True)
    return run


# --- Values ---


@pytest.mark.parametrize(
    ("text", "numbers"), [("0", (0,)), ("0,2,1", (0, 2, 1)), ("all", "all"), ("none", ()), ("07", (7,))]
)
def test_numbers_of_gpus(text, numbers):
    assert cli.gpus(text) == numbers


@pytest.mark.parametrize("text", ["0,1,0", "a", "-1", "", "0,", "0, 1", "1.5", "²", "123456", "all,1"])
def test_invalid_numbers_are_usage_errors(text, tool, tmp_path):
    error = tool("train", "model1", "--data", tmp_path, "--run", tmp_path / "run", f"--gpu={text}", fails=2).stderr
    assert len(error.splitlines()) == 1 and "--gpu" in error
    assert not (tmp_path / "run").exists()


def test_only_training_takes_several_gpus(tool):
    for name in ("evaluate", "predict"):
        assert "'0,1'" in tool(name, "run", "--gpu", "0,1", fails=2).stderr
    assert cli.gpu("none") is None and cli.gpu("3") == 3


def test_gpus_are_chosen_by_number(three, monkeypatch):
    assert gpu.names() == ["Model 0", "Model 1", "Model 2"]
    assert gpu.choose("all") == (0, 1, 2)
    assert gpu.choose((2, 0)) == (2, 0)
    assert gpu.choose(()) == ()
    with pytest.raises(GpuError, match=r"GPU 3 .*2 \(Model 2\)") as caught:
        gpu.choose((1, 3))
    assert caught.value.status == 2
    monkeypatch.setattr(caffe, "has_nccl", lambda: False)
    assert gpu.choose((2,)) == (2,)
    for several, named in (((0, 2), "GPU 0, 2"), ("all", "all GPUs")):
        with pytest.raises(GpuError, match=f"{named}.*NCCL"):
            gpu.choose(several)


@pytest.mark.parametrize(("count", "error"), [(0, 100), (0, 0), (0, 35)])
def test_a_machine_without_gpus(count, error, monkeypatch):
    def refuse():
        raise caffe.CaffeError("the driver finds no GPU")

    monkeypatch.setattr(gpu, "_runtime", lambda: FakeRuntime(count, error))
    monkeypatch.setattr(caffe, "set_mode_gpu", refuse)
    with pytest.raises(GpuError, match="GPU 0: the driver finds no GPU.*--gpu none"):
        gpu.choose((0,))


@on_cpu_build
@pytest.mark.parametrize("name", ["train", "evaluate", "predict", "ensemble", "reproduce", "visualize"])
def test_a_build_without_gpu_support(name, tool, trained, data, tiny_solver, tmp_path):
    arguments = {
        "train": (tiny_solver, "--data", data, "--run", tmp_path / "out", "--gpu", "0,1"),
        "evaluate": (trained, "--gpu", 0),
        "predict": (trained, "--submission", tmp_path / "out", "--gpu", 0),
        "ensemble": (trained, "--checkpoints", "--gpu", 0),
        "reproduce": ("model1", "--data", data, "--out", tmp_path / "out", "--gpu", 0),
        "visualize": ("tsne", trained, "--gpu", 0, "--out", tmp_path / "out.png"),
    }
    error = tool(name, *arguments[name], fails=2).stderr
    assert len(error.splitlines()) == 1
    assert "tools/setup.sh --gpu" in error and "--gpu none" in error
    assert not list(tmp_path.rglob("out*/**/run.json"))


def test_settings_of_gpus_need_a_gpu(tool, data, tiny_solver, tmp_path):
    for flag in ("--tf32", "--deterministic", "--no-tf32"):
        error = tool("train", tiny_solver, "--data", data, "--run", tmp_path / "run", flag, fails=2).stderr
        assert flag.replace("no-", "") in error


# --- Training ---


def test_gpu_none_trains_on_the_cpu(data, tiny_solver, tmp_path, tool):
    tool("train", tiny_solver, "--data", data, "--run", tmp_path / "run", "--max-iter", 1, "--gpu", "none")
    assert Run(tmp_path / "run").info["gpus"] == []


@on_cpu_build
def test_a_run_whose_gpus_are_missing_resumes_on_the_cpu(run_on_gpus):
    options = Options(data=None, run=run_on_gpus.path, resume=True, max_iter=21)
    with pytest.raises(GpuError, match="GPU 0, 2"):
        train.train(None, options)
    assert train.train(None, dataclasses.replace(options, gpus=()))["iterations"] == 21
    assert run_on_gpus.info["gpus"] == [] and run_on_gpus.info["tf32"] is True


def test_a_run_keeps_its_settings(run_on_gpus, three):
    options = Options(data=None, run=run_on_gpus.path, resume=True)
    resolved = train.resolve_options(options)
    assert (resolved.gpus, resolved.tf32, resolved.deterministic) == ((0, 2), True, False)
    (job,) = jobs.resumed(run_on_gpus, None, resolved, [])
    assert job.info["sessions"][-1]["machine"]["gpus"] == ["Model 0", "Model 2"]
    assert job.info["sessions"][-1]["versions"]["cuda"] == "12.4"
    assert (job.plan.solver.solver_mode, job.plan.solver.device_id) == (job.plan.solver.GPU, 0)
    for name, value in (("tf32", False), ("deterministic", True)):
        changed = train.resolve_options(dataclasses.replace(options, gpus=(1,), **{name: value}))
        with pytest.raises(RunError, match=f"--{name}"):
            jobs.resumed(run_on_gpus, None, changed, [])


def test_environment_variables_are_the_defaults(three, tmp_path, monkeypatch):
    monkeypatch.setattr(caffe, "tf32", lambda: True, raising=False)
    monkeypatch.setattr(caffe, "deterministic", lambda: False, raising=False)
    options = train.resolve_options(Options(run=tmp_path, gpus=(0,)))
    assert (options.tf32, options.deterministic) == (True, False)
    assert train.resolve_options(Options(run=tmp_path, gpus=(0,), tf32=False)).tf32 is False


def test_the_command_of_a_run_includes_settings_of_the_environment():
    info = {"argv": ["tools/train.py", "tiny", "--gpu", "0,2"], "tf32": True, "deterministic": False}
    assert folders.command(info) == "tools/train.py tiny --gpu 0,2 --tf32"


def test_training_selects_its_gpu_before_it_builds_a_net(calls, tiny_solver, data, tmp_path, monkeypatch):
    get_solver = caffe.get_solver
    monkeypatch.setattr(caffe, "get_solver", lambda *given: calls.append(("get_solver",)) or get_solver(*given))
    train.train(str(tiny_solver), Options(data=data, run=tmp_path / "run", max_iter=2, gpus=(1,), tf32=True))
    assert calls[:2] == [("set_device", 1), ("set_mode_cpu",)]  # checks of the net run on the CPU
    setting = [("set_device", 1), ("set_mode_gpu",), ("set_tf32", True), ("set_deterministic", True)]
    assert calls[2:7] == [*setting, ("get_solver",)]
    assert calls[-1] == ("set_mode_cpu",)
    assert {call for call in calls if call[0] == "set_device"} == {("set_device", 1)}
    run = Run(tmp_path / "run")
    assert (run.info["gpus"], run.info["tf32"], run.info["deterministic"]) == ([1], True, True)


def test_prediction_computes_on_its_gpu(calls, trained, data):
    assert len(evaluate.predict_run(Run(trained), data, gpu=2).keys) == 40
    assert set(calls) == {("set_device", 2), ("set_mode_gpu",)}
    calls.clear()
    evaluate.predict_run(Run(trained), data)
    assert not calls


# --- Several GPUs ---


def test_each_of_several_gpus_has_a_process(calls, tiny_solver, data, tmp_path, monkeypatch):
    asked = []
    monkeypatch.setattr(spawn, "run", lambda *given: asked.append(given) or {"top1": 1})
    train.train(str(tiny_solver), Options(data=data, run=tmp_path / "run", gpus="all", max_iter=2), ["command"])
    ((names, function, source, options, argv),) = asked
    assert (names, function) == (["GPU 0", "GPU 1", "GPU 2"], train.train_rank)
    assert (source, argv, options.gpus) == (str(tiny_solver), ["command"], (0, 1, 2))
    assert not calls  # this process allocates no GPU memory


@pytest.mark.parametrize("layer_wise", [False, True])
def test_ranks_on_gpus_join_by_nccl(layer_wise, monkeypatch):
    done = []

    class FakeNccl:
        new_uid = staticmethod(lambda: b"uid")

        def __init__(self, solver, uid):
            done.append(("joined", uid))

        def bcast(self):
            done.append("bcast")

    solver = SimpleNamespace(
        param=SimpleNamespace(layer_wise_reduce=layer_wise),
        add_callback=lambda nccl: done.append("callback"),
        net=SimpleNamespace(after_backward=lambda nccl: done.append("layers")),
    )
    monkeypatch.setattr(caffe, "NCCL", FakeNccl)
    ranks.join_nccl(spawn.SpawnRanks(0, ["GPU 0"], []), solver)
    assert done == [("joined", b"uid"), "bcast", "callback", *(["layers"] if layer_wise else [])]


@pytest.mark.parametrize(
    ("text", "layer_wise"), [("", True), ("iter_size: 2\n", False), ("layer_wise_reduce: false\n", False)]
)
def test_gradients_that_come_in_parts_are_averaged_at_the_end(text, layer_wise, tiny_solver, data, tmp_path):
    tiny_solver.write_text(tiny_solver.read_text() + text)
    train.train(str(tiny_solver), Options(data=data, run=tmp_path / "run", max_iter=1, quiet=True))
    plan = jobs.resumed(Run(tmp_path / "run"), None, Options(run=tmp_path / "run", resume=True), [])[0].plan
    message = solving.message(plan.solver, plan.net, 4)
    assert message.layer_wise_reduce is layer_wise
    assert message.net_param.layer[0].data_param.batch_size == 5
