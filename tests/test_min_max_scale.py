"""min_max_scale: columns (or any other groups) brought to a range, whose ends are met and never passed."""

import datasets
import ml_dtypes
import numpy as np
import pytest
import references as ref
from layouts import AXES, strided
from sixteen_bits import is_nan
from sklearn.preprocessing import minmax_scale

import onepass as op

UNITS = 8
RANGES = [(0.0, 1.0), (-1.0, 1.0), (0.1, 0.7), (5, 6), (-3.0, 1e-3), (1000.0, 1000.5), (-2.5, -0.0)]
FAR_RANGES = [(-1e30, 1e30), (0.0, 3e38), (0.0, 1e-30), (-1e-20, 3.0)]
DATA = {
    **datasets.HARD,
    "integers": lambda rng, shape: rng.integers(0, 256, shape).astype(float),
    "Cauchy": lambda rng, shape: rng.standard_cauchy(shape),
    "U(0, 1)": lambda rng, shape: rng.uniform(0, 1, shape),
    "1e-30 N": lambda rng, shape: 1e-30 * rng.standard_normal(shape),
}
BOTH = [np.dtype(d) for d in (np.float32, np.float64)]
HALVES = [np.dtype(d) for d in (np.float16, ml_dtypes.bfloat16)]
every_dtype = pytest.mark.parametrize("any_dtype", BOTH + HALVES, ids=str)


def data(name, dtype, shape, seed=0):
    """The data set `name`, or the extreme one."""
    if name in datasets.EXTREMES:
        return datasets.extreme(name, dtype, shape, seed)
    return DATA[name](np.random.default_rng(seed), shape).astype(dtype)


def ends(feature_range, dtype):
    """The ends as results have them."""
    arithmetic = np.float64 if dtype == np.float64 else np.float32
    return tuple(arithmetic(end).astype(dtype) for end in feature_range)


def assert_scaled(x, axis, feature_range, y, how=""):
    lower, upper = ends(feature_range, x.dtype)
    axes = ref.axes_of(axis, x.ndim)
    wide = ref.wide(x)
    constant = wide.min(axes, keepdims=True) == wide.max(axes, keepdims=True)
    assert (y.shape, y.dtype) == (x.shape, x.dtype), how
    assert (y >= lower).all(), how
    assert (y <= upper).all(), how
    assert (y[wide == wide.min(axes, keepdims=True)] == lower).all(), how
    assert (y[(wide == wide.max(axes, keepdims=True)) & ~constant] == upper).all(), how
    if x.dtype in HALVES:
        return
    units = ref.units(y, ref.min_max_scale(x, axis, feature_range), axes)
    assert units <= UNITS, f"{units:.1f} units: {how}"


@pytest.mark.parametrize("name", [*DATA, *datasets.EXTREMES])
def test_digits(name, dtype, each_isa):
    for n in datasets.LENGTHS[1:] + datasets.LONG_LENGTHS:
        rows = data(name, dtype, (5, n), seed=n)
        for x, axis in ((np.ascontiguousarray(rows.T), 0), (rows, 1)):
            for feature_range in RANGES if n < 1000 else RANGES[:2]:
                y = op.min_max_scale(x, axis=axis, feature_range=feature_range)
                assert y.flags.c_contiguous
                assert_scaled(x, axis, feature_range, y, (n, axis, feature_range))


@pytest.mark.parametrize("feature_range", FAR_RANGES, ids=str)
@pytest.mark.parametrize("name", ["N(0, 1)", "1e20 N", "1e-20 N", *datasets.EXTREMES])
def test_digits_of_far_ranges(feature_range, name, dtype, each_isa):
    for shape, axis in (((300, 11), 0), ((11, 300), 1)):
        x = data(name, dtype, shape)
        assert_scaled(x, axis, feature_range, op.min_max_scale(x, axis=axis, feature_range=feature_range))


@pytest.mark.parametrize("name", ["N(0, 1)", "N(1e4, 1)", "integers", "exp(3N)"])
def test_sixteen_bits(name, half, each_isa):
    with np.errstate(over="ignore"):
        x = np.clip(data(name, np.float64, (300, 37)), -6e4, 6e4).astype(half)
    for axis in (0, 1, (0, 1)):
        for feature_range in RANGES[:4]:
            y = op.min_max_scale(x, axis=axis, feature_range=feature_range)
            assert_scaled(x, axis, feature_range, y, (axis, feature_range))
            y_ref = ref.min_max_scale(x, axis, feature_range)
            # Once from float32: that is the nearest, or where float32 lies between two its neighbour.
            in_float32 = op.min_max_scale(x.astype(np.float32), axis=axis, feature_range=feature_range)
            assert np.array_equal(y, ref.rounded(in_float32, half))
            near_zero = np.abs(y_ref) < 1e-3
            assert (ref.steps(y, y_ref)[~near_zero] <= 1).all(), (axis, feature_range)


