"""layer_norm_backward and rms_norm_backward: digits, closed forms, differences, ranges, layouts, errors."""

import dataclasses
from collections.abc import Callable

import datasets
import ml_dtypes
import numpy as np
import pytest
import references as ref
from layouts import AXES, normalized_shape, strided

import onepass as op

UNITS = 16
WIDTHS = (1, 2, 15, 16, 17, 127, 129, 1000, 5003, 20001)


@dataclasses.dataclass(frozen=True)
class Norm:
    """A norm, its gradients and their reference, which gives the terms of dx behind them."""

    forward: Callable
    backward: Callable
    reference: Callable
    names: tuple[str, ...]

    def check(self, dy, x, weight=None, axis=-1, eps=1e-5, dx_alone=False):
        """Every gradient within UNITS: dx of the terms it is a difference of, and in rows that leave it many of its own."""
        got = self.backward(dy, x, weight, axis=axis, eps=eps)
        *want, terms = self.reference(dy, x, weight, axis, eps)
        axes = ref.axes_of(axis, x.ndim)
        assert (got[0].shape, got[0].dtype, got[0].flags.c_contiguous) == (x.shape, x.dtype, True)
        assert ref.units(got[0], want[0], axes, terms) <= UNITS, "dx"
        if np.prod([x.shape[a] for a in axes]) >= 15 and not dx_alone:
            assert ref.units(got[0], want[0], axes) <= UNITS, "dx"
        for name, sums, sums_ref in zip(("dweight", "dbias"), got[1:], want[1:], strict=False):
            assert (sums.shape, sums.dtype) == (sums_ref.shape, x.dtype), name
            assert dx_alone or ref.units(sums, sums_ref, None) <= UNITS, name
        return got


NORMS = {
    "layer_norm": Norm(
        op.layer_norm, op.layer_norm_backward, ref.layer_norm_backward, ("dx", "dweight", "dbias")
    ),
    "rms_norm": Norm(op.rms_norm, op.rms_norm_backward, ref.rms_norm_backward, ("dx", "dweight")),
}


@pytest.fixture(params=NORMS.values(), ids=NORMS)
def norm(request):
    return request.param


def problem(dtype, shape, axis=-1, seed=0):
    """dy, x and a weight; dy has a share of 1 and of x, or sums over many rows would be as good as 0."""
    rng = np.random.default_rng(seed)
    weight, _ = datasets.weight_and_bias(dtype, normalized_shape(shape, axis))
    dy, x = rng.standard_normal((2, *shape))
    return (dy + x / 2 + 0.5).astype(dtype), x.astype(dtype), weight


@pytest.mark.parametrize("d", WIDTHS)
def test_digits_of_widths(norm, d, dtype, each_isa):
    for rows in (1, 3, 65):
        dy, x, weight = problem(dtype, (rows, d), seed=d)
        for w in (None, weight):
            norm.check(dy, x, w)


@pytest.mark.parametrize("rows", [2, 7, 8, 9, 255, 256, 257, 300, 2047, 2048, 2049, 5000])
def test_digits_of_many_rows(norm, rows, dtype, each_isa):
    for d in (1, 16, 129):
        norm.check(*problem(dtype, (rows, d), seed=rows))


def test_threads(norm, dtype, each_threads):
    for shape in ((2500, 257), (3, 100_003), (70_001, 5)):
        norm.check(*problem(dtype, shape))


@pytest.mark.parametrize("name", datasets.HARD)
def test_digits_of_hard_data(norm, name, dtype, each_isa):
    for d in (15, 129, 1000, 5003):
        x = datasets.hard(name, dtype, (5, d), seed=d)
        dy, _, weight = problem(dtype, x.shape)
        for eps in (1e-5, 0.0):
            # Of one sign, so that a column of outliers does not cancel.
            got = norm.check(np.abs(dy), x, weight, eps=eps, dx_alone=True)
            want = norm.reference(np.abs(dy), x, weight, -1, eps)
            assert ref.units(got[1], want[1], None) <= UNITS


