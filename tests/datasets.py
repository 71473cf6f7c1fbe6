"""Data on which norms lose their digits, by name. The group that is to be normalized is the last axis."""

import math

import numpy as np


def _outlier(where):
    def make(rng, shape):
        x = rng.standard_normal(shape)
        x[..., int(where * (shape[-1] - 1))] = 1e6
        return x

    return make


# To stay within 8 units, with the default eps and with 0.
HARD = {
    "N(0, 1)": lambda rng, shape: rng.standard_normal(shape),
    "N(1e4, 1)": lambda rng, shape: 1e4 + rng.standard_normal(shape),
    "N(1e6, 1)": lambda rng, shape: 1e6 + rng.standard_normal(shape),
    "outlier first": _outlier(0.0),
    "outlier in the middle": _outlier(0.5),
    "outlier last": _outlier(1.0),
    "exp(3N)": lambda rng, shape: np.exp(3 * rng.standard_normal(shape)),
    "1e20 N": lambda rng, shape: 1e20 * rng.standard_normal(shape),
    "1e-20 N": lambda rng, shape: 1e-20 * rng.standard_normal(shape),
}

# As hard, but test_hard_data.py alone walks them: the suite has to end some day.
MORE = {
    "N(-1e7, 100)": lambda rng, shape: -1e7 + 100 * rng.standard_normal(shape),
    "integers 0..255": lambda rng, shape: rng.integers(0, 256, shape),
    "1e-25 N": lambda rng, shape: 1e-25 * rng.standard_normal(shape),
    # Whose first elements lie far from the mean.
    "ten apart, then N": lambda rng, shape: 1e3 * (np.arange(shape[-1]) < 10) + rng.standard_normal(shape),
    "a random walk": lambda rng, shape: np.cumsum(rng.standard_normal(shape), -1),
}

CONSTANTS = (0.0, 1.0, math.pi, 1e20, 1e-25)

# Both sides of a pack (16 or 8 elements), of a chunk (128 or 64) and of several chunks; and primes.
LENGTHS = (1, 2, 3, 13, 15, 16, 17, 31, 64, 100, 127, 128, 129, 255, 256, 257, 767, 768, 1000, 1024)
LONG_LENGTHS = (4095, 4096, 4097, 5003, 20001)


def hard(name, dtype, shape, seed=0):
    """The hard data set `name`, its groups along the last axis."""
    return {**HARD, **MORE}[name](np.random.default_rng(seed), shape).astype(dtype)


def extreme(name, dtype, shape, seed=0):
    """Numbers at the ends of a type's range, and far from its middle."""
    rng, info = np.random.default_rng(seed), np.finfo(dtype)
    power = 200 if dtype == np.float64 else 30
    if name == "subnormal":
        return (rng.integers(-9999, 10000, shape) * info.smallest_subnormal).astype(dtype)
    if name == "largest":
        return (rng.uniform(-1, 1, shape) * float(info.max)).astype(dtype)
    if name == "next to the largest":
        steps = rng.integers(0, 1000, shape).astype(dtype)
        return info.max - steps * (info.max - np.nextafter(info.max, dtype.type(0)))
    if name in ("1e200 N, or 1e30 N", "1e-200 N, or 1e-30 N"):
        return (10.0 ** (power if "e2" in name else -power) * rng.standard_normal(shape)).astype(dtype)
    raise KeyError(name)


EXTREMES = (
    "subnormal",
    "largest",
    "next to the largest",
    "1e200 N, or 1e30 N",  # in float64, or in float32
    "1e-200 N, or 1e-30 N",
)


def weight_and_bias(dtype, shape, seed=1):
    """A weight of either sign and a bias, such that y = 0 * weight + bias is not lost in rounding."""
    rng = np.random.default_rng(seed)
    weight = rng.uniform(0.5, 2, shape) * rng.choice([-1, 1], shape)
    return weight.astype(dtype), rng.uniform(-0.25, 0.25, shape).astype(dtype)


def spread_channels(groups, n, spatial, axis):
    """A batch with its channels at `axis`; channel c holds row c of groups, (channels, n * prod(spatial))."""
    x = groups.reshape(len(groups), n, *spatial)
    return np.ascontiguousarray(np.moveaxis(x, 0, axis))
