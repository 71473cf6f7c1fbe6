"""float16 and bfloat16: computed in float32 and rounded once, the same bits everywhere.

A result is the float64 reference, correctly rounded, or one of its two neighbours in the 16-bit type. Where a result
cancels (x against the mean, or against bias) float32 may have fewer digits left than the 16-bit type shows: there the
error is at most float32's rounding of the largest result of the group, and such elements are few.
"""

import datasets
import ml_dtypes
import numpy as np
import pytest
import references as ref
from sixteen_bits import (
    BFLOAT16,
    F32,
    HALVES,
    batch_norm,
    inference,
    is_nan,
    layer_norm,
    rms_norm,
    standardize,
)

import onepass as op

CASES = [
    *[layer_norm(f"layer_norm of {d}", (9, d), (1,)) for d in (2, 3, 17, 128, 257, 1000, 4099)],
    layer_norm("layer_norm last two", (6, 7, 43), (1, 2)),
    layer_norm("layer_norm columns", (130, 37), (0,)),
    layer_norm("layer_norm channels", (3, 65, 4, 5), (1,)),
    layer_norm("layer_norm blocks", (9, 10, 11), (0, 2)),
    *[rms_norm(f"rms_norm of {d}", (9, d), (1,)) for d in (1, 3, 17, 128, 257, 1000, 4099)],
    rms_norm("rms_norm columns", (130, 37), (0,)),
    rms_norm("rms_norm channels", (3, 65, 4, 5), (1,)),
    *[
        make(f"{name} {layout}", shape, axis)
        for make, name in ((batch_norm, "batch_norm training"), (inference, "batch_norm inference"))
        for layout, shape, axis in (
            ("of features", (300, 37), 1),
            ("of narrow features", (1001, 3), 1),
            ("channels first", (5, 6, 11, 13), 1),
            ("channels last", (5, 11, 13, 19), -1),
            ("of short channels", (50, 20, 3), 1),
        )
    ],
    standardize("standardize columns", (300, 37), (0,)),
    standardize("standardize rows", (9, 300), (1,)),
    standardize("standardize blocks", (9, 10, 11), (0, 2)),
]

DATA = {
    "N(0, 1)": lambda n: n,
    "N(100, 1)": lambda n: 100 + n,
    "exp(N)": np.exp,
    "1e-6 N": lambda n: 1e-6 * n,
}

CANCELLED = 0.01  # at most this share of the elements


def assert_rounded_or_a_neighbour(y, y_ref, axes, how=""):
    far = ref.steps(y, y_ref) > 1
    largest = np.abs(y_ref).max(axes, keepdims=True, initial=0)
    error = np.abs(ref.wide(y) - y_ref) / np.where(largest == 0, 1, largest)
    cancelled = error <= np.finfo(F32).eps / 2
    assert not (far & ~cancelled).any(), f"{np.argwhere(far & ~cancelled)[:5]}: {how}"
    assert np.count_nonzero(far) <= CANCELLED * y.size, how


each_case = pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)


def data(name, case, dtype):
    """Groups that are not constant in the 16-bit type."""
    x = DATA[name](np.random.default_rng(2).standard_normal(case.shape)).astype(dtype)
    flat = np.moveaxis(x, case.axes, range(len(case.axes)))
    flat[(0,) * len(case.axes)] = DATA[name](np.float64(2.5))
    if flat.shape[0] > 1:
        flat[(1,) + (0,) * (len(case.axes) - 1)] = DATA[name](np.float64(-1.5))
    return x


@each_case
@pytest.mark.parametrize("name", DATA)
def test_rounded_or_a_neighbour(case, name, half, each_isa):
    x = data(name, case, half)
    for eps in (1e-5, 0.0):
        for dtype in (half, np.dtype(F32)):
            for weight, bias in case.parameters(dtype):
                y = case.run(x, weight, bias, eps)
                assert (y.shape, y.dtype, y.flags.c_contiguous) == (x.shape, half, True)
                y_ref = case.reference(x, weight, bias, eps)
                assert_rounded_or_a_neighbour(y, y_ref, case.axes, (eps, weight is not None, dtype))


def test_the_reference_rounds_as_numpy_does():
    values = np.arange(65536, dtype=np.uint16)
    for dtype in HALVES:
        x = values.view(dtype)
        x = x[~is_nan(x)].astype(np.float64)
        assert np.array_equal(ref.rounded(x, dtype), x)
    rng = np.random.default_rng(0)
    y = np.ldexp(rng.standard_normal(10_000), rng.integers(-30, 18, 10_000))
    with np.errstate(over="ignore"):
        assert np.array_equal(ref.rounded(y, np.float16), y.astype(np.float16))
        y = y.astype(F32)
        assert np.array_equal(ref.rounded(y, BFLOAT16), y.astype(BFLOAT16))


