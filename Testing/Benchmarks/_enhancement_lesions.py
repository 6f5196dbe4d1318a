"""Lesions that are planted, what becomes of them, and lesions that appear where none are."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt
from _enhancement_data import Case, Floats, Mask, Subject

from MedEnhanceLib.core.volume import Volume

COUNT = 40
RADIUS_MM = (1.5, 4.0)
#: Share of the range in MR, HU in CT.
CONTRAST = {"MR": (0.05, 0.30), "CT": (20.0, 100.0)}
_APART_MM = 12.0
_EDGE_MM = 3.0
#: Sub-samples along each axis, of which the share inside is a voxel's occupancy.
_FINE = 5
#: A blob's size in mm: the two Gaussians whose difference finds it.
_BLOB_MM = (1.5, 2.4)


@dataclass(frozen=True)
class Lesion:
    """where: its box. share: how much of each voxel it fills. contrast: in the volume's unit."""

    where: tuple[slice, slice, slice]
    share: Floats
    contrast: float


def plant(
    subject: Subject, seed: int, contrast: tuple[float, float] | None = None
) -> tuple[Floats, list[Lesion]]:
    """What planting adds to the volume, [K, J, I], and the lesions.

    Ellipsoids in even tissue, half of them darker and half brighter; least and largest contrast as
    in CONTRAST, or as given.
    """
    rng = np.random.default_rng((seed, 7))
    spacing = np.array(subject.volume.geometry.spacing[::-1])
    low, high = contrast or CONTRAST[subject.modality]
    scale = subject.span if subject.modality == "MR" else 1.0
    added = np.zeros(subject.volume.shape, np.float32)
    lesions: list[Lesion] = []
    for center in _places(subject, spacing, rng):
        radii = rng.uniform(*RADIUS_MM, 3)
        strength = float(rng.choice((-1, 1)) * rng.uniform(low, high) * scale)
        lesion = _lesion(center, radii, spacing, strength, added.shape)
        added[lesion.where] += lesion.share * np.float32(strength)
        lesions.append(lesion)
    return added, lesions


def damaged_with_lesions(
    subject: Subject, case: Case, seed: int, degraded: Volume, added: Floats
) -> Volume:
    """The same damage, the same noise, on the volume with lesions.

    Low-dose noise was inserted as FBP(noisy) − FBP(noise-free) and hardly knows of a few HU more.
    """
    if subject.modality == "CT":
        return degraded.with_voxels(degraded.voxels + added)
    planted = np.maximum(subject.volume.voxels + added, 0)
    return case.damage(subject.volume.with_voxels(planted), seed)


def contrast_kept(without: Floats, with_lesions: Floats, lesions: Sequence[Lesion]) -> list[float]:
    """Of each lesion, how much of its contrast comes through: 1 is all of it.

    The two results have the same noise below, so that their difference is the lesion alone.
    """
    kept = []
    for lesion in lesions:
        through = (with_lesions[lesion.where] - without[lesion.where]) * lesion.share
        kept.append(float(through.sum() / (lesion.share**2).sum()) / lesion.contrast)
    return kept


def new_blobs(subject: Subject, result: Floats) -> float:
    """Blobs per 100 mL of even tissue that look like a lesion and that the clean volume has not.

    A blob is a local extremum of a difference of Gaussians, at least as strong as a middling
    lesion's, of which the clean volume explains less than half.
    """
    from scipy.ndimage import maximum_filter

    spacing = subject.volume.geometry.spacing
    even = even_tissue(subject)
    truth, response = (_blobness(voxels, spacing) for voxels in (subject.volume.voxels, result))
    bound = _middling(subject)
    count = 0
    for sign in (1, -1):
        ours = sign * response
        peaks = (ours == maximum_filter(ours, 3)) & (ours > bound) & even
        count += int((peaks & (ours - sign * truth > 0.5 * ours)).sum())
    millilitres = float(even.sum() * np.prod(spacing)) / 1000
    return 100 * count / millilitres


def _middling(subject: Subject) -> float:
    """How strong a blob a lesion is that has a third of the largest contrast, radius 2.5 mm."""
    spacing = np.array(subject.volume.geometry.spacing[::-1])
    scale = subject.span if subject.modality == "MR" else 1.0
    contrast = CONTRAST[subject.modality][1] * scale / 3
    empty = np.zeros((25, 25, 25), np.float32)
    middle = np.array([12, 12, 12])
    lesion = _lesion(middle, np.full(3, 2.5), spacing, contrast, empty.shape)
    empty[lesion.where] = lesion.share * np.float32(contrast)
    return float(_blobness(empty, subject.volume.geometry.spacing).max())


@lru_cache(maxsize=8)
def even_tissue(subject: Subject) -> Mask:
    """3 mm and more below the surface, where the gradient is below its median."""
    from scipy.ndimage import distance_transform_edt, gaussian_gradient_magnitude

    spacing = np.array(subject.volume.geometry.spacing[::-1])
    # A slab's first and last slice are no surface.
    within = np.pad(subject.inside, ((0, 0), (1, 1), (1, 1)))
    deep = distance_transform_edt(within, sampling=spacing)[:, 1:-1, 1:-1] > _EDGE_MM
    slope = gaussian_gradient_magnitude(subject.volume.voxels.astype(np.float32), 1.5 / spacing)
    return deep & (slope < np.median(slope[deep])) if deep.any() else subject.inside


def _blobness(voxels: npt.NDArray[Any], spacing: Any) -> Floats:
    from scipy.ndimage import gaussian_filter

    steps = np.array(spacing[::-1])
    narrow, wide = (gaussian_filter(voxels.astype(np.float32), mm / steps) for mm in _BLOB_MM)
    difference: Floats = narrow - wide
    return difference


def _places(
    subject: Subject, spacing: npt.NDArray[np.float64], rng: np.random.Generator
) -> list[npt.NDArray[np.int64]]:
    """Centers in even tissue, away from its border and from each other."""
    candidates = rng.permutation(np.argwhere(even_tissue(subject)))[: 200 * COUNT]
    centers: list[npt.NDArray[np.int64]] = []
    for center in candidates:
        if all(np.linalg.norm((center - other) * spacing) > _APART_MM for other in centers):
            centers.append(center)
        if len(centers) == COUNT:
            break
    return centers


def _lesion(
    center: npt.NDArray[np.int64],
    radii: npt.NDArray[np.float64],
    spacing: npt.NDArray[np.float64],
    contrast: float,
    shape: tuple[int, ...],
) -> Lesion:
    reach = np.ceil(radii / spacing + 0.5).astype(int)
    low, high = np.maximum(center - reach, 0), np.minimum(center + reach + 1, shape)
    fine = (np.arange(_FINE) + 0.5) / _FINE - 0.5
    distances = [
        (
            ((np.arange(low[axis], high[axis])[:, None] + fine) - center[axis]) * spacing[axis]
        ).ravel()
        for axis in range(3)
    ]
    squares = [(distance / radius) ** 2 for distance, radius in zip(distances, radii, strict=True)]
    solid = squares[0][:, None, None] + squares[1][:, None] + squares[2] <= 1
    sizes = high - low
    share = solid.reshape(sizes[0], _FINE, sizes[1], _FINE, sizes[2], _FINE).mean(axis=(1, 3, 5))
    where = slice(low[0], high[0]), slice(low[1], high[1]), slice(low[2], high[2])
    return Lesion(where, share.astype(np.float32), contrast)
