"""Several ranks that mpirun starts train one net: what they compute, how they end, what they refuse."""

import contextlib
import dataclasses
import os
import re
import shutil
import signal
import time
from pathlib import Path

import pytest
from tiny_imagenet.training.mpi_operation import Operation
from tiny_imagenet.training.mpi_ranks import MpiRanks
from tiny_imagenet.training.mpi_thread import MpiThread
from tiny_imagenet.training.mpi_watch import Watch

import test_gpu_ranks
from conftest import apart, wait_for
from mpi import ENVIRONMENT, errors, needs_mpi, ranks_of, run, several, under_way
from tiny_imagenet.errors import GpuError, RunError
from tiny_imagenet.report import folders
from tiny_imagenet.runs import Run
from tiny_imagenet.training import accord, launch, mpi_thread, train
from tiny_imagenet.training.train import Options

pytestmark = needs_mpi
plain, solver = test_gpu_ranks.plain, test_gpu_ranks.solver  # a net without dropout and kinks; one with both


@pytest.fixture(scope="module")
def single(plain, data, tmp_path_factory):
    """What one process computes in 20 iterations."""
    folder = tmp_path_factory.mktemp("single") / "run"
    train.train(plain, Options(data=data, run=folder, max_iter=20, quiet=True))
    return Run(folder)


@pytest.fixture(scope="module")
def whole(solver, data, tmp_path_factory):
    """Two ranks that nothing has stopped."""
    folder = tmp_path_factory.mktemp("whole") / "run"
    run(several(2, solver, "--data", data, "--run", folder, "--max-iter", 60))
    return Run(folder)


def lasting(run_folder):
    return [{k: v for k, v in record.items() if k != "images_per_second"} for record in Run(run_folder).metrics()]


def weights(run_folder):
    return Run(run_folder).weights("last").read_bytes()


# --- What they compute ---


@pytest.mark.parametrize("count", [1, 2, 4])
def test_ranks_compute_what_one_process_does(count, single, plain, data, tmp_path):
    run(several(count, plain, "--data", data, "--run", tmp_path / "run", "--max-iter", 20))
    assert apart(single, Run(tmp_path / "run")) < 1e-5
    records = lasting(tmp_path / "run")
    assert len(records) == len(lasting(single.path)) == 2
    for record, other in zip(lasting(single.path), records):
        assert record == pytest.approx(other, rel=1e-5)


def test_the_gradients_that_travel_are_as_many_as_the_parameters(plain, data, tmp_path):
    run(several(2, plain, "--data", data, "--run", tmp_path / "run", "--max-iter", 10))
    info = Run(tmp_path / "run").info
    assert info["gradients"]["bytes"] == 4 * info["parameters"] > 0
    assert 0 <= info["gradients"]["hidden"] <= 1
    assert 0 < info["gradients"]["waited"] <= info["gradients"]["seconds"]
    assert [name.partition(" (")[0] for name in info["sessions"][0]["ranks"]] == ["rank 0", "rank 1"]
    command = folders.command(info)
    assert command.startswith(f"mpirun -n 2 tools/train.py {plain} --data ")


@pytest.mark.parametrize("change", ["iter_size: 2", "layer_wise_reduce: false"])
def test_gradients_that_travel_at_the_end_alone(change, plain, data, tmp_path):
    copied = shutil.copytree(Path(plain).parent, tmp_path / "net") / "solver.prototxt"
    copied.write_text(copied.read_text() + change + "\n")
    train.train(str(copied), Options(data=data, run=tmp_path / "one", max_iter=10, quiet=True))
    run(several(2, copied, "--data", data, "--run", tmp_path / "two", "--max-iter", 10))
    assert apart(Run(tmp_path / "one"), Run(tmp_path / "two")) < 1e-5


def test_the_same_ranks_give_the_same_bytes(whole, solver, data, tmp_path):
    run(several(2, solver, "--data", data, "--run", tmp_path / "run", "--max-iter", 60))
    assert weights(tmp_path / "run") == weights(whole.path)
    assert lasting(tmp_path / "run") == lasting(whole.path)


