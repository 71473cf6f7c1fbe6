"""mask= as an argument: what it does to updates, with out and strides, which arrays it may be, and which it may not."""

import re

import datasets
import grouped
import layouts
import numpy as np
import pytest
import references as ref
from grouped import BATCH, SOME, UNITS, Norm

import onepass as op

F32 = np.float32

some_norm = pytest.mark.parametrize("norm", SOME, ids=str)


@pytest.mark.parametrize(("momentum", "running_ddof"), [(0.1, 1), (0.0, 0), (1.0, 0), (0.25, 0.5)])
@pytest.mark.parametrize("norm", BATCH, ids=str)
def test_updates_count_the_valid_elements(norm, momentum, running_ddof, dtype):
    for name in ("N(0, 1)", "N(1e6, 1)"):
        x, mask = norm.data(name, dtype), norm.mask()
        tokens = np.moveaxis(x, norm.axis, -1)[mask]
        old = np.linspace(1, 3, norm.channels).astype(dtype), np.linspace(0.5, 2, norm.channels).astype(dtype)
        mean, var = old[0].copy(), old[1].copy()
        given = {"momentum": momentum, "running_ddof": running_ddof}
        norm.forward(x, mask=mask, running_mean=mean, running_var=var, **given)
        want = ref.running_statistics(tokens, *old, momentum, running_ddof)
        sizes = np.abs(ref.wide(tokens)).max(0), ref.running_statistics(tokens, *old, 1.0, running_ddof)[1]
        for got, value, before, size in zip((mean, var), want, old, sizes, strict=True):
            unit = np.finfo(dtype).eps / 2 * np.maximum(before, size)
            assert (np.abs(got - value) <= UNITS * unit).all()
            assert momentum != 0 or np.array_equal(got, before)
        only = old[0].copy()
        norm.forward(x, mask=mask, running_mean=only, **given)
        assert np.array_equal(only, mean)


@pytest.mark.parametrize("count", [1, 2, 5])
def test_too_few_valid_elements_for_the_running_variance(count, dtype):
    x = datasets.hard("N(0, 1)", dtype, (6, 3))
    mask = np.arange(6) < count
    mean, var, out = np.ones(3, dtype), np.ones(3, dtype), np.full(x.shape, 7, dtype)
    call = {"running_mean": mean, "running_var": var, "training": True, "mask": mask, "out": out}
    elements = "1 unmasked element" if count == 1 else f"{count} unmasked elements"
    for ddof in (count, count + 1):
        words = f"x has {elements} a channel; updating running_var with running_ddof={ddof} expects more than that"
        with pytest.raises(ValueError, match=f"^{re.escape(words)}$"):
            op.batch_norm(x, running_ddof=ddof, **call)
        for untouched, value in ((mean, 1), (var, 1), (out, 7)):
            assert (untouched == value).all()
    op.batch_norm(x, **{**call, "running_var": None}, running_ddof=count)
    assert (mean != 1).all()
    op.batch_norm(x, running_ddof=count - 1, **call)
    assert (var != 1).all()


@pytest.mark.parametrize("running_ddof", [0, 1, 7])
def test_nothing_valid_leaves_running_statistics_alone(running_ddof, dtype):
    x = datasets.hard("N(0, 1)", dtype, (6, 3))
    mean, var = np.ones(3, dtype), np.ones(3, dtype)
    call = {"running_mean": mean, "running_var": var, "training": True, "running_ddof": running_ddof}
    assert np.isnan(op.batch_norm(x, mask=np.zeros(6, np.bool_), **call)).all()
    assert np.array_equal((mean, var), np.ones((2, 3)))


def test_given_statistics_know_no_mask(dtype, each_isa):
    for norm in BATCH:
        x, mask = norm.data("N(0, 1)", dtype), norm.mask()
        running = {
            "running_mean": np.full(norm.channels, 0.25, dtype),
            "running_var": np.full(norm.channels, 2, dtype),
        }
        plain = norm.forward(x, training=False, return_stats=True, **running)
        masked = norm.forward(x, training=False, return_stats=True, mask=mask, **running)
        assert all(np.array_equal(a, b) for a, b in zip(plain, masked, strict=True))
        with pytest.raises(ValueError, match="mask has shape"):
            norm.forward(x, training=False, mask=mask[1:], **running)


