"""Training data: two pools of volumes that need not belong together, and patches from them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from MedEnhanceLib.degrade import bias_field, gaussian_blur, low_dose_noise, rician_noise
from MedEnhanceLib.errors import InputError
from MedEnhanceLib.hqg.config import TrainConfig
from MedEnhanceLib.io import load
from MedEnhanceLib.nets.intensity import scaling_for
from MedEnhanceLib.progress import Monitor

Floats = npt.NDArray[np.float32]

#: CT is trained at three pixel sizes: at one, other sizes lost up to 1.9 dB in a trial.
_CT_FACTORS = (1, 2, 3)
_CT_PHOTONS = 5e3
_CT_ELECTRONIC = 5.0
_CT_REALISATIONS = 2
#: Below this share of the patch, tissue is too little to learn from; another place is drawn.
_LEAST_TISSUE = 0.25


@dataclass(frozen=True)
class PoolVolume:
    """A volume on the network's scale; noise: CT noise at the reference dose, or nothing."""

    voxels: Floats
    isotropic: bool
    name: str
    noise: tuple[npt.NDArray[np.float16], ...] = ()


@dataclass(frozen=True)
class Batch:
    """degraded [B, C, P, P]; target, guide [B, 1, P, P]."""

    degraded: Floats
    target: Floats
    guide: Floats


class Pools:
    """High- and low-quality volumes and the seeded drawing of patches from them."""

    def __init__(
        self, config: TrainConfig, high: Sequence[PoolVolume], low: Sequence[PoolVolume]
    ) -> None:
        self._config = config
        self._high, self._low = tuple(high), tuple(low)
        kinds = config.degradations
        self._kinds = tuple(kinds)
        self._shares = np.array([kinds[kind] for kind in kinds]) / sum(kinds.values())

    @classmethod
    def load(cls, config: TrainConfig, data: Path, monitor: Monitor) -> Pools:
        """Read both pools; globs of the configuration are relative to `data`."""
        high = _find(data, config.high_quality, "high_quality")
        low = _find(data, config.low_quality, "low_quality") if config.low_quality else []
        rng = np.random.default_rng(config.seed)
        volumes: dict[bool, list[PoolVolume]] = {True: [], False: []}
        for index, path in enumerate([*high, *low]):
            monitor.progress(index / (len(high) + len(low)), f"reading {path.name}")
            is_high = index < len(high)
            volumes[is_high].extend(_prepare(path, config, rng, clean=is_high))
        return cls(config, volumes[True], volumes[False])

    @property
    def high(self) -> tuple[PoolVolume, ...]:
        """The high-quality pool."""
        return self._high

    @property
    def has_low_quality(self) -> bool:
        """Whether there are real low-quality volumes."""
        return bool(self._low)

    def cycle_batch(self, rng: np.random.Generator) -> Batch:
        """Clean patches, degraded at random strength, each with a guide from elsewhere."""
        config = self._config
        degraded, targets, guides = [], [], []
        for _ in range(config.batch):
            volume = self._high[rng.integers(len(self._high))]
            clean, noise = self._patch(volume, rng)
            guide, _ = self._patch(self._high[rng.integers(len(self._high))], rng)
            middle = clean.shape[0] // 2
            target, cue = clean[middle], guide[middle]
            kind = self._kinds[rng.choice(len(self._kinds), p=self._shares)]
            damaged, target_field = degrade_patch(clean, kind, noise, rng)
            target = target * target_field
            if rng.random() < config.appearance:
                target, cue = _same_sharpness(target, cue, rng)
            degraded.append(damaged)
            targets.append(target[None])
            guides.append(cue[None])
        return Batch(np.stack(degraded), np.stack(targets), np.stack(guides))

    def low_quality_batch(self, rng: np.random.Generator, count: int) -> Floats:
        """Real low-quality patches, [count, C, P, P]."""
        volumes = [self._low[rng.integers(len(self._low))] for _ in range(count)]
        return np.stack([self._patch(volume, rng)[0] for volume in volumes])

    def _patch(self, volume: PoolVolume, rng: np.random.Generator) -> tuple[Floats, Floats | None]:
        """A patch [C, P, P] with tissue in it, randomly flipped and turned; and its noise."""
        noise = volume.noise[rng.integers(len(volume.noise))] if volume.noise else None
        axes = tuple(rng.permutation(3)) if volume.isotropic and noise is None else (0, 1, 2)
        size = (2 * self._config.network.context + 1, self._config.patch, self._config.patch)
        stack = volume.voxels.transpose(axes)
        patch, where = _crop(stack, size, rng)
        for _ in range(4):
            if _tissue_share(patch, self._config.modality) >= _LEAST_TISSUE:
                break
            patch, where = _crop(stack, size, rng)
        turns, flip, mirror = int(rng.integers(4)), bool(rng.integers(2)), bool(rng.integers(2))
        patch = _turn(patch, turns, flip, mirror)
        if self._config.modality == "MR":
            patch = _vary_contrast(patch, rng)
        if noise is None:
            return patch, None
        return patch, _turn(_cut(noise, size, where).astype(np.float32), turns, flip, mirror)


