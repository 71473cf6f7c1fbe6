"""group_norm_backward and instance_norm_backward in every layout: digits, masks, range, NaN, strides, errors."""

import re

import datasets
import gradients
import grouped
import numpy as np
import pytest
from gradients import WELL, given_dy, weight_of
from grouped import GROUP, INSTANCE, Norm

import onepass as op

F32 = np.float32

BOTH = [*GROUP, *INSTANCE]
each_norm = pytest.mark.parametrize("norm", BOTH, ids=str)
SMALL = [
    *[Norm("group_norm", shape, axis, groups)
      for shape, axis, groups in (((3, 4, 5), 1, 2), ((3, 5, 4), -1, 2), ((2, 4, 2, 3), 1, 1), ((2, 3, 4, 2), 2, 2),
                                  ((2, 2, 3, 4), -1, 4), ((3, 8), 1, 2), ((2, 8), -1, 1))],
    *[Norm("instance_norm", shape, axis) for shape, axis in (((2, 3, 6), 1), ((2, 6, 3), -1), ((2, 2, 3, 3), 2))],
]  # fmt: skip
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
@each_norm
def test_the_ends_of_the_range(norm, name, dtype):
    rows = norm.rows(np.empty(norm.shape, np.bool_)).shape
    x = np.ascontiguousarray(norm.back(datasets.extreme(name, dtype, rows)))
    for mask in (None, norm.mask()):
        got = gradients.check(norm, given_dy(norm, dtype), x, weight_of(norm, dtype), mask, 0.0)
        assert all(np.isfinite(a).all() for a in got)
    among = norm.data("N(0, 1)", dtype)
    among[-1] = x[-1]
    gradients.check(norm, given_dy(norm, dtype), among, weight_of(norm, dtype), None, 0.0)


@pytest.mark.parametrize("norm", grouped.SOME[4:], ids=str)
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


def test_instance_norm_is_a_group_a_channel(dtype):
    for norm in INSTANCE:
        x, dy, weight = norm.data("N(1e4, 1)", dtype), given_dy(norm, dtype), weight_of(norm, dtype)
        as_groups = Norm("group_norm", norm.shape, norm.axis, norm.channels)
        for mask in (None, norm.mask()):
            got, expected = (n.backward(dy, x, weight, mask=mask) for n in (norm, as_groups))
            assert all(np.array_equal(a, b) for a, b in zip(got, expected, strict=True)), norm


def test_a_sample_at_a_time(dtype):
    """dx has the bits that it has of a sample alone; dweight and dbias are the sums of the samples'."""
    for norm in BOTH:
        if norm.shape[0] == 1:
            continue
        x, dy, weight = norm.data("N(0, 1)", dtype), given_dy(norm, dtype), weight_of(norm, dtype)
        dx, dweight, dbias = norm.backward(dy, x, weight)
        alone = [
            Norm(norm.function, (1, *norm.shape[1:]), norm.axis, norm.groups).backward(
                d[None], s[None], weight
            )
            for d, s in zip(dy, x, strict=True)
        ]
        assert np.array_equal(dx, np.concatenate([a[0] for a in alone])), norm
        for i, whole in ((1, dweight), (2, dbias)):
            parts = np.stack([a[i] for a in alone])
            room = len(parts) * np.finfo(dtype).eps * np.abs(parts).max(0)
            assert (np.abs(whole - parts.sum(0, dtype=np.float64)) <= room).all(), norm


def test_defaults(dtype):
    x, dy = datasets.hard("N(0, 1)", dtype, (6, 4, 5)), datasets.hard("N(0, 1)", dtype, (6, 4, 5), 1)
    for function, groups in ((op.group_norm_backward, (2,)), (op.instance_norm_backward, ())):
        expected = function(dy, x, *groups, None, axis=1, eps=1e-5, mask=None)
        for got in (function(dy, x, *groups), function(dy, x, *groups, np.ones(4, dtype))):
            assert all(np.array_equal(a, b) for a, b in zip(got, expected, strict=True))


@pytest.mark.parametrize("padding", [0, 1e4, -1e30, np.nan, np.inf], ids=str)
@pytest.mark.parametrize("norm", grouped.SOME[4:], ids=str)
def test_padding_without_a_gradient(norm, padding, dtype):
    gradients.check_padding_without_a_gradient(norm, padding, dtype)


@each_norm
def test_nothing_valid(norm, dtype):
    gradients.check_nothing_valid(norm, dtype)


@each_norm
def test_constant_groups(norm, dtype):
    gradients.check_constants(norm, dtype)


