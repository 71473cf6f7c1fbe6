"""The layers: each is its function with arrays kept."""

import copy
import pickle
from functools import partial

import numpy as np
import pytest
from layer_kinds import (
    BFLOAT16,
    DTYPES,
    F32,
    KINDS,
    assert_same,
    bits,
    data,
    each_dtype,
    each_kind,
    each_masked_kind,
    mask_for,
    running_dtype,
    trained,
)

import onepass as op


@each_dtype
@each_kind
def test_a_fresh_layer(kind, dtype):
    layer = kind.make(dtype=dtype)
    state = layer.state_dict()
    assert list(state) == kind.names
    for name, array in state.items():
        assert type(array) is np.ndarray
        assert array is getattr(layer, name)
        assert array.dtype == (running_dtype(dtype) if name.startswith("running") else dtype)
        assert array.shape == kind.affine
        assert np.all(array == (1 if name in ("weight", "running_var") else 0))
    assert layer.training is False
    assert (type(layer.dtype), layer.dtype) == (type(dtype), dtype)
    assert kind.make().dtype == np.float32
    assert kind.make(dtype=dtype.type).dtype == dtype


@each_dtype
@each_kind
def test_a_call_is_the_function(kind, dtype):
    """Bit for bit: new, out, in place."""
    layer, x = trained(kind, dtype=dtype), data(kind, dtype)
    before = x.copy(), bits(layer.state_dict())
    y = layer(x)
    assert_same(y, kind.norm(x, **layer.state_dict()))
    out = np.empty_like(x)
    assert layer(x, out=out) is out
    assert_same(out, y)
    assert_same(x, before[0])
    assert bits(layer.state_dict()) == before[1]
    assert layer(x, out=x) is x
    assert_same(x, y)


@each_dtype
@each_kind
def test_training(kind, dtype):
    """Batch norm takes the batch's statistics and updates its own, in place; the others are as before."""
    layer, x = trained(kind, dtype=dtype), data(kind, dtype)
    held, given = layer.state_dict(), copy.deepcopy(layer.state_dict())
    before = bits(given)
    layer.training = True
    assert_same(layer(x), kind.norm(x, **given, **({"training": True} if kind.has_running else {})))
    assert bits(layer.state_dict()) == bits(given)
    for name, array in held.items():
        assert array is getattr(layer, name)
    changed = {name for name, array in bits(given).items() if array != before[name]}
    assert changed == ({"running_mean", "running_var"} if kind.has_running else set())


@pytest.mark.parametrize("ddof", [0, 1])
def test_running_ddof(ddof):
    layer, x = op.BatchNorm(2, running_ddof=ddof, momentum=1), data(KINDS[0], F32)[0, :, :2]
    layer.training = True
    layer(x)
    np.testing.assert_allclose(layer.running_var, x.var(0, ddof=ddof), rtol=1e-6)


@pytest.mark.parametrize("x_dtype", DTYPES[2:], ids=str)
@each_kind
def test_a_layer_of_float32_takes_16_bits(kind, x_dtype):
    layer, x = trained(kind), data(kind, x_dtype)
    assert_same(layer(x), kind.norm(x, **layer.state_dict()))


@pytest.mark.parametrize("kind", [k for k in KINDS if k.has_bias], ids=lambda kind: kind.name)
def test_without_a_bias(kind):
    layer, x = trained(kind, bias=False), data(kind, F32)
    assert layer.bias is None
    assert list(layer.state_dict()) == [name for name in kind.names if name != "bias"]
    assert_same(layer(x), kind.norm(x, **layer.state_dict()))
    assert "bias=False" in repr(layer)


@each_dtype
@each_masked_kind
def test_a_masked_call_is_the_masked_function(kind, dtype):
    """Bit for bit: new, out, in place; in training the running statistics are those of the valid elements."""
    x, mask = data(kind, dtype), mask_for(kind)
    for training in (False, True):
        layer = trained(kind, dtype=dtype)
        layer.training = training
        flags = {"training": training} if kind.has_running else {}
        masked, plain = copy.deepcopy(layer.state_dict()), copy.deepcopy(layer.state_dict())
        expected, unmasked = kind.norm(x, **masked, **flags, mask=mask), kind.norm(x, **plain, **flags)
        assert not np.isnan(expected).any()
        if training or not kind.has_running:
            assert not np.array_equal(expected, unmasked)
        in_place, into, without = (copy.deepcopy(layer) for _ in range(3))
        assert_same(layer(x, mask=mask), expected)
        assert bits(layer.state_dict()) == bits(masked)
        out = np.empty_like(x)
        assert into(x, mask=memoryview(mask), out=out) is out
        assert_same(out, expected)
        out[...] = x
        assert in_place(out, mask=mask, out=out) is out
        assert_same(out, expected)
        assert_same(without(x, mask=None), unmasked)
        assert bits(without.state_dict()) == bits(plain)


@each_masked_kind
def test_a_wrong_mask_is_the_functions_error(kind):
    layer, x = trained(kind), data(kind, F32)
    layer.training = True
    before = bits(layer.state_dict())
    for mask in (np.ones(x.shape, bool), mask_for(kind).astype(F32), mask_for(kind).tolist()):
        with pytest.raises((TypeError, ValueError), match=r"^mask (has|is) ") as wanted:
            kind.norm(x, **layer.state_dict(), mask=mask)
        with pytest.raises(type(wanted.value)) as caught:
            layer(x, mask=mask)
        assert str(caught.value) == str(wanted.value)
    assert bits(layer.state_dict()) == before


