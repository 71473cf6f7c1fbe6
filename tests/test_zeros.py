"""Groups of zeros are told by a first reading alone; what vanishes when it is squared is not taken for them."""

import calls
import ml_dtypes
import numpy as np
import pytest

import onepass as op

TYPES = {name: calls.DTYPES[name] for name in ("float32", "float64", "bfloat16")}
each_dtype = pytest.mark.parametrize("dtype", TYPES.values(), ids=TYPES)
TAKEN = [name for name in calls.CALLS if "inference" not in name]
each_function = pytest.mark.parametrize("name", TAKEN)


def layouts(name):
    row = calls.CALLS[name]
    if row.axis == "axes":
        shapes = [
            ((6, 37), -1),
            ((5, 3000), -1),
            ((37, 6), 0),
            ((1100, 3), 0),
            ((9, 700), 0),
            ((2, 5, 3, 7), (0, 2)),
        ]
    else:
        shapes = [((3, 6, 37), 1), ((3, 11, 7, 6), -1), ((300, 6), 1), ((70, 6, 15), 1), ((2, 1500, 6), -1)]
    return [row(shape, axis) for shape, axis in shapes if len(shape) >= row.least_ndim]


def results(call, dtype, groups, masked=True):
    """Without eps: what comes out for each group of x. (The gradients of the first are zero.)"""
    arrays = calls.arguments(call, dtype, data=call.scattered(groups.astype(dtype)))
    if "mask" in arrays and not masked:
        arrays["mask"][...] = True
    if "dy" in arrays:
        arrays["dy"].flat[call.places()[0]] *= dtype.type(-0.0)
    if "residual" in arrays:
        arrays["residual"] = arrays["x"] / 2
    with np.errstate(all="ignore"):
        given = call.results(arrays, 0.0)
    if call.kind == "moments":
        return [result.reshape(len(groups), -1) for result in given if result.size == len(groups)]
    return [call.groups(given[0])]


@each_dtype
@each_function
def test_same_bits_beside_any_other_group(name, dtype, each_isa):
    """Whether another group needs a range of its own has no part in what becomes of zeros, of either sign."""
    rng, info = np.random.default_rng(1), ml_dtypes.finfo(dtype)
    besides = (0.0, 1.0, float(info.smallest_normal) * 64, float(info.max) / 64)
    for call in layouts(name):
        shape = call.places().shape
        zero = np.arange(shape[0]) % 3 != 1
        zeros = np.where(rng.random(shape) < 0.5, -0.0, 0.0)
        zeros[0] = -0.0
        numbers = rng.uniform(-1, 1, shape)
        seen = set()
        for scale in besides:
            for threads in (1, 2):
                op.set_num_threads(threads)
                given = results(call, dtype, np.where(zero[:, None], zeros, numbers * scale))
                seen.add(tuple(calls.bits([result[zero] for result in given])))
        assert len(seen) == 1, (call.shape, call.axis)


@each_dtype
@each_function
def test_what_vanishes_is_not_zero(name, dtype, each_isa):
    """One number among zeros, or it and its negative: of whatever size, they become the same."""
    info = ml_dtypes.finfo(dtype)
    least = int(np.log2(float(info.smallest_subnormal)))
    exponents = (least, info.minexp, least // 2 - 2, least // 2 - 1, least // 2, least // 3)
    for call in layouts(name):
        # How M2, y and dx go with x; and the least x whose M2 or dx a float64, or dx's type, has.
        power, lowest = {"moments": (2, -500), "norm": (0, least), "gradient": (-1, info.minexp + 16)}[
            call.kind
        ]
        groups, n = call.places().shape
        group = np.arange(groups)
        for negatives in (0, 1):
            ones = np.zeros((groups, n))
            ones[group, group * 7 % n] = 1
            ones[group, (group * 7 + n // 2) % n] -= negatives
            expected = results(call, dtype, ones, masked=False)[-1]
            room = 8 * float(info.eps) * np.abs(expected).max()
            for exponent in exponents:
                if exponent >= lowest:
                    got = results(call, dtype, ones * 2.0**exponent, masked=False)[-1]
                    got = got.astype(np.float64) * 2.0 ** (-power * exponent)
                    assert np.abs(got - expected).max() <= room, (call.shape, call.axis, negatives, exponent)
