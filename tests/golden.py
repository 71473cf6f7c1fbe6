"""Golden digests: SHA-256 of every function's results, in every type and layout, of inputs made of integers alone.

    python tests/golden.py              says which digests of golden.txt differ from this machine's
    python tests/golden.py --write      writes golden.txt anew (after a change that is meant to change bits, and says so)

golden.txt has a line `digest  key` for each, as sha256sum writes them; a program in another language that prints the same
lines can be compared by diff. A key reads function/shape/axis/groups/dtype.

THE NUMBERS. Everything below is integer arithmetic modulo 2^64 and exact conversions: no rounding, no library's generator.

    hash(array, i)  the i-th output of SplitMix64 (Steele, Lea & Flood 2014), seeded with array * 2^32:
                        z = array * 2^32 + (i + 1) * 0x9E3779B97F4A7C15
                        z = (z ^ z >> 30) * 0xBF58476D1CE4E5B9;  z = (z ^ z >> 27) * 0x94D049BB133111EB;  z ^ z >> 31

An array has a number (ARRAYS), its elements are counted from 0 in C order. p is the number of binary digits of x's type
(53, 24, 11, 8), h = hash(array, i), and [n] are the upper n bits of h as an integer:

    weight                (64 + [6]) / 64, negative where h is odd
    running_var           (64 + [6]) / 64
    bias, running_mean    ([7] - 64) / 64
    mask                  [2] is not 0
    weights               [6] / 64, in float64 (of moments; 0 among them)
    dy                    as x is where the kind is 0
    x, residual           by the kind of the element's group, g % 8 where g = i / inner % number (integers; `groups` in
                          the key is inner:number), with k = [p] - 2^(p-1), which is at most p - 1 bits and a sign:
        0, 6, 7   k 2^(1-p)                               uniform in [-1, 1)
        1         (2^(p-1) + [p/2]) 2^(1-p)               a mean that is large beside the deviation
        2         3/4                                     constant
        3         k 2^(1-p) 2^huge                        whose squares overflow         (EXPONENTS)
        4         k 2^(1-p) 2^-(h % 8)                    of many magnitudes
        5         k 2^(1-p) 2^tiny                        whose squares vanish           (EXPONENTS)

THE CALLS. eps is 2^-17 (exact in float32); batch norm in training has momentum 0.1 (a double) and running_ddof 0; group
norm cuts 12 channels into 4 groups and 24 into 6; ddof is 0; min_max_scale scales to (-0.5, 0.75); weights and running
statistics are always given; for "moments skipna" x is NaN where the mask is false. THE DIGEST is that of all results'
bytes one after the other, each in C order, little-endian: y, mean, rstd (rms_norm: y, rstd; sums: y, x + residual;
moments: count, mean, m2, in float64; standardize: y, mean, m2; min_max_scale: y; gradients: dx, dweight, dbias), then what
was updated in place (running_mean, running_var). Lines whose key begins with an array's name are digests of inputs: where
a result differs they tell whether its inputs do.
"""

import argparse
import functools
import hashlib
import pathlib
import sys

import calls
import numpy as np

TABLE = pathlib.Path(__file__).with_name("golden.txt")
EPS = 2.0**-17
ARRAYS = {"x": 1, "weight": 2, "bias": 3, "residual": 4, "running_mean": 5, "running_var": 6, "dy": 7, "mask": 8,
          "weights": 9}  # fmt: skip
DIGITS = {"float64": 53, "float32": 24, "float16": 11, "bfloat16": 8}
EXPONENTS = {"float64": (600, -600), "float32": (100, -100), "float16": (15, -14), "bfloat16": (100, -100)}

# shape, axis, and the groups of x as inner:number
AXES = [
    ((37, 1003), -1, (1003, 37)),
    ((9, 5003), -1, (5003, 9)),
    ((16, 7, 33), (1, 2), (231, 16)),
    ((1031, 37), 0, (1, 37)),
    ((3, 700, 5), 1, (1, 5)),
    ((9, 65, 17), 1, (1, 17)),
    ((13, 11, 19), (0, 2), (19, 11)),
]
CHANNELS = [
    ((1031, 37), 1, (1, 37)),
    ((2003, 3), 1, (1, 3)),
    ((7, 12, 13, 17), 1, (221, 12)),
    ((60, 24, 5), 1, (5, 24)),
    ((7, 13, 17, 12), -1, (1, 12)),
]
SAMPLES = [
    ((7, 12, 13, 17), 1, (663, 28)),
    ((60, 24, 5), 1, (20, 360)),
    ((7, 13, 17, 12), -1, (3, 4)),
]
LAYOUTS = {"axes": AXES, "channels": CHANNELS, "samples": SAMPLES}


def key(name, shape, axis, groups, dtype):
    def text(numbers, by):
        return by.join(map(str, numbers if isinstance(numbers, tuple) else (numbers,)))

    layout = text(shape, "x"), f"axis={text(axis, ',')}", f"groups={text(groups, ':')}"
    return "/".join((name.replace(" ", "_"), *layout, dtype))


