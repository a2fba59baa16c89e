"""Ranks on the GPUs of one machine: one process per GPU, started, watched and ended together."""

from __future__ import annotations

import contextlib
import itertools
import math
import multiprocessing
import os
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from multiprocessing import connection
from multiprocessing.connection import Connection
from typing import Any, NoReturn, TypeVar

import caffe

from tiny_imagenet.errors import RankLostError, TinyImageNetError
from tiny_imagenet.stop import SIGNALS, end_with_parent
from tiny_imagenet.training.ranks import Ranks, join_nccl

T = TypeVar("T")

GRACE = 5.0  # seconds that the other ranks have to end once one has failed or rank 0 is done


def run(names: Sequence[str], function: Callable[..., T], *arguments: Any) -> T:
    """Call `function(ranks, *arguments)` in one new process per name, and return rank 0's result.

    Signals that ask to stop (`stop.SIGNALS`) are forwarded to rank 0; the other ranks ignore them.

    Args:
        names: of the ranks, such as "GPU 0".
        function: can be pickled, as its arguments; all ranks call the methods of `ranks` in the same order.
        arguments: further arguments.

    Raises:
        RankLostError: a rank failed or died; the message names it and the cause.
        TinyImageNetError: as rank 0 raised it.
        KeyboardInterrupt: Ctrl-C ended rank 0 at once.
    """
    processes: list[Any] = []
    results: list[Connection] = []
    try:
        with _blocked():
            for process, result in _processes(list(names), (function, arguments)):
                processes.append(process)
                results.append(result)
        with _forwarding(processes[0]):
            outcomes = _outcomes(processes, results, names)
    finally:
        for process in processes:
            process.kill()
            process.join()
    if 0 in outcomes and not isinstance(outcomes[0], BaseException):
        return outcomes[0]
    raise _cause(outcomes)


def _processes(names: list[str], task: tuple[Any, Any]) -> Iterator[tuple[Any, Connection]]:
    """Start one process per rank; yield each with the pipe on which it sends its result."""
    context = multiprocessing.get_context("spawn")
    pipes = [context.Pipe() for _ in names[1:]]
    links = [[ours for ours, _ in pipes], *([theirs] for _, theirs in pipes)]
    for rank in range(len(names)):
        result, end = context.Pipe(duplex=False)
        process = context.Process(target=_main, args=(rank, names, links[rank], end, task))
        process.start()
        end.close()
        yield process, result
    for link in itertools.chain(*pipes):
        link.close()  # a rank then notices when another one ends


@contextlib.contextmanager
def _blocked() -> Iterator[None]:
    """Block the signals, also in processes started now: each of them unblocks them once it has its handlers."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


@contextlib.contextmanager
def _forwarding(process: Any) -> Iterator[None]:
    """Forward the signals to a process, except those that this process ignores."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def forward(number: int, _: object) -> None:
        if process.is_alive():
            os.kill(process.pid, number)

    before = {number: signal.getsignal(number) for number in SIGNALS}
    before = {number: handler for number, handler in before.items() if handler is not signal.SIG_IGN}
    for number in before:
        signal.signal(number, forward)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, signal.SIG_DFL if handler is None else handler)


def _outcomes(processes: list[Any], results: list[Connection], names: Sequence[str]) -> dict[int, Any]:
    """Return the results and errors of the ranks, in the order of their end; missing: those that do not end in time."""
    outcomes: dict[int, Any] = {}
    waiting = {result: rank for rank, result in enumerate(results)}
    deadline = math.inf
    while waiting and (left := deadline - time.monotonic()) > 0:
        for result in connection.wait(list(waiting), None if left == math.inf else left):
            rank = waiting.pop(result)
            try:
                outcomes[rank] = _unpack(*result.recv())
            except EOFError:
                outcomes[rank] = _died(processes[rank], rank, names)
            if rank == 0 or isinstance(outcomes[rank], BaseException):
                deadline = min(deadline, time.monotonic() + GRACE)
    return outcomes