@every_dtype
@pytest.mark.parametrize(("shape", "axis"), AXES)
def test_axes(shape, axis, any_dtype, each_isa):
    x = data("N(0, 1)", any_dtype, shape)
    for feature_range in RANGES[:3]:
        y = op.min_max_scale(x, axis=axis, feature_range=feature_range)
        assert_scaled(x, axis, feature_range, y, feature_range)
    assert np.array_equal(op.min_max_scale(x), op.min_max_scale(x, axis=0, feature_range=(0, 1)))


@pytest.mark.parametrize(
    ("shape", "axis"),
    [((3001, 257), 0), ((3001, 257), 1), ((20_001, 7), 0), ((200_003, 1), 0), ((300_001,), 0), ((3, 200_003), 1),
     ((2, 100_001, 3), 1), ((9, 40, 33, 31), (0, 2, 3)), ((300, 40, 5), (0, 2)), ((40, 200, 13), 1),
     ((2, 3, 60_001), (0, 2)), ((5, 7, 30_001), 2)],
)  # fmt: skip
def test_threads(shape, axis, dtype, each_threads):
    """Data whose extremes lie anywhere in a group."""
    x = data("N(0, 1)", dtype, shape)
    assert_scaled(x, axis, (0.0, 1.0), op.min_max_scale(x, axis=axis))
    assert_scaled(x, axis, (-1, 1), op.min_max_scale(x, axis=axis, feature_range=(-1, 1)))


def test_an_extreme_is_found_wherever_it_is(dtype, each_isa):
    for n in (1, 2, 3, 7, 8, 9, 17, 63, 64, 65, 129, 300):
        for at in range(n):
            for extreme in (-4.0, 4.0):
                x = np.random.default_rng(n).uniform(-1, 1, n).astype(dtype)
                x[at] = extreme
                columns = np.tile(x, (5, 1)).T.copy()
                for y in (op.min_max_scale(x), op.min_max_scale(columns)[:, 4]):
                    assert y[at] == (extreme > 0 and n > 1)


def test_order_is_kept(dtype, each_isa):
    rng = np.random.default_rng(0)
    eps = np.finfo(dtype).eps
    for feature_range in RANGES:
        for start in (1.0, 1e6, -0.3):
            x = np.sort((start + np.abs(start) * eps * rng.integers(0, 3000, 2001)).astype(dtype))
            for y in (
                op.min_max_scale(x, feature_range=feature_range),
                op.min_max_scale(np.tile(x, (3, 1)).T, feature_range=feature_range)[:, 1],
            ):
                assert (np.diff(y) >= 0).all()
                assert_scaled(x, 0, feature_range, y, feature_range)


def test_neighbours_of_the_ends_stay_within(dtype, each_isa):
    """What rounds past an end is what lies within a rounding of it."""
    rng = np.random.default_rng(0)
    a, b = np.sort(rng.standard_normal((2, 20_000)), 0).astype(dtype)
    inf = dtype.type(np.inf)
    x = np.stack(
        [a, np.nextafter(a, inf), np.nextafter(b, -inf), np.nextafter(np.nextafter(b, -inf), -inf), b]
    )
    x = np.clip(x, a, b)
    for feature_range in (*RANGES, (-0.3, 0.4), (1 / 3, 0.9), (-7.1, 5.3)):
        assert_scaled(x, 0, feature_range, op.min_max_scale(x, feature_range=feature_range), feature_range)
        y = op.min_max_scale(np.ascontiguousarray(x.T), axis=1, feature_range=feature_range)
        assert_scaled(x, 0, feature_range, y.T, feature_range)


@every_dtype
def test_constants(any_dtype, each_isa):
    largest = float(ml_dtypes.finfo(any_dtype).max)
    constants = [
        c for c in (0.0, -0.0, 1.0, np.pi, -5.0, 1e20, 1e-25, largest, -largest) if abs(c) <= largest
    ]
    for n in datasets.LENGTHS:
        x = np.tile(np.array(constants, any_dtype), (n, 1))
        for feature_range in RANGES:
            lower = ends(feature_range, any_dtype)[0]
            assert (op.min_max_scale(x, feature_range=feature_range) == lower).all(), n
            rows = op.min_max_scale(np.ascontiguousarray(x.T), axis=1, feature_range=feature_range)
            assert (rows == lower).all(), n


