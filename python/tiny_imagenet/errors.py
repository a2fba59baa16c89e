"""The errors a person can mend.

Each message is one line that names the value, what is allowed and what to do next. Scripts print it as it is
and end with status 1; a notebook sees an ordinary exception.
"""


class TinyImageNetError(RuntimeError):
    """Base of every error this library raises on purpose."""


class DatasetError(TinyImageNetError):
    """A data set, image, annotation or LMDB that is missing, incomplete or not what it should be."""


class NetError(TinyImageNetError):
    """A model, net or solver that is unknown, does not parse or does not fit the data."""


class RunError(TinyImageNetError):
    """A run folder that is in use, not empty, incomplete or made by something else."""


class PredictionsError(TinyImageNetError):
    """A predictions file that cannot be read, or that does not fit the others given with it."""


class BenchmarkError(TinyImageNetError):
    """A program that is to be timed is missing, does not build or fails."""
