"""float16 and bfloat16: every pattern survives, results are rounded to nearest even, and have the same bits everywhere."""

import numpy as np
import pytest
import references as ref
from sixteen_bits import (
    F32,
    Case,
    batch_norm,
    inference,
    is_nan,
    layer_norm,
    min_max_scale,
    rms_norm,
    standardize,
)

import onepass as op


def identity(x, axis=1, **kwargs):
    """Batch norm that is to change nothing."""
    channels = x.shape[axis]
    mean, var = np.zeros(channels, F32), np.ones(channels, F32)
    return op.batch_norm(x, running_mean=mean, running_var=var, axis=axis, eps=0.0, **kwargs)


def assert_identical(y, x):
    """Bit for bit, but for which zero and which NaN."""
    nan = is_nan(x)
    assert np.array_equal(is_nan(y), nan)
    different = (y.view(np.uint16) != x.view(np.uint16)) & ~nan
    assert not (different & (y.view(np.uint16) & 0x7FFF != 0)).any()
    assert not (different & (x.view(np.uint16) & 0x7FFF != 0)).any()


@pytest.mark.parametrize("shape", [(1, 65536), (65536, 1), (256, 256), (4, 16, 1024), (16384, 4), (2, 32768)])
def test_every_pattern_survives(shape, half, each_isa):
    bits = np.arange(65536, dtype=np.uint16).reshape(shape)
    x = bits.view(half)
    y = identity(x)
    assert_identical(y, x)
    # Lengths that leave a part of a vector.
    for cut in (1, 3, 7, 15, 31):
        part = np.ascontiguousarray(x.ravel()[cut : 65536 - cut * 2].reshape(1, -1))
        assert_identical(identity(part), part)


def test_results_are_rounded_to_nearest_even(half, each_isa):
    """1 * weight is the weight: float32 numbers halfway between two results, beside halfway, and beyond the largest."""
    numbers = np.arange(65536, dtype=np.uint16).view(half)
    numbers = numbers[~is_nan(numbers)].astype(F32)
    numbers = np.sort(numbers[np.isfinite(numbers)])
    # (infinity's place in the order: what it would be with one more exponent)
    over = 2 * numbers[-1] - numbers[-2] if half == np.float16 else np.inf
    between = (numbers[1:].astype(np.float64) + numbers[:-1]) / 2
    between = np.append(between, (float(numbers[-1]) + float(over)) / 2 if np.isfinite(over) else 0).astype(
        F32
    )
    weight = np.concatenate(
        [between, np.nextafter(between, F32(np.inf)), np.nextafter(between, F32(-np.inf))]
    )
    weight = np.concatenate(
        [weight, [0.0, -0.0, np.inf, -np.inf, np.finfo(F32).max, 65519.996, 65520]]
    ).astype(F32)
    x = np.ones((2, weight.size), half)
    running = {"running_mean": np.zeros(weight.size, F32), "running_var": np.ones(weight.size, F32)}
    y = op.batch_norm(x, weight, **running, eps=0.0)
    assert_identical(y, np.tile(ref.rounded(weight, half), (2, 1)))


LONG_NANS = np.array([0x7FFFFFFF, 0xFFFFFFFF, 0x7FC00001, 0x7F800001, 0xFFC0FFFF, 0x7FFF8000], np.uint32)
# What takes float32 beside 16 bits, by name: call(x, **given) is to have a NaN in each column whose parameter is one.
TAKES = [
    *[("layer_norm", op.layer_norm, array) for array in ("weight", "bias")],
    *[("add_layer_norm", lambda x, **given: op.add_layer_norm(x, x, **given)[0], array) for array in ("weight", "bias")],
    ("rms_norm", op.rms_norm, "weight"),
    ("layer_norm of an axis", lambda x, **given: op.layer_norm(x.T.copy(), axis=0, **given).T, "weight"),
    *[("batch_norm", lambda x, **given: op.batch_norm(x, training=True, **given), array) for array in ("weight", "bias")],
    *[("group_norm", lambda x, **given: op.group_norm(x, 1, **given), array) for array in ("weight", "bias")],
    *[
        ("inference", lambda x, **given: op.batch_norm(x, **{**inference_of(x), **given}), array)
        for array in ("weight", "bias", "running_mean", "running_var")
    ],
    ("batch_norm_backward", lambda x, **given: op.batch_norm_backward(x, x, training=True, **given)[0], "weight"),
    *[
        (
            "inference_backward",
            lambda x, **given: op.batch_norm_backward(x, x, training=False, **{**inference_of(x), **given})[0],
            array,
        )
        for array in ("weight", "running_var")
    ],
]  # fmt: skip


def inference_of(x):
    return {"running_mean": np.zeros(x.shape[1], F32), "running_var": np.ones(x.shape[1], F32)}


