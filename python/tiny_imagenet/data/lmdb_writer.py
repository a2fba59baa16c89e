"""Writes LMDBs as Caffe reads them, in bounded memory: records in order, committed in groups."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Union

import lmdb

Buffer = Union[bytes, bytearray, memoryview]

_FIRST_MAP = 64 << 20
_GROUP_RECORDS, _GROUP_BYTES = 512, 16 << 20
_GROUPS_OPEN = 32  # the file is opened anew after so many: what LMDB has looked at stays mapped into memory


class LmdbWriter:
    """An LMDB folder in the making: record i has the key "%08d_NAME" % i.

    Records are committed in groups that depend on them alone, so equal records give equal files. They are on the disk
    when `finish` has returned.

    Attributes:
        count: records so far.
        sha256: over the lines "KEY LABEL" so far, as hexadecimal digits.
        values_sha256: over the sha256 of each value so far, as hexadecimal digits.
    """

    def __init__(self, path: str | os.PathLike[str]):
        """Make the folder `path`. Raises OSError where it cannot be made, lmdb.Error where LMDB cannot."""
        Path(path).mkdir()
        self._path = os.fsencode(path)
        self._background = ThreadPoolExecutor(1, "to disk")
        self._flushed: Future[None] | None = None
        self._open(_FIRST_MAP)
        self._page = self._environment.stat()["psize"]
        self._transaction: lmdb.Transaction | None = None
        self._records = self._bytes = self._groups = 0
        self._hash, self._values = hashlib.sha256(), hashlib.sha256()
        self.count = 0

    def add(self, records: Iterable[tuple[bytes, int, Buffer]], digests: Iterable[bytes] | None = None) -> None:
        """Append records: name, label and value of each. Raises lmdb.Error or OSError where they cannot be written.

        `digests` has the sha256 of each value, where somebody has computed them in a process that had the time.
        """
        given = iter(digests or ())
        group: list[tuple[bytes, Buffer]] = []
        lines = []
        for name, label, value in records:
            size = len(value) + 2 * self._page  # a large value takes whole pages, any has its share of the tree's
            if self._records == _GROUP_RECORDS or self._bytes + size > _GROUP_BYTES:
                self._put(group)
                self._commit()
            self._records += 1
            self._bytes += size
            key = b"%08d_%b" % (self.count, name)
            lines.append(b"%b %d\n" % (key, label))
            group.append((key, value))
            self._values.update(hashlib.sha256(value).digest() if digests is None else next(given))
            self.count += 1
        self._put(group)
        self._hash.update(b"".join(lines))

    @property
    def sha256(self) -> str:
        return self._hash.hexdigest()

    @property
    def values_sha256(self) -> str:
        return self._values.hexdigest()

    def finish(self) -> None:
        """Write what is left and wait until it is on the disk. Raises lmdb.Error or OSError where it cannot."""
        self._commit()
        if self._flushed is not None:
            self._flushed.result()
        self._environment.sync(True)

    def close(self) -> None:
        """Give everything back; without `finish` the file is not to be used."""
        if self._transaction is not None:
            self._transaction.abort()
            self._transaction = None
        self._background.shutdown()
        self._environment.close()

    def _put(self, group: list[tuple[bytes, Buffer]]) -> None:
        """Write records that belong to one group, if any."""
        if not group:
            return
        if self._transaction is None:
            self._begin(max(self._bytes, _GROUP_BYTES))
        with self._transaction.cursor() as cursor:
            cursor.putmulti(group, append=True)
        group.clear()

    def _begin(self, size: int) -> None:
        """Begin a group of at most so many bytes; the map grows beforehand, since it cannot within a group."""
        info = self._environment.info()
        needed = (info["last_pgno"] + 1) * self._page + size + (1 << 20)
        if needed > info["map_size"]:
            self._environment.set_mapsize(2 * max(needed, info["map_size"]))
        self._transaction = self._environment.begin(write=True)

    def _commit(self) -> None:
        if self._transaction is not None:
            transaction, self._transaction = self._transaction, None
            transaction.commit()
            self._groups += 1
            self._flush()
            if self._groups % _GROUPS_OPEN == 0:
                size = self._environment.info()["map_size"]
                self._environment.close()
                self._open(size)
        self._records = self._bytes = 0

    def _flush(self) -> None:
        """Send what is committed to the disk beside what else goes on, so that `finish` has little left to wait for.

        Raises what the one before met.
        """
        if self._flushed is None or self._flushed.done():
            if self._flushed is not None:
                self._flushed.result()
            self._flushed = self._background.submit(_sync, os.path.join(self._path, b"data.mdb"))

    def _open(self, size: int) -> None:
        # One writer in a private folder needs no lock file, and one that travels with the data could only be stale.
        self._environment = lmdb.open(self._path, map_size=size, lock=False, sync=False, metasync=False)


def _sync(path: bytes) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fdatasync(descriptor)
    finally:
        os.close(descriptor)
