"""add_layer_norm and add_rms_norm: the sum rounded once, and the plain norm of it, to the bit."""

import datasets
import ml_dtypes
import numpy as np
import pytest
import references as ref
from layouts import AXES, normalized_shape, strided

import onepass as op

BFLOAT16 = np.dtype(ml_dtypes.bfloat16)
LAYOUTS = [
    ((9, 37), -1),
    ((35, 70), -1),
    ((9, 37), 0),
    ((3, 5, 16), (1, 2)),
    ((3, 5, 16), 1),
    ((3, 5, 16), (0, 2)),
]


@pytest.fixture(params=[np.float32, np.float64, np.float16, BFLOAT16], ids=lambda d: np.dtype(d).name)
def dtype(request):
    return np.dtype(request.param)


class AddNorm:
    """One of the two functions, beside the plain norm."""

    def __init__(self, add, plain, reference, parameters):
        self.add, self.plain, self.reference, self.parameters = add, plain, reference, parameters

    def affine(self, dtype, shape):
        return tuple(p.astype(dtype) for p in datasets.weight_and_bias(np.float32, shape)[: self.parameters])


NORMS = {
    "add_layer_norm": AddNorm(op.add_layer_norm, op.layer_norm, ref.layer_norm, 2),
    "add_rms_norm": AddNorm(op.add_rms_norm, op.rms_norm, ref.rms_norm, 1),
}
each_norm = pytest.mark.parametrize("norm", NORMS.values(), ids=NORMS)


def addends(dtype, shape, seed=0):
    """Numbers of which few sums are representable, some of them cancelling."""
    rng = np.random.default_rng(seed)
    x = (rng.standard_normal(shape) * np.exp(rng.standard_normal(shape))).astype(dtype)
    residual = (1.5 * rng.standard_normal(shape)).astype(dtype)
    return x, residual


def sum_of(x, residual):
    """The sum, rounded once."""
    total = ref.wide(x) + ref.wide(residual)
    return ref.rounded(total, x.dtype) if x.dtype.itemsize == 2 else total.astype(x.dtype)


def assert_bits(got, want, how=""):
    for i, (a, b) in enumerate(zip(got, want, strict=True)):
        assert (a.shape, a.dtype) == (b.shape, b.dtype), (i, how)
        assert a.tobytes() == b.tobytes(), (i, how)


@each_norm
def test_the_sum_and_its_plain_norm(norm, dtype, each_isa):
    for d in datasets.LENGTHS + datasets.LONG_LENGTHS:
        x, residual = addends(dtype, (3, d), seed=d)
        total = sum_of(x, residual)
        for given in ((), norm.affine(dtype, d), (norm.affine(dtype, d)[0],)):
            for eps in ({}, {"eps": 0.25}):
                result = norm.add(x, residual, *given, **eps)
                assert isinstance(result, tuple)
                assert all(a.flags.c_contiguous for a in result)
                assert_bits(result, (norm.plain(total, *given, **eps), total), (d, len(given), eps))


@each_norm
def test_the_sum_is_rounded_before_it_is_normalized(norm, dtype):
    # 1 and less than half a unit: a sum that is kept unrounded is no constant row.
    x = np.ones((2, 64), dtype)
    residual = np.zeros((2, 64), dtype)
    residual[:, ::2] = 2.0 ** -{2: 12, 4: 25, 8: 54}[dtype.itemsize]
    y, total = norm.add(x, residual, eps=0.0)
    assert np.array_equal(total, x)
    assert_bits([y], [norm.plain(x, eps=0.0)])


@each_norm
@pytest.mark.parametrize("wide_dtype", [np.float32, np.float64])
def test_extremes(norm, wide_dtype, each_isa):
    info = np.finfo(wide_dtype)
    for scale in (1e20, 1e-20, info.smallest_subnormal * 999, info.max / 99):
        x, residual = (a * wide_dtype(scale) for a in addends(wide_dtype, (4, 129)))
        total = x + residual
        assert_bits(norm.add(x, residual, eps=0.0), (norm.plain(total, eps=0.0), total), scale)


