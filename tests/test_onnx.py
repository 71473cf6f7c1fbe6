"""The ONNX project's own backend node tests of the normalizations, evaluated by onepass.

A case is a model with inputs, outputs and tolerances. Those whose model is the one node are run, all of them, with the
values and tolerances they come with. The `_expanded` cases are not models of these operators: they spell the same
function out in other ones (ReduceMean, Sqrt, Div, ...), which onepass does not have.

Operators: https://onnx.ai/onnx/operators (opset 23: RMSNormalization; 21: GroupNormalization with a scale a channel).
"""

import importlib
from pathlib import Path

import numpy as np
import onnx
import onnx.backend.test.case.node as onnx_node
import pytest

import onepass as op


def trailing(x, axis):
    return tuple(range(axis % x.ndim, x.ndim))


def layer_normalization(x, scale, bias=None, *, axis, epsilon):
    return op.layer_norm(x, scale, bias, axis=trailing(x, axis), eps=epsilon, return_stats=True)


def rms_normalization(x, scale, *, axis, epsilon):
    return (op.rms_norm(x, scale, axis=trailing(x, axis), eps=epsilon),)


def batch_normalization(x, scale, bias, mean, var, *, training_mode, momentum, epsilon):
    mean, var = mean.copy(), var.copy()
    y = op.batch_norm(
        x,
        scale,
        bias,
        running_mean=mean,
        running_var=var,
        training=bool(training_mode),
        momentum=1 - momentum,  # ONNX's is the weight of the old statistics
        running_ddof=0,
        eps=epsilon,
    )
    return y, mean, var


def group_normalization(x, scale, bias, *, num_groups, epsilon):
    return (op.group_norm(x, num_groups, scale, bias, eps=epsilon),)


def instance_normalization(x, scale, bias, *, epsilon):
    return (op.instance_norm(x, scale, bias, eps=epsilon),)


def mean_variance_normalization(x, *, axes):
    y, moments = op.standardize(x, axis=tuple(axes), return_moments=True)
    std = np.expand_dims(moments.std(), tuple(axes))
    scale = std / (std + 1e-9)  # no eps does this: ONNX adds to the deviation, not to the variance
    return ((y * scale).astype(x.dtype),)


OPERATORS = {
    "LayerNormalization": layer_normalization,
    "RMSNormalization": rms_normalization,
    "BatchNormalization": batch_normalization,
    "GroupNormalization": group_normalization,
    "InstanceNormalization": instance_normalization,
    "MeanVarianceNormalization": mean_variance_normalization,
}


def evaluate(model, inputs):
    """The outputs that the model's one node names. Attributes it leaves out have the schema's defaults."""
    [node] = model.graph.node
    [opset] = model.opset_import
    schema = onnx.defs.get_schema(node.op_type, opset.version, node.domain)
    attributes = {name: a.default_value for name, a in schema.attributes.items() if a.default_value.type}
    attributes |= {a.name: a for a in node.attribute}
    values = {name: onnx.helper.get_attribute_value(a) for name, a in attributes.items()}
    # onepass has no choice of the statistics' type: float32 for all but float64, of which there is no case.
    assert values.pop("stash_type", onnx.TensorProto.FLOAT) == onnx.TensorProto.FLOAT
    given = iter(inputs)
    results = OPERATORS[node.op_type](*(next(given) if name else None for name in node.input), **values)
    return [result for name, result in zip(node.output, results, strict=False) if name]


def cases():
    """Importing a module computes its cases, which takes seconds for all: hence only those that name an operator."""
    root = Path(onnx_node.__file__).parent
    for path in sorted(root.rglob("[!_]*.py")):
        if any(name in path.read_text(encoding="utf-8") for name in OPERATORS):
            parts = path.relative_to(root).with_suffix("").parts
            importlib.import_module(".".join((onnx_node.__name__, *parts)))
    return [
        case
        for case in onnx_node._NodeTestCases
        if len(case.model.graph.node) == 1 and case.model.graph.node[0].op_type in OPERATORS
    ]


CASES = cases()


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name.removeprefix("test_"))
def test_case(case, each_isa):
    assert case.data_sets
    for inputs, outputs in case.data_sets:
        results = evaluate(case.model, inputs)
        assert len(results) == len(outputs)
        for result, expected in zip(results, outputs, strict=True):
            assert (result.shape, result.dtype) == (expected.shape, expected.dtype)
            np.testing.assert_allclose(result, expected, rtol=case.rtol, atol=case.atol)


def test_no_case_is_left_out():
    """Against what ONNX itself collects, from every module; larger models with one of the operators count too."""
    with np.errstate(all="ignore"):  # cases of casts overflow on purpose, and warnings are errors
        every = onnx_node.collect_testcases(None)
    models = {case.name: {node.op_type for node in case.model.graph.node} for case in every}
    for name in OPERATORS:
        expected = {case for case, operators in models.items() if name in operators}
        assert expected
        assert {case.name for case in CASES if case.model.graph.node[0].op_type == name} == expected


def test_both_modes_of_batch_normalization_have_cases():
    nodes = [case.model.graph.node[0] for case in CASES]
    outputs = {len(node.output) for node in nodes if node.op_type == "BatchNormalization"}
    assert outputs == {1, 3}


def test_mean_variance_normalization_adds_to_the_deviation():
    """ONNX's own case has deviations of 0.3, to which 1e-9 is nothing."""
    x = np.array([[1e-9], [-1e-9]])
    np.testing.assert_allclose(mean_variance_normalization(x, axes=[0])[0], [[0.5], [-0.5]], rtol=1e-12)
