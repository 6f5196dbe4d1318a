"""Slabs of CT at low dose, denoised as in use, for the training of the network that sees slices.

Clean volumes are synthetic, or real ones that the filter cleaned: with the noise of their own in
the target, a network learns to leave noise, and loses decibels on clean volumes. Faint lesions are
planted, and the dose is that of a scanner drawn at random.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from MedEnhanceLib.core.arrays import Array, Floats, Shape
from MedEnhanceLib.core.geometry import Geometry, Triple
from MedEnhanceLib.core.volume import Volume
from MedEnhanceLib.degradation.ct_scanner import CtScanner
from MedEnhanceLib.denoise.denoisers import BlockMatching, Denoiser
from MedEnhanceLib.denoise.removal import Removal, denoise
from MedEnhanceLib.noise.estimate import TRUSTED, NoiseEstimate, measure_noise
from MedEnhanceLib.scanner.corrector.view_inputs import NEIGHBORS
from MedEnhanceLib.synthetic import synthetic_volume

# Chosen by hand (decision 0066); no table isolates them. Measured by Benchmarks/denoising.py.
#: Slices of a slab; pixels along rows and columns of a real one at most, of a synthetic one, and of
#: one as wide as an abdomen, in which photons starve.
_SLICES, _MOST, _SYNTHETIC, _WIDE = 8, 224, 128, (192, 256)
#: Share of the synthetic slabs that are wide; mm of a pixel of those and of others, and of slices.
_WIDE_SHARE, _WIDE_MM, _PIXEL_MM, _SLICE_MM = 0.5, (1.1, 1.7), (0.5, 1.5), (1.0, 5.0)
#: Slices on each side that are filtered with a real slab and then left out.
_MARGIN = 2
#: Share of the slabs whose noise gets a σ of its own, as if the body were wider or narrower; HU.
_OTHER_SIGMA, _SIGMA_HU = 0.5, (4.0, 300.0)
#: Error of σ where it is not measured, of its logarithm.
_SIGMA_ERROR = 0.15
#: Lesions of a slab, their radii in mm, contrast in HU, and weight in the loss beside tissue.
_LESIONS, _RADIUS_MM, _CONTRAST_HU, _LESION_WEIGHT = 24, (1.2, 5.0), (4.0, 100.0), 3.0
#: Width of a lesion's edge in pixels.
_EDGE_PX = 0.7
#: Values from here on are tissue, HU; least share of tissue in a patch, and tries for it.
_TISSUE_HU, _LEAST_TISSUE, _TRIES = -400.0, 0.4, 8
#: Side of a patch in pixels, a multiple of what the network shrinks by.
PATCH = 96
_HU = np.float32(1000)


@dataclass(frozen=True, eq=False)
class TrainingSlab:
    """Slices to learn from, on the network's scale, float16, [K, J, I] each.

    Attributes:
        noisy, filtered: before and after the methods that precede the network.
        sigma: of the noise, as measured.
        clean: the target.
        weight: of the loss, uint8.
        is_tissue: whether there is tissue.
    """

    noisy: Array
    filtered: Array
    sigma: Array
    clean: Array
    weight: Array
    is_tissue: Array


@dataclass(frozen=True)
class SlabMaker:
    """Makes slabs by number: the same in another process.

    Attributes:
        volumes: real ones, single; none where all slabs are synthetic.
        first: method whose results the network corrects.
        synthetic: share of the slabs that are synthetic, 0 to 1.
        seed: of all.
    """

    volumes: Sequence[Volume]
    first: Denoiser
    synthetic: float
    seed: int

    def make(self, number: int) -> list[TrainingSlab]:
        """Make the slab of this number."""
        rng = np.random.default_rng([self.seed, 4, number])
        if not self.volumes or rng.random() < self.synthetic:
            clean, spacing, is_wide = _synthetic(rng)
        else:
            sizes = (_SLICES + 2 * _MARGIN, _MOST, _MOST)
            clean, spacing = _cleaned(draw_slab(self.volumes, sizes, rng))
            is_wide = False
        scanner = CtScanner.draw(rng)
        clean = scanner.shown(clean).copy()
        share = plant(clean, spacing, rng)
        noise = scanner.noise(clean, spacing, rng)
        tissue = clean > _TISSUE_HU
        if not is_wide and rng.random() < _OTHER_SIGMA and tissue.any():
            sigma = float(np.exp(rng.uniform(*np.log(_SIGMA_HU))))
            noise *= np.float32(sigma / max(float(noise[tissue].std()), 1e-3))
        noisy = clean + noise
        measured = measure_noise(noisy, modality="CT", spacing=spacing)
        if measured.confidence < TRUSTED and tissue.any():
            # Shapes are denser than anatomy, where σ is rarely so uncertain.
            level = float(noise[tissue].std()) * np.exp(_SIGMA_ERROR * rng.standard_normal())
            measured = measured.at_level(float(level))
        filtered = _denoised(noisy, measured, spacing, self.first)
        images = (noisy, filtered, measured[: len(noisy)], clean)
        scaled = [(image / _HU).astype(np.float16) for image in images]
        return [TrainingSlab(scaled[0], scaled[1], scaled[2], scaled[3], weight_of(share), tissue)]


@dataclass(frozen=True, eq=False)
class PatchBatch:
    """Patches: what the network gets and has to make of it, on its scale.

    Attributes:
        noisy, filtered: [B, 5, J, I].
        sigma, clean, weight: [B, J, I].
    """

    noisy: Tensor
    filtered: Tensor
    sigma: Tensor
    clean: Tensor
    weight: Tensor


def batch_of(
    draw: Callable[[], TrainingSlab], count: int, rng: np.random.Generator, turn: int = 1
) -> PatchBatch:
    """Cut patches, turned and mirrored at random.

    Args:
        draw: draws a slab.
        count: of the patches.
        rng: draws their places.
        turn: quarters that patches are turned by, or a multiple; 2 where rows have to stay rows.
    """
    patches = [_patch(draw(), rng, turn) for _ in range(count)]
    columns = [np.stack(column).astype(np.float32) for column in zip(*patches, strict=True)]
    noisy, filtered, sigma, clean, weight = map(torch.from_numpy, columns)
    return PatchBatch(noisy, filtered, sigma, clean, weight / 16)


def _patch(slab: TrainingSlab, rng: np.random.Generator, turn: int) -> tuple[Array, ...]:
    """Cut a patch of a slab, with much tissue."""
    count, rows, columns = slab.clean.shape
    for _ in range(_TRIES):
        z = int(rng.integers(count))
        j, i = (int(rng.integers(max(1, side - PATCH + 1))) for side in (rows, columns))
        at = slice(j, j + PATCH), slice(i, i + PATCH)
        if slab.is_tissue[z][at].mean() > _LEAST_TISSUE:
            break
    near = np.clip(np.arange(z - NEIGHBORS, z + NEIGHBORS + 1), 0, count - 1)
    if rng.random() < 0.5:
        near = near[::-1]
    parts = [slab.noisy[near][:, *at], slab.filtered[near][:, *at]]
    parts += [each[z][at] for each in (slab.sigma, slab.clean, slab.weight)]
    turns, mirrors = turn * int(rng.integers(4)), rng.random() < 0.5
    turned = [np.rot90(part, turns, axes=(-2, -1)) for part in parts]
    return tuple(part[..., ::-1] if mirrors else part for part in turned)


def weight_of(share: Floats) -> Array:
    """Return the weight of the loss, where lesions fill a share of voxels."""
    return np.round(16 * (1 + _LESION_WEIGHT * share)).astype(np.uint8)


def _synthetic(rng: np.random.Generator) -> tuple[Floats, Triple, bool]:
    """Draw a synthetic volume: HU, its spacing along i, j, k, and whether it is wide."""
    is_wide = rng.random() < _WIDE_SHARE
    pixel = float(rng.uniform(*(_WIDE_MM if is_wide else _PIXEL_MM)))
    slices = float(rng.uniform(*_SLICE_MM))
    rows, columns = _WIDE if is_wide else (_SYNTHETIC, _SYNTHETIC)
    volume = synthetic_volume(
        "CT", int(rng.integers(2**31)), shape=(_SLICES, rows, columns),
        spacing=(slices, pixel, pixel),
    )  # fmt: skip
    return np.asarray(volume.voxels, np.float32), volume.geometry.spacing, is_wide


def draw_slab(volumes: Sequence[Volume], most: Shape, rng: np.random.Generator) -> Volume:
    """Draw a volume, and a slab of it.

    Args:
        volumes: single.
        most: slices, rows and columns of the slab.
        rng: of both.
    """
    volume = volumes[int(rng.integers(len(volumes)))]
    starts = [
        int(rng.integers(max(1, side - size + 1)))
        for side, size in zip(volume.shape, most, strict=True)
    ]
    k, j, i = (slice(at, at + size) for at, size in zip(starts, most, strict=True))
    return volume.crop(k, j, i)


def _cleaned(slab: Volume) -> tuple[Floats, Triple]:
    """Remove the noise of a slab of a real volume; its margins are left out."""
    part = np.asarray(slab.voxels, np.float32)
    noise = measure_noise(part, modality="CT", spacing=slab.spacing)
    clean = _denoised(part, noise, slab.spacing, BlockMatching())
    inner = slice(_MARGIN, len(clean) - _MARGIN) if len(clean) > _SLICES else slice(None)
    return np.ascontiguousarray(clean[inner]), slab.spacing


def _denoised(noisy: Floats, noise: NoiseEstimate, spacing: Triple, method: Denoiser) -> Floats:
    """Denoise a slab as in use."""
    volume = Volume(noisy, Geometry(spacing=spacing), modality="CT")
    result: Floats = denoise(volume, Removal(noise), method, tops={0: float(_HU)}).voxels
    return result


def plant(clean: Floats, spacing: Triple, rng: np.random.Generator) -> Floats:
    """Add faint ellipsoids to tissue, in place.

    Args:
        clean: [K, J, I], HU.
        spacing: mm along i, j, k.
        rng: of all that is drawn.
    Returns how much of each voxel they fill, 0 to 1.
    """
    filled = np.zeros_like(clean)
    places = np.argwhere((clean > -200) & (clean < 200))
    if not len(places):
        return filled
    mm = np.array(spacing[::-1])
    for center in places[rng.integers(len(places), size=_LESIONS)]:
        radii = rng.uniform(*_RADIUS_MM) * np.exp(rng.uniform(-0.3, 0.3, 3))
        reach = np.ceil(radii / mm + 2).astype(int)
        low, stop = np.maximum(center - reach, 0), np.minimum(center + reach + 1, clean.shape)
        at = tuple(map(slice, low, stop))
        offsets = np.ogrid[at]
        squares = [
            np.square((o - c) * side / r)
            for o, c, side, r in zip(offsets, center, mm, radii, strict=True)
        ]
        inside = (1 - np.sqrt(squares[0] + squares[1] + squares[2])) * (radii.min() / mm[2])
        share = np.clip(0.5 + inside / (2 * _EDGE_PX), 0, 1).astype(np.float32)
        contrast = rng.choice((-1, 1)) * np.exp(rng.uniform(*np.log(_CONTRAST_HU)))
        clean[at] += np.float32(contrast) * share
        np.maximum(filled[at], share, out=filled[at])
    return filled
