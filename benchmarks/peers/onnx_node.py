"""ONNX Runtime: a model of one node on the CPU, its inputs and preallocated results bound beforehand.

RMS and the residual sums are the runtime's own operators (SimplifiedLayerNormalization, Skip...): it is what its
optimizer turns the standard graphs into.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx
import onnxruntime
from cases import Array, Case, Data
from onnx import TensorProto, helper

from peers import Absent, Job

CONTRIB = "com.microsoft"
TYPES = {
    "float32": TensorProto.FLOAT,
    "float16": TensorProto.FLOAT16,
    "bfloat16": TensorProto.BFLOAT16,
}


@dataclass(frozen=True)
class Node:
    """An operator; `results` names its outputs up to the last one wanted, "" for one that is not."""

    operator: str
    inputs: tuple[str, ...]
    domain: str = ""
    results: tuple[str, ...] = ("y",)
    attributes: dict[str, Any] = field(default_factory=dict)


AFFINE = ("x", "weight", "bias")
RUNNING = ("running_mean", "running_var")
SUM = ("y", "", "", "sum")
JOBS = {
    "layer_norm": Node("LayerNormalization", AFFINE, attributes={"axis": -1}),
    "rms_norm": Node("SimplifiedLayerNormalization", AFFINE[:2], attributes={"axis": -1}),
    "add_layer_norm": Node("SkipLayerNormalization", ("x", "residual", "weight", "bias"), CONTRIB, SUM),
    "add_rms_norm": Node("SkipSimplifiedLayerNormalization", ("x", "residual", "weight"), CONTRIB, SUM),
    "group_norm": Node("GroupNormalization", AFFINE),
    "instance_norm": Node("InstanceNormalization", AFFINE),
    "batch_norm_inference": Node("BatchNormalization", AFFINE + RUNNING),
    "batch_norm": Node(
        "BatchNormalization",
        AFFINE + RUNNING,
        results=("y", "new_mean", "new_var"),
        attributes={"training_mode": 1},
    ),
}
# GroupNormalization takes one weight per channel since 21.
OPSET, IR_VERSION = 21, 10


def job(case: Case, data: Data, threads: int) -> Job:
    arrays = dict(data.arrays)
    channels = np.zeros(case.channels, case.numpy_dtype)
    if case.job == "batch_norm":
        arrays |= {"running_mean": channels, "running_var": channels + 1}
    if case.job.startswith("batch_norm") and case.axis == -1:
        # A batch of images with channels last is a batch of pixels: the second axis is the channels' to ONNX.
        arrays["x"] = arrays["x"].reshape(-1, case.channels)
    node = JOBS[case.job]
    results = {
        name: np.empty_like(channels if name.startswith("new_") else arrays["x"])
        for name in node.results
        if name
    }
    binding, session = bound(case, node, arrays, results, threads)
    wanted = [results[name] for name in ("y", "sum") if name in results]
    return Job(lambda: session.run_with_iobinding(binding), lambda _: wanted)


def bound(
    case: Case, node: Node, arrays: dict[str, Array], results: dict[str, Array], threads: int
) -> tuple[Any, Any]:
    kind = TYPES[case.dtype]

    def declare(given: dict[str, Array]) -> list[Any]:
        return [helper.make_tensor_value_info(name, kind, array.shape) for name, array in given.items()]

    def value(array: Array) -> Any:
        if case.dtype == "bfloat16":
            bits = array.view(np.uint16)
            return onnxruntime.OrtValue.ortvalue_from_numpy_with_onnx_type(bits, kind)
        return onnxruntime.OrtValue.ortvalue_from_numpy(array)

    attributes = {"epsilon": case.eps, **node.attributes}
    if case.job == "group_norm":
        attributes["num_groups"] = case.groups
    onnx_node = helper.make_node(
        node.operator, list(node.inputs), list(node.results), domain=node.domain, **attributes
    )
    inputs = {name: arrays[name] for name in node.inputs}
    graph = helper.make_graph([onnx_node], case.job, declare(inputs), declare(results))
    imports = [helper.make_opsetid("", OPSET), helper.make_opsetid(CONTRIB, 1)]
    model: onnx.ModelProto = helper.make_model(graph, opset_imports=imports, ir_version=IR_VERSION)

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 4  # what it cannot do is reported here, as a dash
    try:
        session = onnxruntime.InferenceSession(
            model.SerializeToString(), options, providers=["CPUExecutionProvider"]
        )
        binding = session.io_binding()
        for name, array in inputs.items():
            binding.bind_ortvalue_input(name, value(array))
        for name, array in results.items():
            binding.bind_ortvalue_output(name, value(array))
        session.run_with_iobinding(binding)
    except Exception as error:  # its exceptions are plain Exceptions; the message has the reason
        raise Absent(str(error).split(" : ")[-1].strip()[:120]) from error
    return binding, session
