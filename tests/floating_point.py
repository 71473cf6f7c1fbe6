"""Every function under another library's floating-point environment. Linux, x86-64 and AArch64.

    python tests/floating_point.py ENVIRONMENT      prints the calls whose results, or flags, are not the ordinary ones

The control register is set through the C library's fesetenv, whose argument holds it: bits that flush subnormal results
to zero (FTZ), take subnormal inputs for zero (DAZ), and choose the rounding.
"""

import ctypes
import ctypes.util
import platform
import sys

import numpy as np
from ml_dtypes import finfo

X86 = platform.machine().lower() in ("x86_64", "amd64")
libm = ctypes.CDLL(ctypes.util.find_library("m"))

# Of fenv_t: its words, and which of them is the control register; then the register's bits.
if X86:
    WORDS, REGISTER = 8, 7  # x87's 28 bytes, then MXCSR
    BITS = {"FTZ": 1 << 15, "DAZ": 1 << 6, "downward": 1 << 13, "upward": 2 << 13, "towards zero": 3 << 13}
    FLAGS = 0x3F
else:
    WORDS, REGISTER = 2, 0  # FPCR, FPSR
    BITS = {"FTZ": 1 << 24, "upward": 1 << 22, "downward": 2 << 22, "towards zero": 3 << 22}  # FZ does both
    FLAGS = 0
ENVIRONMENTS = {**BITS, "ordinary": 0, "flushing": BITS["FTZ"] | BITS.get("DAZ", 0)}
ALL = 0x3D if X86 else 0x1F  # FE_ALL_EXCEPT


def control():
    """The control register, without the flags that x86 keeps in it."""
    environment = (ctypes.c_uint32 * WORDS)()
    libm.fegetenv(environment)
    return environment[REGISTER] & ~FLAGS


def set_control(bits):
    environment = (ctypes.c_uint32 * WORDS)()
    libm.fegetenv(environment)
    environment[REGISTER] = environment[REGISTER] & FLAGS | bits
    libm.fesetenv(environment)
    assert control() == bits, (control(), bits)


def layouts(row):
    """Large enough for two threads in 32 bits."""
    if row.axis == "axes":
        shapes = [((70, 515), -1), ((515, 70), 0), ((7, 37, 139), 1)]
    else:
        shapes = [((515, 70), 1), ((9, 12, 29, 15), 1), ((9, 29, 15, 12), -1)]
    return [row(shape, axis) for shape, axis in shapes if len(shape) >= row.least_ndim]


def arguments(call, dtype):
    """Ordinary groups, subnormal ones, ones whose squares vanish; ordinary parameters and subnormal ones."""
    import calls

    arrays = calls.arguments(call, dtype)
    info = finfo(dtype)
    subnormal = float(info.smallest_normal) / 300
    x = call.groups(arrays["x"]).astype(np.float64)  # (NaN stays what it is)
    x[1::3] *= subnormal
    x[2::3] *= float(info.smallest_normal) ** 0.6
    arrays["x"] = call.scattered(x.astype(dtype))
    for key, array in arrays.items():
        if key in ("weight", "bias", "dy", "residual"):
            array.flat[::2] = (array.flat[::2].astype(np.float64) * subnormal).astype(dtype)
    return arrays


def cases():
    import calls

    for name, row in calls.CALLS.items():
        for call in layouts(row):
            for dtype in calls.DTYPES.values():
                yield f"{name} {call.shape} axis={call.axis} {dtype.name}", call, arguments(call, dtype)


def results(call, arrays, isa, threads):
    import calls

    import onepass as op

    op.use_isa(isa)
    op.set_num_threads(threads)
    # An eps that matters beside some groups only.
    return calls.bits(call.results(arrays, 1e-30))


def differing(bits):
    """What comes out under the environment, against the ordinary one: before it, under it, and after it."""
    import onepass as op

    ordinary = control()
    prepared = [*cases()]
    isas = op.available_isas()
    want = [results(call, arrays, isas[-1], 1) for _, call, arrays in prepared]
    # Threads begin with the environment of the one that starts them: these are the first that this process starts.
    for isa, threads in [*((isa, 2) for isa in isas), (isas[-1], 1)]:
        for (name, call, arrays), expected in zip(prepared, want, strict=True):
            set_control(ordinary | bits)
            got = results(call, arrays, isa, threads)
            left = control()
            set_control(ordinary)
            if left != ordinary | bits:
                yield f"{name}: control register {ordinary | bits:#x} became {left:#x}, {isa}, {threads} threads"
            if got != expected:
                yield f"{name}: other results, {isa}, {threads} threads"
    for (name, call, arrays), expected in zip(prepared, want, strict=True):
        if results(call, arrays, isas[-1], 2) != expected:
            yield f"{name}: other results after it, from threads that were started in it"


def flags():
    """Calls that raise a flag, or lower one."""
    import onepass as op

    op.set_num_threads(2)
    op.layer_norm(np.ones((1, 1), np.float32))  # the first call of all imports this and that
    for name, call, arrays in cases():
        arrays = {key: array.copy() for key, array in arrays.items()}
        for before, set_them in ((0, libm.feclearexcept), (ALL, libm.feraiseexcept)):
            set_them(ALL)
            call.run(arrays, 1e-30)
            after = libm.fetestexcept(ALL)
            libm.feclearexcept(ALL)
            if after != before:
                yield f"{name}: flags were {before:#x} and are {after:#x}"


if __name__ == "__main__":
    found = [*(flags() if sys.argv[1] == "flags" else differing(ENVIRONMENTS[sys.argv[1]]))]
    print("\n".join(found))
    sys.exit(1 if found else 0)
