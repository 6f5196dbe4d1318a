"""Model observers: how surely a lesion whose place is known is distinguished from its absence.

Each sees a slice through the outputs of channels, and weighs these by what it learned from other
slices (channelized Hotelling; Barrett et al. 1993). Its own noise is half of the variance of what
its channels see: of the input (fixed), or of the image at hand (proportional; Burgess 1994).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from _enhancement_lesions import Floats, Lesion
from scipy.special import ndtr

Doubles = np.ndarray[tuple[int, ...], np.dtype[np.float64]]
#: With the lesions, and without.
Pair = tuple[Doubles, Doubles]
#: Half of the side of the patch that channels see.
_HALF_MM = 8.0
#: Laguerre-Gauss channels and their width (Gallas and Barrett 2003).
_LAGUERRE, _WIDTH_MM = 6, 8.0
#: Dense differences of Gaussians (Abbey and Barrett 2001): number, the first's width per mm, the
#: ratio of one to the next and that of its two Gaussians.
_DIFFERENCES, _FIRST_PER_MM, _NEXT, _WIDER = 10, 0.02, 1.4, 1.67
#: Eye filter f^1.5 exp(−3.22 f^.68) of cycles per degree, for an image of natural size that is seen
#: from this distance (report of AAPM's task group 233, 2019).
_EYE, _DISTANCE_MM = (1.5, 3.22, 0.68), 475.0
#: Radius of the discs that the matched filter expects.
RADIUS_MM = 3.0
#: Samples of each axis where a filter of frequencies becomes an image.
_SAMPLES = 512
_FOLDS = 4
#: Variance of the noise of an observer, as a share of that which its channels see.
INTERNAL = 0.5


def auc(present: Doubles, absent: Doubles) -> float:
    """Share of pairs in which the lesion scores higher than its absence."""
    return float((present[:, None] > absent[None]).mean())


def laguerre_gauss(spacing: tuple[float, ...]) -> Doubles:
    """Laguerre-Gauss channels as images, [channel, J, I]."""
    down, across = _axes(spacing)
    square = 2 * np.pi * (down[:, None] ** 2 + across**2) / _WIDTH_MM**2
    images: Doubles = (
        spacing[0]
        * spacing[1]
        * np.exp(-square / 2)
        * [np.polynomial.laguerre.lagval(square, np.eye(_LAGUERRE)[n]) for n in range(_LAGUERRE)]
    )
    return images


def differences_of_gaussians(spacing: tuple[float, ...]) -> Doubles:
    """Dense channels of frequencies as images, [channel, J, I]."""
    frequency = _frequencies(spacing)
    widths = _FIRST_PER_MM * _NEXT ** np.arange(_DIFFERENCES)
    return np.stack([
        _image(np.exp(-np.square(frequency / (_WIDER * width)) / 2)
               - np.exp(-np.square(frequency / width) / 2), spacing)
        for width in widths
    ])  # fmt: skip


def eye_filtered_disc(spacing: tuple[float, ...]) -> Doubles:
    """The template of a non-prewhitening observer with an eye filter, [1, J, I].

    A disc of `RADIUS_MM`, filtered twice: the eye filters the image and what is expected.
    """
    frequency = _frequencies(spacing)
    per_degree = frequency * _DISTANCE_MM * np.tan(np.radians(1))
    rises, falls, bends = _EYE
    eye = per_degree**rises * np.exp(-falls * per_degree**bends)
    down, across = (np.fft.fftfreq(_SAMPLES) * _SAMPLES * mm for mm in (spacing[1], spacing[0]))
    disc = np.hypot(down[:, None], across) < RADIUS_MM
    return _image(np.square(eye) * np.fft.fft2(disc).real * spacing[0] * spacing[1], spacing)[None]


#: The observers of a table: what their channels are, and whether their noise is proportional.
OBSERVERS = {
    "lg_fixed": (laguerre_gauss, False),
    "lg_prop": (laguerre_gauss, True),
    "dog_fixed": (differences_of_gaussians, False),
    "npwe": (eye_filtered_disc, True),
}


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
        internal: variance of the noise of the observer itself in each channel; None for one that
            is proportional to what they show.
    """

    slices: Doubles
    internal: Doubles | None

    @classmethod
    def on(cls, slices: Doubles, inputs: Pair, *, is_proportional: bool) -> Hotelling:
        """Make an observer; inputs: outputs of the channels for the input, as `auc` gets."""
        return cls(slices, None if is_proportional else _own_noise(inputs))

    def auc(self, outputs: Pair, chosen: Any = slice(None)) -> float:
        """AUC, in the mean over parts of the slices.

        Args:
            outputs: of the channels with the lesions and without, [lesion, channel].
            chosen: lesions that are judged, and learned from if they are in other slices.
        """
        present, absent = (part[chosen] for part in outputs)
        internal = _own_noise(outputs) if self.internal is None else self.internal
        every, place = np.unique(self.slices, return_inverse=True)
        fold = (place * min(_FOLDS, len(every)) // len(every))[chosen]
        sums = 0.0
        for number in np.unique(fold):
            seen, kept = fold != number, fold == number
            spread = (_covariance(present[seen]) + _covariance(absent[seen])) / 2
            difference = present[seen].mean(0) - absent[seen].mean(0)
            template = np.linalg.lstsq(spread + np.diag(internal), difference, rcond=None)[0]
            apart = (present[kept] @ template)[:, None] - absent[kept] @ template
            own = max(np.sqrt(2 * template**2 @ internal), 1e-9 * np.abs(apart).max())
            sums += float(ndtr(apart / own).mean()) * kept.sum()
        return float(sums / len(fold))


def _own_noise(outputs: Pair) -> Doubles:
    noise: Doubles = INTERNAL * np.mean([np.var(part, axis=0) for part in outputs], axis=0)
    return noise


def _covariance(outputs: Doubles) -> Doubles:
    return np.atleast_2d(np.cov(outputs.T))


def _axes(spacing: tuple[float, ...]) -> tuple[Doubles, Doubles]:
    """Distances from the middle of a patch along both axes, in mm."""
    sides = (spacing[1], spacing[0])
    down, across = (np.arange(-round(_HALF_MM / mm), round(_HALF_MM / mm) + 1) * mm for mm in sides)
    return down, across


def _frequencies(spacing: tuple[float, ...]) -> Doubles:
    """Cycles per mm, [J, I]."""
    down, across = map(partial(np.fft.fftfreq, _SAMPLES), (spacing[1], spacing[0]))
    frequencies: Doubles = np.hypot(down[:, None], across)
    return frequencies


def _image(transfer: Doubles, spacing: tuple[float, ...]) -> Doubles:
    """The middle of what a transfer function is in an image, [J, I]."""
    image = np.fft.fftshift(np.fft.ifft2(transfer).real)
    rows, columns = (len(axis) // 2 for axis in _axes(spacing))
    middle = _SAMPLES // 2
    return image[middle - rows : middle + rows + 1, middle - columns : middle + columns + 1]
