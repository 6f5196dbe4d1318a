"""Arrays: names of their types, interpolation in them, and the cosine transform."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]
Floats = npt.NDArray[np.float32]
Doubles = npt.NDArray[np.float64]
Mask = npt.NDArray[np.bool_]


def interpolated(values: Floats, places: Sequence[Array]) -> Floats:
    """Interpolate linearly at places along each axis; beyond the outer values it is constant.

    values: [K, J, I]. places: of each axis, in voxels from its first one.
    """
    for axis, at in enumerate(places):
        last = values.shape[axis] - 1
        at = np.clip(at, 0, last)
        low = np.minimum(at.astype(np.intp), max(last - 1, 0))
        share = (at - low).astype(np.float32)
        share = share.reshape([-1 if other == axis else 1 for other in range(3)])
        below, above = values.take(low, axis), values.take(np.minimum(low + 1, last), axis)
        values = below + share * (above - below)
    return values


def cubic_spline(distance: Doubles) -> Doubles:
    """Weigh samples by the cubic B-spline; distance: from each of them, in samples."""
    distance = np.abs(distance)
    near = 2 / 3 - distance**2 + distance**3 / 2
    far = np.maximum(2 - distance, 0) ** 3 / 6
    return np.where(distance < 1, near, far)


def cosine_matrix(side: int) -> Doubles:
    """Return the orthonormal cosine transform (DCT-II), [frequencies, samples]."""
    places, frequencies = np.arange(side) + 0.5, np.arange(side)[:, None]
    matrix: Doubles = np.cos(np.pi / side * frequencies * places)
    matrix *= np.sqrt(2 / side)
    matrix[0] /= np.sqrt(2)
    return matrix
