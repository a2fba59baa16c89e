"""A zip archive of a data set in Tiny ImageNet's layout: checked before anything of it is written, then unpacked."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import re
import shutil
import stat
import struct
import unicodedata
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import NoReturn

from tiny_imagenet import cli, files
from tiny_imagenet.errors import DatasetError

LARGEST = 4 << 30  # bytes of an archive, and of all its files unpacked: the public ones are about 0.25 GB
MOST_FILES = 1_000_000  # the public archive has about 120,000
LONGEST, DEEPEST = 4096, 32  # characters and parts of a path

_CHUNK = 1 << 18
_FILES = ("wnids.txt", "words.txt", "val/val_annotations.txt")
_FOLDERS = ("train", "val/images", "test/images")
AGAIN = "run the same command again: it goes on from there"


class ArchiveError(DatasetError):
    """Bytes that are not the archive they should be."""


def check(path: Path, name: object, md5: str | None) -> None:
    """Raise ArchiveError unless the file is a zip archive of that checksum; `name` is what to call it."""
    try:
        with open(path, "rb", opener=files.plain) as stream:
            start = stream.read(16)
            if start[:2] != b"PK":
                state = f"begins with {start!r}" if start else "is empty"
                raise ArchiveError(f"{name} is not a zip archive (it {state}): name another")
            stream.seek(0)
            digest = hashlib.new("md5", usedforsecurity=False)
            for chunk in iter(lambda: stream.read(_CHUNK), b""):
                digest.update(chunk)
    except OSError as error:
        raise DatasetError(f"cannot read {path}: {error.strerror or error}: name a zip archive") from error
    if md5 is not None and digest.hexdigest() != md5.lower():
        raise ArchiveError(
            f"the md5 of {name} is {digest.hexdigest()}, not {md5}: it is damaged or another archive; fetch it again, "
            "or give --md5 if it is the one you mean"
        )


def unpack(path: Path, name: object, folder: Path) -> None:
    """Unpack the archive into the new `folder`, without its top folder, once every entry has been found harmless."""
    with _zip_errors(name), zipfile.ZipFile(path) as archive:
        infos = archive.infolist()
        _check_size(infos, name)
        members = _members(infos, name)
        _check_layout(members, name)
        with writing(folder):
            folder.mkdir()
            block = os.statvfs(folder).f_frsize
            check_space(folder, sum(-(-info.file_size // block) * block for info in infos), len(infos))
        made: set[Path] = set()
        for info, parts in cli.track(members, len(members), "unpacking (files)"):
            target = folder.joinpath(*parts)
            is_folder = info.filename.endswith("/")
            parent = target if is_folder else target.parent
            if parent not in made:
                with writing(parent):
                    parent.mkdir(parents=True, exist_ok=True)
                made.add(parent)
            if not is_folder:
                with archive.open(info) as source, writing(target), open(target, "xb") as stream:
                    shutil.copyfileobj(source, stream)


def _check_size(infos: list[zipfile.ZipInfo], name: object) -> None:
    # zipfile gives no more bytes of an entry than the directory says, so that their sum is a bound.
    total = sum(info.file_size for info in infos)
    if total > LARGEST or len(infos) > MOST_FILES:
        raise ArchiveError(
            f"{name} would unpack to {len(infos):,} files of {total:,} bytes: at most {MOST_FILES:,} and {LARGEST:,} "
            "are allowed; name another archive"
        )


def _members(infos: list[zipfile.ZipInfo], name: object) -> list[tuple[zipfile.ZipInfo, tuple[str, ...]]]:
    """The entries with their paths below the archive's top folder; the top folder itself is left out.

    Raises:
        ArchiveError: an entry is not a plain file or folder, is encrypted, has a name that is absolute, leads upwards
            or would be read otherwise elsewhere, clashes with another (capitals are not told apart), or there is more
            than one top folder.
    """
    taken: dict[str, tuple[str, bool]] = {}
    members = []
    for info in infos:
        is_folder = info.filename.endswith("/")
        if len(info.filename) > LONGEST or info.filename.count("/") > DEEPEST:
            _refuse(name, info, f"its name has more than {LONGEST} characters or {DEEPEST} parts")
        parts = tuple(info.filename[: len(info.filename) - is_folder].split("/"))
        kind = stat.S_IFMT(info.external_attr >> 16)
        plain = info.filename == info.orig_filename and info.filename.isprintable() and "\\" not in info.filename
        if not plain or {"", ".", ".."} & {*parts}:
            _refuse(name, info, "its name is not a plain path within the archive")
        if kind not in (0, stat.S_IFDIR if is_folder else stat.S_IFREG):
            _refuse(name, info, "it is a link or a device, not a plain file or folder")
        if info.flag_bits & 1 or info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
            _refuse(name, info, "it is encrypted, or not compressed by deflate")
        for end in range(1, len(parts) + 1):
            path, above = "/".join(parts[:end]), is_folder or end < len(parts)
            key = unicodedata.normalize("NFC", path).casefold()
            if key in taken and not (above and taken[key] == (path, True)):
                _refuse(name, info, f"it clashes with {taken[key][0]!r}")
            taken[key] = path, above
        if len(parts) > 1:
            members.append((info, parts[1:]))
        if (not is_folder and len(parts) == 1) or parts[0] != infos[0].filename.split("/")[0]:
            _refuse(name, info, "an archive with everything in a single top folder is needed")
    return members


def _refuse(name: object, info: zipfile.ZipInfo, why: str) -> NoReturn:
    raise ArchiveError(
        f"{name} is refused because of its entry {info.orig_filename[:200]!r}: {why}; name another archive"
    )


def _check_layout(members: list[tuple[zipfile.ZipInfo, tuple[str, ...]]], name: object) -> None:
    found = {"/".join(parts) for info, parts in members if not info.filename.endswith("/")}
    folders = {path[: match.start()] for path in found for match in re.finditer("/", path)}
    missing = [*(path for path in _FILES if path not in found), *(path for path in _FOLDERS if path not in folders)]
    if missing:
        raise ArchiveError(
            f"{name} lacks {', '.join(missing)} in its top folder: an archive in Tiny ImageNet's layout is needed"
        )


@contextlib.contextmanager
def _zip_errors(name: object) -> Iterator[None]:
    """Turn whatever zipfile raises about a damaged archive into ArchiveError."""
    try:
        yield
    except DatasetError:
        raise
    except (zipfile.BadZipFile, zlib.error, struct.error, EOFError, OSError, RuntimeError, ValueError) as error:
        raise ArchiveError(f"{name} is damaged ({reason(error)}): fetch it again or name another archive") from error


@contextlib.contextmanager
def writing(path: str | os.PathLike[str]) -> Iterator[None]:
    """Turn an OSError into a DatasetError that says what to do."""
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            advice = f"free some space, or raise the limit, and {AGAIN}"
        else:
            advice = "name a folder that can be written"
        raise DatasetError(f"cannot write {path}: {error.strerror or error}: {advice}") from error


def check_space(folder: Path, size: int, count: int = 0) -> None:
    """Raise DatasetError unless the disk has room for so many bytes and so many files more."""
    disk = os.statvfs(folder)
    room = disk.f_bavail * disk.f_frsize
    if size > room:
        needs = f"{folder} needs {megabytes(size)} and its disk has {megabytes(room)} left"
        raise DatasetError(f"{needs}: free some and {AGAIN}")
    if disk.f_files and count > disk.f_favail:
        raise DatasetError(f"{folder} needs {count:,} files and its disk has room for {disk.f_favail:,}: {AGAIN}")


def reason(error: object) -> str:
    """What an exception says, in one line; its name where it says nothing."""
    return " ".join(str(getattr(error, "strerror", None) or error).split()) or type(error).__name__


def megabytes(size: int) -> str:
    """Bytes as people write them."""
    return f"{size / 1e6:,.1f} MB"
