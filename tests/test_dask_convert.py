"""Images decoded by the workers of a cluster: the same bytes as here."""

import filecmp
import signal
import subprocess
import sys

import pytest

from conftest import ROOT, interruptible, wait_for
from tiny_imagenet.data import convert, sample

pytest.importorskip("distributed", reason="the packages for clusters are not installed")

# A worker that takes its time, counts batches, never ends the so-manieth, and sees no image where it is told so.
PRELOAD = """
import os, time
from tiny_imagenet.experiment import worker as cluster_worker
from tiny_imagenet.data import loading
real = loading.load
def load(entries, slot, rule):
    with open({count!r}, "a") as file:
        file.write("x")
    while os.path.getsize({count!r}) == {hangs}:
        time.sleep(0.2)
    time.sleep(0.1)
    return real([entry._replace(path=entry.path + {ending!r}) for entry in entries], slot, rule)
cluster_worker.load = load
"""


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    """A data set of 12 batches, with an image that cannot be read."""
    out = tmp_path_factory.mktemp("dask_convert") / "digits"
    sample.write(out, train=1000, val=130, test=130, seed=3)
    [bad] = list((out / "train").glob("*/images/*_7.JPEG"))[:1]
    bad.write_bytes(b"no image")
    return out


@pytest.fixture(scope="module")
def here(source, tmp_path_factory):
    out = tmp_path_factory.mktemp("dask_here") / "data"
    convert.convert(source, out, workers=1, seed=4, skip_unreadable=True)
    return out


def command(source, out, scheduler, *options):
    tool = [sys.executable, ROOT / "tools" / "convert.py", source, out, "--seed", 4, "--scheduler", scheduler]
    return list(map(str, [*tool, *options]))


def run(*arguments):
    return subprocess.run(command(*arguments), capture_output=True, text=True)


def same(one, other):
    names = [str(path.relative_to(one)) for path in one.rglob("*") if path.is_file()]
    assert len(names) == 6
    assert filecmp.cmpfiles(one, other, names, shallow=False) == (names, [], [])
    assert len([path for path in other.rglob("*") if path.is_file()]) == 6


def slow(cluster, tmp_path, ending="", hangs=0):
    """A worker of `PRELOAD`, and how many batches it has begun."""
    name = f"slow{len(cluster.workers)}"
    (tmp_path / f"{name}.py").write_text(PRELOAD.format(count=str(tmp_path / name), ending=ending, hangs=hangs))
    worker = cluster.worker(resources=None, preload=tmp_path / f"{name}.py")
    return worker, lambda: (tmp_path / name).stat().st_size if (tmp_path / name).exists() else 0


def test_a_local_cluster(source, here, tmp_path):
    done = run(source, tmp_path / "out", "local", "--skip-unreadable", "--workers", 1)
    assert done.returncode == 0, done.stderr
    assert len(done.stderr.splitlines()) == 1 and "to look at: http://127.0.0.1:" in done.stderr
    same(here, tmp_path / "out")


def test_a_killed_worker(source, here, cluster, tmp_path):
    (lost, begun), (_, other) = slow(cluster, tmp_path, hangs=2), slow(cluster, tmp_path)
    arguments = command(source, tmp_path / "out", cluster.address, "--skip-unreadable")
    with interruptible(arguments, stderr=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        wait_for(lambda: begun() == 2, process)
        lost.kill()
        _, stderr = process.communicate(timeout=120)
    assert process.returncode == 0, stderr
    assert begun() == 2 and other() >= 10
    same(here, tmp_path / "out")


def test_a_worker_that_sees_no_image(source, here, cluster, tmp_path):
    """Which it does where its disk has gone: that is no reason to leave images out."""
    _, begun = slow(cluster, tmp_path, ending=".gone")
    done = run(source, tmp_path / "out", cluster.address, "--skip-unreadable")
    assert done.returncode == 0, done.stderr
    assert begun() == 12
    same(here, tmp_path / "out")


def test_a_bad_image_ends_it_as_it_does_here(source, cluster, tmp_path):
    cluster.worker(resources=None)
    done = run(source, tmp_path / "out", cluster.address)
    assert (done.returncode, done.stdout) == (1, "")
    with pytest.raises(convert.DatasetError) as error:
        convert.convert(source, tmp_path / "out", workers=1, seed=4)
    assert done.stderr.splitlines()[-1] == f"convert.py: error: {error.value}"
    assert not (tmp_path / "out").exists()


def test_ctrl_c(source, cluster, tmp_path):
    _, begun = slow(cluster, tmp_path, hangs=2)
    folder = tmp_path / "here"
    arguments = command(source, folder / "out", cluster.address, "--skip-unreadable")
    with interruptible(arguments, stderr=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        wait_for(lambda: begun() == 2, process)
        process.send_signal(signal.SIGINT)
        _, stderr = process.communicate(timeout=120)
    assert process.returncode == 130
    assert stderr.splitlines()[-1] == f"convert.py: error: interrupted: {folder / 'out'} is as it was"
    assert not any(folder.iterdir())


def test_a_scheduler_that_is_lost(source, cluster, tmp_path):
    _, begun = slow(cluster, tmp_path, hangs=2)
    arguments = command(source, tmp_path / "out", cluster.address, "--skip-unreadable")
    with interruptible(arguments, stderr=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        wait_for(lambda: begun() == 2, process)
        cluster.scheduler.kill()
        _, stderr = process.communicate(timeout=120)
    assert process.returncode == 1
    assert f"the scheduler {cluster.address} is gone" in stderr.splitlines()[-1] and "Traceback" not in stderr
    assert not (tmp_path / "out").exists()
