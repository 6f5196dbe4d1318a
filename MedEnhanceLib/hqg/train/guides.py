"""Guides of a training: right ones, and all that a guide in use may be instead.

A network that saw right guides alone trusts wrong ones as well. So some are misplaced, of another
patient, mirrored, noisy, of other contrast, or show a lesion that is not in the volume.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from MedEnhanceLib.hqg.train.targets import Target

Floats = npt.NDArray[np.float32]
Where = tuple[slice, slice, slice]
#: Shares of guides that are right and misplaced; the rest is wrong.
_RIGHT, _MISPLACED = 0.67, 0.19
#: Voxels by which a right one may be off, and a misplaced one is.
_JITTER, _OFF = 0.25, (0.3, 6.0)
#: Shares of guides with other gray values, inverted, noisy, blurred, right in one half alone.
_GAMMA, _INVERTED, _NOISY, _BLURRED, _HALF = 0.4, 0.3, 0.25, 0.2, 0.08
#: Shares of crops with a lesion in the guide alone, and in both.
_IN_GUIDE, _PLANTED = 0.35, 0.6
#: Share of the crops of the last stage that come with and without a lesion.
_PAIRED = 0.45
#: Radius of lesions in voxels, and their contrast as a share of the range.
_RADIUS, _CONTRAST = (1.3, 5.0), (0.05, 0.4)


@dataclass(frozen=True, eq=False)
class GuidePair:
    """A guide, and the same with a lesion.

    Attributes:
        voxels: [K, J, I], NaN where it shows nothing.
        with_lesion: the same with a lesion that the volume does not have; None without.
        is_right: whether it shows the same anatomy at the same place.
    """

    voxels: Tensor
    with_lesion: Tensor | None
    is_right: bool


def draw_guide(
    targets: Sequence[Target],
    target: Target,
    where: Where,
    clean: Floats,
    tissue: npt.NDArray[np.bool_],
    rng: np.random.Generator,
    *,
    lesions: bool,
) -> tuple[GuidePair, Tensor | None, Floats | None]:
    """A guide for a crop of one series of an examination.

    Args:
        targets: all examinations, for wrong guides.
        target: the examination.
        where: the crop.
        clean: the crop of the series that is made noisy.
        tissue: where it shows tissue.
        rng: of this crop.
        lesions: whether lesions come in pairs of crops, with and without.
    Returns:
        the guide; the lesion, [K, J, I]; the crop with a lesion, where the input has one.
    """
    series = target.series[int(rng.integers(1, len(target.series)))]
    kind = rng.random()
    guide = _right(series, where, rng)
    is_right = kind < _RIGHT
    if not is_right:
        bad = (
            _misplaced(series, where, rng)
            if kind < _RIGHT + _MISPLACED
            else _wrong(targets, target, series, where, rng)
        )
        guide = _half(guide, bad, rng) if rng.random() < _HALF else bad
    lesion = _lesion(tissue, rng)
    if lesions and rng.random() < _PAIRED:
        if rng.random() < 0.5:
            seen = guide + lesion * np.float32(rng.uniform(0.5, 2.0))
            changed, with_lesion = _changed(rng, guide, seen)
            return GuidePair(changed, with_lesion, is_right), torch.from_numpy(lesion), None
        (changed,) = _changed(rng, guide)
        planted = np.maximum(clean + lesion, 0)
        return GuidePair(changed, None, is_right), torch.from_numpy(lesion), planted
    planted_clean: Floats | None = None
    if not lesions and rng.random() < _PLANTED:
        planted_clean = np.maximum(clean + lesion, 0)
        guide = guide + lesion * np.float32(rng.uniform(-1.5, 1.5))
    if rng.random() < _IN_GUIDE:
        guide = guide + _lesion(tissue, rng)
    (changed,) = _changed(rng, guide)
    return GuidePair(changed, None, is_right), None, planted_clean


def _right(series: Floats, where: Where, rng: np.random.Generator) -> Floats:
    if rng.random() < 1 / 3:
        return _moved(series, where, rng.uniform(-_JITTER, _JITTER, 3))
    if rng.random() < _BLURRED:
        # As an interpolation half a voxel off blurs, but in place.
        k, j, i = (slice(0, side) for side in series.shape)
        half = np.full(3, 0.5)
        return _moved(_moved(series, (k, j, i), half), where, -half)
    return series[where]


def _misplaced(series: Floats, where: Where, rng: np.random.Generator) -> Floats:
    direction = rng.standard_normal(3)
    length = np.exp(rng.uniform(*np.log(_OFF)))
    return _moved(series, where, direction / np.linalg.norm(direction) * length)


def _wrong(
    targets: Sequence[Target],
    target: Target,
    series: Floats,
    where: Where,
    rng: np.random.Generator,
) -> Floats:
    """Of another patient at the same place of an atlas, mirrored, or of any place."""
    kind = rng.random()
    alike = [
        shown
        for other in targets
        for shown in other.series
        if shown.shape == series.shape and other.name != target.name
    ]
    if kind < 0.4 and alike:
        return alike[rng.integers(len(alike))][where]
    if kind < 0.7:
        return series[..., ::-1][where]
    other = targets[int(rng.integers(len(targets)))]
    shown = other.series[int(rng.integers(len(other.series)))]
    for axis, side in enumerate(series[where].shape):
        first = int(rng.integers(max(1, shown.shape[axis] - side + 1)))
        shown = shown.take(range(first, first + side), axis, mode="wrap")
    return shown


def _half(right: Floats, bad: Floats, rng: np.random.Generator) -> Floats:
    """Right in the first half along some axis, bad in the other."""
    axis = int(rng.integers(3))
    middle = right.shape[axis] // 2
    halves = [np.split(guide, [middle], axis)[at] for at, guide in enumerate((right, bad))]
    return np.concatenate(halves, axis)


def _changed(rng: np.random.Generator, *guides: Floats) -> tuple[Tensor, ...]:
    """Other gray values and noise, the same for all of them."""
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


def _moved(voxels: Floats, where: Where, shift: npt.NDArray[np.float64]) -> Floats:
    """A crop at a place that is off by a shift in voxels, linearly interpolated."""
    result = voxels
    for axis, (side, off) in enumerate(zip(where, shift, strict=True)):
        count = voxels.shape[axis]
        places = np.arange(*side.indices(count)) + off
        low = np.floor(places).astype(int)
        share = np.expand_dims(
            (places - low).astype(np.float32), [a for a in range(3) if a != axis]
        )
        below = result.take(low, axis, mode="clip")
        result = below + share * (result.take(low + 1, axis, mode="clip") - below)
    return result


def _lesion(tissue: npt.NDArray[np.bool_], rng: np.random.Generator) -> Floats:
    """One to three spheres of either sign in tissue, with soft edges."""
    places = np.flatnonzero(tissue) if tissue.any() else np.arange(tissue.size)
    total = np.zeros(tissue.shape, np.float32)
    for _ in range(int(rng.integers(1, 4))):
        center = np.unravel_index(places[rng.integers(len(places))], tissue.shape)
        radius = rng.uniform(*_RADIUS)
        reach = int(np.ceil(radius)) + 1
        around = [
            slice(max(0, int(at) - reach), min(side, int(at) + reach + 1))
            for at, side in zip(center, tissue.shape, strict=True)
        ]
        k, j, i = np.ogrid[around[0], around[1], around[2]]
        distance = np.sqrt((k - center[0]) ** 2 + (j - center[1]) ** 2 + (i - center[2]) ** 2)
        inside = np.clip(radius + 0.5 - distance, 0, 1)
        value = rng.uniform(*_CONTRAST) * rng.choice([-1, 1])
        total[around[0], around[1], around[2]] += (value * inside).astype(np.float32)
    return total