def test_killed_and_resumed_it_ends_with_the_same_bytes(whole, solver, data, tmp_path):
    folder = tmp_path / "run"
    arguments = [solver, "--data", data, "--run", folder, "--max-iter", 60, "--resume"]
    killed = FAILS.format(error="os.kill(os.getpid(), 9)")
    text = run(several(2, *arguments, python=["-c", killed]), fails=137, env={**ENVIRONMENT, "TEST_RANK": "1"})
    assert "rank 1" in text and "Killed" in text
    assert Run(folder).iterations()[-1] == 10
    run(several(2, *arguments))
    assert Run(folder).info["sessions"][1:]
    assert weights(folder) == weights(whole.path)
    assert lasting(folder) == lasting(whole.path)


def test_a_run_goes_on_with_other_ranks(single, plain, data, tmp_path):
    folder = tmp_path / "run"
    for count, length in ((1, 6), (4, 13), (2, 20)):
        run(several(count, plain, "--data", data, "--run", folder, "--max-iter", length, "--resume"))
    assert apart(single, Run(folder)) < 1e-5


def test_the_run_folder_is_on_rank_0s_disk_alone(plain, data, tmp_path):
    """Each rank has its own working folder, and --run and --data are relative."""
    for rank in (0, 1):
        (tmp_path / f"host{rank}").mkdir()
        shutil.copytree(data, tmp_path / f"host{rank}" / "data")
    begin = ["bash", "-c", 'cd "$0"/host$OMPI_COMM_WORLD_RANK && exec "$@"', tmp_path]
    for length in (5, 12):
        command = several(2, plain, "--data", "data", "--run", "run", "--max-iter", length, "--resume")
        at = command.index("2") + 1
        run([*command[:at], *begin, *command[at:]])
    assert Run(tmp_path / "host0" / "run").info["finished"]["iterations"] == 12
    assert [path.name for path in (tmp_path / "host1").iterdir()] == ["data"]


def test_stages_are_trained_by_all_ranks(data, tmp_path):
    solver = test_gpu_ranks.staged(tmp_path)
    run(several(2, solver, "--data", data, "--run", tmp_path / "run", "--epochs", 1))
    assert "weights from" in Run(tmp_path / "run").log_file.read_text()
    assert Run(tmp_path / "run").stage(1).iterations() == [10]


# --- How they end ---


@pytest.mark.parametrize("rank", [0, 1, 2])
def test_a_rank_that_is_killed_ends_the_job(rank, plain, data, tmp_path):
    folder = tmp_path / "run"
    arguments = [plain, "--data", data, "--run", folder, "--batch", 18, "--epochs", 100_000]
    with under_way(several(3, *arguments), folder) as process:
        pids = ranks_of(process)
        assert len(pids) == 3
        begin = time.monotonic()
        os.kill(pids[rank], signal.SIGKILL)
        text = process.communicate(timeout=120)[1]
    assert time.monotonic() - begin < 60
    assert process.returncode == 128 + signal.SIGKILL
    assert re.search(rf"process rank {rank} .*on node \S+ exited on signal 9", text)
    wait_for(lambda: not any(map(alive, pids)))
    assert "Traceback" not in text
    if rank:  # what rank 0 knows of it
        assert "mpirun ends the training" in Run(folder).log_file.read_text().splitlines()[-1]


