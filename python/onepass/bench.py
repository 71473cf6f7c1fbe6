"""`onepass bench`: onepass beside NumPy, torch and ONNX Runtime, and all of them beside the ceiling.

Kernels are compared with kernels: onepass, NumPy and ONNX Runtime (io-binding) write into results that exist
already; torch, whose norms have no `out=`, gets its memory back from an allocator that was told to keep it.
Before a case is timed, its result is held against the NumPy formula: a wrong result has no speed.

`CASES` and `actions` are what `benchmarks/` measures too.
"""

from __future__ import annotations

import importlib
import io
import json
import platform
import warnings
from collections.abc import Callable, Mapping, Sequence
from contextlib import redirect_stdout
from dataclasses import asdict, dataclass
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

import onepass as op
from onepass import timing
from onepass._types import Array
from onepass.timing import Action, Ratio, Seconds

if TYPE_CHECKING:
    from rich.table import Table

Call = Callable[[], Any]

EPS = 1e-5
PEERS = ("NumPy", "torch", "ONNX Runtime")
# A figure whose rounds differ by more than this (between quartiles) is marked in the table.
NOISY = 0.15


@dataclass(frozen=True)
class Case:
    """One function on one shape, float32.

    `axis` is the argument of that name: the normalized axis (layer_norm and its gradients), the channel axis
    (batch_norm) or the reduced one (moments, standardize). `sweeps` are the trips over the data that cannot be saved.
    """

    function: str
    shape: tuple[int, ...]
    axis: int
    sweeps: tuple[str, ...]
    quick: bool = False

    @property
    def label(self) -> str:
        return f"{self.function} axis={self.axis}"

    @property
    def is_backward(self) -> bool:
        return self.function == "layer_norm_backward"

    @property
    def moved(self) -> int:
        """Bytes that `sweeps` read and write."""
        return 4 * int(np.prod(self.shape)) * sum(2 if sweep == "copy" else 1 for sweep in self.sweeps)


# A row can be written as soon as it was read; no column before the last row was read.
ROWS = ("copy",)
COLUMNS = ROWS_BACKWARD = ("read", "copy")
STATISTICS = ("read",)

CASES = (
    Case("layer_norm", (1, 768), -1, ROWS, quick=True),
    Case("layer_norm", (512, 768), -1, ROWS),
    Case("layer_norm", (2048, 1024), -1, ROWS, quick=True),
    Case("layer_norm", (128, 4096), -1, ROWS),
    Case("layer_norm", (65536, 1024), -1, ROWS),
    Case("layer_norm_backward", (2048, 1024), -1, ROWS_BACKWARD, quick=True),
    Case("layer_norm_backward", (32768, 1024), -1, ROWS_BACKWARD),
    Case("batch_norm", (1024, 1024), 1, COLUMNS, quick=True),
    Case("batch_norm", (65536, 64), 1, COLUMNS),
    Case("batch_norm", (8, 256, 28, 28), 1, COLUMNS, quick=True),
    Case("batch_norm", (32, 64, 56, 56), 1, COLUMNS),
    Case("batch_norm", (32, 56, 56, 64), -1, COLUMNS),
    Case("moments", (1024, 1024), 0, STATISTICS, quick=True),
    Case("moments", (65536, 64), 0, STATISTICS),
    Case("standardize", (1024, 1024), 0, COLUMNS, quick=True),
    Case("standardize", (65536, 64), 0, COLUMNS),
)


@dataclass(frozen=True)
class Data:
    """What the actions of one case work on; weight and bias have one entry per column or channel."""

    dy: Array  # the gradient of the result; empty where the case is no backward one
    x: Array
    weight: Array
    bias: Array

    @classmethod
    def of(cls, case: Case) -> Data:
        rng = np.random.default_rng(0)
        affine = rng.standard_normal((2, case.shape[case.axis]), dtype=np.float32)
        x = rng.standard_normal(case.shape, dtype=np.float32)
        dy = rng.standard_normal(case.shape if case.is_backward else (0,), dtype=np.float32)
        return cls(dy, x, affine[0] + 1, affine[1])