@pytest.mark.parametrize("shape", [(2, 1000), (40, 1000), (40, 987), (40, 3000), (40, 64)])
@pytest.mark.parametrize(
    ("name", "call", "array"), TAKES, ids=lambda given: given if isinstance(given, str) else ""
)
def test_no_number_of_a_nan(name, call, array, shape, half, each_isa):
    """A float32 NaN stays one, whatever is in the half that rounding drops."""
    x = np.random.default_rng(2).standard_normal(shape, F32).astype(half)
    at = np.linspace(0, shape[1] - 1, LONG_NANS.size).astype(int)
    given = {array: np.ones(shape[1], F32)}
    given[array][at] = LONG_NANS.view(F32)
    before = given[array].copy()
    y = np.ascontiguousarray(call(x, **given))
    expected = np.zeros(shape, bool)
    expected[:, at] = True
    assert np.array_equal(is_nan(y), expected)
    assert given[array].tobytes() == before.tobytes()


@pytest.mark.parametrize(
    "call", [op.layer_norm_backward, op.rms_norm_backward], ids=["layer_norm", "rms_norm"]
)
def test_no_number_of_a_nan_in_a_row(call, half, each_isa):
    """A gradient's c1 and c2 are of all of a row's weights, and one NaN among them makes NaN of all of dx."""
    x = np.random.default_rng(2).standard_normal((40, 300), F32).astype(half)
    for bits in LONG_NANS:
        weight = np.ones(300, F32)
        weight.view(np.uint32)[7] = bits
        assert is_nan(call(x, x, weight)[0]).all()


@pytest.mark.parametrize("bits", [0x7FFFFFFFFFFFFFFF, 0xFFFFFFFFFFFFFFFF, 0x7FF8000080000000])
def test_no_number_of_a_nan_for_eps(bits, half, each_isa):
    eps = np.uint64(bits).view(np.float64)
    x = np.random.default_rng(2).standard_normal((40, 300), F32).astype(half)
    assert is_nan(op.layer_norm(x, eps=eps)).all()
    assert is_nan(op.batch_norm(x, training=True, eps=eps)).all()


ADDS = [
    Case(name, shape, (1,), run, None, (1,))
    for shape in ((1001, 1003), (3, 200_003))
    for name, run in (
        ("add_layer_norm", lambda x, w, b, eps, out=None: op.add_layer_norm(x, x[::-1].copy(), w, b, eps=eps, out=out)[0]),
        ("add_rms_norm", lambda x, w, b, eps, out=None: op.add_rms_norm(x, x[::-1].copy(), w, eps=eps, out=out)[0]),
    )
]  # fmt: skip
LARGER = [
    *[make(f"{make.__name__} {n}x{d}", (n, d), (1,)) for make in (layer_norm, rms_norm)
      for n, d in ((1001, 1003), (30_001, 17), (3, 200_003))],
    layer_norm("layer_norm columns", (3001, 257), (0,)),
    layer_norm("layer_norm channels", (30, 65, 15, 15), (1,)),
    *[make(f"{make.__name__} {shape}", shape, axis) for make in (batch_norm, inference) for shape, axis in
      (((3001, 257), 1), ((50_003, 13), 1), ((30, 17, 31, 33), 1), ((30, 15, 17, 65), -1))],
    standardize("standardize columns", (3001, 257), (0,)),
    standardize("standardize rows", (1001, 1003), (1,)),
    min_max_scale("min_max_scale columns", (3001, 257), (0,)),
    min_max_scale("min_max_scale narrow columns", (50_003, 13), (0,)),
    min_max_scale("min_max_scale rows", (1001, 1003), (1,)),
    min_max_scale("min_max_scale a long row", (1, 400_003), (1,)),
    min_max_scale("min_max_scale images", (30, 17, 31, 33), (0, 2, 3)),
    *ADDS,
]  # fmt: skip


def moved(x, by):
    """A copy of x whose memory begins `by` bytes behind a 64-byte boundary."""
    buffer = np.empty(x.nbytes + 128, np.uint8)
    start = -buffer.ctypes.data % 64 + by
    copy = buffer[start : start + x.nbytes].view(x.dtype).reshape(x.shape)
    copy[...] = x
    return copy


