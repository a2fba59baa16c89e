"""What answers at the address of a scheduler, and at that of its page."""

from __future__ import annotations

import contextlib
import http.client
import socket
import sys
from pathlib import Path
from urllib.parse import urlsplit

import distributed

from tiny_imagenet import files
from tiny_imagenet.errors import ClusterError

REACH = 5.0  # seconds in which a scheduler must answer
PAGE = 2.0  # seconds in which its page must
DASK = files.shown(Path(sys.prefix) / "bin" / "dask")  # the program beside this Python
_GREETING = 1 << 20  # bytes: that of Dask is shorter


def check(address: str) -> None:
    """See that something listens there which begins as Dask does.

    Dask would wait for ever for an answer of something else, or of a scheduler that hangs.

    Raises:
        ClusterError: nothing does.
    """
    protocol, _, rest = address.partition("://")
    host, _, port = rest.rpartition(":")
    try:
        connection = socket.create_connection((host.strip("[]"), int(port)), REACH)
    except OSError as error:
        why = "no answer" if isinstance(error, TimeoutError) else error.strerror or str(error)
        raise ClusterError(
            f"cannot reach a scheduler at {address} ({why}): start one there with: {DASK} scheduler --port {port}"
        ) from error
    with connection:
        if protocol == "tls":  # there it is the client that begins
            return
        try:
            size = connection.recv(8, socket.MSG_WAITALL)  # of the greeting that follows
        except OSError:
            raise not_dask(address, f"it says nothing for {REACH:.0f} seconds") from None
        if not 0 < int.from_bytes(size, "little") < _GREETING:
            raise not_dask(address, f"it begins with {size!r}")


def has_page(link: str) -> bool:
    """Whether there is a page at an address: a scheduler names one even when it was told to have none."""
    parts = urlsplit(link)
    if parts.scheme != "http":  # somebody has configured another way to it, through a proxy
        return bool(link)
    with contextlib.closing(http.client.HTTPConnection(parts.netloc, timeout=PAGE)) as connection:
        try:
            connection.request("GET", parts.path)
            return connection.getresponse().status != http.client.NOT_FOUND
        except (OSError, http.client.HTTPException):
            return False


def not_dask(address: str, why: str) -> ClusterError:
    """What is raised where something else than a scheduler answers."""
    return ClusterError(
        f"{address} answers, but not as a Dask scheduler of a version that fits distributed {distributed.__version__} "
        f"({why}): start one with: {DASK} scheduler"
    )
