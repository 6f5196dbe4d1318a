"""Training data: two pools of volumes that need not belong together, and slabs from them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from MedEnhanceLib.degrade import low_dose_noise
from MedEnhanceLib.degrade.lowdose import CUTOFF
from MedEnhanceLib.errors import InputError
from MedEnhanceLib.hqg.augment import Damages, Lesson, plant_spots, turn, vary_contrast
from MedEnhanceLib.hqg.config import TrainConfig
from MedEnhanceLib.io import load
from MedEnhanceLib.nets.intensity import TISSUE, scaling_for
from MedEnhanceLib.runtime.progress import Monitor, attend

Floats = npt.NDArray[np.float32]

#: Volumes are trained at several voxel sizes: at one, others lost up to 1.9 dB in a trial. Coarser
#: ones are also cleaner than what the scanner gave. CT only in plane: its slices are thick.
_FACTORS = {"MR": (1.0, 1.45), "CT": (1.0, 2.0, 3.0)}
_CT_PHOTONS = 5e3
_CT_ELECTRONIC = 5.0
#: Hann windows of the realisations of CT noise: kernels differ between scanners.
_CT_CUTOFFS = (CUTOFF, CUTOFF, 1.2)
#: Many slabs show little but tissue, the others some: air is soon learned. In MR half of them,
#: because noise is another one in air, and at the rim of the head a network has to know both.
_LEAST_TISSUE, _SOME_TISSUE = 0.8, 0.1
_FULL_SHARE = {"MR": 0.5, "CT": 0.8}
#: Share of slabs of isotropic volumes that become thick slices, and of how many thin ones each.
_THICK_SHARE, _THICK = 0.2, (2, 3)


@dataclass(frozen=True)
class PoolVolume:
    """A volume on the network's scale; noise: CT noise at the reference dose, or nothing.

    raw: as it was before its own noise was removed, where it was.
    """

    voxels: Floats
    isotropic: bool
    name: str
    noise: tuple[npt.NDArray[np.float16], ...] = ()
    raw: Floats | None = None


@dataclass(frozen=True)
class Batch:
    """degraded, target: [B, D, P, P]; guide: [B, 1, P, P]; deblur: [B], 1 where it is asked."""

    degraded: Floats
    target: Floats
    guide: Floats
    deblur: Floats

    @classmethod
    def of(cls, lessons: Sequence[Lesson]) -> Batch:
        """Slabs one by one, put together."""
        degraded, target, guide, deblur = (np.stack(part) for part in zip(*lessons, strict=True))
        return cls(degraded, target, guide, deblur.astype(np.float32))


class Pools:
    """High- and low-quality volumes and the seeded drawing of slabs from them."""

    def __init__(
        self,
        config: TrainConfig,
        high: Sequence[PoolVolume],
        low: Sequence[PoolVolume],
        held_out: Sequence[PoolVolume] = (),
        held_out_files: Sequence[Path] = (),
    ) -> None:
        self._config = config
        self.held_out, self.held_out_files = tuple(held_out), tuple(held_out_files)
        self._high, self._low = tuple(high), tuple(low)
        self._damages = Damages(config)

    @classmethod
    def load(cls, config: TrainConfig, data: Path, monitor: Monitor) -> Pools:
        """Read both pools; globs of the configuration are relative to `data`."""
        high = _find(data, config.high_quality, "high_quality")
        low = _find(data, config.low_quality, "low_quality") if config.low_quality else []
        rng = np.random.default_rng(config.seed)
        if config.held_out >= len(high):
            raise InputError(
                f"{len(high)} high-quality volumes, of which {config.held_out} are held out",
                "Hold out fewer (held_out), or add volumes.",
            )
        learned_from = len(high) - config.held_out
        volumes: dict[str, list[PoolVolume]] = {"learn": [], "hold out": [], "low": []}
        for index, path in enumerate([*high, *low]):
            monitor.progress(index / (len(high) + len(low)), f"reading {path.name}")
            is_high = index < len(high)
            use = "low" if not is_high else "learn" if index < learned_from else "hold out"
            volumes[use].extend(prepared(path, config, rng, clean=is_high, monitor=monitor))
        held_out = volumes["hold out"], high[learned_from:]
        return cls(config, volumes["learn"], volumes["low"], *held_out)

    @property
    def high(self) -> tuple[PoolVolume, ...]:
        """The high-quality pool."""
        return self._high

    @property
    def low(self) -> tuple[PoolVolume, ...]:
        """The low-quality pool."""
        return self._low

    @property
    def has_low_quality(self) -> bool:
        """Whether there are real low-quality volumes."""
        return bool(self._low)

    def cycle_batch(self, rng: np.random.Generator) -> Batch:
        """Clean slabs, degraded at random strength, each with a guide from elsewhere."""
        config = self._config
        lessons = []
        for _ in range(config.batch):
            clean, noise = self._slab(self._high, rng)
            clean = plant_spots(clean, config.modality, rng)
            guide, _ = self._slab(self._high, rng, depth=1)
            lessons.append(self._damages.apply(clean, noise, guide, rng))
        return Batch.of(lessons)

    def low_quality_batch(self, rng: np.random.Generator, count: int) -> Floats:
        """Real low-quality slabs, [count, D, P, P]."""
        return np.stack([self._slab(self._low, rng)[0] for _ in range(count)])

    def _slab(
        self, pool: Sequence[PoolVolume], rng: np.random.Generator, depth: int | None = None
    ) -> tuple[Floats, Floats | None]:
        """A slab [D, P, P] with tissue in it, randomly flipped and turned; and its noise."""
        config = self._config
        volume = pool[int(rng.integers(len(pool)))]
        noise = volume.noise[rng.integers(len(volume.noise))] if volume.noise else None
        free = volume.isotropic and noise is None
        stack = volume.voxels.transpose(tuple(rng.permutation(3)) if free else (0, 1, 2))
        thick = int(rng.choice(_THICK)) if free and rng.random() < _THICK_SHARE else 1
        depth = depth or config.slab
        size = (depth * thick, config.patch, config.patch)
        least = _LEAST_TISSUE if rng.random() < _FULL_SHARE[config.modality] else _SOME_TISSUE
        for _ in range(10):
            start = random_place(stack.shape, size, rng)
            slab = cut(stack, size, start)
            if _tissue_share(slab, config.modality) >= least:
                break
        if thick > 1:
            slab = slab.reshape(depth, thick, config.patch, config.patch).mean(axis=1)
        turns, flips = int(rng.integers(4)), (bool(rng.integers(2)), bool(rng.integers(2)))
        slab = turn(slab, turns, flips)
        if config.modality == "MR":
            slab = vary_contrast(slab, rng)
        return slab, None if noise is None else turn(cut(noise, size, start), turns, flips)


def _find(data: Path, patterns: Sequence[str], field: str) -> list[Path]:
    paths: list[Path] = []
    for pattern in patterns:
        found = sorted(path for path in data.glob(pattern) if not path.name.startswith("."))
        if not found:
            raise InputError(
                f"{data}: nothing matches {pattern!r} ({field})",
                "Put volumes there, or state other patterns in the configuration.",
            )
        paths.extend(found)
    return paths


def prepared(
    path: Path,
    config: TrainConfig,
    rng: np.random.Generator,
    *,
    clean: bool,
    monitor: Monitor,
) -> Iterable[PoolVolume]:
    """A volume at the voxel sizes that it is trained at; of low quality, only as it is."""
    from MedEnhanceLib.hqg.targets import without_noise

    name = f"{path.parent.name}/{path.name}"  # files of several subjects are all called T1
    volume = load(path, modality=config.modality)
    if volume.is_sequence:
        raise InputError(f"{path}: a sequence", "Train on single volumes.")
    voxels = scaling_for(volume).apply(volume.voxels)
    spacing = volume.geometry.spacing
    isotropic = config.modality == "MR" and volume.geometry.is_nearly_isotropic
    for factor in _FACTORS[config.modality]:
        if factor > 1 and not (clean or config.modality == "CT"):
            continue
        coarse = _coarser(voxels, factor, through=isotropic)
        if factor > 1 and min(coarse.shape[1:]) < config.patch // 2:
            continue
        if config.modality == "MR":
            quiet = coarse
            if clean and config.denoise:
                quiet = attend(partial(without_noise, coarse, None), monitor)
            yield PoolVolume(quiet, isotropic, name, raw=None if quiet is coarse else coarse)
            continue
        pixel = (spacing[0] * factor, spacing[1] * factor, spacing[2])
        cutoffs = _CT_CUTOFFS if clean else _CT_CUTOFFS[:1]
        noises = tuple(_reference_noise(coarse, pixel, cutoff, rng) for cutoff in cutoffs)
        if clean:
            quiet = coarse
            if config.denoise:
                quiet = attend(partial(without_noise, coarse, noises[0]), monitor)
            raw = None if quiet is coarse else coarse
            yield PoolVolume(quiet, False, name, noises, raw)
        else:
            yield PoolVolume(coarse + noises[0].astype(np.float32), False, name)


def _reference_noise(
    voxels: Floats, spacing: tuple[float, float, float], cutoff: float, rng: np.random.Generator
) -> npt.NDArray[np.float16]:
    noise = low_dose_noise(voxels * 1000, spacing, _CT_PHOTONS, _CT_ELECTRONIC, rng, cutoff=cutoff)
    return (noise / 1000).astype(np.float16)


def _coarser(voxels: Floats, factor: float, *, through: bool) -> Floats:
    """Averages of `factor` pixels along rows and columns, and slices where `through`."""
    if factor == 1:
        return voxels
    import torch
    from torch.nn.functional import adaptive_avg_pool3d

    slices, rows, columns = voxels.shape
    size = (int(slices / factor) if through else slices, int(rows / factor), int(columns / factor))
    smaller = adaptive_avg_pool3d(torch.from_numpy(voxels)[None], size)[0]
    return np.ascontiguousarray(smaller.numpy())


def random_place(
    shape: Sequence[int], size: Sequence[int], rng: np.random.Generator
) -> tuple[int, ...]:
    """Where a part of that size begins, at random; 0 along an axis that is shorter."""
    return tuple(
        int(rng.integers(max(have - need, 0) + 1)) for have, need in zip(shape, size, strict=True)
    )


def cut(stack: npt.NDArray[Any], size: Sequence[int], start: Sequence[int]) -> npt.NDArray[Any]:
    """The part of that size from `start` on; mirrored where the stack ends before."""
    window = tuple(slice(first, first + need) for first, need in zip(start, size, strict=True))
    patch = stack[window]
    short = [(0, need - have) for need, have in zip(size, patch.shape, strict=True)]
    return np.pad(patch, short, mode="symmetric") if np.any(short) else patch


def _tissue_share(slab: Floats, modality: str) -> float:
    return float((slab[slab.shape[0] // 2] > TISSUE[modality]).mean())
