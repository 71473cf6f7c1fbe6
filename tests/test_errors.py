"""Bad input: the documented error, its message names the argument, and nothing has been written."""

import array
import itertools
import re

import numpy as np
import pytest

import onepass as op

F32, F64 = np.float32, np.float64


def x_of(shape=(6, 4), dtype=F32):
    return np.random.default_rng(0).standard_normal(shape).astype(dtype)


def with_residual(norm):
    """The normalized sum of x and zeros."""

    def add(x, *args, **kwargs):
        return norm(x, np.zeros_like(np.asarray(x)), *args, **kwargs)[0]

    return add


# Each norm on x, with everything else left to its defaults.
NORMS = {
    "layer_norm": op.layer_norm,
    "rms_norm": op.rms_norm,
    "add_layer_norm": with_residual(op.add_layer_norm),
    "add_rms_norm": with_residual(op.add_rms_norm),
    "batch_norm": lambda x, *args, **kwargs: op.batch_norm(x, *args, **{"training": True, **kwargs}),
    "standardize": op.standardize,
}
SCALES = {**NORMS, "min_max_scale": op.min_max_scale}  # no eps
FUNCTIONS = {**SCALES, "moments": op.moments}

each_function = pytest.mark.parametrize("function", FUNCTIONS.values(), ids=FUNCTIONS)
each_norm = pytest.mark.parametrize("norm", NORMS.values(), ids=NORMS)
each_scale = pytest.mark.parametrize("norm", SCALES.values(), ids=SCALES)

NOT_ARRAYS = {
    "list": [[1.0, 2.0], [3.0, 4.0]],
    "tuple": ((1.0, 2.0), (3.0, 4.0)),
    "str": "x",
    "bytes": b"abcdefgh",
    "None": None,
    "float": 1.0,
    "dict": {},
    "object": object(),
    "range": range(4),
    "type": np.ndarray,
    "set": {1.0},
    "generator": (i for i in ()),
}

WRONG_DTYPES = {
    "int32": np.ones((6, 4), np.int32),
    "int64": np.ones((6, 4), np.int64),
    "uint8": np.ones((6, 4), np.uint8),
    "bool": np.ones((6, 4), bool),
    "complex64": np.ones((6, 4), np.complex64),
    "longdouble": np.ones((6, 4), np.longdouble),
    "object": np.ones((6, 4), object),
    "str": np.full((6, 4), "a"),
    "datetime64": np.zeros((6, 4), "M8[s]"),
    "structured": np.zeros((6, 4), [("a", F32), ("b", F32)]),
    "swapped": x_of().astype(np.dtype(F32).newbyteorder()),
    "swapped16": x_of().astype(np.dtype(np.float16).newbyteorder()),
    "swapped64": x_of().astype(np.dtype(F64).newbyteorder()),
}


def raises(error, name):
    """The error, with the argument's name as a word of its message."""
    return pytest.raises(error, match=rf"\b{name}\b")


@each_function
@pytest.mark.parametrize("x", NOT_ARRAYS.values(), ids=NOT_ARRAYS)
def test_x_is_not_an_array(function, x):
    with raises(TypeError, "x"):
        function(x)


@each_function
@pytest.mark.parametrize("x", WRONG_DTYPES.values(), ids=WRONG_DTYPES)
def test_x_has_another_dtype(function, x):
    with raises(TypeError, "x") as caught:
        function(x)
    for word in (str(x.dtype), "float32", "float64", "float16", "bfloat16"):
        assert word in str(caught.value)


@each_function
def test_masked_arrays(function):
    with pytest.raises(TypeError, match="mask="):
        function(np.ma.masked_array(x_of(), x_of() > 0))


@each_function
def test_0d(function):
    for x in (np.array(1, F32), np.float64(1)):
        with pytest.raises(ValueError, match=r"axis|dimension"):
            function(x)


