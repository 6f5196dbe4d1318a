"""Training data: two unpaired pools of volumes, slabs drawn from them, batches of each step.

A batch is made from the seed and its step alone. It is the same in this process, in another one,
and after the training was stopped and resumed.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from MedEnhanceLib.degrade import low_dose_noise
from MedEnhanceLib.degrade.lowdose import CUTOFF
from MedEnhanceLib.errors import InputError
from MedEnhanceLib.hqg.config import TrainConfig
from MedEnhanceLib.hqg.train.augment import (
    Degradations,
    Example,
    plant_spots,
    turn,
    vary_contrast,
    without_noise,
)
from MedEnhanceLib.io import load
from MedEnhanceLib.nets.intensity import TISSUE, scaling_for
from MedEnhanceLib.runtime.machine import cpu_threads
from MedEnhanceLib.runtime.progress import Monitor, attend

Floats = npt.NDArray[np.float32]
#: Factors of the voxel size at which a volume is learned from: with one size alone, others lost up
#: to 1.9 dB. Coarser volumes are also cleaner than the scan. CT only in plane: slices are thick.
_FACTORS = {"MR": (1.0, 1.45), "CT": (1.0, 2.0, 3.0)}
_CT_PHOTONS = 5e3
_CT_ELECTRONIC = 5.0
#: Hann windows of simulated CT noise: kernels differ between scanners.
_CT_CUTOFFS = (CUTOFF, CUTOFF, 1.2)
#: Least share of tissue in most slabs, and in the others: air is learned quickly. In MR only half
#: of the slabs are full of tissue, as noise differs in air and both meet at the rim of the head.
_LEAST_TISSUE, _SOME_TISSUE = 0.8, 0.1
_FULL_SHARE = {"MR": 0.5, "CT": 0.8}
#: Share of slabs of isotropic volumes that become thick slices, and thin slices in each of them.
_THICK_SHARE, _THICK = 0.2, (2, 3)
_MOST_WORKERS, _AHEAD = 12, 4


@dataclass(frozen=True)
class PoolVolume:
    """A volume that is learned from.

    Attributes:
        voxels: [K, J, I] on the network's scale.
        isotropic: whether it may be turned to any axis.
        name: folder and file.
        noise: realizations of CT noise at the reference dose, [K, J, I]; empty for MR.
        raw: before its own noise was removed; None where it was not.
    """

    voxels: Floats
    isotropic: bool
    name: str
    noise: tuple[npt.NDArray[np.float16], ...] = ()
    raw: Floats | None = None


class Batch(NamedTuple):
    """What one step learns from.

    Attributes:
        degraded: [B, D, P, P], on the network's scale, as are all images.
        target: [B, D, P, P].
        guide: [B, 1, P, P].
        low: real low-quality slabs [b, D, P, P], or None.
    """

    degraded: Tensor
    target: Tensor
    guide: Tensor
    low: Tensor | None = None

    @classmethod
    def of(cls, examples: Sequence[Example]) -> Batch:
        """Single slabs, stacked."""
        images = (np.stack(part) for part in zip(*examples, strict=True))
        return cls(*map(torch.from_numpy, images))

    def to(self, device: str) -> Batch:
        """The same on a device."""
        return Batch(
            *(None if part is None else part.to(device, non_blocking=True) for part in self)  # type: ignore[arg-type]
        )

    def joined(self, other: Batch) -> Batch:
        """The clean slabs of both batches, the other's last; the real slabs of this one."""
        pairs = zip(self[:3], other[:3], strict=True)
        return Batch(*map(torch.cat, pairs))._replace(low=self.low)