@pytest.mark.parametrize("shape", [(300, 24), (300, 3), (24, 300)])
def test_unusual_columns_leave_the_others_alone(shape, dtype, each_isa):
    """The others keep their bits: constants, and what has to be brought into range, are no matter of theirs."""
    plain = data("N(0, 1)", dtype, shape)
    info = np.finfo(dtype)
    for change in (
        lambda c: c * 0 + 3,
        lambda c: np.where(c > 0, info.max, -info.max),
        lambda c: (c > 0) * info.smallest_subnormal,
        lambda c: c + 1e6,
    ):
        x = plain.copy()
        x[:, 2] = change(x[:, 2])
        for feature_range in RANGES[:2]:
            y = op.min_max_scale(x, feature_range=feature_range)
            assert_scaled(x, 0, feature_range, y)
            others = np.delete(op.min_max_scale(plain, feature_range=feature_range), 2, 1)
            assert np.delete(y, 2, 1).tobytes() == others.tobytes()
            rows = op.min_max_scale(x.T, axis=1, feature_range=feature_range)
            assert np.ascontiguousarray(rows.T).tobytes() == y.tobytes()


@every_dtype
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, -np.nan])
def test_what_is_not_finite_stays_in_its_column(value, any_dtype, each_isa):
    for n, cols in ((1, 5), (2, 5), (9, 24), (65, 24), (300, 24), (2001, 5)):
        plain = data("N(0, 1)", any_dtype, (n, cols))
        expected = np.delete(op.min_max_scale(plain), 3, 1)
        for at in {0, n // 2, n - 1, min(n - 1, 17)}:
            x = plain.copy()
            x[at, 3] = value
            for y in (op.min_max_scale(x), op.min_max_scale(np.ascontiguousarray(x.T), axis=1).T):
                nan = is_nan(y) if any_dtype in HALVES else np.isnan(y)
                assert nan[:, 3].all(), (n, at)
                assert np.array_equal(np.delete(y, 3, 1), expected), (n, at)


def test_all_is_nan_where_a_group_of_blocks_holds_one(dtype, each_threads):
    for shape, axis in (((6, 5, 7), (0, 2)), ((6, 5, 900), (0, 2)), ((500, 5, 3), (0, 2)), ((3, 100_003), 1)):
        x = data("N(0, 1)", dtype, shape)
        expected = op.min_max_scale(x, axis=axis)
        group = 0 if axis == 1 else 1
        for place in range(0, x[0].size, max(1, x[0].size // 7)):
            bad = x.copy()
            bad[0].reshape(-1)[place] = np.nan
            at = tuple(np.argwhere(np.isnan(bad))[0])[group]
            y = op.min_max_scale(bad, axis=axis)
            assert np.isnan(np.take(y, at, group)).all()
            assert np.array_equal(np.delete(y, at, group), np.delete(expected, at, group))


def test_zeros_of_either_sign(dtype, each_isa):
    """Results have the bits of those of positive zeros, wherever the negative ones stand."""
    rng = np.random.default_rng(0)
    for n in (2, 5, 8, 17, 300):
        for least, greatest in ((0, 1), (-1, 0), (-1, 1), (0, 0)):
            zero = np.clip(rng.integers(-1, 2, (n, 9)), least, greatest).astype(dtype)
            signed = np.where(zero == 0, np.copysign(zero, rng.choice([-1, 1], zero.shape)), zero).astype(
                dtype
            )
            for feature_range in ((0, 1), (-0.0, 1), (-1, 1), (-1, -0.0)):
                for axis in (0, 1):
                    y = op.min_max_scale(signed, axis=axis, feature_range=feature_range)
                    want = op.min_max_scale(zero, axis=axis, feature_range=feature_range)
                    assert y.tobytes() == want.tobytes(), (n, least, greatest, feature_range)


@every_dtype
@pytest.mark.parametrize(("shape", "axis"), AXES)
def test_strides_out_and_in_place(shape, axis, any_dtype, each_isa):
    x = data("N(0, 1)", any_dtype, shape)
    expected = op.min_max_scale(x, axis=axis)
    for name, view in (*strided(x), ("contiguous", x.copy())):
        assert np.array_equal(op.min_max_scale(view, axis=axis), expected), name
        out = np.zeros_like(view)
        assert op.min_max_scale(x, axis=axis, out=out) is out
        assert np.array_equal(out, expected), name
        assert op.min_max_scale(view, axis=axis, out=view) is view
        assert np.array_equal(view, expected), name


@pytest.mark.parametrize("shape", [(70, 50_003), (50_003, 70), (2001, 129, 2)])
def test_in_place_by_threads(shape, each_threads):
    for axis in range(len(shape)):
        x = data("N(0, 1)", np.float32, shape)
        expected = op.min_max_scale(x, axis=axis)
        assert_scaled(x, axis, (0, 1), expected)
        assert np.array_equal(op.min_max_scale(x, axis=axis, out=x), expected)


@pytest.mark.parametrize(
    ("shape", "axis"),
    [
        ((9001, 1999), 0),
        ((9001, 1999), 1),
        ((200_003, 91), 0),
        ((70, 33, 99, 79), (0, 2, 3)),
        ((18_000_001,), 0),
    ],
    ids=str,
)
def test_results_larger_than_the_caches(shape, axis):
    """They are written past the caches, with other stores; in place they are not."""
    x = np.random.default_rng(0).standard_normal(shape, np.float32)
    memory = np.empty(x.size + 16, np.float32)
    want = x.copy()
    op.min_max_scale(want, axis=axis, out=want)
    for isa, threads, by in zip(op.available_isas(), (2, 1, 3), (0, 5, 16), strict=False):
        op.use_isa(isa)
        op.set_num_threads(threads)
        y = op.min_max_scale(x, axis=axis, out=memory[by : by + x.size].reshape(shape))
        assert y.tobytes() == want.tobytes(), f"{isa}, {threads} threads, out {by} elements off"


@every_dtype
@pytest.mark.parametrize(("shape", "axis"), [((0, 4), 0), ((4, 0), 0), ((4, 0), 1), ((0, 4), 1), ((0,), 0)])
def test_empty(shape, axis, any_dtype, each_isa):
    y = op.min_max_scale(np.empty(shape, any_dtype), axis=axis)
    assert (y.shape, y.dtype) == (shape, any_dtype)


@pytest.mark.parametrize("feature_range", RANGES, ids=str)
def test_scikit_learn_gives_the_same(feature_range, dtype):
    for name in ("N(0, 1)", "integers", "exp(3N)", "Cauchy"):
        for shape, axis in (((300, 24), 0), ((300, 24), 1), ((77,), 0)):
            x = data(name, dtype, shape)
            y = op.min_max_scale(x, axis=axis, feature_range=feature_range)
            theirs = minmax_scale(x, feature_range=feature_range, axis=axis)
            size = max(map(abs, feature_range))
            assert np.allclose(y, theirs, rtol=0, atol=32 * size * np.finfo(dtype).eps)


def test_scikit_learn_gives_constants_the_lower_end_too(dtype):
    x = np.tile(np.array([1.0, 2.0, 0.1], dtype), (5, 1))
    assert np.array_equal(op.min_max_scale(x), minmax_scale(x))


WRONG_RANGES = [
    (TypeError, None),
    (TypeError, 1.0),
    (TypeError, "01"),
    (TypeError, b"01"),
    (TypeError, {0: 0.0, 1: 1.0}),
    (TypeError, {0.0, 1.0}),
    (TypeError, ("0", 1.0)),
    (TypeError, (0.0, None)),
    (TypeError, (0.0, 1j)),
    (TypeError, ([0.0], 1.0)),
    (ValueError, ()),
    (ValueError, (1.0,)),
    (ValueError, (0.0, 0.5, 1.0)),
    (ValueError, np.array(1.0)),
    (ValueError, (1.0, 1.0)),
    (ValueError, (1.0, 0.0)),
    (ValueError, (-0.0, 0.0)),
    (ValueError, (0.0, float("nan"))),
    (ValueError, (float("nan"), 0.0)),
    (ValueError, (0.0, float("inf"))),
    (ValueError, (-float("inf"), 0.0)),
]


@pytest.mark.parametrize(("error", "feature_range"), WRONG_RANGES, ids=lambda value: repr(value))
def test_a_wrong_range(error, feature_range, dtype):
    x, out = data("N(0, 1)", dtype, (6, 4)), np.full((6, 4), 7, dtype)
    for given in (x, x[:0]):
        with pytest.raises(error, match=r"\bfeature_range\b.*expected"):
            op.min_max_scale(given, feature_range=feature_range, out=out[: len(given)])
    assert (out == 7).all()


@pytest.mark.parametrize(
    ("name", "feature_range"),
    [
        ("float32", (0.0, 1e39)),
        ("float32", (1.0, 1.0 + 1e-9)),
        ("float32", (0.0, 1e-60)),
        ("float32", (-2e38, 2e38)),
        ("float64", (-1e308, 1e308)),
        ("float16", (0.0, 7e4)),
        ("bfloat16", (0.0, 3.4e38)),
    ],
)
def test_a_range_that_the_dtype_does_not_hold(name, feature_range):
    x = data("N(0, 1)", np.dtype(getattr(ml_dtypes, name, name)), (6, 4))
    with pytest.raises(ValueError, match=r"\bfeature_range\b.*expected.*float"):
        op.min_max_scale(x, feature_range=feature_range)


def test_what_a_range_may_be(dtype):
    x = data("N(0, 1)", dtype, (6, 4))
    expected = op.min_max_scale(x, feature_range=(-1.0, 2.0))
    for like in ([-1, 2], (np.float32(-1), np.float64(2)), np.array([-1.0, 2.0]), range(-1, 3, 3)):
        assert np.array_equal(op.min_max_scale(x, feature_range=like), expected)
