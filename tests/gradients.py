"""Checks of gradients that batch, group and instance norm share: of dx, dweight and dbias against

the formula (grouped.backward), in float64 or long double;
central differences through the function itself, in float64;
the derivative of y(x) by a step into the complex plane, which cancels nothing:  y'(x) = Im y(x + ih) / h
(Squire & Trapp 1998), and which knows nothing of the formula for dx.
"""

import datasets
import grouped
import layouts
import numpy as np
import references as ref

import onepass as op

F32 = np.float32
# Gradients are promised for what is well-conditioned; one outlier takes all digits from its neighbours' products.
WELL = [name for name in datasets.HARD if "outlier" not in name]


def arithmetic(dtype):
    return np.dtype(np.float64 if dtype == np.float64 else F32)


def given_dy(norm, dtype, seed=11):
    return np.random.default_rng(seed).standard_normal(norm.shape).astype(dtype)


def weight_of(norm, dtype):
    return datasets.weight_and_bias(dtype, norm.channels)[0]


def check(norm, dy, x, weight=None, mask=None, eps=1e-5, expected=None, **given):
    """Shapes, types, and 16 units."""
    masked = {} if mask is None else {"mask": mask}
    got = norm.backward(dy, x, weight, eps=eps, **masked, **given)
    dx, *sums = got
    assert (dx.shape, dx.dtype, dx.flags.c_contiguous) == (x.shape, x.dtype, True)
    for of_channels in sums:
        assert (of_channels.shape, of_channels.dtype) == ((norm.channels,), arithmetic(x.dtype))
    units = grouped.gradient_units(norm, got, expected or grouped.backward(norm, dy, x, weight, mask, eps))
    assert max(units) <= grouped.GRADIENT_UNITS, (
        f"{units} units of dx, dweight, dbias: {norm}, mask {mask is not None}"
    )
    return got


def check_digits(norm, name, dtype):
    x, dy = norm.data(name, dtype), given_dy(norm, dtype)
    for weight, mask, eps in (
        (None, None, 1e-5),
        (weight_of(norm, dtype), None, 0.0),
        (weight_of(norm, dtype), norm.mask(), 1e-5),
        (None, norm.mask(), 0.0),
        (None, np.ones(norm.mask_shape, np.bool_), 1e-5),
    ):
        check(norm, dy, x, weight, mask, eps)


def check_16_bits(norm, half):
    """dx is the rounded one or its neighbour; the sums are float32's, never taken in 16 bits."""
    for name in ("N(0, 1)", "integers 0..255"):
        x, dy = norm.data(name, half), given_dy(norm, half)
        for weight, mask in (
            (None, None),
            (weight_of(norm, half), norm.mask()),
            (weight_of(norm, F32), norm.mask() if name == "N(0, 1)" else None),
        ):
            check(norm, dy, x, weight, mask)


def check_threads_and_instruction_sets(norm, dtype):
    x, dy, weight = norm.data("N(1e4, 1)", dtype), given_dy(norm, dtype), weight_of(norm, dtype)
    for mask in (None, norm.mask()):
        expected = grouped.backward(norm, dy, x, weight, mask)
        for isa in op.available_isas():
            for threads in (1, 2, 5):
                op.use_isa(isa)
                op.set_num_threads(threads)
                check(norm, dy, x, weight, mask, expected=expected)


def check_differences(norm, masked, step=1e-5):
    """Of the scalar sum(dy * y), by every element of x and of the parameters."""
    x, dy, mask = (
        norm.data("N(0, 1)", np.float64),
        given_dy(norm, np.float64),
        norm.mask() if masked else None,
    )
    weight, bias = datasets.weight_and_bias(np.float64, norm.channels)

    def loss():
        return float((dy * norm.forward(x, weight, bias, mask=mask)).sum())

    for array, gradient in zip((x, weight, bias), norm.backward(dy, x, weight, mask=mask), strict=True):
        differences = np.empty_like(array)
        for at in np.ndindex(array.shape):
            kept = array[at]
            array[at] = kept + step
            above = loss()
            array[at] = kept - step
            differences[at] = (above - loss()) / (2 * step)
            array[at] = kept
        assert np.abs(gradient - differences).max() <= 1e-7 * np.abs(differences).max(), norm


