"""Training as one of the processes that mpirun or srun has started, perhaps on many machines.

Rank 0 decides, writes and speaks; the others do as it says and keep silent, unless they have lost it.
"""

from __future__ import annotations

import dataclasses
import os
import signal
import subprocess
import sys
import threading
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

import caffe

from tiny_imagenet import cli, gpu
from tiny_imagenet.errors import ClusterError, GpuError, RankLostError, TinyImageNetError
from tiny_imagenet.runs import Run
from tiny_imagenet.training import accord, console, ending
from tiny_imagenet.training.jobs import Options
from tiny_imagenet.training.launch import Launch, let_rank_0_speak
from tiny_imagenet.training.mpi_ranks import MpiRanks
from tiny_imagenet.training.mpi_thread import Ended, MpiThread

# A wish to stop. mpirun passes SIGUSR1 on; at its own Ctrl-C or SIGTERM it sends SIGCONT, a moment later SIGTERM, and
# another moment later SIGKILL.
_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1)
STUCK = 0.5  # seconds in one operation after which a rank that is to end will not come to a checkpoint
LAUNCHER_LIMIT = 10  # seconds that mpirun has to end by itself
_LAUNCHERS = ("mpirun", "mpiexec", "orterun", "orted", "prterun", "prted")


def train(
    launch: Launch,
    source: str | None,
    options: Options,
    argv: list[str],
    settle: Callable[[Options], Options],
    take_part: Callable[..., dict[str, Any]],
) -> dict[str, Any]:
    """Take part in a training as the rank that `launch` says.

    Args:
        launch: how this process was started.
        source: as `train.train`.
        options: as `train.train`.
        argv: as `train.train`; run.json has it with the launcher and the number of ranks before it.
        settle: `train.settled`.
        take_part: `train.take_part`.

    Returns:
        As `train.train` in rank 0, {} in the others.

    Raises:
        ClusterError: MPI is missing, or does not bring the processes together.
        RunError: in rank 0, a rank has something else than the others; the message names it and its host.
        TinyImageNetError: in rank 0, as `train.train`.

    Where a rank fails or is lost, one line says which and on what host, and the process ends here.
    """
    try:
        thread = MpiThread(launch, options.answer_within, lambda text: _last_words(thread, launch, options, text))
        thread.start()
    except ClusterError:
        let_rank_0_speak(launch)
        raise
    ranks = MpiRanks(thread, launch.local_rank)
    with _Signals(thread, launch, options):
        try:
            thread.come_together()
            settled = _agree(ranks, source, options, settle)
            _note_cores(ranks, thread)
            command = [launch.launcher, "-n", str(launch.size), *argv]
            result = take_part(ranks, source, settled, command, _Wish(thread))
            thread.end()
            return result
        except Ended:
            _exit_after_rank_0(launch)
        except RankLostError as error:
            _leave(thread, launch, options, str(error))
        except (TinyImageNetError, caffe.CaffeError, MemoryError, OSError) as error:
            if launch.rank:
                _tell(thread, launch, options, str(error) or type(error).__name__)
            thread.abandon()
            raise
        except BaseException as error:
            traceback.print_exc()
            if launch.rank:
                _tell(thread, launch, options, f"{type(error).__name__}: {error}")
            thread.abandon()
            raise
        finally:
            caffe.set_mode_cpu()


class _Wish:
    """The wish to stop that some rank has been told of, as training asks for it.

    Attributes:
        signal: as `stop.StopRequest`.
    """

    def __init__(self, thread: MpiThread):
        self._thread = thread
        self._said = False

    @property
    def signal(self) -> str:
        if self._thread.wish and not self._said:
            self._said = True
            cli.note(f"{self._thread.wish}: ending after this iteration with a checkpoint")
        return self._thread.wish


class _Signals:
    """While it is entered, signals are noted as wishes to stop; those that are ignored (nohup) stay ignored.

    Args:
        thread: what passes the wish on.
        launch: how this process was started.
        options: of the training.
    """

    def __init__(self, thread: MpiThread, launch: Launch, options: Options):
        self._thread, self._launch, self._options = thread, launch, options
        self._before: dict[int, Any] = {}
        self._ending = False  # whether mpirun is ending the job

    def __enter__(self) -> None:
        if threading.current_thread() is threading.main_thread():
            heeded = [*_SIGNALS, signal.SIGCONT] if self._launch.launcher == "mpirun" else _SIGNALS
            heeded = [number for number in heeded if signal.getsignal(number) is not signal.SIG_IGN]
            self._before = {number: signal.signal(number, self._note) for number in heeded}

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler if handler is not None else signal.SIG_DFL)

    def _note(self, number: int, _: object) -> None:
        if number == signal.SIGCONT and self._thread.was_suspended():
            return
        if number == signal.SIGTERM and self._ending and self._launch.rank == 0 and self._thread.waits() > STUCK:
            text = "mpirun ends the training, as it does when a rank has gone (it says which)"
            _say(ending.explain(text, self._options.run))
        self._ending = self._ending or number == signal.SIGCONT
        by_launcher = number in (signal.SIGCONT, signal.SIGUSR1)
        self._thread.tell_wish("SIGTERM" if by_launcher else signal.Signals(number).name)


