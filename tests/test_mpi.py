"""Several ranks started by mpirun train one net: results, failures, refusals."""

import os
import re
import shutil
import signal
from pathlib import Path
from types import SimpleNamespace

import pytest

import test_spawn
from conftest import apart
from mpi import ENVIRONMENT, errors, needs_mpi, ranks_of, run, several, under_way
from test_spawn import lasting, weights
from tiny_imagenet.errors import DatasetError, GpuError, RankLostError, RunError
from tiny_imagenet.report import folders
from tiny_imagenet.runs import Run
from tiny_imagenet.training import mpi, rank_consistency, train
from tiny_imagenet.training.options import Options
from tiny_imagenet.training.ranks import Alone

pytestmark = pytest.mark.slow

plain, solver = test_spawn.plain, test_spawn.solver  # without dropout and kinks; with both


@pytest.fixture(scope="module")
def single(plain, data, tmp_path_factory):
    """20 iterations of one process."""
    folder = tmp_path_factory.mktemp("single") / "run"
    train.train(plain, Options(data=data, run=folder, max_iter=20, quiet=True))
    return Run(folder)


# --- Results ---


@needs_mpi
@pytest.mark.parametrize("count", [2, 4])
def test_any_number_of_ranks_computes_the_same(count, single, plain, data, tmp_path):
    folder = tmp_path / "run"
    run(several(count, plain, "--data", data, "--run", folder, "--max-iter", 20))
    assert apart(single, Run(folder)) < 1e-5
    for record, other in zip(lasting(single.path), lasting(folder)):
        assert record == pytest.approx(other, rel=1e-5)
    info = Run(folder).info
    assert info["gradients"]["bytes"] == 4 * info["parameters"] > 0
    assert 0 <= info["gradients"]["hidden"] <= 1
    assert [name.partition(" on ")[0] for name in info["sessions"][0]["ranks"]] == [f"rank {n}" for n in range(count)]
    assert folders.command(info).startswith(f"mpirun -n {count} tools/train.py {plain}")


@needs_mpi
def test_gradients_of_several_passes_are_averaged_at_the_end(plain, data, tmp_path):
    copied = shutil.copytree(Path(plain).parent, tmp_path / "net") / "solver.prototxt"
    copied.write_text(copied.read_text() + "iter_size: 2\n")
    train.train(str(copied), Options(data=data, run=tmp_path / "one", max_iter=10, quiet=True))
    run(several(2, copied, "--data", data, "--run", tmp_path / "two", "--max-iter", 10))
    assert apart(Run(tmp_path / "one"), Run(tmp_path / "two")) < 1e-5


@needs_mpi
def test_a_killed_run_resumes_to_the_same_bytes(solver, data, tmp_path):
    arguments = [solver, "--data", data, "--max-iter", 30, "--resume", "--run"]
    killed = FAILS.format(error="os.kill(os.getpid(), 9)")
    text = run(several(2, *arguments, tmp_path / "killed", python=["-c", killed]), fails=137)
    assert re.search(r"rank 1 .*signal 9", text)
    assert Run(tmp_path / "killed").iterations()[-1] == 10
    for folder in (tmp_path / "killed", tmp_path / "whole"):
        run(several(2, *arguments, folder))
    assert weights(tmp_path / "killed") == weights(tmp_path / "whole")
    assert lasting(tmp_path / "killed") == lasting(tmp_path / "whole")


@needs_mpi
def test_a_run_resumes_with_another_number_of_ranks(single, plain, data, tmp_path):
    folder = tmp_path / "run"
    for count, length in ((1, 6), (4, 13), (2, 20)):
        run(several(count, plain, "--data", data, "--run", folder, "--max-iter", length, "--resume"))
    assert apart(single, Run(folder)) < 1e-5


@needs_mpi
def test_only_rank_0_needs_the_run_folder(plain, data, tmp_path):
    """Each rank has its own working directory; --run and --data are relative."""
    for rank in (0, 1):
        (tmp_path / f"host{rank}").mkdir()
        shutil.copytree(data, tmp_path / f"host{rank}" / "data")
    start = ["bash", "-c", 'cd "$0"/host$OMPI_COMM_WORLD_RANK && exec "$@"', tmp_path]
    for length in (5, 12):
        command = several(2, plain, "--data", "data", "--run", "run", "--max-iter", length, "--resume")
        at = command.index("2") + 1
        run([*command[:at], *start, *command[at:]])
    assert Run(tmp_path / "host0" / "run").info["finished"]["iterations"] == 12
    assert [path.name for path in (tmp_path / "host1").iterdir()] == ["data"]


# --- Failures ---

FAILS = """
import os, runpy, sys
sys.argv = sys.argv[1:]
sys.path.insert(0, os.path.dirname(sys.argv[0]))
from tiny_imagenet.training import solving
step = solving.Iterations.step
def failing(iterations, rate):
    if iterations._solver.iter == 12 and os.environ["OMPI_COMM_WORLD_RANK"] == os.environ.get("TEST_RANK", "1"):
        {error}
    return step(iterations, rate)
solving.Iterations.step = failing
runpy.run_path(sys.argv[0], run_name="__main__")
"""