def alive(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


FAILS = """
import os, runpy, sys
sys.argv = sys.argv[1:]
sys.path.insert(0, os.path.dirname(sys.argv[0]))
from tiny_imagenet.training import solving
step = solving.Iterations.step
def failing(iterations):
    if iterations._solver.iter == 12 and os.environ["OMPI_COMM_WORLD_RANK"] == os.environ["TEST_RANK"]:
        {error}
    return step(iterations)
solving.Iterations.step = failing
runpy.run_path(sys.argv[0], run_name="__main__")
"""


@pytest.mark.parametrize("rank", [0, 1])
@pytest.mark.parametrize("error", ['raise MemoryError("no memory is left here")', 'raise ValueError("a bug here")'])
def test_a_rank_that_fails_is_named(rank, error, plain, data, tmp_path):
    folder = tmp_path / "run"
    command = several(
        2, plain, "--data", data, "--run", folder, "--epochs", 3, python=["-c", FAILS.format(error=error)]
    )
    text = run(command, fails=1, env={**ENVIRONMENT, "TEST_RANK": str(rank)})
    said = errors(text)
    assert "Traceback" in text or "Memory" in error
    if rank:
        (line,) = said
        assert re.search(r"rank 1 \(\S+\): .*(no memory is left|a bug) here; the last good checkpoint is \S+/10", line)
        assert "rank 1" in Run(folder).log_file.read_text().splitlines()[-1]
    else:
        assert len(said) <= 1


@pytest.mark.parametrize("number", [signal.SIGUSR1, signal.SIGTERM, signal.SIGINT])
def test_a_signal_to_mpirun_ends_all_with_a_checkpoint(number, plain, data, tmp_path):
    """At SIGTERM and Ctrl-C mpirun leaves them two seconds, which these iterations do not need."""
    folder = tmp_path / "run"
    with under_way(several(2, plain, "--data", data, "--run", folder, "--epochs", 100_000), folder) as process:
        process.send_signal(number)
        text = process.communicate(timeout=120)[1]
    assert process.returncode != 0
    (line,) = errors(text)
    found = re.search(r"stopped by SIGTERM at iteration (\d+), with a checkpoint: .*--resume", line)
    assert Run(folder).iterations()[-1] == int(found[1])


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_to_any_rank_is_a_wish_to_stop(number, plain, data, tmp_path):
    folder = tmp_path / "run"
    with under_way(several(2, plain, "--data", data, "--run", folder, "--epochs", 100_000), folder) as process:
        os.kill(ranks_of(process)[1], number)
        text = process.communicate(timeout=120)[1]
    assert process.returncode == 128 + number
    assert f"stopped by {signal.Signals(number).name} at iteration" in errors(text)[0]


MPI_FAILS = """
import os, runpy, sys
sys.argv = sys.argv[1:]
sys.path.insert(0, os.path.dirname(sys.argv[0]))
from tiny_imagenet.training import mpi_ranks
average = mpi_ranks._Averages._average
def failing(averages, number):
    if averages.traffic.iterations == 12 and os.environ["OMPI_COMM_WORLD_RANK"] == "1":
        raise RuntimeError("MPI_ERR_OTHER: connection reset")
    yield from average(averages, number)
mpi_ranks._Averages._average = failing
runpy.run_path(sys.argv[0], run_name="__main__")
"""


def test_what_mpi_raises_is_one_line_that_names_the_rank(plain, data, tmp_path):
    arguments = [plain, "--data", data, "--run", tmp_path / "run", "--epochs", 3]
    text = run(several(2, *arguments, python=["-c", MPI_FAILS]), fails=1)
    assert re.search(r"^train.py: error: rank 1 \(\S+\): MPI fails: MPI_ERR_OTHER: connection reset", text, re.M)
    assert "Traceback" not in text


SLOW_END = """
import os, runpy, sys, time
from tiny_imagenet.training import mpi_thread
mpi_thread.GRACE = 1
import mpi4py
mpi4py.rc.initialize = mpi4py.rc.finalize = False
from mpi4py import MPI
finalize = MPI.Finalize
MPI.Finalize = lambda: (time.sleep(2), finalize())
sys.argv = sys.argv[1:]
sys.path.insert(0, os.path.dirname(sys.argv[0]))
runpy.run_path(sys.argv[0], run_name="__main__")
"""


SLOW_RANK = """
import os, runpy, sys, time
from tiny_imagenet.training.mpi_ranks import MpiRanks
gather = MpiRanks.gather
def slow(ranks, own):
    found = gather(ranks, own)
    if ranks.rank:
        time.sleep(2)
    return found
MpiRanks.gather = slow
sys.argv = sys.argv[1:]
sys.path.insert(0, os.path.dirname(sys.argv[0]))
runpy.run_path(sys.argv[0], run_name="__main__")
"""


def test_a_rank_that_comes_late_to_the_end_is_no_failure(plain, data, tmp_path):
    """Rank 0 has said all that it has to say, and that this was all, before the other has asked for any of it."""
    arguments = [plain, "--data", data, "--run", tmp_path / "run", "--max-iter", 1]
    assert not errors(run(several(2, *arguments, python=["-c", SLOW_RANK])))


def test_an_end_of_mpi_that_takes_its_time_is_no_failure(plain, data, tmp_path):
    """Longer than a process has that does not end by itself when a rank is lost."""
    arguments = [plain, "--data", data, "--run", tmp_path / "run", "--max-iter", 1]
    assert not errors(run(several(2, *arguments, python=["-c", SLOW_END])))


def test_a_rank_that_stands_still_is_lost(plain, data, tmp_path):
    folder = tmp_path / "run"
    arguments = [plain, "--data", data, "--run", folder, "--epochs", 100_000, "--answer-within", 3]
    with under_way(several(2, *arguments), folder) as process:
        begin, (_, other) = time.monotonic(), ranks_of(process)
        os.kill(other, signal.SIGSTOP)
        text = process.communicate(timeout=120)[1]
    assert 2 < time.monotonic() - begin < 60
    assert process.returncode == 1
    (line,) = errors(text)
    assert re.search(r"rank 1 \(\S+\) has not answered for 3 s: .* checkpoint is .*--resume goes on", line)
    assert "rank 1" in Run(folder).log_file.read_text().splitlines()[-1]


def test_a_job_that_was_suspended_goes_on(plain, data, tmp_path):
    """As by Ctrl-Z and fg, for longer than a rank may be silent."""
    folder = tmp_path / "run"
    arguments = [plain, "--data", data, "--run", folder, "--epochs", 100_000, "--answer-within", 2]
    with under_way(several(2, *arguments), folder) as process:
        pids = ranks_of(process)
        for pid in pids:
            os.kill(pid, signal.SIGSTOP)
        time.sleep(3)
        before = Run(folder).iterations()[-1]
        for pid in pids:
            os.kill(pid, signal.SIGCONT)
        wait_for(lambda: Run(folder).iterations()[-1] != before or process.poll() is not None)
        assert process.poll() is None, process.communicate()[1]
        process.send_signal(signal.SIGUSR1)
        process.communicate(timeout=120)


# --- What they refuse ---


def test_a_batch_that_does_not_split_is_refused(plain, data, tmp_path):
    folder = tmp_path / "run"
    (line,) = errors(run(several(3, plain, "--data", data, "--run", folder, "--batch", 20), fails=1))
    assert "a batch of 20 images does not split evenly between rank 0" in line
    assert "the nearest that do are 18 and 21 (--batch)" in line
    assert not folder.exists()


def test_a_run_keeps_its_batch(single, data):
    (line,) = errors(run(several(3, "--run", single.path, "--resume"), fails=1))
    assert line.endswith(": 20 splits between 1, 2, 4, 5, 10 of them")


def test_a_folder_with_a_run_is_refused(single, plain, data):
    (line,) = errors(run(several(2, plain, "--data", data, "--run", single.path), fails=1))
    assert "is not empty: it has a run; --resume goes on with it" in line


def test_a_mistake_in_the_command_is_said_once(plain, data, tmp_path):
    text = run(several(3, plain, "--data", data, "--run", tmp_path / "run", "--max-iter", "-1"), fails=2)
    assert len(errors(text)) == 1


def others_have(*change):
    return lambda solver, data, folder: [solver, "--data", data, "--run", folder, "--max-iter", 20, *change]


def test_other_options_are_refused(plain, data, tmp_path):
    own, folder = others_have(), tmp_path / "run"
    others = others_have("--seed", 4)
    (line,) = errors(run(several(3, *own(plain, data, folder), others=others(plain, data, folder)), fails=1))
    assert re.search(r"rank 1 \(\S+\), rank 2 \(\S+\) have another --seed than rank 0 \(\S+\) \(4, not None\)", line)
    assert not folder.exists()


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"batch": 10}, "rank 1 (b) has another --batch than rank 0 (a) (10, not None)"),
        ({"deterministic": True}, "rank 1 (b) has another --deterministic than rank 0 (a) (True, not None)"),
        ({"staged": False}, "rank 1 (b) has another --staged than rank 0 (a) (False, not True)"),
        ({"data": Path("/other"), "run": Path("/other"), "keep": 7, "quiet": True, "gpus": (1,)}, ""),
    ],
)
def test_what_options_must_be_the_same(changes, says, plain):
    options = Options(data=Path("/data"), run=Path("/run"))
    given = [accord.of_this_process(plain, one) for one in (options, dataclasses.replace(options, **changes))]
    with pytest.raises(RunError, match=re.escape(says)) if says else contextlib.nullcontext():
        accord.check(NAMES, [*given, given[0]])