@each_kind
def test_a_wrong_x_is_the_functions_error(kind):
    layer = kind.make()
    for x in (np.ones((2,) * len(kind.shape), F32), data(kind, np.float64), [[1.0]]):
        with pytest.raises((TypeError, ValueError)) as wanted:
            kind.norm(x, **layer.state_dict())
        with pytest.raises(type(wanted.value)) as caught:
            layer(x)
        assert str(caught.value) == str(wanted.value)


@pytest.mark.parametrize(
    ("layer", "shown"),
    [
        (op.LayerNorm(4), "LayerNorm((4,), eps=1e-05, bias=True, dtype=float32)"),
        (
            op.LayerNorm([2, 3], dtype="f8", bias=False),
            "LayerNorm((2, 3), eps=1e-05, bias=False, dtype=float64)",
        ),
        (op.RMSNorm(4), "RMSNorm((4,), eps=None, dtype=float32)"),
        (op.RMSNorm((4,), eps=1e-6), "RMSNorm((4,), eps=1e-06, dtype=float32)"),
        (
            op.BatchNorm(3, dtype=np.float16, running_ddof=0),
            "BatchNorm(3, eps=1e-05, momentum=0.1, running_ddof=0.0, bias=True, axis=1, dtype=float16)",
        ),
        (
            op.GroupNorm(2, 4, axis=-1, dtype=BFLOAT16),
            "GroupNorm(2, 4, eps=1e-05, bias=True, axis=-1, dtype=bfloat16)",
        ),
        (op.InstanceNorm(np.int64(4)), "InstanceNorm(4, eps=1e-05, bias=True, axis=1, dtype=float32)"),
    ],
)
def test_repr(layer, shown):
    assert repr(layer) == shown


@pytest.mark.parametrize("again", [copy.deepcopy, lambda layer: pickle.loads(pickle.dumps(layer))])
@each_dtype
@each_kind
def test_copies(kind, dtype, again):
    layer, x = trained(kind, dtype=dtype), data(kind, dtype)
    layer.training = True
    twin = again(layer)
    assert (repr(twin), twin.training, bits(twin.state_dict())) == (
        repr(layer),
        True,
        bits(layer.state_dict()),
    )
    before = bits(layer.state_dict())
    y = twin(x)
    twin.weight[...] = 5
    assert bits(layer.state_dict()) == before
    assert_same(y, layer(x))


@pytest.mark.parametrize(
    ("make", "error", "says"),
    [
        (lambda: op.LayerNorm(2.0), TypeError, "shape is float; expected an int or a tuple of ints"),
        (lambda: op.LayerNorm((2, "3")), TypeError, "shape is str; expected an int or a tuple of ints"),
        (lambda: op.RMSNorm(True), TypeError, "shape is bool; expected"),
        (lambda: op.RMSNorm(np.ones(2)), TypeError, "shape is ndarray; expected"),
        (lambda: op.RMSNorm(()), ValueError, "shape is an empty tuple; expected at least one axis"),
        (lambda: op.LayerNorm((2, -1)), ValueError, "shape is -1; expected .* at least 0"),
        (lambda: op.BatchNorm((3,)), TypeError, "channels is tuple; expected an int"),
        (lambda: op.InstanceNorm(-3), ValueError, "channels is -3; expected"),
        (lambda: op.GroupNorm(2.0, 4), TypeError, "groups is float; expected an int"),
        (lambda: op.GroupNorm(3, 4), ValueError, "groups is 3; expected a divisor of the 4 channels"),
        (lambda: op.GroupNorm(0, 4), ValueError, "groups is 0; expected a divisor"),
        (lambda: op.GroupNorm(-2, 4), ValueError, "groups is -2; expected a divisor"),
        (lambda: op.GroupNorm(2, 4, axis=(1,)), TypeError, "axis is tuple; expected an int"),
        (lambda: op.LayerNorm(2, eps="1e-5"), TypeError, "eps is str; expected a real number"),
        (lambda: op.LayerNorm(2, eps=None), TypeError, "eps is NoneType; expected a real number"),
        (lambda: op.RMSNorm(2, eps=1j), TypeError, "eps is complex; expected a real number"),
        (lambda: op.RMSNorm(2, eps=np.ones(2)), TypeError, "eps is ndarray; expected a real number"),
        (lambda: op.BatchNorm(2, momentum=None), TypeError, "momentum is NoneType; expected a real number"),
        (lambda: op.BatchNorm(2, running_ddof="1"), TypeError, "running_ddof is str; expected a real number"),
        (lambda: op.LayerNorm(2, bias=np.zeros(2)), TypeError, "bias is ndarray; expected a bool"),
        (lambda: op.LayerNorm(2, bias=None), TypeError, "bias is NoneType; expected a bool"),
        *[
            (partial(op.InstanceNorm, 2, dtype=dtype), TypeError, f"dtype is {shown}; expected .*ml_dtypes.bfloat16")
            for dtype, shown in ((int, "int64"), (">f4", ">f4"), (None, "None"), ("f23", "f23"), ("f4,f4", r"\[.*\]"))
        ],
    ],
)  # fmt: skip
def test_wrong_settings(make, error, says):
    with pytest.raises(error, match=says):
        make()
