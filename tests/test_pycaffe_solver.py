"""Solvers in Python."""

import contextlib
import signal
import subprocess
import sys

import caffe
import numpy as np
import pytest

SOLVER = """
net_param {
  layer { name: "data" type: "DummyData" top: "x" top: "t"
          dummy_data_param { shape { dim: 4 dim: 3 } shape { dim: 4 dim: 2 }
                             data_filler { type: "gaussian" } data_filler { type: "constant" value: 1 } } }
  layer { name: "fc" type: "InnerProduct" bottom: "x" top: "y"
          inner_product_param { num_output: 2 weight_filler { type: "xavier" } } }
  layer { name: "loss" type: "EuclideanLoss" bottom: "y" bottom: "t" top: "loss" }
}
base_lr: 0.05 momentum: 0.9 lr_policy: "step" stepsize: 10 gamma: 0.5 max_iter: 100 random_seed: 3
snapshot_prefix: "%s"
"""


@pytest.fixture
def solver_file(tmp_path):
    path = tmp_path / "solver.prototxt"
    path.write_text(SOLVER % (tmp_path / "snapshot"))
    return path


@pytest.mark.parametrize("kind", ["SGD", "Nesterov", "AdaGrad", "RMSProp", "AdaDelta", "Adam"])
def test_every_solver_steps(kind, solver_file):
    extra = {"RMSProp": "momentum: 0 rms_decay: 0.9", "AdaGrad": "momentum: 0", "Adam": "momentum2: 0.999"}
    solver_file.write_text(
        f'{solver_file.read_text()} type: "{kind}"'.replace(
            "momentum: 0.9", extra.get(kind, "momentum: 0.9") + (" momentum: 0.9" if kind == "Adam" else "")
        )
    )
    solver = caffe.get_solver(str(solver_file))
    before = solver.net.params["fc"][0].data.copy()
    solver.step(3)
    assert solver.iter == 3
    assert type(solver).__name__ == f"{kind}Solver"
    assert not np.array_equal(before, solver.net.params["fc"][0].data)


def test_the_rate_follows_the_policy_and_can_be_set(solver_file):
    solver = caffe.SGDSolver(str(solver_file))
    assert solver.lr == pytest.approx(0.05)
    solver.step(10)
    assert solver.lr == pytest.approx(0.025)
    solver.param.base_lr = 0.01
    assert solver.lr == pytest.approx(0.005)


def test_a_restored_solver_continues_as_the_first(solver_file, tmp_path):
    def finish(solver):
        caffe.set_random_seed(7)
        solver.step(5)
        return solver.net.params["fc"][0].data.copy()

    first = caffe.SGDSolver(str(solver_file))
    first.step(5)
    first.snapshot()
    second = caffe.SGDSolver(str(solver_file))
    second.restore(str(tmp_path / "snapshot_iter_5.solverstate"))
    assert second.iter == 5
    np.testing.assert_array_equal(finish(first), finish(second))


def message(text):
    from google.protobuf import text_format

    return text_format.Parse(text, caffe.proto.caffe_pb2.SolverParameter())


def test_a_solver_is_built_from_a_message(solver_file):
    solver = caffe.get_solver(message(solver_file.read_text()))
    solver.step(2)
    assert type(solver) is caffe.SGDSolver
    with pytest.raises(TypeError, match="NetParameter"):
        caffe.get_solver(caffe.proto.caffe_pb2.NetParameter())
    with pytest.raises(caffe.CaffeError, match="SDG"):
        caffe.get_solver(message(solver_file.read_text() + ' type: "SDG"'))


