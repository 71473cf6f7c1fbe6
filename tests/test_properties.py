"""Properties that hold for every input: hypothesis draws functions, shapes, axes, types, strides and data.

Examples follow from the test alone, the same ones in every run, but for those that are searched for (conftest.py):

    pytest tests/test_properties.py --hypothesis-profile=search
"""

import math

import calls
import calls_forward as forward
import datasets
import numpy as np
import pytest
import references as ref
from hypothesis import given
from hypothesis import strategies as st

import onepass as op

each_call = pytest.mark.parametrize("name", calls.CALLS)

dtypes = st.sampled_from([*calls.DTYPES])
seeds = st.integers(0, 2**32 - 1)


@st.composite
def chosen(draw, name, long_groups=False, rows=False, most=4000):
    """A call of the function: x of 1 to 4 axes, few of them long, and of that many elements at most.

    Groups of at least 8 elements (where few might count, or sums cancel), or axis 0 left to the rows, where asked for.
    """
    row = calls.CALLS[name]
    extents = st.one_of(
        st.just(1), st.integers(1, 9), st.integers(10, 70), st.sampled_from([127, 128, 129, 500])
    )
    least = max(row.least_ndim, 1 + rows, 3 if long_groups and row.axis == "samples" else 1)
    shape = draw(st.lists(extents, min_size=least, max_size=4).filter(lambda s: math.prod(s) <= most))
    first = 1 if rows or row.axis == "samples" else 0
    axes = st.integers(first, len(shape) - 1)
    if row.axis == "axes":
        reduced = draw(st.lists(axes, min_size=1, max_size=len(shape), unique=True))
        axis = tuple(reduced) if len(reduced) > 1 or draw(st.booleans()) else reduced[0]
    else:
        axis = draw(axes)
        reduced = [a for a in range(len(shape)) if a != axis and (a > 0 or row.axis == "channels")]
    if long_groups:
        shape[reduced[-1]] = max(shape[reduced[-1]], 8)
    if draw(st.booleans()):  # axes count from the end as well
        axis = tuple(a - len(shape) for a in axis) if isinstance(axis, tuple) else axis - len(shape)
    return row(tuple(shape), axis)


def needs_long_groups(name):
    return "backward" in name or "masked" in name


def data(dtype):
    """Data sets that the type holds."""
    if dtype in ("float16", "bfloat16"):
        return ["N(0, 1)", "integers 0..255", "exp(3N)", "1e-20 N"][: 2 if dtype == "float16" else 4]
    return [*datasets.HARD, *datasets.MORE]


def arguments(draw, call, dtype):
    seed, name = draw(seeds), draw(st.sampled_from(data(dtype)))
    if call.kind == "gradient" or "inference" in call.name:  # promised for what is well-conditioned
        name = draw(st.sampled_from(["N(0, 1)", "integers 0..255"]))
    x = call.scattered(datasets.hard(name, calls.DTYPES[dtype], call.places().shape, seed))
    return calls.arguments(call, calls.DTYPES[dtype], seed, x)


@st.composite
def laid_out(draw, x):
    """x's values under drawn strides: steps of -2 to 3 elements, axes in any order, and a few elements off."""
    order = draw(st.permutations(range(x.ndim)))
    steps = [draw(st.sampled_from([1, 1, 1, -1, 2, -2, 3])) for _ in range(x.ndim)]
    within = np.zeros([n * abs(s) for n, s in zip((x.shape[a] for a in order), steps, strict=True)], x.dtype)
    off = draw(st.integers(0, 3))
    memory = np.zeros(within.size + off, x.dtype)
    view = memory[off:].reshape(within.shape)[tuple(slice(None, None, s) for s in steps)]
    view = view.transpose(np.argsort(order))
    view[...] = x
    return view


def assert_bits(got, want):
    assert len(got) == len(want)
    for i, (a, b) in enumerate(zip(got, want, strict=True)):
        assert (a.shape, a.dtype) == (b.shape, b.dtype), i
    for i, (a, b) in enumerate(zip(calls.bits(got), calls.bits(want), strict=True)):
        assert a == b, f"result {i} differs in {np.count_nonzero(got[i] != want[i])} of {got[i].size}"


@each_call
@given(st.data())
def test_the_formula(name, draw):
    """Any shape, axes and type; one of the instruction sets; 1 to 3 threads."""
    draw = draw.draw
    call, dtype = draw(chosen(name, needs_long_groups(name))), draw(dtypes)
    arrays, eps = arguments(draw, call, dtype), draw(st.sampled_from([1e-5, 0.5, 0.0]))
    op.use_isa(draw(st.sampled_from(op.available_isas())))
    op.set_num_threads(draw(st.integers(1, 3)))
    found = calls.faults(call, call.results(arrays, eps), arrays, eps)
    assert not found, found


# The larger ones are cut: for threads, and where rows are brought some at a time.
sizes = st.sampled_from([4000, 4000, 60000])