def test_statistics_are_float32(half, each_isa):
    for name in DATA:
        for shape, axis in (((9, 300), 1), ((300, 37), 0)):
            x = DATA[name](np.random.default_rng(0).standard_normal(shape)).astype(half)
            _, mean_ref, rstd_ref = ref.layer_norm(x, axis=axis)
            y, mean, rstd = op.layer_norm(x, axis=axis, return_stats=True)
            results = [(y, mean, rstd), op.batch_norm(x, axis=1 - axis, training=True, return_stats=True)]
            for y, mean, rstd in results:
                assert (y.dtype, mean.dtype, rstd.dtype) == (half, F32, F32)
                assert mean.shape == rstd.shape == mean_ref.shape
                assert ref.mean_units(mean, x, axis, F32) <= 8, name
                assert ref.relative_units(rstd, rstd_ref, F32) <= 8, name
            _, rstd = op.rms_norm(x, axis=axis, eps=1e-5, return_stats=True)
            assert rstd.dtype == F32
            assert ref.relative_units(rstd, ref.rms_norm(x, axis=axis, eps=1e-5)[1], F32) <= 8, name


def test_running_statistics_are_float32(half):
    x = (3 + np.random.default_rng(0).standard_normal((40, 6))).astype(half)
    mean, var = np.zeros(6, F32), np.ones(6, F32)
    mean_ref, var_ref = ref.running_statistics(x, mean, var)
    op.batch_norm(x, running_mean=mean, running_var=var, training=True)
    np.testing.assert_allclose(mean, mean_ref, rtol=4e-7)
    np.testing.assert_allclose(var, var_ref, rtol=4e-7)
    for name in ("running_mean", "running_var"):
        for wrong in (half, np.float64):
            running = {"running_mean": mean, "running_var": var} | {name: np.ones(6, wrong)}
            with pytest.raises(TypeError, match=rf"\b{name}\b.*\b{np.dtype(wrong).name}\b.*\bfloat32\b"):
                op.batch_norm(x, **running)


def test_moments(half, each_isa):
    for name in DATA:
        x = DATA[name](np.random.default_rng(0).standard_normal((3000, 7))).astype(half)
        for axis in (0, 1, (0, 1)):
            m = op.moments(x, axis)
            count, mean_ref, m2_ref = ref.moments(x, axis)
            assert m.count == count
            assert np.asarray(m.mean).dtype == np.asarray(m.m2).dtype == np.float64
            assert ref.mean_units(m.mean, x, axis, F32) <= 8, (name, axis)
            assert ref.relative_units(m.m2, m2_ref, F32) <= 8, (name, axis)
            assert np.shape(m.mean) == np.shape(mean_ref)
            y, of_x = op.standardize(x, axis=axis, return_moments=True)
            assert y.dtype == half
            assert of_x == m


def test_eps_none_is_float32s(half):
    x = (1e-3 * np.random.default_rng(0).standard_normal((4, 50))).astype(half)
    assert op.rms_norm(x).tobytes() == op.rms_norm(x, eps=float(np.finfo(F32).eps)).tobytes()
    assert op.rms_norm(x).tobytes() != op.rms_norm(x, eps=0).tobytes()


ACCEPTING = {
    "layer_norm": op.layer_norm,
    "rms_norm": op.rms_norm,
    "batch_norm": lambda x, *args, **kwargs: op.batch_norm(x, *args, training=True, **kwargs),
    "add_layer_norm": lambda x, *args, **kwargs: op.add_layer_norm(x, x[::-1], *args, **kwargs)[0],
    "add_rms_norm": lambda x, *args, **kwargs: op.add_rms_norm(x, x[::-1], *args, **kwargs)[0],
}


@pytest.mark.parametrize("norm", ACCEPTING)
def test_dtypes_of_weights(norm, half):
    run = ACCEPTING[norm]
    x = np.random.default_rng(0).standard_normal((6, 5)).astype(half)
    weight = np.array([0.5, 2, -1, 1.5, 3], F32)
    names = ["weight"] if "rms" in norm else ["weight", "bias"]
    for name in names:
        plain = run(x, **{name: weight})
        assert run(x, **{name: weight.astype(half)}).tobytes() == plain.tobytes()
        assert run(x, **{name: np.repeat(weight, 2)[::2].astype(half)}).tobytes() == plain.tobytes()
        other = next(dtype for dtype in HALVES if dtype != half)
        for wrong in (np.float64, other, np.int16):
            out = np.full_like(x, 7)
            with pytest.raises(TypeError, match=rf"\b{name}\b.*\b{np.dtype(wrong).name}\b.*\b{half.name}\b"):
                run(x, out=out, **{name: weight.astype(wrong)})
            assert (out == 7).all()
        with pytest.raises(TypeError, match=rf"\b{name}\b.*\b{half.name}\b.*\bfloat32\b"):
            run(x.astype(F32), **{name: weight.astype(half)})
    if len(names) == 2:  # either may be float32 beside the other
        mixed = run(x, weight.astype(half), weight)
        assert mixed.tobytes() == run(x, weight, weight.astype(half)).tobytes()
    for wrong in (F32, np.float64, next(dtype for dtype in HALVES if dtype != half)):
        with pytest.raises(TypeError, match=r"\bout\b"):
            run(x, out=np.empty(x.shape, wrong))


