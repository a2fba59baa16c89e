"""Checks an LMDB's pages before LMDB maps them into memory, where a damaged one would kill the process.

LMDB trusts its file: a wrong size or page number leads it beyond the map, which is SIGBUS or SIGSEGV, and a wrong kind
of page to an abort. Here the tree's pages are read as any file is, and each number in them is compared with what there
is. The pages of large values, nearly all of the file, are not read: nothing in them is followed.
"""

from __future__ import annotations

import os
import struct
from pathlib import Path
from typing import NamedTuple

import numpy as np

from tiny_imagenet import files
from tiny_imagenet.errors import DatasetError

_MAGIC, _VERSION, _NONE = 0xBEEFC0DE, 1, 2**64 - 1
_HEADER = 16  # bytes of a page's header: number u64, pad u16, flags u16, end of the offsets u16, start of the nodes u16
_META = struct.Struct("<QHHHHIIQQ" + "IHH5Q" * 2 + "QQ")
_KINDS, _BRANCH, _LEAF, _META_PAGE = 0x6F, 0x01, 0x02, 0x08
_IN_PAGES = 1  # the flag of a node whose value has pages of its own
_DEEPEST = 32  # levels that LMDB's cursors can hold
_AT_ONCE = 256  # pages


class _DamageError(Exception):
    """What is wrong, and in which page."""


class _Meta(NamedTuple):
    page: int  # bytes
    last: int  # number of the last page
    transaction: int
    flags: int
    depth: int
    entries: int
    root: int


def check(path: str | os.PathLike[str]) -> None:
    """Look at the tree of the LMDB file `path` without LMDB: it can be read after this, whatever is in its values.

    Raises:
        DatasetError: the file cannot be read, is no LMDB, is cut short, or a page of its tree is damaged.
    """
    folder = Path(path).parent
    try:
        with open(path, "rb", buffering=0, opener=files.plain) as file:
            size = os.fstat(file.fileno()).st_size
            meta = _meta(file.fileno())
            needed = (meta.last + 1) * meta.page
            if size < needed:
                raise DatasetError(
                    f"the LMDB {folder} is cut short: data.mdb has {size} of {needed} bytes; convert or copy the data "
                    "set again"
                )
            _walk(file.fileno(), meta)
    except OSError as error:
        raise DatasetError(f"cannot read {path}: {error.strerror or error}; convert the data set again") from error
    except _DamageError as error:
        raise DatasetError(
            f"cannot open the LMDB {folder}: data.mdb is damaged or no LMDB ({error}); convert or copy the data set "
            "again"
        ) from error


def _meta(file: int) -> _Meta:
    """What the newer of the two first pages says, which LMDB believes."""
    found: list[_Meta] = []
    for number in range(2):
        data = os.pread(file, _META.size, number * found[0].page if found else 0)
        if len(data) < _META.size:
            raise _DamageError(f"it ends in page {number}")
        own, _, kind, _, _, magic, version, _, _, *rest = _META.unpack(data)
        (page, free_flags, _, *_), (_, flags, depth, *counts) = rest[:8], rest[8:16]
        last, transaction = rest[16:]
        if (own, kind & _KINDS, magic, version) != (number, _META_PAGE, _MAGIC, _VERSION):
            raise _DamageError(f"page {number} does not begin as an LMDB's does")
        if not 512 <= page <= 1 << 15 or page & (page - 1) or (found and page != found[0].page):
            raise _DamageError(f"page {number} says that a page has {page} bytes")
        if free_flags & 1 or not 1 <= last < 1 << 48:  # the flag: mapped to a fixed address
            raise _DamageError(f"page {number} has flags {free_flags:#x} and {last} for the last page's number")
        found.append(_Meta(page, last, transaction, flags, depth, counts[3], counts[4]))
    return found[1] if found[0].transaction < found[1].transaction else found[0]


