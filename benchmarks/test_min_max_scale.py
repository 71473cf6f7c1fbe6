"""Scaling columns to a range, wide and narrow: held against a read and a copy."""

from onepass.bench import COLUMNS, Case

CASES = (Case("min_max_scale", (1024, 1024), 0, COLUMNS), Case("min_max_scale", (65536, 64), 0, COLUMNS))


def test_min_max_scale(case, threads, who, side_by_side):
    side_by_side(case, threads, who)
