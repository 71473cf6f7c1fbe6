"""batch_norm_backward in every layout: digits, masks, running statistics, ends of the range, NaN, strides, errors."""

import re

import datasets
import gradients
import grouped
import numpy as np
import pytest
import references as ref
from gradients import WELL, given_dy, weight_of
from grouped import BATCH, Norm

import onepass as op

F32 = np.float32

each_norm = pytest.mark.parametrize("norm", BATCH, ids=str)
SMALL = [
    Norm("batch_norm", shape, axis)
    for shape, axis in (
        ((9, 3), 1),
        ((3, 2, 5), 1),
        ((3, 5, 2), -1),
        ((2, 3, 2, 3), 1),
        ((2, 3, 2, 3), 2),
        ((3, 9), 0),
    )
]
small_norm = pytest.mark.parametrize("norm", SMALL, ids=str)
masked_or_not = pytest.mark.parametrize("masked", [False, True], ids=["plain", "masked"])


@pytest.mark.parametrize("name", [*WELL, "1e-25 N", "integers 0..255"])
@each_norm
def test_digits(norm, name, dtype):
    gradients.check_digits(norm, name, dtype)


@each_norm
def test_16_bits(norm, half):
    gradients.check_16_bits(norm, half)


@pytest.mark.parametrize("name", ["1e200 N, or 1e30 N", "1e-200 N, or 1e-30 N"])
@pytest.mark.parametrize("norm", [n for n in BATCH if n.shape != (5, 70)], ids=str)
def test_the_ends_of_the_range(norm, name, dtype):
    rows = norm.rows(np.empty(norm.shape, np.bool_)).shape
    x = np.ascontiguousarray(norm.back(datasets.extreme(name, dtype, rows)))
    for mask in (None, norm.mask()):
        assert all(
            np.isfinite(a).all() for a in gradients.check(norm, given_dy(norm, dtype), x, None, mask, 0.0)
        )
    # Among ordinary channels, one alone.
    among = norm.data("N(0, 1)", dtype)
    np.moveaxis(among, norm.axis, 0)[1] = np.moveaxis(x, norm.axis, 0)[1]
    gradients.check(norm, given_dy(norm, dtype), among, weight_of(norm, dtype), None, 0.0)


@pytest.mark.parametrize("rows", [5, 100, 300])
def test_a_channel_that_is_read_again_moves_no_other(rows, dtype, each_isa):
    norm = Norm("batch_norm", (rows, 37), 1)
    x = datasets.hard("N(1e4, 1)", dtype, norm.shape)
    x[: min(8, rows - 1), ::5] += 1000
    dy = given_dy(norm, dtype)
    results = gradients.check(norm, dy, x, None, None, 1e-5)
    for shift in (1, 3, 16):
        moved = op.batch_norm_backward(np.roll(dy, shift, 1), np.roll(x, shift, 1))
        for got, want in zip(moved, results, strict=True):
            assert np.array_equal(got, np.roll(want, shift, -1)), shift


@pytest.mark.parametrize("norm", grouped.SOME[:4], ids=str)
def test_threads_and_instruction_sets(norm, dtype):
    gradients.check_threads_and_instruction_sets(norm, dtype)


@masked_or_not
@small_norm
def test_central_differences(norm, masked):
    gradients.check_differences(norm, masked)


@pytest.mark.parametrize("eps", [0.0, 1e-5, 0.5])
@masked_or_not
@small_norm
def test_complex_steps(norm, masked, eps):
    gradients.check_complex_steps(norm, masked, eps)


@each_norm
def test_dx_is_a_projection(norm):
    """With eps = 0, y is the point of a sphere that x - mean points at: dx = rstd (I - QQ') g, Q spanning 1 and x."""
    x, dy = norm.data("N(0, 1)", np.float64), given_dy(norm, np.float64)
    rows, g = norm.rows(x), norm.rows(dy)
    dx = np.empty_like(g)
    for i, row in enumerate(rows):
        q, _ = np.linalg.qr(np.stack([np.ones_like(row), row], axis=1))
        dx[i] = (g[i] - q @ (q.T @ g[i])) / row.std()
    got = norm.rows(norm.backward(dy, x, eps=0.0)[0])
    assert np.abs(got - dx).max() <= 1e-13 * np.abs(dx).max()


