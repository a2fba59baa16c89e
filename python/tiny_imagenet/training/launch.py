"""Whether this process is one of several that a launcher (mpirun, mpiexec, srun) has started to train together."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from tiny_imagenet.errors import ClusterError

INSTALL = "tools/setup.sh --cluster (or apt-get install openmpi-bin libopenmpi-dev and pip install .[cluster])"
_AFTER_RANK_0 = 4.0  # seconds in which rank 0 has said the same and its launcher has ended the others

# Launcher: the variables of size, rank and rank on this machine. The first that counts several processes holds: mpirun
# under Slurm has Slurm's variables too. Those of Slurm are a step's: in a batch script that calls Python itself there
# is one process, for however many tasks the job has room.
_VARIABLES = {
    "mpirun": ("OMPI_COMM_WORLD_SIZE", "OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_LOCAL_RANK"),
    "srun": ("SLURM_STEP_NUM_TASKS", "SLURM_PROCID", "SLURM_LOCALID"),
    "mpiexec": ("PMI_SIZE", "PMI_RANK", "MPI_LOCALRANKID"),
}


@dataclass(frozen=True)
class Launch:
    """What a launcher says of one of its processes.

    Attributes:
        launcher: its program.
        size: how many processes it has started, at least 2.
        rank: which one this is, from 0.
        local_rank: which one of those on this machine.
    """

    launcher: str
    size: int
    rank: int
    local_rank: int


def launched(environment: Mapping[str, str] = os.environ) -> Launch | None:
    """How this process was started; None where it is by itself."""
    for launcher, names in _VARIABLES.items():
        size, rank, local_rank = (_number(environment.get(name, "")) for name in names)
        if size > 1 and (launcher != "srun" or "SLURM_STEP_ID" in environment):
            return Launch(launcher, size, rank, local_rank)
    return None


def _number(text: str) -> int:
    return int(text) if text.isascii() and text.isdecimal() else 0


def load_mpi(launch: Launch) -> Any:
    """The module mpi4py.MPI, with MPI not begun yet.

    Raises:
        ClusterError: it is not there, or finds no MPI library, or srun was not told to help it.
    """
    together = f"{launch.launcher} has started {launch.size} processes, which train together through MPI"
    if launch.launcher == "srun" and not {"PMIX_RANK", "PMI_RANK"} & os.environ.keys():
        raise ClusterError(f"{together}, and srun has not told it who they are: srun --mpi=pmix does")
    try:
        import mpi4py

        mpi4py.rc.initialize = mpi4py.rc.finalize = False
        from mpi4py import MPI
    except ImportError as error:
        raise ClusterError(f"{together}, and Python has no mpi4py ({error}): install it with {INSTALL}") from error
    except RuntimeError as error:
        raise ClusterError(
            f"{together}, and mpi4py finds no MPI library ({error}): install it with {INSTALL}"
        ) from error
    return MPI


def begin_mpi(MPI: Any, launch: Launch) -> None:  # noqa: N803 (the module)
    """Begin MPI in this thread, which alone may use it from here on.

    Raises:
        ClusterError: it has begun before, or sees another number of processes than the launcher has started.
    """
    if MPI.Is_initialized():
        raise ClusterError("one process trains once with MPI: start another for the next training")
    # Both ways to add up send each byte about twice, however many ranks there are; the second needs fewer steps and
    # a power of two. Open MPI's own choice between two and three ranks sends everything to one of them.
    power_of_two = launch.size & (launch.size - 1) == 0
    os.environ.setdefault("OMPI_MCA_coll_libnbc_iallreduce_algorithm", "3" if power_of_two else "1")
    MPI.Init_thread(MPI.THREAD_FUNNELED)
    seen = MPI.COMM_WORLD.size
    if seen != launch.size:
        library = MPI.Get_library_version().split(",")[0].split("\n")[0]
        hint = "srun --mpi=pmix" if launch.launcher == "srun" else "the mpirun that belongs to it"
        raise ClusterError(
            f"{launch.launcher} has started {launch.size} processes, and the MPI library that mpi4py finds "
            f"({library}) sees {seen}: start them with {hint}"
        )
    MPI.COMM_WORLD.Set_errhandler(MPI.ERRORS_RETURN)


def let_rank_0_speak(launch: Launch | None) -> None:
    """Wait, in the other ranks, for as long as rank 0 needs to say the same and to be the end of all of them."""
    if launch and launch.rank:
        time.sleep(_AFTER_RANK_0)
