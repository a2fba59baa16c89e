"""Where a file is to go, looked at before the work that makes it."""

from __future__ import annotations

import os
import stat
from pathlib import Path

from tiny_imagenet.errors import TinyImageNetError


def check(path: str | os.PathLike[str], ending: str = "") -> None:
    """Raise TinyImageNetError where it can be said already that no file can be written as `path`.

    Args:
        path: the file; folders that it lacks are made when it is written.
        ending: what its name must end in.
    """
    final = Path(path)
    if ending and final.suffix != ending:
        raise TinyImageNetError(f"{path} does not end in {ending}: name a file that does")
    try:
        mode = os.stat(final).st_mode
        if stat.S_ISDIR(mode):
            raise TinyImageNetError(f"{path or 'no name'} is a folder: name a file in it")
        if not stat.S_ISREG(mode):
            raise TinyImageNetError(f"{path} is no plain file: name one, or a new name")
    except FileNotFoundError:
        pass
    except OSError as error:  # part of the path is a file, or a name is too long
        raise TinyImageNetError(f"cannot write {path}: {error.strerror}: name another place") from error
    folder = next(folder for folder in final.absolute().parents if folder.exists())
    if not os.access(folder, os.W_OK | os.X_OK):
        raise TinyImageNetError(f"cannot write {path}: the folder {folder} cannot be written: name another place")
