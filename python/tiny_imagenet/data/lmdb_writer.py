"""Writes LMDBs for Caffe in bounded memory."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import lmdb

_FIRST_MAP = 64 << 20
_GROUP_RECORDS, _GROUP_BYTES = 512, 16 << 20
_GROUPS_OPEN = 32  # groups after which the file is reopened: pages LMDB has touched stay in memory until then


class LmdbWriter:
    """A new LMDB folder: the key of record i is "%08d_NAME" % i.

    Records are committed in groups that depend only on the records, so equal records give equal files.

    Attributes:
        count: number of records so far.
        sha256: digest of the lines "KEY LABEL" so far, hexadecimal.
        values_sha256: digest of the sha256 of each value so far, hexadecimal.
    """

    def __init__(self, path: str | os.PathLike[str]):
        """Create the folder `path`. Raises OSError or lmdb.Error if that fails."""
        Path(path).mkdir()
        self._path = os.fsencode(path)
        self._background = ThreadPoolExecutor(1, "fdatasync")
        self._flushed: Future[None] | None = None
        self._open(_FIRST_MAP)
        self._page = self._environment.stat()["psize"]
        self._transaction: lmdb.Transaction | None = None
        self._records = self._bytes = self._groups = 0
        self._lines, self._values = hashlib.sha256(), hashlib.sha256()
        self.count = 0

    def add(self, records: Iterable[tuple[bytes, int, bytes, bytes]]) -> None:
        """Append records: name, label, value and the value's sha256.

        Raises:
            lmdb.Error, OSError: they cannot be written.
        """
        group: list[tuple[bytes, bytes]] = []
        for name, label, value, digest in records:
            size = len(value) + 2 * self._page  # a large value takes whole pages, and every one a share of the tree
            if self._records == _GROUP_RECORDS or self._bytes + size > _GROUP_BYTES:
                self._put(group)
                self._commit()
            self._records += 1
            self._bytes += size
            key = b"%08d_%b" % (self.count, name)
            self._lines.update(b"%b %d\n" % (key, label))
            self._values.update(digest)
            group.append((key, value))
            self.count += 1
        self._put(group)

    @property
    def sha256(self) -> str:
        return self._lines.hexdigest()

    @property
    def values_sha256(self) -> str:
        return self._values.hexdigest()

    def finish(self) -> None:
        """Commit the remaining records and wait until all are on the disk. Raises lmdb.Error or OSError if not."""
        self._commit()
        if self._flushed is not None:
            self._flushed.result()
        self._environment.sync(True)

    def close(self) -> None:
        """Release the file, which is complete only after `finish`."""
        if self._transaction is not None:
            self._transaction.abort()
            self._transaction = None
        self._background.shutdown()
        self._environment.close()

    def _put(self, group: list[tuple[bytes, bytes]]) -> None:
        if group:
            if self._transaction is None:
                self._begin(max(self._bytes, _GROUP_BYTES))
            with self._transaction.cursor() as cursor:
                cursor.putmulti(group, append=True)
            group.clear()

    def _begin(self, size: int) -> None:
        """Start a group of at most `size` bytes; the map cannot grow within a transaction, so it grows here."""
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
        """Write committed pages to the disk in the background; raises the error of the previous flush."""
        if self._flushed is None or self._flushed.done():
            if self._flushed is not None:
                self._flushed.result()
            self._flushed = self._background.submit(_sync, os.path.join(self._path, b"data.mdb"))

    def _open(self, size: int) -> None:
        # A single writer in a private folder needs no lock file.
        self._environment = lmdb.open(self._path, map_size=size, lock=False, sync=False, metasync=False)


def _sync(path: bytes) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fdatasync(descriptor)
    finally:
        os.close(descriptor)
