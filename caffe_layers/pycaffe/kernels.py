"""The kernels of the layers PReLU and LReLU on numpy arrays, without a net.

    >>> import numpy as np
    >>> from caffe import kernels
    >>> kernels.prelu_forward(np.float32([[-4, 2]]), np.float32([0.25, 0.25]))
    array([[-1.,  2.]], dtype=float32)

Arrays are float32 or float64, all of the same type. Arrays that are not C contiguous are copied. Invalid arguments
raise TypeError or ValueError. Results have the same bits with any number of threads (OMP_NUM_THREADS).
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
    """Return y: x if x > 0, otherwise slopes[c] x (section 4.3.2 of the paper).

    x: (N, C, ...), at least two axes. slopes: (C,), or a single value for any shape of x. out: receives y; may be x.
    """
    x = _input("x", x)
    slopes = _slopes(slopes, x)
    y = _output(out, x, x, slopes)
    _kernels.rectifier_forward(x, slopes, y)
    return y


def prelu_backward(
    x: Array, slopes: Array, dy: Array, out: Array | None = None, slopes_only: bool = False, bottom_only: bool = False
) -> tuple[Array | None, Array | None]:
    """Return the gradients (dx, dslopes), given the gradient dy of y.

    dx, of x's shape: dy if x > 0, otherwise slopes[c] dy. dslopes, of slopes' shape: the sum of x dy over the values of
    each channel that are not above 0. out: receives dx; may be dy.
    slopes_only, bottom_only: compute only one; the other is None.
    """
    if slopes_only and bottom_only:
        raise ValueError("slopes_only and bottom_only exclude each other")
    if slopes_only and out is not None:
        raise ValueError("out receives dx, which slopes_only does not compute")
    shape = np.shape(slopes)
    x = _input("x", x)
    slopes = _slopes(slopes, x)
    dy = _like("dy", dy, x)
    dx = None if slopes_only else _output(out, x, dy, x, slopes)
    dslopes = None if bottom_only else np.zeros(shape, x.dtype)
    _kernels.rectifier_backward(x, slopes, dy, dx, dslopes)
    return dx, dslopes


def lrelu_forward(x: Array, slope: float = 0.01, out: Array | None = None) -> Array:
    """Return y: x if x > 0, otherwise slope x, for any shape of x. out: receives y; may be x."""
    x = _input("x", x)
    y = _output(out, x, x)
    _kernels.rectifier_forward(x, _slope(slope, x), y)
    return y


def lrelu_backward(x: Array, dy: Array, slope: float = 0.01, out: Array | None = None) -> Array:
    """Return the gradient dx: dy if x > 0, otherwise slope dy. out: receives dx; may be dy."""
    x = _input("x", x)
    dy = _like("dy", dy, x)
    dx = _output(out, x, dy, x)
    _kernels.rectifier_backward(x, _slope(slope, x), dy, dx, None)
    return dx


def _input(name: str, value: Array) -> Array:
    array = np.asarray(value)
    if array.dtype not in (np.float32, np.float64):
        raise TypeError(f"{name} is {array.dtype}, expected float32 or float64: use {name}.astype(np.float32)")
    return np.require(array, requirements=("C", "A"))


def _like(name: str, value: Array, x: Array) -> Array:
    array = _input(name, value)
    if array.dtype != x.dtype:
        raise TypeError(f"{name} is {array.dtype}, expected {x.dtype} as x")
    if array.shape != x.shape:
        raise ValueError(f"{name} has shape {array.shape}, expected {x.shape} as x")
    return array


def _slopes(value: Array, x: Array) -> Array:
    slopes = _input("slopes", value)
    if slopes.dtype != x.dtype:
        raise TypeError(f"slopes is {slopes.dtype}, expected {x.dtype} as x")
    if slopes.size != 1 and (slopes.ndim != 1 or x.ndim < 2 or slopes.size != x.shape[1]):
        raise ValueError(f"slopes has shape {slopes.shape}, expected one slope, or one per channel of x, {x.shape}")
    return slopes


def _slope(value: float, x: Array) -> Array:
    if np.ndim(value) or not isinstance(value, (numbers.Real, np.ndarray)):
        raise TypeError(f"slope is a {type(value).__name__}, expected a number")
    return np.full(1, value, x.dtype)


def _output(out: Array | None, x: Array, may_be: Array, *others: Array) -> Array:
    """Return `out`, or a new array like x. `out` may be `may_be`, but must not overlap other arrays."""
    if out is None:
        return np.empty_like(x, order="C")
    if not isinstance(out, np.ndarray) or out.dtype != x.dtype or out.shape != x.shape:
        raise ValueError(f"out must be an array with x's shape {x.shape} and dtype {x.dtype}")
    if not (out.flags.c_contiguous and out.flags.aligned and out.flags.writeable):
        raise ValueError("out must be C contiguous, aligned and writable")
    same = out.ctypes.data == may_be.ctypes.data
    if any(np.may_share_memory(out, other) for other in (others if same else (may_be, *others))):
        raise ValueError("out must not overlap another array")
    return out
