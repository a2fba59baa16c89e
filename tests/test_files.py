import sys

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


def test_track_yields_all_and_is_silent_when_quick(capsys):
    assert list(cli.track(range(3), 3, "count")) == [0, 1, 2]
    assert capsys.readouterr().err == ""
