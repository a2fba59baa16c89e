"""The kernels of the layers PReLU and LReLU on numpy arrays, without a net.

    >>> import numpy as np
    >>> from caffe import kernels
    >>> kernels.prelu_forward(np.float32([[-4, 2]]), np.float32([0.25, 0.25]))
    array([[-1.,  2.]], dtype=float32)

Arrays are float32 or float64, all of one kind. They are computed where they lie when they are C contiguous; others are
copied. What does not fit raises a TypeError or a ValueError. The same arguments give the same bits, with any number of
threads (OMP_NUM_THREADS).
"""

from __future__ import annotations

import numbers
from typing import Any

import numpy as np
import numpy.typing as npt

from ._caffe import _kernels

__all__ = ["lrelu_backward", "lrelu_forward", "prelu_backward", "prelu_forward"]

Array = npt.NDArray[Any]


def prelu_forward(x: Array, slopes: Array, out: Array | None = None) -> Array:
    """Compute y: x where x > 0, slopes[c] x elsewhere (section 4.3.2 of the paper).

    x: (N, C, ...), at least two axes. slopes: (C,), or one value for all channels, x then has any shape.
    out: where y goes; x itself is fine.
    """
    x = _input("x", x)
    slopes = _slopes(slopes, x)
    y = _output(out, x, x, slopes)
    _kernels.rectifier_forward(x, slopes, y)
    return y


def prelu_backward(
    x: Array, slopes: Array, dy: Array, out: Array | None = None, slopes_only: bool = False, bottom_only: bool = False
) -> tuple[Array | None, Array | None]:
    """The gradients (dx, dslopes) for the gradient dy of y, in one pass.

    dx, in the shape of x: dy where x > 0, slopes[c] dy elsewhere. dslopes, in the shape of slopes: the sum of x dy over
    the x of each channel that are not above 0. out: where dx goes; dy itself is fine.
    slopes_only, bottom_only: leave out the work for the other, which comes back as None.
    """
    if slopes_only and bottom_only:
        raise ValueError("slopes_only and bottom_only leave nothing to do: give one of them")
    if slopes_only and out is not None:
        raise ValueError("out is where dx goes, which slopes_only leaves out: give one of them")
    shape = np.shape(slopes)
    x = _input("x", x)
    slopes = _slopes(slopes, x)
    dy = _like("dy", dy, x)
    dx = None if slopes_only else _output(out, x, dy, x, slopes)
    dslopes = None if bottom_only else np.zeros(shape, x.dtype)
    _kernels.rectifier_backward(x, slopes, dy, dx, dslopes)
    return dx, dslopes


def lrelu_forward(x: Array, slope: float = 0.01, out: Array | None = None) -> Array:
    """Compute y: x where x > 0, slope x elsewhere; x of any shape. out: where y goes; x itself is fine."""
    x = _input("x", x)
    y = _output(out, x, x)
    _kernels.rectifier_forward(x, _slope(slope, x), y)
    return y


def lrelu_backward(x: Array, dy: Array, slope: float = 0.01, out: Array | None = None) -> Array:
    """The gradient dx: dy where x > 0, slope dy elsewhere. out: where dx goes; dy itself is fine."""
    x = _input("x", x)
    dy = _like("dy", dy, x)
    dx = _output(out, x, dy, x)
    _kernels.rectifier_backward(x, _slope(slope, x), dy, dx, None)
    return dx


def _input(name: str, value: Array) -> Array:
    array = np.asarray(value)
    if array.dtype not in (np.float32, np.float64):
        raise TypeError(f"{name} is {array.dtype}: float32 or float64 is needed, such as {name}.astype(np.float32)")
    return np.require(array, requirements=("C", "A"))


def _like(name: str, value: Array, x: Array) -> Array:
    array = _input(name, value)
    if array.dtype != x.dtype:
        raise TypeError(f"{name} is {array.dtype} and x is {x.dtype}: they must be the same")
    if array.shape != x.shape:
        raise ValueError(f"{name} has the shape {array.shape} and x {x.shape}: they must be the same")
    return array


def _slopes(value: Array, x: Array) -> Array:
    slopes = _input("slopes", value)
    if slopes.dtype != x.dtype:
        raise TypeError(f"slopes is {slopes.dtype} and x is {x.dtype}: they must be the same")
    if slopes.size != 1 and (slopes.ndim != 1 or x.ndim < 2 or slopes.size != x.shape[1]):
        raise ValueError(
            f"slopes has the shape {slopes.shape} and x {x.shape}: one slope is needed, or one a channel (axis 1)"
        )
    return slopes


def _slope(value: float, x: Array) -> Array:
    if np.ndim(value) or not isinstance(value, (numbers.Real, np.ndarray)):
        raise TypeError(f"slope is {type(value).__name__}: one number is needed")
    return np.full(1, value, x.dtype)


def _output(out: Array | None, x: Array, may_be: Array, *others: Array) -> Array:
    """`out`, or a new array like x. It may be the array `may_be` itself, but not lie over a part of any."""
    if out is None:
        return np.empty_like(x, order="C")
    if not isinstance(out, np.ndarray) or out.dtype != x.dtype or out.shape != x.shape:
        raise ValueError(f"out must be an array of x's shape {x.shape} and dtype {x.dtype}")
    if not (out.flags.c_contiguous and out.flags.aligned and out.flags.writeable):
        raise ValueError("out must be C contiguous, aligned and writable")
    same = out.ctypes.data == may_be.ctypes.data
    if any(np.may_share_memory(out, other) for other in (others if same else (may_be, *others))):
        raise ValueError("out must not lie over another of the arrays: give one of its own")
    return out