@each_call
@given(st.data())
def test_strides(name, draw):
    """The same bits whatever the strides of each argument and of the result, in x's place too, by 1 to 3 threads."""
    draw = draw.draw
    call, dtype = draw(chosen(name, most=draw(sizes))), draw(dtypes)
    arrays = arguments(draw, call, dtype)
    want = call.results(arrays)
    views = {key: draw(laid_out(array)) for key, array in arrays.items()}
    assert all(views[key].tobytes() == arrays[key].tobytes() for key in arrays)
    in_place = len(call.outs) == 1 and draw(st.booleans())
    outs = {key: views["x"] if in_place else draw(laid_out(arrays["x"] * 0)) for key in call.outs}
    op.set_num_threads(draw(st.integers(1, 3)))
    got = call.results(views, **outs)
    assert_bits(got, want)
    assert all(got[i] is out for i, out in enumerate(outs.values()))


@each_call
@given(st.data())
def test_shared_elements(name, draw):
    """Rows that overlap, or are one and the same: the bits of a copy, and nothing is written where x lies."""
    draw = draw.draw
    call, dtype = draw(chosen(name, most=draw(sizes))), draw(dtypes)
    steps = [draw(st.sampled_from([0, 1, 1, 2, 3, 8, *call.shape])) for _ in call.shape]
    held = 1 + sum((n - 1) * step for n, step in zip(call.shape, steps, strict=True))
    memory = np.random.default_rng(draw(seeds)).standard_normal(held).astype(calls.DTYPES[dtype])
    if draw(st.booleans()):
        memory[draw(st.integers(0, held - 1))] = np.nan
    before = memory.tobytes()
    x = np.lib.stride_tricks.as_strided(memory, call.shape, [step * memory.itemsize for step in steps])
    arrays = calls.arguments(call, memory.dtype, draw(seeds))
    want = call.results({**arrays, "x": x.copy()})
    outs = {key: draw(laid_out(x * 0)) for key in call.outs} if draw(st.booleans()) else {}
    op.set_num_threads(draw(st.integers(1, 3)))
    assert_bits(call.results({**arrays, "x": x}, **outs), want)
    assert memory.tobytes() == before


SCALED = [name for name in calls.CALLS if "inference" not in name and name.split()[0] != "moments"]


@pytest.mark.parametrize("name", SCALED)
@given(st.data())
def test_scaling_by_powers_of_two(name, draw):
    """With eps 0, y is that of 2^k x to the bit; dx is 2^-k times what it was."""
    draw = draw.draw
    call, dtype = draw(chosen(name)), draw(st.sampled_from(["float32", "float64"]))
    arrays, k = arguments_in_range(draw, call, dtype), draw(st.integers(-30, 30))
    scale = calls.DTYPES[dtype].type(2.0**k)
    scaled = {key: array * scale if key in ("x", "residual") else array for key, array in arrays.items()}
    want, got = call.results(arrays, 0.0)[0], call.results(scaled, 0.0)[0]
    if call.kind == "gradient":
        got = got * scale
    assert_bits([got], [want])


def arguments_in_range(draw, call, dtype):
    """Neither x nor its squares come near the ends of the range."""
    seed = draw(seeds)
    name = draw(st.sampled_from(["N(0, 1)", "N(1e4, 1)", "N(-1e7, 100)", "exp(3N)", "outlier first"]))
    x = call.scattered(datasets.hard(name, calls.DTYPES[dtype], call.places().shape, seed))
    arrays = calls.arguments(call, calls.DTYPES[dtype], seed, x)
    if call.kind != "moments" and "mask" in arrays:
        arrays["mask"][...] = True
    return arrays


@pytest.mark.parametrize("name", [name for name in calls.CALLS if name.split()[0] == "moments"])
@given(st.data())
def test_scaling_moments_by_powers_of_two(name, draw):
    draw = draw.draw
    call, dtype = draw(chosen(name)), draw(st.sampled_from(["float32", "float64"]))
    arrays, k = arguments_in_range(draw, call, dtype), draw(st.integers(-30, 30))
    count, mean, m2 = call.results(arrays)
    scaled = {**arrays, "x": arrays["x"] * calls.DTYPES[dtype].type(2.0**k)}
    assert_bits(call.results(scaled), [count, mean * 2.0**k, m2 * 4.0**k])


SHIFTED = [name for name in SCALED if calls.usual(name)[0].centred and not name.startswith("add")]


@pytest.mark.parametrize("name", SHIFTED)
@given(st.data())
def test_shifting_x(name, draw):
    """x + c is as near to the formula of x as x is, where the sum is exact."""
    draw = draw.draw
    call, dtype = draw(chosen(name, needs_long_groups(name))), draw(st.sampled_from(["float32", "float64"]))
    rng = np.random.default_rng(draw(seeds))
    x = (rng.integers(-128, 128, call.shape) / 16).astype(calls.DTYPES[dtype])
    arrays = calls.arguments(call, calls.DTYPES[dtype], draw(seeds), x)
    shift = draw(st.sampled_from([-1, 1])) * x.dtype.type(2.0 ** draw(st.integers(0, 18)))
    moved = {**arrays, "x": x + shift}
    assert np.array_equal(moved["x"] - shift, x)
    found = calls.faults(call, call.results(moved), arrays)
    assert not found, f"shifted by {shift}: {found}"


