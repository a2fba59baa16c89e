"""A conversion that is killed, interrupted or out of room: the old output stays or the new one is whole."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import random
import resource
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from conftest import stop_conversion
from tiny_imagenet import files
from tiny_imagenet.data import convert, lmdb_reader, pool, sample, verify
from tiny_imagenet.errors import TinyImageNetError

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


# A process without threads that forks a conversion a line and kills it: after so many seconds, or at its n-th step on
# the file system. It answers "killed" or "ended".
KILLER = """
import os, signal, sys, time
from tiny_imagenet.data import convert
STEPS = ("os.mkdir", "os.rename", "os.remove", "os.rmdir", "os.chmod", "shutil.rmtree", "ctypes.dlsym", "ctypes.dlopen",
         "sqlite3.connect", "os.truncate")
source, out, replace = sys.argv[1:]

def child(step):
    left = [step]
    def hook(event, arguments):
        if event in STEPS or event == "open" and "digits" not in str(arguments[0]):
            left[0] -= 1
            if left[0] == 0:
                os.kill(os.getpid(), signal.SIGKILL)
    if step:
        sys.addaudithook(hook)
    convert.convert(source, out, workers=1, seed=2, replace=bool(replace))
    os._exit(0)

for line in sys.stdin:
    kind, value = line.split()
    pid = os.fork()
    if pid == 0:
        try:
            child(int(value) if kind == "step" else 0)
        finally:
            os._exit(1)
    if kind == "after":
        time.sleep(float(value))
        os.kill(pid, signal.SIGKILL)
    status = os.waitpid(pid, 0)[1]
    print("killed" if os.WIFSIGNALED(status) else f"ended {os.WEXITSTATUS(status)}", flush=True)
