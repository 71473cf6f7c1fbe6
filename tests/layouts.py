"""Shapes, axes and strides that the tests of several norms walk."""

import ml_dtypes
import numpy as np
import pytest
import references as ref

AXES = [
    ((7, 33), -1),
    ((7, 33), 0),
    ((7, 33), (0, 1)),
    ((33,), 0),
    ((5, 6, 19), (1, 2)),
    ((5, 6, 19), (2, 1)),
    ((5, 6, 19), (-1, -2)),
    ((5, 6, 19), 1),
    ((5, 6, 19), (0, 2)),
    ((5, 6, 19), (0, 1)),
    ((5, 6, 19), (0, 1, 2)),
    ((4, 10, 5, 6), 1),
    ((4, 10, 5, 6), -3),
    ((4, 10, 5, 6), (1, 2, 3)),
    ((4, 10, 5, 6), (3, 1)),
    ((4, 10, 5, 6), (0, 2)),
    ((4, 10, 5, 6), (0, 3)),
    ((4, 10, 5, 6), (0, 1, 2, 3)),
    ((2, 3, 4, 5, 6), (4, 0, 2)),
    ((1, 17, 1), 1),
    ((6, 1), -1),
    ((1, 1, 1), (0, 2)),
]


every_dtype = pytest.mark.parametrize(
    "dtype", [np.float16, ml_dtypes.bfloat16, np.float32, np.float64], ids=lambda dtype: dtype.__name__
)


def normalized_shape(shape, axis):
    return tuple(shape[a] for a in ref.axes_of(axis, len(shape)))


def strided(x):
    """x's values under other strides, by name."""
    wider = np.zeros([2 * n for n in x.shape], x.dtype)
    wider[tuple(slice(1, None, 2) for _ in x.shape)] = x
    yield "every second element", wider[tuple(slice(1, None, 2) for _ in x.shape)]
    longer = np.zeros((*x.shape[:-1], x.shape[-1] + 3), x.dtype)
    longer[..., 1:-2] = x
    yield "padded rows", longer[..., 1:-2]
    yield "Fortran", np.array(x, order="F")
    for axis in range(x.ndim):
        yield f"axis {axis} reversed", np.flip(np.flip(x, axis).copy(), axis)
    yield "all reversed", np.flip(np.flip(x).copy())
    if x.ndim > 2:
        yield "first two axes swapped", np.ascontiguousarray(x.swapaxes(0, 1)).swapaxes(0, 1)
        yield "last axis first", np.moveaxis(np.array(np.moveaxis(x, -1, 0), order="C"), 0, -1)
