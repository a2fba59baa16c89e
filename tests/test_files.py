"""Files and folders appear whole or not at all; the exit statuses and argument types of the scripts."""

import errno
import os
import subprocess
import sys

import pytest

from conftest import ROOT
from tiny_imagenet import cli, files
from tiny_imagenet.errors import TinyImageNetError


def fill(path, text, **options):
    with files.atomic_folder(path, **options) as temporary:
        (temporary / "text").write_text(text)


def names(folder):
    return sorted(entry.name for entry in folder.iterdir())


# --- Files -----------------------------------------------------------------------------------------------------------
def test_a_file_appears_whole_or_not_at_all(tmp_path):
    path = tmp_path / "new" / "file.txt"
    files.write_text(path, "one")
    with pytest.raises(ZeroDivisionError), files.atomic_file(path) as temporary:
        temporary.write_text("two")
        raise ZeroDivisionError
    assert path.read_text() == "one"
    assert names(path.parent) == ["file.txt"]


def test_a_file_is_on_disk_before_it_gets_its_name(tmp_path, monkeypatch):
    calls = []
    monkeypatch.setattr(os, "fsync", lambda descriptor: calls.append("fsync"))
    replace = os.replace
    monkeypatch.setattr(os, "replace", lambda *paths: (calls.append("replace"), replace(*paths)))
    files.write_text(tmp_path / "x", "x")
    fill(tmp_path / "folder", "x")
    assert calls[:2] == ["fsync", "replace"] and calls.index("replace", 2) > calls.index("fsync", 2)


def test_a_file_on_a_full_disk_leaves_the_old_one(tmp_path):
    """A limit on the size of files stands in for a full disk."""
    path = tmp_path / "x.json"
    path.write_text("old")
    code = (
        "import resource, signal, sys; from tiny_imagenet import cli, files\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))\n"
        "cli.run(lambda: files.write_json(sys.argv[1], list(range(10000))))\n"
    )
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "python")}
    done = subprocess.run([sys.executable, "-c", code, path], capture_output=True, text=True, env=environment)
    assert done.returncode == 1 and done.stderr.count("\n") == 1
    assert str(path) in done.stderr and os.strerror(errno.EFBIG) in done.stderr
    assert path.read_text() == "old" and names(tmp_path) == ["x.json"]


def test_a_path_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(TinyImageNetError, match=str(tmp_path / "file")):
        files.write_text(tmp_path / "file" / "below", "x")
    with pytest.raises(TinyImageNetError, match=str(tmp_path / "file")):
        fill(tmp_path / "file" / "below", "x")
    for path in ("", ".", "/"):
        with pytest.raises(TinyImageNetError), files.atomic_file(path):
            raise AssertionError("entered")


def test_only_regular_files_are_opened(tmp_path):
    (tmp_path / "x").write_text("x")
    (tmp_path / "link").symlink_to("x")
    os.mkfifo(tmp_path / "pipe")
    for name in ("x", "link"):
        with open(tmp_path / name, opener=files.plain) as file:
            assert file.read() == "x"
    for path in (tmp_path / "pipe", "/dev/zero", tmp_path):
        with pytest.raises(OSError):
            os.close(files.plain(path, os.O_RDONLY))


# --- Folders ---------------------------------------------------------------------------------------------------------
def test_a_folder_appears_whole_or_not_at_all(tmp_path):
    path = tmp_path / "folder"
    with pytest.raises(ZeroDivisionError), files.atomic_folder(path) as temporary:
        (temporary / "half").write_text("x")
        raise ZeroDivisionError
    assert names(tmp_path) == []
    path.mkdir()  # an empty folder may be replaced
    fill(path, "whole")
    assert names(path) == ["text"]
    with pytest.raises(TinyImageNetError, match=str(path)):
        fill(path, "again")
    assert (path / "text").read_text() == "whole"