"""


@contextlib.contextmanager
def killer(source, out, replace):
    command = [sys.executable, "-c", KILLER, source, out, "replace" if replace else ""]
    environment = {**os.environ, "OPENBLAS_NUM_THREADS": "1", "OPENCV_FOR_THREADS_NUM": "1"}
    with subprocess.Popen(
        list(map(str, command)), stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
    ) as process:

        def kill(kind, value):
            process.stdin.write(f"{kind} {value}\n")
            process.stdin.flush()
            return process.stdout.readline().strip()

        yield kill
        process.stdin.close()


@pytest.fixture(params=[False, True], ids=["no old output", "an old output"])
def place(request, source, tmp_path):
    """Where to convert to, what is there before (None: nothing), and a check that it or the new output is there."""
    out = tmp_path / "here" / "out"
    expected = tmp_path / "expected"
    convert.convert(source, expected, workers=1, seed=2)
    new, old = contents(expected), None
    if request.param:
        convert.convert(source, out, workers=1, seed=1)
        old = contents(out)

    def check():
        found = contents(out) if out.exists() else None
        assert found in (old, new)  # never a mixture
        if found == new and old is None:
            shutil.rmtree(out)
        elif found == new:
            shutil.rmtree(out)
            convert.convert(source, out, workers=1, seed=1)
        return found == new

    return out, old, check


def test_killed_at_random_moments(source, place):
    out, old, check = place
    rng = random.Random(0)
    with killer(source, out, old is not None) as kill:
        assert kill("step", 0) == "ended 0"  # the next one does not wait for the imports
        assert check()
        start = time.monotonic()
        assert kill("step", 0) == "ended 0"
        length = time.monotonic() - start
        assert check()
        killed = 0
        for _ in range(200):
            moment = rng.random() * length
            if kill("after", moment) == "killed":
                killed += 1
            else:  # it took less time than the first, on a machine with other work
                length = (length + moment) / 2
            check()
            if killed == 20:
                break
    assert killed == 20
    finish(source, out, old)


def test_killed_at_each_step(source, place):
    out, old, check = place
    with killer(source, out, old is not None) as kill:
        for step in range(1, 200):
            if kill("step", step) != "killed":
                break
            check()
        assert step > 10
        assert check()
    finish(source, out, old)


def finish(source, out, old):
    """A second run succeeds and clears away what the others left."""
    options = ["--replace"] if old is not None else []
    done = run(source, out, "--seed", 2, "--workers", 1, *options)
    assert (done.returncode, done.stderr) == (0, "")
    assert os.listdir(out.parent) == ["out"]
    assert lmdb_reader.read_manifest(out)["seed"] == 2
    verify.verify(out)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGKILL])
def test_stopped_with_its_workers_at_work(source, tmp_path, number):
    out = tmp_path / "x"
    status, stdout, stderr = stop_conversion([*TOOL, source, out, "--workers", 2], out, number)
    if number == signal.SIGKILL:
        assert status == -9
        assert not out.exists()
    else:
        assert (status, stdout) == (130, "")
        assert stderr == f"convert.py: error: interrupted: {out} is as it was\n"
        assert list(tmp_path.iterdir()) == []


def test_a_worker_that_is_killed(source, tmp_path):
    with subprocess.Popen(
        [*TOOL, source, tmp_path / "x", "--workers", "2"], stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        children = Path(f"/proc/{process.pid}/task/{process.pid}/children")
        workers = []
        while process.poll() is None and not workers:
            for pid in children.read_text().split():
                with contextlib.suppress(OSError):
                    if b"spawn_main" in Path(f"/proc/{pid}/cmdline").read_bytes():
                        workers.append(int(pid))
        os.kill(workers[0], signal.SIGKILL)
        stdout, stderr = process.communicate(timeout=120)
    assert (process.returncode, stdout) == (1, "")
    assert stderr.count("\n") == 1 and "a worker process ended early" in stderr
    assert list(tmp_path.iterdir()) == []


def test_a_file_that_may_not_grow(source, tmp_path):
    def limit():
        resource.setrlimit(resource.RLIMIT_FSIZE, (500_000, 500_000))

    for workers in (1, 2):
        done = run(source, tmp_path / "x", "--workers", workers, preexec_fn=limit)
        assert (done.returncode, done.stdout) == (1, "")
        assert done.stderr.count("\n") == 1
        assert f"cannot write {tmp_path / 'x'}: " in done.stderr and "(ulimit -f)" in done.stderr
        assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("code", [errno.EMFILE, errno.EAGAIN, errno.ENOMEM])
def test_limits_of_the_system_are_named(source, tmp_path, monkeypatch, code):
    def start(*_):
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(pool.Pool, "_start", start)
    with pytest.raises(TinyImageNetError, match=rf"cannot write .*x: {os.strerror(code)}: .*use fewer workers"):
        convert.convert(source, tmp_path / "x", workers=2)
    assert list(tmp_path.iterdir()) == []


def test_a_disk_that_fails_behind_the_writer(source, tmp_path, monkeypatch):
    """What is committed goes to the disk in a thread of its own: what that meets is not lost."""

    def fail(path):
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr("tiny_imagenet.data.lmdb_writer._sync", fail)
    with pytest.raises(TinyImageNetError, match="cannot write .*Input/output error"):
        convert.convert(source, tmp_path / "out", 1)
    assert list(tmp_path.iterdir()) == []


def test_what_is_put_into_an_old_output_meanwhile_stays(source, tmp_path, monkeypatch):
    out = tmp_path / "x"
    convert.convert(source, out, workers=1)
    real = convert._write

    def write(*arguments):
        (out / "mine.txt").write_text("mine")
        return real(*arguments)

    monkeypatch.setattr(convert, "_write", write)
    with pytest.raises(TinyImageNetError, match=r"mine\.txt is not of a converted data set"):
        convert.convert(source, out, workers=1, replace=True)
    assert (out / "mine.txt").read_text() == "mine"
    assert list(tmp_path.iterdir()) == [out]


@pytest.fixture
def small_disk(tmp_path):
    """A disk of 2 MB in memory, where this process may mount one."""
    place = tmp_path / "disk"
    place.mkdir()
    done = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", str(place)], capture_output=True, text=True
    )
    if done.returncode:
        pytest.skip(f"cannot mount a small disk here: {done.stderr.strip()}")
    yield place
    subprocess.run(["umount", str(place)], check=True)


def test_a_full_disk(source, small_disk, monkeypatch):
    out = small_disk / "x"
    done = run(source, out, "--workers", 1)  # does not even begin
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.count("\n") == 1
    assert f"cannot write {out}: about 2.3 MB are needed there and 2.1 MB are free: make room" in done.stderr
    assert os.listdir(small_disk) == []
    monkeypatch.setattr(convert, "_room", lambda *_: -(10**8))  # as if it were wrong
    for workers in (1, 2):
        with pytest.raises(TinyImageNetError, match=r"cannot write .*(disk is full|No space left).*make room"):
            convert.convert(source, out, workers=workers)
    assert os.listdir(small_disk) == []
    monkeypatch.undo()
    (small_disk / "fill").write_bytes(bytes(1_000_000))
    done = run(source, out, "--workers", 1)
    assert "are free: make room" in done.stderr and done.stderr.count("\n") == 1
    (small_disk / "fill").unlink()
    convert.convert(source, out, workers=1, encoded=True)
    verify.verify(out)
    before = contents(out)
    done = run(source, out, "--workers", 1, "--replace")
    assert done.returncode == 1 and done.stderr.count("\n") == 1
    assert contents(out) == before
    assert os.listdir(small_disk) == ["x"]
    subprocess.run(["mount", "-o", "remount,ro", str(small_disk)], check=True)
    done = run(source, small_disk / "y")
    assert done.returncode == 1 and done.stderr.count("\n") == 1
    assert "Read-only file system" in done.stderr


def test_a_target_that_cannot_be(source, tmp_path):
    (tmp_path / "file").write_text("in the way")
    for out in (tmp_path / "file" / "x", tmp_path / "file", tmp_path / ("x" * 250)):
        done = run(source, out, "--replace")
        assert (done.returncode, done.stdout) == (1, "")
        assert done.stderr.count("\n") == 1
        assert str(out) in done.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_replacing(source, tmp_path):
    out = tmp_path / "x"
    convert.convert(source, out, workers=1, seed=1)
    (out / "train.lmdb" / "lock.mdb").write_bytes(b"")  # Caffe leaves it
    done = run(source, out, "--seed", 5, "--workers", 1)
    assert done.returncode == 1 and "is not empty" in done.stderr and done.stderr.count("\n") == 1
    assert "--replace swaps it for the new one" in done.stderr
    link = tmp_path / "link"
    link.symlink_to(out)
    manifest = convert.convert(source, link, workers=1, seed=5, replace=True)
    assert link.is_symlink()
    assert lmdb_reader.read_manifest(out) == manifest
    assert not (out / "train.lmdb" / "lock.mdb").exists()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["link", "x"]
    assert convert.convert(source, tmp_path / "new", workers=1, replace=True)["seed"] == 0  # nothing to replace


@pytest.mark.parametrize("name", ["notes.txt", "train.lmdb/notes.txt", "manifest.json", "other.lmdb/data.mdb"])
def test_what_is_not_ours_is_not_replaced(source, tmp_path, name):
    out = tmp_path / "x"
    convert.convert(source, out, workers=1)
    (out / name).parent.mkdir(exist_ok=True)
    (out / name).write_text(json.dumps({"mine": 1}))
    before = contents(out)
    with pytest.raises(TinyImageNetError, match="--replace replaces what tools/convert.py made and nothing else"):
        convert.convert(source, out, workers=1, replace=True)
    assert contents(out) == before
    with pytest.raises(TinyImageNetError, match="nothing else"):
        convert.convert(source, tmp_path, workers=1, replace=True)


def test_two_at_once(source, tmp_path):
    out = tmp_path / "x"
    with files.atomic_folder(out) as folder:
        done = run(source, out)
        assert done.returncode == 1 and done.stderr.count("\n") == 1
        assert "another process is writing" in done.stderr
        (folder / "mine").write_text("")
    assert contents(out) == {"mine": b""}
