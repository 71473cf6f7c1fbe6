"""Column statistics alone, wide and narrow: held against a read."""

from onepass.bench import STATISTICS, Case

CASES = (Case("moments", (1024, 1024), 0, STATISTICS), Case("moments", (65536, 64), 0, STATISTICS))


def test_moments(case, threads, who, side_by_side):
    side_by_side(case, threads, who)
