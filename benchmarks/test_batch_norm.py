"""Column norms in training: no row can be written before the last was read, hence a read and a copy."""

from onepass.bench import COLUMNS, Case

CASES = (Case("batch_norm", (1024, 1024), 1, COLUMNS), Case("batch_norm", (32, 64, 56, 56), 1, COLUMNS))


def test_batch_norm_training(case, threads, who, side_by_side):
    side_by_side(case, threads, who)
