"""Fetches the public archive of Tiny ImageNet and unpacks it.

An interrupted download is resumed: the partial archive is kept as .OUT.zip.part until the folder OUT is complete.
"""

from __future__ import annotations

import contextlib
import hashlib
import http.client
import os
import shutil
import stat
import time
import urllib.error
import urllib.request
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

from tiny_imagenet import cli, files
from tiny_imagenet.errors import DatasetError, TinyImageNetError

URL = "http://cs231n.stanford.edu/tiny-imagenet-200.zip"
MD5 = "90528d7ca1a48142e341f4ef8d21d0de"
SCHEMES = ("http://", "https://")
TIMEOUT = 30.0  # seconds
TRIES = 6

_CHUNK = 1 << 20  # bytes
_TEMPORARY = (408, 425, 429)  # and 5xx: answers after which another try may succeed
_NEEDED = ("wnids.txt", "words.txt", "train", "val/val_annotations.txt", "val/images", "test/images")
_INSTEAD = "name another --url, or unpack a file with --archive"


class _TransientError(Exception):
    """A failure that another try may not have."""


class _ArchiveError(DatasetError):
    """An archive that is damaged, unsafe or not a data set."""


def fetch(
    out: str | os.PathLike[str],
    url: str = URL,
    md5: str | None = MD5,
    timeout: float = TIMEOUT,
    tries: int = TRIES,
    keep_archive: bool = False,
) -> Path | None:
    """Fetch the archive at `url` and unpack it as the folder `out`; return the archive's path if it is kept.

    Args:
        out: folder to create; it must not exist or be empty. See `unpack`.
        url: address of the archive, http or https.
        md5: checksum of the archive, 32 hexadecimal digits; None: not checked.
        timeout: seconds without data after which a try fails.
        tries: failed tries in a row, each without progress, after which the download fails.
        keep_archive: whether the archive is kept as `out`.zip.

    Raises:
        DatasetError: the archive cannot be fetched, or is not the expected one.
        TinyImageNetError: `out` is not empty, is being written by another process, or cannot be written.
    """
    final = Path(os.path.realpath(out))
    part, kept = final.with_name(f".{final.name}.zip.part"), final.with_name(f"{final.name}.zip")
    if keep_archive and kept.exists():
        raise DatasetError(f"{kept} exists: rename it, or unpack it with --archive {kept}")
    with files.atomic_folder(out) as folder:
        _download(url, part, timeout, tries)
        try:
            _unpack(part, url, md5, folder)
        except _ArchiveError:
            part.unlink()
            raise
    if keep_archive:
        os.replace(part, kept)
        return kept
    part.unlink()
    return None


def unpack(archive: str | os.PathLike[str], out: str | os.PathLike[str], md5: str | None = MD5) -> None:
    """Unpack a zip archive as the folder `out`, without the archive's top folder.

    Raises:
        DatasetError: the archive is not the one of checksum `md5` (None: any), is damaged, contains links or paths
            that lead out of it, or lacks the layout of a data set.
        TinyImageNetError: `out` is not empty, is being written by another process, or cannot be written.
    """
    with files.atomic_folder(out) as folder:
        _unpack(Path(archive), archive, md5, folder)


def _download(url: str, part: Path, timeout: float, tries: int) -> None:
    """Complete the file `part`, which may have been started earlier."""
    failures, most = 0, _size(part)
    while True:
        try:
            return _download_once(url, part, timeout)
        except _TransientError as error:
            size = _size(part)
            failures = 1 if size > most else failures + 1
            most = max(most, size)
            if failures >= tries:
                kept = f"; run the same command again to resume at {size / 1e6:,.1f} MB" if size else ""
                raise DatasetError(
                    f"cannot fetch {url}: {error} ({failures} failed tries): check the network, {_INSTEAD}{kept}"
                ) from error
            wait = min(2 ** (failures - 1), 30)
            cli.note(f"{error}: trying again in {wait} s")
            time.sleep(wait)


