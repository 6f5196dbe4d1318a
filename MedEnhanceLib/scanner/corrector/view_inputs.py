"""Images that the view network sees of a slice: for C in NumPy, as `ViewNet.forward` makes them."""

from __future__ import annotations

import numpy as np

from MedEnhanceLib.core.arrays import Floats
from MedEnhanceLib.filters.regions import reduce_windows

# Models learn with these (decision 0066). Measured as a whole by Benchmarks/unpaired.py.
#: Slices on each side of the middle one that the network sees.
NEIGHBORS = 2
#: Side in pixels of the mean that filtered values are relative to.
AROUND = 15
#: σ and values, on the network's scale, that are 0 and 1 for it.
TYPICAL_SIGMA, TYPICAL_VALUE = 0.05, 0.5
#: Least σ on the network's scale that values are divided by.
LEAST_SIGMA = 1e-4
IMAGES = 2 * (2 * NEIGHBORS + 1) + 2


def inputs_of(noisy: Floats, filtered: Floats, sigma: Floats, top: float) -> Floats:
    """Compute in NumPy what `ViewNet.forward` gives to the U-Net: [12, J, I], for one slice.

    Args:
        noisy: [5, J, I].
        filtered: the same, filtered.
        sigma: [J, I], of the noise in the middle slice.
        top: what is 1 on the network's scale.
    """
    images = np.empty((IMAGES, *sigma.shape), np.float32)
    removed, relative = images[: len(noisy)], images[len(noisy) : -2]
    middle, unit = filtered[NEIGHBORS], np.maximum(sigma, np.float32(LEAST_SIGMA * top))
    padded = np.pad(middle, AROUND // 2, mode="edge")
    around = reduce_windows(np.add, padded, (AROUND, AROUND)) / np.float32(AROUND**2)
    np.subtract(noisy, filtered, out=removed)
    np.subtract(filtered, around, out=relative)
    images[:-2] /= unit
    np.arcsinh(relative, out=relative)
    np.log(unit / np.float32(TYPICAL_SIGMA * top), out=images[-2])
    np.divide(middle, np.float32(TYPICAL_VALUE * top), out=images[-1])
    return images
