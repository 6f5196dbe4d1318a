"""Training data for thin slices: planes of high-quality images, made thick along one axis.

Detail within the planes stands for that between thick slices: nothing has to be acquired twice. A
batch depends on the seed and its step alone.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from MedEnhanceLib.core.arrays import Floats
from MedEnhanceLib.core.modality import profile_of
from MedEnhanceLib.core.volume import Volume
from MedEnhanceLib.denoise.removal import denoise, removal_of
from MedEnhanceLib.learning.intensity import TISSUE, scaling_for
from MedEnhanceLib.noise.estimate import noise_of
from MedEnhanceLib.runtime.progress import Monitor
from MedEnhanceLib.slices.config import SlicePatchConfig
from MedEnhanceLib.slices.profile import Shape, SliceStack
from MedEnhanceLib.slices.slice_network import StackMaps
from MedEnhanceLib.synthetic import synthetic_volume

# Chosen by hand; no table isolates them. Measured as a whole by Benchmarks/slices.py.
#: Pixels that are averaged along both axes of a plane; one pair is drawn: less noise, other shapes.
_BINS = ((1, 1), (1, 1), (1, 1), (1, 1), (2, 2), (2, 1), (1, 2), (3, 3))
#: Distances, in planes, of the two planes beside the restored one; one is drawn.
_STEPS = (1, 1, 1, 2, 3)
#: Largest standard deviation of added noise, on the network's scale.
_NOISE = {"MR": 0.12, "CT": 0.06}
#: Share of patches to which noise is added.
_NOISY = 0.5
#: Least share of tissue in a patch, and the number of draws to find one.
_LEAST_TISSUE, _TRIES = 0.3, 6
#: Shape of a synthetic volume.
_SYNTHETIC = (9, 192, 192)
#: Thin slices for each thick one.
_LEAST_RATIO, MOST_RATIO = 1.5, 6.5
#: Thickness over spacing: slices overlap above 1, and have gaps below.
_THICKNESS = (0.75, 1.4)


@dataclass(frozen=True)
class Planes:
    """Parallel planes of a volume on the network's scale.

    Attributes:
        pixels: [N, H, W].
        spacing_mm: along N, H, W.
        clean: [N, H, W], the pixels with less of their noise; None where nothing is removed.
        removed: standard deviation of what is removed, over that of the noise.
        shown: numbers of the planes that patches show; None: all.
    """

    pixels: npt.NDArray[np.float16]
    spacing_mm: tuple[float, float, float]
    clean: npt.NDArray[np.float16] | None = None
    removed: float = 1.0
    shown: Sequence[int] | None = None

    @classmethod
    def of(
        cls, volume: Volume, *, is_clean: bool = False, monitor: Monitor | None = None
    ) -> Planes:
        """Make planes of the slices of a volume.

        Args:
            volume: single; InputError if it has no content.
            is_clean: whether it has no noise; otherwise this is measured, and removed in `clean`.
            monitor: receives progress of the denoising.
        """
        scaling, spacing_mm = scaling_for(volume), volume.geometry.spacing[::-1]
        pixels = scaling.apply(volume.voxels)
        removal = None if is_clean else removal_of(noise_of(volume), volume.modality)
        if removal is None or not removal.share:
            return cls(pixels.astype(np.float16), spacing_mm)
        clean = scaling.apply(denoise(volume, removal, monitor=monitor))
        spread = float((pixels - clean)[clean > TISSUE[volume.modality]].std())
        removed = spread * scaling.scale / removal.noise.level
        return cls(pixels.astype(np.float16), spacing_mm, clean.astype(np.float16), removed)


@dataclass(frozen=True)
class Patches:
    """Patches of a step of training, [B, …].

    Attributes:
        thin: [B, M, W], the planes to restore.
        slices: [B, 3, K, W], thick slices of each plane and of its two neighbors.
    """

    thin: Tensor
    slices: Tensor
    maps: StackMaps


@dataclass(frozen=True)
class Thickening:
    """Simulation of thick slices from patches.

    Attributes:
        stack: the slices after, and the rows of a patch before.
        added: standard deviation of the noise that is added, on the network's scale.
        noise: what is known of the noise of the slices, besides that of the planes.
        noise_factor: noise that the network is given, over what is known.
        bins: pixels that are averaged first, along both axes of a plane, of which one is drawn.
        varies: whether brightness and contrast are drawn, as MR has no units.
    """

    stack: SliceStack
    added: float
    noise: float
    noise_factor: float = 1.0
    bins: Sequence[tuple[int, int]] = _BINS
    varies: bool = True

    @classmethod
    def drawn(cls, config: SlicePatchConfig, rng: np.random.Generator) -> Thickening:
        """Draw ratio, slice profile and noise level for the patches of a step."""
        ratio = float(np.exp(rng.uniform(np.log(_LEAST_RATIO), np.log(MOST_RATIO))))
        if rng.random() < 0.5:
            ratio = max(2.0, round(ratio))
        thick = max(4, round(config.rows / ratio))
        shape: Shape = "gaussian" if rng.random() < 0.6 else "box"
        mm = config.rows / thick
        overlap = 1.0 if rng.random() < 0.5 else rng.uniform(*_THICKNESS)
        stack = SliceStack(thick, mm, overlap * mm, config.rows, shape)
        added = rng.uniform(0, _NOISE[config.modality]) if rng.random() < _NOISY else 0.0
        # In use the level is measured: the network must not rely on the exact one.
        factor = rng.uniform(0.8, 1.25)
        return cls(stack, added, added, factor, varies=not profile_of(config.modality).is_absolute)

    @classmethod
    def like(cls, stack: SliceStack, noise: float, pixel_mm: float) -> Thickening:
        """Simulate slices like those to be restored, from patches of these.

        Args:
            stack: of the slices to be restored.
            noise: its standard deviation in them, on the network's scale.
            pixel_mm: the smaller side of their pixels.
        """
        # As many rows as about a whole number of slices has.
        rows = min(
            range(64, 105, 8),
            key=lambda rows: abs(rows / round(rows / stack.ratio) - stack.ratio),
        )
        thick = max(4, round(rows / stack.ratio))
        ratio = rows / thick
        width = ratio * stack.thickness_mm / stack.spacing_mm
        patch_stack = SliceStack(thick, ratio, width, rows, stack.shape)
        binned = max(1, round(stack.thin_mm / pixel_mm))
        # The noise that binning and thickening remove by averaging is added.
        variance = float(np.square(patch_stack.thicken()).sum(axis=1).mean()) / binned
        added = noise * float(np.sqrt(1 - min(variance, 1.0)))
        return cls(patch_stack, added, noise, bins=[(binned, 1)], varies=False)


@dataclass(frozen=True)
class Sampler:
    """Source of patches with thick slices, drawn from planes.

    The patches of a step that show synthetic volumes are of one volume.

    Attributes:
        thickening: of all steps; None draws one for each.
    """

    planes: Sequence[Planes]
    config: SlicePatchConfig
    thickening: Thickening | None = None

    def batch(self, step: int) -> Patches:
        """Draw the patches of a step."""
        rng = np.random.default_rng((self.config.seed, step))
        how = self.thickening or Thickening.drawn(self.config, rng)
        synthetic = [_synthetic(self.config.modality, rng)] if self.config.synthetic else []
        thicken, thin, slices, sizes, noises = how.stack.thicken(), [], [], [], []
        for _ in range(self.config.batch):
            is_synthetic = bool(synthetic) and rng.random() < self.config.synthetic
            patch, size, removed = self._patch(synthetic if is_synthetic else self.planes, how, rng)
            thick = (thicken @ patch[:3]).astype(np.float32)
            # The noise of the planes after averaging.
            known = float((thicken @ (patch[1] - patch[3])).std()) / removed
            if how.added:
                thick += np.float32(how.added) * grain(thick.shape, rng)
            thin.append(patch[3])
            slices.append(thick)
            sizes.append(size)
            noises.append(how.noise_factor * math.hypot(how.noise, known))
        return Patches(
            torch.from_numpy(np.stack(thin)),
            torch.from_numpy(np.stack(slices)),
            StackMaps.of(how.stack, noises, sizes),
        )

    def _patch(
        self, volumes: Sequence[Planes], how: Thickening, rng: np.random.Generator
    ) -> tuple[Floats, tuple[float, float], float]:
        """Draw neighboring planes with tissue, [4, M, W]; the fourth is the second without noise.

        Returns also the spacing of columns and of planes over that of rows, and `Planes.removed`.
        """
        config, size = self.config, (how.stack.thin, self.config.columns)
        best: tuple[float, Floats, tuple[float, float], float] | None = None
        for _ in range(_TRIES):
            planes = volumes[int(rng.integers(len(volumes)))]
            bins = how.bins[int(rng.integers(len(how.bins)))]
            shown = range(len(planes.pixels)) if planes.shown is None else planes.shown
            middle = shown[int(rng.integers(len(shown)))]
            step = _STEPS[rng.integers(len(_STEPS))] * int(rng.choice((-1, 1)))
            last = len(planes.pixels) - 1
            image = planes.pixels[np.clip((middle - step, middle, middle + step, middle), 0, last)]
            if planes.clean is not None:
                image[3] = planes.clean[middle]
            apart_mm, *size_mm = planes.spacing_mm
            if rng.random() < 0.5:
                image, size_mm = image.transpose(0, 2, 1), size_mm[::-1]
            patch = _cut(image, size, bins, rng)
            flips = [slice(None, None, -1 if rng.random() < 0.5 else 1) for _ in range(2)]
            patch = patch[:, flips[0], flips[1]]
            tissue = float((patch[1] > TISSUE[config.modality]).mean())
            row_mm = size_mm[0] * bins[0]
            in_rows = size_mm[1] * bins[1] / row_mm, abs(step) * apart_mm / row_mm
            if best is None or tissue > best[0]:
                best = (tissue, patch, in_rows, planes.removed)
            if tissue > _LEAST_TISSUE:
                break
        assert best is not None
        patch = _varied(best[1], rng) if how.varies else best[1]
        return np.ascontiguousarray(patch, dtype=np.float32), *best[2:]


def _synthetic(modality: Literal["MR", "CT"], rng: np.random.Generator) -> Planes:
    seed = int(rng.integers(2**31))
    return Planes.of(synthetic_volume(modality, seed, shape=_SYNTHETIC), is_clean=True)


def _varied(patch: Floats, rng: np.random.Generator) -> Floats:
    """Vary brightness and contrast."""
    top = float(patch.max())
    if rng.random() < 0.3 and top > 0:
        patch = top * np.power(np.maximum(patch / top, 0), rng.uniform(0.6, 1.6))
    if rng.random() < 0.15:
        patch = top - patch
    return patch * rng.uniform(0.7, 1.3)


def _cut(
    image: npt.NDArray[np.float16],
    size: tuple[int, int],
    bins: tuple[int, int],
    rng: np.random.Generator,
) -> Floats:
    """Cut a random patch of planes, and average its pixels; small images are mirrored."""
    sides = [side * count for side, count in zip(size, bins, strict=True)]
    missing = [max(0, side - count) for side, count in zip(sides, image.shape[1:], strict=True)]
    if any(missing):
        image = np.pad(image, [(0, 0), (0, missing[0]), (0, missing[1])], mode="symmetric")
    counts = image.shape[1:]
    y, x = (int(rng.integers(n - side + 1)) for side, n in zip(sides, counts, strict=True))
    part = image[:, y : y + sides[0], x : x + sides[1]].astype(np.float32)
    return np.asarray(part.reshape(len(part), size[0], bins[0], size[1], bins[1]).mean(axis=(2, 4)))


def grain(shape: tuple[int, ...], rng: np.random.Generator) -> Floats:
    """Draw noise of unit variance: white, or correlated between neighbors within a slice."""
    noise = rng.standard_normal((*shape[:-1], shape[-1] + 2)).astype(np.float32)
    weight = rng.uniform(0, 0.6) if rng.random() < 0.4 else 0.0
    mixed = noise[..., 1:-1] + weight * (noise[..., :-2] + noise[..., 2:])
    return np.asarray(mixed / np.sqrt(1 + 2 * weight**2), dtype=np.float32)
