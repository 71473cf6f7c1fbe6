"""Arrays that no kernel reads or writes as they lie: they are brought before one, and results to where they are wanted.

What comes of that is known without it: the bits of the same call on arrays in C order.
"""

import numpy as np
import pytest
from layouts import every_dtype

import onepass as op

# No side is a multiple of a square's, which has 64 bytes, of any element size; and some are shorter than that.
SHAPES = [(300, 170), (3, 131, 70), (70, 5, 131), (2, 41, 3, 67)]


def laid_out(x, order):
    """x's values in memory that has the axes in this order, the first of it the slowest."""
    back = np.argsort(order)
    return np.ascontiguousarray(x.transpose(order)).transpose(back)


def orders(ndim):
    axes = list(range(ndim))
    yield "reversed", axes[::-1]
    for i in range(1, ndim):
        yield f"axis {i} slowest", [i, *axes[:i], *axes[i + 1 :]]


def off_by_a_byte(x):
    """x's values in memory whose elements lie across what their type wants."""
    view = np.ndarray(x.shape, x.dtype, np.empty(x.nbytes + 1, np.uint8), offset=1)
    view[...] = x
    return view


def layouts(x):
    for name, order in orders(x.ndim):
        view = laid_out(x, order)
        yield name, view
        yield f"{name}, backwards", np.flip(laid_out(np.flip(x), order))
    wider = np.empty((*x.shape[:-1], 2 * x.shape[-1]), x.dtype)
    wider[..., ::2] = x
    yield "every second element", wider[..., ::2]
    yield "off by a byte", off_by_a_byte(x)
    yield "off by a byte, reversed", off_by_a_byte(x.T.copy()).T


@every_dtype
@pytest.mark.parametrize("threads", [1, 3])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_every_layout_of_x_and_of_out(dtype, shape, threads):
    x = np.random.default_rng(0).standard_normal(shape).astype(dtype)
    for axis in (-1, 0, tuple(range(0, len(shape), 2))):
        want = op.layer_norm(x, axis=axis).tobytes()
        for name, view in layouts(x):
            assert np.array_equal(view, x)
            with op.num_threads(threads):
                assert op.layer_norm(view, axis=axis).tobytes() == want, f"x {name}, axis {axis}"
                assert op.layer_norm(x, axis=axis, out=view) is view
            assert view.tobytes() == want, f"out {name}, axis {axis}"


@every_dtype
def test_one_element_many_times(dtype):
    x = np.random.default_rng(0).standard_normal((40, 1, 70)).astype(dtype)
    repeated = np.broadcast_to(x, (40, 50, 70)).transpose(2, 1, 0)
    want = op.layer_norm(np.ascontiguousarray(repeated), axis=1)
    assert op.layer_norm(repeated, axis=1).tobytes() == want.tobytes()


def test_nothing():
    x = np.empty((4, 0, 3), np.float32).transpose(2, 1, 0)
    assert op.layer_norm(x, axis=(0, 2)).shape == (3, 0, 4)