def _agree(ranks: MpiRanks, source: str | None, options: Options, settle: Callable[[Options], Options]) -> Options:
    """See that all ranks have what they must have in common, and let all have rank 0's settings.

    Raises:
        RunError: they have not.
        DatasetError: the data folder is missing on this machine, or not whole.
        GpuError: a GPU is not there or cannot be used.
    """
    own = ranks.gather(accord.of_this_process(source, options))
    first = None
    if ranks.rank == 0:
        accord.check(ranks.names, own)
        run, given = Run(options.run), settle(options)
        data = options.data or (run.info["data"] if options.resume and run.started else None)
        first = (given.gpus, given.tf32, given.deterministic, data)
    gpus, tf32, deterministic, data = ranks.broadcast(first)
    gpus = gpu.choose(gpus if options.gpus is None else options.gpus)
    if gpus and not caffe.has_nccl():
        raise GpuError("this build of Caffe has no NCCL: install it (libnccl-dev) and run tools/setup.sh --gpu")
    if data is not None:
        own = ranks.gather(accord.of_data(Path(options.data or data)))
        if ranks.rank == 0:
            accord.check(ranks.names, own)
    settled = dataclasses.replace(options, gpus=gpus, tf32=tf32, deterministic=deterministic)
    device = ranks.device(gpus)
    if device is not None:
        machine = ranks.names[ranks.rank].rstrip(")")
        ranks.names[:] = ranks.broadcast(ranks.gather(f"{machine}, GPU {device})"))
    return settled


def _note_cores(ranks: MpiRanks, thread: MpiThread) -> None:
    """Say where a launcher keeps a process on few cores, as mpirun does unless it is told not to."""
    for rank, (mine, there) in enumerate(ranks.gather((len(os.sched_getaffinity(0)), os.cpu_count() or 1))):
        if mine < there // thread.hosts.count(thread.hosts[rank]):
            how = "mpirun --bind-to none, or srun --cpus-per-task, gives it more"
            cli.note(f"{ranks.names[rank]} may use {mine} of its machine's {there} cores: {how}")
            return


def _last_words(thread: MpiThread, launch: Launch, options: Options, text: str) -> None:
    """What a process says that is about to end without the others, some of whom are gone."""
    console.show_cursor()
    _say(text if launch.rank else ending.explain(text, options.run))
    if thread.unreachable and launch.launcher == "mpirun":
        _end_launcher()


def _say(text: str) -> None:
    cli.note(f"{os.path.basename(sys.argv[0])}: error: {' '.join(text.split())}")


def _end_launcher() -> None:
    """See that mpirun ends: it waits for ever for its own process on a machine that does not answer."""
    parent = os.getppid()
    try:
        about = Path(f"/proc/{parent}/stat").read_text()
    except OSError:
        return
    if about.partition("(")[2].partition(")")[0] in _LAUNCHERS:
        started = about.rpartition(")")[2].split()[19]
        subprocess.Popen(
            [sys.executable, "-S", "-c", _END_LATER, str(LAUNCHER_LIMIT), str(parent), started],
            start_new_session=True,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )


# Seconds, a process and when it was started: its number may have become another's.
_END_LATER = """
import os, sys, time
seconds, parent, started = sys.argv[1:]
time.sleep(float(seconds))
try:
    with open(f"/proc/{parent}/stat") as stream:
        if stream.read().rpartition(")")[2].split()[19] == started:
            os.kill(int(parent), 9)
except OSError:
    pass
"""


def _tell(thread: MpiThread, launch: Launch, options: Options, text: str) -> NoReturn:
    """Let rank 0 say what has gone wrong here; where it does not, this rank says so itself."""
    try:
        thread.fail(text)
    except RankLostError as error:
        _leave(thread, launch, options, str(error))
    _exit_after_rank_0(launch)


def _leave(thread: MpiThread, launch: Launch, options: Options, text: str) -> NoReturn:
    """End where a rank has gone."""
    _last_words(thread, launch, options, text)
    if not launch.rank:
        thread.abandon()
    _exit()


def _exit_after_rank_0(launch: Launch) -> NoReturn:
    """End as one whom rank 0 has ended: its status is to be the job's."""
    let_rank_0_speak(launch)
    _exit()


def _exit() -> NoReturn:
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(1)  # at once: MPI, NCCL and CUDA would first wait for processes that are gone