def test_another_prototxt_is_refused(plain, data, tmp_path):
    """A net that one has edited in its own copy of the folder."""
    for rank in (0, 1):
        copied = shutil.copytree(Path(plain).parent, tmp_path / f"host{rank}" / "net")
    edited = copied / "train_val.prototxt"
    edited.write_text(edited.read_text().replace("num_output: 16", "num_output: 17", 1))
    command = several(2, "net/solver.prototxt", "--data", data, "--run", tmp_path / "run", "--max-iter", 2)
    begin = ["bash", "-c", 'cd "$0"/host$OMPI_COMM_WORLD_RANK && exec "$@"', tmp_path]
    at = command.index("2") + 1
    (line,) = errors(run([*command[:at], *begin, *command[at:]], fails=1))
    assert re.search(
        r"rank 1 \(\S+\) has another net/train_val.prototxt than rank 0 .*sha256 \w+, not sha256 \w+", line
    )
    assert not (tmp_path / "run").exists()


def test_another_data_set_is_refused(plain, data, tmp_path):
    from tiny_imagenet.data import convert, sample

    sample.write(tmp_path / "dataset", train=200, val=40, test=20, seed=2)
    convert.convert(tmp_path / "dataset", tmp_path / "data", workers=1, seed=1)
    own, folder = others_have(), tmp_path / "run"
    command = several(2, *own(plain, data, folder), others=own(plain, tmp_path / "data", folder))
    assert re.search(r"rank 1 \(\S+\) has another data set than rank 0", errors(run(command, fails=1))[0])
    shutil.rmtree(tmp_path / "data")
    (line,) = errors(run(command, fails=1))
    assert re.search(r"rank 1 \(\S+\): \S+/data/manifest.json is missing", line)
    shutil.copytree(data, tmp_path / "data")
    shutil.rmtree(tmp_path / "data" / "train.lmdb")
    (line,) = errors(run(command, fails=1))
    assert re.search(rf"rank 1 \(\S+\): .*{tmp_path}/data/train.lmdb", line)
    assert not folder.exists()