def ours(case: Case, data: Data) -> tuple[Call, Array]:
    """Our action, and the result it writes to (empty where it makes its own)."""
    x, w, b, axis = data.x, data.weight, data.bias, case.axis
    out = np.empty(0 if case.is_backward or case.function == "moments" else x.shape, x.dtype)
    calls: dict[str, Call] = {
        "layer_norm": lambda: op.layer_norm(x, w, b, axis=axis, eps=EPS, out=out),
        "layer_norm_backward": lambda: op.layer_norm_backward(data.dy, x, w, axis=axis, eps=EPS),
        "batch_norm": lambda: op.batch_norm(x, w, b, training=True, axis=axis, eps=EPS, out=out),
        "moments": lambda: op.moments(x, axis=axis),
        "standardize": lambda: op.standardize(x, axis=axis, out=out),
    }
    return calls[case.function], out


def numpy_formula(case: Case, data: Data) -> Call:
    """The formula as one writes it in NumPy, its last steps in place."""
    x, out = data.x, np.empty_like(data.x)
    if case.function == "moments":
        return lambda: (x.mean(axis=case.axis), x.var(axis=case.axis))

    if case.is_backward:

        def gradients() -> tuple[Array, ...]:
            rstd = 1 / np.sqrt(x.var(axis=-1, keepdims=True) + np.float32(EPS))
            xhat, g = (x - x.mean(axis=-1, keepdims=True)) * rstd, data.dy * data.weight
            along = (g * xhat).mean(axis=-1, keepdims=True)
            dx = (g - g.mean(axis=-1, keepdims=True) - xhat * along) * rstd
            return dx, (data.dy * xhat).sum(axis=0), data.dy.sum(axis=0)

        return gradients

    reduced: int | tuple[int, ...] = case.axis
    shape = [1] * x.ndim
    shape[case.axis] = -1
    w, b = data.weight.reshape(shape), data.bias.reshape(shape)
    if case.function == "batch_norm":
        reduced = tuple(axis for axis in range(x.ndim) if axis != case.axis % x.ndim)

    def normalize() -> Array:
        eps = EPS if case.function != "standardize" else 0.0
        mean = x.mean(axis=reduced, keepdims=True)
        std = np.sqrt(x.var(axis=reduced, keepdims=True) + np.float32(eps))
        np.subtract(x, mean, out=out)
        np.divide(out, std, out=out)
        if case.function != "standardize":
            np.multiply(out, w, out=out)
            np.add(out, b, out=out)
        return out

    return normalize


def torch_action(case: Case, data: Data, threads: int) -> Call | None:
    torch = importlib.import_module("torch")
    torch.set_num_threads(threads)
    x, w, b = (torch.from_numpy(array) for array in (data.x, data.weight, data.bias))
    functional = torch.nn.functional
    if case.function == "layer_norm":
        return lambda: functional.layer_norm(x, w.shape, w, b, EPS)
    if case.is_backward:
        _, mean, rstd = torch.native_layer_norm(x, w.shape, w, b, EPS)
        backward = torch.ops.aten.native_layer_norm_backward
        dy = torch.from_numpy(data.dy)
        return lambda: backward(dy, x, w.shape, mean, rstd, w, b, [True, True, True])
    if case.function == "batch_norm":
        # Channels-last memory is, to torch, a channels-first shape with other strides.
        first = torch.movedim(x, case.axis, 1)
        return lambda: functional.batch_norm(first, None, None, w, b, training=True, eps=EPS)
    if case.function == "moments":
        return lambda: torch.var_mean(x, dim=case.axis, correction=0)
    out = torch.empty_like(x)

    def standardize() -> object:
        var, mean = torch.var_mean(x, dim=case.axis, correction=0)
        return torch.sub(x, mean, out=out).div_(var.sqrt_())

    return standardize


