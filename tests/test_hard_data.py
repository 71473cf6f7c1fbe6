"""Every function on every hard data set, in every layout and instruction set: finite, and as near as promised.

The tests of each norm walk the first of these sets over many more lengths.
"""

import calls
import datasets
import numpy as np
import pytest

import onepass as op

FLOATS = {name: calls.DTYPES[name] for name in ("float32", "float64")}
each_dtype = pytest.mark.parametrize("dtype", FLOATS.values(), ids=FLOATS)

DATA = [*datasets.HARD, *datasets.MORE, *datasets.EXTREMES]
# Gradients are promised for what is well-conditioned.
WELL = ("N(0, 1)", "N(1e4, 1)", "integers 0..255", "1e20 N", "1e-20 N", "1e-25 N", "N(-1e7, 100)")
# Given statistics say nothing about x: results that are huge are right there.
HUGE = ("1e20 N", "largest", "next to the largest", "1e200 N, or 1e30 N")


def walks(name, data):
    if "backward" in name and data not in WELL:
        return False
    return not ("inference" in name and data in HUGE)


def layouts(name):
    row = calls.CALLS[name]
    if row.axis == "axes":
        shapes = [((5, 2), -1), ((4, 129), -1), ((3, 1000), -1)]
        shapes += [((1031, 5), 0), ((2, 17, 19), 1), ((3, 5, 50), (0, 2))]
    else:
        shapes = [((2, 6, 37), 1), ((3, 11, 7, 6), -1), ((140, 6, 2), 1), ((300, 6), 1)]
    made = [row(shape, axis) for shape, axis in shapes if len(shape) >= row.least_ndim]
    # A masked group of few may count one element: others lie anywhere beside it.
    few = 8 if "masked" in name or "backward" in name else 1
    return [call for call in made if call.places().shape[1] >= few]


def arguments(call, name, dtype):
    """x, each of its groups one of the data set's, and a residual of its size."""
    make = datasets.extreme if name in datasets.EXTREMES else datasets.hard
    arrays = calls.arguments(call, dtype, data=call.scattered(make(name, dtype, call.places().shape)))
    if "residual" in arrays:
        arrays["residual"] = arrays["x"] * dtype.type(-0.25)
    return arrays


@each_dtype
@pytest.mark.parametrize(
    ("name", "data"),
    [
        pytest.param(name, data, id=f"{name}-{data}")
        for name in calls.CALLS
        for data in DATA
        if walks(name, data)
    ],
)
def test_digits(name, data, dtype):
    assert layouts(name)
    for call in layouts(name):
        arrays = arguments(call, data, dtype)
        # (Subnormals are normalized where eps is 0; beside any other they are nothing.)
        for eps in (0.0,) if data == "subnormal" else (1e-5, 0.0):
            results = {}
            for isa in op.available_isas():
                op.use_isa(isa)
                results[isa] = call.results(arrays, eps)
            assert len({tuple(calls.bits(given)) for given in results.values()}) == 1, call.shape
            found = calls.faults(call, results[isa], arrays, eps)
            assert not found, f"{found}: {call.shape}, eps {eps}"


CONSTANT = [name for name in calls.CALLS if calls.usual(name)[0].kind == "norm" and "inference" not in name]


@each_dtype
@pytest.mark.parametrize("constant", datasets.CONSTANTS)
@pytest.mark.parametrize("name", CONSTANT)
def test_constants(name, constant, dtype, each_isa):
    """A constant group gives exactly the bias; with RMS norm its number has a size to divide by."""
    for call in layouts(name):
        arrays = calls.arguments(call, dtype, data=np.full(call.shape, constant, dtype))
        if "residual" in arrays:
            arrays["residual"] = np.full(call.shape, constant / 2, dtype)
        for eps in (1e-5, 0.0):
            y = call.results(arrays, eps)[0]
            if call.centred:
                expected = call.reference(arrays, 1.0)  # (0 * weight + bias, whatever the eps)
                assert np.array_equal(y, expected.astype(dtype)), (call.shape, eps)
            elif constant == 0:
                assert not y.any(), (call.shape, eps)
            else:
                assert not calls.faults(call, [y], arrays, eps), (call.shape, eps)
