"""Check of an output file before the work that creates it."""

from __future__ import annotations

import os
import stat
from pathlib import Path

from tiny_imagenet.errors import TinyImageNetError


def check(path: str | os.PathLike[str], ending: str = "") -> None:
    """Raise TinyImageNetError if a file cannot be written as `path`.

    Args:
        path: the file; missing folders are created when it is written.
        ending: required suffix of its name.
    """
    final = Path(path)
    if ending and final.suffix != ending:
        raise TinyImageNetError(f"expected a file name that ends in {ending}, got {path}")
    try:
        mode = os.stat(final).st_mode
        if stat.S_ISDIR(mode):
            raise TinyImageNetError(f"{path or 'an empty name'} is a folder: name a file in it")
        if not stat.S_ISREG(mode):
            raise TinyImageNetError(f"{path} is not a regular file: name another one")
    except FileNotFoundError:
        pass
    except OSError as error:  # part of the path is a file, or a name is too long
        raise TinyImageNetError(f"cannot write {path}: {error.strerror}: name another file") from error
    folder = next(folder for folder in final.absolute().parents if folder.exists())
    if not os.access(folder, os.W_OK | os.X_OK):
        raise TinyImageNetError(f"cannot write {path}: the folder {folder} is not writable: name another one")