OTHER = """
import os, runpy, sys
import tiny_imagenet
if os.environ["OMPI_COMM_WORLD_RANK"] == "1":
    tiny_imagenet.__version__ = "0.0.9"
sys.argv = sys.argv[1:]
sys.path.insert(0, os.path.dirname(sys.argv[0]))
runpy.run_path(sys.argv[0], run_name="__main__")
"""


def test_another_package_is_refused(plain, data, tmp_path):
    command = several(2, plain, "--data", data, "--run", tmp_path / "run", python=["-c", OTHER])
    (line,) = errors(run(command, fails=1))
    assert re.search(r"rank 1 \(\S+\) has another tiny_imagenet than rank 0 \(\S+\) \(0\.0\.9, ", line)
    assert not (tmp_path / "run").exists()


def test_another_caffe_is_refused(plain, monkeypatch):
    options = Options(data=Path("/data"), run=Path("/run"))
    own = accord.of_this_process(plain, options)
    monkeypatch.setattr(accord.caffe, "layer_type_list", lambda: ["Softsign"])
    with pytest.raises(RunError, match=r"rank 1 \(b\) has another Caffe than rank 0 \(a\)"):
        accord.check(NAMES, [own, accord.of_this_process(plain, options), own])


HIDDEN = """
import os, runpy, sys
from tiny_imagenet.training import launch
if os.environ.get("OMPI_COMM_WORLD_RANK", "0") in os.environ["TEST_RANK"]:
    sys.modules["mpi4py"] = None
if "0" not in os.environ["TEST_RANK"]:  # nobody to wait for
    launch._AFTER_RANK_0 = 0.5
sys.argv = sys.argv[1:]
sys.path.insert(0, os.path.dirname(sys.argv[0]))
runpy.run_path(sys.argv[0], run_name="__main__")
"""


