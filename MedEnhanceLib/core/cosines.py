"""The cosine transform of a few samples."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt


def cosine_matrix(side: int) -> npt.NDArray[np.float64]:
    """Return the orthonormal cosine transform (DCT-II), [frequencies, samples]."""
    places, frequencies = np.arange(side) + 0.5, np.arange(side)[:, None]
    matrix: npt.NDArray[np.float64] = np.cos(np.pi / side * frequencies * places)
    matrix *= np.sqrt(2 / side)
    matrix[0] /= np.sqrt(2)
    return matrix