def test_parameters_are_read_and_set(solver_file, tmp_path):
    solver = caffe.SGDSolver(solver_file)
    param = solver.param
    assert (param.base_lr, param.momentum, param.max_iter) == (pytest.approx(0.05), pytest.approx(0.9), 100)
    param.momentum, param.weight_decay, param.max_iter, param.display = 0.5, 0.01, 3, 0
    param.snapshot, param.snapshot_prefix = 2, tmp_path / "other"
    written = solver.param.to_proto()
    assert (written.momentum, written.max_iter, written.snapshot_prefix) == (0.5, 3, str(tmp_path / "other"))
    assert written.net_param.layer[1].name == "fc"
    solver.solve()
    assert solver.iter == 3
    assert {path.name for path in tmp_path.glob("other*")} == {
        f"other_iter_{n}.{kind}" for n in (2, 3) for kind in ("caffemodel", "solverstate")
    }
    written.max_iter = 7  # a copy
    assert solver.param.max_iter == 3


def test_the_rate_that_is_set_is_the_rate_of_the_next_step(tmp_path):
    text = (SOLVER % (tmp_path / "s")).replace("momentum: 0.9", "momentum: 0").replace('"step"', '"fixed"')
    solver = caffe.SGDSolver(message(text))
    for rate in 0.1, 0.01:
        solver.param.base_lr = rate
        before = solver.net.params["fc"][0].data.copy()
        solver.step(1)
        np.testing.assert_allclose(
            before - solver.net.params["fc"][0].data, solver.net.params["fc"][0].diff, rtol=1e-3, atol=1e-6
        )


def test_setting_the_iteration_moves_the_rate(solver_file):
    text = solver_file.read_text()
    solver = caffe.SGDSolver(solver_file)
    solver.iter = 25
    assert (solver.iter, solver.lr) == (25, pytest.approx(0.05 / 4))
    solver.step(1)
    assert solver.iter == 26
    solver.iter = 0
    assert solver.lr == pytest.approx(0.05)
    steps = caffe.SGDSolver(message(text.replace('"step" stepsize: 10', '"multistep" stepvalue: 5 stepvalue: 9')))
    for iteration, rate in [(9, 0.0125), (5, 0.025), (4, 0.05)]:
        steps.iter = iteration
        assert steps.lr == pytest.approx(rate)
    with pytest.raises(caffe.CaffeError, match="-1"):
        solver.iter = -1
    with pytest.raises(AttributeError):
        solver.net = None


def test_callbacks_are_called_and_kept(solver_file):
    solver = caffe.SGDSolver(solver_file)
    seen = []
    solver.add_callback(lambda: seen.append("start"), lambda: seen.append("gradients"))
    solver.step(2)
    assert seen == ["start", "gradients"] * 2

    def fail():
        raise OSError("full")

    solver.add_callback(fail, lambda: None)
    with pytest.raises(OSError, match="full"):
        solver.step(1)
    assert solver.iter == 2


def test_a_parameter_that_was_reshaped_is_refused(solver_file):
    solver = caffe.SGDSolver(solver_file)
    solver.net.params["fc"][0].reshape(200, 300)
    for run in (lambda: solver.step(1), solver.apply_update):
        with pytest.raises(caffe.CaffeError, match="reshaped"):
            run()


@pytest.mark.parametrize("count", [-1, 2**31 - 1, 2**40, 1.5, "3"])
def test_a_count_that_cannot_be_stepped_is_refused(count, solver_file):
    solver = caffe.SGDSolver(solver_file)
    solver.step(1)
    with pytest.raises((caffe.CaffeError, TypeError)):
        solver.step(count)
    assert solver.iter == 1


def test_test_nets_keep_their_callbacks_whatever_happens_to_the_list(solver_file):
    solver_file.write_text(solver_file.read_text().replace("net_param {", "test_iter: 1 test_interval: 2 net_param {"))
    solver = caffe.SGDSolver(solver_file)
    seen = []
    nets = solver.test_nets
    nets[0].before_forward(seen.append)
    assert solver.test_nets[0] is nets[0]
    nets.clear()
    solver.step(3)
    assert seen


@pytest.mark.parametrize(
    ("name", "value"),
    [("display", -1), ("snapshot", -1), ("base_lr", float("nan")), ("momentum", -0.5), ("max_iter", -3)],
)
def test_parameters_that_cannot_be_are_refused(name, value, solver_file):
    param = caffe.SGDSolver(solver_file).param
    before = getattr(param, name)
    with pytest.raises(caffe.CaffeError, match=name):
        setattr(param, name, value)
    assert getattr(param, name) == before


