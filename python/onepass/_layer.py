"""What the layers share: the checks of their settings, their arrays, and how these are saved and loaded.

The names in a state are those of torch.nn.Module.state_dict (Paszke et al. 2019, PyTorch), so that its files load as
they are.
"""

from __future__ import annotations

import operator
from collections.abc import Iterable, Mapping
from typing import Any, ClassVar, SupportsFloat

import numpy as np
import numpy.typing as npt

from ._types import Array, Viewable

_DTYPES = ("float32", "float64", "float16", "bfloat16")


def integer(name: str, value: Any, expected: str = "an int") -> int:
    try:
        if not isinstance(value, bool):
            return operator.index(value)
    except TypeError:  # an array, say, which has __index__ whatever it holds
        pass
    raise TypeError(f"{name} is {type(value).__name__}; expected {expected}")


def size(name: str, value: Any, expected: str = "an int") -> int:
    number = integer(name, value, expected)
    if number < 0:
        raise ValueError(f"{name} is {number}; expected {expected} of at least 0")
    return number


def sizes(name: str, value: Any) -> tuple[int, ...]:
    numbers = value if isinstance(value, tuple | list) else (value,)
    if not numbers:
        raise ValueError(f"{name} is an empty {type(value).__name__}; expected at least one axis")
    return tuple(size(name, number, "an int or a tuple of ints") for number in numbers)


def real(name: str, value: Any) -> float:
    try:
        if isinstance(value, SupportsFloat):  # which a str is not, though float() reads it
            return float(value)
    except TypeError:
        pass
    raise TypeError(f"{name} is {type(value).__name__}; expected a real number")


def float_dtype(value: Any) -> np.dtype[Any]:
    dtype: np.dtype[Any] | None = None
    try:
        if value is not None:  # which np.dtype takes for float64
            dtype = np.dtype(value)
    except (TypeError, ValueError):
        pass
    if dtype is None or dtype.name not in _DTYPES or not dtype.isnative:
        raise TypeError(
            f"dtype is {value if dtype is None else dtype}; expected float32, float64, float16 or ml_dtypes.bfloat16"
        )
    return dtype


def zeros_if(wanted: Any, weight: Array) -> Array | None:
    if not isinstance(wanted, bool | np.bool_):
        raise TypeError(
            f"bias is {type(wanted).__name__}; expected a bool (the array is set by assigning to .bias)"
        )
    return np.zeros_like(weight) if wanted else None


def _listed(keys: Iterable[Any]) -> str:
    """A few of the keys of what may be a whole model."""
    shown = [repr(key) for key in keys]
    return (", ".join(shown[:6]) or "none") + (f" and {len(shown) - 6} more" if len(shown) > 6 else "")


def _loaded(key: str, value: Any, held: Array) -> Array:
    """A copy of what a mapping holds under the key, as the layer's array that it shall go to."""
    try:
        array = np.asarray(value)
    except (TypeError, ValueError, RuntimeError) as error:  # what torch raises for bfloat16 or a GPU's memory
        raise TypeError(
            f"{key} is {type(value).__name__}, of which np.asarray makes no array ({error}); expected an array"
        ) from error
    if array.shape != held.shape:
        raise ValueError(f"{key} has shape {array.shape}; expected {held.shape}, the layer's")
    nameless = array.dtype == np.dtype("V2")  # .npz files keep the bytes of bfloat16 and forget its name
    if nameless and held.dtype.name == "bfloat16":
        array = array.view(held.dtype)
    elif not np.can_cast(array.dtype, np.float64, "same_kind"):
        hint = ", as bfloat16 from .npz is after .view(ml_dtypes.bfloat16)" if nameless else ""
        raise TypeError(
            f"{key} has dtype {array.dtype}; expected real numbers to convert to {held.dtype}{hint}"
        )
    if not held.flags.writeable:
        raise ValueError(f"{key} goes to an array of the layer that is read-only; expected a writeable one")
    return array.astype(held.dtype)


