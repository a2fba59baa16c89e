import os
import sys
import tempfile
from pathlib import Path

import pytest

from tiny_imagenet import cli, files
from tiny_imagenet.errors import TinyImageNetError


def test_a_file_appears_whole_or_not_at_all(tmp_path):
    path = tmp_path / "new" / "file.txt"
    files.write_text(path, "one")
    with pytest.raises(ZeroDivisionError), files.atomic_file(path) as temporary:
        temporary.write_text("two")
        raise ZeroDivisionError
    assert path.read_text() == "one"
    assert [entry.name for entry in path.parent.iterdir()] == ["file.txt"]


def test_a_folder_appears_whole_or_not_at_all(tmp_path):
    path = tmp_path / "folder"
    with pytest.raises(ZeroDivisionError), files.atomic_folder(path) as temporary:
        (temporary / "half").write_text("x")
        raise ZeroDivisionError
    assert list(tmp_path.iterdir()) == []
    path.mkdir()  # an empty folder may be taken
    with files.atomic_folder(path) as temporary:
        (temporary / "whole").write_text("x")
    assert [entry.name for entry in path.iterdir()] == ["whole"]
    with pytest.raises(TinyImageNetError, match="not empty"), files.atomic_folder(path):
        raise AssertionError("entered")


def fill(path, text, **options):
    with files.atomic_folder(path, **options) as temporary:
        (temporary / "text").write_text(text)


@pytest.mark.parametrize("exchange", [True, False])
def test_a_folder_is_replaced_as_a_whole(tmp_path, monkeypatch, exchange):
    if not exchange:  # a kernel or a file system that cannot
        monkeypatch.setattr(files, "_exchange", lambda *_: False)
    path = tmp_path / "folder"
    fill(path, "one")
    asked = []
    fill(path, "two", may_replace=asked.append)
    assert asked == [path, path]  # before it begins, and before the swap
    assert (path / "text").read_text() == "two"

    def refuse(folder):
        raise TinyImageNetError("it stays")

    with pytest.raises(TinyImageNetError, match="it stays"):
        fill(path, "three", may_replace=refuse)
    with pytest.raises(ZeroDivisionError), files.atomic_folder(path, may_replace=asked.append):
        raise ZeroDivisionError
    assert (path / "text").read_text() == "two"
    assert [entry.name for entry in tmp_path.iterdir()] == ["folder"]


def test_a_swap_that_was_cut_off_is_put_right(tmp_path):
    path, old = tmp_path / "folder", tmp_path / ".folder.tiny-imagenet.old"
    fill(path, "one")
    path.rename(old)  # killed between the two renames
    with pytest.raises(TinyImageNetError, match="not empty"):
        fill(path, "two")
    assert (path / "text").read_text() == "one" and not old.exists()
    old.mkdir()  # killed behind them
    (old / "text").write_text("zero")
    fill(path, "two", may_replace=lambda folder: None)
    assert (path / "text").read_text() == "two"
    assert [entry.name for entry in tmp_path.iterdir()] == ["folder"]


def test_what_a_killed_process_left_is_cleared_away_and_what_another_writes_is_not(tmp_path):
    path, left = tmp_path / "folder", tmp_path / ".folder.tiny-imagenet.tmp"
    (left / "deep").mkdir(parents=True)
    (left / "deep" / "half").write_text("x")
    (left / "link").symlink_to(tmp_path)
    with files.atomic_folder(path) as temporary:
        assert temporary == left and list(temporary.iterdir()) == []
        (temporary / "text").write_text("first")
        with pytest.raises(TinyImageNetError, match="another process is writing"):
            fill(path, "second")
    assert (path / "text").read_text() == "first"
    assert [entry.name for entry in tmp_path.iterdir()] == ["folder"]


def test_a_folder_in_the_working_folder(tmp_path, monkeypatch):
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    fill("below", "x")
    assert (tmp_path / "here" / "below" / "text").read_text() == "x"
    with pytest.raises(TinyImageNetError, match="not empty"):
        fill(".", "x")


