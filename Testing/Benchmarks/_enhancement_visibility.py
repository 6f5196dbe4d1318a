"""How well planted lesions can be distinguished from noise, by the best detector there is."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from _enhancement_data import Floats, Subject
from _enhancement_lesions import Lesion

from MedEnhanceLib.core.volume import Volume

#: Side of the patches that the noise's spectrum is measured on, in pixels; lesions fit in.
_SIDE = 32
_INSIDE = 0.95


def detectability(subject: Subject, degraded: Volume, lesions: Sequence[Lesion]) -> list[float]:
    """d′ of each lesion for a matched filter: √ Σ |S|² / NPS over the frequencies in slices.

    The filter knows place, shape and contrast, and the spectrum of the noise, which is taken as
    independent between slices: nothing does better.
    """
    noise = degraded.voxels.astype(np.float64) - subject.volume.voxels
    spectrum = _noise_spectrum(noise, subject)
    return [float(np.sqrt((_power(lesion) / spectrum).sum())) for lesion in lesions]


def _noise_spectrum(noise: np.ndarray, subject: Subject) -> np.ndarray:
    """Variance by frequency, [side, side], its mean the variance of a pixel."""
    _, rows, columns = noise.shape
    contrasts = [
        patch - patch.mean()
        for index, plane in enumerate(noise)
        for row in range(0, rows - _SIDE + 1, _SIDE)
        for column in range(0, columns - _SIDE + 1, _SIDE)
        for where in [(slice(row, row + _SIDE), slice(column, column + _SIDE))]
        if subject.inside[(index, *where)].mean() >= _INSIDE
        for patch in [plane[where]]
    ]
    spectrum = np.mean(np.abs(np.fft.fft2(contrasts)) ** 2, axis=0) / _SIDE**2
    spectrum[0, 0] = spectrum[0, 1]  # the mean of a patch was taken off
    return np.asarray(spectrum)


def _power(lesion: Lesion) -> Floats:
    share = lesion.share[:, :_SIDE, :_SIDE]
    power: Floats = np.abs(np.fft.fft2(share * lesion.contrast, s=(_SIDE, _SIDE))) ** 2 / _SIDE**2
    return power
