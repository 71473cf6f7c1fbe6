"""The univariate sets of NIST's Statistical Reference Datasets, and exact answers for the doubles that are stored.

The files lie beside the repository, in ../shared/nist; what is constructed is made here. A decimal such as 1.1 is not a
double: the certified answers are for the decimals, `exact` is for the doubles, in rational arithmetic.
https://www.itl.nist.gov/div898/strd/univ/homepage.html
"""

import decimal
import fractions
import pathlib

import numpy as np

FOLDER = pathlib.Path(__file__).resolve().parents[2] / "shared" / "nist"
FILES = ("Lottery", "Lew", "Mavro", "Michelso", "NumAcc1")


# pi / 4 = 4 arctan(1/5) - arctan(1/239) (1706) = 2 arctan(1/3) + arctan(1/7) (1776).
MACHIN, HUTTON = ((4, 5), (-1, 239)), ((2, 3), (1, 7))


def pi_digits(n, formula=MACHIN):
    """The first n decimal digits of pi, from a sum of arctangents in integers."""
    unit = 10 ** (n + 10)

    def arctan(inverse):
        total, power, k = 0, unit // inverse, 1
        while power:
            total += power // k if k % 4 == 1 else -(power // k)
            power //= inverse * inverse
            k += 2
        return total

    pi = 4 * sum(factor * arctan(inverse) for factor, inverse in formula)
    # In pieces: Python refuses to write integers of more than 4300 digits.
    piece = 1000
    text = "".join(f"{pi // 10**k % 10**piece:0{piece}}" for k in range((n // piece + 1) * piece, -1, -piece))
    return np.array([int(c) for c in text.lstrip("0")[:n]], np.float64)


def nist_pi_digits():
    """PiDigits as NIST's file has it, where the 957th digit is 3; pi's is 8. The certified answers are the file's."""
    x = pi_digits(5000)
    assert x[956] == 8
    x[956] = 3
    return x


def series(first, low, high):
    """1001 numbers: one, then two others in turn."""
    return np.array([first] + [low, high] * 500)


# With the certified mean and deviation (ddof 1).
CONSTRUCTED = {
    "PiDigits": (nist_pi_digits, "4.53480000000000", "2.86733906028871"),
    "NumAcc1": (lambda: np.array([10000001.0, 10000003.0, 10000002.0]), "10000002", "1"),
    "NumAcc2": (lambda: series(1.2, 1.1, 1.3), "1.2", "0.1"),
    "NumAcc3": (lambda: series(1000000.2, 1000000.1, 1000000.3), "1000000.2", "0.1"),
    "NumAcc4": (lambda: series(10000000.2, 10000000.1, 10000000.3), "10000000.2", "0.1"),
}


def available():
    return {*CONSTRUCTED, *(name for name in FILES if (FOLDER / f"{name}.dat").exists())}


def load(name, from_file=True):
    """The numbers, the certified mean, the certified deviation."""
    path = FOLDER / f"{name}.dat"
    if name in CONSTRUCTED and not (from_file and path.exists()):
        make, mean, deviation = CONSTRUCTED[name]
        return make(), decimal.Decimal(mean), decimal.Decimal(deviation)
    lines = path.read_text().splitlines()

    def certified(what):
        # The value stands behind the colon; some files add "(exact)".
        return next(line for line in lines if line.startswith(what)).split(":")[1].split()[0]

    start = next(i for i, line in enumerate(lines) if line.startswith("---")) + 1
    x = np.array([float(line) for line in lines[start:] if line.strip()])
    assert len(x) == int(certified("Number of Observations")), name
    mean, deviation = certified("Sample Mean"), certified("Sample Standard Deviation")
    return x, decimal.Decimal(mean), decimal.Decimal(deviation)


def exact(x):
    """The mean and the standard deviation (ddof 1) of the stored doubles, in 50 digits."""
    values = [fractions.Fraction(v) for v in x.tolist()]
    mean = sum(values) / len(values)
    var = sum((v - mean) ** 2 for v in values) / (len(values) - 1)
    with decimal.localcontext() as context:
        context.prec = 50
        mean, var = (decimal.Decimal(q.numerator) / q.denominator for q in (mean, var))
        return mean, var.sqrt()


def digits(value, expected):
    """The log relative error: how many digits of a value are right, at most 17."""
    error = abs(decimal.Decimal(float(value)) - expected) / abs(expected)
    return 17.0 if error == 0 else min(17.0, float(-error.log10()))
