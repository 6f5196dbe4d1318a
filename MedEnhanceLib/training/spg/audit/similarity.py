"""Similarity of two images in their details, over translations and rotations.

Raw correlation is no evidence: a body on a dark background correlates with every other one, and
crops of unrelated patients reach 0.87. So images are filtered first. A band-pass keeps details of
two to about ten pixels and drops shading and noise. Each pixel is then divided by the local
contrast, with a floor: otherwise the outline of the body, by far the strongest edge, would
dominate, and without the floor the noise of air would count as much as anatomy. The correlation is
computed by FFT for all translations within reach, for a few rotations. An image can then be
registered to the slice that it matches, for SSIM and for pictures.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from MedEnhanceLib.core.arrays import Doubles, Floats, Ints, Mask
from MedEnhanceLib.core.imaging import gaussian_blur
from MedEnhanceLib.runtime.progress import Monitor
from MedEnhanceLib.training.ssim import ssim

# Chosen by hand; no table isolates them.
#: σ in pixels: of the band-pass, and of the neighborhood whose contrast is divided by.
_FINE, _COARSE, _NEIGHBORHOOD = 1.0, 4.0, 6.0
#: Floor of the contrast, of a range of [0, 1]: about the noise of a clinical MR.
_CONTRAST_FLOOR = 0.05
#: Mean square of a filtered image that counts as empty; a textured one has up to 1.
_ENERGY_FLOOR = 0.02
#: Rotations tried, in degrees; dense enough for the angles between.
ANGLES_DEG = (-8.0, -4.0, 0.0, 4.0, 8.0)
#: Largest shift, as a share of an image's side.
REACH = 0.125
#: Bytes of correlation planes in memory at once.
_AT_ONCE = 2**27
#: Degrees around the rotation that the search found.
_FINER_DEG = (-2.0, 0.0, 2.0)
#: Contrast, for intensities in [0, 1], above which a pixel shows something: SSIM of two empty
#: backgrounds is 1, but means nothing.
_SHOWS_SOMETHING = 0.01
#: SSIM's window.
_SMALLEST = 11


@dataclass(frozen=True)
class Matches:
    """Each of N images against each of R slices, at the best translation and rotation.

    Attributes:
        score: [N, R], correlation, −1 to 1.
        shift: [N, R, 2], pixels (row, column) by which the rotated image moves.
        angle_deg: [N, R], rotation of the image, counter-clockwise about its center.
    """

    score: Floats
    shift: Ints
    angle_deg: Floats


def fingerprints(images: Floats) -> Floats:
    """Compute `details` of images [N, H, W] at half the resolution, [N, H // 2, W // 2].

    The band ends well below half the Nyquist frequency.
    """
    return _halve(details(images))


def details(images: Floats) -> Floats:
    """Band-pass images [N, H, W] and normalize their contrast.

    Source: the normalization is that of Jarrett et al., ICCV 2009; the scales are ours.
    """
    band = gaussian_blur(images, _FINE) - gaussian_blur(images, _COARSE)
    evened: Floats = band / np.sqrt(gaussian_blur(band * band, _NEIGHBORHOOD) + _CONTRAST_FLOOR**2)
    return evened


class SliceIndex:
    """Fingerprints of slices [R, h, w], prepared once for the search of images.

    The correlation is normalized over the overlap, each side's mean square raised to a floor.
    pixels: image pixels per pixel of a fingerprint; 1 for `details`.
    Source: masked correlation by FFT, Padfield, IEEE Trans. Image Process. 21 (2012) 2706.
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
        """Match every fingerprint, at the best translation and rotation, to each slice.

        Args:
            images: fingerprints [N, h, w], of the slices' size.
            angles_deg: rotations that are tried, counter-clockwise.
            monitor: receives progress after each image; None for a short search.
        """
        shape = len(images), len(self._spectra)
        best = Matches(
            np.full(shape, -2, np.float32),
            np.zeros((*shape, 2), np.int32),
            np.zeros(shape, np.float32),
        )
        down, right = (np.arange(-most, most + 1) for most in self._most)
        # Slices whose planes fit into memory.
        count = max(1, _AT_ONCE // (8 * self._padded[0] * self._padded[1]))
        for turn, angle in enumerate(angles_deg):
            turned = rotate(images, angle)
            spectra = np.conj(np.fft.rfft2(turned, self._padded)).astype(np.complex64)
            # The overlap of an image shifted by d is that of the slice shifted by −d.
            roots = self._roots(turned)[:, ::-1, ::-1]
            for row in range(len(images)):
                if monitor is not None:
                    fraction = (turn + row / len(images)) / len(angles_deg)
                    monitor.progress(fraction, "comparing images")
                for first in range(0, len(self._spectra), count):
                    part = slice(first, first + count)
                    planes = np.fft.irfft2(spectra[row] * self._spectra[part], self._padded)
                    scores = planes[:, down[:, None], right[None]] / (roots[row] * self._root[part])
                    scores = scores.reshape(len(scores), -1)
                    place = scores.argmax(axis=1)
                    score = scores.max(axis=1).astype(np.float32)
                    better = score > best.score[row, part]
                    moved = np.stack(np.divmod(place, right.size), axis=-1) - self._most
                    best.score[row, part][better] = score[better]
                    best.shift[row, part][better] = self._pixels * moved[better]
                    best.angle_deg[row, part][better] = angle
        return best

    def _roots(self, images: Floats) -> Floats:
        """Compute the root of the energy of each shift's overlap, or of the floor."""
        energy, area = _shared_energy(images, self._most)
        root: Floats = np.sqrt(np.maximum(energy, np.float32(_ENERGY_FLOOR) * area))
        return root


def _shared_energy(images: Floats, most: tuple[int, int]) -> tuple[Floats, Floats]:
    """Compute sum of squares and number of pixels of the overlap with an image shifted by d.

    Returns [N, 2·rows + 1, 2·columns + 1] and [2·rows + 1, 2·columns + 1].
    """
    total = np.cumsum(np.cumsum(images.astype(np.float64) ** 2, axis=1), axis=2)
    total = np.pad(total, ((0, 0), (1, 0), (1, 0)))
    edges = []
    for side, reach in zip(images.shape[1:], most, strict=True):
        shift = np.arange(-reach, reach + 1)
        edges.append((np.maximum(0, shift), np.minimum(side, side + shift)))
    (top, bottom), (left, right) = edges

    def upto(rows: npt.NDArray[np.int_], columns: npt.NDArray[np.int_]) -> Doubles:
        return total[:, rows[:, None], columns[None]]

    energy = upto(bottom, right) - upto(top, right) - upto(bottom, left) + upto(top, left)
    area = (bottom - top)[:, None] * (right - left)[None]
    return energy.astype(np.float32), area.astype(np.float32)


def rotate(images: Floats, angle_deg: float) -> Floats:
    """Rotate images [N, H, W] counter-clockwise about their center, bilinear, 0 outside."""
    if angle_deg == 0:
        return images
    import torch
    from torch.nn import functional as F  # noqa: N812 - the field's own short name

    count, height, width = images.shape
    cosine, sine = math.cos(math.radians(angle_deg)), math.sin(math.radians(angle_deg))
    # Where each pixel comes from, in halves of a side; rows run downwards.
    turn = torch.tensor([[cosine, -sine * height / width, 0], [sine * width / height, cosine, 0]])
    grid = F.affine_grid(turn.expand(count, 2, 3), [count, 1, height, width], align_corners=False)
    turned = F.grid_sample(torch.from_numpy(images)[:, None], grid, align_corners=False)
    rotated: Floats = turned[:, 0].numpy()
    return rotated


def _halve(images: Floats) -> Floats:
    """Average each 2 × 2 pixels; an odd last row or column is left out."""
    height, width = images.shape[1] // 2 * 2, images.shape[2] // 2 * 2
    pairs = images[:, :height, :width].reshape(len(images), height // 2, 2, width // 2, 2)
    halved: Floats = pairs.mean(axis=(2, 4))
    return halved


def lay_on(image: Floats, onto: Floats, angle_deg: float) -> tuple[Floats, float]:
    """Register an image to a slice of the same size.

    Args:
        image: [H, W] in [0, 1].
        onto: the slice, [H, W] in [0, 1].
        angle_deg: rotation of the image, counter-clockwise; 2° less and more are tried, too.
    Returns the image registered to the slice and scaled to its brightness, 0 outside of it, and
    SSIM over the pixels where either shows something; 0 if there are none.
    """
    angles = tuple(angle_deg + finer for finer in _FINER_DEG)
    slices = SliceIndex(details(onto[None]), pixels=1)
    matches = slices.match(details(image[None]), angles_deg=angles)
    angle, move = float(matches.angle_deg[0, 0]), matches.shift[0, 0]
    shared = shifted(rotate(np.ones_like(image)[None], angle)[0], move) > 0.999
    moved = shifted(rotate(image[None], angle)[0], move)
    shown = shared & (_shows(onto) | _shows(moved))
    moved = np.where(shared, _as_bright(moved, onto, shown), 0).astype(np.float32)
    return moved, _ssim(onto, moved, shown)


def shifted(image: Floats, move: Ints) -> Floats:
    """Move an image [H, W] by whole pixels (rows, columns), padded with 0."""
    down, right = int(move[0]), int(move[1])
    height, width = image.shape
    result = np.zeros_like(image)
    result[max(0, down) : height + min(0, down), max(0, right) : width + min(0, right)] = image[
        max(0, -down) : height + min(0, -down), max(0, -right) : width + min(0, -right)
    ]
    return result


def _as_bright(image: Floats, onto: Floats, where: Mask) -> Floats:
    """Scale by least squares where both show something: another window must not hide a copy."""
    pixels, goal = image[where].astype(np.float64), onto[where].astype(np.float64)
    if pixels.size == 0 or pixels.var() == 0:
        return image
    # A window never inverts an image.
    covariance = np.mean((pixels - pixels.mean()) * (goal - goal.mean()))
    gain = max(0.0, float(covariance / pixels.var()))
    scaled: Floats = (gain * (image - pixels.mean()) + goal.mean()).astype(np.float32)
    return scaled


def _shows(image: Floats) -> Mask:
    finer = image[None] - gaussian_blur(image[None], 4.0)
    shows: Mask = (gaussian_blur(finer * finer, 4.0) > _SHOWS_SOMETHING**2)[0]
    return shows


def _ssim(onto: Floats, image: Floats, where: Mask) -> float:
    inner = where.copy()
    margin = _SMALLEST // 2
    inner[:margin] = inner[-margin:] = False
    inner[:, :margin] = inner[:, -margin:] = False
    return ssim(onto, image, 1.0, mask=where) if inner.any() else 0.0