def complex_formula(norm, x, weight, mask, eps):
    """The formula of y with nothing in it that is not analytic."""
    rows, seen = norm.rows(x), 1.0 * norm.rows(norm.spread(mask))
    count = seen.sum(1, keepdims=True)
    mean = (seen * rows).sum(1, keepdims=True) / count
    var = (seen * (rows - mean) ** 2).sum(1, keepdims=True) / count
    return norm.back((rows - mean) / np.sqrt(var + eps)) * norm.a_channel(weight)


def check_complex_steps(norm, masked, eps):
    x, dy, weight = norm.data("N(0, 1)", np.float64), given_dy(norm, np.float64), weight_of(norm, np.float64)
    mask = norm.mask() if masked else np.ones(norm.mask_shape, np.bool_)
    step = 1e-30
    derivative = np.empty(norm.shape)
    for at in np.ndindex(norm.shape):
        stepped = x.astype(np.clongdouble)
        stepped[at] += 1j * step
        derivative[at] = (dy * complex_formula(norm, stepped, weight, mask, eps)).sum().imag / step
    for dtype in (np.float64, F32):
        near = norm.backward(dy.astype(dtype), x.astype(dtype), weight.astype(dtype), eps=eps,
                             **({"mask": mask} if masked else {}))[0]  # fmt: skip
        # In float32 the inputs are rounded: a few units more, of the derivative by each of them.
        room = {np.float64: grouped.GRADIENT_UNITS, F32: 64}[dtype] * np.finfo(dtype).eps / 2
        largest = norm.rows(np.abs(derivative)).max(1, keepdims=True)
        assert (np.abs(norm.rows(near - derivative)) <= room * largest).all(), (norm, dtype)


def check_padding_without_a_gradient(norm, padding, dtype):
    """Where nothing flows back from the padding, what it holds has no part in the gradients.

    They are those of the sequences without it, on data that is far from the padding's.
    """
    mask = norm.mask()
    seen = norm.spread(mask)
    for name in ("N(0, 1)", "N(1e4, 1)"):
        x = np.where(seen, norm.data(name, dtype), dtype.type(padding))
        dy = np.where(seen, given_dy(norm, dtype), dtype.type(0))
        weight = weight_of(norm, dtype)
        # Any finite number in the padding gives the same reference: this is the one that costs no digits.
        expected = grouped.backward(norm, dy, np.where(seen, norm.data(name, dtype), 0), weight, mask)
        expected = np.where(seen, expected[0], 0), *expected[1:]
        dx, *sums = norm.backward(dy, x, weight, mask=mask)
        units = grouped.gradient_units(norm, (np.where(seen, dx, dtype.type(0)), *sums), expected)
        assert max(units) <= grouped.GRADIENT_UNITS, f"{units} units of dx, dweight, dbias: {name}"
        assert not dx[~seen].any()


def check_nothing_valid(norm, dtype):
    """dx is NaN, as y was; dbias is still the sum of dy."""
    x, dy = norm.data("N(0, 1)", dtype), given_dy(norm, dtype)
    dx, dweight, dbias = norm.backward(dy, x, mask=np.zeros(norm.mask_shape, np.bool_))
    assert np.isnan(dx).all()
    assert np.isnan(dweight).all()
    assert ref.units(dbias, grouped.backward(norm, dy, x)[2], 0) <= grouped.GRADIENT_UNITS


def check_constants(norm, dtype):
    """xhat is 0: dx = rstd (g - mean(g)), dweight = 0. With eps = 0 the others do not notice."""
    dy, weight = given_dy(norm, dtype), weight_of(norm, dtype)
    for value in datasets.CONSTANTS[2:]:
        dweight = check(norm, dy, np.full(norm.shape, value, dtype), weight)[1]
        assert not dweight.any(), value
    x = norm.data("N(0, 1)", dtype)
    constant = x.copy()
    first = norm.rows(np.arange(x.size).reshape(x.shape))[0]
    constant.flat[first] = 3
    others = np.ones(x.shape, np.bool_)
    others.flat[first] = False
    a, b = (norm.backward(dy, array, weight, eps=0.0)[0] for array in (x, constant))
    assert np.array_equal(a[others], b[others])