@some_norm
def test_out_in_place_and_strides(norm, dtype):
    x, mask = norm.data("N(1e4, 1)", dtype), norm.mask()
    weight, bias = datasets.weight_and_bias(dtype, norm.channels)
    kept, kept_mask = x.copy(), mask.copy()
    y, *stats = norm.forward(x, weight, bias, mask=mask, return_stats=True)
    assert np.array_equal(x, kept)
    assert np.array_equal(mask, kept_mask)
    for name, view in layouts.strided(x):
        got, *got_stats = norm.forward(view, weight, bias, mask=mask, return_stats=True)
        assert np.array_equal(got, y), name
        assert got.flags.c_contiguous, name
        assert all(np.array_equal(a, b) for a, b in zip(got_stats, stats, strict=True)), name
        out = dict(layouts.strided(np.zeros_like(x)))[name]
        assert norm.forward(x, weight, bias, mask=mask, out=out) is out, name
        assert np.array_equal(out, y), name
        assert norm.forward(view, weight, bias, mask=mask, out=view) is view, name
        assert np.array_equal(view, y), name
    assert norm.forward(x, weight, bias, mask=mask, out=x) is x
    assert np.array_equal(x, y)


@some_norm
def test_masks_of_any_stride(norm, dtype):
    x, mask = norm.data("N(0, 1)", dtype), norm.mask()
    expected = norm.forward(x, mask=mask)
    for name, view in layouts.strided(mask):
        assert np.array_equal(view, mask)
        assert np.array_equal(norm.forward(x, mask=view), expected), name
    read_only = mask.copy()
    read_only.flags.writeable = False
    assert np.array_equal(norm.forward(x, mask=read_only), expected)
    lengths = np.broadcast_to(np.arange(norm.mask_shape[-1]) != 0, norm.mask_shape)  # no memory of its own
    assert np.array_equal(norm.forward(x, mask=lengths), norm.forward(x, mask=lengths.copy()))


class Asks:
    def __init__(self, array):
        self.array = array

    def __array__(self, dtype=None, copy=None):
        return self.array


@some_norm
def test_what_asarray_views_as_bool(norm):
    x, mask = norm.data("N(0, 1)", F32), norm.mask()
    expected = norm.forward(x, mask=mask)
    for like in (memoryview(mask), Asks(mask)):
        assert np.array_equal(norm.forward(x, mask=like), expected), type(like)


def test_a_tensor_of_bool():
    torch = pytest.importorskip("torch")
    x = datasets.hard("N(0, 1)", F32, (4, 3, 5))
    mask = torch.arange(5) < torch.tensor([5, 1, 3, 2])[:, None]
    y = op.batch_norm(torch.from_numpy(x), training=True, mask=mask)
    assert np.array_equal(y, op.batch_norm(x, training=True, mask=mask.numpy()))


@pytest.mark.parametrize("shape", [(0, 4, 3), (2, 4, 0), (2, 0, 3)])
def test_empty(shape, dtype):
    x, mask = np.empty(shape, dtype), np.ones((shape[0], shape[2]), np.bool_)
    for norm in (Norm("batch_norm", shape), Norm("group_norm", shape, 1, 2), Norm("instance_norm", shape)):
        y, mean, rstd = norm.forward(x, mask=mask, return_stats=True)
        assert (y.shape, y.dtype) == (shape, dtype)
        assert np.isnan(mean).all()
        assert np.isnan(rstd).all()


def test_a_mask_without_dimensions(dtype):
    """That of a single sample of channels alone."""
    x = np.arange(5, dtype=dtype)
    for valid in (True, False):
        got = op.batch_norm(x, training=True, axis=0, mask=np.array(valid), return_stats=True)
        want = op.batch_norm(x[None], training=True, axis=-1, mask=np.array([valid]), return_stats=True)
        for a, b in zip(got, want, strict=True):
            assert np.array_equal(a, b.reshape(a.shape), equal_nan=True)


def test_any_byte_of_a_mask_that_is_not_0_is_true(dtype):
    """np.bool_ holds 0 or 1, but a view of other bytes may hold more."""
    for norm in SOME:
        x, mask = norm.data("N(0, 1)", dtype), norm.mask()
        bytes_ = np.where(mask, np.random.default_rng(0).integers(1, 256, mask.shape), 0).astype(np.uint8)
        y = norm.forward(x, mask=bytes_.view(np.bool_))
        assert np.array_equal(y, norm.forward(x, mask=mask)), norm