@each_norm
def test_nan_and_infinity_stay_in_their_row(norm, dtype, each_isa):
    x, residual = addends(dtype, (5, 129))
    expected = norm.add(x, residual)
    for place in (0, 1):
        for bad in (np.nan, np.inf):
            pair = [x.copy(), residual.copy()]
            pair[place][2, 77] = bad
            y, total = norm.add(*pair)
            assert np.isnan(y[2, 77])
            assert not np.isfinite(total[2, 77])
            assert_bits([np.delete(a, 2, 0) for a in (y, total)], [np.delete(a, 2, 0) for a in expected])


@each_norm
@pytest.mark.parametrize(("shape", "axis"), AXES)
def test_axes(norm, shape, axis, dtype, each_isa):
    x, residual = addends(dtype, shape)
    total = sum_of(x, residual)
    given = norm.affine(dtype, normalized_shape(shape, axis))
    y, added = norm.add(x, residual, *given, axis=axis, eps=1e-3)
    assert_bits([added], [total])
    y_ref = norm.reference(total, *given, axis=axis, eps=1e-3)[0]
    if dtype.itemsize > 2:
        assert ref.units(y, y_ref, ref.axes_of(axis, x.ndim)) <= 8
    else:
        assert (ref.steps(y, y_ref) <= 1).all()


@each_norm
@pytest.mark.parametrize(("shape", "axis"), AXES)
def test_axes_give_the_bits_of_the_plain_norm(norm, shape, axis, dtype):
    x, residual = addends(dtype, shape)
    total = sum_of(x, residual)
    given = norm.affine(dtype, normalized_shape(shape, axis))
    for isa in op.available_isas():
        op.use_isa(isa)
        result = norm.add(x, residual, *given, axis=axis)
        assert_bits(result, (norm.plain(total, *given, axis=axis), total), isa)


@each_norm
@pytest.mark.parametrize("cols", [15, 16, 61, 128, 200, 384, 511, 513])
def test_narrow_rows_give_the_bits_of_the_plain_norm(norm, cols, dtype):
    """Rows that are joined side by side, some of them in need of another range, and those left over."""
    x, residual = addends(dtype, (50, cols))
    residual[[3, 20]] = 0
    if dtype != np.float16:
        x[3] = (ref.wide(x[3]) * 2.0**110).astype(dtype)
    total = sum_of(x, residual)
    given = norm.affine(dtype, cols)
    want = norm.plain(total, *given), total
    for isa in op.available_isas():
        op.use_isa(isa)
        assert_bits(norm.add(x, residual, *given), want, isa)


def copies(x):
    return (("contiguous", x.copy()), *strided(x))


@each_norm
@pytest.mark.parametrize(("shape", "axis"), LAYOUTS)
def test_strides(norm, shape, axis, dtype):
    x, residual = addends(dtype, shape)
    kept = x.copy(), residual.copy()
    given = norm.affine(dtype, normalized_shape(shape, axis))
    expected = norm.add(x, residual, *given, axis=axis)
    empty = np.full(shape, 7, dtype)
    for name, view in copies(x):
        assert_bits(norm.add(view, residual, *given, axis=axis), expected, f"x {name}")
        assert_bits(norm.add(view, dict(copies(residual))[name], *given, axis=axis), expected, f"both {name}")
    for name, view in copies(residual):
        assert_bits(norm.add(x, view, *given, axis=axis), expected, f"residual {name}")
    for (name, out), (_, sum_out) in zip(copies(empty), reversed([*copies(empty)]), strict=True):
        for give in ({"out": out}, {"sum_out": sum_out}, {"out": out, "sum_out": sum_out}):
            result = norm.add(x, residual, *given, axis=axis, **give)
            assert_bits(result, expected, f"{name}: {list(give)}")
            assert result[0] is out or "out" not in give
            assert result[1] is sum_out or "sum_out" not in give
    assert_bits((x, residual), kept)