def check_nan(norm, dtype):
    """In x or dy: in dx it stays in its group, in the sums in the channels of that group."""
    x, dy, weight = norm.data("N(0, 1)", dtype), given_dy(norm, dtype), weight_of(norm, dtype)
    places = norm.rows(np.arange(x.size).reshape(x.shape))
    row = places[len(places) // 2]
    hit = np.zeros(x.shape, np.bool_)
    hit.flat[row] = True
    axes = ref.others(norm.axis % x.ndim, x.ndim)
    for mask in (None, norm.mask()):
        seen = row if mask is None else row[norm.spread(mask).flat[row]]
        expected = norm.backward(dy, x, weight, mask=mask)
        for where in ("x", "dy"):
            for bad in (np.nan, np.inf):
                arrays = {"x": x.copy(), "dy": dy.copy()}
                arrays[where].flat[seen[0]] = bad
                got = norm.backward(arrays["dy"], arrays["x"], weight, mask=mask)
                message = (str(norm), where, bad, mask is not None)
                assert not np.isfinite(got[0][hit if mask is None else hit & norm.spread(mask)]).any(), (
                    message
                )
                assert np.array_equal(got[0][~hit], expected[0][~hit]), message
                channels = hit.any(axes)
                for a, b in zip(got[1:], expected[1:], strict=True):
                    assert np.array_equal(a[~channels], b[~channels]), message
                assert not np.isfinite(
                    got[1][np.isin(np.arange(norm.channels), channel_of(norm, seen[0]))]
                ), message


def channel_of(norm, place):
    return np.unravel_index(place, norm.shape)[norm.axis]


def check_strides(norm, dtype):
    x, dy, weight = norm.data("N(1e4, 1)", dtype), given_dy(norm, dtype), weight_of(norm, dtype)
    kept = x.copy(), dy.copy(), weight.copy()
    for mask in (None, norm.mask()):
        expected = norm.backward(dy, x, weight, mask=mask)
        spread = np.repeat(weight, 2)[::2]
        for (name, x_view), (_, dy_view) in zip(layouts.strided(x), layouts.strided(dy), strict=True):
            for views in ((dy, x_view), (dy_view, x), (dy_view, x_view)):
                got = norm.backward(*views, spread, mask=mask)
                assert all(np.array_equal(a, b) for a, b in zip(got, expected, strict=True)), name
                assert got[0].flags.c_contiguous, name
        got = norm.backward(memoryview(dy), memoryview(x), memoryview(weight), mask=mask)
        assert all(np.array_equal(a, b) for a, b in zip(got, expected, strict=True))
        one = np.broadcast_to(dtype.type(1), x.shape)
        got = norm.backward(one, x, mask=mask)
        assert all(
            np.array_equal(a, b) for a, b in zip(got, norm.backward(one.copy(), x, mask=mask), strict=True)
        )
    assert all(np.array_equal(a, b) for a, b in zip(kept, (x, dy, weight), strict=True))


def check_empty(norm, dtype):
    x = np.empty(norm.shape, dtype)
    dx, dweight, dbias = norm.backward(x, x)
    assert (dx.shape, dx.dtype) == (x.shape, dtype)
    for sums in (dweight, dbias):
        assert (sums.shape, sums.dtype) == ((norm.channels,), arithmetic(dtype))
        assert not sums.any()


def check_torch(torch, norm, function, x, dy, weight, parameters=(), **given):
    """torch's autograd, the channels at 1; in torch's own precision, float64."""

    def tensor(a):
        return torch.from_numpy(np.ascontiguousarray(np.moveaxis(a, norm.axis, 1), np.float64))

    leaf, scale = tensor(x).requires_grad_(), torch.from_numpy(weight.astype(np.float64)).requires_grad_()
    shift = torch.zeros_like(scale).requires_grad_()
    y = function(leaf, *parameters, weight=scale, bias=shift, eps=1e-5)
    y.backward(tensor(dy))
    expected = np.moveaxis(leaf.grad.numpy(), 1, norm.axis), scale.grad.numpy(), shift.grad.numpy()
    got = norm.backward(dy, x, weight, **given)
    if x.dtype == np.float64:  # as exact as torch's own sums are
        for a, b in zip(got, expected, strict=True):
            assert np.abs(a - b).max() <= 1e-13 * np.abs(b).max(), norm
    else:
        assert max(grouped.gradient_units(norm, got, expected)) <= grouped.GRADIENT_UNITS, norm