@needs_mpi
@pytest.mark.parametrize("rank", [0, 1])
@pytest.mark.parametrize("error", ['raise MemoryError("no memory here")', 'raise ValueError("a bug here")'])
def test_a_rank_that_fails_is_named(rank, error, plain, data, tmp_path):
    arguments = [plain, "--data", data, "--run", tmp_path / "run", "--epochs", 3]
    command = several(2, *arguments, python=["-c", FAILS.format(error=error)])
    text = run(command, fails=1, env={**ENVIRONMENT, "TEST_RANK": str(rank)})
    (line,) = errors(text)
    assert re.search(rf"rank {rank} on \S+: .* here$", line)
    assert ("Traceback" in text) == ("bug" in error)


@needs_mpi
def test_sigusr1_to_mpirun_ends_all_with_a_checkpoint(plain, data, tmp_path):
    folder = tmp_path / "run"
    with under_way(several(2, plain, "--data", data, "--run", folder, "--epochs", 100_000), folder) as process:
        process.send_signal(signal.SIGUSR1)
        text = process.communicate(timeout=120)[1]
    assert process.returncode == 128 + signal.SIGUSR1
    (line,) = errors(text)
    assert Run(folder).iterations()[-1] == int(re.search(r"stopped by SIGUSR1 at iteration (\d+)", line)[1])


@needs_mpi
def test_a_rank_that_stops_responding_ends_all(plain, data, tmp_path):
    folder = tmp_path / "run"
    arguments = [plain, "--data", data, "--run", folder, "--resume", "--timeout", 15]
    with under_way(several(2, *arguments, "--epochs", 100_000), folder) as process:
        os.kill(ranks_of(process)[1], signal.SIGSTOP)
        text = process.communicate(timeout=120)[1]
    assert process.returncode == 1
    (line,) = errors(text)
    assert re.search(r"rank 0 on \S+: .* 15 s", line)
    last = Run(folder).iterations()[-1]
    run(several(2, *arguments, "--max-iter", last + 5))
    assert Run(folder).iterations()[-1] == last + 5


class Clock:
    """time.monotonic and time.sleep of a process that is suspended once, for an hour."""

    def __init__(self):
        self.now, self.sleeps = 0.0, 0

    def monotonic(self):
        return self.now

    def sleep(self, seconds):
        self.sleeps += 1
        self.now += 3600 if self.sleeps == 10 else max(seconds, 0.01)