class Pools:
    """High- and low-quality volumes, and seeded random slabs from them."""

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
        self.high, self.low = tuple(high), tuple(low)
        self._degradations = Degradations(config)

    @classmethod
    def load(cls, config: TrainConfig, data: Path, monitor: Monitor) -> Pools:
        """Read both pools; the patterns of the configuration are relative to `data`."""
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

    def cycle_batch(self, rng: np.random.Generator) -> Batch:
        """Clean slabs, degraded at random strength, each with a guide from elsewhere."""
        config = self._config
        examples = []
        for _ in range(config.batch):
            clean, noise = self._slab(self.high, rng)
            clean = plant_spots(clean, config.modality, rng)
            guide, _ = self._slab(self.high, rng, depth=1)
            examples.append(self._degradations.apply(clean, noise, guide, rng))
        return Batch.of(examples)

    def low_quality_batch(self, rng: np.random.Generator, count: int) -> Tensor:
        """Real low-quality slabs, [count, D, P, P]."""
        return torch.from_numpy(np.stack([self._slab(self.low, rng)[0] for _ in range(count)]))

    def _slab(
        self, pool: Sequence[PoolVolume], rng: np.random.Generator, depth: int | None = None
    ) -> tuple[Floats, Floats | None]:
        """A slab [D, P, P] with tissue in it, randomly flipped and rotated; and its noise."""
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
    """A volume at all voxel sizes of the training; MR of low quality at its own only."""
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
    """Random first index of a part of that size; 0 along an axis that is shorter."""
    return tuple(
        int(rng.integers(max(have - need, 0) + 1)) for have, need in zip(shape, size, strict=True)
    )


def cut(stack: npt.NDArray[Any], size: Sequence[int], start: Sequence[int]) -> npt.NDArray[Any]:
    """The part of that size from `start`, mirrored beyond the end of the stack."""
    window = tuple(slice(first, first + need) for first, need in zip(start, size, strict=True))
    patch = stack[window]
    short = [(0, need - have) for need, have in zip(size, patch.shape, strict=True)]
    return np.pad(patch, short, mode="symmetric") if np.any(short) else patch


def _tissue_share(slab: Floats, modality: str) -> float:
    return float((slab[slab.shape[0] // 2] > TISSUE[modality]).mean())


class Batches(Dataset[Batch]):
    """The batch of each step by its number; each process (rank) has its own."""

    def __init__(self, pools: Pools, config: TrainConfig, rank: int = 0) -> None:
        self._pools, self._config, self._rank = pools, config, rank

    def __len__(self) -> int:
        return self._config.steps

    def __getitem__(self, number: int) -> Batch:
        rng = step_generator(self._config.seed, number, self._rank)
        batch = self._pools.cycle_batch(rng)
        if self._pools.low and is_unpaired(self._config, number):
            count = max(1, self._config.batch // 2)
            batch = batch._replace(low=self._pools.low_quality_batch(rng, count))
        return batch

    def starting(self, start: int, *, workers: int, pin: bool) -> Iterator[Batch]:
        """The batches from `start`, prepared ahead by `workers` processes.

        pin: in page-locked memory, from which a GPU copies while it computes.
        """
        if workers == 0:
            return (self[number] for number in range(start, len(self)))
        loader: DataLoader[Batch] = DataLoader(
            self,
            batch_size=None,
            sampler=range(start, len(self)),
            num_workers=workers,
            prefetch_factor=_AHEAD,
            pin_memory=pin,
            worker_init_fn=_leave_signals_to_the_parent,
        )
        return iter(loader)


def is_unpaired(config: TrainConfig, number: int) -> bool:
    """Whether step `number` uses real low-quality slabs, where there are any."""
    late = number >= config.loss.adversarial_start * config.steps
    return late and number % config.unpaired_every == 0


def step_generator(seed: int, number: int, rank: int, purpose: int = 0) -> np.random.Generator:
    """The random numbers of one step in one process; each purpose has its own."""
    return np.random.default_rng((seed + 1, number, rank, purpose))


def worker_count(requested: int | None, device: str) -> int:
    """Number of processes that prepare batches: as requested, or what suits the device.

    None on a CPU, where a batch takes about 1 % of its step, nor on systems that would copy the
    volumes into each process.
    """
    if requested is not None:
        return requested
    if device == "cpu" or sys.platform != "linux":
        return 0
    processes = int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
    return max(1, min(_MOST_WORKERS, cpu_threads() // processes - 1))


def _leave_signals_to_the_parent(_: int) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
