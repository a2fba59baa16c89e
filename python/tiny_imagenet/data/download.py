"""Fetches the public archive of Tiny ImageNet and unpacks it: resumed, checked, whole or not at all.

All that is under way for a folder OUT is in one hidden folder beside it, so that a run that was killed, at whatever
moment, leaves nothing under OUT and the next one goes on:

    .OUT.download/archive.zip    what has been fetched
    .OUT.download/source.json    from where: url, validator (ETag or date), etag, size in bytes (null: not known)
    .OUT.download/unpacked/      what has been unpacked; takes OUT's name when it is whole
    .OUT.download/whole          is there from just before that renaming
    .OUT.download/lock           held by the run
"""

from __future__ import annotations

import contextlib
import fcntl
import http.client
import json
import os
import re
import shutil
import socket
import ssl
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NoReturn

from tiny_imagenet import cli, files
from tiny_imagenet.data import safe_zip
from tiny_imagenet.data.safe_zip import AGAIN, ArchiveError, megabytes, reason, writing
from tiny_imagenet.errors import DatasetError

URL = "http://cs231n.stanford.edu/tiny-imagenet-200.zip"
MD5 = "90528d7ca1a48142e341f4ef8d21d0de"
SCHEMES = ("http://", "https://")
TIMEOUT = 30.0  # seconds
TRIES = 6
BACKOFF = 1.0  # seconds before the second try, twice as many before each further one, at most 30

_ARCHIVE, _SOURCE, _UNPACKED, _WHOLE = "archive.zip", "source.json", "unpacked", "whole"
_STEP = 1 << 20  # a try that brings so many bytes more than any before starts the count of tries again
_CHUNK = 1 << 18
_KEYS = ("url", "validator", "etag", "size")


class _BrokenError(Exception):
    """A try to fetch that failed in a way that the next may not."""


def download(
    out: str | os.PathLike[str],
    url: str = URL,
    md5: str | None = MD5,
    archive: str | os.PathLike[str] | None = None,
    timeout: float = TIMEOUT,
    tries: int = TRIES,
    keep_archive: bool = False,
) -> Path | None:
    """Fetch the archive at `url`, or take the file `archive`, check it and unpack it as the folder `out`.

    The archive's single top folder is left out: `out` will have wnids.txt, words.txt, train, val and test. A partly
    fetched archive is kept beside `out` under a hidden name until `out` is there. Returns where the whole one was
    kept, None where it was not.

    Args:
        out: the folder to make; it must not exist or be empty.
        url: of the archive, http or https.
        md5: of the archive, 32 hexadecimal digits; None: it is not compared.
        archive: an archive on this disk, which stays there; nothing is fetched.
        timeout: seconds without a byte from the server that end a try.
        tries: so many in a row may fail without bringing 1 MiB more than those before.
        keep_archive: the fetched archive stays, as `out`.zip.

    Raises:
        DatasetError: `out` is not empty, another run is busy with it, the archive cannot be fetched, is not the one
            that `md5` names, is damaged, has names that would lead out of `out` or clash, lacks the data set's
            layout or is absurdly large, or the disk is full or not writable.
    """
    if not url.lower().startswith(SCHEMES):
        raise DatasetError(f"the url is {url!r}: one that begins with {' or '.join(SCHEMES)} is needed")
    final = Path(os.path.realpath(out))
    folder, zipped = _place(final), final.parent / f"{final.name}.zip" if keep_archive else None
    with writing(out):
        if not (folder / _WHOLE).exists():
            _check_free(out, final, zipped)
    with _workplace(folder, out):
        unpacked, fetched = folder / _UNPACKED, folder / _ARCHIVE
        if not ((folder / _WHOLE).exists() and not unpacked.exists() and _is_taken(final)):
            _check_free(out, final, zipped)
            with writing(out):
                (folder / _WHOLE).unlink(missing_ok=True)
                shutil.rmtree(unpacked, ignore_errors=True)
            if archive is None:
                _fetch_checked(url, folder, md5, timeout, tries)
            else:
                safe_zip.check(Path(archive), archive, md5)
            try:
                whole, name = (fetched, url) if archive is None else (Path(archive), archive)
                safe_zip.unpack(whole, name, unpacked)
                with writing(out):
                    (folder / _WHOLE).touch()
                    os.replace(unpacked, final)
            except ArchiveError:
                if archive is None:
                    fetched.unlink()
                raise
            finally:
                shutil.rmtree(unpacked, ignore_errors=True)
        with writing(out):
            if zipped and fetched.exists():
                os.replace(fetched, zipped)
            fetched.unlink(missing_ok=True)
    return zipped


