"""The errors a person can mend.

Each message is one line that names the value, what is allowed and what to do next. Scripts print it as it is
and end with status 1; a notebook sees an ordinary exception.
"""

import re


class TinyImageNetError(RuntimeError):
    """Base of every error this library raises on purpose."""


class DatasetError(TinyImageNetError):
    """A data set, image, annotation or LMDB that is missing, incomplete or not what it should be."""


class NetError(TinyImageNetError):
    """A model, net or solver that is unknown, does not parse or does not fit the data."""


class UnknownModelError(NetError):
    """A name that no model of the zoo has.

    Attributes:
        status: that of bad use.
    """

    status = 2


class RunError(TinyImageNetError):
    """A run folder that is in use, not empty, incomplete or made by something else."""


class Stopped(TinyImageNetError):  # noqa: N818 (nothing is wrong)
    """A training that ended early because it was asked to: by Ctrl-C or SIGTERM.

    Attributes:
        status: what a shell calls such an end: 128 and the signal's number.
    """

    def __init__(self, message: str, signal_number: int):
        super().__init__(message)
        self.status = 128 + signal_number


class GpuError(TinyImageNetError):
    """A GPU that is asked for is not there, or this build of Caffe cannot use it.

    Attributes:
        status: that of bad use.
    """

    status = 2


class RankLostError(TinyImageNetError):
    """A process that trains together with this one has gone; why, only those can say who watch it."""


class StepLostError(TinyImageNetError):
    """A process that did a step of an experiment has gone; the step can be done again, from its last checkpoint."""


class ClusterError(TinyImageNetError):
    """A cluster that is not there, or whose workers cannot do what they are asked for."""


class PredictionsError(TinyImageNetError):
    """A predictions file that cannot be read, or that does not fit the others given with it."""


class BenchmarkError(TinyImageNetError):
    """A program that is to be timed is missing, does not build or fails."""


def from_caffe(text: str) -> str:
    """What Caffe says, with the words before the condition that it checked, where it says one."""
    text = " ".join(text.split())
    compared = re.fullmatch(r"(.*?)Check failed: (.*?) \((\S+) vs\. (\S+)\)(?: (.*))?", text)
    if not compared:
        called = re.fullmatch(r"(.*?)Check failed: \w+\([^()]*\) (.+)", text)
        if called:  # a function that has failed, and what it was to do
            return "".join(called.groups())
        return text.replace("Check failed: false ", "").replace("Check failed: ", "Caffe requires ")
    before, condition, a, b, words = compared.groups()
    if words:
        return f"{before}{words.rstrip('.')} ({condition}, here {a} and {b})"
    return f"{before}Caffe requires {condition}, here {a} and {b}"
