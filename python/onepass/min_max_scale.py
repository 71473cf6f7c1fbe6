"""Min-max scaling: every group to the same range."""

from __future__ import annotations

from collections.abc import Sequence

from . import _core
from ._types import Array, Axes, Viewable


def min_max_scale(
    x: Viewable,
    *,
    axis: Axes = 0,
    feature_range: Sequence[float] = (0.0, 1.0),
    out: Array | None = None,
) -> Array:
    """Scale between the least and the greatest: ``lower + (x - min) * ((upper - lower) / (max - min))``.

    The least of a group becomes exactly `lower` and the greatest exactly `upper`; rounding brings no result
    outside of them, and no two out of order.

    Parameters
    ----------
    x : array of float32, float64, float16 or bfloat16
        Any shape and strides.
    axis : int or tuple of int
        The axes that a group spans; 0 scales each column.
    feature_range : two floats
        The ends, `lower` and `upper`: lower < upper, both finite, and the width between them finite too. They are
        rounded to x's dtype (the 16-bit types': to float32, as the results are to x's dtype in the end).
    out : array, optional
        Where to write the result: x's shape and dtype, writeable, any strides. It may be x itself.

    Returns
    -------
    y : array
        x's shape and dtype, C-contiguous; or `out`. A constant group gives `lower`. A group that holds NaN or an
        infinity gives NaN throughout.

    Raises
    ------
    TypeError
        For what is not an array, or has another dtype; for a `feature_range` that is not two real numbers.
    ValueError
        For a wrong axis or `feature_range`, or an `out` that is read-only, of another shape, or overlaps x.

    References
    ----------
    Han, Kamber & Pei, Data Mining (2011), 3.5.2. The same as scikit-learn's `minmax_scale`.

    Examples
    --------
    >>> import numpy as np, onepass as op
    >>> x = np.array([[1.0, 10.0, 7.0], [2.0, 40.0, 7.0], [3.0, 20.0, 7.0]])
    >>> op.min_max_scale(x, feature_range=(-1, 1))
    array([[-1.        , -1.        , -1.        ],
           [ 0.        ,  1.        , -1.        ],
           [ 1.        , -0.33333333, -1.        ]])
    """
    return _core.min_max_scale(x, axis, feature_range, out)  # type: ignore[no-any-return]
