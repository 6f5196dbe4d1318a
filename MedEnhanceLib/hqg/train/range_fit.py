"""Fits the bank of the out-of-range warning (hqg/range.py) to a training's volumes.

The volumes are few, several samples are taken of each: cropped, rotated where voxels are isotropic,
with thicker slices, other pixel sizes and contrast, then degraded as in the training.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch.nn import functional as F  # noqa: N812 - the field's own short name

from MedEnhanceLib.bundles.export import export_bundle, load_tensors
from MedEnhanceLib.bundles.store import Bundle, read_bundle
from MedEnhanceLib.degrade import robust_max
from MedEnhanceLib.hqg.bundle import open_enhancer
from MedEnhanceLib.hqg.config import TrainConfig
from MedEnhanceLib.hqg.features import SLICES, Features, features_of_planes
from MedEnhanceLib.hqg.network import GuidanceEncoder
from MedEnhanceLib.hqg.range import PREFIX, RangeBank, Sample
from MedEnhanceLib.hqg.train.augment import degrade_slab, vary_contrast
from MedEnhanceLib.hqg.train.pools import Pools, PoolVolume
from MedEnhanceLib.nets.intensity import Scaling
from MedEnhanceLib.nets.slices import SliceStacks
from MedEnhanceLib.runtime.progress import Monitor

Floats = npt.NDArray[np.float32]

#: Samples of all volumes together, and the least number for a training of few steps.
_SAMPLES, _LEAST_SAMPLES = 320, 24
#: Shares of samples that are clean, and that are real low quality where there is any.
_CLEAN_SHARE, _LOW_SHARE = 0.2, 0.3
#: Share of a slice's side that a crop keeps, and its largest side in pixels.
_LEAST_CROP, _LARGEST = 0.6, 320
_SMALLEST = 48
_THICK = (1, 1, 2, 3)
_CONTRAST_SHARE, _ZOOM_SHARE, _ZOOM = 0.6, 0.4, (0.7, 1.4)


def fit_range(
    folder: Path,
    config: TrainConfig,
    data: Path,
    *,
    monitor: Monitor | None = None,
) -> Bundle:
    """Give an exported bundle its bank, replacing an earlier one.

    Args:
        folder: of the bundle.
        config: of its training.
        data: folder that the configuration's patterns are relative to.
        monitor: progress and cancelling.
    Raises:
        ModelError: the bundle cannot be read.
        InputError: data are missing.
    """
    monitor = monitor or Monitor()
    bundle = read_bundle(folder)
    guide = open_enhancer(bundle).guide
    pools = Pools.load(config, data, monitor.part(0.0, 0.5))
    bank = measure_range(pools, guide, config, monitor.part(0.5, 1.0))
    tensors = {
        name: tensor for name, tensor in load_tensors(bundle).items() if not name.startswith(PREFIX)
    }
    metadata = {name: value for name, value in bundle.metadata.items() if name != "files"}
    return export_bundle(folder, tensors | bank.tensors(), metadata | {"range": bank.to_json()})


def measure_range(
    pools: Pools, guide: GuidanceEncoder, config: TrainConfig, monitor: Monitor
) -> RangeBank:
    """The bank of a training, from its pools and its guidance encoder."""
    return RangeBank.fit(draw_samples(pools, guide, config, monitor))


def draw_samples(
    pools: Pools, guide: GuidanceEncoder, config: TrainConfig, monitor: Monitor
) -> list[Sample]:
    """The samples that the bank is fitted to; the same for the same seed."""
    count = min(_SAMPLES, max(_LEAST_SAMPLES, config.steps))
    rng = np.random.default_rng(config.seed + 3)
    shares = np.array([*config.degradations.values()]) / sum(config.degradations.values())
    groups = {True: _by_name(pools.high), False: _by_name(pools.low)}
    samples = []
    for number in range(count):
        monitor.progress(number / count, "measuring the range of inputs")
        # Exact shares instead of random ones, so that a rare kind is not missing.
        place = number / count
        is_low = place >= 1 - _LOW_SHARE and bool(groups[False])
        kind = (
            "clean" if place < _CLEAN_SHARE else str(rng.choice([*config.degradations], p=shares))
        )
        names = [*groups[not is_low]]
        name = names[number % len(names)]
        versions = groups[not is_low][name]
        volume = versions[int(rng.integers(len(versions)))]
        features = _draw(volume, "clean" if is_low else kind, guide, config.modality, rng)
        samples.append(Sample(name, "" if is_low else kind, features))
    return samples


def _by_name(volumes: Sequence[PoolVolume]) -> dict[str, list[PoolVolume]]:
    """The versions of each volume (at several voxel sizes) by its name."""
    groups: dict[str, list[PoolVolume]] = {}
    for volume in volumes:
        groups.setdefault(volume.name, []).append(volume)
    return groups


def _draw(
    volume: PoolVolume, kind: str, guide: GuidanceEncoder, modality: str, rng: np.random.Generator
) -> Features:
    """Features of random slices of a volume, degraded as a scanner might."""
    is_mr = modality == "MR"
    free = volume.isotropic and not volume.noise
    axes = tuple(rng.permutation(3)) if free else (0, 1, 2)
    # With its own noise, as users' volumes have: the limit of a clean volume depends on it.
    voxels = volume.voxels if volume.raw is None else volume.raw
    stack, where = _cropped(voxels.transpose(axes), rng)
    slab, chosen = _pairs(stack, int(rng.choice(_THICK)) if free else 1)
    noise = None
    if volume.noise:
        realization = volume.noise[int(rng.integers(len(volume.noise)))]
        noise = realization[:, where[0], where[1]][chosen].astype(np.float32)
    if is_mr and rng.random() < _CONTRAST_SHARE:
        slab = vary_contrast(slab, rng)
    if is_mr and rng.random() < _ZOOM_SHARE:
        slab = _zoomed(slab, float(np.exp(rng.uniform(*np.log(_ZOOM)))))
    slab = degrade_slab(np.ascontiguousarray(slab), kind, noise, rng).image
    if is_mr:
        # The robust maximum becomes 1, as for every volume.
        slab = slab / np.float32(robust_max(slab))
    slab = np.ascontiguousarray(slab, dtype=np.float32)
    return features_of_planes(slab[0::2], slab[1::2], guide, modality)


def _cropped(stack: Floats, rng: np.random.Generator) -> tuple[Floats, tuple[slice, slice]]:
    sides = []
    for have in stack.shape[1:]:
        size = min(int(have * rng.uniform(_LEAST_CROP, 1)), _LARGEST)
        size = min(max(size, _SMALLEST), have)
        first = int(rng.integers(have - size + 1))
        sides.append(slice(first, first + size))
    return stack[:, sides[0], sides[1]], (sides[0], sides[1])


def _pairs(stack: Floats, thick: int) -> tuple[Floats, npt.NDArray[np.intp]]:
    """Informative slices, each followed by its neighbor, [2N, H, W], and their indices.

    Each slice is the mean of `thick` slices; the indices are valid for `thick` of 1.
    """
    chosen = SliceStacks(stack, Scaling(0.0, 1.0), context=0).informative(SLICES)
    first = np.clip(chosen, 0, max(len(stack) - 2 * thick, 0))
    wanted = np.minimum(first[:, None] + np.arange(2 * thick), len(stack) - 1)
    slab = stack[wanted].reshape(2 * len(first), thick, *stack.shape[1:]).mean(axis=1)
    return slab.astype(np.float32), wanted.reshape(-1)


def _zoomed(slab: Floats, factor: float) -> Floats:
    images: Any = torch.from_numpy(np.ascontiguousarray(slab))[:, None]
    zoomed: Floats = F.interpolate(images, scale_factor=factor, mode="bilinear", antialias=True)[
        :, 0
    ].numpy()
    return zoomed
