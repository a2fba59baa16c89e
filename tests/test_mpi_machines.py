"""Training on three machines, which are network namespaces here: one is cut off or dies, and the run resumes."""

import os
import re
import signal

import pytest

import test_spawn
from conftest import apart, wait_for
from mpi import Machines, errors, needs_mpi, run, under_way, why_no_machines
from tiny_imagenet.runs import Run
from tiny_imagenet.training import train
from tiny_imagenet.training.options import Options

pytestmark = [needs_mpi, pytest.mark.slow]
plain = test_spawn.plain
TIMEOUT = 15  # seconds; a rank on a busy machine must not need longer to start


@pytest.fixture(scope="module")
def machines(tmp_path_factory):
    if why := why_no_machines():
        pytest.skip(why)
    with Machines(3, tmp_path_factory.mktemp("machines")) as made:
        yield made


def test_three_machines_compute_the_same_as_one_process(machines, plain, data, tmp_path):
    train.train(plain, Options(data=data, run=tmp_path / "one", batch=18, max_iter=20, quiet=True))
    run(machines.command(plain, "--data", data, "--run", tmp_path / "three", "--batch", 18, "--max-iter", 20))
    assert apart(Run(tmp_path / "one"), Run(tmp_path / "three")) < 1e-5
    assert Run(tmp_path / "three").info["sessions"][0]["ranks"] == [f"rank {n} on node{n}" for n in range(3)]


@pytest.mark.parametrize(("number", "how"), [(2, "cut"), (1, "killed")])
def test_a_lost_machine_ends_all_and_the_run_resumes(number, how, machines, plain, data, tmp_path):
    folder = tmp_path / "run"
    arguments = [plain, "--data", data, "--run", folder, "--batch", 18, "--timeout", TIMEOUT, "--resume"]
    with under_way(machines.command(*arguments, "--epochs", 100_000), folder) as process:
        if how == "cut":
            machines.cut(number)
        else:
            os.kill(machines.ranks(number)[0], signal.SIGKILL)
        text = process.communicate(timeout=120)[1]
    assert process.returncode
    assert "Traceback" not in text
    if how == "killed":
        assert re.search(rf"rank {number} .*signal 9", text)
    else:
        assert re.search(rf"rank 0 on node0: .* {TIMEOUT} s", errors(text)[0])
    machines.mend(number)
    machines.kill(number)  # a rank that was cut off
    for other in range(3):
        wait_for(lambda other=other: not machines.ranks(other))
    last = Run(folder).iterations()[-1]
    run(machines.command(*arguments, "--max-iter", last + 5, count=2))
    assert Run(folder).iterations()[-1] == last + 5


def test_machines_that_cannot_reach_each_other_end_all(machines, plain, data, tmp_path):
    """Rank 0 reaches both, and MPI would wait forever."""
    arguments = [plain, "--data", data, "--run", tmp_path / "run", "--batch", 18, "--timeout", TIMEOUT]
    machines.separate(1, 2)
    try:
        text = run(machines.command(*arguments), fails=1)
    finally:
        machines.rejoin(1, 2)
    assert re.search(rf"rank 0 on node0: .* {TIMEOUT} s", errors(text)[0])
    assert not (tmp_path / "run").exists()


SLOW = """
import sys
import caffe
from caffe.proto import caffe_pb2
from google.protobuf import text_format
from tiny_imagenet.training import mpi, solving

def transfer(ranks, size):
    large, other = bytes(size), bytes([1]) * size
    assert ranks.broadcast(large if ranks.rank == 0 else None) == large
    assert ranks.gather(other if ranks.rank else None) == ([] if ranks.rank else [None, other])
    solver = caffe_pb2.SolverParameter(base_lr=1, lr_policy="fixed", solver_mode="CPU", random_seed=1 + ranks.rank)
    text_format.Parse(
        'layer { name: "data" type: "DummyData" top: "data" dummy_data_param { shape { dim: 1 dim: 1000 } } }'
        'layer { name: "fc" type: "InnerProduct" bottom: "data" top: "fc" inner_product_param {'
        f'  num_output: {size // 4000} weight_filler {{ type: "gaussian" }} }} }}'
        'layer { name: "loss" type: "Reduction" bottom: "fc" top: "loss" loss_weight: 1 }',
        solver.net_param,
    )
    solver = caffe.get_solver(solver)
    before = ranks.gather(solving.digest(solver.net))
    ranks.join(solver)
    after = ranks.gather(solving.digest(solver.net))
    assert ranks.rank or (before[0] != before[1] and after == before[:1] * 2)
    solver.step(1)
    after = ranks.gather(solving.digest(solver.net))
    assert ranks.rank or after[0] == after[1]

mpi.SLICE, mpi.AT_ONCE = 1 << 18, 2  # gradients that travel together take less than the timeout
mpi.run(transfer, int(sys.argv[3]), timeout=float(sys.argv[2]))
"""


def test_a_slow_network_is_not_a_lost_machine(machines):
    """Values, weights and gradients take longer than the timeout, but make progress."""
    machines.limit(20)
    try:
        run(machines.command(3, 10_000_000, count=2, python=["-c", SLOW]))
    finally:
        machines.limit(None)
