"""NIST StRD through moments: the mean to 14 digits and the deviation to 13, of the exact answer for the stored doubles."""

import decimal
import functools

import nist
import numpy as np
import pytest

import onepass as op

MEAN, DEVIATION = 14, 13  # digits

NAMES = [
    pytest.param(name, marks=() if name in nist.available() else pytest.mark.skip(f"no {name}.dat"))
    for name in dict.fromkeys([*nist.FILES, *nist.CONSTRUCTED])
]


@functools.cache
def data(name):
    x = nist.load(name)[0]
    return x, *nist.exact(x)


@pytest.mark.parametrize("name", NAMES)
def test_the_exact_answer_is_the_certified_one(name):
    """Certified to 15 digits, for decimals: that 10000000.2 is rounded moves NumAcc4's deviation in the ninth."""
    x, mean, deviation = nist.load(name)
    exact_mean, exact_deviation = nist.exact(x)
    assert nist.digits(exact_mean, mean) >= 14.9
    moved = np.finfo(np.float64).eps * float(abs(mean) / deviation)
    assert nist.digits(exact_deviation, deviation) >= -np.log10(10**-14.4 + moved)


def test_what_is_constructed_is_what_the_file_holds():
    if not (nist.FOLDER / "NumAcc1.dat").exists():
        pytest.skip(f"no NumAcc1.dat in {nist.FOLDER}")
    assert np.array_equal(nist.load("NumAcc1")[0], nist.load("NumAcc1", from_file=False)[0])


def test_digits_of_pi():
    first = "31415926535897932384626433832795028841971693993751"
    assert nist.pi_digits(50).tolist() == [int(c) for c in first]
    assert np.array_equal(nist.pi_digits(5000), nist.pi_digits(5000, nist.HUTTON))


def shares(n):
    """Where to cut n numbers: batches of 1, 1, 8, 1, 66, ... numbers; and one number a batch."""
    return [[p for p in (1, 2, 10, 11, 77, 500, 998) if p < n], list(range(1, n))]


def cut(x, places):
    return [op.moments(part) for part in np.split(x, places)]


def every_way(x):
    """(how, mean, deviation): alone, as a row, among other columns and rows, merged from uneven batches."""
    n = len(x)
    others = np.random.default_rng(0).standard_normal((n, 37)) * 1e3
    others[:, 20] = x
    rows = np.ascontiguousarray(others.T)
    alone, row = op.moments(x), op.moments(x[None], axis=1)
    yield "alone", alone.mean, alone.std(1)
    yield "as a row", row.mean[0], row.std(1)[0]
    for how, m in (("a column of many", op.moments(others)), ("a row of many", op.moments(rows, axis=1))):
        yield how, m.mean[20], m.std(1)[20]
    for places in shares(n):
        parts = cut(x, places)
        merged = op.Moments.merge(parts)
        yield f"merged from {len(parts)}", merged.mean, merged.std(1)
        merged = op.Moments.merge(parts[::-1])
        yield f"merged from {len(parts)}, backwards", merged.mean, merged.std(1)
    merged = op.Moments.merge(cut(others, shares(n)[0]))
    yield "merged as a column of many", merged.mean[20], merged.std(1)[20]
    parts = cut(x, shares(n)[0])
    added = sum(parts[1:], parts[0])
    yield "added one after the other", added.mean, added.std(1)


@pytest.mark.parametrize("name", NAMES)
def test_moments(name, each_isa):
    x, mean, deviation = data(name)
    for how, got_mean, got_deviation in every_way(x):
        right = nist.digits(got_mean, mean), nist.digits(got_deviation, deviation)
        assert right[0] >= MEAN, f"{how}: {right[0]:.1f} digits of the mean"
        assert right[1] >= DEVIATION, f"{how}: {right[1]:.1f} digits of the standard deviation"


def test_digits_are_counted():
    one = decimal.Decimal(1)
    assert nist.digits(1.0, one) == 17
    assert 12.9 < nist.digits(1.0 + 1e-13, one) < 13.1
    # What a variance without pivot gives: NumAcc4 has to be hard for this file to say anything.
    x, _, deviation = data("NumAcc4")
    n = len(x)
    naive = np.sqrt(max(np.square(x).sum() - x.sum() ** 2 / n, 0) / (n - 1))
    assert nist.digits(naive, deviation) < 1