def test_differences(norm):
    """Central differences of the forward pass in float64, element by element."""
    for shape, axis in (((3, 7), -1), ((2, 3, 4), (1, 2)), ((4, 5), 0)):
        dy, x, weight = problem(np.float64, shape, axis)
        arguments = {"dx": x, "dweight": weight, "dbias": np.zeros_like(weight)}
        got = norm.backward(dy, x, weight, axis=axis, eps=0.1)
        for name, gradient in zip(norm.names, got, strict=True):
            for i in np.ndindex(gradient.shape):
                ends = []
                for step in (1e-5, -1e-5):
                    moved = {k: v.copy() for k, v in arguments.items()}
                    moved[name][i] += step
                    bias = (moved["dbias"],) if "dbias" in norm.names else ()
                    y = norm.forward(moved["dx"], moved["dweight"], *bias, axis=axis, eps=0.1)
                    ends.append((dy * y).sum())
                assert gradient[i] == pytest.approx((ends[0] - ends[1]) / 2e-5, abs=1e-8), (name, i)


def test_closed_form_of_two(dtype):
    """With a = (x0 - x1) / 2, y is (a, -a) / sqrt(a^2 + eps), and the derivative of that eps / (a^2 + eps)^(3/2)."""
    dy, x, _ = problem(dtype, (50, 2))
    x += 100
    a = (ref.wide(x[:, 0]) - x[:, 1]) / 2
    slope = (ref.wide(dy[:, 0]) - dy[:, 1]) / 2 / (a**2 + 1) ** 1.5
    dx, dweight, dbias = op.layer_norm_backward(dy, x, eps=1.0)
    assert ref.units(dx, np.stack([slope, -slope], 1), None) <= UNITS
    assert ref.units(dweight, ((a / np.sqrt(a**2 + 1))[:, None] * [1, -1] * dy).sum(0), None) <= UNITS
    assert ref.units(dbias, ref.wide(dy).sum(0), None) <= UNITS


def test_closed_form_of_one(dtype):
    dy, x, weight = problem(dtype, (50, 1))
    squares = ref.wide(x) ** 2 + 1
    dx, dweight = op.rms_norm_backward(dy, x, weight, eps=1.0)
    assert ref.units(dx, dy * ref.wide(weight) / squares**1.5, None) <= UNITS
    assert ref.units(dweight, (dy * x / np.sqrt(squares)).sum(0), None) <= UNITS
    dx, dweight, dbias = op.layer_norm_backward(dy, x, weight)
    assert not dx.any()
    assert not dweight.any()
    assert ref.units(dbias, ref.wide(dy).sum(0), None) <= UNITS


def test_what_the_norm_takes_away_has_no_gradient():
    """Moving a whole row, or (eps = 0) stretching it, leaves y as it is: dx is orthogonal to both."""
    dy, x, weight = problem(np.float64, (20, 257))
    dx = op.layer_norm_backward(dy, x, weight, eps=0.0)[0]
    assert np.abs(dx.sum(1)).max() < 1e-12
    assert np.abs((dx * x).sum(1)).max() < 1e-12
    assert np.abs((op.rms_norm_backward(dy, x, weight, eps=0.0)[0] * x).sum(1)).max() < 1e-12


