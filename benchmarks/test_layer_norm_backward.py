"""Gradients of row norms: beside caches that just hold them, and from memory."""

from onepass.bench import ROWS_BACKWARD, Case

CASES = tuple(Case("layer_norm_backward", (n, 1024), -1, ROWS_BACKWARD) for n in (2048, 32768))


def test_layer_norm_backward(case, threads, who, side_by_side):
    side_by_side(case, threads, who)