@pytest.mark.parametrize("case", LARGER, ids=lambda case: case.name)
def test_same_bits(case, half):
    x = np.random.default_rng(4).standard_normal(case.shape, F32)
    x[: len(x) // 2] += 50
    x = x.astype(half)
    *_, (weight, bias) = case.parameters(half)
    op.use_isa(op.available_isas()[-1])
    with op.num_threads(1):
        want = case.run(x, weight, bias, 1e-5).tobytes()
    for isa in op.available_isas():
        op.use_isa(isa)
        for threads, by in ((1, 2), (2, 0), (3, 6), (5, 1)):
            op.set_num_threads(threads)
            out = moved(np.zeros_like(x), 14 if by == 6 else by)
            y = case.run(moved(x, by), weight, bias, 1e-5, out=out)
            assert y is out
            assert y.tobytes() == want, f"{isa}, {threads} threads, {by} bytes off"
    in_place = moved(x, 2)
    assert case.run(in_place, weight, bias, 1e-5, out=in_place).tobytes() == want, "in place"
    for name, view in (
        ("every second", np.repeat(x, 2, -1)[..., ::2]),
        ("Fortran", np.array(x, order="F")),
        ("reversed", np.flip(np.flip(x, -1).copy(), -1)),
    ):
        assert case.run(view, weight, bias, 1e-5).tobytes() == want, name


@pytest.mark.parametrize(
    "norm",
    [
        "layer_norm",
        "rms_norm",
        "weighted rows",
        "narrow rows",
        "narrower rows",
        "wide rows",
        "add_rms_norm",
        "sums",
        "batch_norm",
    ],
)
def test_larger_than_the_caches(norm, half):
    """Results that are written past the caches: those of one block, over and over."""
    block = np.random.default_rng(0).standard_normal((409, 2303), F32).astype(half)
    width = {"narrow rows": 987, "narrower rows": 329, "wide rows": 3 * 2303}.get(norm)
    if width:
        block = block[:408].reshape(-1, width)
    x = np.tile(block, (22, 1))
    weight = np.random.default_rng(1).standard_normal(x.shape[1], F32)
    running = {"running_mean": np.full(2303, 0.1, F32), "running_var": np.full(2303, 0.9, F32)}
    run = {
        "layer_norm": op.layer_norm,
        "rms_norm": op.rms_norm,
        "weighted rows": lambda x, **kwargs: op.rms_norm(x, weight, **kwargs),
        "narrow rows": lambda x, **kwargs: op.layer_norm(x, weight, weight, **kwargs),
        "narrower rows": lambda x, **kwargs: op.layer_norm(x, weight, weight, **kwargs),
        "wide rows": lambda x, **kwargs: op.layer_norm(x, weight, **kwargs),
        "add_rms_norm": lambda x, **kwargs: op.add_rms_norm(x, x[:, ::-1].copy(), weight, **kwargs)[0],
        "sums": lambda x, out=None: op.add_layer_norm(x, x[:, ::-1].copy(), sum_out=out)[1],
        "batch_norm": lambda x, **kwargs: op.batch_norm(x, **running, **kwargs),
    }[norm]
    want = run(block).view(np.uint16)
    memory = np.empty(x.size + 32, half)
    for isa, threads, by in zip(op.available_isas(), (2, 1, 2), (1, 0, 31), strict=False):
        op.use_isa(isa)
        op.set_num_threads(threads)
        y = run(x, out=memory[by : by + x.size].reshape(x.shape))
        assert (y.view(np.uint16).reshape(22, *block.shape) == want).all(), isa


def test_ml_dtypes_is_the_users_alone(python):
    code = """
import sys
import numpy as np, onepass as op
x = np.ones((4, 5), np.float16)
op.layer_norm(x), op.rms_norm(x), op.moments(x), op.standardize(x), op.add_rms_norm(x, x), op.min_max_scale(x)
op.batch_norm(x, training=True), op.show_config()
try:
    op.layer_norm(np.ones(3, np.int16))
except TypeError as error:
    assert "bfloat16" in str(error)
print("ml_dtypes" in sys.modules)
"""
    done = python("-c", code)
    assert (done.stdout.splitlines()[-1:], done.returncode) == (["False"], 0), done.stderr


def test_scratch_memory_has_room_for_results_anywhere_in_a_cache_line(python):
    """What lies beside y lies where y does in its line: half as many bytes hold twice as many elements. The heap is
    checked when each thread leaves and frees its scratch memory."""
    code = """
import threading
import ml_dtypes, numpy as np, onepass as op

rng = np.random.default_rng(0)
for dtype in (np.float16, ml_dtypes.bfloat16):
    for n, c in ((64, 1), (37, 5), (767, 5), (1000, 5), (9, 16), (9, 64), (50, 1024)):
        x = rng.standard_normal((n, c)).astype(dtype)
        weight = np.ones(c, np.float32)
        running = {"running_mean": weight * 0, "running_var": weight}
        for by in range(0, 64, 2):
            buffer = np.empty(x.nbytes + 128, np.uint8)
            start = -buffer.ctypes.data % 64 + by
            y = buffer[start : start + x.nbytes].view(dtype).reshape(x.shape)

            def work():
                op.batch_norm(x, weight, training=True, out=y)
                op.batch_norm(x, training=True, out=y)
                op.batch_norm(x, weight, **running, out=y)
                op.standardize(x, out=y)
                op.min_max_scale(x, out=y)

            thread = threading.Thread(target=work)
            thread.start()
            thread.join()
print("whole")
"""
    done = python("-c", code, OMP_NUM_THREADS="1")
    assert (done.stdout, done.returncode) == ("whole\n", 0), done.stderr[-500:]
