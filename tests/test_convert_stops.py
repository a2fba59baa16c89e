"""A conversion that is killed, interrupted or runs out of space leaves the old output, or nothing."""

from __future__ import annotations

import errno
import json
import os
import resource
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from conftest import stop_conversion
from tiny_imagenet import files
from tiny_imagenet.data import convert, lmdb_reader, pool, sample, verify
from tiny_imagenet.errors import DatasetError, TinyImageNetError

ROOT = Path(__file__).resolve().parent.parent
TOOL = [sys.executable, str(ROOT / "tools" / "convert.py")]


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    out = tmp_path_factory.mktemp("stops") / "digits"
    sample.write(out, train=60, val=10, test=10, seed=3)
    return out


def contents(folder):
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def run(*arguments, **options):
    return subprocess.run([*TOOL, *map(str, arguments)], capture_output=True, text=True, **options)


# For each number on stdin forks a conversion, kills it at that step on the file system and prints the outcome.
KILLER = """
import os, signal, sys
from tiny_imagenet.data import convert
STEPS = ("os.mkdir", "os.rename", "os.remove", "os.rmdir", "os.chmod", "shutil.rmtree", "ctypes.dlsym", "ctypes.dlopen",
         "os.truncate")
source, out, replace = sys.argv[1:]

def child(left):
    def hook(event, arguments):
        nonlocal left
        if event in STEPS or event == "open" and "digits" not in str(arguments[0]):
            left -= 1
            if left == 0:
                os.kill(os.getpid(), signal.SIGKILL)
    sys.addaudithook(hook)
    convert.convert(source, out, workers=1, seed=2, replace=bool(replace))
    os._exit(0)

for line in sys.stdin:
    pid = os.fork()
    if pid == 0:
        try:
            child(int(line))
        finally:
            os._exit(1)
    status = os.waitpid(pid, 0)[1]
    print("killed" if os.WIFSIGNALED(status) else f"ended {os.WEXITSTATUS(status)}", flush=True)
"""


@pytest.mark.parametrize("replace", [False, True], ids=["new", "replaced"])
def test_killed_at_each_step(source, tmp_path, replace):
    out = tmp_path / "here" / "out"
    aside = out.with_name(".out.tiny-imagenet.old")  # the old output for a moment; the next run restores it
    convert.convert(source, tmp_path / "new", workers=1, seed=2)
    convert.convert(source, tmp_path / "old", workers=1, seed=1)
    new, old = contents(tmp_path / "new"), contents(tmp_path / "old") if replace else None
    command = [sys.executable, "-c", KILLER, source, out, "replace" if replace else ""]
    environment = {**os.environ, "OPENBLAS_NUM_THREADS": "1", "OPENCV_FOR_THREADS_NUM": "1"}  # it forks
    options = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True, "env": environment}
    with subprocess.Popen(list(map(str, command)), **options) as process:
        for step in range(1, 200):
            if replace and not out.exists() and not aside.exists():
                shutil.copytree(tmp_path / "old", out)
            process.stdin.write(f"{step}\n")
            process.stdin.flush()
            outcome = process.stdout.readline().strip()
            place = out if out.exists() else aside
            found = contents(place) if place.exists() else None
            assert found in (old, new)  # never a mixture
            if found == new:
                shutil.rmtree(out)
            if outcome != "killed":
                break
        process.stdin.close()
    assert (outcome, found) == ("ended 0", new)
    assert step > 10
    if replace and not out.exists():
        shutil.copytree(tmp_path / "old", out)
    done = run(source, out, "--seed", 2, "--workers", 1, *(["--replace"] if replace else []))
    assert (done.returncode, done.stderr) == (0, "")
    assert os.listdir(out.parent) == ["out"]  # remains of the killed ones were removed
    assert contents(out) == new


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGKILL])
def test_stopped_with_workers(source, tmp_path, number):
    out = tmp_path / "x"
    group = number == signal.SIGINT  # a terminal sends Ctrl-C to every process of the command
    status, stdout, stderr = stop_conversion([*TOOL, source, out, "--workers", 2], out, number, whole_group=group)
    assert not out.exists()
    if number == signal.SIGKILL:
        assert status == -9
    else:
        assert (status, stdout) == (130, "")
        assert stderr.startswith("convert.py: error: interrupted") and stderr.count("\n") == 1
        assert list(tmp_path.iterdir()) == []


def die(*_):
    os.kill(os.getpid(), signal.SIGKILL)


def test_a_worker_that_dies_is_one_line(source, tmp_path, monkeypatch):
    monkeypatch.setattr(convert.loading, "load", die)
    with pytest.raises(DatasetError, match="worker"):
        convert.convert(source, tmp_path / "x", workers=2)
    assert list(tmp_path.iterdir()) == []


