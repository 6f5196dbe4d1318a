"""Real CT for real_ct.py: scans of phantoms whose slices repeat each other, and what is planted.

A method sees a slab of slices. The truth is the mean of slices outside of it, and the noise of that
mean is subtracted from every error: a mean of what the method saw rewards whoever borrows from it.
"""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from _common import QUICK, SHARED_DATA
from _enhancement_lesions import Lesion
from _observers import RADIUS_MM
from scipy import ndimage

from MedEnhanceLib.core.geometry import Geometry
from MedEnhanceLib.core.volume import Volume
from MedEnhanceLib.degradation.lowdose import low_dose_noise
from MedEnhanceLib.io import load

Floats = npt.NDArray[np.float32]
Mask = npt.NDArray[np.bool_]
#: Slices from which noise is independent: neighbors share rays.
_APART = 3
#: Standard deviation in pixels of the window that σ is averaged in.
_WINDOW = 8.0
#: Standard deviation in pixels of the edge of what is planted: as sharp as soft kernels show it.
_BLUR = 0.7
#: Heights of discs, distance of their centers, in mm.
HEIGHTS_MM, _DISTANCE_MM = (6.0, 10.0), 13.0
#: Share of a slice from which a disc is looked for in it.
_FILLED = 0.5
#: Discs in a layer of slices.
_DISCS = 6 if QUICK else 24
#: Contrast of discs in standard deviations of the mean of the noise in one.
_VISIBLE = 2.4
#: HU of the cylinders whose edges are measured.
EDGES = (300.0, 30.0, 10.0)
_LARGEST_MM = 12.0


@dataclass(frozen=True, eq=False)
class Scan:
    """A slab that methods get, and what it would be without noise.

    about: of each row. truth: [K, J, I]. factor: variance of its noise over that of a slice.
    sigma: true one, [J, I]. tissue: one material, away from its edges, where errors are counted.
    """

    about: Mapping[str, Any]
    seen: Volume
    truth: Floats
    factor: float
    sigma: Floats
    tissue: Mask

    @cached_property
    def noise(self) -> Floats:
        return self.seen.voxels.astype(np.float32) - self.truth

    @property
    def spacing(self) -> tuple[float, ...]:
        return self.seen.geometry.spacing

    def share_left(self, after: float, before: float) -> float:
        """The share of a squared error that is left, without the noise of the truth."""
        return max(0.0, after / before * (1 + self.factor) - self.factor)


def opened(about: Mapping[str, Any], more: Sequence[Path]) -> Scan | None:
    """A listed scan, if it is in the shared folder or others; of a quick run a synthetic one."""
    if QUICK:
        synthetic = {"slab": [0, 5], "slices": range(10), "range_hu": [-50, 50], "erode_mm": 3}
        return repeated(_synthetic(), {**about, **synthetic})
    for folder in (SHARED_DATA / "repeated", *more):
        path = folder / about["file"]
        if path.is_file():
            top, bottom, left, right = about["box"]
            volume = load(path, modality="CT")
            digest = hashlib.sha256(volume.voxels.astype("<i2").tobytes()).hexdigest()
            if digest != about["sha256"]:
                sys.exit(f"{path}: voxels are not those that are listed (sha256)")
            return repeated(volume.crop(j=slice(top, bottom), i=slice(left, right)), about)
    return None


def repeated(volume: Volume, about: Mapping[str, Any]) -> Scan:
    """Split slices that repeat each other into a slab and a truth.

    Slices differ slowly where a phantom is not quite uniform along its axis: a quadratic of the
    position in plane is fitted to each difference from the mean.
    """
    voxels = volume.voxels.astype(np.float32)
    first, stop = about["slab"]
    places = np.array(about["slices"])
    outside = (places >= places[stop - 1] + _APART) | (places <= places[first] - _APART)
    reference = voxels[outside].mean(axis=0)
    tissue = tissue_of(voxels.mean(axis=0), volume.geometry.spacing, about)
    levels = np.stack([_quadratic(part - reference, tissue) for part in voxels])
    noise = voxels - reference - levels
    pairs = [
        (k, m)
        for k in range(len(places))
        for m in range(len(places))
        if _APART <= places[m] - places[k] <= 2 * _APART
    ]
    square = np.mean([np.square(noise[m] - noise[k]) / 2 for k, m in pairs], axis=0)
    weight = ndimage.gaussian_filter(tissue.astype(np.float32), _WINDOW)
    smooth = ndimage.gaussian_filter(square * tissue, _WINDOW) / np.maximum(weight, 1e-3)
    variance, number = float(square[tissue].mean()), int(outside.sum())
    alike = 0.0
    for lag in range(1, _APART):
        near = [np.square(noise[k + lag] - noise[k])[tissue].mean() for k in range(len(noise) - lag)
                if places[k + lag] - places[k] == lag]  # fmt: skip
        if near and number > lag:
            alike += 2 * (1 - lag / number) * (1 - float(np.mean(near)) / (2 * variance))
    return Scan(
        about={"scan": about["name"], "vendor": about["vendor"]},
        seen=volume.crop(k=slice(first, stop)),
        truth=reference + levels[first:stop],
        factor=(1 + max(0.0, alike)) / number,
        sigma=np.sqrt(smooth).astype(np.float32),
        tissue=tissue,
    )


