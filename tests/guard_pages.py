"""Arrays between pages that must not be touched, and every function called on them. Linux only.

    python tests/guard_pages.py ISA DTYPE       calls every function; a touch beside an array ends the process by SIGSEGV

An array lies with its last byte before a guard page, or its first byte behind one, and what is only read lies in pages
that cannot be written. The name of the call under way is the last line of the output.
"""

import ctypes
import mmap
import os
import sys

import numpy as np

PAGE = mmap.PAGESIZE
NONE, READ, READ_WRITE = 0, 1, 3

libc = ctypes.CDLL(None, use_errno=True)
libc.mmap.restype = ctypes.c_void_p
libc.mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t, *[ctypes.c_int] * 3, ctypes.c_long]
libc.mprotect.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]


class Guarded:
    """Memory for one array at a time, between two guard pages. It lives as long as the process."""

    def __init__(self, pages):
        self.size = pages * PAGE
        start = libc.mmap(None, self.size + 2 * PAGE, NONE, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS, -1, 0)
        if start in (None, ctypes.c_void_p(-1).value):
            raise OSError(ctypes.get_errno(), "mmap")
        self.start = start + PAGE
        self.protect(READ_WRITE)

    def protect(self, how):
        if libc.mprotect(self.start, self.size, how):
            raise OSError(ctypes.get_errno(), "mprotect")

    def room(self, n, dtype, at_end):
        """n elements before the upper guard page, or behind the lower one."""
        nbytes = n * dtype.itemsize
        assert nbytes <= self.size, "the array is larger than its pages"
        start = self.start + (self.size - nbytes if at_end else 0)
        memory = (ctypes.c_char * nbytes).from_address(start)
        return np.frombuffer(memory, np.uint8).view(dtype)

    def put(self, array, at_end, padding=0, read_only=True):
        """The array, `padding` elements between its rows, and not one more behind the last or before the first."""
        self.protect(READ_WRITE)
        width = array.shape[-1] if array.ndim else 1
        rows = array.size // width if width else 0
        room = self.room(rows * (width + padding) - padding if rows else 0, array.dtype, at_end)
        strides, step = [], array.itemsize
        for i, n in enumerate(reversed(array.shape)):
            strides.append(step)
            step *= n + (padding if i == 0 else 0)
        view = np.lib.stride_tricks.as_strided(room, array.shape, strides[::-1])
        view[...] = array
        if read_only:
            self.protect(READ)
            view.flags.writeable = False
        return view


# Both sides of a pack, of two, of a chunk; narrow and wide; one row and many.
AXES = [
    *[((3, d), -1) for d in (1, 2, 3, 7, 15, 16, 17, 33, 63, 65, 129, 255, 1000, 1031)],
    *[((n, c), 0) for n, c in ((1, 5), (2, 17), (3, 1), (7, 33), (9, 3), (17, 15), (33, 7))],
    *[((n, c), 0) for n, c in ((129, 31), (300, 65), (70, 2))],
    *[((3, 5, 7), 1), ((2, 31, 65), 1), ((4, 9, 33), (0, 2)), ((3, 17, 5), (1, 2)), ((2, 70, 3), 1)],
]
CHANNELS = [
    *[((n, c), 1) for n, c in ((1, 1), (2, 17), (3, 1), (7, 33), (9, 3), (33, 7))],
    *[((n, c), 1) for n, c in ((129, 31), (300, 65), (70, 2))],
    *[((2, 3, 1), 1), ((3, 5, 7), 1), ((2, 6, 129), 1), ((3, 3, 4, 4), 1), ((2, 2, 31, 33), 1)],
    *[((3, 7, 5), -1), ((2, 65, 17), -1), ((3, 4, 4, 3), -1), ((2, 9, 9, 33), -1), ((1, 300, 2), -1)],
]


def layouts(row):
    if row.axis == "axes":
        return AXES
    return [(shape, axis) for shape, axis in CHANNELS if len(shape) >= row.least_ndim]


def walk(dtype, say):
    """Every function on guarded arrays: dense and with padded rows, at either end; the results as they are elsewhere."""
    import calls

    pool = [Guarded(40) for _ in range(12)]
    for name, row in calls.CALLS.items():
        for shape, axis in layouts(row):
            call = row(shape, axis)
            say(f"{name} {shape} axis={axis}")
            arrays = calls.arguments(call, dtype)
            want = calls.bits(call.results(arrays))
            for at_end, padding in ((True, 0), (False, 0), (True, 3)):
                free = iter(pool)
                put = {
                    key: next(free).put(
                        array, at_end, padding, read_only=not (key in call.takes and call.takes[key].updated)
                    )
                    for key, array in arrays.items()
                }
                outs = {
                    key: next(free).put(np.zeros(shape, dtype), at_end, padding, read_only=False)
                    for key in call.outs
                }
                results = call.run(put, 1e-5, **outs)
                updated = [put[key] for key, taken in call.takes.items() if taken.updated]
                assert calls.bits((*results, *updated)) == want, (name, shape, at_end, padding)


# Results larger than the caches are written past them, by other stores: lengths that end within a cache line.
STREAMED = ("layer_norm", "rms_norm", "add_rms_norm", "batch_norm inference")


def stream(dtype, say):
    import calls

    shape = (9001, 1999)
    x, out, other = (Guarded(shape[0] * shape[1] * dtype.itemsize // PAGE + 1) for _ in range(3))
    for name in STREAMED:
        say(f"{name} {shape}")
        call = calls.CALLS[name](shape, 1)
        # Rows that are all one row: the first says what each must be.
        one = calls.arguments(calls.CALLS[name]((1, shape[1]), 1), dtype)
        arrays = {key: np.broadcast_to(a, shape) if a.ndim == 2 else a for key, a in one.items()}
        want = call.results(one)[0]
        for at_end in (True, False):
            put = {**arrays, "x": x.put(arrays["x"], at_end)}
            outs = {"out": out.put(arrays["x"], at_end, read_only=False)}
            if "sum_out" in call.outs:
                outs["sum_out"] = other.put(arrays["x"], at_end, read_only=False)
            call.run(put, 1e-5, **outs)
            assert (outs["out"] == want).all(), name


def touch(how):
    """What must end the process: a read behind, a read before, a write to what is only read."""
    array = Guarded(1).put(np.arange(7, dtype=np.float32), how != "before")
    item = ctypes.POINTER(ctypes.c_float)
    pointer = ctypes.cast(array.ctypes.data, item)
    print(sum(array), flush=True)
    if how == "write":
        pointer[0] = 1.0
    else:
        print(pointer[7 if how == "behind" else -1])


def main():
    if sys.argv[1] == "touch":
        return touch(sys.argv[2])
    import calls

    import onepass as op

    op.use_isa(sys.argv[1])
    op.set_num_threads(1)

    def say(text):
        os.write(1, f"{text}\n".encode())

    walk(calls.DTYPES[sys.argv[2]], say)
    if sys.argv[2] == "float32":
        stream(calls.DTYPES["float32"], say)
    print("untouched")


if __name__ == "__main__":
    main()
