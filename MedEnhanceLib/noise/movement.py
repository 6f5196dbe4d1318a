"""Measures how far the frames of a sequence are from their common place, for decisions alone.

All frames together, by derivatives (`typical_movement`); one of any contrast beside a reference, by
mutual information (`aligned_at`).

Each frame is compared with what it shares with the others, its projection on the four strongest
images over time, whatever its contrast. What is left is fitted by the derivatives of the
projection: to first order, a frame moved by d differs from it by −d · gradient. Shifts and turns
within slices are fitted; large movements come out too small, as the others blur the projection.

Sources: movement from derivatives, Horn & Schunck, Artif. Intell. 17 (1981) 185; normalized mutual
information, Studholme et al., Pattern Recognit. 32 (1999) 71. The projection is ours.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from MedEnhanceLib.core.arrays import Array, Floats, Numbers, let_go, parts_of, robust_max
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
#: Classes of intensity of about equal size, and about the most voxels, in which frames of any
#: contrast are compared: chosen by hand; no table isolates them.
_CLASSES, _PLACES = 32, 60_000


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


def aligned_at(frame: Array, reference: Floats, farthest: Sequence[int]) -> Numbers:
    """Return the shift along K, J and I, in voxels, at which a frame fits a reference best.

    It is that of most normalized mutual information, which no relation of their contrasts changes.

    Args:
        frame: [K, J, I].
        reference: of any contrast, [K, J, I].
        farthest: shift that is tried along each axis.
    """
    inside = reference > TISSUE * robust_max(reference)
    ends = np.array(frame.shape) - 1
    ranges = []
    for axis, reach in enumerate(farthest):
        numbers = np.flatnonzero(inside.any(axis=tuple({0, 1, 2} - {axis})))
        first, last = numbers[[0, -1]] + (-reach, reach)
        ranges.append(np.arange(max(first, 0), min(last, ends[axis]) + 1))
    places = np.stack([each.ravel() for each in np.meshgrid(*ranges, indexing="ij")])
    places = places[:, :: -(-places.shape[1] // _PLACES)]
    fixed = _classes(reference[tuple(places)])

    def likeness(shift: Numbers) -> float:
        moved = frame[tuple(np.clip(places + shift[:, None], 0, ends[:, None]))]
        pairs = fixed * _CLASSES + _classes(moved)
        joint = np.bincount(pairs, minlength=_CLASSES**2).reshape(_CLASSES, _CLASSES)
        return (_entropy(joint.sum(axis=0)) + _entropy(joint.sum(axis=1))) / _entropy(joint.ravel())

    shift = np.zeros(3, int)
    best = likeness(shift)
    for axis in (2, 1, 0, 2, 1, 0):
        for step in range(-farthest[axis], farthest[axis] + 1):
            other = shift.copy()
            other[axis] = step
            if (fits := likeness(other)) > best:
                best, shift = fits, other
    let_go(frame)
    return shift


def _classes(values: Array) -> Numbers:
    """Sort values into classes of about equal size; returns the number of each one's class."""
    bounds = np.quantile(values, np.arange(1, _CLASSES) / _CLASSES)
    return np.searchsorted(bounds, values)


def _entropy(counts: Numbers) -> float:
    """Return the entropy of classes by their counts."""
    shares = counts[counts > 0] / counts.sum()
    return max(float(-(shares * np.log(shares)).sum()), 1e-12)
