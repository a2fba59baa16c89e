"""Errors that a user can fix.

Each message is one line: the value, what was expected, what to do next. Scripts print it and exit with status 1; a
notebook sees an ordinary exception.
"""

import re


class TinyImageNetError(RuntimeError):
    """Base class of the errors of this library."""


class DatasetError(TinyImageNetError):
    """A data set, image, annotation or LMDB is missing, incomplete or invalid."""


class NetError(TinyImageNetError):
    """A model, net or solver is unknown, invalid or does not fit the data."""


class UnknownModelError(NetError):
    """No model has this name.

    Attributes:
        status: exit status of a usage error.
    """

    status = 2


class RunError(TinyImageNetError):
    """A run folder is in use, not empty or incomplete, or a training failed."""


class Stopped(TinyImageNetError):  # noqa: N818 (nothing is wrong)
    """A signal such as Ctrl-C or SIGTERM ended a training early.

    Attributes:
        status: exit status, 128 plus the number of the signal.
    """

    def __init__(self, message: str, signal_number: int):
        super().__init__(message)
        self.status = 128 + signal_number


class GpuError(TinyImageNetError):
    """A GPU is missing, or this build of Caffe cannot use it.

    Attributes:
        status: exit status of a usage error.
    """

    status = 2


class RankLostError(TinyImageNetError):
    """A peer rank was lost."""


class StepLostError(TinyImageNetError):
    """The process of an experiment's step was lost; the step can run again from its last checkpoint."""


class ClusterError(TinyImageNetError):
    """A cluster or MPI is missing, or its workers do not fit."""


class PredictionsError(TinyImageNetError):
    """A predictions file is invalid or does not fit the others."""


class BenchmarkError(TinyImageNetError):
    """A program to benchmark is missing, does not build or fails."""


def from_caffe(text: str) -> str:
    """Caffe's message, with its explanation before the failed condition."""
    text = " ".join(text.split())
    compared = re.fullmatch(r"(.*?)Check failed: (.*?) \((\S+) vs\. (\S+)\)(?: (.*))?", text)
    if not compared:
        called = re.fullmatch(r"(.*?)Check failed: \w+\([^()]*\) (.+)", text)
        if called:  # a function that failed, and its purpose
            return "".join(called.groups())
        return text.replace("Check failed: false ", "").replace("Check failed: ", "Caffe requires ")
    before, condition, a, b, words = compared.groups()
    if words:
        return f"{before}{words.rstrip('.')} ({condition}, here {a} and {b})"
    return f"{before}Caffe requires {condition}, here {a} and {b}"