@pytest.mark.parametrize("name", [name for name in calls.CALLS if calls.CALLS[name]((4, 5, 6), 1).rows])
@given(st.data())
def test_permuting_rows(name, draw):
    """Rows in another order, some left out, some twice: each has the bits that it had."""
    draw = draw.draw
    call, dtype = draw(chosen(name, rows=True)), draw(dtypes)
    assert call.rows
    arrays = arguments(draw, call, dtype)
    places = draw(st.lists(st.integers(0, call.shape[0] - 1), min_size=1, max_size=20))
    along = ("data", "mask", "weights")
    lie_along = {"x", *(key for key, taken in call.takes.items() if taken.role in along)}
    other = calls.CALLS[name]((len(places), *call.shape[1:]), call.axis)
    want = call.results(arrays)
    got = other.results({key: array[places] if key in lie_along else array for key, array in arrays.items()})
    assert_bits([got[i] for i in call.rows], [want[i][places] for i in call.rows])


@given(st.data())
def test_merging_in_any_grouping(draw):
    """Batches of any lengths, some empty, merged along any tree."""
    draw = draw.draw
    dtype, n, c = draw(
        st.tuples(st.sampled_from(["float32", "float64"]), st.integers(1, 300), st.integers(1, 5))
    )
    name, seed = draw(st.sampled_from([*datasets.HARD, *datasets.MORE])), draw(seeds)
    x = np.ascontiguousarray(datasets.hard(name, calls.DTYPES[dtype], (c, n), seed).T)
    places = sorted(draw(st.lists(st.integers(0, n), max_size=8)))
    parts = [op.moments(part) for part in np.split(x, places)]
    parts = draw(st.permutations(parts))
    while len(parts) > 1:  # merge some neighbours, until one is left
        at = draw(st.integers(0, len(parts) - 2))
        width = draw(st.integers(2, len(parts) - at))
        merged = parts[at] + parts[at + 1] if width == 2 else op.Moments.merge(parts[at : at + width])
        parts = [*parts[:at], merged, *parts[at + width :]]
    m = parts[0]
    assert m.count == n
    call = calls.CALLS["moments"](x.shape, 0)
    found = calls.faults(call, [np.asarray(m.count), m.mean, m.m2], {"x": x})
    assert not found, found


@pytest.mark.parametrize("how", ["masked", "weighted", "skipna"])
@given(st.data())
def test_merging_what_counts(how, draw):
    """The parts of masked or weighted data count differently, and may count nothing."""
    draw = draw.draw
    n, c, seed = draw(st.integers(1, 100)), draw(st.integers(1, 5)), draw(seeds)
    whole = calls.CALLS[f"moments {how}"]((n, c), 0)
    arrays = calls.arguments(whole, np.dtype(np.float32), seed)
    places = sorted(draw(st.lists(st.integers(0, n), max_size=5)))
    cuts = {key: np.split(array, places) for key, array in arrays.items()}
    parts = []
    for i in range(len(places) + 1):
        part = {key: arrays_[i] for key, arrays_ in cuts.items()}
        options = {"masked": ("mask", part.get("mask")), "weighted": ("weights", part.get("weights"))}
        key, value = options.get(how, ("skipna", True))
        parts.append(op.moments(part["x"], **{key: value}))
    m = op.Moments.merge(parts)
    found = calls.faults(whole, [np.broadcast_to(m.count, c), m.mean, m.m2], arrays)
    assert not found, found


GRADIENTS = [name for name in calls.CALLS if "_backward" in name and "inference" not in name]


@pytest.mark.parametrize("name", GRADIENTS)
@given(st.data())
def test_gradients_are_orthogonal(name, draw):
    """With unit weights no gradient points along what the statistics take away: sum dx = 0 and sum dx xhat = 0."""
    draw = draw.draw
    call, dtype = draw(chosen(name, long_groups=True)), draw(st.sampled_from(["float32", "float64"]))
    arrays = arguments(draw, call, dtype)
    arrays["weight"][...] = 1
    if "mask" in arrays:
        arrays["mask"][...] = True
    dx = ref.wide(call.groups(call.results(arrays, 0.0)[0]))
    xhat = forward.normalized(call, arrays, 0.0)[0] if call.centred else call.groups(ref.wide(arrays["x"]))
    size = call.groups(call.size(arrays, 0.0)).max(1)
    n = dx.shape[1]
    room = calls.UNITS["gradient"] * np.finfo(dtype).eps / 2 * size * n
    if call.centred:
        assert (np.abs(dx.sum(1)) <= room).all()
    assert (np.abs((dx * xhat).sum(1)) <= room * np.abs(xhat).max(1)).all()
