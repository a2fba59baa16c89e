"""Where a file is to go, looked at before it is written."""

import os
import stat

import pytest

from tiny_imagenet import destination
from tiny_imagenet.errors import TinyImageNetError


@pytest.mark.parametrize("name", ["new.csv", "old.csv", "one/two/new.csv", "link.csv", "folder/../new.csv"])
def test_what_can_be_written_is_accepted_and_nothing_made(tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "old.csv").write_text("old")
    (tmp_path / "folder").mkdir()
    (tmp_path / "link.csv").symlink_to("nowhere")
    before = sorted(tmp_path.rglob("*"))
    destination.check(name, ".csv")
    destination.check(tmp_path / name)
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("new.txt", "new.txt does not end in .csv: name a file that does"),
        (".csv", "does not end in .csv"),
        ("folder.csv", "folder.csv is a folder: name a file in it"),
        ("pipe.csv", "pipe.csv is no plain file: name one, or a new name"),
        ("old.csv/new.csv", "cannot write old.csv/new.csv: Not a directory"),
        ("x" * 300 + ".csv", "File name too long"),
    ],
)
def test_what_cannot_be_written_is_refused(tmp_path, monkeypatch, name, message):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "old.csv").write_text("old")
    (tmp_path / "folder.csv").mkdir()
    os.mkfifo(tmp_path / "pipe.csv")
    with pytest.raises(TinyImageNetError, match=message):
        destination.check(name, ".csv")


def test_no_name_is_refused():
    with pytest.raises(TinyImageNetError, match="no name is a folder"):
        destination.check("")


def test_a_folder_that_cannot_be_written_is_refused(tmp_path, monkeypatch):
    folder = tmp_path / "locked"
    folder.mkdir()
    folder.chmod(0o555)
    can = os.access
    # As another than root, whom no mode keeps out.
    monkeypatch.setattr(os, "access", lambda path, mode: can(path, mode) and bool(os.stat(path).st_mode & stat.S_IWUSR))
    for name in ("a.csv", "new/a.csv"):
        with pytest.raises(TinyImageNetError, match="the folder .*locked cannot be written: name another place"):
            destination.check(folder / name)
    destination.check(tmp_path / "a.csv")