def test_what_cannot_be_written_is_one_line(tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(TinyImageNetError, match="cannot write"):
        files.write_text(tmp_path / "file" / "below", "x")
    with pytest.raises(TinyImageNetError, match="cannot write"), files.atomic_folder(tmp_path / "file" / "below"):
        raise AssertionError("entered")


@pytest.mark.parametrize(
    ("raised", "status", "line"),
    [
        (TinyImageNetError("one\ntwo"), 1, "tool: error: one two\n"),
        (
            OSError(28, "No space left on device", "x.npz"),
            1,
            "tool: error: [Errno 28] No space left on device: 'x.npz'\n",
        ),
        (
            UnicodeDecodeError("utf-8", b"\xff", 0, 1, "invalid start byte"),
            1,
            "tool: error: 'utf-8' codec can't decode byte 0xff in position 0: invalid start byte\n",
        ),
        (KeyboardInterrupt(), 130, "tool: error: interrupted\n"),
        (None, 0, ""),
    ],
)
def test_a_script_ends_with_the_status_of_the_contract(raised, status, line, monkeypatch, capsys):
    def main():
        if raised:
            raise raised

    monkeypatch.setattr(sys, "argv", ["/somewhere/tool"])
    with pytest.raises(SystemExit) as caught:
        cli.run(main)
    assert caught.value.code == status
    assert capsys.readouterr().err == line


@pytest.mark.parametrize(("kind", "least"), [(cli.positive_int, 1), (cli.count, 0)])
def test_whole_numbers_are_those_that_caffe_can_hold(kind, least, capsys):
    parser = cli.Parser("Does nothing.", "tool 1")
    parser.add_argument("number", type=kind)
    for value in (least, 2**31 - 1):
        assert parser.parse_args([str(value)]).number == value
    for text in (str(least - 1), str(2**31), "9" * 30, "1.5", "many"):
        with pytest.raises(SystemExit) as caught:
            parser.parse_args(["--", text])
        assert caught.value.code == 2
        lines = capsys.readouterr().err.splitlines()
        assert len(lines) == 1 and repr(text) in lines[0] and "2147483647" in lines[0]


def test_track_yields_all_and_is_silent_when_quick(capsys):
    assert list(cli.track(range(3), 3, "count")) == [0, 1, 2]
    assert capsys.readouterr().err == ""


def test_a_mount_point_is_refused_before_the_work(tmp_path, monkeypatch):
    path = tmp_path / "disk"
    path.mkdir()
    monkeypatch.setattr(files.os.path, "ismount", lambda folder: folder == path)
    with pytest.raises(TinyImageNetError, match="is a mount point, .*: name a folder in it"), files.atomic_folder(path):
        raise AssertionError("entered")
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("mounted", [False, True])
def test_a_folder_beside_which_nothing_can_be_written_is_named(mounted, monkeypatch):
    if os.geteuid():
        pytest.skip("only root can be somebody else")
    with tempfile.TemporaryDirectory() as folder:
        os.chmod(folder, 0o755)
        path = Path(folder) / "disk"
        path.mkdir(0o777)
        monkeypatch.setattr(files.os.path, "ismount", lambda at: mounted and at == path)
        os.seteuid(65534)
        says = (
            "mount point, .*: name a folder in it" if mounted else rf"made in {folder}, which cannot be written \(Perm"
        )
        try:
            with pytest.raises(TinyImageNetError, match=says):
                fill(path, "x")
        finally:
            os.seteuid(0)


def test_what_somebody_puts_into_an_old_folder_meanwhile_stays(tmp_path):
    path = tmp_path / "folder"
    fill(path, "one")

    def may_replace(folder):
        if (folder / "mine").exists():
            raise TinyImageNetError("it stays")

    with pytest.raises(TinyImageNetError, match="it stays"), files.atomic_folder(path, may_replace=may_replace):
        (path / "mine").write_text("x")
    assert sorted(entry.name for entry in path.iterdir()) == ["mine", "text"]
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("kind", ["link", "file"])
def test_what_is_in_place_of_the_temporary_folder_is_named(tmp_path, kind):
    left = tmp_path / ".folder.tiny-imagenet.tmp"
    left.symlink_to(tmp_path) if kind == "link" else left.write_text("x")
    with pytest.raises(
        TinyImageNetError, match=rf"{left}, where it is made, cannot be taken over .*: remove that or name"
    ):
        fill(tmp_path / "folder", "x")
    assert list(tmp_path.iterdir()) == [left]


def test_another_users_temporary_folder_is_named():
    if os.geteuid():
        pytest.skip("only root can be somebody else")
    with tempfile.TemporaryDirectory() as folder:  # pytest's are for one user alone
        os.chmod(folder, 0o777)
        left = Path(folder) / ".folder.tiny-imagenet.tmp"
        left.mkdir(0o700)
        os.seteuid(65534)
        try:
            with pytest.raises(TinyImageNetError, match=rf"{left}, .* taken over \(Permission denied\): remove that"):
                fill(Path(folder) / "folder", "x")
        finally:
            os.seteuid(0)


@pytest.mark.parametrize(("mask", "mode"), [(0o022, 0o755), (0o077, 0o700), (0o002, 0o775)])
def test_a_folder_heeds_the_umask(tmp_path, mask, mode):
    before = os.umask(mask)
    try:
        fill(tmp_path / "folder", "x")
        assert os.umask(mask) == mask
    finally:
        os.umask(before)
    assert (tmp_path / "folder").stat().st_mode & 0o777 == mode


def test_errors_of_writing_say_what_to_do(tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(TinyImageNetError, match="name a place that can be written"):
        files.write_text(tmp_path / "file" / "below", "x")


def test_only_plain_files_are_opened(tmp_path):
    (tmp_path / "x").write_text("x")
    (tmp_path / "link").symlink_to("x")
    os.mkfifo(tmp_path / "pipe")
    for name in ("x", "link"):
        with open(tmp_path / name, opener=files.plain) as file:
            assert file.read() == "x"
    for path in (tmp_path / "pipe", "/dev/zero"):
        with pytest.raises(OSError, match="it is not a plain file"):  # the pipe waited for a writer before
            os.close(files.plain(path, os.O_RDONLY))
    with pytest.raises(IsADirectoryError):
        files.plain(tmp_path, os.O_RDONLY)


@pytest.mark.parametrize("path", ["", ".", "/"])
def test_no_name_of_a_file_is_refused(path):
    with pytest.raises(TinyImageNetError, match="name a file"), files.atomic_file(path):
        raise AssertionError("the block must not begin")


def test_no_name_of_a_folder_is_refused():
    says = "cannot write /: that is a folder; name a folder in it"
    with pytest.raises(TinyImageNetError, match=says), files.atomic_folder("/"):
        raise AssertionError("the block must not begin")
