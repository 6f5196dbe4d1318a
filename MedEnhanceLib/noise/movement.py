"""Measures how far the frames of a sequence are from their common place, for decisions alone.

Each frame is compared with what it shares with the others, its projection on the four strongest
images over time, whatever its contrast. What is left is fitted by the derivatives of the
projection: to first order, a frame moved by d differs from it by −d · gradient. Shifts and turns
within slices are fitted; large movements come out too small, as the others blur the projection.

Source: movement from derivatives, Horn & Schunck, Artif. Intell. 17 (1981) 185; the projection is
ours.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from MedEnhanceLib.core.arrays import Array, let_go, parts_of, robust_max
from MedEnhanceLib.noise.sequence import FEWEST_MEASURED, TISSUE, mean_of
from MedEnhanceLib.runtime.machine import blas_on_one_thread

# Tuned on these series (decision 0065). Measured again by Benchmarks/sequences.py.
#: Movement up to which frames are still. Real scans have .2 or less (one of 27 more); simulated
#: turns of 1° with shifts of half a voxel (1 SD) .2 to .6, of 4° with two voxels .6 to .95.
STILL = 0.5
#: Voxels of tissue that are compared.
_COMPARED = 20_000
#: Images over time that a frame is projected on, and frames that are read at once.
_IMAGES, _AT_ONCE = 4, 16
#: Least share of the normal equations' largest eigenvalue: less is rounding.
_LEAST_PART = 1e-10


@blas_on_one_thread
def typical_movement(frames: Sequence[Array]) -> float:
    """Return the median over frames of their movement in tissue (RMS), in voxels of a slice.

    frames: [K, J, I] each. Returns 0 for fewer than five frames, or too little tissue.
    """
    mean = mean_of(frames)
    inside = mean > TISSUE * robust_max(mean)
    inside[:, [0, -1]] = inside[:, :, [0, -1]] = False
    places = np.flatnonzero(inside)
    places = places[:: max(1, places.size // _COMPARED)]
    if len(frames) < FEWEST_MEASURED or places.size < 100:
        return 0.0
    sample = np.empty((len(frames), places.size))
    for row, frame in zip(sample, frames, strict=True):
        row[:] = frame.reshape(-1)[places]
        let_go(frame)
    weights = np.linalg.eigh(sample @ sample.T)[1][:, ::-1][:, :_IMAGES]
    around = places + np.array([[-mean.shape[2]], [mean.shape[2]], [-1], [1]])
    nearby = np.zeros((_IMAGES, *around.shape))
    for some in parts_of(0, len(frames), _AT_ONCE):
        voxels = np.stack([frame.reshape(-1)[around] for frame in frames[some]])
        nearby += np.tensordot(weights[some].T, voxels, 1)
        let_go(frames[0])
    above, below, left, right = nearby.swapaxes(0, 1)
    down, across = (below - above) / 2, (right - left) / 2
    _, j, i = (at - at.mean() for at in np.unravel_index(places, mean.shape))
    # A turn is measured as the shift (RMS) that it makes: so all three are of one size.
    radius = np.sqrt(np.mean(j**2 + i**2))
    terms = np.stack([down, across, (down * i - across * j) / radius])
    shown = np.linalg.qr(sample.T @ weights)[0]
    terms -= terms @ shown @ shown.T
    # The normal equations of each frame, whose terms are mixed by its weights.
    products = np.tensordot(terms, terms, (2, 2))
    products = np.einsum("tm,ambn,tn->tab", weights, products, weights)
    answers = np.einsum("tm,amt->ta", weights, terms @ sample.T)
    inverse = np.linalg.pinv(products, rcond=_LEAST_PART, hermitian=True)
    moved = np.linalg.norm(inverse @ answers[..., None], axis=1)
    return float(np.median(moved))
