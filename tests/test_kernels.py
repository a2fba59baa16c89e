"""caffe.kernels: PReLU and LReLU on numpy arrays, compared with numpy in float64 and with PyTorch."""

import os
import subprocess
import sys

import numpy as np
import pytest
from caffe import kernels
from hypothesis import given, settings
from hypothesis import strategies as st

SHAPES = [
    (2, 3, 4, 5),
    (7, 11),
    (1, 1),
    (5, 1, 3),
    (3, 13, 63),
    (3, 5, 65),
    (2, 2, 4099),
    (70001, 3),
    (2, 65537),
    (2, 1, 0),
]


def arrays(shape, dtype, seed=0, shared=False):
    """x, slopes and dy; x contains some zeros of both signs."""
    rng = np.random.default_rng(seed)
    x, dy = (rng.standard_normal(shape).astype(dtype) for _ in range(2))
    x[rng.random(shape) < 0.05] = 0
    x[rng.random(shape) < 0.05] *= -1
    slopes = rng.uniform(-0.5, 1.5, 1 if shared else shape[1]).astype(dtype)
    return x, slopes, dy


def reference(x, slopes, dy):
    """y, dx and dslopes in float64, and the sums of absolute values that bound the rounding of dslopes."""
    x, slopes, dy = (np.float64(a) for a in (x, slopes, dy))
    a = slopes.reshape((1, -1) + (1,) * (x.ndim - 2))
    terms = np.where(x > 0, 0, x * dy)
    axes = tuple(i for i in range(x.ndim) if i != 1 or slopes.size == 1)
    sums, sizes = (t.sum(axis=axes).reshape(slopes.shape) for t in (terms, np.abs(terms)))
    return np.where(x > 0, x, a * x), np.where(x > 0, dy, a * dy), sums, sizes


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("shared", [False, True])
def test_values_and_gradients_match_float64(shape, dtype, shared):
    x, slopes, dy = arrays(shape, dtype, shared=shared)
    epsilon = np.finfo(dtype).eps
    y, dx, dslopes, sizes = reference(x, slopes, dy)
    np.testing.assert_allclose(kernels.prelu_forward(x, slopes), y, rtol=epsilon)
    made_dx, made_dslopes = kernels.prelu_backward(x, slopes, dy)
    np.testing.assert_allclose(made_dx, dx, rtol=epsilon)
    assert made_dslopes.dtype == dtype and made_dslopes.shape == slopes.shape
    assert np.all(np.abs(made_dslopes - dslopes) <= 4 * epsilon * sizes)


@settings(max_examples=150, deadline=None)
@given(
    shape=st.lists(st.integers(1, 70), min_size=2, max_size=4).filter(lambda s: np.prod(s) < 2e5),
    seed=st.integers(0, 100),
    offset=st.integers(0, 9),
)
def test_any_shape_and_alignment(shape, seed, offset):
    x, slopes, dy = arrays(tuple(shape), np.float32, seed)
    views = []
    for a in (x, dy, np.full_like(x, np.nan)):
        memory = np.full(a.size + 20, 7, np.float32)
        views.append(memory[offset : offset + a.size].reshape(a.shape))
        views[-1][...] = a
    moved_x, moved_dy, out = views
    expected = kernels.prelu_backward(x, slopes, dy)
    made = kernels.prelu_backward(moved_x, slopes, moved_dy, out=out)
    assert made[0] is out
    assert expected[0].tobytes() == out.tobytes()
    np.testing.assert_allclose(made[1], expected[1], rtol=1e-4, atol=1e-4)
    assert kernels.prelu_forward(moved_x, slopes, out=out).tobytes() == kernels.prelu_forward(x, slopes).tobytes()
    assert np.all(out.base[:offset] == 7) and np.all(out.base[offset + x.size :] == 7), "written outside the array"


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_in_place(dtype):
    for shape in SHAPES:
        x, slopes, dy = arrays(shape, dtype)
        y, (dx, dslopes) = kernels.prelu_forward(x, slopes), kernels.prelu_backward(x, slopes, dy)
        gradient, made = dy.copy(), x.copy()
        in_place = kernels.prelu_backward(x, slopes, gradient, out=gradient)
        assert (in_place[0] is gradient, gradient.tobytes(), in_place[1].tobytes()) == (
            True,
            dx.tobytes(),
            dslopes.tobytes(),
        )
        assert kernels.prelu_forward(made, slopes, out=made) is made and made.tobytes() == y.tobytes()


