"""Images decoded by the workers of a Dask cluster: the same bytes as here."""

import filecmp
import signal
import subprocess
import sys

import pytest

from conftest import ROOT, interruptible, wait_for
from tiny_imagenet.data import convert, sample

pytest.importorskip("distributed", reason="the packages for clusters are not installed")
pytestmark = pytest.mark.slow

# A worker that counts its batches, hangs in batch number `hangs`, and reads images as path + `ending`.
PRELOAD = """
import os, time
from tiny_imagenet.data import loading

real = loading.real = getattr(loading, "real", loading.load)  # Dask loads this twice
def load(records, *arguments):
    with open({count!r}, "a") as file:
        file.write("x")
    while os.path.getsize({count!r}) == {hangs}:
        time.sleep(0.2)
    return real([record._replace(path=record.path + {ending!r}) for record in records], *arguments)
loading.load = load
"""


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    """A data set of 12 batches, with an image that cannot be read."""
    out = tmp_path_factory.mktemp("dask_convert") / "digits"
    sample.write(out, train=1000, val=130, test=130, seed=3)
    bad = next((out / "train").glob("*/images/*_7.JPEG"))
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


def assert_same(one, other):
    names = [str(path.relative_to(one)) for path in one.rglob("*") if path.is_file()]
    assert len(names) == len([path for path in other.rglob("*") if path.is_file()]) == 6
    assert filecmp.cmpfiles(one, other, names, shallow=False) == (names, [], [])


def patched(cluster, tmp_path, ending="", hangs=0):
    """Start a worker with `PRELOAD`; return it and a function that counts its batches."""
    name = f"patched{len(cluster.workers)}"
    (tmp_path / f"{name}.py").write_text(PRELOAD.format(count=str(tmp_path / name), ending=ending, hangs=hangs))
    worker = cluster.worker(resources=None, preload=tmp_path / f"{name}.py")
    return worker, lambda: (tmp_path / name).stat().st_size if (tmp_path / name).exists() else 0


def test_local_cluster(source, here, tmp_path):
    done = run(source, tmp_path / "out", "local", "--skip-unreadable", "--workers", 1)
    assert done.returncode == 0, done.stderr
    assert_same(here, tmp_path / "out")


def test_batches_of_a_lost_worker_are_read_by_another(source, here, cluster, tmp_path):
    (lost, count), (_, other) = patched(cluster, tmp_path, hangs=2), patched(cluster, tmp_path)
    arguments = command(source, tmp_path / "out", cluster.address, "--skip-unreadable")
    with interruptible(arguments, stderr=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        wait_for(lambda: count() == 2, process)
        lost.kill()
        _, stderr = process.communicate(timeout=120)
    assert process.returncode == 0, stderr
    assert other() >= 10
    assert_same(here, tmp_path / "out")


def test_images_that_only_a_worker_cannot_read_are_kept(source, here, cluster, tmp_path):
    patched(cluster, tmp_path, ending=".missing")
    done = run(source, tmp_path / "out", cluster.address, "--skip-unreadable")
    assert done.returncode == 0, done.stderr
    assert_same(here, tmp_path / "out")


def test_unreadable_image_ends_it_as_it_does_here(source, cluster, tmp_path):
    cluster.worker(resources=None)
    done = run(source, tmp_path / "out", cluster.address)
    assert (done.returncode, done.stdout) == (1, "")
    with pytest.raises(convert.DatasetError) as error:
        convert.convert(source, tmp_path / "out", workers=1, seed=4)
    assert done.stderr.splitlines()[-1] == f"convert.py: error: {error.value}"
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("ending", ["Ctrl-C", "lost scheduler"])
def test_nothing_is_left_behind(source, cluster, tmp_path, ending):
    _, count = patched(cluster, tmp_path, hangs=2)
    arguments = command(source, tmp_path / "here" / "out", cluster.address, "--skip-unreadable")
    with interruptible(arguments, stderr=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        wait_for(lambda: count() == 2, process)
        if ending == "Ctrl-C":
            process.send_signal(signal.SIGINT)
        else:
            cluster.scheduler.kill()
        _, stderr = process.communicate(timeout=120)
    assert process.returncode == (130 if ending == "Ctrl-C" else 1), stderr
    assert "Traceback" not in stderr
    assert not any((tmp_path / "here").iterdir())
