"""--gpu, --tf32 and --deterministic: what they take, and what is said where there is no such GPU. Needs none."""

import ctypes
import dataclasses
import json

import caffe
import pytest

from tiny_imagenet import cli, gpu
from tiny_imagenet.errors import GpuError, RunError
from tiny_imagenet.evaluation import evaluate
from tiny_imagenet.experiment import reproduce
from tiny_imagenet.report import page as report
from tiny_imagenet.runs import Run
from tiny_imagenet.training import train
from tiny_imagenet.training.train import Options

on_cpu_build = pytest.mark.skipif(gpu._runtime() is not None, reason="this build of Caffe is for GPUs too")


class FakeRuntime:
    """A CUDA runtime with so many GPUs."""

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
    monkeypatch.setattr(gpu, "_runtime", lambda: FakeRuntime(3))
    monkeypatch.setattr(caffe, "has_nccl", lambda: True)


@pytest.mark.parametrize(
    ("text", "numbers"), [("0", (0,)), ("0,2,1", (0, 2, 1)), ("all", "all"), ("none", ()), ("07", (7,))]
)
def test_numbers_of_gpus(text, numbers):
    assert cli.gpus(text) == numbers


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("0,1,0", "GPU 0 is named twice in '0,1,0'"),
        ("a", "'a' is not the number of a GPU: they count from 0"),
        ("-1", "'-1' is not the number"),
        ("", "'' is not the number"),
        ("0,", "'' is not the number"),
        ("0, 1", "' 1' is not the number"),
        ("1.5", "'1.5' is not the number"),
        ("²", "'²' is not the number"),
        ("123456", "'123456' is not the number"),
        ("all,1", "'all' is not the number"),
    ],
)
def test_what_is_no_number_of_a_gpu(text, says, tool, tmp_path):
    arguments = "model1", "--data", tmp_path, "--run", tmp_path / "run", f"--gpu={text}"
    error = tool("train", *arguments, fails=2).stderr
    assert says in error
    assert len(error.splitlines()) == 1
    assert not (tmp_path / "run").exists()


def test_several_gpus_are_for_training_alone(tool):
    for name in ("evaluate", "predict"):
        assert "several work together in training alone" in tool(name, "run", "--gpu", "0,1", fails=2).stderr
    assert cli.gpu("none") is None and cli.gpu("3") == 3


def test_gpus_that_are_there(three):
    assert gpu.names() == ["Model 0", "Model 1", "Model 2"]
    assert gpu.choose("all") == (0, 1, 2)
    assert gpu.choose((2, 0)) == (2, 0)
    assert gpu.choose(()) == ()


def test_one_that_is_not_there(three, monkeypatch):
    with pytest.raises(GpuError) as caught:
        gpu.choose((1, 3))
    assert str(caught.value) == "there is no GPU 3 here: there are 0 (Model 0), 1 (Model 1), 2 (Model 2)"
    assert caught.value.status == 2
    monkeypatch.setattr(gpu, "_runtime", lambda: FakeRuntime(1))
    with pytest.raises(GpuError, match=r"^there is no GPU 1 here: there is 0 \(Model 0\)$"):
        gpu.choose((1,))


def test_several_without_nccl(three, monkeypatch):
    monkeypatch.setattr(caffe, "has_nccl", lambda: False)
    assert gpu.choose((2,)) == (2,)
    with pytest.raises(GpuError, match=r"^GPU 0, 2: this build of Caffe has no NCCL.*: name one of them, or install"):
        gpu.choose((0, 2))
    with pytest.raises(GpuError, match="^all GPUs: .* no NCCL"):
        gpu.choose("all")


@pytest.mark.parametrize(("count", "error"), [(0, 100), (0, 0), (0, 35)])
def test_no_gpu_at_all_is_said_in_caffes_words(count, error, monkeypatch):
    def refuse():
        raise caffe.CaffeError("the driver finds no GPU")

    monkeypatch.setattr(gpu, "_runtime", lambda: FakeRuntime(count, error))
    monkeypatch.setattr(caffe, "set_mode_gpu", refuse)
    with pytest.raises(GpuError, match=r"^GPU 0: the driver finds no GPU; --gpu none computes on the CPU$"):
        gpu.choose((0,))


@on_cpu_build
def test_every_tool_says_it_of_a_build_for_the_cpu(tool, trained, data, tiny_solver, tmp_path):
    image = tmp_path / "image.png"
    run = tmp_path / "run"
    for name, *arguments in [
        ("train", tiny_solver, "--data", data, "--run", run, "--gpu", 0),
        ("train", tiny_solver, "--data", data, "--run", run, "--gpu", "0,1"),
        ("train", tiny_solver, "--data", data, "--run", run, "--gpu", "all"),
        ("evaluate", trained, "--gpu", 0),
        (
            "evaluate",
            "--net",
            trained / "deploy.prototxt",
            "--weights",
            Run(trained).weights(),
            "--data",
            data,
            "--gpu",
            0,
        ),
        ("predict", trained, image, "--gpu", 0),
        ("predict", trained, "--submission", tmp_path / "x.txt", "--gpu", 0),
        ("ensemble", trained, "--checkpoints", "--gpu", 0),
        ("reproduce", "model1", "--data", data, "--out", tmp_path / "out", "--gpu", 0),
        ("visualize", "tsne", trained, "--gpu", 0, "--out", tmp_path / "x.png"),
    ]:
        error = tool(name, *arguments, fails=2).stderr
        assert "GPU" in error and "this build of Caffe is for the CPU alone" in error, error
        assert "tools/setup.sh --gpu builds it for a GPU; --gpu none computes on the CPU" in error
        assert len(error.splitlines()) == 1, error
    assert not run.exists() and not (tmp_path / "out").exists() and not (tmp_path / "x.png").exists()
    assert "--gpu is for what --checkpoints predicts" in tool("ensemble", "a.npz", "b.npz", "--gpu", 0, fails=2).stderr