def kept(out: str | os.PathLike[str]) -> int:
    """How many bytes of the archive for `out` a run that ended early has left, for the next to go on from."""
    final = Path(os.path.realpath(out))
    return _size(_place(final) / _ARCHIVE)


def _place(final: Path) -> Path:
    return final.parent / f".{final.name}.download"


def _is_taken(final: Path) -> bool:
    return os.path.lexists(final) and not (final.is_dir() and not any(final.iterdir()))


def _check_free(out: str | os.PathLike[str], final: Path, kept: Path | None) -> None:
    with writing(out):
        if _is_taken(final):
            raise DatasetError(f"{out} exists and is not empty: name another folder or remove it first")
        if final.is_mount():
            raise DatasetError(f"{out} is a mount point, which no folder can replace: name a folder in it")
        if kept and os.path.lexists(kept):
            raise DatasetError(f"{kept} exists: rename it, or unpack it with --archive {kept}")


@contextlib.contextmanager
def _workplace(folder: Path, out: str | os.PathLike[str]) -> Iterator[None]:
    """Hold the hidden folder alone; at the end it goes, unless it has something to go on from."""
    with writing(out):
        folder.mkdir(parents=True, exist_ok=True)
        lock = os.open(folder / "lock", os.O_RDWR | os.O_CREAT, 0o666)
    try:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise DatasetError(f"another run is fetching {out}: wait for it or name another folder") from error
        except OSError:  # a file system without locks
            pass
        try:
            yield
        finally:
            if not _size(folder / _ARCHIVE):
                shutil.rmtree(folder, ignore_errors=True)
    finally:
        os.close(lock)


# --- fetching ---


def _fetch_checked(url: str, folder: Path, md5: str | None, timeout: float, tries: int) -> None:
    while True:
        resumed = _fetch(url, folder, timeout, tries)
        try:
            return safe_zip.check(folder / _ARCHIVE, url, md5)
        except ArchiveError as error:
            (folder / _ARCHIVE).unlink()
            if not resumed:
                raise
            cli.note(f"{error}; it was fetched in parts: fetching it whole")


def _fetch(url: str, folder: Path, timeout: float, tries: int) -> bool:
    """Complete the archive in `folder`; return whether a part of it is from an earlier try."""
    failures, most = 0, _size(folder / _ARCHIVE)
    while True:
        try:
            return _fetch_once(url, folder, timeout)
        except _BrokenError as error:
            size = _size(folder / _ARCHIVE)
            failures = 1 if size >= most + _STEP else failures + 1
            most = max(most, size)
            if failures >= tries:
                raise DatasetError(
                    f"cannot fetch {url}: {error} ({failures} tries in a row failed): check the network, name another "
                    f"--url or --timeout, or unpack a file with --archive"
                    + (f"; {megabytes(size)} are kept: {AGAIN}" if size else "")
                ) from error
            wait = min(BACKOFF * 2 ** (failures - 1), 30)
            cli.note(f"{error}: trying again in {wait:g} seconds")
            time.sleep(wait)


def _fetch_once(url: str, folder: Path, timeout: float) -> bool:
    path = folder / _ARCHIVE
    source, have = _source(folder, url), _size(path)
    if not source:
        have = 0
    if have and have == source["size"]:
        return True
    headers = {"User-Agent": "tiny_imagenet", "Accept-Encoding": "identity"}
    if have:
        headers["Range"] = f"bytes={have}-"
        if source["validator"]:  # the server sends the whole archive if it is another by now
            headers["If-Range"] = source["validator"]
    with _network_errors(url, path, timeout):
        request = urllib.request.Request(url, headers=headers)
        with urllib.request.urlopen(request, timeout=timeout) as response:
            return _receive(response, url, folder, source, have)


