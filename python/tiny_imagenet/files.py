"""Writing files and folders so that nothing incomplete is ever left under a final name."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import os
import shutil
import stat
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from tiny_imagenet.errors import TinyImageNetError


@contextlib.contextmanager
def atomic_file(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Yield a temporary path that replaces `path` when the block ends without an error.

    A missing parent folder is created. An old file stays until the new one is complete.

    Raises:
        TinyImageNetError: the file cannot be written.
    """
    final = Path(path)
    _check_name(final, path)
    temporary = final.with_name(f".{final.name}.{os.getpid()}.tmp")
    try:
        final.parent.mkdir(parents=True, exist_ok=True)
        yield temporary
        sync(temporary)
        os.replace(temporary, final)
    except OSError as error:
        raise _cannot_write(final, error) from error
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink()


@contextlib.contextmanager
def atomic_folder(path: str | os.PathLike[str], may_replace: Callable[[Path], None] | None = None) -> Iterator[Path]:
    """Yield a temporary folder that is renamed to `path` when the block ends without an error.

    Without `may_replace`, `path` must not exist or be an empty folder. With it, an old folder is replaced;
    `may_replace` is called with it before the block and again before the replacement, and raises if it must stay.

    The temporary folder, .NAME.tiny-imagenet.tmp, is locked while a process writes it. The next call for the same
    `path` takes over the one of a killed process, and restores an old folder that a killed process had moved aside.

    Raises:
        TinyImageNetError: `path` is not empty, another process writes it, or it cannot be written.
    """
    final = Path(os.path.realpath(path))
    _check_name(final, path)
    temporary, old = (final.with_name(f".{final.name}.tiny-imagenet.{end}") for end in ("tmp", "old"))
    if os.path.ismount(final):
        raise TinyImageNetError(f"{path} is a mount point, which cannot be replaced: name a folder in it")
    try:
        final.parent.mkdir(parents=True, exist_ok=True)
        with _locked(temporary, path):
            try:
                if old.exists():
                    shutil.rmtree(old, ignore_errors=True) if final.exists() else os.rename(old, final)
                _check_replaceable(final, path, may_replace)
                temporary.chmod(0o777 & ~_umask())
                yield temporary
                sync(temporary)
                _check_replaceable(final, path, may_replace)
                if final.exists():
                    os.rename(final, old)
                os.replace(temporary, final)
                shutil.rmtree(old, ignore_errors=True)
                sync(final.parent)
            finally:
                shutil.rmtree(temporary, ignore_errors=True)
    except OSError as error:
        raise _cannot_write(path, error) from error


def _check_name(final: Path, path: str | os.PathLike[str]) -> None:
    if not final.name:
        raise TinyImageNetError(f"cannot write {os.fspath(path) or 'to an empty name'}: name a file or folder")


def _check_replaceable(final: Path, path: object, may_replace: Callable[[Path], None] | None) -> None:
    if not final.exists() or (final.is_dir() and not any(final.iterdir())):
        return
    if may_replace is None or not final.is_dir():
        raise TinyImageNetError(f"{path} exists and is not empty: name another folder or remove it first")
    may_replace(final)


def _cannot_write(path: object, error: OSError) -> TinyImageNetError:
    advice = "name another place"
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        advice = "free some space or name another place"
    if error.errno == errno.EFBIG:
        advice = "raise the limit of file sizes (ulimit -f) or name another place"
    return TinyImageNetError(f"cannot write {path}: {error.strerror or error}: {advice}")


@contextlib.contextmanager
def _locked(folder: Path, path: object) -> Iterator[None]:
    """Create `folder`, or empty an existing one, and hold its lock for the block."""
    folder.mkdir(0o700, exist_ok=True)
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if isinstance(error, BlockingIOError):
                raise  # other errors: a file system without locks
        if not folder.exists() or not os.path.samestat(os.fstat(descriptor), os.lstat(folder)):
            raise BlockingIOError  # the process that held the lock has just finished
        for entry in os.scandir(folder):
            shutil.rmtree(entry.path) if entry.is_dir(follow_symlinks=False) else os.unlink(entry.path)
        yield
    except BlockingIOError as error:
        raise TinyImageNetError(f"another process writes {path}: wait for it or name another folder") from error
    finally:
        os.close(descriptor)


def _umask() -> int:
    mask = os.umask(0o077)  # reading it means setting it
    os.umask(mask)
    return mask


def plain(path: str, flags: int) -> int:
    """An `opener` for `open` that accepts regular files only: reading a pipe or a device may never end.

    Raises:
        OSError: the file cannot be opened or is not a regular file.
    """
    descriptor = os.open(path, flags | os.O_NONBLOCK | os.O_CLOEXEC)
    mode = os.fstat(descriptor).st_mode
    if not stat.S_ISREG(mode):
        os.close(descriptor)
        if stat.S_ISDIR(mode):
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), path)
        raise OSError(errno.EINVAL, "not a regular file", path)
    return descriptor


def shown(path: str | os.PathLike[str]) -> str:
    """Return a path relative to the working folder if it is inside it."""
    relative = os.path.relpath(path)
    return os.fspath(path) if relative.startswith("..") else relative


def write_text(path: str | os.PathLike[str], text: str) -> None:
    """Write `text` as UTF-8, atomically."""
    with atomic_file(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_bytes(path: str | os.PathLike[str], content: bytes) -> None:
    """Write a file atomically."""
    with atomic_file(path) as temporary:
        temporary.write_bytes(content)


def write_json(path: str | os.PathLike[str], value: Any) -> None:
    """Write `value` as indented JSON, atomically."""
    with atomic_file(path) as temporary, open(temporary, "w", encoding="utf-8") as file:
        json.dump(value, file, indent=2)  # streamed, to save memory
        file.write("\n")


def sync(path: Path) -> None:
    """Flush a file or a folder's entries to disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