def test_the_timeout_counts_from_the_last_progress(monkeypatch):
    """The time for which the process is suspended does not count."""
    clock = Clock()
    monkeypatch.setattr(mpi, "time", clock)
    ranks = mpi.MpiRanks.__new__(mpi.MpiRanks)
    ranks.rank, ranks.names, ranks._timeout = 0, ["rank 0 on here"], 5.0
    ranks._wait("broadcast", lambda: 20 - clock.sleeps // 100)
    with pytest.raises(RankLostError, match="rank 0 on here: gather"):
        ranks._wait("gather", lambda: 1)


def test_data_is_cut_into_pieces():
    data = bytearray(range(256)) * 10_000
    assert b"".join(mpi._pieces(data)) == data and len(list(mpi._pieces(data))) == 3
    assert not list(mpi._pieces(b""))


# --- Refusals ---


@needs_mpi
def test_a_mistake_is_reported_once(plain, data, tmp_path):
    arguments = [plain, "--data", data, "--run", tmp_path / "run"]
    for more, status, named in ((["--max-iter", "-1"], 2, "-1"), (["--batch", 20], 1, "batch of 20")):
        (line,) = errors(run(several(3, *arguments, *more), fails=status))
        assert named in line
    assert not (tmp_path / "run").exists()


@needs_mpi
def test_ranks_with_other_options_or_data_are_refused(plain, data, tmp_path):
    arguments = [plain, "--data", data, "--run", tmp_path / "run"]
    command = several(3, *arguments, others=[*arguments, "--seed", 4])
    (line,) = errors(run(command, fails=1))
    assert re.search(r"--seed of rank 1 on \S+, rank 2 on \S+ is 4", line)
    command = several(2, *arguments, others=[plain, "--data", tmp_path / "nowhere", "--run", tmp_path / "run"])
    (line,) = errors(run(command, fails=1))
    assert re.search(r"rank 1 on \S+: .*nowhere", line)
    assert not (tmp_path / "run").exists()


class Gathered(Alone):
    """Rank 0 of three, with the facts of the others."""

    def __init__(self, *others):
        super().__init__()
        self.names, self._others = ["rank 0 on a", "rank 1 on b", "rank 2 on c"], others

    def gather(self, value):
        return [value, *self._others]


def facts_of(plain, **options):
    given = {"data": Path("/data"), "run": Path("/run"), **options}
    return rank_consistency.process_facts(plain, Options(**given))


@pytest.mark.parametrize("change", [{"batch": 10}, {"deterministic": True}, {"staged": False}])
def test_options_that_must_be_equal(change, plain):
    with pytest.raises(RunError, match="rank 2 on c"):
        rank_consistency.check(Gathered(facts_of(plain), facts_of(plain, **change)), facts_of(plain))


def test_options_that_may_differ(plain):
    change = {"data": Path("/other"), "run": Path("/other"), "keep": 7, "quiet": True, "gpus": (1,), "timeout": 5}
    rank_consistency.check(Gathered(facts_of(plain), facts_of(plain, **change)), facts_of(plain))


def test_code_must_be_equal(plain, monkeypatch):
    own = facts_of(plain)
    for module, name, value in (
        (rank_consistency.tiny_imagenet, "__version__", "0.0.9"),
        (rank_consistency.caffe, "layer_type_list", lambda: ["Softsign"]),
    ):
        with monkeypatch.context() as patch:
            patch.setattr(module, name, value)
            other = facts_of(plain)
        with pytest.raises(RunError, match="rank 1 on b"):
            rank_consistency.check(Gathered(other, own), own)


def test_prototxt_must_be_equal(plain, tmp_path, monkeypatch):
    found = []
    for folder in ("one", "other"):
        copied = shutil.copytree(Path(plain).parent, tmp_path / folder / "net") / "train_val.prototxt"
        copied.write_text(copied.read_text().replace("num_output: 16", f"num_output: {len(folder)}", 1))
        monkeypatch.chdir(tmp_path / folder)
        found.append(facts_of("net/solver.prototxt"))
    with pytest.raises(RunError, match=r"train_val.prototxt of rank 1 on b"):
        rank_consistency.check(Gathered(found[1], found[0]), found[0])


def test_data_must_be_equal_and_whole(data, tmp_path):
    from tiny_imagenet.data import convert, sample

    own = rank_consistency.data_facts(data)
    sample.write(tmp_path / "dataset", train=200, val=40, test=20, seed=2)
    convert.convert(tmp_path / "dataset", tmp_path / "data", workers=1, seed=1)
    with pytest.raises(RunError, match="data set of rank 1 on b"):
        rank_consistency.check(Gathered(rank_consistency.data_facts(tmp_path / "data"), own), own)
    shutil.rmtree(tmp_path / "data" / "train.lmdb")
    shutil.copytree(tmp_path / "data" / "val.lmdb", tmp_path / "data" / "train.lmdb")
    with pytest.raises(DatasetError, match="train.lmdb"):
        rank_consistency.data_facts(tmp_path / "data")


# --- Launchers ---


@pytest.mark.parametrize(
    ("variables", "expected"),
    [
        ({}, None),
        ({"OMPI_COMM_WORLD_SIZE": "1", "OMPI_COMM_WORLD_RANK": "0"}, None),
        ({"OMPI_COMM_WORLD_SIZE": "4", "OMPI_COMM_WORLD_RANK": "3"}, ("mpirun", 4, 3)),
        ({"SLURM_STEP_NUM_TASKS": "4", "SLURM_PROCID": "0", "SLURM_NTASKS": "4"}, None),  # a batch script
        ({"SLURM_STEP_NUM_TASKS": "4", "SLURM_PROCID": "2", "SLURM_STEP_ID": "0"}, ("srun", 4, 2)),
        ({"PMI_SIZE": "2", "PMI_RANK": "1"}, ("mpiexec", 2, 1)),
        ({"PMI_SIZE": "many"}, None),
    ],
)
def test_the_launcher_is_known_by_its_variables(variables, expected):
    assert mpi.launched(variables) == expected


@needs_mpi
def test_a_launcher_of_another_mpi_is_refused(plain, data, tmp_path):
    """Otherwise each process would train alone, in the same folder."""
    alone = several(1, plain, "--data", data, "--run", tmp_path / "run")[-7:]
    (line,) = errors(run(alone, fails=1, env={**ENVIRONMENT, "PMI_SIZE": "3", "PMI_RANK": "0"}))
    assert "mpiexec started 3 processes" in line
    assert not (tmp_path / "run").exists()


@needs_mpi
def test_a_missing_mpi4py_is_reported_once(plain, data, tmp_path):
    hidden = 'import sys\nsys.modules["mpi4py"] = None\n' + FAILS.format(error="pass")
    command = several(3, plain, "--data", data, "--run", tmp_path / "run", python=["-c", hidden])
    (line,) = errors(run(command, fails=1))
    assert "tools/setup.sh --cluster" in line


def test_ranks_take_the_gpus_of_their_machine_in_order(monkeypatch):
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    world = SimpleNamespace(COMM_WORLD=SimpleNamespace(rank=3, size=4), IN_PLACE=None)
    ranks = mpi.MpiRanks(world, 60)
    ranks._hosts = ["a", "a", "b", "b"]
    assert ranks.device(()) is None
    assert ranks.device((4, 2)) == 2
    with pytest.raises(GpuError, match="rank 3"):
        ranks.device((4,))
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "7")  # srun --gpus-per-task=1
    assert ranks.device((0,)) == 0
