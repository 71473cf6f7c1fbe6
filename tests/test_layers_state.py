"""The layers' states: what torch, safetensors and NumPy have saved loads as it is; after an error nothing has changed."""

import numpy as np
import pytest
import references as ref
import safetensors
import safetensors.numpy
from layer_kinds import (
    BFLOAT16,
    DTYPES,
    F32,
    assert_same,
    bits,
    data,
    each_dtype,
    each_kind,
    random_state,
    running_dtype,
    trained,
)

import onepass as op


@each_dtype
@each_kind
def test_torch(kind, dtype):
    """torch's own state dict, then inference and three batches of training beside it."""
    torch = pytest.importorskip("torch")
    module = kind.module(torch.nn).to(getattr(torch, dtype.name))
    with torch.no_grad():
        for name, array in random_state(kind.make()).items():
            getattr(module, name).copy_(torch.from_numpy(array))
    state = {name: t.float() if t.dtype == torch.bfloat16 else t for name, t in module.state_dict().items()}
    assert kind.has_running == ("num_batches_tracked" in state)
    layer = kind.make(dtype=dtype)
    layer.load_state_dict(state)
    for name in kind.names:
        assert np.array_equal(
            getattr(layer, name), state[name].numpy().astype(dtype).astype(getattr(layer, name).dtype)
        )
        assert not np.shares_memory(getattr(layer, name), state[name].numpy())

    # Within 16 bits torch rounds more than once.
    module = module.to(getattr(torch, running_dtype(dtype).name))

    def compare(seed):
        x = data(kind, dtype, seed)
        first = torch.from_numpy(np.moveaxis(x, kind.axis, 1).astype(running_dtype(dtype)))
        expected = np.moveaxis(module(first).detach().numpy(), 1, kind.axis)
        if dtype.itemsize == 2:
            assert ref.steps(layer(x), expected).max() <= 1
        else:
            assert ref.units(layer(x), expected, None) <= 8

    module.eval()
    compare(2)
    module.train()
    layer.training = True
    for seed in (3, 4, 5):
        compare(seed)
    for name in kind.names:
        wanted = module.state_dict()[name].numpy()
        np.testing.assert_allclose(
            getattr(layer, name), wanted, rtol=8 * np.finfo(wanted.dtype).eps, err_msg=name
        )


@each_kind
def test_torch_loads_a_state(kind):
    torch = pytest.importorskip("torch")
    layer, module = trained(kind), kind.module(torch.nn)
    module.load_state_dict(
        {name: torch.from_numpy(array) for name, array in layer.state_dict().items()}, strict=True
    )
    for name, array in layer.state_dict().items():
        assert np.array_equal(module.state_dict()[name].numpy(), array)


def npz(path, state):
    np.savez(path / "state.npz", **state)
    return np.load(path / "state.npz")


def safetensors_file(path, state):
    safetensors.numpy.save_file(state, path / "state.safetensors")
    return safetensors.numpy.load_file(path / "state.safetensors")


@pytest.mark.parametrize("prefix", ["", "encoder.1.norm."])
@pytest.mark.parametrize("saved", [npz, safetensors_file])
@each_dtype
@each_kind
def test_files(kind, dtype, saved, prefix, tmp_path):
    """As they are: the same bits come back, whatever other layers the file holds; other dtypes are converted."""
    state = random_state(kind.make(dtype=dtype))
    model = {prefix + name: array for name, array in state.items()}
    if prefix:
        model |= {
            "encoder.1.norm2.weight": np.ones(2, F32),
            "weight": np.ones(9, F32),
            "x." + prefix + "a": np.ones(1),
        }
    model[prefix + "num_batches_tracked"] = np.array(7)
    loaded = saved(tmp_path, model)
    layer = kind.make(dtype=dtype)
    held = layer.state_dict()
    assert layer.load_state_dict(loaded, prefix) is None
    assert bits(layer.state_dict()) == bits(state)
    assert all(array is held[name] for name, array in layer.state_dict().items())
    if (saved, dtype) != (npz, BFLOAT16):
        for other in DTYPES:
            layer = kind.make(dtype=other)
            layer.load_state_dict(loaded, prefix=prefix)
            for name, array in layer.state_dict().items():
                assert_same(array, state[name].astype(array.dtype))
    getattr(loaded, "close", lambda: None)()


def test_values_of_other_kinds():
    layer = op.LayerNorm(3)
    layer.load_state_dict({"weight": np.array([1, 2, 3]), "bias": memoryview(np.array([True, False, True]))})
    assert np.array_equal(layer.weight, [1, 2, 3])
    assert np.array_equal(layer.bias, [1, 0, 1])
    layer.load_state_dict({"weight": layer.bias, "bias": layer.weight})  # its own memory, crosswise
    assert np.array_equal(layer.weight, [1, 0, 1])
    assert np.array_equal(layer.bias, [1, 2, 3])


class Unreadable(dict):
    def __getitem__(self, key):
        if key == "running_var":
            raise OSError("the disk")
        return super().__getitem__(key)


GOOD = {name: np.full(3, 0.5) for name in ("weight", "bias", "running_mean", "running_var")}
MODEL = {"norm." + name: array for name, array in GOOD.items()} | {f"conv{i}.w": np.ones(2) for i in range(9)}
WITHOUT = {name: array for name, array in GOOD.items() if name != "running_var"}