def onnxruntime_action(case: Case, data: Data, threads: int) -> Call | None:
    if (case.function, case.axis) not in (("layer_norm", -1), ("batch_norm", 1)):
        return None  # one operator or none: a graph put together here is nobody's product
    runtime, onnx = importlib.import_module("onnxruntime"), importlib.import_module("onnx")
    inputs = {"x": data.x, "weight": data.weight, "bias": data.bias}
    outputs = {"y": np.empty_like(data.x)}
    if case.function == "layer_norm":
        node = onnx.helper.make_node("LayerNormalization", list(inputs), list(outputs), axis=-1, epsilon=EPS)
    else:
        inputs |= {"mean": np.zeros_like(data.bias), "var": np.ones_like(data.bias)}
        outputs |= {"new_mean": np.empty_like(data.bias), "new_var": np.empty_like(data.bias)}
        names = list(inputs), list(outputs)
        node = onnx.helper.make_node("BatchNormalization", *names, training_mode=1, epsilon=EPS)

    def declare(arrays: Mapping[str, Array]) -> list[Any]:
        describe = onnx.helper.make_tensor_value_info
        return [describe(name, onnx.TensorProto.FLOAT, array.shape) for name, array in arrays.items()]

    graph = onnx.helper.make_graph([node], case.function, declare(inputs), declare(outputs))
    # Versions that every ONNX Runtime since 1.14 reads, whatever the installed onnx would write by itself.
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 17)], ir_version=8)
    options = runtime.SessionOptions()
    options.intra_op_num_threads = threads
    session = runtime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    binding = session.io_binding()
    for name, array in inputs.items():
        binding.bind_cpu_input(name, array)
    for name, array in outputs.items():
        binding.bind_output(name, "cpu", 0, array.dtype, array.shape, array.ctypes.data)

    def run_bound() -> object:
        session.run_with_iobinding(binding)
        return outputs  # the binding holds bare addresses: this keeps their arrays alive

    return run_bound


# Each with the modules it imports; where one of them is not installed the column shows dashes.
FRAMEWORKS: dict[str, tuple[tuple[str, ...], Callable[[Case, Data, int], Call | None]]] = {
    "torch": (("torch",), torch_action),
    "ONNX Runtime": (("onnxruntime", "onnx"), onnxruntime_action),
}


def actions(case: Case, *, peers: Sequence[str] = PEERS) -> dict[str, Action]:
    """Everything that is to be timed side by side in `case`: onepass, the peers at hand, and the probes.

    The frameworks get as many threads as onepass has now, so it is within `num_threads` that this is called.
    Raises `ArithmeticError` where onepass and the NumPy formula do not agree.
    """
    data = Data.of(case)
    our_action, out = ours(case, data)
    formula = numpy_formula(case, data)
    check(case, our_action(), formula())
    found: dict[str, Action] = {"onepass": our_action, "NumPy": formula}
    for peer in peers:
        modules, make = FRAMEWORKS.get(peer, ((), None))
        if make is None or any(find_spec(module) is None for module in modules):
            continue
        action = make(case, data, op.get_num_threads())
        if action is not None:
            found[peer] = action
    dst = out if out.size else np.empty_like(data.x)
    return found | timing.ceiling_actions(data.x, dst)


def check(case: Case, mine: Any, theirs: Any) -> None:
    if case.function == "moments":
        mine, theirs = np.stack([mine.mean, mine.var()]), np.stack(theirs)
    if case.is_backward:  # sums over rows grow as the root of their number
        scale = len(mine[0]) ** -0.5
        mine, theirs = (np.vstack([r[0], scale * r[1], scale * r[2]]) for r in (mine, theirs))
    # Loose, since float32 NumPy is the less accurate of the two; `demo` and the tests are the strict ones.
    if not np.allclose(mine, theirs, rtol=1e-3, atol=1e-3):
        raise ArithmeticError(f"{case.label} of {case.shape}: onepass and NumPy do not agree")


@dataclass(frozen=True)
class Row:
    """One line of the table: `fraction` is ceiling time / our time, `ratios` are peer time / our time."""

    function: str
    shape: tuple[int, ...]
    axis: int
    sweeps: tuple[str, ...]
    threads: int
    rounds: int
    seconds: dict[str, float]
    gigabytes_per_second: float
    fraction: Ratio
    ratios: dict[str, Ratio]

    @classmethod
    def of(cls, case: Case, threads: int, seconds: Mapping[str, Seconds]) -> Row:
        mine = seconds["onepass"]
        ceiling = timing.ceiling_seconds(seconds, case.sweeps)
        medians = {name: float(np.median(values)) for name, values in seconds.items()}
        return cls(
            case.function,
            case.shape,
            case.axis,
            case.sweeps,
            threads,
            len(mine),
            medians | {"ceiling": float(np.median(ceiling))},
            case.moved / medians["onepass"] / 1e9,
            Ratio.of(ceiling, mine),
            {peer: Ratio.of(seconds[peer], mine) for peer in PEERS if peer in seconds},
        )


