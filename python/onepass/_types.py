"""The names that signatures use for what they take."""

from __future__ import annotations

from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

Array: TypeAlias = npt.NDArray[Any]
FloatArray: TypeAlias = npt.NDArray[np.float64]
Axes: TypeAlias = int | tuple[int, ...]

# Anything whose memory np.asarray views without a copy: an array, a memoryview, a CPU tensor of another library.
Viewable: TypeAlias = Any
Gradients: TypeAlias = tuple[Array, Array, Array]