@each_norm
def test_nan(norm, dtype):
    gradients.check_nan(norm, dtype)


@small_norm
def test_strides(norm, dtype):
    gradients.check_strides(norm, dtype)


@pytest.mark.parametrize("shape", [(0, 4, 3), (2, 4, 0), (2, 0, 3), (0, 0, 0), (2, 0, 3, 4)], ids=str)
def test_empty(shape, dtype):
    gradients.check_empty(Norm("group_norm", shape, 1, 2), dtype)
    gradients.check_empty(Norm("instance_norm", shape), dtype)
    turned = (shape[0], *shape[2:], shape[1])
    gradients.check_empty(Norm("group_norm", turned, -1, 1), dtype)
    gradients.check_empty(Norm("instance_norm", turned, -1), dtype)


@each_norm
def test_torch(norm, dtype):
    torch = pytest.importorskip("torch")
    functional = torch.nn.functional
    x, dy, weight = norm.data("N(0, 1)", dtype), given_dy(norm, dtype), weight_of(norm, dtype)
    if norm.groups is None:
        gradients.check_torch(torch, norm, functional.instance_norm, x, dy, weight)
    else:
        gradients.check_torch(torch, norm, functional.group_norm, x, dy, weight, (norm.groups,))


ONES = np.ones((3, 4, 5), F32)

WRONG = [
    (
        {"dy": np.ones((3, 5, 4), F32)},
        ValueError,
        "dy has shape (3, 5, 4); expected (3, 4, 5), the shape of x",
    ),
    ({"dy": np.ones((3, 4, 1), F32)}, ValueError, "dy has shape (3, 4, 1); expected (3, 4, 5)"),
    ({"dy": np.ones((3, 4, 5))}, TypeError, "dy has dtype float64; expected float32"),
    ({"dy": np.ones((3, 4, 5), np.float16)}, TypeError, "dy has dtype float16; expected float32"),
    ({"dy": [1.0]}, TypeError, "dy is list"),
    ({"dy": None}, TypeError, "dy is NoneType"),
    ({"x": [1.0]}, TypeError, "x is list"),
    ({"x": np.ones((3, 4, 5), int)}, TypeError, "x has dtype int64"),
    (
        {"x": np.ones(4, F32), "dy": np.ones(4, F32)},
        ValueError,
        "x has shape (4,); expected (samples, channels,",
    ),
    ({"weight": np.ones(4)}, TypeError, "weight has dtype float64; expected float32"),
    ({"weight": np.ones(5, F32)}, ValueError, "weight has shape (5,); expected (4,)"),
    ({"weight": np.ones((4, 1), F32)}, ValueError, "weight has shape (4, 1); expected (4,)"),
    ({"axis": 0}, ValueError, "axis is 0, the samples' axis"),
    ({"axis": -3}, ValueError, "axis is 0, the samples' axis"),
    ({"axis": 3}, ValueError, "axis 3 is out of range"),
    ({"axis": (1,)}, TypeError, "axis is tuple"),
    ({"eps": "1e-5"}, TypeError, "eps is str; expected a real number"),
]


@pytest.mark.parametrize("function", [op.group_norm_backward, op.instance_norm_backward])
@pytest.mark.parametrize(("given", "error", "words"), WRONG)
def test_wrong_input(function, given, error, words):
    given = {"dy": ONES.copy(), "x": ONES.copy(), **given}
    groups = (2,) if function is op.group_norm_backward else ()
    with pytest.raises(error, match=re.escape(words)):
        function(given.pop("dy"), given.pop("x"), *groups, **given)


@pytest.mark.parametrize(
    ("groups", "error", "words"),
    [
        (3, ValueError, "num_groups is 3; expected a divisor of the 4 channels"),
        (0, ValueError, "num_groups is 0; expected a divisor"),
        (-2, ValueError, "num_groups is -2; expected a divisor"),
        (None, TypeError, "num_groups is NoneType; expected an int"),
        (2.0, TypeError, "num_groups is float; expected an int"),
        (True, TypeError, "num_groups is bool; expected an int"),
        (np.ones(4, F32), TypeError, "num_groups is numpy.ndarray; expected an int"),
    ],
)
def test_wrong_groups(groups, error, words):
    with pytest.raises(error, match=re.escape(words)):
        op.group_norm_backward(ONES, ONES, groups)


def test_instances_have_a_spatial_axis():
    two = np.ones((3, 4), F32)
    with pytest.raises(ValueError, match="at least one spatial axis"):
        op.instance_norm_backward(two, two)
    assert op.group_norm_backward(two, two, 2)[0].shape == (3, 4)
