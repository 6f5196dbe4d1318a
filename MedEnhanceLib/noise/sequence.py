"""Measures the noise of a sequence in the differences of its frames, which show no anatomy.

frames that are alike → pairs of nearest alike frames → pairs without movement → |differences| →
level, map and spectrum

Movement and changes of contrast only increase differences: they are an upper bound of the noise.
Only the pairs that differ least and show no structure count: after a head has moved, differences
are five to eight times the noise. A gain is fitted to each pair. If what remains depends on the
intensity, the frames differ in contrast: then each is compared with the second next one, and so on
(frames may alternate), and if no two are alike, nothing is measured.
Frames that decrease differences are left out: noise without signal (.655 σ), repeated frames (0)
and the mean of two neighbors (.5 σ).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np

from MedEnhanceLib.core.arrays import Array, Doubles, Floats, Mask, Numbers, let_go, robust_max
from MedEnhanceLib.core.modality import profile_of
from MedEnhanceLib.core.volume import Volume
from MedEnhanceLib.noise.estimate import NoiseEstimate, is_rician, rician_table, smooth_map
from MedEnhanceLib.noise.tissue_blocks import (
    BLOCK,
    TINY,
    blocks_of_layer,
    cell_blocks,
    cosines,
    quantum,
)
from MedEnhanceLib.runtime.progress import Monitor

# Chosen by hand; no table isolates them. Measured as a whole by Benchmarks/real.py. Halved or
# doubled on two still scans, TISSUE changes σ by −8 to +21 %, limits of pairs and frames by 3 %.
#: Pairs of frames that are compared, and frames whose mean shows the tissue.
_PAIRS, _FRAMES = 24, 9
#: Most frames from one of a pair to the other: contrasts that take turns are not more.
_APART = 8
#: Level of a still pair over the lowest common one.
STILL = 1.2
#: Differences in the steepest over those in the flattest quarter of the mean frame: 31 of 32 still
#: scans to 1.4, heads that turn 1.5 to 1.6. Fewest frames whose movement is fitted (`movement`).
MOVING, FEWEST_MEASURED = 1.5, 5
#: Limits of the shares of the variance of a difference that intensity and place explain: alike
#: frames of real scans have .04 and .05 or less, frames after a movement .1 and more, echoes 5 ms
#: apart .1 to .2 by intensity. Voxels of a class, variance of a median over that of a mean, and
#: rows and columns of a place.
_CONTRAST, _STRUCTURE, _IN_CLASS, _OF_MEDIAN, _PLACE = 0.06, 0.1, 500, math.pi / 2, 4 * BLOCK
#: Pairs at the lowest common level, over those at the most common one; a quiet pair is below this
#: share of it: it takes more than chance in the sample of a frame, of about this many voxels.
_COMMON, _QUIET, _SAMPLE = 0.3, 0.85, 20_000
#: Without tissue: correlation with the most similar frame, whose least value shows that others have
#: tissue, and standard deviation over the largest one; over the median of all, a constant frame.
_UNLIKE, _LIKE, _WEAK, _FLAT = 0.15, 0.5, 0.7, 0.01
#: An average of its neighbors: second difference over that to the nearer neighbor.
_AVERAGED = 0.5
#: Standard deviation over the median of absolute values, and the median of squares, of a Gaussian.
MAD, _MEDIAN_SQUARE = 1.4826, 0.45494
#: Tissue from this share of the mean's bright end on; in CT from this value, HU.
TISSUE, _TISSUE_HU = 0.35, -300.0
#: Approximate number of voxels that the level, and of blocks that the spectrum is measured in.
_VOXELS, _BLOCKS = 200_000, 40_000
#: Least voxels of tissue in a cell of the map, and least share of tissue in a block.
_FEW, _INSIDE = 50, 0.9
#: Frames whose tissue has a lower mean, in σ, do not measure the noise: they spread by less.
_ABOVE_NOISE = 3.0
#: Factor on the upper end of the noise of one frame, which is measured with an error of its own.
CHANCE = 1.05
#: Least variance of a frequency, relative to the mean of all.
_LEAST_VARIANCE = 1e-3


@dataclass(frozen=True)
class _Pair:
    """Difference of two frames, whose noise is that of one of them; in tissue.

    Attributes:
        numbers: of the frames.
        weights: of both, of unit norm, so that a common gain cancels.
        offset: median of the weighted difference.
        level: σ.
        contrast: share of the variance that intensity explains.
        structure: share of the variance that place explains.
        steepness: level where the mean frame is steep, over that where it is flat.
    """

    numbers: tuple[int, int]
    weights: tuple[float, float]
    offset: float = 0.0
    level: float = 0.0
    contrast: float = 0.0
    structure: float = 0.0
    steepness: float = 1.0

    @property
    def certain(self) -> float:
        """Lower end of the noise over `level`: what intensity, place and edges do not explain."""
        noise = math.sqrt(1 - min(max(self.contrast, self.structure, 0.0), 1.0))
        return min(noise, 1.0 if self.steepness <= MOVING else 1 / self.steepness)

    def difference(self, frames: Sequence[Array], part: Any = slice(None)) -> Floats:
        """Subtract the first frame from the second one, in some slices."""
        before, after = (
            np.asarray(frames[number][part], np.float32) * np.float32(weight)
            for number, weight in zip(self.numbers, self.weights, strict=True)
        )
        return after - before - np.float32(self.offset)


class FrameKinds(NamedTuple):
    """Numbers of the frames of a sequence.

    Attributes:
        empty: constant, or noise alone.
        quiet: with tissue, and unfit for the measurement: repeated, averaged, or as weak as noise.
        usable: all others.
    """

    empty: tuple[int, ...]
    quiet: tuple[int, ...]
    usable: tuple[int, ...]


def sort_frames(frames: Sequence[Volume]) -> FrameKinds:
    """Tell frames apart by a sample of their voxels; without tissue in any, none is empty.

    frames: [K, J, I] each, finite.
    """
    sample = np.stack([sample_of_frame(frame.voxels) for frame in frames])
    spread = sample.std(axis=1, dtype=np.float64)
    if len(frames) == 1 or not spread.any():
        return FrameKinds((), (), tuple(range(len(frames))))
    empty = spread <= _FLAT * np.median(spread[spread > 0])
    centered = sample - sample.mean(axis=1, keepdims=True)
    centered /= np.maximum(spread, np.finfo(np.float32).tiny)[:, None].astype(np.float32)
    likeness = (centered @ centered.T) / np.float32(sample.shape[1])
    np.fill_diagonal(likeness, -1)
    nearest = likeness.max(axis=1)
    if nearest.max() > _LIKE:
        empty |= (nearest < _UNLIKE) & (spread < _WEAK * spread.max())
    numbers = np.flatnonzero(~empty)
    quiet = np.zeros(len(numbers), np.bool_)
    if len(numbers) > 1:
        quiet = _quiet(sample[numbers], frames[0].modality, quantum(frames[numbers[0]].voxels))
    kinds = np.flatnonzero(empty), numbers[quiet], numbers[~quiet]
    return FrameKinds(*(tuple(kind.tolist()) for kind in kinds))


def sample_of_frame(voxels: Array) -> Floats:
    """Take voxels [n] spread evenly over a frame."""
    step = max(1, int((voxels.size / _SAMPLE) ** (1 / 3)))
    some = voxels[::step, ::step, ::step].astype(np.float32).reshape(-1)
    let_go(voxels)
    return some[:: max(1, some.size // _SAMPLE)]


def _quiet(sample: Floats, modality: str, step: float) -> Mask:
    """Mark frames [T] that decrease differences, by samples [T, n]."""
    mean = sample.mean(axis=0)
    sample = sample[:, mean > least_of_tissue(mean, modality)]
    quiet = np.zeros(len(sample), np.bool_)
    if not sample.size:
        return quiet
    steps = np.diff(sample, axis=0)
    levels = MAD * math.sqrt(0.5) * np.median(_dithered(steps, step), axis=1)
    common = common_level(levels)
    if not profile_of(modality).is_absolute and sample.min() >= 0:  # magnitudes
        quiet = np.median(sample, axis=1) < _ABOVE_NOISE * common
        quiet &= not quiet.all()
    quiet[1:] |= ~steps.any(axis=1)
    sides = np.stack([np.pad(levels, end, "edge") for end in ((1, 0), (0, 1))])
    quiet |= sides.max(axis=0) < _QUIET * common
    bends = MAD / math.sqrt(6) * np.median(_dithered(np.diff(steps, axis=0), step), axis=1)
    nearer = sides.min(axis=0)[1:-1]
    quiet[1:-1] |= (bends < _AVERAGED * nearer) & (nearer <= STILL * common)  # no steady movement
    return quiet


def common_level(levels: Array) -> float:
    """Return the lowest level that pairs have in common: movement only increases differences."""
    alike = [np.sum((levels >= level) & (levels <= STILL * level)) for level in levels]
    return float(levels[np.array(alike) >= _COMMON * max(alike)].min())


def least_of_tissue(mean: Floats, modality: str) -> float:
    """Return the value above which the mean of frames is tissue."""
    return _TISSUE_HU if profile_of(modality).is_absolute else TISSUE * robust_max(mean)


def measure_frames(
    sequence: Sequence[Volume], typical: NoiseEstimate, monitor: Monitor
) -> NoiseEstimate | None:
    """Measure the noise that all frames of a sequence have in common.

    Args:
        sequence: frames that are alike, [K, J, I] each; a few slices are in memory at a time.
        typical: noise measured in one frame alone; its contrast and air are kept.
        monitor: progress and cancellation.
    Returns the noise of every frame; None for a single frame, without tissue, where no two frames
    are alike or all are equal, or where they differ by more than the upper end of `typical`.
    """
    if len(sequence) < 2:
        return None
    modality, spacing = sequence[0].modality, sequence[0].geometry.spacing
    is_absolute = profile_of(modality).is_absolute
    frames = [frame.voxels for frame in sequence]
    numbers = np.unique(np.linspace(0, len(frames) - 1, _FRAMES).round().astype(int))
    mean = mean_of([frames[number] for number in numbers])
    tissue = mean > least_of_tissue(mean, modality)
    if tissue.sum() < _FEW:
        return None
    step = quantum(frames[len(frames) // 2])
    still, share_alike = _still_pairs(frames, mean, tissue, step, is_absolute, monitor)
    if not still:
        return None
    sigma, count, size = _map(frames, still, tissue, spacing, step, monitor)
    if step:
        sigma = np.maximum(sigma, step / math.sqrt(12))
    counted = np.where(count < _FEW, 0, count)
    smooth = smooth_map(sigma, counted if counted.any() else count)
    order = np.argsort(smooth, axis=None)
    below = np.cumsum(count.reshape(-1)[order])
    level = float(smooth.reshape(-1)[order][np.searchsorted(below, below[-1] / 2)])
    is_biased = is_rician(typical.air, level)
    if is_biased:  # weak magnitudes spread by less than σ
        share = float(np.interp(np.median(mean[tissue]) / level, *rician_table()))
        smooth, level = smooth / share, level / share
    if level <= 0 or level > CHANCE * typical.high > 0:
        return None
    # A gain of the scanner scales noise too, one of the contrast does not: which is not known.
    smaller, larger = np.median([sorted(np.abs(pair.weights)) for pair in still], axis=0)
    low = level * math.sqrt(0.5) / larger * np.median([pair.certain for pair in still])
    high = min(level * math.sqrt(0.5) / max(smaller, TINY), CHANCE * typical.high)
    return replace(
        typical,
        level=level,
        sigma=smooth.astype(np.float32),
        spectrum=_spectrum(frames, still, tissue),
        confidence=1.0,
        rician=is_biased,
        low=float(low),
        high=float(max(high, level)),
        reason=None,
        cell=size,
        alike=share_alike,
    )


def _still_pairs(
    frames: Sequence[Array],
    mean: Floats,
    tissue: Mask,
    step: float,
    is_absolute: bool,
    monitor: Monitor,
) -> tuple[list[_Pair], float]:
    """Select pairs of nearest alike frames without movement; none where no frames are alike.

    Returns also the share of the neighbors that are alike.
    """
    share_alike = 0.0
    edge = sum(np.abs(mean - np.roll(mean, 1, axis)) for axis in (1, 2))[tissue]
    k, j, i = np.nonzero(tissue)
    place = np.ravel_multi_index((k // BLOCK, j // _PLACE, i // _PLACE), tissue.shape)
    for apart in range(1, min(len(frames) - 1, _APART) + 1):
        count, pairs = len(frames) - apart, []
        for first in np.linspace(0, count - 1, min(count, _PAIRS // apart)).round().astype(int):
            monitor.check()
            numbers = int(first), int(first) + apart
            pairs.append(_compared(frames, numbers, tissue, edge, place, step, is_absolute))
            let_go(frames[first])
        alike = [pair for pair in pairs if pair.level > 0 and pair.contrast <= _CONTRAST]
        if apart == 1:
            share_alike = len(alike) / len(pairs)
        if still := _still(alike, is_few=len(frames) < FEWEST_MEASURED):
            return still, share_alike
    return [], share_alike


def _still(alike: Sequence[_Pair], *, is_few: bool) -> list[_Pair]:
    """Select pairs without movement, an odd number: the median of an even number is biased."""
    quiet = [p for p in alike if p.structure <= _STRUCTURE and p.steepness <= MOVING]
    quiet = quiet or ([] if is_few else [*alike])
    if not quiet:
        return []
    quiet.sort(key=lambda pair: pair.level)
    common = common_level(np.array([pair.level for pair in quiet]))
    still = [pair for pair in quiet if _QUIET <= pair.level / common <= STILL]
    return still[: len(still) - (len(still) + 1) % 2]


def mean_of(frames: Sequence[Array]) -> Floats:
    """Average frames, [K, J, I]."""
    mean = np.zeros(frames[0].shape, np.float32)
    for frame in frames:
        mean += np.asarray(frame, np.float32) / np.float32(len(frames))
        let_go(frame)
    return mean


def _compared(
    frames: Sequence[Array],
    numbers: tuple[int, int],
    tissue: Mask,
    edge: Floats,
    place: Numbers,
    step: float,
    is_absolute: bool,
) -> _Pair:
    """Compare two frames; edge, place: of each voxel of tissue, steepness and number of a cell."""
    some = slice(None, None, max(1, edge.size // _VOXELS))
    before, after = (np.asarray(frames[n], np.float32)[tissue][some] for n in numbers)
    angle = math.pi / 4
    if not is_absolute:  # the principal axis of both, as both have noise
        products = ((before, before), (before, after), (after, after))
        first, both, second = (float(np.mean(a * b, dtype=np.float64)) for a, b in products)
        angle = 0.5 * math.atan2(2 * both, first - second)
    pair = _Pair(numbers, (math.sin(angle), math.cos(angle)))
    of_first, of_second = map(np.float32, pair.weights)
    sample = of_second * after - of_first * before
    pair = replace(pair, offset=float(np.median(sample)))
    sample -= np.float32(pair.offset)
    sizes = _dithered(sample, step)
    level = MAD * float(np.median(sizes))
    flat, steep = (edge[some] <= end for end in np.quantile(edge[some], (0.25, 0.75)))
    return replace(
        pair,
        level=level,
        contrast=_explained(sample, of_first * after + of_second * before, level),
        structure=_explained(sample, place[some], level),
        steepness=float(np.median(sizes[~steep]) / max(np.median(sizes[flat]), TINY)),
    )


def _explained(difference: Floats, key: Array, level: float) -> float:
    """Return the share of the variance of a difference that classes of a key explain, no noise."""
    count = max(2, difference.size // _IN_CLASS)
    classes = np.array_split(difference[np.argsort(key, kind="stable")], count)
    medians = np.array([np.median(each) for each in classes])
    chance = _OF_MEDIAN * count / difference.size
    return float(np.square(medians).mean()) / max(level, TINY) ** 2 - chance


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
                [pair.difference(frames, (part, rows))[inside[:, rows]] for pair in still]
            )
            column = np.nonzero(inside[:, rows])[2] // size[2]
            typical = np.median(_dithered(values, step), axis=0)
            for i in range(cells[2]):
                some = typical[column == i]
                count[k, j, i] = some.size
                if some.size:
                    square = (MAD * float(np.median(some))) ** 2
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
            part = pair.difference(frames, slice(layer, layer + depth))
            blocks = blocks_of_layer(part, 0, depth)[use[::every]]
            power.append(np.square(blocks @ transform))
    return spectrum_of(power, depth)


def spectrum_of(power: Sequence[Floats], depth: int) -> Floats:
    """Return relative variances [4, 4, 4] by the median of squares [n, f]; white without blocks."""
    if not sum(map(len, power)):
        return np.ones((BLOCK,) * 3, np.float32)
    variance = np.median(np.concatenate(power), axis=0) / _MEDIAN_SQUARE
    neighbors = [1, BLOCK] if depth == 1 else [1, BLOCK, BLOCK**2]
    variance[0] = min(variance[0], variance[neighbors].min())
    variance = np.maximum(variance, max(_LEAST_VARIANCE * float(variance.mean()), 1e-12))
    spectrum = (variance / variance.mean()).reshape(depth, BLOCK, BLOCK)
    return np.broadcast_to(spectrum, (BLOCK,) * 3).astype(np.float32)