CASES = {
    key(name, shape, axis, groups, dtype): (name, shape, axis, groups, dtype)
    for name, row in calls.CALLS.items()
    for shape, axis, groups in LAYOUTS[row.axis]
    for dtype in DIGITS
}


def hashes(array, n):
    """The first n outputs of SplitMix64."""
    z = np.uint64(array << 32) + np.arange(1, n + 1, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15)
    z = (z ^ z >> np.uint64(30)) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ z >> np.uint64(27)) * np.uint64(0x94D049BB133111EB)
    return z ^ z >> np.uint64(31)


def upper(h, bits):
    return (h >> np.uint64(64 - bits)).astype(np.int64)


def exactly(integers, exponents, dtype):
    """integers * 2^exponents, in a type that holds them."""
    values = np.ldexp(integers.astype(np.float64), exponents)
    stored = values.astype(dtype)
    assert np.array_equal(stored.astype(np.float64), values), dtype
    return stored


@functools.cache
def data(number, shape, groups, dtype):
    """x or a residual."""
    n, p = int(np.prod(shape)), DIGITS[dtype]
    h = hashes(number, n)
    kind = np.arange(n) // groups[0] % groups[1] % 8 if groups else np.zeros(n, int)
    huge, tiny = EXPONENTS[dtype]
    integers, exponents = upper(h, p) - (1 << (p - 1)), np.full(n, 1 - p)
    integers[kind == 1] = ((1 << (p - 1)) + upper(h, p // 2))[kind == 1]
    integers[kind == 2], exponents[kind == 2] = 3, -2
    exponents[kind == 3] += huge
    exponents[kind == 4] -= (h % np.uint64(8)).astype(np.int64)[kind == 4]
    exponents[kind == 5] += tiny
    made = exactly(integers, exponents, calls.DTYPES[dtype]).reshape(shape)
    made.flags.writeable = False
    return made


def parameter(name, shape, dtype):
    h = hashes(ARRAYS[name], int(np.prod(shape)))
    if name == "mask":
        return (upper(h, 2) != 0).reshape(shape)
    if name == "weights":
        return exactly(upper(h, 6), -6, dtype).reshape(shape)
    if name in ("weight", "running_var"):
        integers = 64 + upper(h, 6)
        if name == "weight":
            integers = np.where(h % np.uint64(2) == 1, -integers, integers)
    else:
        integers = upper(h, 7) - 64
    return exactly(integers, -6, dtype).reshape(shape)


def inputs(call, groups, dtype):
    arrays = {"x": data(ARRAYS["x"], call.shape, groups, dtype)}
    for name, taken in call.takes.items():
        if taken.role == "data":
            arrays[name] = data(ARRAYS[name], taken.shape, None if name == "dy" else groups, dtype)
        else:
            arrays[name] = parameter(name, taken.shape, taken.dtype(calls.DTYPES[dtype]))
    call.prepare(arrays)
    return arrays


def results(case):
    name, shape, axis, groups, dtype = CASES[case]
    call = calls.CALLS[name](shape, axis)
    return call.results(inputs(call, groups, dtype), EPS)


def digest(arrays):
    sha = hashlib.sha256()
    for array in arrays:
        array = np.ascontiguousarray(array)
        sha.update(array.byteswap().tobytes() if sys.byteorder == "big" else array.tobytes())
    return sha.hexdigest()


def input_digests():
    """Of every x, and of a parameter of each kind."""
    layouts = {(shape, groups) for rows in LAYOUTS.values() for shape, _, groups in rows}
    for shape, groups in sorted(layouts):
        for dtype in DIGITS:
            text = "x".join(map(str, shape)), f"groups={groups[0]}:{groups[1]}", dtype
            yield "/".join(("x", *text)), digest([data(ARRAYS["x"], shape, groups, dtype)])
    for name in ARRAYS:
        if name not in ("x", "residual", "dy"):
            made = parameter(name, (37,), np.dtype(np.float64 if name == "weights" else np.float32))
            yield f"{name}/37/{made.dtype}", digest([made])


def read():
    lines = TABLE.read_text().splitlines()
    return {case: sha for sha, case in (line.split("  ") for line in lines)}


def main():
    parser = argparse.ArgumentParser(description="The golden digests of tests/golden.txt.")
    parser.add_argument("--write", action="store_true", help="write the table anew")
    write = parser.parse_args().write
    now = {**dict(input_digests()), **{case: digest(results(case)) for case in CASES}}
    if write:
        TABLE.write_text("".join(f"{sha}  {case}\n" for case, sha in now.items()))
        return 0
    before = read()
    different = [case for case in {**before, **now} if before.get(case) != now.get(case)]
    print("\n".join(different) or f"{len(now)} digests, all as written")
    return 1 if different else 0


if __name__ == "__main__":
    sys.exit(main())