# (mapping, prefix), error, what the message says.
WRONG_STATES = {
    "a missing key": ((WITHOUT, ""), KeyError, r"no 'running_var'; .*has 'weight', 'bias', 'running_mean'\W*$"),
    "an unexpected key": (({**GOOD, "gamma": 1}, ""), ValueError, r"has 'gamma'; expected only 'weight', 'bias'"),
    "an unexpected key of no str": (({**GOOD, 3: 1}, ""), ValueError, r"has 3; expected"),
    "a missing key of a model": (({key: MODEL[key] for key in MODEL if key != "norm.bias"}, "norm."),
                                 KeyError, r"has 'norm\.weight', 'norm\.running_mean', 'norm\.running_var'\W*$"),
    "both": (({**WITHOUT, "gamma": 1}, ""), KeyError, r"no 'running_var'; expected .*'gamma'"),
    "nothing": (({}, ""), KeyError, r"no 'weight'.* it has none"),
    "a model without its prefix": ((MODEL, ""), KeyError, r"'running_var'; it has 'norm\.weight'.* and 7 more"),
    "a model with another prefix": ((MODEL, "nor."), KeyError, r"no 'nor\.weight'.*'norm\.weight'"),
    "a model's and more": (({**MODEL, **GOOD}, ""), ValueError, r"'norm\.weight'.* where no prefix is given"),
    "below the prefix": (({**MODEL, "norm.a.b": 1}, "norm."), ValueError, r"'norm\.a\.b'; .*under the prefix 'norm\.'"),
    "another's count": (({**GOOD, "a.num_batches_tracked": 1}, ""), ValueError, r"'a\.num_batches_tracked'"),
    "a prefix without its dot": ((MODEL, "norm"), ValueError, r"prefix is 'norm'; expected .*'norm\.'"),
    "a prefix of no str": ((MODEL, None), TypeError, r"prefix is NoneType; expected a str"),
    "a list": (([*GOOD.items()], ""), TypeError, r"mapping is list; expected a mapping"),
    "None": ((None, ""), TypeError, r"mapping is NoneType"),
    "a longer shape": (({**GOOD, "running_var": np.ones(4)}, ""), ValueError,
                       r"running_var has shape \(4,\); expected \(3,\)"),
    "a shape of a prefix": (({**MODEL, "norm.running_var": np.ones(4)}, "norm."), ValueError,
                            r"norm\.running_var has shape \(4,\); expected \(3,\)"),
    "a shape that would broadcast": (({**GOOD, "running_var": np.ones(1)}, ""), ValueError, r"\(1,\); expected \(3,\)"),
    "a shape of the same size": (({**GOOD, "running_var": np.ones((1, 3))}, ""), ValueError, r"\(1, 3\); expected \(3,\)"),
    "a scalar": (({**GOOD, "running_var": 1.0}, ""), ValueError, r"running_var has shape \(\); expected \(3,\)"),
    "complex": (({**GOOD, "running_var": np.ones(3, complex)}, ""), TypeError, r"running_var has dtype complex128"),
    "strings": (({**GOOD, "running_var": ["1", "2", "3"]}, ""), TypeError, r"running_var has dtype <U1"),
    "objects": (({**GOOD, "running_var": np.ones(3, object)}, ""), TypeError, r"running_var has dtype object"),
    "unnamed bytes": (({**GOOD, "running_var": np.ones(3, BFLOAT16).view("V2")}, ""), TypeError,
                      r"has dtype \|V2; .*view\(ml_dtypes\.bfloat16\)$"),
    "a ragged list": (({**GOOD, "running_var": [1, [2, 3]]}, ""), TypeError, r"running_var is list, of which"),
    "an error of the mapping": ((Unreadable(GOOD), ""), OSError, r"the disk"),
}  # fmt: skip


@pytest.mark.parametrize("prefix", ["", "norm."])
def test_the_state_that_the_wrong_ones_are_made_of(prefix):
    layer = op.BatchNorm(3)
    layer.load_state_dict(MODEL if prefix else GOOD, prefix)
    assert all(np.all(array == 0.5) for array in layer.state_dict().values())


@pytest.mark.parametrize("dtype", [np.dtype(F32), BFLOAT16], ids=str)
@pytest.mark.parametrize(("arguments", "error", "says"), WRONG_STATES.values(), ids=WRONG_STATES)
def test_wrong_states(arguments, error, says, dtype):
    """The error, and nothing has been changed."""
    layer = op.BatchNorm(3, dtype=dtype)
    before = bits(layer.state_dict())
    with pytest.raises(error, match=says):
        layer.load_state_dict(*arguments)
    assert bits(layer.state_dict()) == before


def test_a_state_of_another_layer():
    for layer in (op.BatchNorm(3, bias=False), op.LayerNorm(3), op.RMSNorm(3), op.InstanceNorm(3)):
        before = bits(layer.state_dict())
        with pytest.raises(ValueError, match="expected only 'weight'"):
            layer.load_state_dict(GOOD)
        assert bits(layer.state_dict()) == before


def test_an_array_that_is_read_only():
    layer = op.LayerNorm(3)
    layer.bias.flags.writeable = False
    with pytest.raises(ValueError, match=r"bias goes to .* read-only"):
        layer.load_state_dict({"weight": np.zeros(3), "bias": np.ones(3)})
    assert np.all(layer.weight == 1)


def test_a_torch_tensor_of_bfloat16():
    torch = pytest.importorskip("torch")
    layer = op.RMSNorm(3)
    with pytest.raises(
        TypeError, match=r"^weight is Tensor, of which np.asarray makes no array \(.*BFloat16\)"
    ):
        layer.load_state_dict({"weight": torch.zeros(3, dtype=torch.bfloat16)})
    assert np.all(layer.weight == 1)