def test_a_folder_is_replaced_only_if_the_caller_agrees(tmp_path):
    path = tmp_path / "folder"
    fill(path, "one")
    fill(path, "two", may_replace=lambda folder: None)
    assert (path / "text").read_text() == "two"

    def refuse(folder):
        if (folder / "mine").exists():
            raise TinyImageNetError("mine")

    with pytest.raises(TinyImageNetError, match="mine"), files.atomic_folder(path, may_replace=refuse):
        (path / "mine").write_text("written meanwhile")
    with pytest.raises(ZeroDivisionError), files.atomic_folder(path, may_replace=lambda folder: None):
        raise ZeroDivisionError
    assert names(path) == ["mine", "text"] and (path / "text").read_text() == "two"
    assert names(tmp_path) == ["folder"]


def test_the_remains_of_a_killed_process_are_removed_and_a_running_one_is_refused(tmp_path):
    path = tmp_path / "folder"
    code = (
        "import os, signal, sys; from tiny_imagenet import files\n"
        "with files.atomic_folder(sys.argv[1]) as temporary:\n"
        "    (temporary / 'half').write_text('x')\n"
        "    os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "python")}
    subprocess.run([sys.executable, "-c", code, path], env=environment)
    assert not path.exists() and len(names(tmp_path)) == 1
    with files.atomic_folder(path) as temporary:
        assert names(temporary) == []
        (temporary / "text").write_text("first")
        with pytest.raises(TinyImageNetError, match=str(path)):
            fill(path, "second")
    assert (path / "text").read_text() == "first"
    assert names(tmp_path) == ["folder"]


def test_a_folder_with_a_relative_name_is_made(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    fill("below", "x")
    assert (tmp_path / "below" / "text").read_text() == "x"
    for path in (".", "/"):
        with pytest.raises(TinyImageNetError):
            fill(path, "x")


@pytest.mark.parametrize(("mask", "mode"), [(0o022, 0o755), (0o077, 0o700), (0o002, 0o775)])
def test_a_folder_follows_the_umask(tmp_path, mask, mode):
    before = os.umask(mask)
    try:
        fill(tmp_path / "folder", "x")
    finally:
        os.umask(before)
    assert (tmp_path / "folder").stat().st_mode & 0o777 == mode


# --- Scripts ---------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("raised", "status", "found"),
    [
        (TinyImageNetError("one\ntwo"), 1, "one two"),
        (OSError(28, "No space left on device", "x.npz"), 1, "x.npz"),
        (UnicodeDecodeError("utf-8", b"\xff", 0, 1, "invalid start byte"), 1, "utf-8"),
        (KeyboardInterrupt(), 130, "interrupted"),
        (None, 0, ""),
    ],
)
def test_a_script_ends_with_a_status_and_one_line(raised, status, found, monkeypatch, capsys):
    def main():
        if raised:
            raise raised

    monkeypatch.setattr(sys, "argv", ["/somewhere/tool"])
    with pytest.raises(SystemExit) as caught:
        cli.run(main)
    lines = capsys.readouterr().err.splitlines()
    assert caught.value.code == status and len(lines) == bool(raised)
    assert not raised or (lines[0].startswith("tool: error: ") and found in lines[0])


@pytest.mark.parametrize(("kind", "least"), [(cli.positive_int, 1), (cli.count, 0)])
def test_integers_are_those_that_caffe_can_hold(kind, least, capsys):
    parser = cli.Parser("Does nothing.", "tool 1")
    parser.add_argument("number", type=kind)
    for value in (least, 2**31 - 1):
        assert parser.parse_args([str(value)]).number == value
    for text in (str(least - 1), str(2**31), "9" * 30, "1.5", "many"):
        with pytest.raises(SystemExit) as caught:
            parser.parse_args(["--", text])
        assert caught.value.code == 2
        assert repr(text) in capsys.readouterr().err


def test_track_yields_all_items():
    assert list(cli.track(range(3), 3, "count")) == [0, 1, 2]
