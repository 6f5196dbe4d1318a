"""Measures the noise of a sequence in the differences of its frames, which show no anatomy.

pairs of neighboring frames → pairs without movement → |differences| → level, map and spectrum

Movement and changes of contrast only increase differences: they are an upper bound of the noise.
Only the pairs that differ least and show no structure count: after a head has moved, differences
are five to eight times the noise. Frames of different contrast (diffusion) cannot be measured.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from MedEnhanceLib.core.arrays import Array, Doubles, Floats, Mask, let_go, robust_max
from MedEnhanceLib.core.volume import Volume
from MedEnhanceLib.noise.estimate import NoiseEstimate, is_rician, smooth_map
from MedEnhanceLib.noise.tissue_blocks import (
    BLOCK,
    blocks_of_layer,
    cell_blocks,
    cosines,
    quantum,
    structure_of,
)
from MedEnhanceLib.runtime.progress import Monitor

#: Pairs of frames that are compared, and frames whose mean shows the tissue.
_PAIRS, _FRAMES = 24, 9
#: Limits of a still pair: level over that of the stillest, and correlation between blocks.
_STILL, _STRUCTURE = 1.2, 0.45
#: Standard deviation over the median of absolute values, and the median of squares, of a Gaussian.
_MAD, _MEDIAN_SQUARE = 1.4826, 0.45494
#: Tissue from this share of the mean's bright end on; in CT from this value, HU.
_TISSUE, _TISSUE_HU = 0.35, -300.0
#: Approximate number of voxels that the level, and of blocks that the spectrum is measured in.
_VOXELS, _BLOCKS = 200_000, 40_000
#: Least voxels of tissue in a cell of the map, and least share of tissue in a block.
_FEW, _INSIDE = 50, 0.9
#: Least mean of tissue, in σ, for which the Rician bias is corrected: below, the inverse is steep.
_ABOVE_NOISE = 3.0
#: Least variance of a frequency, relative to the mean of all.
_LEAST_VARIANCE = 1e-3


@dataclass(frozen=True)
class _Pair:
    """Difference of a frame and the next one: its offset, level and structure in tissue."""

    first: int
    offset: float
    level: float
    structure: float


def measure_frames(
    sequence: Sequence[Volume], typical: NoiseEstimate, monitor: Monitor
) -> NoiseEstimate | None:
    """Measure the noise that all frames of a sequence have in common.

    Args:
        sequence: at least two frames, [K, J, I] each; a few slices of them are in memory at a time.
        typical: noise measured in one frame alone; its contrast and air are kept.
        monitor: progress and cancellation.
    Returns the noise of every frame; None without tissue, where frames do not differ, or where
    they differ by more than the upper end of `typical`.
    """
    modality, spacing = sequence[0].modality, sequence[0].geometry.spacing
    frames = [frame.voxels for frame in sequence]
    mean = _mean(frames)
    least = _TISSUE_HU if modality == "CT" else _TISSUE * robust_max(mean)
    tissue = mean > least
    if tissue.sum() < _FEW:
        return None
    step = quantum(frames[len(frames) // 2])
    firsts = np.linspace(0, len(frames) - 2, min(len(frames) - 1, _PAIRS)).round().astype(int)
    pairs = []
    for first in np.unique(firsts):
        monitor.check()
        pairs.append(_compared(frames, int(first), tissue, step))
        let_go(frames[first])
    pairs = [pair for pair in pairs if pair.level > 0]
    if not pairs:
        return None
    still = _still(pairs)
    sigma, count, size = _map(frames, still, tissue, spacing, step, monitor)
    if step:
        sigma = np.maximum(sigma, step / math.sqrt(12))
    counted = np.where(count < _FEW, 0, count)
    smooth = smooth_map(sigma, counted if counted.any() else count)
    order = np.argsort(smooth, axis=None)
    below = np.cumsum(count.reshape(-1)[order])
    level = float(smooth.reshape(-1)[order][np.searchsorted(below, below[-1] / 2)])
    if level <= 0 or level > typical.high > 0:
        return None
    bright = float(np.median(mean[tissue]))
    return replace(
        typical,
        level=level,
        sigma=smooth.astype(np.float32),
        spectrum=_spectrum(frames, still, tissue),
        confidence=1.0,
        rician=is_rician(typical.air, level) and bright >= _ABOVE_NOISE * level,
        low=level,
        high=level,
        reason="",
        cell=size,
    )


def _still(pairs: Sequence[_Pair]) -> list[_Pair]:
    """Select pairs without movement, an odd number: the median of an even number is biased."""
    quiet = sorted(pairs, key=lambda pair: pair.level)
    quiet = [pair for pair in quiet if pair.structure <= _STRUCTURE] or quiet
    still = [pair for pair in quiet if pair.level <= _STILL * quiet[0].level]
    return still[: len(still) - (len(still) + 1) % 2]


def _mean(frames: Sequence[Array]) -> Floats:
    """Average some frames, spread evenly."""
    numbers = np.unique(np.linspace(0, len(frames) - 1, _FRAMES).round().astype(int))
    mean = np.zeros(frames[0].shape, np.float32)
    for number in numbers:
        mean += np.asarray(frames[number], np.float32) / np.float32(len(numbers))
        let_go(frames[number])
    return mean


def _difference(
    frames: Sequence[Array], first: int, part: Any = slice(None), offset: float = 0
) -> Floats:
    """Subtract slices of a frame from the next one, scaled to the variance of one of them."""
    after, before = (np.asarray(frames[first + n][part], np.float32) for n in (1, 0))
    return (after - before) * np.float32(math.sqrt(0.5)) - np.float32(offset)


def _compared(frames: Sequence[Array], first: int, tissue: Mask, step: float) -> _Pair:
    difference = _difference(frames, first)
    inside = difference[tissue]
    sample = inside[:: max(1, inside.size // _VOXELS)]
    offset = float(np.median(sample))
    level = _MAD * float(np.median(_dithered(sample - offset, step)))
    # Outside tissue 0, so that noise there does not count as structure.
    difference = np.where(tissue, difference - np.float32(offset), 0)
    return _Pair(first, offset, level, structure_of(difference))


def _dithered(difference: Floats, step: float) -> Floats:
    """Return absolute values for medians; integers are dithered, or medians would jump by steps."""
    if not step:
        return np.abs(difference)
    wide = np.float32(step * math.sqrt(0.5))
    draws = np.random.default_rng(0).random(difference.shape, dtype=np.float32) - np.float32(0.5)
    return np.abs(difference + wide * draws)


def _map(
    frames: Sequence[Array], still: Sequence[_Pair], tissue: Mask,
    spacing: Sequence[float], step: float, monitor: Monitor,
) -> tuple[Doubles, Doubles, tuple[float, float, float]]:  # fmt: skip
    """Measure σ in each cell; also its voxels of tissue, and the size of a cell."""
    depth = BLOCK if tissue.shape[0] >= BLOCK else 1
    wide = cell_blocks(spacing, (depth, BLOCK, BLOCK))
    size = wide[0] * depth, wide[1] * BLOCK, wide[2] * BLOCK
    cells = [max(1, -(-side // each)) for side, each in zip(tissue.shape, size, strict=True)]
    sigma, count = np.zeros(cells), np.zeros(cells)
    dither = step**2 / 24
    for k in range(cells[0]):
        monitor.check()
        part = slice(k * size[0], (k + 1) * size[0])
        inside = tissue[part]
        for j in range(cells[1]):
            rows = slice(j * size[1], (j + 1) * size[1])
            values = np.stack(
                [
                    _difference(frames, pair.first, (part, rows), pair.offset)[inside[:, rows]]
                    for pair in still
                ]
            )
            column = np.nonzero(inside[:, rows])[2] // size[2]
            typical = np.median(_dithered(values, step), axis=0)
            for i in range(cells[2]):
                some = typical[column == i]
                count[k, j, i] = some.size
                if some.size:
                    square = (_MAD * float(np.median(some))) ** 2
                    sigma[k, j, i] = math.sqrt(max(square - dither, 0.0))
    return sigma, count, (float(size[0]), float(size[1]), float(size[2]))


def _spectrum(frames: Sequence[Array], still: Sequence[_Pair], tissue: Mask) -> Floats:
    """Measure the relative variance of each coefficient, [4, 4, 4], in blocks of tissue.

    White where slices are narrower than a block.
    """
    if min(tissue.shape[1:]) < BLOCK:
        return np.ones((BLOCK,) * 3, np.float32)
    depth = BLOCK if tissue.shape[0] >= BLOCK else 1
    transform = cosines(depth).T
    layers = range(0, tissue.shape[0] // depth * depth, depth)
    shares = [blocks_of_layer(tissue, layer, depth).mean(axis=1) for layer in layers]
    least = min(_INSIDE, float(np.quantile(np.concatenate(shares), 0.98)))
    inside = [np.flatnonzero(share >= least) for share in shares]
    every = max(1, len(still) * sum(map(len, inside)) // _BLOCKS)
    power = []
    for pair in still:
        for layer, use in zip(layers, inside, strict=True):
            part = _difference(frames, pair.first, slice(layer, layer + depth), pair.offset)
            blocks = blocks_of_layer(part, 0, depth)[use[::every]]
            power.append(np.square(blocks @ transform))
    variance = np.median(np.concatenate(power), axis=0) / _MEDIAN_SQUARE
    neighbors = [1, BLOCK] if depth == 1 else [1, BLOCK, BLOCK**2]
    variance[0] = min(variance[0], variance[neighbors].min())
    variance = np.maximum(variance, max(_LEAST_VARIANCE * float(variance.mean()), 1e-12))
    spectrum = (variance / variance.mean()).reshape(depth, BLOCK, BLOCK)
    return np.broadcast_to(spectrum, (BLOCK,) * 3).astype(np.float32)