@pytest.mark.parametrize("ranks", ["012", "1"])
def test_without_mpi4py_it_is_one_error(ranks, plain, data, tmp_path):
    command = several(3, plain, "--data", data, "--run", tmp_path / "run", python=["-c", HIDDEN])
    (line,) = errors(run(command, fails=1, env={**ENVIRONMENT, "TEST_RANK": ranks}))
    assert "mpirun has started 3 processes" in line and "no mpi4py" in line
    assert "tools/setup.sh --cluster" in line
    assert not (tmp_path / "run").exists()


def test_without_mpi4py_one_process_trains(plain, data, tmp_path):
    command = [*several(1)[-2:-1], "-c", HIDDEN, several(1)[-1]]
    arguments = [plain, "--data", data, "--run", tmp_path / "run", "--max-iter", 2]
    assert not errors(run([*command, *arguments], env={**ENVIRONMENT, "TEST_RANK": "0"}))


def test_processes_that_mpi_does_not_bring_together_are_refused(plain, data, tmp_path):
    """As under another MPI's launcher: each would train by itself into the one folder."""
    variables = {"SLURM_STEP_ID": "0", "SLURM_STEP_NUM_TASKS": "4", "SLURM_PROCID": "0", "SLURM_LOCALID": "0"}
    alone = [*several(1)[-2:], plain, "--data", data, "--run", tmp_path / "run", "--max-iter", 2]
    text = run(["env", *(f"{name}={value}" for name, value in variables.items() if "STEP_N" in name), *alone])
    assert not errors(text)  # a batch script, without a step of its own
    shutil.rmtree(tmp_path / "run")
    hidden = {"PMI_SIZE": "3", "PMI_RANK": "0"}
    text = run(alone, fails=1, env={**ENVIRONMENT, **hidden})
    assert re.search(r"mpiexec has started 3 processes, and the MPI library .* sees 1", errors(text)[0])


@pytest.mark.parametrize(
    ("variables", "says"),
    [
        ({}, None),
        ({"OMPI_COMM_WORLD_SIZE": "1", "OMPI_COMM_WORLD_RANK": "0"}, None),
        (
            {"OMPI_COMM_WORLD_SIZE": "4", "OMPI_COMM_WORLD_RANK": "3", "OMPI_COMM_WORLD_LOCAL_RANK": "1"},
            launch.Launch("mpirun", 4, 3, 1),
        ),
        ({"SLURM_STEP_NUM_TASKS": "4", "SLURM_PROCID": "0", "SLURM_NTASKS": "4"}, None),
        (
            {"SLURM_STEP_NUM_TASKS": "4", "SLURM_PROCID": "2", "SLURM_LOCALID": "0", "SLURM_STEP_ID": "0"},
            launch.Launch("srun", 4, 2, 0),
        ),
        ({"PMI_SIZE": "2", "PMI_RANK": "1", "MPI_LOCALRANKID": "1"}, launch.Launch("mpiexec", 2, 1, 1)),
        ({"PMI_SIZE": "many"}, None),
    ],
)
def test_the_launcher_is_known_by_its_variables(variables, says):
    assert launch.launched(variables) == says


class Local:
    """What MpiRanks needs of a thread to choose a GPU."""

    rank, size, names = 3, 4, ["rank 0 (a)", "rank 1 (a)", "rank 2 (b)", "rank 3 (b)"]


