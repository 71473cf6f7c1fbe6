"""The table of calls is whole: every public function is in it, and its rows call what they name."""

import calls
import numpy as np
import pytest

import onepass as op


def test_every_public_function_is_in_the_table():
    public = set(op.__all__) - calls.CONTROL
    functions = {name for name in public if not isinstance(getattr(op, name), type)}
    assert functions == {name.split()[0] for name in calls.CALLS}


@pytest.mark.parametrize("name", calls.CALLS)
def test_a_row_calls_the_function_that_it_names(name, monkeypatch):
    function, called = name.split()[0], []
    real = getattr(op, function)

    def spy(*args, **kwargs):
        called.append(function)
        return real(*args, **kwargs)

    monkeypatch.setattr(op, function, spy)
    row = calls.CALLS[name]
    for shape, axis in [((4, 6, 5), 1)]:
        call = row.build(shape, axis)
        call.results(calls.arguments(call, np.dtype(np.float32)))
    # The sums look their function up when they are built, the others when they run.
    assert called == [function]


@pytest.mark.parametrize("name", calls.CALLS)
@pytest.mark.parametrize("dtype", calls.DTYPES.values(), ids=calls.DTYPES)
def test_the_usual_calls_give_what_the_table_says(name, dtype):
    for call in calls.usual(name):
        arrays = calls.arguments(call, dtype)
        before = {key: array.copy() for key, array in arrays.items()}
        results = call.results(arrays)
        assert all(np.array_equal(before[key], array) for key, array in arrays.items())
        assert all(isinstance(result, np.ndarray) for result in results)
        for out in call.outs:
            assert results[call.outs.index(out)].shape == call.shape
        assert call.groups(arrays["x"]).size == arrays["x"].size
        if call.reference:
            assert not calls.wrong(call, results[0], arrays, 1e-5).any()


@pytest.mark.parametrize("dtype", calls.DTYPES.values(), ids=calls.DTYPES)
def test_a_wrong_result_is_seen(dtype):
    """A neighbour 9 units away is wrong in 32 and 64 bits; two steps away it is in 16."""
    call = calls.layer_norm((3, 40), -1)
    arrays = calls.arguments(call, dtype)
    y = call.results(arrays)[0]
    at = np.unravel_index(np.abs(y.astype(np.float64)).argmax(), y.shape)
    step = 2.0 ** -{"float32": 20, "float64": 49, "float16": 9, "bfloat16": 6}[dtype.name]
    y[at] *= dtype.type(1 + step)
    assert calls.wrong(call, y, arrays, 1e-5).sum() == 1
    y[at] = np.nan
    assert calls.wrong(call, y, arrays, 1e-5).sum() == 1