@each_scale
@pytest.mark.parametrize("dtype", [F32, F64])
def test_out(norm, dtype):
    x = x_of(dtype=dtype)
    other = F64 if dtype == F32 else F32
    read_only = np.full((6, 4), 7, dtype)
    read_only.flags.writeable = False
    buffer = np.full(60, 7, dtype)
    bad = [
        (TypeError, [[0.0] * 4] * 6),
        (TypeError, "out"),
        (TypeError, 1.0),
        (TypeError, np.full((6, 4), 7, other)),
        (TypeError, np.full((6, 4), 7, np.int32)),
        (TypeError, np.full((6, 4), 7, dtype).astype(np.dtype(dtype).newbyteorder())),
        (ValueError, np.full((6, 5), 7, dtype)),
        (ValueError, np.full((4, 6), 7, dtype)),
        (ValueError, np.full(24, 7, dtype)),
        (ValueError, np.full((1, 6, 4), 7, dtype)),
        (ValueError, read_only),
        (ValueError, np.broadcast_to(np.full(4, 7, dtype), (6, 4))),
    ]
    for error, out in bad:
        with raises(error, "out"):
            norm(x, out=out)
        assert not isinstance(out, np.ndarray) or (out == 7).all()
    assert np.array_equal(x, x_of(dtype=dtype))
    for shift in (1, 3, 4, 23):
        buffer[:24] = x.ravel()
        before = buffer.copy()
        with raises(ValueError, "out"):
            norm(buffer[:24].reshape(6, 4), out=buffer[shift : shift + 24].reshape(6, 4))
        assert np.array_equal(buffer, before), shift


@each_scale
def test_out_is_x_in_another_order(norm):
    square = x_of((5, 5))
    for out in (square.T, square[::-1], square[:, ::-1]):
        with raises(ValueError, "out"):
            norm(square, out=out)
        assert np.array_equal(square, x_of((5, 5)))


@each_scale
@pytest.mark.parametrize("dtype", [F32, F64])
def test_out_between_the_elements_of_x_is_fine(norm, dtype):
    x = x_of((6, 8), dtype)
    for halves in (np.s_[:, :8], np.s_[:, 8:]), (np.s_[:, ::2], np.s_[:, 1::2]):
        buffer = np.zeros((6, 16), dtype)
        buffer[halves[0]] = x
        norm(buffer[halves[0]], out=buffer[halves[1]])
        assert np.array_equal(buffer[halves[0]], x)
        assert np.array_equal(buffer[halves[1]], norm(x))


PARAMETERS = {
    "layer_norm": ("weight", "bias"),
    "add_layer_norm": ("weight", "bias"),
    "batch_norm": ("weight", "bias"),
    "rms_norm": ("weight",),
    "add_rms_norm": ("weight",),
}
each_norm_with_parameters = pytest.mark.parametrize(
    ("norm", "names"), [(NORMS[norm], names) for norm, names in PARAMETERS.items()], ids=PARAMETERS
)


@pytest.mark.parametrize(
    ("norm", "name"),
    [pytest.param(NORMS[n], name, id=f"{n}-{name}") for n, names in PARAMETERS.items() for name in names],
)
def test_weight_and_bias(norm, name):
    x, out, n = x_of(), np.full((6, 4), 7, F32), 4
    others = {"bias": np.ones(n, F32)} if name == "weight" else {"weight": np.ones(n, F32)}
    for error, value in [
        (TypeError, [1.0] * n),
        (TypeError, "w"),
        (TypeError, 1.0),
        (TypeError, np.ones(n, F64)),
        (TypeError, np.ones(n, int)),
        (TypeError, np.ones(n, np.dtype(F32).newbyteorder())),
        (TypeError, np.ma.masked_array(np.ones(n, F32))),
        (ValueError, np.ones(n + 1, F32)),
        (ValueError, np.ones(n - 1, F32)),
        (ValueError, np.ones(1, F32)),
        (ValueError, np.ones((), F32)),
        (ValueError, np.ones((1, n), F32)),
        (ValueError, np.ones((n, 1), F32)),
        (ValueError, np.ones(0, F32)),
    ]:
        with raises(error, name):
            norm(x, out=out, **{name: value})
        if norm not in (NORMS["rms_norm"], NORMS["add_rms_norm"]):
            with raises(error, name):
                norm(x, out=out, **others, **{name: value})
    with raises(TypeError, name):
        norm(x.astype(F64), **{name: np.ones(n, F32)})
    assert (out == 7).all()


