"""More than 2^31 elements: offsets and counts of 64 bits. Slow: pytest -m slow tests/test_large.py

x is a block of rows over and over, and one last row that lies behind 2^31 elements and is like none of them.
"""

import calls
import numpy as np
import pytest
import references as ref

import onepass as op

F16, F32 = np.dtype(np.float16), np.dtype(np.float32)
WIDTH, BLOCK, TIMES = 1024, 4096, 512
ROWS = BLOCK * TIMES + 1


def available():
    """Bytes of memory, where the system says."""
    try:
        with open("/proc/meminfo") as file:
            return next(1024 * int(line.split()[1]) for line in file if line.startswith("MemAvailable"))
    except (OSError, StopIteration):
        return 0


pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(available() < 11 << 30, reason="wants 11 GiB of memory"),
]


@pytest.fixture(scope="module")
def memory():
    """x, its block, its last row, and room for a result. 2^31 + 1024 elements each."""
    rng = np.random.default_rng(0)
    block = rng.standard_normal((BLOCK, WIDTH), np.float32).astype(F16)
    last = (rng.uniform(-900, 900, WIDTH)).astype(F16)
    x, out = np.empty((ROWS, WIDTH), F16), np.empty((ROWS, WIDTH), F16)
    assert x.size > 2**31
    x[:-1].reshape(TIMES, BLOCK, WIDTH)[...] = block
    x[-1] = last
    return x, block, last, out


def assert_rows(y, of_block, of_last):
    """y is the block's results over and over, then the last row's; to the bit."""
    bits = y.view(np.uint16)
    for i in range(TIMES):
        assert np.array_equal(bits[i * BLOCK : (i + 1) * BLOCK], of_block.view(np.uint16)), i
    assert np.array_equal(bits[-1], of_last.view(np.uint16))


ROW_CALLS = [name for name in calls.CALLS if calls.CALLS[name].axis == "axes" and "moments" not in name]


@pytest.mark.parametrize("name", [n for n in ROW_CALLS if "add" not in n and "backward" not in n])
def test_rows(name, memory):
    x, block, last, out = memory
    out[...] = 7
    call = calls.CALLS[name](x.shape, -1)
    small = calls.CALLS[name](block.shape, -1)
    parameters = calls.arguments(calls.CALLS[name]((1, WIDTH), -1), F16)
    y = call.run({**parameters, "x": x}, 1e-5, out=out)[0]
    one = calls.CALLS[name]((1, WIDTH), -1)
    of_last = one.run({**parameters, "x": last[None]}, 1e-5)[0]
    assert_rows(y, small.run({**parameters, "x": block}, 1e-5)[0], of_last[0])


@pytest.mark.parametrize("name", [n for n in ROW_CALLS if "backward" in n])
def test_gradients_of_rows(name, memory):
    """dy is x."""
    x, block, last, _ = memory
    parameters = calls.arguments(calls.CALLS[name]((1, WIDTH), -1), F16)
    dx, of_block, of_last = (
        calls.CALLS[name](a.shape, -1).run({**parameters, "x": a, "dy": a}, 1e-5)[0]
        for a in (x, block, last[None])
    )
    assert_rows(dx, of_block, of_last[0])


@pytest.mark.parametrize("name", ["add_layer_norm", "add_rms_norm"])
def test_sums(name, memory):
    """In place in the result's memory; the residual is one row for all."""
    x, block, last, out = memory
    parameters = calls.arguments(calls.CALLS[name]((1, WIDTH), -1), F16)
    row = parameters.pop("residual")
    call, small, one = (calls.CALLS[name](shape, -1) for shape in (x.shape, block.shape, (1, WIDTH)))
    out[...] = x
    given = {**parameters, "x": out, "residual": np.broadcast_to(row, x.shape)}
    sum_out = np.empty_like(x) if available() > 6 << 30 else None
    y, total = call.run(given, 1e-5, out=out, **({} if sum_out is None else {"sum_out": sum_out}))
    of_block = small.run({**parameters, "x": block, "residual": np.broadcast_to(row, block.shape)}, 1e-5)
    of_last = one.run({**parameters, "x": last[None], "residual": row}, 1e-5)
    assert_rows(y, of_block[0], of_last[0][0])
    assert_rows(total, of_block[1], of_last[1][0])


