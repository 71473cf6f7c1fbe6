"""Standardizing columns, wide and narrow: held against a read and a copy."""

from onepass.bench import COLUMNS, Case

CASES = (Case("standardize", (1024, 1024), 0, COLUMNS), Case("standardize", (65536, 64), 0, COLUMNS))


def test_standardize(case, threads, who, side_by_side):
    side_by_side(case, threads, who)
