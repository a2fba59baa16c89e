"""Worker processes for decoding."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import threading
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor

import cv2


@contextlib.contextmanager
def processes(workers: int) -> Iterator[ProcessPoolExecutor]:
    """Yield an executor of at most `workers` processes; work not yet started is cancelled at the end.

    The processes ignore Ctrl-C, which is for this process to handle, and end when it dies.
    """
    # Not forks: a fork of a process with threads (OpenBLAS starts some) can hang.
    context = multiprocessing.get_context("spawn")
    executor = ProcessPoolExecutor(workers, context, initializer=_initialize)
    try:
        with _ctrl_c_ignored():
            for _ in range(min(workers, os.cpu_count() or 1)):
                executor.submit(_start)  # so that the processes load while this one reads the annotations
        yield executor
    finally:
        executor.shutdown(cancel_futures=True)


@contextlib.contextmanager
def _ctrl_c_ignored() -> Iterator[None]:
    """Ignore Ctrl-C for a moment; processes started meanwhile inherit that, and so never handle it."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def _initialize() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    cv2.setNumThreads(1)
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    multiprocessing.parent_process().join()
    os._exit(1)


def _start() -> None:
    pass