def _died(process: Any, rank: int, names: Sequence[str]) -> BaseException:
    """Describe the end of a process that sent no result."""
    process.join(GRACE)
    code = process.exitcode
    if rank == 0 and code == 128 + signal.SIGINT:  # a second Ctrl-C
        return KeyboardInterrupt()
    how = "stopped responding" if code is None else f"exited with status {code}"
    if code is not None and code < 0:
        name = signal.Signals(-code).name if -code in set(signal.Signals) else f"signal {-code}"
        how = f"was killed by {name}" + (" (out of memory?)" if name == "SIGKILL" else "")
    return RankLostError(
        f"{names[rank]} (rank {rank} of {len(names)}) {how}; --resume continues from the last checkpoint"
    )


def _cause(outcomes: dict[int, Any]) -> BaseException:
    """Choose the error to raise: rank 0's own, else the first that is not the loss of another rank."""
    errors = [outcomes[0]] if 0 in outcomes else []
    errors += [outcome for outcome in outcomes.values() if isinstance(outcome, BaseException)]
    return next((error for error in errors if not isinstance(error, _PeerLostError)), errors[0])


class _PeerLostError(RankLostError):
    """Another rank has closed its pipe; what ended it is in its own outcome."""


class SpawnRanks(Ranks):
    """Ranks connected by a pipe from rank 0 to each of the others, and by NCCL for the gradients.

    Args:
        rank: number of this process.
        names: of all ranks.
        links: rank 0's pipes to the other ranks, in order; in the others, the pipe to rank 0.
    """

    def __init__(self, rank: int, names: list[str], links: Sequence[Connection]):
        super().__init__(rank, names)
        self._links = list(links)

    def broadcast(self, value: Any = None) -> Any:
        if self.rank:
            with self._peer(0):
                return self._links[0].recv()
        for rank, link in enumerate(self._links, 1):
            with self._peer(rank):
                link.send(value)
        return value

    def gather(self, value: Any) -> list[Any]:
        if self.rank:
            with self._peer(0):
                self._links[0].send(value)
            return []
        values = [value]
        for rank, link in enumerate(self._links, 1):
            with self._peer(rank):
                values.append(link.recv())
        return values

    def join(self, solver: Any) -> None:
        join_nccl(self, solver)

    @contextlib.contextmanager
    def _peer(self, rank: int) -> Iterator[None]:
        try:
            yield
        except (EOFError, OSError) as error:
            raise _PeerLostError(f"{self.names[rank]} (rank {rank} of {self.count}) was lost") from error


def _main(rank: int, names: list[str], links: list[Connection], result: Connection, task: tuple[Any, Any]) -> NoReturn:
    """Call the function as one of the ranks, send the result or the error, and exit."""
    os.setsid()  # Ctrl-C reaches the parent only, which forwards it
    end_with_parent()
    if rank:
        for number in SIGNALS:
            signal.signal(number, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)
    function, arguments = task
    try:
        _exit(result, None, function(SpawnRanks(rank, names, links), *arguments))
    except BaseException as error:
        # Within the handler: after it the solver is released, and NCCL waits for the other ranks.
        _exit(result, *_packed(error, f"{names[rank]} (rank {rank} of {len(names)})", rank))


def _exit(result: Connection, kind: Any, state: Any) -> NoReturn:
    """Send what `_unpack` takes, and exit without the clean-up of CUDA, which would wait for ranks that have ended."""
    result.send((kind, state))
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(0)


def _packed(error: BaseException, name: str, rank: int) -> tuple[Any, Any]:
    """Return the class of an error and its state, which can be pickled for every constructor; name the rank."""
    if isinstance(error, TinyImageNetError) and (rank == 0 or isinstance(error, _PeerLostError)):
        return type(error), (error.args, vars(error))
    if not isinstance(error, (TinyImageNetError, caffe.CaffeError, MemoryError, OSError)):
        traceback.print_exception(error)
    return RankLostError, ((f"{name}: {str(error) or type(error).__name__}",), {})


def _unpack(kind: Any, state: Any) -> Any:
    if kind is None:
        return state
    error = kind.__new__(kind, *state[0])
    vars(error).update(state[1])
    return error