@pytest.mark.parametrize("name", ["layer_norm", "rms_norm", "add_layer_norm", "add_rms_norm"])
def test_weight_of_several_axes(name):
    norm, x = NORMS[name], x_of((3, 4, 5))
    for axis, shape in (((1, 2), (4, 5)), ((2, 1), (4, 5)), ((0, 2), (3, 5)), (1, (4,))):
        norm(x, np.ones(shape, F32), axis=axis)
        for wrong in (shape[::-1] if len(shape) > 1 else (5,), (*shape, 1), (int(np.prod(shape)) + 1,)):
            with raises(ValueError, "weight"):
                norm(x, np.ones(wrong, F32), axis=axis)


@each_norm_with_parameters
def test_out_overlaps_weight_or_bias(norm, names):
    for name, place in itertools.product(names, (0, 3, 20, 22)):
        buffer = np.ones(30, F32)
        with raises(ValueError, "out"):
            norm(x_of(), out=buffer[:24].reshape(6, 4), **{name: buffer[place : place + 4]})
        assert (buffer == 1).all()
    row = np.ones(4, F32)
    with raises(ValueError, "out"):
        op.layer_norm(x_of((4,)), row, out=row)


@each_function
def test_axis(function):
    x = x_of()
    for axis in (2, -3, 100, -100, 2**62):
        with raises(ValueError, "axis"):
            function(x, axis=axis)
    for axis in (1.0, "1", None, True, 1j, np.float64(1), b"1"):
        with raises(TypeError, "axis"):
            function(x, axis=axis)


@pytest.mark.parametrize(
    "name", ["layer_norm", "rms_norm", "add_layer_norm", "add_rms_norm", "min_max_scale", "moments"]
)
def test_axes(name):
    function = FUNCTIONS[name]
    x = x_of((3, 4, 5))
    for axis in ((0, 3), (-4, 1), (1, 1), (1, -2), (0, 1, 2, 0)):
        with raises(ValueError, "axis"):
            function(x, axis=axis)
    for axis in ((0, 1.0), ("0",), (0, None), (True, 0), ((0, 1),)):
        with raises(TypeError, "axis"):
            function(x, axis=axis)


def test_the_channel_axis_is_one_int():
    with raises(TypeError, "axis"):
        op.batch_norm(x_of((3, 4, 5)), training=True, axis=(1,))
    with raises(ValueError, "axis"):
        op.batch_norm(x_of((3,)), training=True)


@each_norm
def test_eps_is_not_a_number(norm):
    out = np.full((6, 4), 7, F32)
    default = norm in (NORMS["rms_norm"], NORMS["add_rms_norm"])  # None says: the arithmetic's
    for eps in ("1e-5", 1j, [1e-5], object(), *(() if default else (None,))):
        with raises(TypeError, "eps"):
            norm(x_of(), eps=eps, out=out)
    assert (out == 7).all()


def test_other_numbers_that_are_none():
    mean, var, out = np.ones(4, F32), np.ones(4, F32), np.full((6, 4), 7, F32)
    for name, bad in itertools.product(("momentum", "running_ddof"), ("1", None, 1j, [1])):
        with raises(TypeError, name):
            op.batch_norm(x_of(), running_mean=mean, running_var=var, training=True, out=out, **{name: bad})
    for bad in ("1", None, 1j, [1]):
        with raises(TypeError, "ddof"):
            op.standardize(x_of(), ddof=bad, out=out)
    assert (mean == 1).all()
    assert (var == 1).all()
    assert (out == 7).all()


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("name", ["running_mean", "running_var"])
def test_running_statistics(name, training):
    x, out = x_of(), np.full((6, 4), 7, F32)
    good = {"running_mean": np.ones(4, F32), "running_var": np.ones(4, F32)}
    read_only = np.ones(4, F32)
    read_only.flags.writeable = False
    bad = [
        (TypeError, [1.0] * 4),
        (TypeError, "r"),
        (TypeError, 1.0),
        (TypeError, np.ones(4, F64)),
        (TypeError, np.ones(4, int)),
        (TypeError, np.ones(4, np.dtype(F32).newbyteorder())),
        (TypeError, np.ma.masked_array(np.ones(4, F32))),
        (ValueError, np.ones(5, F32)),
        (ValueError, np.ones(6, F32)),
        (ValueError, np.ones(1, F32)),
        (ValueError, np.ones((1, 4), F32)),
        (ValueError, np.ones((), F32)),
        (ValueError, out[0]),
    ]
    if training:
        bad.append((ValueError, read_only))
    else:
        op.batch_norm(x, running_mean=read_only, running_var=read_only)
    for error, value in bad:
        with pytest.raises(error, match=rf"\b{name}\b"):
            op.batch_norm(x, training=training, out=out, **{**good, name: value})
        for r in (*good.values(), read_only):
            assert (r == 1).all()
        assert (out == 7).all()
    with raises(TypeError, name):
        op.batch_norm(
            x.astype(F64), training=training, **{other: np.ones(4) for other in good} | {name: good[name]}
        )