def test_one_gradient_without_the_other():
    x, slopes, dy = arrays((3, 5, 70), np.float32)
    dx, dslopes = kernels.prelu_backward(x, slopes, dy)
    only, none = kernels.prelu_backward(x, slopes, dy, bottom_only=True)
    assert none is None and only.tobytes() == dx.tobytes()
    none, only = kernels.prelu_backward(x, slopes, dy, slopes_only=True)
    assert none is None and only.tobytes() == dslopes.tobytes()
    with pytest.raises(ValueError, match="slopes_only"):
        kernels.prelu_backward(x, slopes, dy, out=dy, slopes_only=True)
    with pytest.raises(ValueError, match="bottom_only|nothing"):
        kernels.prelu_backward(x, slopes, dy, slopes_only=True, bottom_only=True)


def test_lrelu_is_prelu_with_one_fixed_slope():
    x, _, dy = arrays((3, 5, 70), np.float32)
    for slope in (0.01, 0.0, 1.0, -0.3, 2.5):
        slopes = np.float32([slope])
        assert kernels.lrelu_forward(x, slope).tobytes() == kernels.prelu_forward(x, slopes).tobytes()
        assert kernels.lrelu_backward(x, dy, slope).tobytes() == kernels.prelu_backward(x, slopes, dy)[0].tobytes()
    assert kernels.lrelu_forward(np.float64(-3)) == pytest.approx(-0.03)


def test_nan_and_infinities_follow_the_formula():
    inf, nan = np.inf, np.nan
    x = np.float32([[inf, -inf, nan, 2, -2, 0, -0.0] * 3])
    dy = np.float32([[1, 1, 1, nan, inf, -inf, 3] * 3])
    with np.errstate(invalid="ignore"):
        for slope in (0.25, 0.0, -1.0):
            y, dx, _, _ = reference(x, [slope], dy)
            np.testing.assert_array_equal(kernels.lrelu_forward(x, slope), y)
            np.testing.assert_array_equal(kernels.lrelu_backward(x, dy, slope), dx)
    clean = np.float32([[1.0, -2.0], [nan, 3.0]])  # NaN affects only its channel's sum
    _, dslopes = kernels.prelu_backward(clean, np.float32([1, 1]), np.ones_like(clean))
    assert np.isnan(dslopes[0]) and dslopes[1] == -2


@pytest.mark.slow
def test_results_do_not_depend_on_the_number_of_threads():
    code = (
        "import hashlib, numpy as np; from caffe import kernels; from test_kernels import arrays\n"
        "for shape in ((50, 64, 56, 56), (64, 2048), (999, 31, 7), (1000003, 3)):\n"
        "    for shared in (False, True):\n"
        "        x, slopes, dy = arrays(shape, np.float32, shared=shared)\n"
        "        parts = (kernels.prelu_forward(x, slopes), *kernels.prelu_backward(x, slopes, dy))\n"
        "        print(hashlib.sha256(b''.join(p.tobytes() for p in parts)).hexdigest())\n"
    )
    seen = set()
    for threads in ("1", "2", "7", "2"):
        environment = {**os.environ, "OMP_NUM_THREADS": threads, "PYTHONPATH": os.path.dirname(__file__)}
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment)
        assert done.returncode == 0, done.stderr
        assert len(done.stdout.split()) == 8
        seen.add(done.stdout)
    assert len(seen) == 1


@pytest.mark.parametrize(
    "arguments, error, value",
    [
        ((np.int64([[1]]), np.float32([1])), TypeError, "int64"),
        ((np.float16([[1]]), np.float32([1])), TypeError, "float16"),
        ((np.float32([[1]]), np.float64([1])), TypeError, "float64"),
        ((np.float32([[1, 2]]), np.float32([1, 2, 3])), ValueError, r"\(3,\)"),
        ((np.float32([1, 2]), np.float32([1, 2])), ValueError, "slope"),
        ((np.float32([[1]]), np.float32([])), ValueError, "slope"),
        ((np.float32([[1, 2]]), np.float32([1]), np.empty((2, 1), np.float32)), ValueError, r"\(1, 2\)"),
        ((np.float32([[1, 2]]), np.float32([1]), np.empty((1, 4), np.float32)[:, ::2]), ValueError, "contiguous"),
    ],
)
def test_invalid_arrays_are_refused(arguments, error, value):
    with pytest.raises(error, match=value):
        kernels.prelu_forward(*arguments)


@pytest.mark.parametrize(
    "slope", [[0.1, 0.2], [], None, "0.1", np.ones(1, np.float32), np.ones((2, 2), np.float32), 1j]
)
def test_a_slope_that_is_not_one_number_is_refused(slope):
    x = np.ones((2, 5), np.float32)
    for call in (lambda: kernels.lrelu_forward(x, slope), lambda: kernels.lrelu_backward(x, x, slope)):
        with pytest.raises(TypeError, match="slope"):
            call()