def _walk(file: int, meta: _Meta) -> None:
    if meta.root == _NONE:
        if meta.entries or meta.depth:
            raise _DamageError(f"it has {meta.entries} records and no tree")
        return
    if meta.flags or not 1 <= meta.depth <= _DEEPEST:
        raise _DamageError(f"its tree has flags {meta.flags:#x} and {meta.depth} levels")
    level, entries = np.array([meta.root], np.uint64), 0
    for depth in range(meta.depth, 0, -1):
        below = []
        for first in range(0, len(level), _AT_ONCE):
            numbers = level[first : first + _AT_ONCE]
            _within(numbers, meta, "a page's number")
            pages = np.frombuffer(b"".join(os.pread(file, meta.page, int(n) * meta.page) for n in numbers), np.uint8)
            if len(pages) != len(numbers) * meta.page:
                raise _DamageError("a page cannot be read whole")
            nodes = _Nodes(pages.reshape(-1, meta.page), numbers, _BRANCH if depth > 1 else _LEAF)
            if depth > 1:
                below.append(nodes.children())
            else:
                entries += len(nodes.at)
                nodes.check_values(meta)
        if depth > 1:
            level = np.concatenate(below)
            if len(np.unique(level)) != len(level):
                raise _DamageError("a page is twice in its tree")
    if entries != meta.entries:
        raise _DamageError(f"its tree has {entries} records, its first pages say {meta.entries}")


def _within(numbers: np.ndarray, meta: _Meta, what: str) -> None:
    wrong = (numbers < 2) | (numbers > meta.last)
    if wrong.any():
        raise _DamageError(f"{what} is {numbers[wrong][0]}, there are {meta.last + 1} pages")


class _Nodes:
    """The nodes of some pages of one level: `row` is each one's page, `at` where in the page it begins.

    A node is u16 low, u16 high, u16 flags, u16 size of the key, the key, and in a leaf the value or its page's number.
    """

    def __init__(self, pages: np.ndarray, numbers: np.ndarray, kind: int):
        self.pages, self.numbers = pages, numbers
        self.halves = pages.view("<u2")
        self.page = pages.shape[1]
        lower, upper = self.halves[:, 6].astype(np.int64), self.halves[:, 7].astype(np.int64)
        self._refuse(pages.view("<u8")[:, 0] != numbers, numbers, "has another page's number")
        self._refuse(self.halves[:, 5] & _KINDS != kind, numbers, "is of another kind")
        least = 2 if kind == _BRANCH else 1
        bad = (lower < _HEADER + 2 * least) | (lower % 2 > 0) | (lower > upper) | (upper > self.page)
        self._refuse(bad, numbers, "has a wrong header")
        counts = (lower - _HEADER) // 2
        self.row = np.repeat(np.arange(len(pages)), counts)
        column = np.arange(len(self.row)) - np.repeat(np.cumsum(counts) - counts, counts)
        self.at = self.halves[self.row, _HEADER // 2 + column].astype(np.int64)
        self.owner = numbers[self.row]
        bad = (self.at < upper[self.row]) | (self.at % 2 > 0) | (self.at > self.page - 8)
        self._refuse(bad, self.owner, "has a record beyond its end")
        low, high, self.flags, key = (self.halves[self.row, self.at // 2 + i].astype(np.int64) for i in range(4))
        self.low = low | high << 16
        self.behind = self.at + 8 + key
        self._refuse(self.behind > self.page, self.owner, "has a key beyond its end")

    def children(self) -> np.ndarray:
        return (self.low | self.flags << 32).astype(np.uint64)

    def check_values(self, meta: _Meta) -> None:
        self._refuse(self.flags & ~_IN_PAGES != 0, self.owner, "has a record of another kind")
        large = self.flags == _IN_PAGES
        self._refuse(~large & (self.behind + self.low > self.page), self.owner, "has a value beyond its end")
        self._refuse(large & (self.behind + 8 > self.page), self.owner, "has a value beyond its end")
        where = self.behind[large, None] + np.arange(8)
        first = np.ascontiguousarray(self.pages[self.row[large, None], where]).view("<u8")[:, 0]
        _within(first, meta, "the first page of a value")
        count = (_HEADER - 1 + self.low[large]) // self.page + 1
        _within(first + count.astype(np.uint64) - np.uint64(1), meta, "the last page of a value")

    def _refuse(self, bad: np.ndarray, numbers: np.ndarray, what: str) -> None:
        if bad.any():
            raise _DamageError(f"page {numbers[bad][0]} {what}")