def test_a_rank_takes_the_gpu_of_its_place_on_the_machine(monkeypatch):
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    ranks = MpiRanks(Local, local_rank=1)
    assert ranks.device(()) is None
    assert ranks.device((4, 2)) == 2
    with pytest.raises(GpuError, match=r"rank 3 \(b\) is number 1 of those on its machine, and --gpu names 1 there"):
        ranks.device((4,))
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "6,7")
    with pytest.raises(GpuError):
        ranks.device((0,))
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "7")  # srun --gpus-per-task=1
    assert ranks.device((0,)) == 0


class Instant:
    """What MpiThread needs of MPI to go on with operations whose requests are numbers."""

    class Request:
        done = frozenset()

        @classmethod
        def Testall(cls, requests):  # noqa: N802 (MPI's name)
            return cls.done.issuperset(requests)


def test_few_operations_share_the_network_at_once(monkeypatch):
    """Of many none would come to its end for long."""
    monkeypatch.setattr(Instant.Request, "done", {1, 3})
    monkeypatch.setattr(mpi_thread, "load_mpi", lambda _: Instant)
    thread = MpiThread(launch.Launch("mpirun", 2, 0, 0), 60, print)
    begun = []

    def average(number):
        begun.append(number)
        yield [number]

    thread._active = [Operation(average(number)) for number in range(9)]
    for _ in range(3):
        thread._advance()
    assert begun == [0, 1, 2, 3, 4, 5]  # two of the first four are done
    Instant.Request.done = set(range(9))
    for _ in range(3):
        thread._advance()
    assert begun == list(range(9)) and not thread._active


# --- Whom the ranks miss ---

NAMES = ["rank 0 (a)", "rank 1 (b)", "rank 2 (c)"]


def watch(rank=0):
    found = Watch(NAMES, rank, 60, 1000)
    for other in (1, 2):
        found.sign(other, 5, 5, 9, 1000)
    found.sign(0, 5, 5, 9, 1000)
    return found


def test_a_rank_without_a_sign_of_life_is_named():
    both = watch()
    assert both.silent(1060) == ""
    assert both.silent(1061).startswith("rank 1 (b), rank 2 (c) have not answered for 60 s")
    one = watch()
    one.sign(1, 6, 6, 9, 1050)
    assert one.silent(1061).startswith("rank 2 (c) has not")
    one.forgive(30)
    assert one.silent(1061) == ""
    one.sign(2, 6, 6, 9, 1058)
    assert one.silent(1060, limit=5) == ""  # with less patience
    one.sign(1, 6, 6, 9, 1064)
    assert one.silent(1064, limit=5).startswith("rank 2 (c) has not answered for 5 s")


def test_a_broken_network_between_two_others_is_found():
    """All answer, and what all have begun is not done."""
    found = watch()
    for second in range(1001, 1070):
        for rank in range(3):
            found.sign(rank, 6, 6 if rank == 0 else 5, 9, second)
        assert found.silent(second) == ""
        assert bool(found.stuck(second)) == (second > 1061)
    assert "to rank 1 (b), rank 2 (c) for 60 s: the network" in found.stuck(1069)


def test_what_goes_on_step_by_step_is_no_broken_network():
    """However long an operation takes in all."""
    found = watch()
    for second in range(1001, 1300):
        for rank in range(3):
            found.sign(rank, 6, 5, 9 + (min(second, 1200) - 1000) // 50, second)
        assert bool(found.stuck(second)) == (second > 1260)


def test_a_rank_that_others_wait_for_is_named_once_and_kept():
    found = watch()
    for second in range(1001, 1070):
        for rank in range(3):
            found.sign(rank, 6 - (rank == 2), 5, 9, second)
        assert found.stuck(second) == found.silent(second) == ""
    assert "rank 2 (c) for 60 s: busy" in found.behind(1069)
    assert found.behind(1070) == ""
    found.sign(2, 6, 6, 9, 1071)
    assert found.behind(1072) == ""
