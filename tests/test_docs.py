"""The documentation: every example runs, every public name has one, and the contract's names are there."""

import doctest
import importlib
import inspect
import pkgutil

import numpy as np
import pytest

import onepass as op

# What `onepass` offers so far.
NAMES = {
    "layer_norm", "rms_norm", "batch_norm", "group_norm", "instance_norm", "add_layer_norm", "add_rms_norm",
    "LayerNorm", "RMSNorm", "BatchNorm", "GroupNorm", "InstanceNorm",
    "moments", "Moments", "standardize", "min_max_scale",
    "layer_norm_backward", "rms_norm_backward",
    "batch_norm_backward", "group_norm_backward", "instance_norm_backward",
    "set_num_threads", "get_num_threads", "num_threads",
    "isa", "available_isas", "use_isa", "show_config",
}  # fmt: skip

SIGNATURES = {
    "layer_norm": "(x, weight=None, bias=None, *, axis=-1, eps=1e-05, out=None, return_stats=False)",
    "batch_norm": "(x, weight=None, bias=None, *, running_mean=None, running_var=None, training=False, "
    "momentum=0.1, running_ddof=1, axis=1, eps=1e-05, mask=None, out=None, return_stats=False)",
    "rms_norm": "(x, weight=None, *, axis=-1, eps=None, out=None, return_stats=False)",
    "group_norm": "(x, num_groups, weight=None, bias=None, *, axis=1, eps=1e-05, mask=None, out=None, return_stats=False)",
    "instance_norm": "(x, weight=None, bias=None, *, axis=1, eps=1e-05, mask=None, out=None, return_stats=False)",
    "add_layer_norm": "(x, residual, weight=None, bias=None, *, axis=-1, eps=1e-05, out=None, sum_out=None)",
    "add_rms_norm": "(x, residual, weight=None, *, axis=-1, eps=None, out=None, sum_out=None)",
    "batch_norm_backward": "(dy, x, weight=None, *, running_mean=None, running_var=None, training=True, "
    "axis=1, eps=1e-05, mask=None)",
    "group_norm_backward": "(dy, x, num_groups, weight=None, *, axis=1, eps=1e-05, mask=None)",
    "instance_norm_backward": "(dy, x, weight=None, *, axis=1, eps=1e-05, mask=None)",
    "layer_norm_backward": "(dy, x, weight=None, *, axis=-1, eps=1e-05)",
    "rms_norm_backward": "(dy, x, weight=None, *, axis=-1, eps=None)",
    "moments": "(x, axis=0, *, mask=None, weights=None, skipna=False)",
    "standardize": "(x, *, axis=0, ddof=0, eps=0.0, out=None, return_moments=False)",
    "LayerNorm": "(shape, *, eps=1e-05, bias=True, dtype=<class 'numpy.float32'>)",
    "RMSNorm": "(shape, *, eps=None, dtype=<class 'numpy.float32'>)",
    "BatchNorm": "(channels, *, eps=1e-05, momentum=0.1, running_ddof=1, bias=True, axis=1, dtype=<class 'numpy.float32'>)",
    "GroupNorm": "(groups, channels, *, eps=1e-05, bias=True, axis=1, dtype=<class 'numpy.float32'>)",
    "InstanceNorm": "(channels, *, eps=1e-05, bias=True, axis=1, dtype=<class 'numpy.float32'>)",
    "min_max_scale": "(x, *, axis=0, feature_range=(0.0, 1.0), out=None)",
    "set_num_threads": "(n)",
    "get_num_threads": "()",
    "num_threads": "(n)",
    "isa": "()",
    "available_isas": "()",
    "use_isa": "(name)",
    "show_config": "()",
}

MODULES = [
    m.name
    for m in pkgutil.walk_packages(op.__path__, "onepass.")
    if m.name not in ("onepass.__main__", "onepass._core")
]


def run_examples(example):
    failures = []
    runner = doctest.DocTestRunner(optionflags=doctest.NORMALIZE_WHITESPACE)
    runner.run(example, out=failures.append)
    assert runner.summarize(verbose=False).failed == 0, "".join(failures)


@pytest.mark.parametrize("module", ["onepass", *MODULES])
def test_examples_of_modules(module):
    found = importlib.import_module(module)
    for example in doctest.DocTestFinder(exclude_empty=True).find(found):
        run_examples(example)


@pytest.mark.parametrize("name", sorted(op.__all__))
def test_every_public_name_has_an_example(name):
    thing = getattr(op, name)
    examples = doctest.DocTestFinder(recurse=False).find(thing, name, module=False, globs={})
    assert sum(len(example.examples) for example in examples) > 0
    for example in examples:
        run_examples(example)


def test_public_names():
    assert set(op.__all__) == NAMES
    assert list(op.__all__) == sorted(op.__all__)
    assert {name for name in vars(op) if not name.startswith("_")} - set(op.__all__) <= {
        name.removeprefix("onepass.") for name in (*MODULES, "onepass._core")
    }


@pytest.mark.parametrize("name", SIGNATURES)
def test_signatures_are_the_contracts(name):
    signature = inspect.signature(getattr(op, name))
    plain = [p.replace(annotation=inspect.Parameter.empty) for p in signature.parameters.values()]
    assert str(inspect.Signature(plain)) == SIGNATURES[name]


def test_the_moments_of_the_contract():
    m = op.moments(np.ones((3, 2)))
    for name in ("count", "mean", "m2"):
        assert hasattr(m, name)
    for method in (m.var, m.std):
        assert inspect.signature(method).parameters["ddof"].default == 0