def test_after_an_error_another_solver_trains(solver_file):
    for wrong in ['"step"', "stepsize: 10", "num_output: 2"]:  # the solver, its rate, its net
        text = solver_file.read_text().replace(
            wrong, {'"step"': '"stairs"', "stepsize: 10": ""}.get(wrong, "num_output: 9")
        )
        with pytest.raises(caffe.CaffeError):
            caffe.SGDSolver(message(text)).step(1)
    solver = caffe.SGDSolver(solver_file)
    solver.step(1)
    first = float(solver.net.blobs["loss"].data)
    solver.step(50)
    assert float(solver.net.blobs["loss"].data) < first


def test_a_snapshot_that_cannot_be_written_leaves_the_one_before(solver_file, tmp_path):
    solver = caffe.SGDSolver(solver_file)
    solver.param.snapshot_prefix = tmp_path / "nowhere" / "s"
    with pytest.raises(caffe.CaffeError, match="nowhere"):
        solver.snapshot()
    solver.param.snapshot_prefix = tmp_path / "s"
    solver.snapshot()
    before = {path: path.read_bytes() for path in tmp_path.glob("s_iter*")}
    code = (
        "import caffe, resource, signal\n"
        f"solver = caffe.SGDSolver({str(solver_file)!r})\n"
        f"solver.param.snapshot_prefix = {str(tmp_path / 's')!r}\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (50, 50))\n"  # as if the disk were full
        "try:\n    solver.snapshot()\nexcept caffe.CaffeError as error:\n    print(error)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "cannot write" in done.stdout
    assert {path: path.read_bytes() for path in tmp_path.glob("s_iter*")} == before
    assert len(list(tmp_path.iterdir())) == 3


INTERRUPTED = """
import caffe, os, signal, sys, threading, time
signal.signal(signal.SIGINT, signal.default_int_handler)  # background scripts may ignore it
solver = caffe.SGDSolver(sys.argv[1])
def interrupt():
    while solver.iter < 5:
        time.sleep(0.001)
    os.kill(os.getpid(), signal.SIGINT)
threading.Thread(target=interrupt).start()
try:
    solver.step(10**9)
except KeyboardInterrupt:
    stopped = solver.iter
solver.snapshot()
assert os.path.exists(solver.param.snapshot_prefix + f"_iter_{stopped}.solverstate")
tests = set()
solver.test_nets[0].before_forward(lambda layer: tests.add(solver.iter))
solver.step(10)
assert solver.iter == stopped + 10
every = solver.param.test_interval
assert tests == {n for n in range(stopped, stopped + 10) if n % every == 0}, (stopped, tests)
print("continued")
"""


@pytest.mark.parametrize("batches", [1, 2000])
def test_an_interrupted_solver_snapshots_continues_and_tests(batches, solver_file, tmp_path):
    """With many batches per test, the interruption comes during one."""
    every = 4 if batches == 1 else 1
    test = f"test_iter: {batches} test_interval: {every} test_initialization: false net_param {{"
    solver_file.write_text(solver_file.read_text().replace("net_param {", test))
    script = tmp_path / "script.py"
    script.write_text(INTERRUPTED)
    done = subprocess.run([sys.executable, script, solver_file], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout, done.stderr) == (0, "continued\n", "")


class EnoughError(Exception):
    """Raised by a signal handler."""


@contextlib.contextmanager
def alarms_raise(error):
    """Let SIGALRM raise `error` in the block."""

    def handler(*_):
        raise error

    former = signal.signal(signal.SIGALRM, handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGALRM, former)


def test_a_signal_handler_may_raise_any_exception(solver_file):
    solver = caffe.SGDSolver(solver_file)
    solver.add_callback(lambda: solver.iter == 3 and signal.raise_signal(signal.SIGALRM), lambda: None)
    with alarms_raise(EnoughError), pytest.raises(EnoughError):
        solver.solve()
    assert solver.iter == 3