def test_inference(dtype, each_isa):
    """Statistics that are given are constants: dx = dy weight rstd. A mask has no say."""
    for norm in BATCH:
        x, dy = norm.data("N(0, 1)", dtype), given_dy(norm, dtype)
        rng = np.random.default_rng(5)
        mean, var = (
            rng.uniform(-1, 1, norm.channels).astype(dtype),
            rng.uniform(0.5, 2, norm.channels).astype(dtype),
        )
        given = {"running_mean": mean, "running_var": var, "training": False}
        xhat, _, rstd = ref.batch_norm_inference(x, mean, var, axis=norm.axis)
        axes = ref.others(norm.axis % x.ndim, x.ndim)
        for weight in (None, weight_of(norm, dtype)):
            wide_dy = ref.wide(dy)
            dx = grouped.affine(norm, wide_dy, weight) * rstd
            got = gradients.check(
                norm, dy, x, weight, expected=(dx, (wide_dy * xhat).sum(axes), wide_dy.sum(axes)), **given
            )
            masked = norm.backward(dy, x, weight, mask=norm.mask(), **given)
            assert all(np.array_equal(a, b) for a, b in zip(got, masked, strict=True))
            table = np.stack([mean, mean, var, var], axis=1)
            strided = norm.backward(
                dy, x, weight, **{**given, "running_mean": table[:, 1], "running_var": table[:, 2]}
            )
            assert all(np.array_equal(a, b) for a, b in zip(got, strided, strict=True))
        assert np.array_equal((mean, var), (table[:, 0], table[:, 3]))


def test_running_statistics_have_no_part_in_training(dtype):
    for norm in grouped.SOME[:4]:
        x, dy = norm.data("N(0, 1)", dtype), given_dy(norm, dtype)
        running = {name: np.full(norm.channels, 3, dtype) for name in ("running_mean", "running_var")}
        for given in (running, {"running_mean": running["running_mean"]}):
            got = norm.backward(dy, x, **given)
            assert all(np.array_equal(a, b) for a, b in zip(got, norm.backward(dy, x), strict=True))
        assert all((statistic == 3).all() for statistic in running.values())


def test_defaults(dtype):
    x, dy = datasets.hard("N(0, 1)", dtype, (6, 4, 5)), datasets.hard("N(0, 1)", dtype, (6, 4, 5), 1)
    expected = op.batch_norm_backward(dy, x, None, training=True, axis=1, eps=1e-5, mask=None)
    assert all(np.array_equal(a, b) for a, b in zip(op.batch_norm_backward(dy, x), expected, strict=True))
    ones = op.batch_norm_backward(dy, x, np.ones(4, dtype))
    assert all(np.array_equal(a, b) for a, b in zip(ones, expected, strict=True))


@pytest.mark.parametrize("padding", [0, 1e4, -1e30, np.nan, np.inf], ids=str)
@pytest.mark.parametrize("norm", grouped.SOME[:4], ids=str)
def test_padding_without_a_gradient(norm, padding, dtype):
    gradients.check_padding_without_a_gradient(norm, padding, dtype)


@each_norm
def test_nothing_valid(norm, dtype):
    gradients.check_nothing_valid(norm, dtype)


@each_norm
def test_constant_channels(norm, dtype):
    gradients.check_constants(norm, dtype)


@each_norm
def test_nan(norm, dtype):
    gradients.check_nan(norm, dtype)


@each_norm
def test_channels_have_no_say_in_each_other(norm, dtype):
    """Neither one that leaves the range, and is taken again, nor one whose gradient is infinite."""
    x, dy = norm.data("N(0, 1)", dtype), given_dy(norm, dtype)
    ordinary = norm.backward(dy, x)
    huge = x.copy()
    np.moveaxis(huge, norm.axis, 0)[-1] *= 1e200 if dtype == np.float64 else 1e30
    infinite = dy.copy()
    infinite[(0,) * dy.ndim] = np.inf
    first = norm.backward(infinite, x)
    for a, b, of_first in zip(ordinary, norm.backward(infinite, huge), first, strict=True):
        a, b, of_first = (np.moveaxis(g, norm.axis if g.ndim > 1 else 0, 0) for g in (a, b, of_first))
        assert np.array_equal(a[1:-1], b[1:-1])
        assert np.array_equal(of_first[0], b[0], equal_nan=True)
    assert first[2][0] == np.inf


@small_norm
def test_strides(norm, dtype):
    gradients.check_strides(norm, dtype)


@pytest.mark.parametrize("shape", [(0, 3), (0, 3, 4), (2, 3, 0), (2, 0, 4), (0, 0), (2, 3, 0, 4)], ids=str)
def test_empty(shape, dtype):
    gradients.check_empty(Norm("batch_norm", shape), dtype)
    gradients.check_empty(Norm("batch_norm", shape, -1), dtype)


