"""Training over three machines, which are network namespaces here: one is cut off or dies, and it goes on."""

import os
import re
import signal
import time

import pytest

import test_gpu_ranks
from conftest import apart, wait_for
from mpi import Machines, errors, needs_mpi, run, under_way, why_no_machines
from tiny_imagenet.runs import Run
from tiny_imagenet.training import train
from tiny_imagenet.training.train import Options

pytestmark = needs_mpi
plain = test_gpu_ranks.plain


@pytest.fixture(scope="module")
def machines(tmp_path_factory):
    if why := why_no_machines():
        pytest.skip(why)
    with Machines(3, tmp_path_factory.mktemp("machines")) as made:
        yield made


def test_three_machines_compute_what_one_process_does(machines, plain, data, tmp_path):
    train.train(plain, Options(data=data, run=tmp_path / "one", batch=18, max_iter=20, quiet=True))
    run(machines.command(plain, "--data", data, "--run", tmp_path / "three", "--batch", 18, "--max-iter", 20))
    assert apart(Run(tmp_path / "one"), Run(tmp_path / "three")) < 1e-5
    assert Run(tmp_path / "three").info["sessions"][0]["ranks"] == [f"rank {n} (node{n})" for n in range(3)]


QUICK = """
import os, runpy, sys
from tiny_imagenet.training import mpi_train
mpi_train.LAUNCHER_LIMIT = 1
sys.argv = sys.argv[1:]
sys.path.insert(0, os.path.dirname(sys.argv[0]))
runpy.run_path(sys.argv[0], run_name="__main__")
"""


@pytest.mark.parametrize(("number", "how"), [(2, "cut"), (0, "cut"), (1, "killed"), (2, "stopped")])
def test_a_machine_that_goes_ends_all_and_the_run_goes_on(number, how, machines, plain, data, tmp_path):
    folder = tmp_path / "run"
    arguments = [plain, "--data", data, "--run", folder, "--batch", 18, "--answer-within", 4, "--resume"]
    command = machines.command(*arguments, "--epochs", 100_000, python=["-c", QUICK])
    with under_way(command, folder) as process:
        begin = time.monotonic()
        if how == "cut":
            machines.cut(number)
        else:
            (pid,) = machines.ranks(number)
            os.kill(pid, signal.SIGKILL if how == "killed" else signal.SIGSTOP)
        text = process.communicate(timeout=120)[1]
        took = time.monotonic() - begin
    machines.mend(number)
    assert process.returncode
    assert "Traceback" not in text
    log = Run(folder).log_file.read_text().splitlines()[-1]
    if how == "killed":
        assert took < 60
        assert re.search(r"process rank 1 .* on node \S+ exited on signal 9", text)
        assert "mpirun ends the training" in log
    else:
        assert 3 < took < 60
        gone = {2: r"rank 2 \(node2\) has", 0: r"rank 1 \(node1\), rank 2 \(node2\) have"}[number]
        said = errors(text)
        assert re.search(gone + r" not answered for 4 s: .* checkpoint is .*--resume goes on", said[0])
        assert len(said) == 1 and re.search(gone, log)
    for other in range(3):  # nothing is left that computes, on whichever machine
        wait_for(lambda other=other: how == "stopped" or not machines.ranks(other))
    done = Run(folder).iterations()[-1]
    run(machines.command(*arguments, "--max-iter", done + 5, count=2 if number else 3))
    assert Run(folder).iterations()[-1] == done + 5


def test_machines_that_never_reach_each_other_are_named(machines, plain, data, tmp_path):
    """Rank 0 reaches both, and MPI would wait for ever."""
    arguments = [plain, "--data", data, "--run", tmp_path / "run", "--batch", 18, "--answer-within", 4]
    machines.part(1, 2)
    try:
        (line,) = errors(run(machines.command(*arguments), fails=1))
    finally:
        machines.join(1, 2)
    assert re.search(r"nothing has come through to .*rank 1 \(node1\), rank 2 \(node2\) for 4 s: .* firewall", line)
    assert not (tmp_path / "run").exists()


SLOW = """
import sys
import caffe
from caffe.proto import caffe_pb2
from google.protobuf import text_format
from tiny_imagenet.training import launch
from tiny_imagenet.training import solving
from tiny_imagenet.training.mpi_ranks import MpiRanks
from tiny_imagenet.training.mpi_thread import MpiThread

limit, size = float(sys.argv[2]), int(sys.argv[3])
started = launch.launched()
thread = MpiThread(started, limit, sys.exit)
thread.start()
ranks = MpiRanks(thread, started.local_rank)
thread.come_together()
of_0, of_1 = bytes(size), bytes([1]) * size
assert ranks.broadcast(of_0 if ranks.rank == 0 else None) == of_0
assert ranks.gather(of_1 if ranks.rank else None) == ([None, of_1] if ranks.rank == 0 else [])
message = caffe_pb2.SolverParameter(base_lr=1, lr_policy="fixed", solver_mode="CPU", random_seed=1 + ranks.rank)
text_format.Parse(
    'layer { name: "data" type: "DummyData" top: "data" dummy_data_param { shape { dim: 1 dim: 1000 } } }'
    'layer { name: "fc" type: "InnerProduct" bottom: "data" top: "fc" inner_product_param {'
    f'  num_output: {size // 4000} weight_filler {{ type: "gaussian" }} }} }}',
    message.net_param,
)
solver = caffe.get_solver(message)
before = ranks.gather(solving.digest(solver.net))
ranks.join(solver)
after = ranks.gather(solving.digest(solver.net))
assert ranks.rank or (before[0] != before[1] and after == before[:1] * 2)

thread.end()
"""


def test_a_slow_network_is_no_broken_one(machines):
    """What travels at the start, and where a run goes on, takes longer than a rank may be silent."""
    machines.limit(20)
    begin = time.monotonic()
    try:
        run(machines.command(2, 6_000_000, count=2, python=["-c", SLOW]))
    finally:
        machines.lift()
    assert time.monotonic() - begin > 3 * 2.3  # each of the three has taken longer than the limit
