"""Model observers: how surely a lesion whose place is known is distinguished from its absence."""

from __future__ import annotations

import numpy as np
from _enhancement_lesions import Floats, Lesion

Doubles = np.ndarray[tuple[int, ...], np.dtype[np.float64]]
#: Voxels around a lesion that are its background.
_RING = 3
#: Half of the side of the patch that channels see, in pixels.
_HALF = 10
#: Of channels of differences of Gaussians (Abbey and Barrett, 2001): narrowest in cycles per mm,
#: ratio of neighbors, ratio within one, number.
_FIRST, _NEXT, _WIDE, _CHANNELS = 0.0274, 1.4, 1.67, 6
_FOLDS = 4


def auc(present: Doubles, absent: Doubles) -> float:
    """Share of pairs in which the lesion scores higher than its absence."""
    return float((present[:, None] > absent[None]).mean())


def template_score(voxels: Floats, lesion: Lesion) -> float:
    """A matched template against the ring around it, in units of the lesion's contrast."""
    wide = tuple(slice(max(0, part.start - _RING), part.stop + _RING) for part in lesion.where)
    inner = np.zeros(voxels.shape, bool)
    inner[lesion.where] = lesion.share > 0
    inside = (voxels[lesion.where] * lesion.share).sum() / lesion.share.sum()
    return float((inside - np.median(voxels[wide][~inner[wide]])) / lesion.contrast)


def channels(spacing: tuple[float, ...]) -> Doubles:
    """Channels as images, [channel, pixels of a patch]."""
    side = 64
    down, across = (np.fft.fftfreq(side, mm)[:, None] for mm in (spacing[1], spacing[0]))
    frequency = np.hypot(down, across.T)
    part = slice(side // 2 - _HALF, side // 2 + _HALF + 1)
    images = []
    for number in range(_CHANNELS):
        width = _FIRST * _NEXT**number
        narrow, wide = (np.exp(-0.5 * (frequency / w) ** 2) for w in (width, _WIDE * width))
        images.append(np.fft.fftshift(np.fft.ifft2(wide - narrow).real)[part, part].ravel())
    return np.stack(images)


def channel_outputs(voxels: Floats, lesion: Lesion, images: Doubles) -> Doubles:
    """Outputs of the channels for the slice through the middle of a lesion, bright ones as dark."""
    k, j, i = ((part.start + part.stop) // 2 for part in lesion.where)
    plane = np.pad(voxels[min(k, len(voxels) - 1)], _HALF, mode="edge")
    patch = plane[j : j + 2 * _HALF + 1, i : i + 2 * _HALF + 1]
    seen: Doubles = images @ (patch - patch.mean()).ravel() * np.sign(lesion.contrast)
    return seen


def hotelling(present: Doubles, absent: Doubles, internal: Doubles | None = None) -> float:
    """AUC of a channelized Hotelling observer, of lesions that it did not learn from.

    Args:
        present: outputs of the channels, [lesion, channel].
        absent: the same without the lesions.
        internal: variance of the noise of the observer itself in each channel; None for none.
    """
    rng = np.random.default_rng(0)
    fold = rng.integers(_FOLDS, size=len(present))
    scores = np.zeros((2, len(present)))
    noise = np.zeros(present.shape[1]) if internal is None else internal
    for number in range(_FOLDS):
        seen, kept = fold != number, fold == number
        spread = (np.cov(present[seen].T) + np.cov(absent[seen].T)) / 2 + np.diag(noise)
        difference = present[seen].mean(0) - absent[seen].mean(0)
        template = np.linalg.lstsq(spread, difference, rcond=None)[0]
        own = np.sqrt(template**2 @ noise)
        for row, outputs in zip(scores, (present, absent), strict=True):
            row[kept] = outputs[kept] @ template + rng.normal(0, 1, kept.sum()) * own
    return auc(scores[0], scores[1])
