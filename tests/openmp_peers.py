"""Other OpenMP runtimes and regions around every function, in one process.

    python tests/openmp_peers.py torch|sklearn|nested [first|last]

onepass is imported first, or last. The program ends where every result was the serial one.
"""

import ctypes
import sys
import threading

import numpy as np


def functions():
    """What every function returns on arrays large enough for two threads, and what it must."""
    import calls

    import onepass as op

    prepared = []
    for name, row in calls.CALLS.items():
        call = row((2000, 130), -1) if row.axis == "axes" else row((20, 130, 100), 1)
        arrays = calls.arguments(call, np.dtype(np.float32))
        with op.num_threads(1):
            prepared.append((name, call, arrays, calls.bits(call.results(arrays))))
    op.set_num_threads(2)

    def check():
        for name, call, arrays, want in prepared:
            assert calls.bits(call.results(arrays)) == want, name

    return check


def torch():
    import torch

    torch.set_num_threads(2)
    a = torch.linspace(0, 1, 400 * 400).reshape(400, 400)
    want = (a @ a).sum(1), torch.softmax(a, 1)

    def work():
        got = (a @ a).sum(1), torch.softmax(a, 1)
        assert all(torch.equal(x, y) for x, y in zip(got, want, strict=True))

    return work


def sklearn():
    from sklearn.cluster import KMeans
    from sklearn.ensemble import HistGradientBoostingRegressor

    x = np.random.default_rng(0).standard_normal((2000, 20))

    def work():
        KMeans(8, n_init=1, max_iter=5, random_state=0).fit(x)
        HistGradientBoostingRegressor(max_iter=2).fit(x, x[:, 0])

    return work


def nested():
    """The functions called by every thread of a region of libgomp's, each with regions of its own inside."""
    check = functions()
    libgomp, failures, ran = ctypes.CDLL("libgomp.so.1"), [], []

    @ctypes.CFUNCTYPE(None, ctypes.c_void_p)
    def body(_):
        try:
            check()
            ran.append(threading.get_ident())
        except BaseException as error:
            failures.append(error)

    for _ in range(2):
        libgomp.GOMP_parallel(body, None, 3, 0)
    assert not failures, failures
    assert len(ran) == 6, ran


def beside(peer, order):
    """In turns, then both at once from two Python threads."""
    if order == "first":
        check, work = functions(), peer()
    else:
        work = peer()
        work()
        check = functions()
    failures = []

    def repeat(f):
        try:
            for _ in range(3):
                f()
        except BaseException as error:
            failures.append(error)

    for _ in range(2):
        check()
        work()
    threads = [threading.Thread(target=repeat, args=(f,)) for f in (check, work)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures, failures


if __name__ == "__main__":
    if sys.argv[1] == "nested":
        nested()
    else:
        beside({"torch": torch, "sklearn": sklearn}[sys.argv[1]], sys.argv[2])
    print("right")