@each_norm
@pytest.mark.parametrize(("shape", "axis"), [*LAYOUTS, ((3, 5003), -1), ((500, 129), -1)])
def test_in_place(norm, shape, axis, dtype):
    x, residual = addends(dtype, shape)
    given = norm.affine(dtype, normalized_shape(shape, axis))
    expected = norm.add(x, residual, *given, axis=axis)
    for (name, a), (_, b) in zip(copies(x), copies(residual), strict=True):
        for give in (
            {"out": a},
            {"sum_out": a},
            {"sum_out": b},
            {"out": a, "sum_out": b},
        ):
            a[...], b[...] = x, residual
            assert_bits(norm.add(a, b, *given, axis=axis, **give), expected, f"{name}: {list(give)}")
            written = [array is value for array in (a, b) for value in give.values()]
            assert any(written)
            if not any(array is a for array in give.values()):
                assert np.array_equal(a, x), name
            if not any(array is b for array in give.values()):
                assert np.array_equal(b, residual), name


@each_norm
def test_x_is_its_own_residual(norm, dtype):
    x, _ = addends(dtype, (5, 37))
    total = x + x
    for give in ({}, {"sum_out": x}):
        assert_bits(norm.add(x, x, **give), (norm.plain(total), total))
    assert_bits([x], [total])


@each_norm
def test_a_row_is_its_own_residual_for_every_row(norm, dtype):
    x, residual = addends(dtype, (6, 37))
    row = np.broadcast_to(residual[0], x.shape)
    assert_bits(norm.add(x, row), norm.add(x, row.copy()))


@each_norm
@pytest.mark.parametrize("by", [0, 1, 5])
def test_misaligned(norm, dtype, by):
    x, residual = addends(dtype, (40, 257))
    expected = norm.add(x, residual)
    memory = [np.zeros(x.size + 8, dtype)[by : by + x.size].reshape(x.shape) for _ in range(4)]
    for isa in op.available_isas():
        op.use_isa(isa)
        memory[0][...], memory[1][...] = x, residual
        assert_bits(norm.add(*memory[:2], out=memory[2], sum_out=memory[3]), expected, isa)


@each_norm
def test_threads(norm, dtype, each_threads):
    x, residual = addends(dtype, (2500, 257))
    given = norm.affine(dtype, 257)
    total = sum_of(x, residual)
    with op.num_threads(1):
        y = norm.plain(total, *given)
    assert_bits(norm.add(x, residual, *given), (y, total))


@each_norm
@pytest.mark.parametrize("shape", [(0,), (0, 5), (5, 0), (2, 0, 3)])
def test_empty(norm, shape, dtype):
    x = np.empty(shape, dtype)
    out, sum_out = np.empty(shape, dtype), np.empty(shape, dtype)
    for result in (norm.add(x, x.copy()), norm.add(x, x.copy(), out=out, sum_out=sum_out)):
        assert [(a.shape, a.dtype) for a in result] == 2 * [(shape, dtype)]
    assert result[0] is out
    assert result[1] is sum_out


@each_norm
def test_larger_than_the_caches(norm):
    """Results that are written past the caches, or not because one of them is in place."""
    for dtype, d in ((np.float32, 1151), (BFLOAT16, 2303), (np.float32, 61), (BFLOAT16, 125)):
        times = 22 * 1151 * 4 // (d * np.dtype(dtype).itemsize)
        block = addends(dtype, (409, d))
        given = norm.affine(dtype, d)
        total = sum_of(*(a.astype(dtype) for a in block))
        y = norm.plain(total, *given)
        x, residual = (np.tile(a, (times, 1)) for a in block)
        rows, size = x.shape[0], x.size
        memory = [np.empty(size + 16, dtype) for _ in range(2)]
        for isa, threads, by, in_place in (
            ("baseline", 2, 1, ()),
            (op.available_isas()[-2], 1, 5, ()),
            (op.available_isas()[-1], 2, 3, ("sum_out",)),
            (op.available_isas()[-1], 2, 0, ("out",)),
        ):
            op.use_isa(isa)
            op.set_num_threads(threads)
            out, sum_out = (m[by : by + size].reshape(rows, d) for m in memory)
            here = residual.copy() if "sum_out" in in_place else residual
            there = x.copy() if "out" in in_place else x
            give = {
                "out": there if "out" in in_place else out,
                "sum_out": here if "sum_out" in in_place else sum_out,
            }
            for got, want in zip(norm.add(there, here, *given, **give), (y, total), strict=True):
                got = got.reshape(times, 409, d).view(f"u{got.itemsize}")
                assert (got == want.view(f"u{want.itemsize}")).all(), (dtype, isa, in_place)