@pytest.mark.parametrize(
    "name", [n for n in calls.CALLS if calls.CALLS[n].axis == "samples" and "masked" not in n]
)
def test_samples(name, memory):
    """Samples of (128, 8) and (8, 128), channels first; gradients take memory for every channel of every sample."""
    x, block, last, out = memory
    for channels in (8,) if "backward" in name else (128, 8):
        call, small, one = (
            calls.CALLS[name]((len(a), channels, WIDTH // channels), 1) for a in (x, block, last[None])
        )
        parameters = calls.arguments(one, F16)

        def given(of, a, parameters=parameters):
            dy = {"dy": a.reshape(of.shape)} if "dy" in of.takes else {}
            return {**parameters, "x": a.reshape(of.shape), **dy}

        outs = {"out": out.reshape(call.shape)} if call.outs else {}
        out[...] = 7
        y = call.run(given(call, x), 1e-5, **outs)[0]
        of_block = small.run(given(small, block), 1e-5)[0].reshape(block.shape)
        assert_rows(y.reshape(x.shape), of_block, one.run(given(one, last[None]), 1e-5)[0].reshape(WIDTH))


def totals(f, block, last):
    """The sum of f over each column of x, and over all of x."""
    columns = TIMES * ref.wide(f(ref.wide(block))).sum(0) + f(ref.wide(last))
    return columns, columns.sum()


@pytest.mark.parametrize(
    ("name", "axis"),
    [
        ("batch_norm", 0),
        *(
            (name, axis)
            for name in ("layer_norm", "rms_norm", "standardize", "moments")
            for axis in (0, (0, 1))
        ),
    ],
)
def test_columns_and_everything(name, axis, memory):
    """Groups of 2^21 and of 2^31 elements, and the 2^31st counts."""
    x, block, last, out = memory
    which = 0 if axis == 0 else 1
    n = ROWS if axis == 0 else ROWS * WIDTH
    mean = totals(lambda a: a, block, last)[which] / n
    if name == "rms_norm":
        mean = mean * 0
    var = totals(lambda a: np.square(a - mean), block, last)[which] / n
    if name == "moments":
        m = op.moments(x, axis)
        assert m.count == n
        np.testing.assert_allclose(m.mean, mean, rtol=0, atol=1e-6 * np.sqrt(var.max()))
        np.testing.assert_allclose(m.m2 / n, var, rtol=1e-6)
        return
    out[...] = 7
    if name == "batch_norm":
        running = np.zeros(WIDTH, F32), np.ones(WIDTH, F32)
        given = {"running_mean": running[0], "running_var": running[1], "training": True, "momentum": 1.0}
        y = op.batch_norm(x, **given, eps=0.0, out=out)
        np.testing.assert_allclose(running[0], mean, atol=1e-6)
        np.testing.assert_allclose(running[1], var * (n / (n - 1)), rtol=1e-6)
    else:
        y = getattr(op, name)(x, axis=axis, eps=0.0, out=out)
    of_block, of_last = ((ref.wide(a) - mean) / np.sqrt(var) for a in (block, last))
    assert (ref.steps(y[-1], of_last) <= 1).all()
    far = ref.steps(y[:BLOCK], of_block) > 1
    assert far.mean() < 1e-3  # x against the mean cancels here and there
    assert_rows(y, y[:BLOCK].copy(), y[-1].copy())


def test_batch_norm_backward(memory):
    x, block, last, _ = memory
    n, eps = ROWS, 1e-5
    mean = totals(lambda a: a, block, last)[0] / n
    rstd = 1 / np.sqrt(totals(lambda a: np.square(a - mean), block, last)[0] / n + eps)
    # dy is x: its product with xhat does not cancel.
    product = totals(lambda a: a * (a - mean) * rstd, block, last)[0]
    dx, dweight, dbias = op.batch_norm_backward(x, x, eps=eps)
    np.testing.assert_allclose(dweight, product, rtol=1e-5)
    np.testing.assert_allclose(dbias, mean * n, rtol=0, atol=1e-6 * np.sqrt(n) * 1000)
    for got, a in ((dx[:BLOCK], block), (dx[-1], last)):
        a = ref.wide(a)
        expected = rstd * (a - mean - (a - mean) * rstd * product / n)
        largest = np.maximum(np.abs(rstd * a), np.abs((a - mean) * rstd * product / n))
        room = 16 * np.finfo(F32).eps / 2 * largest.max() + 2.0**-24
        assert (np.abs(ref.wide(got) - expected) <= room).all()
    assert_rows(dx, dx[:BLOCK].copy(), dx[-1].copy())


def test_zero_strides():
    """2^32 elements that are 1024."""
    row = np.random.default_rng(0).standard_normal(WIDTH).astype(F16)
    x = np.broadcast_to(row, (2**22 + 1, WIDTH))
    m = op.moments(x)
    assert m.count == 2**22 + 1
    assert np.array_equal(m.mean, row)
    assert not m.m2.any()
    m, of_row = op.moments(x, (0, 1)), op.moments(row)
    assert m.count == (2**22 + 1) * WIDTH
    assert abs(m.mean - of_row.mean) <= 1e-12
    assert abs(m.m2 / m.count - of_row.var()) <= 1e-6 * of_row.var()