SHAPE = (4, 6, 5)
FORWARD = [Norm("batch_norm", SHAPE), Norm("group_norm", SHAPE, 1, 2), Norm("instance_norm", SHAPE)]
WRONG = {
    "a list": ([[True] * 5] * 4, TypeError, "mask is list; expected a NumPy array of bool"),
    "a bool": (True, TypeError, "mask is bool; expected a NumPy array of bool"),
    "a str": ("mask", TypeError, "mask is str"),
    "int64": (np.ones((4, 5), np.int64), TypeError, "mask has dtype int64; expected bool"),
    "uint8": (np.ones((4, 5), np.uint8), TypeError, "mask has dtype uint8; expected bool"),
    "float32": (np.ones((4, 5), F32), TypeError, "mask has dtype float32; expected bool"),
    "objects": (np.ones((4, 5), object), TypeError, "mask has dtype object; expected bool"),
    "a memoryview of floats": (memoryview(np.ones((4, 5), F32)), TypeError, "mask has dtype float32"),
    "the shape of x": (
        np.ones(SHAPE, np.bool_),
        ValueError,
        "mask has shape (4, 6, 5); expected (4, 5), the shape of x",
    ),
    "channels": (
        np.ones((4, 6), np.bool_),
        ValueError,
        "mask has shape (4, 6); expected (4, 5), the shape of x without",
    ),
    "that would broadcast": (np.ones((1, 5), np.bool_), ValueError, "mask has shape (1, 5); expected (4, 5)"),
    "of samples": (np.ones(4, np.bool_), ValueError, "mask has shape (4,); expected (4, 5)"),
    "0d": (np.array(True), ValueError, "mask has shape (); expected (4, 5)"),
    "transposed": (np.ones((5, 4), np.bool_), ValueError, "mask has shape (5, 4); expected (4, 5)"),
    "of no elements": (np.ones((4, 0), np.bool_), ValueError, "mask has shape (4, 0); expected (4, 5)"),
}


@pytest.mark.parametrize("norm", FORWARD, ids=str)
@pytest.mark.parametrize(("mask", "error", "words"), WRONG.values(), ids=WRONG)
def test_wrong_masks(norm, mask, error, words, dtype):
    """The error, forward and backward, and nothing has been written."""
    x, out = norm.data("N(0, 1)", dtype), np.full(SHAPE, 7, dtype)
    running = {}
    if norm.of_batch:
        running = {name: np.ones(6, dtype) for name in ("running_mean", "running_var")}
    for call in (
        lambda: norm.forward(x, mask=mask, out=out, **running),
        lambda: norm.forward(x, mask=mask, out=x, **running),
        lambda: norm.backward(x, x, mask=mask),
    ):
        with pytest.raises(error) as caught:
            call()
        assert words in str(caught.value)
        assert (out == 7).all()
        assert np.array_equal(x, norm.data("N(0, 1)", dtype))
        assert all((statistic == 1).all() for statistic in running.values())


def test_masks_of_other_layouts_are_wrong():
    """The mask has x's axes without the channels', wherever these are."""
    x = np.ones((4, 5, 6), F32)
    good = np.ones((4, 5), np.bool_)
    assert not op.batch_norm(x, training=True, axis=-1, mask=good).any()
    assert not op.group_norm(x, 2, axis=-1, mask=good).any()
    for call in (
        lambda mask: op.batch_norm(x, training=True, axis=-1, mask=mask),
        lambda mask: op.instance_norm(x, axis=2, mask=mask),
        lambda mask: op.batch_norm(x, training=True, axis=0, mask=mask),
    ):
        with pytest.raises(ValueError, match=r"mask has shape \(4, 6\); expected"):
            call(np.ones((4, 6), np.bool_))
    assert (
        grouped.forward(Norm("batch_norm", (4, 5, 6), 0), x, mask=np.ones((5, 6), np.bool_)).shape == x.shape
    )
    assert not op.batch_norm(x, training=True, axis=0, mask=np.ones((5, 6), np.bool_)).any()
