"""Removes noise from frames of a sequence in small overlapping windows, by principal components.

window of all frames → singular values → σ of its noise, by the spread of the small ones → optimal
shrinkage → mean of all windows at a voxel, those of few components with more weight

Few voxels show few contrasts: a window keeps what a basis of the whole volume takes for noise. σ is
measured in each window, so that noise may vary over the volume. Where windows begin depends on the
size of the volume alone, so that a part is treated like the whole.

Sources: σ by the edge of the spectrum of noise, Marchenko & Pastur, Math. USSR Sb. 1 (1967) 457,
and Veraart et al., NeuroImage 142 (2016) 394; shrinkage of least squared error, Gavish & Donoho,
IEEE Trans. Inf. Theory 63 (2017) 2137. Written from these descriptions.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from MedEnhanceLib.core.arrays import Array, Doubles, Floats, let_go
from MedEnhanceLib.runtime.progress import Monitor

#: Voxels of a window along each axis, and from one window to the next: larger ones remove more
#: noise, smaller ones keep more of what differs from place to place (decision 0122).
_SIDE, _STEP = 6, 3
#: Windows whose components are computed at once, which bounds memory.
_AT_ONCE = 64


def denoised_in_windows(
    frames: Sequence[Array], slices: slice, monitor: Monitor
) -> Iterator[tuple[slice, Floats]]:
    """Yield slices of all frames without noise, [T, n, J, I], and where they are, in order.

    Args:
        frames: [K, J, I] each, finite.
        slices: that are requested, along K.
        monitor: receives progress; may cancel.
    """
    depth, *plane = frames[0].shape
    deep = min(_SIDE, depth)
    layers = [k for k in _starts(depth) if k < slices.stop and k + deep > slices.start]
    total = np.zeros((len(frames), deep, *plane), np.float32)
    weight = np.zeros((deep, *plane), np.float32)
    for number, first in enumerate(layers):
        monitor.progress(number / len(layers), "removing noise in windows")
        part: Array = np.stack([frame[first : first + deep] for frame in frames])
        let_go(frames[0])
        _add_windows(part.astype(np.float32), total, weight)
        end = layers[number + 1] if number + 1 < len(layers) else first + deep
        ready = slice(max(first, slices.start), min(end, slices.stop))
        if ready.start < ready.stop:
            at = slice(ready.start - first, ready.stop - first)
            yield ready, np.asarray(total[:, at] / weight[at], np.float32)
        rest = first + deep - end  # slices that the next layer has too
        for sums in (total.swapaxes(0, 1), weight):
            sums[:rest] = sums[deep - rest :].copy()
            sums[rest:] = 0


def _starts(side: int) -> list[int]:
    """Return where windows begin along an axis, ascending."""
    last = max(0, side - _SIDE)
    return [*range(0, last, _STEP), last]


def _add_windows(part: Floats, total: Floats, weight: Floats) -> None:
    """Add the estimates of all windows of a layer, [T, k, J, I], and their weights, [k, J, I]."""
    sides = [min(_SIDE, side) for side in part.shape[2:]]
    rows, columns = map(_starts, part.shape[2:])
    boxes = [np.s_[..., j : j + sides[0], i : i + sides[1]] for j in rows for i in columns]
    for first in range(0, len(boxes), _AT_ONCE):
        some = boxes[first : first + _AT_ONCE]
        windows = np.stack([part[box] for box in some])
        flat = windows.reshape(len(some), len(part), -1)
        estimates, shares = _shrunk(flat)
        for box, estimate, share in zip(some, estimates, shares, strict=True):
            total[box] += estimate.reshape(windows.shape[1:])
            weight[box] += share


def _shrunk(windows: Floats) -> tuple[Floats, Floats]:
    """Shrink the singular values of windows, [n, T, voxels], whose means over voxels stay.

    Returns the estimates times their weights, and the weights [n].
    """
    mean = windows.mean(axis=2, keepdims=True)  # which shrinkage would pull to 0
    shorter, longer = sorted(windows.shape[1:])
    is_wide = windows.shape[1] == shorter
    turned = windows - mean if is_wide else (windows - mean).swapaxes(1, 2)
    exact = turned.astype(np.float64)  # squares of strong signal would hide the noise
    powers, basis = np.linalg.eigh(exact @ exact.swapaxes(1, 2) / longer)
    factors = _factors(np.maximum(powers, 0.0), shorter / longer)
    share = (1 / (1 + np.count_nonzero(factors, axis=1))).astype(np.float32)
    basis_kept = basis * (factors * share[:, None])[:, None]
    estimate = (basis_kept @ basis.swapaxes(1, 2)).astype(np.float32) @ turned
    centered = estimate if is_wide else estimate.swapaxes(1, 2)
    return centered + share[:, None, None] * mean, share


def _factors(powers: Doubles, ratio: float) -> Doubles:
    """Return the factors on singular values that leave the least squared error.

    Args:
        powers: squares of singular values over the longer side of the matrix, [n, m], ascending.
        ratio: shorter side over longer side.
    """
    count = powers.shape[1]
    numbers = np.arange(1, count + 1)
    means = np.cumsum(powers, axis=1) / numbers
    # The m smallest ones spread by as much as noise alone does, or less.
    is_noise = powers - powers[:, :1] <= 4 * np.sqrt(ratio * numbers / count) * means
    last = count - 1 - is_noise[:, ::-1].argmax(axis=1)
    variance = np.take_along_axis(means, last[:, None], axis=1)
    edge = variance * (1 + np.sqrt(ratio)) ** 2
    square = np.square(powers - variance * (1 + ratio)) - 4 * ratio * np.square(variance)
    shrunk = np.sqrt(np.maximum(square, 0.0)) / np.maximum(powers, 1e-300)
    return np.where(powers > edge, shrunk, 0.0)
