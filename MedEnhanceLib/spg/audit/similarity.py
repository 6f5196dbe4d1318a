"""How much of one image is in another: correlation of what is left without brightness and shape.

Raw correlation is no evidence: a body on a dark ground correlates with every other one, and crops
of unrelated patients reach 0.87. So images are filtered first. A band-pass keeps details of two to
some ten pixels and drops shading and noise. Each place is then divided by its own contrast, with a
floor: else the outline of the body, the strongest edge by far, would decide alone, and without a
floor the noise of the air would count as much as anatomy. The correlation is taken over all
translations within reach at once, by FFT, for a few rotations.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from MedEnhanceLib.runtime.progress import Monitor

Floats = npt.NDArray[np.float32]

#: Pixels, of the band-pass and of the neighbourhood whose contrast is divided by.
_FINE, _COARSE, _NEIGHBOURHOOD = 1.0, 4.0, 6.0
#: Contrast that counts as none, of a range of [0, 1]: about the noise of a clinical MR.
_CONTRAST_FLOOR = 0.05
#: Mean square of a filtered image that counts as empty; a textured one has up to 1.
_ENERGY_FLOOR = 0.02
#: Rotations that are tried, in degrees; neighbours resemble each other enough for those between.
ANGLES_DEG = (-8.0, -4.0, 0.0, 4.0, 8.0)
#: Share of an image's side by which it may be shifted.
REACH = 0.125
#: Planes of correlations that are held at once, in bytes.
_AT_ONCE = 2**27


@dataclass(frozen=True)
class Matches:
    """Each image against each slice, at the place where they agree most.

    score: [N, R], −1 to 1. shift: [N, R, 2], pixels (row, column) by which the image moves to lie
    on the slice, after it was rotated by angle_deg: [N, R], counter-clockwise about its centre.
    """

    score: Floats
    shift: npt.NDArray[np.int32]
    angle_deg: Floats


def fingerprints(images: Floats) -> Floats:
    """Images [N, H, W] as they are compared, [N, H // 2, W // 2]: band-passed, contrast evened.

    The band ends well below half the pixels' frequency, so every second one is enough.
    """
    return _halve(details(images))


def details(images: Floats) -> Floats:
    """The same at every pixel, [N, H, W].

    Source: the normalisation is that of Jarrett et al., ICCV 2009; the scales are our own.
    """
    band = blur(images, _FINE) - blur(images, _COARSE)
    evened: Floats = band / np.sqrt(blur(band * band, _NEIGHBOURHOOD) + _CONTRAST_FLOOR**2)
    return evened


def match(
    images: Floats, slices: Floats, *, angles_deg: Sequence[float] = ANGLES_DEG, pixels: int = 2
) -> Matches:
    """Compare every fingerprint of images [N, h, w] with every one of slices [R, h, w].

    pixels: of the images, for each of the fingerprints: 1 where those are `details`.
    """
    return Searched(slices, pixels=pixels).match(images, angles_deg=angles_deg)


class Searched:
    """Fingerprints of slices [R, h, w] that images are searched in, prepared once.

    The correlation is normalised over the part that both share, each side's mean square raised to
    a floor. Source: masked correlation by FFT, Padfield, IEEE Trans. Image Process. 21 (2012) 2706.
    """

    def __init__(self, slices: Floats, *, pixels: int = 2) -> None:
        height, width = slices.shape[1:]
        self._most = max(1, round(REACH * height)), max(1, round(REACH * width))
        self._padded = height + self._most[0], width + self._most[1]
        self._pixels = pixels
        self._spectra = np.fft.rfft2(slices, self._padded).astype(np.complex64)
        self._root = self._roots(slices)

    def match(
        self,
        images: Floats,
        *,
        angles_deg: Sequence[float] = ANGLES_DEG,
        monitor: Monitor | None = None,
    ) -> Matches:
        """Every fingerprint of images [N, h, w], in the best of these rotations."""
        shape = len(images), len(self._spectra)
        best = Matches(
            np.full(shape, -2, np.float32),
            np.zeros((*shape, 2), np.int32),
            np.zeros(shape, np.float32),
        )
        for turn, angle in enumerate(angles_deg):
            turned = rotate(images, angle)
            spectra = np.conj(np.fft.rfft2(turned, self._padded)).astype(np.complex64)
            # Shifted by d an image shares with a slice what a slice shifted by −d shares with it.
            roots = self._roots(turned)[:, ::-1, ::-1]
            for row, (spectrum, root) in enumerate(zip(spectra, roots, strict=True)):
                if monitor is not None:
                    done = (turn + row / len(images)) / len(angles_deg)
                    monitor.progress(done, "comparing images")
                for part in self._parts():
                    self._improve(best, row, part, spectrum, root, angle)
        return best

    def _improve(
        self, best: Matches, row: int, part: slice, spectrum: Any, root: Floats, angle: float
    ) -> None:
        """Note where an image agrees better with some of the slices than it did before."""
        planes = np.fft.irfft2(spectrum * self._spectra[part], self._padded)
        down, right = (np.arange(-most, most + 1) for most in self._most)
        scores = planes[:, down[:, None], right[None]] / (root * self._root[part])
        scores = scores.reshape(len(scores), -1)
        place = scores.argmax(axis=1)
        score = scores[np.arange(len(scores)), place].astype(np.float32)
        better = score > best.score[row, part]
        moved = np.stack(np.divmod(place, right.size), axis=-1) - self._most
        best.score[row, part][better] = score[better]
        best.shift[row, part][better] = self._pixels * moved[better]
        best.angle_deg[row, part][better] = angle

    def _parts(self) -> Iterator[slice]:
        """Runs of slices whose planes fit into memory."""
        step = max(1, _AT_ONCE // (8 * self._padded[0] * self._padded[1]))
        return (slice(first, first + step) for first in range(0, len(self._spectra), step))

    def _roots(self, images: Floats) -> Floats:
        """Root of the energy in the part that each shift shares, or of the floor."""
        energy, area = _shared_energy(images, self._most)
        root: Floats = np.sqrt(np.maximum(energy, np.float32(_ENERGY_FLOOR) * area))
        return root


def _shared_energy(images: Floats, most: tuple[int, int]) -> tuple[Floats, Floats]:
    """Sum of squares of the part of each image that another one shifted by d covers.

    [N, 2·rows + 1, 2·columns + 1], and the pixels of that part, without N.
    """
    total = np.cumsum(np.cumsum(images.astype(np.float64) ** 2, axis=1), axis=2)
    total = np.pad(total, ((0, 0), (1, 0), (1, 0)))
    edges = []
    for side, reach in zip(images.shape[1:], most, strict=True):
        shift = np.arange(-reach, reach + 1)
        edges.append((np.maximum(0, shift), np.minimum(side, side + shift)))
    (top, bottom), (left, right) = edges

    def upto(rows: npt.NDArray[np.int_], columns: npt.NDArray[np.int_]) -> npt.NDArray[np.float64]:
        return total[:, rows[:, None], columns[None]]

    energy = upto(bottom, right) - upto(top, right) - upto(bottom, left) + upto(top, left)
    area = (bottom - top)[:, None] * (right - left)[None]
    return energy.astype(np.float32), area.astype(np.float32)


def rotate(images: Floats, angle_deg: float) -> Floats:
    """Images [N, H, W] turned counter-clockwise about their centre, bilinear, 0 from outside."""
    if angle_deg == 0:
        return images
    height, width = images.shape[1:]
    row, column = np.mgrid[:height, :width].astype(np.float32)
    row, column = row - (height - 1) / 2, column - (width - 1) / 2
    cosine, sine = np.cos(np.deg2rad(angle_deg)), np.sin(np.deg2rad(angle_deg))
    # Rows run downwards: counter-clockwise on the screen.
    from_row = cosine * row + sine * column + (height - 1) / 2
    from_column = -sine * row + cosine * column + (width - 1) / 2
    return _sample(images, from_row, from_column)


def _sample(images: Floats, row: Floats, column: Floats) -> Floats:
    padded = np.pad(images, ((0, 0), (1, 1), (1, 1)))
    row = np.clip(row + 1, 0, padded.shape[1] - 1.001)
    column = np.clip(column + 1, 0, padded.shape[2] - 1.001)
    i, j = row.astype(np.intp), column.astype(np.intp)
    down, right = (row - i).astype(np.float32), (column - j).astype(np.float32)
    upper = (1 - right) * padded[:, i, j] + right * padded[:, i, j + 1]
    lower = (1 - right) * padded[:, i + 1, j] + right * padded[:, i + 1, j + 1]
    sampled: Floats = (1 - down) * upper + down * lower
    return sampled


def blur(images: Floats, sigma: float) -> Floats:
    """Gaussian blur of [N, H, W] within each image, σ in pixels; the border is mirrored."""
    radius = min(int(np.ceil(3 * sigma)), min(images.shape[1:]) - 1)
    taps = np.exp(-0.5 * (np.arange(-radius, radius + 1) / sigma) ** 2)
    taps = (taps / taps.sum()).astype(np.float32)
    for axis in (1, 2):
        widths = [(0, 0), (0, 0), (0, 0)]
        widths[axis] = (radius, radius)
        padded = np.moveaxis(np.pad(images, widths, mode="reflect"), axis, 0)
        side = images.shape[axis]
        total = taps[radius] * padded[radius : radius + side]
        for offset in range(1, radius + 1):
            low, high = radius - offset, radius + offset
            total += taps[low] * (padded[low : low + side] + padded[high : high + side])
        images = np.moveaxis(total, 0, axis)
    return images


def _halve(images: Floats) -> Floats:
    """Mean of each 2 × 2 pixels; an odd last row or column is left out."""
    height, width = images.shape[1] // 2 * 2, images.shape[2] // 2 * 2
    pairs = images[:, :height, :width].reshape(len(images), height // 2, 2, width // 2, 2)
    halved: Floats = pairs.mean(axis=(2, 4))
    return halved
