"""What the network learns from: planes of good images, of which one axis is made thick.

In-plane detail of one axis teaches what lies between thick slices of another: nothing has to be
acquired twice. Each batch is made from the seed and its step alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from MedEnhanceLib.core.volume import Volume
from MedEnhanceLib.errors import InputError
from MedEnhanceLib.hqg.slices.config import TrainSlicesConfig
from MedEnhanceLib.hqg.slices.network import StackMaps
from MedEnhanceLib.hqg.slices.profile import Shape, SliceStack
from MedEnhanceLib.io import load
from MedEnhanceLib.nets.intensity import TISSUE, scaling_for
from MedEnhanceLib.runtime.progress import Monitor

Floats = npt.NDArray[np.float32]
#: Averaged pixels along both axes of a plane, and how often: smaller, cleaner structures, and
#: pixels that are not square.
_BINS = ((1, 1), (1, 1), (1, 1), (1, 1), (2, 2), (2, 1), (1, 2), (3, 3))
#: Planes beside one that are looked at with it: the next, or one farther away.
_STEPS = (1, 1, 1, 2, 3)
#: Most noise that is added, standard deviation on the network's scale.
_NOISE = {"MR": 0.12, "CT": 0.06}
#: Share of patches to which noise is added.
_NOISY = 0.5
#: Least share of tissue in a patch, and the number of patches that are drawn to find one.
_LEAST_TISSUE, _TRIES = 0.3, 6
#: Thin slices for each thick one.
_LEAST_RATIO, MOST_RATIO = 1.5, 6.5
#: Thickness over spacing: overlapping slices above 1, gaps below.
_THICKNESS = (0.75, 1.4)


@dataclass(frozen=True)
class Planes:
    """Parallel planes of a volume on the network's scale.

    pixels: [N, H, W]. spacing_mm: along N, H, W.
    """

    pixels: npt.NDArray[np.float16]
    spacing_mm: tuple[float, float, float]


@dataclass(frozen=True)
class Patches:
    """thin: [B, M, W], to restore. slices: [B, 3, Kmax, W], thick, with the planes beside. stacks:
    of each.
    """

    thin: Tensor
    slices: Tensor
    stacks: Sequence[StackMaps]


def read_planes(files: Sequence[Path], modality: str, monitor: Monitor) -> list[Planes]:
    """All planes with fine pixels in both directions of these volumes.

    Raises InputError where there is no file, or one is of another modality.
    """
    planes: list[Planes] = []
    for number, path in enumerate(files):
        monitor.progress(number / len(files), f"reading {path.name}")
        planes += planes_of(load(path, modality=modality).frame(0))
    if not planes:
        raise InputError("no training data", "Correct the patterns in `files`.")
    return planes


def planes_of(volume: Volume) -> list[Planes]:
    """The slices of a volume; of nearly cubic voxels all three sets of planes."""
    i, j, k = volume.geometry.spacing
    scaled = scaling_for(volume).apply(volume.voxels).astype(np.float16)
    planes = [Planes(scaled, (k, j, i))]
    if volume.geometry.is_nearly_isotropic:
        planes.append(Planes(scaled.transpose(1, 0, 2), (j, k, i)))
        planes.append(Planes(scaled.transpose(2, 0, 1), (i, k, j)))
    return planes


class Sampler:
    """Draws patches and makes them thick."""

    bins: Sequence[tuple[int, int]] = _BINS

    def __init__(self, planes: Sequence[Planes], config: TrainSlicesConfig) -> None:
        self._planes, self._config = planes, config

    def batch(self, step: int) -> Patches:
        """The patches of a step."""
        config = self._config
        rng = np.random.default_rng((config.seed, step))
        thin, slices, stacks = zip(*(self._example(rng) for _ in range(config.batch)), strict=True)
        most = max(thick.shape[1] for thick in slices)
        padded = [np.pad(thick, ((0, 0), (0, most - thick.shape[1]), (0, 0))) for thick in slices]
        return Patches(
            torch.from_numpy(np.stack([planes[1] for planes in thin])),
            torch.from_numpy(np.stack(padded).astype(np.float32)),
            stacks,
        )

    def _example(self, rng: np.random.Generator) -> tuple[Floats, Floats, StackMaps]:
        thin, pixel, apart = self._patch(rng)
        stack = self.draw_stack(rng)
        slices = (stack.thicken() @ thin).astype(np.float32)
        added, known = self.draw_noise(stack, rng)
        if added:
            slices += np.float32(added) * _grain(slices.shape, rng)
        return thin, slices, StackMaps.of(stack, known, pixel, apart)

    def draw_stack(self, rng: np.random.Generator) -> SliceStack:
        """How a patch is made thick."""
        config = self._config
        ratio = float(np.exp(rng.uniform(np.log(_LEAST_RATIO), np.log(MOST_RATIO))))
        if rng.random() < 0.5:
            ratio = max(2.0, round(ratio))
        thick = max(4, round(config.rows / ratio))
        shape: Shape = "gaussian" if rng.random() < 0.6 else "box"
        overlap = 1.0 if rng.random() < 0.5 else rng.uniform(*_THICKNESS)
        return SliceStack(
            thick, config.rows / thick, overlap * config.rows / thick, config.rows, shape
        )

    def draw_noise(self, stack: SliceStack, rng: np.random.Generator) -> tuple[float, float]:
        """Standard deviation of the noise that is added, and what the network is given as it."""
        if rng.random() >= _NOISY:
            return 0.0, 0.0
        noise = float(rng.uniform(0, _NOISE[self._config.modality]))
        # The level is measured when the network is used: it does not rely on the exact one.
        return noise, noise * float(rng.uniform(0.8, 1.25))

    def _patch(self, rng: np.random.Generator) -> tuple[Floats, float, float]:
        """[3, M, W] with some tissue in it; its columns and planes, in rows."""
        config = self._config
        best: tuple[float, Floats, float, float] | None = None
        for _ in range(_TRIES):
            planes = self._planes[int(rng.integers(len(self._planes)))]
            bins = self.bins[int(rng.integers(len(self.bins)))]
            middle = int(rng.integers(len(planes.pixels)))
            step = _STEPS[rng.integers(len(_STEPS))] * int(rng.choice((-1, 1)))
            last = len(planes.pixels) - 1
            image = planes.pixels[np.clip((middle - step, middle, middle + step), 0, last)]
            apart_mm, *size_mm = planes.spacing_mm
            if rng.random() < 0.5:
                image, size_mm = image.transpose(0, 2, 1), size_mm[::-1]
            patch = _cut(image, (config.rows, config.columns), bins, rng)
            if rng.random() < 0.5:
                patch = patch[:, ::-1]
            if rng.random() < 0.5:
                patch = patch[:, :, ::-1]
            tissue = float((patch[1] > TISSUE[config.modality]).mean())
            row_mm = size_mm[0] * bins[0]
            pixel, apart = size_mm[1] * bins[1] / row_mm, abs(step) * apart_mm / row_mm
            if best is None or tissue > best[0]:
                best = (tissue, patch, pixel, apart)
            if tissue > _LEAST_TISSUE:
                break
        assert best is not None
        return np.ascontiguousarray(self.varied(best[1], rng), dtype=np.float32), *best[2:]

    def varied(self, patch: Floats, rng: np.random.Generator) -> Floats:
        """With another brightness and contrast: MR has no units."""
        if self._config.modality == "MR":
            top = float(patch.max())
            if rng.random() < 0.3 and top > 0:
                patch = top * np.power(np.maximum(patch / top, 0), rng.uniform(0.6, 1.6))
            if rng.random() < 0.15:
                patch = top - patch
            patch = patch * rng.uniform(0.7, 1.3)
        return patch


class OwnSampler(Sampler):
    """Draws patches from the thick slices that are to be restored, and thickens them likewise.

    Args:
        planes: the slices.
        config: its `rows` should be those of `like`.
        stack: the slices before and after.
        noise: standard deviation of the noise of the slices, on the network's scale.
    """

    def __init__(
        self, planes: Planes, config: TrainSlicesConfig, stack: SliceStack, noise: float
    ) -> None:
        super().__init__([planes], config)
        thick = max(4, round(config.rows / stack.ratio))
        ratio = config.rows / thick
        width = ratio * stack.thickness_mm / stack.spacing_mm
        self._stack = SliceStack(thick, ratio, width, config.rows, stack.shape)
        self._noise = noise
        pixel_mm = min(planes.spacing_mm[1:])
        self.bins = [(max(1, round(stack.thin_mm / pixel_mm)), 1)]

    @staticmethod
    def rows_for(stack: SliceStack) -> int:
        """Rows of a patch that hold about a whole number of slices."""
        choices = range(64, 105, 8)
        return min(choices, key=lambda rows: abs(rows / round(rows / stack.ratio) - stack.ratio))

    def draw_stack(self, rng: np.random.Generator) -> SliceStack:
        """The same for every patch."""
        return self._stack

    def draw_noise(self, stack: SliceStack, rng: np.random.Generator) -> tuple[float, float]:
        """What thickening has averaged away of the noise."""
        left = float(np.square(stack.thicken()).sum(axis=1).mean())
        return self._noise * float(np.sqrt(1 - min(left, 1.0))), self._noise

    def varied(self, patch: Floats, rng: np.random.Generator) -> Floats:
        """As it is: brightness and contrast are those of the volume."""
        return patch


def _cut(
    image: npt.NDArray[np.float16],
    size: tuple[int, int],
    bins: tuple[int, int],
    rng: np.random.Generator,
) -> Floats:
    """A random patch of three planes after averaging pixels; small images are mirrored."""
    need = [side * count for side, count in zip(size, bins, strict=True)]
    lacking = [max(0, side - have) for side, have in zip(need, image.shape[1:], strict=True)]
    if any(lacking):
        image = np.pad(image, [(0, 0), (0, lacking[0]), (0, lacking[1])], mode="symmetric")
    y, x = (
        int(rng.integers(have - side + 1)) for side, have in zip(need, image.shape[1:], strict=True)
    )
    part = image[:, y : y + need[0], x : x + need[1]].astype(np.float32)
    return np.asarray(part.reshape(3, size[0], bins[0], size[1], bins[1]).mean(axis=(2, 4)))


def _grain(shape: tuple[int, ...], rng: np.random.Generator) -> Floats:
    """Noise of unit variance: white, or with neighbors within a slice alike."""
    noise = rng.standard_normal((*shape[:-1], shape[-1] + 2)).astype(np.float32)
    side = rng.uniform(0, 0.6) if rng.random() < 0.4 else 0.0
    mixed = noise[..., 1:-1] + side * (noise[..., :-2] + noise[..., 2:])
    return np.asarray(mixed / np.sqrt(1 + 2 * side**2), dtype=np.float32)
