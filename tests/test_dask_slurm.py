"""Workers as jobs of Slurm, with programs that stand in for Slurm's: a job is a process of this machine."""

import importlib.util
import os

import pytest

from conftest import wait_for
from dask_cluster import Experiment, weights

if importlib.util.find_spec("dask_jobqueue") is None:
    pytest.skip("the packages for clusters are not installed", allow_module_level=True)

SBATCH = """#!/bin/sh
script="$JOBS/script$$"
cp "$1" "$script"
setsid sh "$script" > "$script.log" 2>&1 < /dev/null &
echo "$!" >> "$JOBS/started"
echo "$!"
"""
SCANCEL = """#!/bin/sh
for job; do
  echo "$job" >> "$JOBS/cancelled"
  kill -- "-$job" 2> /dev/null
done
exit 0
"""


@pytest.fixture
def slurm(tmp_path):
    """The environment in which there is Slurm and what people write into jobqueue.yaml, and the folder of its jobs."""
    jobs = tmp_path / "jobs"
    jobs.mkdir()
    for name, text in (("sbatch", SBATCH), ("scancel", SCANCEL)):
        (jobs / name).write_text(text)
        (jobs / name).chmod(0o755)
    settings = {"CORES": "1", "PROCESSES": "1", "MEMORY": "1GB", "INTERFACE": "lo", "WALLTIME": "00:10:00"}
    settings = {f"DASK_JOBQUEUE__SLURM__{name}": value for name, value in settings.items()}
    return {"PATH": f"{jobs}:{os.environ['PATH']}", "JOBS": str(jobs), **settings}, jobs


def gone(jobs):
    return not any(os.path.exists(f"/proc/{job}") for job in (jobs / "started").read_text().split())


def test_jobs_that_train(checkout, data, tmp_path, slurm):
    environment, jobs = slurm
    options = ["model1", "model2", "--epochs", 2]
    assert Experiment(checkout, data, tmp_path / "here", *options).end()[0] == 0
    options += ["--scheduler", "slurm", "--workers", 2]
    status, _, stderr = Experiment(checkout, data, tmp_path / "out", *options, environment=environment).end()
    assert status == 0, stderr
    assert weights(tmp_path / "out") == weights(tmp_path / "here")
    scripts = [path.read_text() for path in jobs.glob("script*") if path.suffix != ".log"]
    assert len(scripts) == 2
    assert all("#SBATCH -t 00:10:00" in script and "--resources training=1" in script for script in scripts)
    wait_for(lambda: gone(jobs))


REFUSES = """#!/bin/sh
echo "sbatch: error: invalid partition specified: normal" >&2
exit 1
"""


def test_jobs_that_slurm_refuses(checkout, data, tmp_path, slurm):
    environment, jobs = slurm
    (jobs / "sbatch").write_text(REFUSES)
    options = ["model1", "--epochs", 1, "--scheduler", "slurm"]
    status, _, stderr = Experiment(checkout, data, tmp_path / "out", *options, environment=environment).end()
    assert status == 1
    last = stderr.splitlines()[-1]
    assert "cannot start workers with Slurm (sbatch: error: invalid partition specified: normal): say cores" in last
    assert "Traceback" not in stderr


def test_a_machine_without_slurm(checkout, data, tmp_path, slurm):
    environment, jobs = slurm
    (jobs / "sbatch").unlink()
    options = ["model1", "--epochs", 1, "--scheduler", "slurm"]
    environment["PATH"] = str(jobs)
    status, _, stderr = Experiment(checkout, data, tmp_path / "out", *options, environment=environment).end()
    assert (status, len(stderr.splitlines())) == (1, 1)
    assert "--scheduler slurm needs Slurm's sbatch, which is not here" in stderr


def test_what_jobqueue_does_not_say(checkout, data, tmp_path, slurm):
    environment, _ = slurm
    del environment["DASK_JOBQUEUE__SLURM__CORES"]
    options = ["model1", "--epochs", 1, "--scheduler", "slurm"]
    status, _, stderr = Experiment(checkout, data, tmp_path / "out", *options, environment=environment).end()
    assert status == 1
    last = stderr.splitlines()[-1]
    assert "cannot start workers with Slurm (" in last and "in ~/.config/dask/jobqueue.yaml" in last
    assert "Traceback" not in stderr