def tissue_of(mean: Floats, spacing: tuple[float, ...], about: Mapping[str, Any]) -> Mask:
    """The largest part of a mean within a range of HU, less its border."""
    low, high = about["range_hu"]
    within = ndimage.gaussian_filter(mean, 1.0)
    pixels = round(about["erode_mm"] / spacing[0])
    inner = ndimage.binary_erosion((within > low) & (within < high), iterations=pixels)
    parts, _ = ndimage.label(inner)
    largest: Mask = parts == np.argmax(np.bincount(parts.ravel())[1:]) + 1
    return largest


def _quadratic(image: Floats, where: Mask) -> Floats:
    y, x = np.meshgrid(*(np.linspace(-1, 1, side) for side in image.shape), indexing="ij")
    terms = np.stack([np.ones_like(x), x, y, x * x, x * y, y * y], axis=-1)
    weights, *_ = np.linalg.lstsq(terms[where], image[where], rcond=None)
    fitted: Floats = (terms @ weights).astype(np.float32)
    return fitted


# --- what is planted ------------------------------------------------------------------------------


def discs(scan: Scan, height_mm: float, seed: int) -> tuple[Floats, list[Lesion]]:
    """Faint discs of one size in the tissue: what they add to the slab, and each that is seen.

    Half of them are dark. They begin anywhere between slices, and fill some in part. They are
    looked for in each slice of which they fill more than half.

    Args:
        scan: that they are for.
        height_mm: along the axis.
        seed: of places and signs.
    """
    rng, (across, _, along) = np.random.default_rng(seed), scan.spacing
    depth, height = len(scan.truth), height_mm / along
    slices = min(depth, int(np.ceil(height - 0.1)))
    reach = int(np.ceil(RADIUS_MM / across)) + 3
    y, x = np.mgrid[-reach : reach + 1, -reach : reach + 1] * across
    disc = ndimage.gaussian_filter((np.hypot(y, x) < RADIUS_MM).astype(np.float32), _BLUR)
    mean = ndimage.correlate(scan.noise, disc[None] / disc.sum())[:, scan.tissue]
    contrast = _VISIBLE * float(mean.std())
    # Discs and what is around them lie in tissue.
    room = np.argwhere(ndimage.binary_erosion(scan.tissue, iterations=round(6 / across)))
    added, lesions = np.zeros(scan.truth.shape, np.float32), []
    for first in range(0, depth - slices + 1, slices):
        centers, left = [], rng.permutation(room)
        while len(left) and len(centers) < _DISCS:
            centers.append(left[0])
            left = left[np.hypot(*(left - left[0]).T) * across > _DISTANCE_MM]
        for j, i in centers:
            sign, begin = rng.choice((-1, 1)), rng.uniform(0, max(0, slices - height))
            ends = begin + height - np.arange(slices), begin - np.arange(slices)
            filled = np.clip(ends[0], 0, 1) - np.clip(ends[1], 0, 1)
            box = slice(j - reach, j + reach + 1), slice(i - reach, i + reach + 1)
            for k, share in enumerate(filled, first):
                added[k][box] += disc * np.float32(share * sign * contrast)
                if share > _FILLED:
                    seen = float(share * sign * contrast)
                    lesions.append(Lesion((slice(k, k + 1), *box), disc[None], seen))
    return added, lesions


def cylinders(scan: Scan) -> tuple[Floats, list[Floats]]:
    """Cylinders of `EDGES` around a point: what they add, [J, I], and distances from each edge."""
    depth = ndimage.distance_transform_edt(np.pad(scan.tissue, 1))[1:-1, 1:-1]
    j, i = np.unravel_index(int(np.argmax(depth)), depth.shape)
    radius = min(_LARGEST_MM / scan.spacing[0], 0.35 * float(depth[j, i]))
    rows, columns = np.indices(depth.shape)
    added, distances = np.zeros(depth.shape, np.float32), []
    for n, contrast in enumerate(EDGES):
        angle, away = 2 * np.pi * n / len(EDGES), 1.67 * radius
        down, across = away * np.sin(angle), away * np.cos(angle)
        distance = radius - np.hypot(rows - j - down, columns - i - across)
        share = np.clip(distance + 0.5, 0, 1).astype(np.float32)
        added += np.float32(contrast) * ndimage.gaussian_filter(share, _BLUR)
        distances.append(distance.astype(np.float32))
    return added, distances


def _synthetic() -> Volume:
    """Water in air, ten slices with noise of a low dose."""
    y, x = np.mgrid[-1:1:56j, -1:1:56j]
    water = np.broadcast_to(np.where(np.hypot(y, x) < 0.9, 0.0, -1000.0), (10, 56, 56))
    noise = low_dose_noise(water, (1.0, 1.0, 5.0), 5e4, 5.0, np.random.default_rng(5))
    return Volume((water + noise).astype(np.float32), Geometry((1.0, 1.0, 5.0)), modality="CT")