def test_a_file_that_may_not_grow(source, tmp_path):
    def limit():
        resource.setrlimit(resource.RLIMIT_FSIZE, (500_000, 500_000))

    done = run(source, tmp_path / "x", "--workers", 1, preexec_fn=limit)
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (1, "", 1)
    assert str(tmp_path / "x") in done.stderr
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("code", [errno.EMFILE, errno.EAGAIN, errno.ENOMEM])
def test_limits_of_the_system_advise_fewer_workers(source, tmp_path, monkeypatch, code):
    def start(*_):
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(pool, "processes", start)
    with pytest.raises(TinyImageNetError, match=f"{os.strerror(code)}.*workers"):
        convert.convert(source, tmp_path / "x", workers=2)
    assert list(tmp_path.iterdir()) == []


def test_an_error_of_the_disk_in_the_background_is_not_lost(source, tmp_path, monkeypatch):
    def fail(path):
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr("tiny_imagenet.data.lmdb_writer._sync", fail)
    with pytest.raises(TinyImageNetError, match="Input/output error"):
        convert.convert(source, tmp_path / "out", workers=1)
    assert list(tmp_path.iterdir()) == []


def test_a_file_put_into_the_old_output_meanwhile_stays(source, tmp_path, monkeypatch):
    out = tmp_path / "x"
    convert.convert(source, out, workers=1)
    real = convert._write

    def write(*arguments):
        (out / "mine.txt").write_text("mine")
        return real(*arguments)

    monkeypatch.setattr(convert, "_write", write)
    with pytest.raises(TinyImageNetError, match=r"mine\.txt"):
        convert.convert(source, out, workers=1, replace=True)
    assert (out / "mine.txt").read_text() == "mine"
    assert list(tmp_path.iterdir()) == [out]


@pytest.fixture
def small_disk(tmp_path):
    """A disk of 2 MB in memory."""
    place = tmp_path / "disk"
    place.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", str(place)]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        pytest.skip(f"cannot mount a small disk here: {done.stderr.strip()}")
    yield place
    subprocess.run(["umount", str(place)], check=True)


def test_a_full_disk(source, small_disk, monkeypatch):
    out = small_disk / "x"
    done = run(source, out, "--workers", 1)  # fails before it starts
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (1, "", 1)
    assert str(out) in done.stderr and "2.1 MB" in done.stderr
    assert os.listdir(small_disk) == []
    monkeypatch.setattr(convert, "_check_space", lambda *_: None)
    with pytest.raises(TinyImageNetError, match="disk"):
        convert.convert(source, out, workers=1)
    assert os.listdir(small_disk) == []
    monkeypatch.undo()
    convert.convert(source, out, workers=1, encoded=True)
    before = contents(out)
    done = run(source, out, "--workers", 1, "--replace")
    assert (done.returncode, done.stderr.count("\n")) == (1, 1)
    assert contents(out) == before
    assert os.listdir(small_disk) == ["x"]


def test_a_target_that_cannot_be_created(source, tmp_path):
    (tmp_path / "file").write_text("in the way")
    for out in (tmp_path / "file" / "x", tmp_path / "file"):
        done = run(source, out, "--replace")
        assert (done.returncode, done.stdout, done.stderr.count("\n")) == (1, "", 1)
        assert str(out) in done.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_replacing(source, tmp_path):
    out = tmp_path / "x"
    convert.convert(source, out, workers=1, seed=1)
    (out / "train.lmdb" / "lock.mdb").write_bytes(b"")  # Caffe creates it
    link = tmp_path / "link"
    link.symlink_to(out)
    manifest = convert.convert(source, link, workers=1, seed=5, replace=True)
    assert link.is_symlink()
    assert lmdb_reader.read_manifest(out) == manifest
    assert not (out / "train.lmdb" / "lock.mdb").exists()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["link", "x"]
    assert convert.convert(source, tmp_path / "new", workers=1, replace=True)["seed"] == 0
    verify.verify(out)


@pytest.mark.parametrize("name", ["notes.txt", "train.lmdb/notes.txt", "manifest.json", "other.lmdb/data.mdb"])
def test_a_folder_with_other_files_is_not_replaced(source, tmp_path, name):
    out = tmp_path / "x"
    convert.convert(source, out, workers=1)
    (out / name).parent.mkdir(exist_ok=True)
    (out / name).write_text(json.dumps({"mine": 1}))
    before = contents(out)
    with pytest.raises(TinyImageNetError, match=name.split("/")[0]):
        convert.convert(source, out, workers=1, replace=True)
    assert contents(out) == before


def test_two_conversions_at_once(source, tmp_path):
    out = tmp_path / "x"
    with files.atomic_folder(out) as folder:
        done = run(source, out)
        assert (done.returncode, done.stderr.count("\n")) == (1, 1)
        assert str(out) in done.stderr
        (folder / "mine").write_text("")
    assert contents(out) == {"mine": b""}