def test_lists_and_numbers_are_converted_like_in_numpy():
    assert kernels.prelu_forward([[-4.0, 2.0]], [0.25, 0.25]).tolist() == [[-1, 2]]
    assert kernels.prelu_forward(-4.0, 0.25) == -1
    assert kernels.lrelu_forward([[-4.0]], np.float32(0.5)).tolist() == [[-2]]
    assert kernels.lrelu_forward([[-4.0]], 2).tolist() == [[-8]]
    with pytest.raises(TypeError, match="int64"):
        kernels.prelu_forward([[1]], [1.0])


def test_an_unaligned_array_is_copied_but_not_written_to():
    memory = np.zeros(41, np.uint8)
    odd = memory[1:41].view(np.float32)
    odd[...] = -1
    assert kernels.lrelu_forward(odd, 0.5).tolist() == [-0.5] * 10
    with pytest.raises(ValueError, match="aligned"):
        kernels.lrelu_forward(odd, out=odd)


def test_invalid_gradients_are_refused():
    x, slopes = np.float32([[1, 2]]), np.float32([1, 2])
    with pytest.raises(ValueError, match=r"dy.*\(2, 1\)"):
        kernels.prelu_backward(x, slopes, x.T)
    with pytest.raises(TypeError, match="dy.*float64"):
        kernels.prelu_backward(x, slopes, np.float64(x))


def test_an_output_that_overlaps_an_input_is_refused():
    memory = np.zeros(12, np.float32)
    x, over = memory[:8].reshape(2, 4), memory[2:10].reshape(2, 4)
    for call in (
        lambda: kernels.lrelu_forward(x, out=over),
        lambda: kernels.prelu_forward(x, memory[:1], out=x),
        lambda: kernels.lrelu_backward(x, x.copy(), out=over),
        lambda: kernels.lrelu_backward(x, np.ones_like(x), out=x),
    ):
        with pytest.raises(ValueError, match="out"):
            call()


def test_noncontiguous_arrays_are_copied():
    x = np.float32(np.random.default_rng(0).standard_normal((6, 4, 3)))
    slopes = np.float32([0.1, 0.2, 0.3, 0.4])
    np.testing.assert_array_equal(
        kernels.prelu_forward(np.asfortranarray(x)[::2], slopes[::-1]),
        kernels.prelu_forward(x[::2].copy(), slopes[::-1].copy()),
    )


TORCH = """
import pathlib, sys, numpy as np, torch
for path in pathlib.Path(sys.argv[1]).glob("given_*.npz"):
    given = dict(np.load(path))
    x, slopes, dy = (torch.from_numpy(given[name]) for name in ("x", "slopes", "dy"))
    x.requires_grad_(); slopes.requires_grad_()
    y = torch.nn.functional.prelu(x, slopes); y.backward(dy)
    leaky = x.detach().clone().requires_grad_()
    z = torch.nn.functional.leaky_relu(leaky, 0.01); z.backward(dy)
    made = path.with_name(path.name.replace("given", "made"))
    np.savez(made, y=y.detach(), dx=x.grad, dslopes=slopes.grad, z=z.detach(), dz=leaky.grad)
"""


def _torch():
    """A Python with PyTorch: TORCH_PYTHON, or this one."""
    python = os.environ.get("TORCH_PYTHON", sys.executable)
    found = subprocess.run([python, "-c", "import torch"], capture_output=True).returncode == 0
    return python if found else pytest.skip("no PyTorch: set TORCH_PYTHON to a Python with torch")


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_results_match_pytorch(tmp_path, dtype):
    python = _torch()
    epsilon = np.finfo(dtype).eps
    shapes = [shape for shape in SHAPES if 0 not in shape] + [(20, 64, 56, 56)]
    cases = [arrays(shape, dtype, seed=3, shared=shared) for shape in shapes for shared in (False, True)]
    for i, (x, slopes, dy) in enumerate(cases):
        np.savez(tmp_path / f"given_{i}.npz", x=x, slopes=slopes, dy=dy)
    subprocess.run([python, "-c", TORCH, tmp_path], check=True)
    for i, (x, slopes, dy) in enumerate(cases):
        torch = np.load(tmp_path / f"made_{i}.npz")
        dx, dslopes = kernels.prelu_backward(x, slopes, dy)
        np.testing.assert_allclose(kernels.prelu_forward(x, slopes), torch["y"], rtol=epsilon)
        np.testing.assert_allclose(dx, torch["dx"], rtol=epsilon)
        assert np.all(np.abs(dslopes - torch["dslopes"]) <= 16 * epsilon * reference(x, slopes, dy)[3])
        np.testing.assert_allclose(kernels.lrelu_forward(x), torch["z"], rtol=epsilon)
        np.testing.assert_allclose(kernels.lrelu_backward(x, dy), torch["dz"], rtol=epsilon)