class Layer:
    """What the layers share: their arrays, how these are saved and loaded, and how a layer is printed."""

    # In torch's order.
    _ARRAYS: ClassVar[tuple[str, ...]] = ("weight", "bias")
    _SIZES: ClassVar[tuple[str, ...]]
    _SETTINGS: ClassVar[tuple[str, ...]]

    weight: Array
    dtype: np.dtype[Any]
    training: bool

    def __init__(self, shape: int | tuple[int, ...], dtype: npt.DTypeLike) -> None:
        self.dtype = float_dtype(dtype)
        self.weight = np.ones(shape, self.dtype)
        self.training = False

    def state_dict(self) -> dict[str, Array]:
        """The layer's arrays by torch's names.

        Returns
        -------
        dict of str to array
            The arrays themselves, not copies, as in torch: a later change of the layer shows in them. A bias that is None
            is left out.

        Examples
        --------
        >>> import onepass as op
        >>> op.BatchNorm(2, bias=False).state_dict()  # np.savez("layer.npz", **state) saves it
        {'weight': array([1., 1.], dtype=float32),
         'running_mean': array([0., 0.], dtype=float32),
         'running_var': array([1., 1.], dtype=float32)}
        """
        held = {name: getattr(self, name) for name in self._ARRAYS}
        return {name: array for name, array in held.items() if array is not None}

    def load_state_dict(self, mapping: Mapping[str, Viewable], prefix: str = "") -> None:
        """Copy a state into the layer's arrays, converted to their dtypes.

        Parameters
        ----------
        mapping : mapping of str to array
            What `state_dict` gives, here or in torch; a safetensors or ``.npz`` file as it was opened. Its values are
            whatever np.asarray takes. torch's bfloat16 tensors are not: ``tensor.float()`` first.
        prefix : str
            What the layer's keys begin with in a whole model's mapping, with the dot at its end: ``"encoder.norm."``. All
            other keys are left alone.

        Raises
        ------
        TypeError
            For what is no mapping or no str, and for values that are no real numbers.
        KeyError
            For a key that is missing.
        ValueError
            For a prefix without its dot, a key that is not the layer's, or a value of another shape. Nothing has been
            changed then, as after every error.

        Notes
        -----
        Without a prefix every key has to be the layer's. Keys of torch's that only count batches, ``num_batches_tracked``,
        are ignored. ``.npz`` files lose the name of bfloat16, which a layer of bfloat16 knows.

        Examples
        --------
        >>> import numpy as np, onepass as op
        >>> model = {"norm.weight": np.array([2.0, 3.0]), "norm.bias": np.zeros(2), "head.weight": np.ones((5, 2))}
        >>> layer = op.LayerNorm(2)
        >>> layer.load_state_dict(model, prefix="norm.")
        >>> layer.weight
        array([2., 3.], dtype=float32)
        """
        if not isinstance(mapping, Mapping):
            raise TypeError(f"mapping is {type(mapping).__name__}; expected a mapping of names to arrays")
        if not isinstance(prefix, str):
            raise TypeError(f"prefix is {type(prefix).__name__}; expected a str")
        if prefix and not prefix.endswith("."):
            raise ValueError(f"prefix is {prefix!r}; expected it to end in its dot, {prefix + '.'!r}")
        held = {prefix + name: array for name, array in self.state_dict().items()}
        given = [key for key in mapping if str(key).startswith(prefix)]
        missing = [key for key in held if key not in given]
        if missing:
            raise KeyError(
                f"mapping has no {_listed(missing)}; expected {_listed(held)}; it has {_listed(given or mapping)}"
            )
        unexpected = [key for key in given if key not in held and key != prefix + "num_batches_tracked"]
        if unexpected:
            where = f"under the prefix {prefix!r}" if prefix else "where no prefix is given"
            raise ValueError(f"mapping has {_listed(unexpected)}; expected only {_listed(held)} {where}")
        loaded = {key: _loaded(key, mapping[key], array) for key, array in held.items()}
        for key, array in held.items():
            array[...] = loaded[key]

    def __repr__(self) -> str:
        def shown(name: str) -> str:
            value = getattr(self, name)
            return str(value is not None) if name == "bias" else str(value)

        arguments = [shown(name) for name in self._SIZES]
        arguments += [f"{name}={shown(name)}" for name in self._SETTINGS]
        return f"{type(self).__name__}({', '.join(arguments)})"
