"""The table of calls is whole, its rows call what they name, and a wrong result is seen."""

import inspect

import calls
import numpy as np
import pytest

import onepass as op

STEPS = {"float32": 2.0**-20, "float64": 2.0**-49, "float16": 2.0**-9, "bfloat16": 2.0**-6}

each_dtype = pytest.mark.parametrize("dtype", calls.DTYPES.values(), ids=calls.DTYPES)


def test_every_public_function_is_in_the_table():
    functions = {name for name in op.__all__ if not inspect.isclass(getattr(op, name))} - calls.CONTROL
    assert functions == {name.split()[0] for name in calls.CALLS}


@pytest.mark.parametrize("name", calls.CALLS)
def test_a_row_calls_the_function_that_it_names(name, monkeypatch):
    function, called = name.split()[0], []
    real = getattr(op, function)

    def spy(*args, **kwargs):
        called.append(function)
        return real(*args, **kwargs)

    call = calls.CALLS[name]((4, 6, 5), 1)
    assert call.name == name
    monkeypatch.setattr(op, function, spy)
    call.results(calls.arguments(call, np.dtype(np.float32)))
    assert called == [function]


@pytest.mark.parametrize("name", calls.CALLS)
@each_dtype
def test_the_usual_calls_give_what_the_table_says(name, dtype):
    for call in calls.usual(name):
        arrays = calls.arguments(call, dtype)
        before = {key: array.copy() for key, array in arrays.items()}
        results = call.results(arrays)
        assert all(before[key].tobytes() == array.tobytes() for key, array in arrays.items())
        assert all(isinstance(result, np.ndarray) for result in results)
        for out in call.outs:
            assert results[call.outs.index(out)].shape == call.shape
        assert call.groups(arrays["x"]).size == arrays["x"].size
        assert call.scattered(call.groups(arrays["x"])).tobytes() == arrays["x"].tobytes()
        assert not calls.faults(call, results, arrays), call.shape


@pytest.mark.parametrize("name", calls.CALLS)
@each_dtype
def test_a_wrong_result_is_seen(name, dtype):
    """The largest element 16 units away is wrong in 32 and 64 bits; two steps away it is in 16. NaN always is."""
    for call in calls.usual(name)[:2]:
        arrays = calls.arguments(call, dtype)
        good = call.results(arrays)
        for i in range(1 if call.kind == "norm" else len(good)):
            results = [result.copy() for result in good]
            at = np.unravel_index(np.abs(results[i].astype(np.float64)).argmax(), results[i].shape)
            step = STEPS[dtype.name]
            if call.kind != "norm" and i > 0:  # in units of every term of a sum, or of a group's deviation
                step = 1e-3
            if call.kind == "gradient" and i == 0:  # of terms that may be larger than their sum
                step *= 64
            results[i][at] *= results[i].dtype.type(1 + step)
            assert calls.faults(call, results, arrays), (call.shape, i)
            results[i][at] = np.nan
            assert calls.faults(call, results, arrays), (call.shape, i)