def measure(case: Case, threads: int, *, quick: bool = False, peers: Sequence[str] = PEERS) -> Row:
    """Time one case with `threads` threads for everybody (NumPy's reductions know only one)."""
    with op.num_threads(threads):
        todo = actions(case, peers=peers)
        seconds = timing.interleave(todo, rounds=7 if quick else 15, budget=2.0 if quick else 6.0)
    return Row.of(case, threads, seconds)


def duration(seconds: float) -> str:
    scale, unit = (1e3, "ms") if seconds >= 1e-3 else (1e6, "us")
    return f"{seconds * scale:.3g} {unit}"


def ratio_text(ratio: Ratio | None, digits: int = 1, sign: str = "x") -> str:
    if ratio is None:
        return "-"
    return f"{'~' if ratio.spread > NOISY else ''}{ratio.median:.{digits}f}{sign}"


def table(rows: Sequence[Row], threads: int) -> Table:
    from rich import box
    from rich.table import Table

    result = Table(
        title=f"onepass {version('onepass')}, {op.isa()}, {threads} thread{'s'[: threads > 1]}, float32",
        box=box.SIMPLE_HEAD,
        title_style="bold",
    )
    for heading in ("case", "shape"):
        result.add_column(heading, no_wrap=True)
    for heading in ("time", "GB/s", "of ceiling", "vs NumPy", "vs torch", "vs ONNX RT"):
        result.add_column(heading, justify="right", no_wrap=True)
    for row in rows:
        result.add_row(
            f"{row.function} axis={row.axis}",
            " x ".join(map(str, row.shape)),
            duration(row.seconds["onepass"]),
            f"{row.gigabytes_per_second:.1f}",
            ratio_text(row.fraction, 2, ""),
            *(ratio_text(row.ratios.get(peer)) for peer in PEERS),
        )
    return result


LEGEND = """\
batch_norm is training=True; axis=1: channels first, axis=-1: channels last.
of ceiling: 1.00 is the speed of only moving the bytes, with the same threads: for layer_norm a copy (ordinary
  or non-temporal stores, the quicker), for batch_norm, standardize and gradients a read and a copy, for moments
  a read.  GB/s counts these bytes.
vs ...: time of the peer / time of onepass, median over interleaved rounds; NumPy has one thread.
-: not installed, or no such operator.  ~: quartiles over the rounds more than 15 % apart.
"""


def machine() -> dict[str, object]:
    """What the figures depend on, for the JSON file."""
    text = io.StringIO()
    with redirect_stdout(text):
        op.show_config()
    installed = [name for name in ("numpy", "torch", "onnxruntime") if find_spec(name) is not None]
    return {
        "onepass": version("onepass"),
        "isa": op.isa(),
        "platform": platform.platform(),
        "config": text.getvalue(),
        "peers": {name: version(name) for name in installed},
    }


def run(*, json_file: Path | None, quick: bool, threads: int | None) -> int:
    """Measure, print the table and write the file; returns the exit status."""
    from rich.console import Console

    from onepass.cli import progress

    # A table cut off at the 80 columns of a pipe helps nobody.
    console = Console() if Console().is_terminal else Console(width=110)
    threads = op.get_num_threads() if threads is None else threads
    timing.keep_freed_memory()
    cases = [case for case in CASES if case.quick or not quick]
    rows = []
    try:
        with progress(len(cases)) as step, warnings.catch_warnings():
            warnings.simplefilter("ignore")  # a peer's deprecations are not the user's business
            for case in cases:
                step(f"{case.label} of {' x '.join(map(str, case.shape))}")
                rows.append(measure(case, threads, quick=quick))
    except ArithmeticError as wrong:
        console.print(f"wrong: {wrong}", markup=False)
        return 1
    console.print(table(rows, threads))
    console.print(LEGEND, end="", markup=False, highlight=False, soft_wrap=True)
    if json_file is not None:
        document = machine() | {"threads": threads, "quick": quick, "rows": [asdict(row) for row in rows]}
        json_file.write_text(json.dumps(document, indent=2) + "\n")
        console.print(f"figures: {json_file.absolute()}", markup=False, highlight=False, soft_wrap=True)
    return 0