def degrade_patch(
    clean: Floats, kind: str, noise: Floats | None, rng: np.random.Generator
) -> tuple[Floats, Floats]:
    """Damage a patch [C, P, P] at random strength.

    noise: CT noise at the reference dose on the network's scale. Returns the damaged patch and
    the bias field of its middle slice: shading stays in the target, because a patch cannot tell
    it from anatomy (it is corrected in a step of its own).
    """
    unshaded = np.ones(clean.shape[1:], np.float32)
    if kind == "clean":
        return clean, unshaded
    if kind == "low-dose":
        if noise is None:
            raise InputError("low-dose noise was not prepared for this volume", "Train for CT.")
        return clean + noise * np.float32(np.exp(rng.uniform(np.log(0.35), np.log(1.7)))), unshaded
    if kind == "rician":
        return rician_noise(clean, rng.uniform(0.01, 0.17), rng), unshaded
    if kind == "blur":
        return gaussian_blur(clean, rng.uniform(0.4, 1.5)), unshaded
    field = bias_field(clean.shape, rng.uniform(0.0, 0.4), rng, spacing_mm=(1.5, 1.5, 1.5))
    shaded = gaussian_blur(clean * field, rng.uniform(0.0, 1.2))
    return rician_noise(shaded, rng.uniform(0.01, 0.12), rng), field[clean.shape[0] // 2]


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


def _prepare(
    path: Path, config: TrainConfig, rng: np.random.Generator, *, clean: bool
) -> Iterable[PoolVolume]:
    volume = load(path, modality=config.modality)
    if volume.is_sequence:
        raise InputError(f"{path}: a sequence", "Train on single volumes.")
    voxels = scaling_for(volume).apply(volume.voxels)
    spacing = volume.geometry.spacing
    if config.modality == "MR":
        isotropic = max(spacing) / min(spacing) < 1.3
        yield PoolVolume(voxels, isotropic, path.name)
        return
    for factor in _CT_FACTORS:
        coarse = _average_in_plane(voxels, factor)
        if min(coarse.shape[1:]) < config.patch // 2:
            continue
        pixel = (spacing[0] * factor, spacing[1] * factor, spacing[2])
        noises = tuple(
            (low_dose_noise(coarse * 1000, pixel, _CT_PHOTONS, _CT_ELECTRONIC, rng) / 1000).astype(
                np.float16
            )
            for _ in range(_CT_REALISATIONS)
        )
        if clean:
            yield PoolVolume(coarse, False, path.name, noises)
        else:
            yield PoolVolume(coarse + noises[0].astype(np.float32), False, path.name)


def _average_in_plane(voxels: Floats, factor: int) -> Floats:
    if factor == 1:
        return voxels
    slices, rows, columns = (
        size - size % step for size, step in zip(voxels.shape, (1, factor, factor), strict=True)
    )
    blocks = voxels[:, :rows, :columns].reshape(
        slices, rows // factor, factor, columns // factor, factor
    )
    return np.asarray(blocks.mean(axis=(2, 4)))


def _crop(
    stack: Floats, size: tuple[int, int, int], rng: np.random.Generator
) -> tuple[Floats, tuple[int, int, int]]:
    where = tuple(
        int(rng.integers(max(have - need, 0) + 1))
        for have, need in zip(stack.shape, size, strict=True)
    )
    start: tuple[int, int, int] = (where[0], where[1], where[2])
    return _cut(stack, size, start), start


def _cut(stack: npt.NDArray[Any], size: Sequence[int], start: Sequence[int]) -> npt.NDArray[Any]:
    window = tuple(slice(first, first + need) for first, need in zip(start, size, strict=True))
    patch = stack[window]
    short = [(0, need - have) for need, have in zip(size, patch.shape, strict=True)]
    return np.pad(patch, short, mode="symmetric") if np.any(short) else patch


def _tissue_share(patch: Floats, modality: str) -> float:
    threshold = -0.5 if modality == "CT" else 0.1
    return float((patch[patch.shape[0] // 2] > threshold).mean())


def _turn(patch: Floats, turns: int, flip: bool, mirror: bool) -> Floats:
    patch = np.rot90(patch, turns, axes=(1, 2))
    if flip:
        patch = patch[:, :, ::-1]
    if mirror:
        patch = patch[::-1]
    return np.ascontiguousarray(patch)


def _vary_contrast(patch: Floats, rng: np.random.Generator) -> Floats:
    """Another gain and gamma, so that one T1 pool also prepares for other sequences."""
    gain, gamma = rng.uniform(0.75, 1.15), np.exp(rng.uniform(-0.5, 0.5))
    return (np.sign(patch) * np.abs(patch) ** np.float32(gamma) * np.float32(gain)).astype(
        np.float32
    )


def _same_sharpness(
    target: Floats, guide: Floats, rng: np.random.Generator
) -> tuple[Floats, Floats]:
    """Soften or sharpen target and guide alike: only the guide tells which was asked."""
    sigma, amount = rng.uniform(0.5, 1.0), rng.uniform(-1.0, 0.6)
    return (
        target + np.float32(amount) * (target - gaussian_blur(target, sigma)),
        guide + np.float32(amount) * (guide - gaussian_blur(guide, sigma)),
    )