@pytest.mark.parametrize("norm", ACCEPTING)
def test_byte_order(norm, half):
    x = np.ones((6, 5), half)
    swapped = np.ones((6, 5), np.uint16).view(half.newbyteorder())
    with pytest.raises(TypeError, match=r"\bx\b.*\bbyte order\b"):
        ACCEPTING[norm](swapped)
    with pytest.raises(TypeError, match=r"\bweight\b.*\bbyte order\b"):
        ACCEPTING[norm](x, swapped[0])
    with pytest.raises(TypeError, match=r"\bout\b.*\bbyte order\b"):
        ACCEPTING[norm](x, out=swapped)


@pytest.mark.parametrize("other", ["float8_e4m3fn", "float8_e5m2", "int4"])
def test_other_types_of_ml_dtypes(other):
    x = np.ones((6, 5), getattr(ml_dtypes, other))
    for run in (*ACCEPTING.values(), op.moments, op.standardize, op.min_max_scale):
        with pytest.raises(TypeError, match=rf"\bx\b.*\b{other}\b"):
            run(x)


def test_subnormal_halves(half, each_isa):
    """The least numbers of the type are normalized like others."""
    rng = np.random.default_rng(0)
    for d in (2, 17, 129, 1000):
        bits = (rng.integers(0, 128, (5, d)) + 32768 * rng.integers(0, 2, (5, d))).astype(np.uint16)
        bits[:, :2] = 3, 32768 + 5
        x = bits.view(half)
        assert (ref.steps(op.layer_norm(x, eps=0.0), ref.layer_norm(x, eps=0.0)[0]) <= 1).all(), d
        assert (ref.steps(op.rms_norm(x, eps=0.0), ref.rms_norm(x)[0]) <= 1).all(), d
        columns = np.ascontiguousarray(x.T)
        assert (ref.steps(op.standardize(columns), ref.standardize(columns)) <= 1).all(), d
        y = op.batch_norm(columns, training=True, eps=0.0)
        assert (ref.steps(y, ref.batch_norm(columns, eps=0.0)[0]) <= 1).all(), d
        y, total = op.add_rms_norm(x, x[::-1], eps=0.0)
        exact = ref.wide(x) + ref.wide(x[::-1])
        assert np.array_equal(total, ref.rounded(exact, half)), d
    # Results that are subnormal: y = weight * sign.
    x = np.ones((3, 40), half)
    weight = np.ldexp(np.arange(1, 41), -24 if half == np.float16 else -133).astype(half)
    assert np.array_equal(op.rms_norm(x, weight, eps=0.0), np.tile(weight, (3, 1)))


def test_constant_and_zero_groups(half, each_isa):
    for d in datasets.LENGTHS:
        weight, bias = (p.astype(half) for p in datasets.weight_and_bias(F32, d))
        x = np.repeat(np.array([0.0, 1.0, 3.14, 6e4, 1e-7], half)[:, None], d, axis=1)
        for eps in (1e-5, 0.0):
            assert np.array_equal(op.layer_norm(x, weight, bias, eps=eps), np.tile(bias, (len(x), 1))), d
            assert not op.standardize(x, axis=1, eps=eps).any(), d
            columns = np.ascontiguousarray(x.T)
            y = op.batch_norm(columns, bias=x[:, 0].astype(F32), training=True, eps=eps)
            assert np.array_equal(y, columns), d
            assert not op.rms_norm(x * 0, weight, eps=eps).any(), d


def test_the_largest_numbers(half, each_isa):
    for d in (2, 17, 1000):
        x = (np.random.default_rng(0).uniform(-1, 1, (3, d)) * float(ml_dtypes.finfo(half).max)).astype(half)
        for y, y_ref in ((op.layer_norm(x), ref.layer_norm(x)[0]), (op.rms_norm(x), ref.rms_norm(x)[0])):
            # Where x - mean cancels, a step of y is smaller than the arithmetic's unit (as in test_digits).
            cancels = np.abs(y.astype(np.float64) - y_ref) <= np.finfo(F32).eps / 2 * np.abs(y_ref).max()
            assert ((ref.steps(y, y_ref) <= 1) | cancels).all(), d
            assert (ref.steps(y, y_ref) <= 1).mean() >= 0.99, d
