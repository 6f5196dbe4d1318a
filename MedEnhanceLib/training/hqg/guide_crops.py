"""Guides for training: right ones, and ones with all faults that guides may have in use.

A network trained with right guides alone trusts wrong ones too. So some are misplaced, of another
patient, mirrored, noisy, of other contrast, or show a lesion that is not in the volume.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from MedEnhanceLib.core.arrays import Doubles, Floats, Mask, Where, interpolated
from MedEnhanceLib.learning.intensity import TISSUE
from MedEnhanceLib.training.hqg.targets import Target

# Chosen in trials (decision 0047); no table isolates them. Measured by Benchmarks/guidance.py.
#: Shares of guides that are right and misplaced; the rest is wrong.
_RIGHT, _MISPLACED = 0.67, 0.19
#: Share of right ones that are slightly shifted, and shifts of these and of misplaced ones, voxels.
_JITTERED, _JITTER, _SHIFT = 0.4, 0.25, (0.3, 6.0)
#: Share of wrong ones that are mirrored; the rest is of another patient.
_MIRRORED = 0.4
#: Shares of guides with other gray values, inverted, and noisy.
_GAMMA, _INVERTED, _NOISY = 0.4, 0.3, 0.25
#: Shares of crops with a lesion in the guide alone, and in both.
_IN_GUIDE, _PLANTED = 0.35, 0.6
#: Share of the crops of the last stage that come with and without a lesion.
_PAIRED = 0.45
#: Radius of lesions in voxels, and their contrast as a share of the range.
_RADIUS, _CONTRAST = (1.3, 5.0), (0.05, 0.4)


@dataclass(frozen=True, eq=False)
class Guiding:
    """A guide, and a lesion that it or the volume has.

    Attributes:
        voxels: [K, J, I], NaN where it shows nothing.
        is_right: whether it shows the same anatomy at the same place.
        lesion: [K, J, I], contrast of a lesion that the guide or the volume has alone, of crops
            that come with and without it; None of others.
        with_lesion: the guide with that lesion; None where the volume has it.
    """

    voxels: Tensor
    is_right: bool
    lesion: Tensor | None = None
    with_lesion: Tensor | None = None


def draw_guide(
    targets: Sequence[Target],
    target: Target,
    where: Where,
    clean: Floats,
    rng: np.random.Generator,
    *,
    in_pairs: bool,
) -> tuple[Guiding, Floats]:
    """Draw a guide for a crop of one series of an examination.

    Args:
        targets: all examinations.
        target: the examination.
        where: the place of the crop.
        clean: the crop of the first series, which is made noisy later.
        rng: of all draws.
        in_pairs: whether some crops come in pairs, with and without a lesion.
    Returns the guide, and the crop, with a lesion if the input has one.
    """
    series = target.series[int(rng.integers(1, len(target.series)))]
    kind = rng.random()
    is_right = kind < _RIGHT
    if is_right:
        shift = rng.uniform(-_JITTER, _JITTER, 3)
        guide = _moved(series, where, shift) if rng.random() < _JITTERED else series[where]
    elif kind < _RIGHT + _MISPLACED:
        direction = rng.standard_normal(3)
        length = np.exp(rng.uniform(*np.log(_SHIFT)))
        guide = _moved(series, where, direction / np.linalg.norm(direction) * length)
    else:
        guide = _wrong(targets, target, series, where, rng)
    tissue = clean > TISSUE["MR"]
    lesion, gain = _lesion(tissue, rng), np.float32(rng.uniform(0.5, 1.5))
    if in_pairs and rng.random() < _PAIRED:
        contrast = torch.from_numpy(lesion)
        if rng.random() < 0.5:
            alone, with_lesion = _changed(rng, guide, guide + gain * lesion)
            return Guiding(alone, is_right, contrast, with_lesion), clean
        (alone,) = _changed(rng, guide)
        return Guiding(alone, is_right, contrast), np.maximum(clean + lesion, 0)
    if not in_pairs and rng.random() < _PLANTED:
        clean = np.maximum(clean + lesion, 0)
        guide = guide + lesion * (gain if rng.random() < 0.5 else -gain)
    if rng.random() < _IN_GUIDE:
        guide = guide + _lesion(tissue, rng)
    (alone,) = _changed(rng, guide)
    return Guiding(alone, is_right), clean


def _wrong(
    targets: Sequence[Target],
    target: Target,
    series: Floats,
    where: Where,
    rng: np.random.Generator,
) -> Floats:
    """Draw a mirrored guide, or one of another patient at the same place (repeated if small)."""
    others = [other for other in targets if other.name != target.name]
    if not others or rng.random() < _MIRRORED:
        return series[..., ::-1][where]
    other = others[int(rng.integers(len(others)))]
    shown = other.series[int(rng.integers(len(other.series)))]
    for axis, side in enumerate(where):
        shown = shown.take(range(*side.indices(series.shape[axis])), axis, mode="wrap")
    return shown


def _changed(rng: np.random.Generator, *guides: Floats) -> tuple[Tensor, ...]:
    """Change gray values and add noise, in the same way for all guides."""
    gamma = np.float32(np.exp(rng.uniform(-0.5, 0.5)) if rng.random() < _GAMMA else 1)
    is_inverted = rng.random() < _INVERTED
    gain = np.float32(rng.uniform(0.7, 1.4))
    noise = np.float32(rng.uniform(0.01, 0.08) if rng.random() < _NOISY else 0)
    added = noise * rng.standard_normal(guides[0].shape, np.float32)
    changed = []
    for guide in guides:
        values = np.sign(guide) * np.abs(guide) ** gamma
        values = gain * (1 - values if is_inverted else values) + added
        changed.append(torch.from_numpy(np.ascontiguousarray(values, np.float32)))
    return tuple(changed)


def _moved(voxels: Floats, where: Where, shift: Doubles) -> Floats:
    """Interpolate a crop linearly at a place shifted by `shift` voxels."""
    sides = zip(where, voxels.shape, shift, strict=True)
    places = [np.arange(*side.indices(count)) + step for side, count, step in sides]
    return interpolated(voxels, places)


def _lesion(tissue: Mask, rng: np.random.Generator) -> Floats:
    """Draw one to three spheres of either sign in tissue, with soft edges."""
    places = np.argwhere(tissue) if tissue.any() else np.argwhere(np.ones_like(tissue))
    k, j, i = np.ogrid[tuple(map(slice, tissue.shape))]
    total = np.zeros(tissue.shape, np.float32)
    for _ in range(int(rng.integers(1, 4))):
        center, radius = places[rng.integers(len(places))], rng.uniform(*_RADIUS)
        distance = np.sqrt((k - center[0]) ** 2 + (j - center[1]) ** 2 + (i - center[2]) ** 2)
        value = rng.uniform(*_CONTRAST) * rng.choice([-1, 1])
        total += (value * np.clip(radius + 0.5 - distance, 0, 1)).astype(np.float32)
    return total