def test_one_element_a_channel(dtype):
    x = np.array([[1, 2, 3]], dtype)
    dx, dweight, dbias = op.batch_norm_backward(x, x, eps=0.25)
    assert not dx.any()
    assert not dweight.any()
    assert np.array_equal(dbias, x[0])


@pytest.mark.parametrize("norm", BATCH, ids=str)
def test_torch(norm, dtype):
    torch = pytest.importorskip("torch")
    x, dy, weight = norm.data("N(0, 1)", dtype), given_dy(norm, dtype), weight_of(norm, dtype)
    running = (
        np.linspace(-1, 1, norm.channels).astype(dtype),
        np.linspace(0.5, 2, norm.channels).astype(dtype),
    )
    for training in (True, False):

        def function(leaf, *, training=training, **given):
            statistics = [torch.from_numpy(r.astype(np.float64)) for r in running]
            return torch.nn.functional.batch_norm(leaf, *statistics, training=training, **given)

        gradients.check_torch(torch, norm, function, x, dy, weight, training=training, running_mean=running[0],
                              running_var=running[1])  # fmt: skip


ONES = np.ones((6, 4), F32)


@pytest.mark.parametrize(
    ("given", "error", "words"),
    [
        ({"dy": np.ones((4, 6), F32)}, ValueError, "dy has shape (4, 6); expected (6, 4), the shape of x"),
        ({"dy": np.ones((1, 4), F32)}, ValueError, "dy has shape (1, 4); expected (6, 4)"),
        ({"dy": np.ones((6, 4))}, TypeError, "dy has dtype float64; expected float32"),
        ({"dy": np.ones((6, 4), np.float16)}, TypeError, "dy has dtype float16; expected float32"),
        ({"dy": np.ones((6, 4), int)}, TypeError, "dy has dtype int64"),
        ({"dy": [[1.0] * 4] * 6}, TypeError, "dy is list"),
        ({"dy": None}, TypeError, "dy is NoneType"),
        ({"x": [[1.0] * 4] * 6}, TypeError, "x is list"),
        ({"x": np.ones((6, 4), int)}, TypeError, "x has dtype int64"),
        ({"x": np.ones(4, F32), "dy": np.ones(4, F32)}, ValueError, "axis 1 is out of range"),
        ({"weight": np.ones(4)}, TypeError, "weight has dtype float64; expected float32"),
        ({"weight": np.ones(4, np.float16)}, TypeError, "weight has dtype float16; expected float32"),
        ({"weight": np.ones(6, F32)}, ValueError, "weight has shape (6,); expected (4,)"),
        ({"weight": np.ones((4, 1), F32)}, ValueError, "weight has shape (4, 1); expected (4,)"),
        ({"axis": 2}, ValueError, "axis 2 is out of range"),
        ({"axis": (1,)}, TypeError, "axis is tuple"),
        ({"axis": 1.0}, TypeError, "axis is float"),
        ({"eps": "1e-5"}, TypeError, "eps is str; expected a real number"),
        ({"eps": None}, TypeError, "eps is NoneType"),
        ({"training": False}, ValueError, "running_mean is None; expected an array where training=False"),
        (
            {"training": False, "running_mean": np.ones(4, F32)},
            ValueError,
            "running_var is None; expected an array",
        ),
        (
            {"training": False, "running_var": np.ones(4, F32)},
            ValueError,
            "running_mean is None; expected an array",
        ),
        ({"running_mean": np.ones(4)}, TypeError, "running_mean has dtype float64; expected float32"),
        ({"running_var": np.ones(5, F32)}, ValueError, "running_var has shape (5,); expected (4,)"),
        ({"running_var": [1.0] * 4}, TypeError, "running_var is list"),
    ],
)
def test_wrong_input(given, error, words):
    arrays = {"dy": ONES.copy(), "x": ONES.copy(), "weight": None, **given}
    with pytest.raises(error, match=re.escape(words)):
        op.batch_norm_backward(arrays.pop("dy"), arrays.pop("x"), arrays.pop("weight"), **arrays)


def test_keywords():
    with pytest.raises(TypeError, match="bias"):
        op.batch_norm_backward(ONES, ONES, bias=ONES[0])
    with pytest.raises(TypeError):
        op.batch_norm_backward(ONES)
    with pytest.raises(TypeError):
        op.batch_norm_backward(ONES, ONES, None, ONES[0])