@each_function
def test_keywords(function):
    with pytest.raises(TypeError, match="epsilon"):
        function(x_of(), epsilon=1e-5)
    with pytest.raises(TypeError):
        function()
    with pytest.raises(TypeError):
        function(x_of(), None, None, -1, 1e-5)


class Interface:
    """Shows an array's memory through one protocol only."""

    def __init__(self, protocol, x):
        self.kept = x
        if protocol == "__array_interface__":
            self.__array_interface__ = x.__array_interface__


class Asks:
    def __init__(self, x):
        self.x = x

    def __array__(self, dtype=None, copy=None):
        return self.x


@each_function
@pytest.mark.parametrize("dtype", [F32, F64])
def test_what_asarray_views_is_taken(function, dtype):
    x = x_of((6, 4), dtype)
    values = (lambda m: m.mean) if function is op.moments else (lambda y: y)
    expected = values(function(x))
    for like in (memoryview(x), Interface("__array_interface__", x), Asks(x)):
        assert np.array_equal(values(function(like)), expected), type(like)
    flat = array.array("f" if dtype == F32 else "d", x.ravel().tolist())
    if function is not NORMS["batch_norm"]:
        assert np.array_equal(values(function(flat)), values(function(x.ravel())))


def test_a_view_is_taken_for_every_argument():
    x, weight, bias = x_of(), x_of((4,)), x_of((4,)) + 1
    mean, var, out = np.ones(4, F32), np.ones(4, F32), np.zeros((6, 4), F32)
    expected = op.batch_norm(x, weight, bias, training=True)
    running = {"running_mean": memoryview(mean), "running_var": Asks(var)}
    op.batch_norm(
        memoryview(x), Asks(weight), memoryview(bias), **running, training=True, out=memoryview(out)
    )
    assert np.array_equal(out, expected)
    assert (mean != 1).all()
    assert (var != 1).all()


def test_messages_say_what_was_and_what_was_expected():
    for call, words in [
        (lambda: op.layer_norm(x_of(), np.ones(5, F32)), ("weight", "(5,)", "(4,)")),
        (lambda: op.layer_norm(x_of(), out=np.ones((4, 6), F32)), ("out", "(4, 6)", "(6, 4)")),
        (lambda: op.layer_norm(x_of(), np.ones(4)), ("weight", "float64", "float32")),
        (lambda: op.layer_norm([1.0]), ("x", "list")),
        (lambda: op.rms_norm(x_of(), np.ones(5, F32)), ("weight", "(5,)", "(4,)")),
        (lambda: op.add_rms_norm(x_of(), x_of((4, 6))), ("residual", "(4, 6)", "(6, 4)")),
        (lambda: op.add_layer_norm(x_of(), x_of(dtype=F64)), ("residual", "float64", "float32")),
        (lambda: op.add_layer_norm(x_of(), x_of(), sum_out=np.ones(3, F32)), ("sum_out", "(3,)", "(6, 4)")),
        (lambda: op.layer_norm(x_of(), axis=2), ("axis", "2")),
        (
            lambda: op.batch_norm(x_of(), running_mean=np.ones(5, F32), training=True),
            ("running_mean", "(5,)", "(4,)"),
        ),
    ]:
        with pytest.raises((TypeError, ValueError)) as caught:
            call()
        for word in words:
            assert re.search(rf"(?<!\w){re.escape(word)}(?!\w)", str(caught.value)), (word, str(caught.value))