def _download_once(url: str, part: Path, timeout: float) -> None:
    size = _size(part)
    request = urllib.request.Request(url, headers={"User-Agent": "tiny_imagenet", "Accept-Encoding": "identity"})
    if size:
        request.add_header("Range", f"bytes={size}-")
    try:
        with urllib.request.urlopen(request, timeout=timeout) as response:
            if response.headers.get_content_type() == "text/html":
                raise DatasetError(f"{url} is a web page, not an archive (of a proxy or a login?): {_INSTEAD}")
            size = size if response.status == 206 else 0
            total = None if response.length is None else size + response.length
            with open(part, "ab" if size else "wb") as file:
                chunks = iter(lambda: response.read(_CHUNK), b"")
                for chunk in cli.track(chunks, (response.length or 0) // _CHUNK, "fetching (MiB)"):
                    with _disk_errors(part):
                        file.write(chunk)
                        file.flush()
                    size += len(chunk)
    except urllib.error.HTTPError as error:
        error.close()
        if error.code == 416 and size:  # complete, if the checksum matches
            return
        if error.code < 500 and error.code not in _TEMPORARY:
            raise DatasetError(f"cannot fetch {url}: {error.code} {error.reason}: {_INSTEAD}") from error
        raise _TransientError(f"the server answers {error.code} {error.reason}") from error
    except (http.client.InvalidURL, ValueError) as error:
        raise DatasetError(f"cannot fetch {url}: {error}: {_INSTEAD}") from error
    except (OSError, http.client.HTTPException) as error:
        reason = getattr(error, "reason", None) or error
        raise _TransientError(str(reason) or type(reason).__name__) from error
    if total is not None and size < total:
        raise _TransientError(f"the connection was lost after {size:,} of {total:,} bytes")


def _unpack(archive: Path, name: object, md5: str | None, folder: Path) -> None:
    """Check the archive and unpack it into the empty `folder`; `name` is its name in errors."""
    _check(archive, name, md5)
    try:
        with zipfile.ZipFile(archive) as zipped:
            _extract(zipped, name, folder)
    except TinyImageNetError:
        raise
    except (zipfile.BadZipFile, zlib.error, EOFError, RuntimeError, ValueError) as error:
        raise _ArchiveError(f"{name} is damaged ({error}): fetch it again or name another archive") from error
    tops = list(folder.iterdir())
    if len(tops) == 1 and tops[0].is_dir():
        top = tops[0].rename(folder / ".top")  # it may contain an entry of the same name
        for path in top.iterdir():
            path.rename(folder / path.name)
        top.rmdir()
    missing = [path for path in _NEEDED if not (folder / path).exists()]
    if missing:
        raise _ArchiveError(f"{name} is not in Tiny ImageNet's layout: {', '.join(missing)} missing")


def _check(archive: Path, name: object, md5: str | None) -> None:
    digest = hashlib.new("md5", usedforsecurity=False)
    try:
        with open(archive, "rb", opener=files.plain) as file:
            start = file.read(2)
            file.seek(0)
            while chunk := file.read(_CHUNK):
                digest.update(chunk)
    except OSError as error:
        raise DatasetError(f"cannot read {archive}: {error.strerror or error}") from error
    if start != b"PK":
        raise _ArchiveError(f"{name} is not a zip archive: {_INSTEAD}")
    if md5 is not None and digest.hexdigest() != md5.lower():
        raise _ArchiveError(
            f"{name}: expected md5 {md5}, got {digest.hexdigest()}: fetch it again, or give --md5 if this is right"
        )


def _extract(zipped: zipfile.ZipFile, name: object, folder: Path) -> None:
    """Extract all files. zipfile itself writes no links and nothing outside `folder`; here such names are errors."""
    infos = zipped.infolist()
    for info in infos:
        path, kind = PurePosixPath(info.filename), stat.S_IFMT(info.external_attr >> 16)
        if path.is_absolute() or ".." in path.parts or kind not in (0, stat.S_IFREG, stat.S_IFDIR):
            raise _ArchiveError(f"{name} contains {info.filename!r}, a link or a path that leads out of the archive")
    needed, free = sum(info.file_size for info in infos), shutil.disk_usage(folder).free
    if needed > free:
        raise DatasetError(
            f"{folder.parent} needs {needed / 1e6:,.1f} MB, but has {free / 1e6:,.1f} MB: free some space"
        )
    for info in cli.track(infos, len(infos), "unpacking (files)"):
        with _disk_errors(folder / info.filename):
            zipped.extract(info, folder)


@contextlib.contextmanager
def _disk_errors(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise DatasetError(f"cannot write {path}: {error.strerror or error}: free some space and run again") from error


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0
