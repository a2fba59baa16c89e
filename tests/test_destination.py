"""The check of an output path before the work that produces it."""

import os

import pytest

from tiny_imagenet import destination
from tiny_imagenet.errors import TinyImageNetError


@pytest.mark.parametrize("name", ["new.csv", "old.csv", "one/two/new.csv", "link.csv", "folder/../new.csv"])
def test_a_path_that_can_be_written_is_accepted_and_not_created(tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "old.csv").write_text("old")
    (tmp_path / "folder").mkdir()
    (tmp_path / "link.csv").symlink_to("nowhere")
    before = sorted(tmp_path.rglob("*"))
    destination.check(name, ".csv")
    destination.check(tmp_path / name)
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize(
    "name", ["", "new.txt", ".csv", "folder.csv", "pipe.csv", "old.csv/new.csv", "x" * 300 + ".csv"]
)
def test_a_path_that_cannot_be_written_is_refused(tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "old.csv").write_text("old")
    (tmp_path / "folder.csv").mkdir()
    os.mkfifo(tmp_path / "pipe.csv")
    with pytest.raises(TinyImageNetError, match=name or None):
        destination.check(name, ".csv")


@pytest.mark.skipif(os.geteuid() == 0, reason="root can write everywhere")
def test_a_folder_that_cannot_be_written_is_refused(tmp_path):
    (tmp_path / "locked").mkdir(0o555)
    for name in ("a.csv", "new/a.csv"):
        with pytest.raises(TinyImageNetError, match="locked"):
            destination.check(tmp_path / "locked" / name)