@each_norm
def test_overlaps(norm, dtype):
    x, residual = addends(dtype, (6, 4))
    buffer = np.zeros(60, dtype)

    def window(start):
        return buffer[start : start + 24].reshape(6, 4)

    def refused(match, a, b, **results):
        before = buffer.copy()
        with pytest.raises(ValueError, match=match):
            norm.add(a, b, **results)
        assert_bits([buffer], [before])

    window(0)[...], window(30)[...] = x, residual
    refused(r"\bsum_out\b.*\bout\b", x, residual, out=window(0), sum_out=window(0))
    refused(r"\bsum_out\b.*\bout\b", x, residual, out=window(0), sum_out=window(5))
    refused(r"\bsum_out\b.*\bout\b", window(0), residual, out=window(0), sum_out=window(0))
    refused(r"\bsum_out\b.*\b(x|out)\b", window(0), window(30), out=window(0), sum_out=window(23))
    for start in (30, 29, 36, 7):
        refused(r"\bout\b.*\bresidual\b", x, window(30), out=window(start))
    for start in (29, 31, 36):
        refused(r"\bsum_out\b.*\bresidual\b", x, window(30), sum_out=window(start))
    for start in (1, 23):
        refused(r"\bout\b.*\bx\b", window(0), residual, out=window(start))
        refused(r"\bsum_out\b.*\bx\b", window(0), residual, sum_out=window(start))
    refused(r"\bsum_out\b.*\bresidual\b", x, window(30), sum_out=window(30)[::-1])
    refused(r"\bsum_out\b.*\bx\b", window(0), window(1), sum_out=window(1))
    for name in ("weight", "bias")[: norm.parameters]:
        for result in ("out", "sum_out"):
            refused(rf"\b{result}\b.*\b{name}\b", x, residual, **{name: buffer[3:7], result: window(0)})
    # Between each other's elements they are apart.
    buffer = np.zeros(48, dtype)
    halves = {"out": buffer[::2].reshape(6, 4), "sum_out": buffer[1::2].reshape(6, 4)}
    assert_bits(norm.add(x, residual, **halves), norm.add(x, residual))


@each_norm
def test_residual(norm, dtype):
    x, residual = addends(dtype, (6, 4))
    out, sum_out = np.full((2, 6, 4), 7, dtype)
    other = np.float64 if dtype == np.float32 else np.float32
    for error, wrong in (
        (TypeError, None),
        (TypeError, [[1.0] * 4] * 6),
        (TypeError, 1.0),
        (TypeError, residual.astype(other)),
        (TypeError, np.ones((6, 4), int)),
        (TypeError, np.ma.masked_array(np.ones((6, 4), np.float32))),
        (ValueError, residual[:5]),
        (ValueError, residual[0]),
        (ValueError, residual.T),
        (ValueError, residual[None]),
        (ValueError, residual[:1]),
        (ValueError, residual[:, :1]),
    ):
        with pytest.raises(error, match=r"\bresidual\b"):
            norm.add(x, wrong, out=out, sum_out=sum_out)
        assert (out == 7).all()
        assert (sum_out == 7).all()
    with pytest.raises(TypeError, match=r"\bresidual\b"):
        norm.add(x)


@each_norm
def test_sum_out(norm, dtype):
    x, residual = addends(dtype, (6, 4))
    read_only = np.full((6, 4), 7, dtype)
    read_only.flags.writeable = False
    out = np.full((6, 4), 7, dtype)
    for error, wrong in (
        (TypeError, [[0.0] * 4] * 6),
        (TypeError, 1.0),
        (TypeError, np.full((6, 4), 7, np.float64 if dtype == np.float32 else np.float32)),
        (ValueError, np.full((6, 5), 7, dtype)),
        (ValueError, np.full((4, 6), 7, dtype)),
        (ValueError, np.full(24, 7, dtype)),
        (ValueError, read_only),
        (ValueError, np.broadcast_to(np.full(4, 7, dtype), (6, 4))),
    ):
        with pytest.raises(error, match=r"\bsum_out\b"):
            norm.add(x, residual, out=out, sum_out=wrong)
        assert (out == 7).all()
        assert not isinstance(wrong, np.ndarray) or (wrong == 7).all()
