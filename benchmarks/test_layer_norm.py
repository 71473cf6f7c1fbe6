"""Row norms: in cache, and from memory, where non-temporal stores decide."""

from onepass.bench import ROWS, Case

CASES = (Case("layer_norm", (2048, 1024), -1, ROWS), Case("layer_norm", (65536, 1024), -1, ROWS))


def test_layer_norm(case, threads, who, side_by_side):
    side_by_side(case, threads, who)
