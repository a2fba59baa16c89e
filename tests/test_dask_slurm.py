"""Workers as Slurm jobs; stand-ins for Slurm's programs run each job as a process of this machine."""

import importlib.util
import os

import pytest

from conftest import wait_for
from dask_cluster import Experiment, results

pytestmark = pytest.mark.slow

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
  kill -- "-$job" 2> /dev/null
done
exit 0
"""
REFUSES = """#!/bin/sh
echo "sbatch: error: invalid partition specified: normal" >&2
exit 1
"""


@pytest.fixture
def slurm(tmp_path):
    """The environment with Slurm and a configured dask-jobqueue, and the folder of the jobs."""
    jobs = tmp_path / "jobs"
    jobs.mkdir()
    for name, text in (("sbatch", SBATCH), ("scancel", SCANCEL)):
        (jobs / name).write_text(text)
        (jobs / name).chmod(0o755)
    settings = {"CORES": "1", "PROCESSES": "1", "MEMORY": "1GB", "INTERFACE": "lo", "WALLTIME": "00:10:00"}
    settings = {f"DASK_JOBQUEUE__SLURM__{name}": value for name, value in settings.items()}
    return {"PATH": f"{jobs}:{os.environ['PATH']}", "JOBS": str(jobs), **settings}, jobs


def test_jobs_train(checkout, data, tmp_path, slurm):
    environment, jobs = slurm
    options = ["model1", "model2", "--epochs", 2]
    assert Experiment(checkout, data, tmp_path / "here", *options).end()[0] == 0
    options += ["--scheduler", "slurm", "--workers", 2]
    status, _, stderr = Experiment(checkout, data, tmp_path / "out", *options, environment=environment).end()
    assert status == 0, stderr
    assert results(tmp_path / "out") == results(tmp_path / "here")
    scripts = [path.read_text() for path in jobs.glob("script*") if path.suffix != ".log"]
    assert len(scripts) == 2
    assert all("#SBATCH -t 00:10:00" in script and "--resources training=1" in script for script in scripts)
    started = (jobs / "started").read_text().split()
    wait_for(lambda: not any(os.path.exists(f"/proc/{job}") for job in started))


@pytest.mark.parametrize(
    ("problem", "named"), [("missing", "sbatch"), ("refuses", "normal"), ("unconfigured", "jobqueue.yaml")]
)
def test_slurm_that_cannot_be_used(checkout, data, tmp_path, slurm, problem, named):
    environment, jobs = slurm
    if problem == "missing":
        (jobs / "sbatch").unlink()
        environment["PATH"] = str(jobs)
    elif problem == "refuses":
        (jobs / "sbatch").write_text(REFUSES)
    else:
        del environment["DASK_JOBQUEUE__SLURM__CORES"]
    options = ["model1", "--epochs", 1, "--scheduler", "slurm"]
    status, _, stderr = Experiment(checkout, data, tmp_path / "out", *options, environment=environment).end()
    assert status == 1
    [line] = stderr.splitlines()
    assert named in line