def _receive(response: http.client.HTTPResponse, url: str, folder: Path, source: dict[str, Any], have: int) -> bool:
    """Write what the server sends to the archive in `folder`, after its first `have` bytes or in their place."""
    path = folder / _ARCHIVE
    if response.headers.get_content_type() == "text/html":
        raise DatasetError(
            f"{url} is a web page, not an archive (a proxy's or a login, perhaps): open it in a browser, name another "
            "--url, or unpack a file with --archive"
        )
    etag = response.headers.get("ETag")
    resumed = response.status == 206 and have > 0
    if response.status == 206:
        start, size = _content_range(response.headers.get("Content-Range"))
        if start != have or (resumed and not _agree((size, source["size"]), (etag, source["etag"]))):
            path.unlink(missing_ok=True)
            raise _BrokenError(f"the archive at {url} is another than before")
        size = size or source.get("size")
    else:
        size = response.length
    if have:
        again = f"going on at {megabytes(have)}" if resumed else "the server sends the archive from its start"
        cli.note(again + (f" (of {megabytes(size)})" if size else ""))
    have = have if resumed else 0
    with writing(path):
        safe_zip.check_space(folder, (size or 0) - have)
        stream = open(path, "ab" if resumed else "wb")  # noqa: SIM115 (network errors are to be told from the disk's)
    with stream, _progress("fetching", size, have) as show:
        if not resumed:
            strong = etag if etag and not etag.startswith("W/") else None
            source = {"url": url, "validator": strong or response.headers.get("Last-Modified"), "etag": etag}
            files.write_json(folder / _SOURCE, {**source, "size": size})
        while size is None or have < size:
            if max(have, size or 0) > safe_zip.LARGEST:
                path.unlink()
                most = f"{safe_zip.LARGEST:,} bytes, which are allowed"
                raise DatasetError(f"{url} has more than {most}: name another --url")
            chunk = response.read1(_CHUNK if size is None else min(_CHUNK, size - have))
            if not chunk:
                break
            with writing(path):
                stream.write(chunk)
                stream.flush()
            have += len(chunk)
            show(have)
    if size and have < size:
        raise _BrokenError(f"the connection broke off at {have:,} of {size:,} bytes")
    files.write_json(folder / _SOURCE, {**source, "size": have})
    return resumed


def _agree(*pairs: tuple[Any, Any]) -> bool:
    """Whether the two of each pair are equal, where both are known."""
    return all(one == other or one is None or other is None for one, other in pairs)


@contextlib.contextmanager
def _network_errors(url: str, path: Path, timeout: float) -> Iterator[None]:
    """Turn what urllib raises into _BrokenError where another try may help, and into a DatasetError where not."""
    try:
        yield
    except urllib.error.HTTPError as error:
        error.close()
        what = f"the server answers {error.code} {reason(error.reason)}"
        if error.code == 416:  # our part is not one of the server's file
            path.unlink(missing_ok=True)
        elif error.code < 500 and error.code not in (408, 425, 429):
            _cannot_fetch(url, what, error)
        raise _BrokenError(what) from error
    except (http.client.InvalidURL, ValueError) as error:
        _cannot_fetch(url, reason(error), error)
    except (OSError, http.client.HTTPException) as error:
        cause = error.reason if isinstance(error, urllib.error.URLError) else error
        if isinstance(cause, ssl.SSLCertVerificationError):
            _cannot_fetch(url, reason(cause), error)
        if isinstance(cause, (TimeoutError, socket.timeout)):  # the same thing from Python 3.10
            raise _BrokenError(f"no byte from the server for {timeout:g} seconds") from error
        raise _BrokenError(f"no connection, or a broken one ({reason(cause)})") from error


def _cannot_fetch(url: str, what: str, error: Exception) -> NoReturn:
    raise DatasetError(
        f"cannot fetch {url}: {what}: correct the address, name another --url, or unpack a file with --archive"
    ) from error


def _content_range(text: str | None) -> tuple[int | None, int | None]:
    """First byte and size of the whole from "bytes 5-9/10"; None where it does not say."""
    match = re.match(r"bytes (\d+)-\d+/(?:(\d+)|\*)$", text or "")
    return (int(match[1]), int(match[2]) if match[2] else None) if match else (None, None)


def _source(folder: Path, url: str) -> dict[str, Any]:
    """What source.json says about `url`; {} where it is about another or cannot be read."""
    with contextlib.suppress(OSError, ValueError, TypeError, KeyError):
        source = json.loads((folder / _SOURCE).read_text())
        if source["url"] == url:
            return {key: source[key] for key in _KEYS}
    return {}


@contextlib.contextmanager
def _progress(what: str, total: int | None, done: int) -> Iterator[Callable[[int], None]]:
    """Yield a function to call with the bytes done so far: a bar on a terminal, a line every ten seconds elsewhere."""
    if sys.stderr.isatty():
        from rich import progress
        from rich.console import Console

        columns = (progress.DownloadColumn(), progress.TransferSpeedColumn(), progress.TimeRemainingColumn())
        text, bar = progress.TextColumn("{task.description}"), progress.BarColumn()
        with progress.Progress(text, bar, *columns, console=Console(stderr=True), transient=True) as shown:
            task = shown.add_task(what, total=total, completed=done)
            yield lambda done: shown.update(task, completed=done)
        return
    last = time.monotonic()

    def show(done: int) -> None:
        nonlocal last
        if time.monotonic() - last > 10 and done != total:
            last = time.monotonic()
            cli.note(f"{what}: {megabytes(done)}{f' of {megabytes(total)}' if total else ''}")

    yield show


def _size(path: Path) -> int:
    """Bytes of a file, 0 where there is none."""
    try:
        return path.stat().st_size
    except OSError:
        return 0
