"""Every norm on every hard data set, in every layout and instruction set: finite, and within 8 units.

The tests of each norm walk the first of these sets over many more lengths.
"""

import calls
import datasets
import numpy as np
import pytest
import references as ref

import onepass as op

FLOATS = {name: calls.DTYPES[name] for name in ("float32", "float64")}
NAMES = [*datasets.HARD, *datasets.MORE, *datasets.EXTREMES]
NORMS = [name for name in calls.CALLS if name != "moments"]

each_dtype = pytest.mark.parametrize("dtype", FLOATS.values(), ids=FLOATS)
each_data = pytest.mark.parametrize("data", NAMES)


def layouts(name):
    row = calls.CALLS[name]
    if row.axis == "axes":
        shapes = [((5, 2), -1), ((4, 129), -1), ((3, 1000), -1), ((1031, 5), 0), ((2, 17, 19), 1), ((3, 5, 50), (0, 2))]
    else:
        shapes = [((2, 6, 37), 1), ((3, 11, 7, 6), -1), ((140, 6, 2), 1), ((300, 6), 1)]
    return [row(shape, axis) for shape, axis in shapes if len(shape) >= row.least_ndim]


def values(call, name, dtype):
    """x, each of its groups one of the data set's."""
    places = call.groups(np.arange(np.prod(call.shape)).reshape(call.shape))
    x = np.empty(call.shape, dtype)
    x.flat[places] = (datasets.extreme if name in datasets.EXTREMES else datasets.hard)(name, dtype, places.shape)
    return x


def arguments(call, name, dtype):
    """A residual of x's size; statistics of a running batch near x's own, so that no result overflows."""
    arrays = calls.arguments(call, dtype, data=values(call, name, dtype))
    if "residual" in arrays:
        arrays["residual"] = (arrays["x"] * dtype.type(-0.25))[::-1].copy()
    return arrays


def usable(call, name):
    # Given statistics say nothing about x: huge results are right there. The tests of batch norm choose fitting ones.
    huge = ("1e20 N", "largest", "next to the largest", "1e200 N, or 1e30 N")
    return not (call.name == "batch_norm inference" and name in huge)


def constant(call, arrays):
    """Which groups hold one number only (where eps is 0 the formula has no answer; see the tests of constants)."""
    x = arrays["x"]
    groups = call.groups(x + arrays["residual"] if "residual" in arrays else x)
    return (groups == groups[:, :1]).all(1)


@each_dtype
@each_data
@pytest.mark.parametrize("name", NORMS)
def test_norms(name, data, dtype):
    checked = 0
    for call in layouts(name):
        if not usable(call, data):
            continue
        arrays = arguments(call, data, dtype)
        usual = ~constant(call, arrays)
        for eps in (1e-5, 0.0):
            y_of = {}
            for isa in op.available_isas():
                op.use_isa(isa)
                y = y_of[isa] = call.results(arrays, eps)[0]
                assert np.isfinite(call.groups(y)[usual]).all(), (call.shape, eps, isa)
            if len({y.tobytes() for y in y_of.values()}) > 1:
                pytest.fail(f"{call.shape}: instruction sets differ")
            with np.errstate(all="ignore"):
                wrong = calls.wrong(call, y, arrays, eps)[usual]
            assert not wrong.any(), f"{wrong.sum()} of {wrong.size} wrong: {call.shape}, eps {eps}"
            checked += wrong.size
    assert checked or not usable(call, data)


@each_dtype
@each_data
def test_moments(data, dtype, each_isa):
    for call in layouts("moments"):
        arrays = arguments(call, data, dtype)
        x = call.groups(arrays["x"])
        mean, m2 = (result.ravel() for result in call.results(arrays))
        _, mean_ref, m2_ref = ref.moments(x, 1)
        assert np.isfinite(mean).all(), call.shape
        assert ref.mean_units(mean, x, 1) <= calls.UNITS, call.shape
        in_range = (m2_ref < np.finfo(np.float64).max) & (m2_ref > np.finfo(np.float64).tiny)
        assert ref.relative_units(m2[in_range], m2_ref[in_range], dtype) <= calls.UNITS, call.shape
        assert not np.isnan(m2).any(), call.shape


@each_dtype
@pytest.mark.parametrize("constant", datasets.CONSTANTS)
@pytest.mark.parametrize("name", [name for name in NORMS if "inference" not in name])
def test_constants(name, constant, dtype, each_isa):
    """A constant group gives exactly the bias; for RMS norm it has the root mean square of its number."""
    for call in layouts(name):
        arrays = calls.arguments(call, dtype, data=np.full(call.shape, constant, dtype))
        if "residual" in arrays:
            arrays["residual"] = np.full(call.shape, constant / 2, dtype)
        for eps in (1e-5, 0.0):
            y = call.results(arrays, eps)[0]
            if call.centred:
                bias = arrays.get("bias", np.zeros((), dtype))
                zeros = call.reference({**arrays, "weight": arrays.get("weight", bias) * 0, "bias": bias}, 1.0)
                assert np.array_equal(y, zeros.astype(dtype)), (call.shape, eps)
            elif constant == 0:
                assert not y.any(), (call.shape, eps)
            else:
                assert not calls.wrong(call, y, arrays, eps).any(), (call.shape, eps)