def test_torch_agrees():
    torch = pytest.importorskip("torch")
    dy, x, weight = problem(np.float64, (37, 100))
    tensors = [torch.tensor(a, requires_grad=True) for a in (x, weight, np.zeros_like(weight))]
    torch.nn.functional.layer_norm(tensors[0], (100,), *tensors[1:], 1e-5).backward(torch.tensor(dy))
    for got, tensor in zip(op.layer_norm_backward(dy, x, weight), tensors, strict=True):
        np.testing.assert_allclose(got, tensor.grad, rtol=1e-12, atol=1e-12)
    tensors = [torch.tensor(a, requires_grad=True) for a in (x, weight)]
    torch.nn.functional.rms_norm(tensors[0], (100,), tensors[1], 1e-6).backward(torch.tensor(dy))
    for got, tensor in zip(op.rms_norm_backward(dy, x, weight, eps=1e-6), tensors, strict=True):
        np.testing.assert_allclose(got, tensor.grad, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("power", [100, 66, -83, -100, -140])
def test_rows_of_any_size(norm, power, dtype, each_isa):
    """Also where 1 / deviation is more than the type holds, as long as its product with dy is not."""
    if dtype == np.float64:
        power *= 7
    for d in (3, 64, 129, 1000, 4097):
        dy, x, weight = problem(dtype, (4, d))
        plain = norm.backward(dy, x, weight, eps=0.0)[0]
        with np.errstate(under="ignore"):
            x[2] = np.ldexp(x[2], power)
            dy[2] = np.ldexp(dy[2], -110 if power == -140 else 0)
        dx = norm.check(dy, x, weight, eps=0.0, dx_alone=True)[0]
        assert np.isfinite(dx).all()
        assert np.array_equal(np.delete(dx, 2, 0), np.delete(plain, 2, 0))


@pytest.mark.parametrize(("of_x", "of_dy"), [(-30, -110), (-45, -95), (-45, -85), (40, 105)])
@pytest.mark.parametrize("width", [16, 129, 1000, 4097])
def test_products_beyond_the_range(norm, width, of_x, of_dy, dtype, each_isa):
    """x and dy are well within it, but dy * (x - mean), from which c2 is, loses digits below it, or all of them."""
    if dtype == np.float64:
        of_x, of_dy = 8 * of_x, 8 * of_dy
    dy, x, weight = problem(dtype, (20, width))
    plain = norm.backward(dy, x, weight, eps=0.0)[0]
    x[::3], dy[::3] = np.ldexp(x[::3], of_x), np.ldexp(dy[::3] + 2 * problem(dtype, x[::3].shape)[1], of_dy)
    dx = norm.check(dy, x, weight, eps=0.0, dx_alone=True)[0]
    others = np.arange(20) % 3 != 0
    assert np.array_equal(dx[others], plain[others])


@pytest.mark.parametrize("width", [16, 129, 1000, 4097])
def test_rows_without_a_gradient(norm, width, dtype, each_isa):
    """They are zero, and the others as without them; but what zero is multiplied with may be no number."""
    dy, x, weight = problem(dtype, (20, width))
    plain = norm.backward(dy, x, weight)[0]
    dy[::3] = 0
    dx = norm.backward(dy, x, weight)[0]
    others = np.arange(20) % 3 != 0
    assert (dx[::3] == 0).all()
    assert np.array_equal(dx[others], plain[others])
    weight[width // 2] = np.inf
    assert np.isnan(norm.backward(dy, x, weight)[0][::3]).all()


@pytest.mark.parametrize("name", datasets.EXTREMES)
def test_the_ends_of_the_range(norm, name, dtype, each_isa):
    for d in (16, 129, 4097):
        x = datasets.extreme(name, dtype, (3, d), seed=d)
        small = np.finfo(dtype).smallest_normal ** 0.5 if name == "subnormal" else 1
        dy = problem(dtype, x.shape)[0] * dtype.type(small)
        norm.check(dy, x, eps=0.0, dx_alone=name == "largest")


def test_large_gradients(norm, dtype, each_isa):
    """Sums that overflow, of numbers that do not."""
    for d in (4, 17, 129, 5003):
        dy, x, _ = problem(dtype, (5, d))
        plain = norm.backward(dy, x * 2, eps=0.0)[0]
        large = dy.copy()
        for row, largest in ((1, 1 / 4), (3, 1 / 5)):
            large[row] = np.abs(dy[row]) / np.abs(dy[row]).max() * np.finfo(dtype).max * largest
        dx = norm.backward(large, x * 2, eps=0.0)[0]
        *want, terms = norm.reference(large, x * 2, eps=0.0)
        assert np.isfinite(dx).all()
        assert ref.units(dx, want[0], -1, terms) <= UNITS
        assert np.array_equal(dx[::2], plain[::2])


def test_constant_rows_get_nothing_without_eps(norm, dtype, each_isa):
    for d in (1, 7, 16, 129):
        dy, x, weight = problem(dtype, (5, d))
        plain = norm.backward(dy[[0, 1, 4]], x[[0, 1, 4]], weight, eps=0.0)
        x[2:4] = 0
        dx, dweight, *_ = norm.backward(dy, x, weight, eps=0.0)
        assert not dx[2:4].any()
        assert np.array_equal(dx[[0, 1, 4]], plain[0])
        assert ref.units(dweight, ref.wide(plain[1]), None) <= 2


@pytest.mark.parametrize("width", [16, 129, 1003, 4097])
def test_constant_rows_with_eps(width, dtype, each_isa):
    """As padding is: xhat is 0, and dx what is left of g without its mean. The others are as without them."""
    dy, x, weight = problem(dtype, (20, width))
    plain = op.layer_norm_backward(dy, x, weight)[0]
    others = np.arange(20) % 16 != 1
    g = ref.wide(dy[~others]) * weight
    for constant in datasets.CONSTANTS:
        x[~others] = constant
        dx = op.layer_norm_backward(dy, x, weight)[0]
        want = (g - g.mean(-1, keepdims=True)) / np.sqrt(ref.wide(np.array(1e-5)))
        assert ref.units(dx[~others], want, -1) <= UNITS, constant
        assert np.array_equal(dx[others], plain[others])


@pytest.mark.parametrize("width", [16, 129, 1003, 4097])
def test_rows_of_zeros(norm, width, dtype, each_isa):
    dy, x, weight = problem(dtype, (20, width))
    plain = norm.backward(dy, x, weight, eps=1e-5)[0]
    x[1::16] = 0
    dx = norm.check(dy, x, weight)[0]
    others = np.arange(20) % 16 != 1
    assert np.array_equal(dx[others], plain[others])


def test_nan_and_infinity_stay_in_their_row(norm, dtype, each_isa):
    for d in (2, 16, 17, 129, 1000):
        dy, x, weight = problem(dtype, (5, d))
        plain = norm.backward(dy, x, weight)[0]
        for bad in (np.nan, np.inf, -np.inf):
            for of_dy in (True, False):
                changed = [dy.copy(), x.copy()]
                changed[not of_dy][2, d // 2] = bad
                dx = norm.backward(*changed, weight)[0]
                assert not np.isfinite(dx[2]).all(), (d, bad, of_dy)
                assert np.array_equal(np.delete(dx, 2, 0), np.delete(plain, 2, 0)), (d, bad, of_dy)


@pytest.mark.parametrize(("shape", "axis"), AXES)
def test_axes_and_strides(norm, shape, axis, dtype):
    dy, x, weight = problem(dtype, shape, axis)
    want = norm.check(dy, x, weight, axis, eps=1e-3)
    for (name, x_view), (_, dy_view) in zip(strided(x), reversed(list(strided(dy))), strict=True):
        for arguments in ((dy, x_view), (dy_view, x), (dy_view, x_view)):
            got = norm.backward(*arguments, weight, axis=axis, eps=1e-3)
            assert all(np.array_equal(a, b) for a, b in zip(got, want, strict=True)), name
    for name, w in strided(weight):
        got = norm.backward(dy, x, w, axis=axis, eps=1e-3)
        assert all(np.array_equal(a, b) for a, b in zip(got, want, strict=True)), name


@pytest.mark.parametrize(
    "shape",
    [(2, 64, 28, 28), (7, 33, 49), (3, 700, 221), (40, 300), (5, 1, 90), (1, 16, 16), (2, 2100, 70)],
    ids=str,
)
@pytest.mark.parametrize(
    "dtype", [np.float32, np.float64, np.float16, ml_dtypes.bfloat16], ids=lambda d: d.__name__
)
def test_channels_first_has_the_bits_of_channels_last(norm, dtype, shape, each_threads):
    """Rows whose elements lie apart are turned some at a time, where samples, panels or blocks end; ranged ones as well."""
    axis = 1 if len(shape) > 2 else 0
    dy, x, weight = (a.astype(dtype) for a in problem(np.float32, shape, axis))
    x[..., 5::11] *= dtype(64 if dtype is np.float16 else 2.0**66)
    want_dx, *want = norm.backward(*(np.ascontiguousarray(np.moveaxis(a, axis, -1)) for a in (dy, x)), weight)
    wider = np.concatenate([x, dy], axis=-1)[..., : shape[-1]]
    for of_x in (x, wider):
        dx, *sums = norm.backward(dy, of_x, weight, axis=axis)
        assert np.moveaxis(dx, axis, -1).tobytes() == want_dx.tobytes()
        assert [a.tobytes() for a in sums] == [a.tobytes() for a in want]


def test_eps_is_the_forward_ones(norm, dtype):
    dy, x, weight = problem(dtype, (4, 50))
    for eps in (0, 1, 0.5, np.float32(0.25)):
        norm.check(dy, x, weight, eps=eps)
    default = float(np.finfo(dtype).eps) if norm is NORMS["rms_norm"] else 1e-5
    small = x * dtype.type(1e-3)
    for a, b in zip(norm.backward(dy, small), norm.backward(dy, small, eps=default), strict=True):
        assert np.array_equal(a, b)


def test_sixteen_bits(norm, half, each_isa):
    """dx is the float32 one rounded once; the sums stay in float32."""
    for shape, axis in (((7, 1), -1), ((70, 33), -1), ((300, 129), -1), ((5, 6, 19), 1), ((9, 5003), -1)):
        dy, x, weight = problem(np.float32, shape, axis)
        dy, x = dy.astype(half), x.astype(half)
        for w in (None, weight, weight.astype(half)):
            wide = [None if a is None else a.astype(np.float32) for a in (dy, x, w)]
            want = norm.backward(*wide, axis=axis, eps=1e-5)
            for threads in (1, 2):
                op.set_num_threads(threads)
                got = norm.backward(dy, x, w, axis=axis, eps=1e-5)
                assert got[0].dtype == half
                assert np.array_equal(got[0], ref.rounded(want[0], half))
                for sums, sums_ref in zip(got[1:], want[1:], strict=True):
                    assert sums.dtype == np.float32
                    assert np.array_equal(sums, sums_ref)


@pytest.mark.parametrize(
    ("shape", "axis"),
    [((0,), 0), ((0, 5), -1), ((5, 0), -1), ((0, 5), 0), ((2, 0, 3), (0, 2)), ((0, 3, 4), (1, 2))],
)
def test_empty(norm, shape, axis, dtype):
    x = np.empty(shape, dtype)
    dx, *sums = norm.backward(x, x, axis=axis)
    assert (dx.shape, dx.dtype) == (shape, dtype)
    for array in sums:
        assert (array.shape, array.dtype) == (normalized_shape(shape, axis), dtype)
        assert not array.any()


def test_larger_than_the_caches(norm):
    """dx written past the caches, row by row what it is for a few rows."""
    dy, x, weight = problem(np.float32, (9001, 1999))
    pieces = [
        norm.backward(*part, weight)[0] for part in zip(*(np.array_split(a, 9) for a in (dy, x)), strict=True)
    ]
    results = []
    for isa, threads in zip(op.available_isas(), (2, 1, 3), strict=False):
        op.use_isa(isa)
        op.set_num_threads(threads)
        results.append(norm.backward(dy, x, weight))
        assert np.array_equal(results[-1][0], np.concatenate(pieces)), isa
        assert all(np.array_equal(a, b) for a, b in zip(results[0], results[-1], strict=True)), isa


def test_errors(norm):
    dy, x, weight = problem(np.float32, (6, 4))
    for error, arguments, words in [
        (TypeError, ([1.0], x), ("dy", "list")),
        (TypeError, (None, x), ("dy", "NoneType")),
        (TypeError, (dy, None), ("x", "NoneType")),
        (TypeError, (dy.astype(int), x), ("dy", "int64", "float32")),
        (TypeError, (dy.astype(np.float64), x), ("dy", "float64", "float32", "as x is float32")),
        (ValueError, (dy[:5], x), ("dy", "(5, 4)", "(6, 4)", "the shape of x")),
        (ValueError, (dy[0], x), ("dy", "(4,)", "(6, 4)")),
        (TypeError, (dy, x, weight.astype(np.float64)), ("weight", "float64", "float32")),
        (ValueError, (dy, x, weight[:3]), ("weight", "(3,)", "(4,)", "the shape of x along axis")),
        (TypeError, (dy, x, [1.0] * 4), ("weight", "list")),
    ]:
        with pytest.raises(error) as caught:
            norm.backward(*arguments)
        assert all(word in str(caught.value) for word in words), str(caught.value)
    for name, error, values in [
        ("axis", ValueError, (2, -3, (), (0, 0))),
        ("axis", TypeError, (1.0, None, "1", (0, 1.0))),
        ("eps", TypeError, ("1e-5", 1j)),
    ]:
        for value in values:
            with pytest.raises(error, match=name):
                norm.backward(dy, x, **{name: value})
    for a in (np.array(1.0), np.float64(1)):
        with pytest.raises(ValueError, match=r"axis|dimension"):
            norm.backward(a, a)
    with pytest.raises(TypeError, match="out"):
        norm.backward(dy, x, out=dy)