def test_settings_of_gpus_need_one(tool, data, tiny_solver, tmp_path):
    for flag in ("--tf32", "--deterministic", "--no-tf32"):
        error = tool("train", tiny_solver, "--data", data, "--run", tmp_path / "run", flag, fails=2).stderr
        assert f"{flag.replace('no-', '')} is a setting of GPUs, and this training is on the CPU" in error
    assert "are settings of GPUs" in tool("benchmark", "nets", "--tf32", fails=2).stderr
    assert "unrecognized arguments: --gpu" in tool("benchmark", "layers", "--gpu", 0, fails=2).stderr


def test_none_is_the_cpu(data, tiny_solver, tmp_path, tool):
    tool("train", tiny_solver, "--data", data, "--run", tmp_path / "run", "--max-iter", 1, "--gpu", "none")
    assert Run(tmp_path / "run").info["gpus"] == []
    tool("evaluate", tmp_path / "run", "--gpu", "none")


@pytest.fixture
def of_gpus(trained, tmp_path):
    """A run that says it was trained on two GPUs, with TF32."""
    import shutil

    shutil.copytree(trained, tmp_path / "run", symlinks=True)
    run = Run(tmp_path / "run")
    run.update(gpus=[0, 2], tf32=True)
    return run


@on_cpu_build
def test_a_run_of_gpus_that_are_gone_can_go_on_without(of_gpus):
    options = Options(data=None, run=of_gpus.path, resume=True, max_iter=21)
    with pytest.raises(
        GpuError, match=rf"^{of_gpus.path} has been trained on GPU 0, 2: .*--gpu none computes on the CPU"
    ):
        train.train(None, options)
    result = train.train(None, dataclasses.replace(options, gpus=()))
    assert result["iterations"] == 21
    assert of_gpus.info["gpus"] == [] and of_gpus.info["tf32"] is True
    assert [session["gpus"] for session in of_gpus.info["sessions"]] == [[], []]


def test_settings_that_contradict_a_run_are_refused(of_gpus, three):
    for name, value in (("tf32", False), ("deterministic", True)):
        options = train.settled(Options(data=None, run=of_gpus.path, resume=True, gpus=(1,), **{name: value}))
        with pytest.raises(
            RunError, match=rf"was begun with another --{name} \({not value}, not {value}\): leave the flag"
        ):
            train.jobs_of(of_gpus, None, options, [])
    options = train.settled(Options(data=None, run=of_gpus.path, resume=True))
    assert (options.gpus, options.tf32, options.deterministic) == ((0, 2), True, False)


def test_what_the_environment_says_is_kept(three, tmp_path, monkeypatch):
    monkeypatch.setattr(caffe, "tf32", lambda: True, raising=False)
    monkeypatch.setattr(caffe, "deterministic", lambda: False, raising=False)
    options = train.settled(Options(data=None, run=tmp_path, gpus=(0,)))
    assert (options.tf32, options.deterministic) == (True, False)
    assert train.settled(Options(data=None, run=tmp_path, gpus=(0,), tf32=False)).tf32 is False


def test_reproduce_looks_for_its_gpus_first(data, tmp_path, three):
    with pytest.raises(GpuError, match="there is no GPU 5 here"):
        reproduce.reproduce(tmp_path / "out", Options(data=data, run=tmp_path / "out", gpus=(5,)))
    with pytest.raises(GpuError, match="--tf32 is a setting of GPUs"):
        reproduce.reproduce(tmp_path / "out", Options(data=data, run=tmp_path / "out", tf32=True))
    assert not (tmp_path / "out").exists()


def test_the_solver_file_of_a_run_says_where_it_computes(of_gpus, three):
    (job,) = train.jobs_of(of_gpus, None, train.settled(Options(data=None, run=of_gpus.path, resume=True)), [])
    assert job.info["sessions"][-1]["machine"]["gpus"] == ["Model 0", "Model 2"]
    assert job.info["sessions"][-1]["versions"]["cuda"] == "12.4"
    assert [gpu._dotted(number) for number in (8904, 91300)] == ["8.9.4", "9.13.0"]
    solver = job.plan.solver
    assert (solver.solver_mode, solver.device_id) == (solver.GPU, 0)


