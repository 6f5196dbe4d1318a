"""Model observers: how surely a lesion whose place is known is distinguished from its absence."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from _enhancement_lesions import Floats, Lesion
from scipy.special import ndtr

Doubles = np.ndarray[tuple[int, ...], np.dtype[np.float64]]
#: With the lesions, and without.
Pair = tuple[Doubles, Doubles]
#: Voxels around a lesion that are its background.
_RING = 3
#: Half of the side of the patch that channels see, and their width (Gallas and Barrett, 2003), mm.
_HALF_MM, _WIDTH_MM = 8.0, 8.0
_CHANNELS, _FOLDS = 6, 4
#: Variance of the noise of an observer, as a share of that which its channels see in the input.
INTERNAL = 0.5


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
    """Laguerre-Gauss channels as images, [channel, J, I]."""
    half = [round(_HALF_MM / mm) for mm in (spacing[1], spacing[0])]
    down, across = (
        np.arange(-n, n + 1) * mm for n, mm in zip(half, (spacing[1], spacing[0]), strict=True)
    )
    square = 2 * np.pi * (down[:, None] ** 2 + across**2) / _WIDTH_MM**2
    images: Doubles = np.exp(-square / 2) * [
        np.polynomial.laguerre.lagval(square, np.eye(_CHANNELS)[n]) for n in range(_CHANNELS)
    ]
    return images


def channel_outputs(voxels: Floats, lesion: Lesion, images: Doubles) -> Doubles:
    """Outputs of the channels for the slice through the middle of a lesion, bright ones as dark."""
    k, j, i = ((part.start + part.stop) // 2 for part in lesion.where)
    rows, columns = (side // 2 for side in images.shape[1:])
    pad = (rows, rows), (columns, columns)
    plane = np.pad(voxels[min(k, len(voxels) - 1)], pad, mode="edge")
    patch = plane[j : j + 2 * rows + 1, i : i + 2 * columns + 1]
    seen: Doubles = np.tensordot(images, patch - patch.mean(), 2) * np.sign(lesion.contrast)
    return seen


@dataclass(frozen=True)
class Hotelling:
    """A channelized Hotelling observer: the best linear one that sees what some channels show.

    Attributes:
        slices: of each lesion; it is judged by observers that learned from other slices.
        internal: variance of the noise of the observer itself in each channel.
    """

    slices: Doubles
    internal: Doubles

    @classmethod
    def on(cls, slices: Doubles, inputs: Pair) -> tuple[Hotelling, Hotelling]:
        """Make an observer without noise of its own and one with it; inputs: as `auc` gets."""
        internal = INTERNAL * np.mean([np.var(part, axis=0) for part in inputs], axis=0)
        return cls(slices, 0 * internal), cls(slices, internal)

    def auc(self, outputs: Pair, chosen: Any = slice(None)) -> float:
        """AUC, in the mean over parts of the slices.

        Args:
            outputs: of the channels with the lesions and without, [lesion, channel].
            chosen: lesions that are judged, and learned from if they are in other slices.
        """
        present, absent = (part[chosen] for part in outputs)
        every, place = np.unique(self.slices, return_inverse=True)
        fold = (place * min(_FOLDS, len(every)) // len(every))[chosen]
        sums = 0.0
        for number in np.unique(fold):
            seen, kept = fold != number, fold == number
            spread = (np.cov(present[seen].T) + np.cov(absent[seen].T)) / 2
            difference = present[seen].mean(0) - absent[seen].mean(0)
            total = spread + np.diag(self.internal)
            template = np.linalg.lstsq(total, difference, rcond=None)[0]
            apart = (present[kept] @ template)[:, None] - absent[kept] @ template
            own = max(np.sqrt(2 * template**2 @ self.internal), 1e-9 * np.abs(apart).max())
            sums += float(ndtr(apart / own).mean()) * kept.sum()
        return sums / len(fold)
