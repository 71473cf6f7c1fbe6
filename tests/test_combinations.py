"""The table of combinations is what is offered, and everything in it gives the formula's result."""

import inspect

import calls
import numpy as np
import pytest
from combinations import COMBINATIONS, LAYOUTS, Offers

import onepass as op

each_dtype = pytest.mark.parametrize("dtype", calls.DTYPES.values(), ids=calls.DTYPES)
each_function = pytest.mark.parametrize("function", COMBINATIONS)


def test_every_public_function_is_in_the_table():
    functions = {name for name in op.__all__ if not inspect.isclass(getattr(op, name))} - calls.CONTROL
    assert functions == set(COMBINATIONS)


@each_function
def test_the_table_says_what_functions_take(function):
    takes = inspect.signature(getattr(op, function)).parameters
    statistics = [name for name in takes if name.startswith("return_")]
    assert COMBINATIONS[function] == Offers(
        outs=tuple(name for name in takes if name.endswith("out")),
        statistics=statistics[0] if statistics else None,
        mask="mask" in takes,
        weights={"weights", "skipna"} <= takes.keys(),
        running={"running_mean", "running_var", "training"} <= takes.keys(),
        gradient=f"{function}_backward" in op.__all__,
    )


@each_function
def test_every_mode_is_walked(function):
    """A row of calls.CALLS for the function, and one for each way in which its statistics are taken."""
    offers = COMBINATIONS[function]
    modes = {tuple(name.split()[1:]) for name in calls.CALLS if name.split()[0] == function}
    assert modes
    assert any("masked" in mode for mode in modes) == offers.mask
    assert offers.weights == (("weighted",) in modes) == (("skipna",) in modes)
    assert any("inference" in mode for mode in modes) == offers.running


def layouts(name):
    row = calls.CALLS[name]
    return [row(shape, axis) for shape, axis in LAYOUTS[row.axis] if len(shape) >= row.least_ndim]


def backwards(array):
    """The array's numbers, last first in memory."""
    return np.flip(np.flip(array).copy())


def assert_same(got, want, how):
    for a, b in zip(got, want, strict=True):
        assert (a.shape, a.dtype) == (b.shape, b.dtype), how
        assert np.array_equal(a, b, equal_nan=True), how


@each_dtype
@pytest.mark.parametrize("name", calls.CALLS)
def test_combinations(name, dtype):
    """New, out, in place; statistics come with each where they are offered; x and what goes with it in any order."""
    offers = COMBINATIONS[name.split()[0]]
    checked = 0
    for call in layouts(name):
        assert call.outs == offers.outs
        arrays = calls.arguments(call, dtype)
        kept = {key: array.copy() for key, array in arrays.items()}
        results = call.results(arrays)
        how = f"{call.name} of {call.shape}"
        assert not calls.faults(call, results, arrays), how
        assert all(np.array_equal(arrays[key], array, equal_nan=True) for key, array in kept.items()), how
        assert {result.dtype for result in results} <= {
            dtype,
            calls.arithmetic(dtype),
            np.dtype(np.float64),
        }, how
        if offers.outs:
            assert results[0].dtype == dtype, how
            assert results[0].flags.c_contiguous, how
        assert_same(
            call.results({key: backwards(array) for key, array in arrays.items()}),
            results,
            f"{how}, backwards",
        )
        outs = {key: backwards(np.zeros(call.shape, dtype)) for key in offers.outs}
        into = call.results(arrays, **outs)
        assert all(into[i] is out for i, out in enumerate(outs.values())), how
        assert_same(into, results, f"{how}, out")
        places = dict(zip(offers.outs, ("x", "residual"), strict=False))
        arrays = {key: array.copy() for key, array in arrays.items()}
        assert_same(
            call.results(arrays, **{out: arrays[key] for out, key in places.items()}),
            results,
            f"{how}, in place",
        )
        checked += 1
    assert checked > 5


@each_function
def test_what_is_not_offered_is_refused(function):
    run, x = getattr(op, function), np.ones((4, 6, 5), np.float32)
    needed = [p for p in inspect.signature(run).parameters.values() if p.default is p.empty]
    given = {p.name: 2 if p.name == "num_groups" else x.copy() for p in needed}
    training = {"training": True} if function == "batch_norm" else {}
    run(**given, **training)
    for name in {"out", "sum_out", "return_stats", "mask", "weights", "skipna", "running_mean", "training"}:
        if name not in inspect.signature(run).parameters:
            with pytest.raises(TypeError, match=name):
                run(**given, **{name: None})