def test_a_report_says_how_a_run_of_gpus_is_made_again(of_gpus, tmp_path):
    of_gpus.update(argv=["tools/train.py", "tiny", "--gpu", "0,2"])
    evaluate.evaluate_run(of_gpus)
    report.build([of_gpus.path], tmp_path / "report.html")
    page = (tmp_path / "report.html").read_text()
    assert "tools/train.py tiny --gpu 0,2 --tf32" in page  # CAFFE_TF32 had said it
    info = json.loads((of_gpus.path / "run.json").read_text())
    assert info["gpus"] == [0, 2]


@pytest.fixture
def calls(three, monkeypatch):
    """What Caffe is told of GPUs, in order; it computes on the CPU all the same."""
    told = []
    for name in ("set_device", "set_mode_gpu", "set_mode_cpu", "set_tf32", "set_deterministic"):
        monkeypatch.setattr(caffe, name, lambda *given, name=name: told.append((name, *given)), raising=False)
    monkeypatch.setattr(caffe, "tf32", lambda: False, raising=False)
    monkeypatch.setattr(caffe, "deterministic", lambda: True, raising=False)
    return told


def test_training_takes_its_gpu_before_it_builds_anything(calls, tiny_solver, data, tmp_path, monkeypatch):
    get_solver = caffe.get_solver
    monkeypatch.setattr(caffe, "get_solver", lambda *given: calls.append(("get_solver",)) or get_solver(*given))
    train.train(str(tiny_solver), Options(data=data, run=tmp_path / "run", max_iter=2, gpus=(1,), tf32=True))
    assert calls[:2] == [("set_device", 1), ("set_mode_cpu",)]  # nets are looked at on the CPU
    how = [("set_device", 1), ("set_mode_gpu",), ("set_tf32", True), ("set_deterministic", True)]
    assert calls[2:7] == [*how, ("get_solver",)]
    assert calls[-1] == ("set_mode_cpu",)
    assert {call for call in calls if call[0] == "set_device"} == {("set_device", 1)}
    run = Run(tmp_path / "run")
    assert (run.info["gpus"], run.info["tf32"], run.info["deterministic"]) == ([1], True, True)
    assert "on GPU 1 (Model 1): TF32, the same bits in every run" in run.log_file.read_text()


def test_prediction_computes_where_it_is_told(calls, trained, data):
    given = evaluate.predict_run(Run(trained), data, gpu=2)
    assert len(given.keys) == 40
    assert set(calls) == {("set_device", 2), ("set_mode_gpu",)}
    calls.clear()
    evaluate.predict_run(Run(trained), data)
    assert not calls


def test_several_gpus_are_given_a_process_each(calls, tiny_solver, data, tmp_path, monkeypatch):
    asked = []
    monkeypatch.setattr(train.supervisor, "train", lambda *given: asked.append(given) or {"top1": 1})
    train.train(str(tiny_solver), Options(data=data, run=tmp_path / "run", gpus="all", max_iter=2), ["command"])
    ((transport, names, source, options, argv, _),) = asked
    assert (transport, names) == ("tiny_imagenet.training.gpu_ranks:connect", ["GPU 0", "GPU 1", "GPU 2"])
    assert (source, argv, options.gpus, options.tf32) == (str(tiny_solver), ["command"], (0, 1, 2), False)
    assert not calls  # this process takes no memory of a GPU


def test_ranks_of_gpus_join_by_nccl(monkeypatch):
    """As in upstream's python/train.py: a uid, rank 0's weights, gradients layer by layer where the solver says so."""
    from types import SimpleNamespace

    from tiny_imagenet.training import gpu_ranks

    for layer_wise in (False, True):
        done = []

        class FakeNccl:
            new_uid = staticmethod(lambda: b"uid")

            def __init__(self, solver, uid, done=done):
                done.append(("joined", uid))
                self.bcast = lambda: done.append("bcast")

        solver = SimpleNamespace(
            param=SimpleNamespace(layer_wise_reduce=layer_wise),
            add_callback=lambda nccl, done=done: done.append("callback"),
            net=SimpleNamespace(after_backward=lambda nccl, done=done: done.append("layers")),
        )
        monkeypatch.setattr(caffe, "NCCL", FakeNccl)
        gpu_ranks.connect(0, ["GPU 0"], []).join(solver)
        assert done == [("joined", b"uid"), "bcast", "callback", *(["layers"] if layer_wise else [])]


def test_layers_do_not_reduce_where_a_gradient_comes_in_parts(tiny_solver, data, tmp_path):
    from tiny_imagenet.training import solving

    for text, wise in (("", True), ("iter_size: 2\n", False), ("layer_wise_reduce: false\n", False)):
        solver = tiny_solver.read_text() + text
        tiny_solver.with_name("other.prototxt").write_text(solver)
        run = tmp_path / f"run{len(text)}"
        train.train(str(tiny_solver.with_name("other.prototxt")), Options(data=data, run=run, max_iter=1))
        message = solving.message(Run(run), 4)
        assert message.layer_wise_reduce is wise
        assert message.net_param.layer[0].data_param.batch_size == 5
    net = message.net_param
    net.layer[2].param.add(name="w")
    net.layer[4].param.add(name="w")
    assert solving._shares(net)
