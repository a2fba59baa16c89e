"""Writing files and folders so that nothing half-written is ever left under a final name."""

from __future__ import annotations

import contextlib
import ctypes
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

_AT_FDCWD, _RENAME_EXCHANGE = -100, 2


@contextlib.contextmanager
def atomic_file(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Yield a temporary path beside `path` that takes its place when the block ends without an error.

    The parent folder is made when it is missing. An old file under `path` stays until the new one is whole.

    Raises:
        TinyImageNetError: the folder cannot be written, or `path` names no file.
    """
    final = Path(path)
    _check_name(final, path, "a file")
    temporary = final.with_name(f".{final.name}.{os.getpid()}.tmp")
    try:
        final.parent.mkdir(parents=True, exist_ok=True)
        yield temporary
        sync(temporary)
        os.replace(temporary, final)
    except OSError as error:
        raise TinyImageNetError(f"cannot write {final}: {error.strerror or error}: {_advice(error)}") from error
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink()


@contextlib.contextmanager
def atomic_folder(path: str | os.PathLike[str], may_replace: Callable[[Path], None] | None = None) -> Iterator[Path]:
    """Yield a temporary folder beside `path` that takes its name when the block ends without an error.

    Without `may_replace`, `path` must not exist or be an empty folder. With it, an old folder is swapped for the new
    one in one step and then removed; `may_replace` is called with it before the block and again before the swap, and
    raises where it must stay.

    The temporary folder is .NAME.tiny-imagenet.tmp, locked (flock) while a process writes it. One that a killed
    process left behind is emptied and taken over, so the next call for the same `path` clears away what the last left.

    Raises:
        TinyImageNetError: `path` is in the way, another process is writing it, or it cannot be written.
    """
    final = Path(os.path.realpath(path))
    _check_name(final, path, "a folder in it")
    temporary, old = (final.with_name(f".{final.name}.tiny-imagenet.{end}") for end in ("tmp", "old"))
    if os.path.ismount(final):  # before anything else fails there with fewer words
        raise TinyImageNetError(f"{path} is a mount point, which no folder can replace: name a folder in it")
    locks: list[int] = []
    try:
        final.parent.mkdir(parents=True, exist_ok=True)
        locks.append(_take(temporary, path))
        if old.exists():  # a swap in two steps was cut off (see `_swap`)
            if final.exists():
                shutil.rmtree(old, ignore_errors=True)
            else:
                os.rename(old, final)
        if not _is_free(final):
            if may_replace is None or not final.is_dir():
                raise TinyImageNetError(f"{path} exists and is not empty: name another folder or remove it first")
            may_replace(final)
        temporary.chmod(0o777 & ~_umask())
        yield temporary
        sync(temporary)
        if _is_free(final):
            os.replace(temporary, final)
        elif may_replace is None:
            raise TinyImageNetError(f"{path} has been made meanwhile: name another folder or remove it first")
        else:
            locks.append(_lock(final, path))  # it is going to have the temporary name
            may_replace(final)  # somebody may have put something there meanwhile
            _swap(temporary, final, old)
        sync(final.parent)
    except OSError as error:
        raise TinyImageNetError(f"cannot write {path}: {error.strerror or error}: {_advice(error)}") from error
    finally:
        if any(_is_at(lock, temporary) for lock in locks):  # else it is another process's by now
            shutil.rmtree(temporary, ignore_errors=True)
        for lock in locks:
            os.close(lock)


def _check_name(final: Path, path: str | os.PathLike[str], what: str) -> None:
    if not final.name:
        raise TinyImageNetError(f"cannot write {os.fspath(path) or 'to no name'}: that is a folder; name {what}")


def _advice(error: OSError) -> str:
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return "free some space or name another place"
    if error.errno == errno.EFBIG:
        return "raise the limit on a file's size (ulimit -f) or name another place"
    return "name a place that can be written"


def _is_free(final: Path) -> bool:
    """Whether a folder can be renamed to `final` without anything being lost."""
    return not final.exists() or (final.is_dir() and not any(final.iterdir()))


def _take(folder: Path, path: str | os.PathLike[str]) -> int:
    """Make `folder`, or empty the one that is there, and return the descriptor that holds its lock."""
    while True:
        try:
            folder.mkdir(0o700)
        except FileExistsError:
            pass
        except PermissionError as error:
            raise TinyImageNetError(
                f"cannot write {path}: it is made in {folder.parent}, which cannot be written ({error.strerror}): name "
                "a place that can be written"
            ) from error
        try:
            lock = _lock(folder, path)
        except FileNotFoundError:
            continue
        except OSError as error:  # a link, a file, or another user's
            raise _in_the_way(folder, path, error) from error
        if _is_at(lock, folder):
            break
        os.close(lock)  # whoever had it took it away after we opened it
    try:
        for entry in os.scandir(folder):
            if entry.is_dir(follow_symlinks=False):
                shutil.rmtree(entry.path)
            else:
                os.unlink(entry.path)
    except OSError as error:
        os.close(lock)
        raise _in_the_way(folder, path, error) from error
    return lock


def _in_the_way(folder: Path, path: str | os.PathLike[str], error: OSError) -> TinyImageNetError:
    return TinyImageNetError(
        f"cannot write {path}: {folder}, where it is made, cannot be taken over ({error.strerror or error}): remove "
        "that or name another folder"
    )


def _umask() -> int:
    mask = os.umask(0o077)  # it cannot be read without being set
    os.umask(mask)
    return mask


def _lock(folder: Path, path: str | os.PathLike[str]) -> int:
    """A descriptor of `folder` that holds its lock, until it is closed or the process ends."""
    lock = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        os.close(lock)
        raise TinyImageNetError(
            f"another process is writing {path} at this moment: wait for it or name another folder"
        ) from error
    except OSError:
        pass  # a file system without locks: two at once go unnoticed there
    return lock


def _is_at(lock: int, folder: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(lock), os.lstat(folder))
    except OSError:
        return False


def _swap(new: Path, final: Path, old: Path) -> None:
    """Give `new` the name `final`; what had that name ends as `new` or is removed.

    One step where the kernel and the file system can exchange names. Elsewhere two renames: a process killed between
    them leaves the old folder as `old`, which the next `atomic_folder` puts back.
    """
    if _exchange(new, final):
        return  # the old one has the temporary name now and goes as that
    os.rename(final, old)
    os.rename(new, final)
    shutil.rmtree(old, ignore_errors=True)


def _exchange(one: Path, other: Path) -> bool:
    renameat2 = getattr(ctypes.CDLL(None, use_errno=True), "renameat2", None)  # glibc 2.28 and later
    if renameat2 is None:
        return False
    names = (ctypes.c_char_p(os.fsencode(one)), ctypes.c_char_p(os.fsencode(other)))
    if renameat2(_AT_FDCWD, names[0], _AT_FDCWD, names[1], _RENAME_EXCHANGE) == 0:
        return True
    code = ctypes.get_errno()
    if code in (errno.EINVAL, errno.ENOSYS, errno.ENOTSUP):  # not in this kernel or on this file system
        return False
    raise OSError(code, os.strerror(code), str(other))


def plain(path: str, flags: int) -> int:
    """An `opener` for `open` that takes plain files alone: a pipe would keep us waiting, a device never end.

    Raises:
        OSError: it cannot be opened, or is something else.
    """
    descriptor = os.open(path, flags | os.O_NONBLOCK | os.O_CLOEXEC)
    mode = os.fstat(descriptor).st_mode
    if not stat.S_ISREG(mode):
        os.close(descriptor)
        if stat.S_ISDIR(mode):
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), path)
        raise OSError(errno.EINVAL, "it is not a plain file", path)
    return descriptor


def shown(path: str | os.PathLike[str]) -> str:
    """A path as people would say it from the working folder: relative where it is in that."""
    relative = os.path.relpath(path)
    return os.fspath(path) if relative.startswith("..") else relative


def write_text(path: str | os.PathLike[str], text: str) -> None:
    """Write `text` as UTF-8, whole or not at all."""
    with atomic_file(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(path: str | os.PathLike[str], value: Any) -> None:
    """Write `value` as indented JSON, whole or not at all."""
    with atomic_file(path) as temporary, open(temporary, "w", encoding="utf-8") as file:
        json.dump(value, file, indent=2)  # piece by piece: the text of a large value would take more memory than it
        file.write("\n")


def sync(path: Path) -> None:
    """Wait until a file, or a folder's list of names, is on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
