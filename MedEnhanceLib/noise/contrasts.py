"""Measures the noise of a sequence whose frames differ in contrast, in what no frame predicts.

frames → each predicted from all others → residuals → those of least level → level, map, spectrum

Each frame is approximated by a weighted sum of the others, with the weights w that fit best over
all tissue. Directions of diffusion, echoes and inversion times are combinations of few contrasts,
so the residual shows hardly any signal; its noise is that of a frame times √(1 + |w|²), whatever
the weights. Neither gradients nor echo times are needed, and repeated frames predict each other.
Movement and contrasts unlike all others only increase a residual: the largest do not count.

Frames that the others yield exactly are left out first: copies, averages, trace images. Where the
signal is weak, the spread of magnitudes is smaller than σ, which the mean of each frame corrects;
so frames of noise alone need no exception.

Source: prediction of each band from all others, Bioucas-Dias & Nascimento, IEEE Trans. Geosci.
Remote Sens. 46 (2008) 2435. Weights of unit norm, exact frames, map and spectrum are ours.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from MedEnhanceLib.core.arrays import Array, Doubles, Floats, Mask, let_go
from MedEnhanceLib.core.volume import Volume
from MedEnhanceLib.noise.estimate import NoiseEstimate, is_rician, rician_table, smooth_map
from MedEnhanceLib.noise.sequence import (
    CHANCE,
    MAD,
    STILL,
    STRUCTURE,
    common_level,
    least_of_tissue,
    mean_of_some,
    median_level,
    spectrum_of,
)
from MedEnhanceLib.noise.tissue_blocks import (
    BLOCK,
    TINY,
    blocks_of_layer,
    cosines,
    quantum,
    structure_of_means,
)
from MedEnhanceLib.runtime.progress import Monitor

#: Fewest frames that predict each other, and most that are measured, spread evenly.
_FEWEST, _MOST = 5, 64
#: Least voxels of tissue for each frame, and voxels that the weights are fitted to, about.
_FOR_EACH, _FITTED = 10, 60_000
#: Share of the mean square of values that keeps the weights finite where frames are equal.
_RIDGE = 1e-10
#: A residual is exact below one of these: over the median of all, over the values, in steps.
_EXACT, _EXACT_SHARE, _EXACT_STEPS = 0.5, 1e-4, 0.5
#: Rows and columns of a cell of the map: the noise of parallel imaging changes within 2 cm.
_CELL = 2 * BLOCK
#: Least voxels of tissue in a cell, and least share of tissue in a block.
_FEW, _INSIDE = 12, 0.9
#: Approximate number of blocks in which the spectrum is measured.
_BLOCKS = 40_000
#: Rounds that solve for σ of a channel.
_ROUNDS = 8


@dataclass(frozen=True, eq=False)
class _Survey:
    """Residuals of T frames in the cells of the map.

    Attributes:
        sigma: [T, k, j, i], robust standard deviation of each residual; 0 without tissue.
        mean: [T, k, j, i], of each frame.
        count: [k, j, i], voxels of tissue.
        means: of each layer [T, n], means of blocks, voxels outside tissue being 0.
        power: of each layer [T, n, f], squared cosine coefficients of blocks of tissue.
    """

    sigma: Doubles
    mean: Doubles
    count: Doubles
    means: list[Floats]
    power: list[Floats]


def measure_contrasts(
    sequence: Sequence[Volume], typical: NoiseEstimate, monitor: Monitor
) -> NoiseEstimate | None:
    """Measure the noise that all frames of a sequence have in common, whatever their contrasts.

    Args:
        sequence: frames [K, J, I] of one scan; a few slices of each are in memory at a time.
        typical: noise measured in one frame alone; its contrast and air are kept.
        monitor: progress and cancellation.
    Returns the noise of every frame; None without tissue, for fewer than five different frames, and
    where frames do not predict each other.
    """
    modality, frames = sequence[0].modality, [frame.voxels for frame in sequence]
    mean = mean_of_some(frames)
    tissue = mean > least_of_tissue(mean, modality)
    count = min(len(frames), _MOST, int(tissue.sum()) // _FOR_EACH)
    if count < _FEWEST:
        return None
    numbers = np.linspace(0, len(frames) - 1, count).round().astype(int)
    frames = [frames[number] for number in numbers]
    sample, step = _sample(frames, tissue, monitor), quantum(frames[count // 2])
    kept, weights = _residuals(sample, step)
    if not kept:
        return None
    depth = BLOCK if tissue.shape[0] >= BLOCK else 1
    survey = _survey([frames[number] for number in kept], weights, tissue, depth, monitor)
    filled = survey.count >= min(_FEW, survey.count.max())
    levels = np.median(survey.sigma[:, filled], axis=1)
    use = (levels > 0) & (_structures(survey, tissue.shape) <= STRUCTURE)
    if not use.any():
        return None
    use &= levels <= STILL * common_level(levels[use])
    sigma = np.median(survey.sigma[use], axis=0)
    if modality == "MR" and sample.min() >= 0:
        sigma = _of_channel(sigma, survey.mean, np.square(weights[use]).mean(axis=0))
    if step:
        sigma = np.maximum(sigma, step / math.sqrt(12))
    smooth = smooth_map(sigma, np.where(filled, survey.count, 0))
    level = median_level(smooth, survey.count)
    spread = levels[use] / np.median(levels[use])
    power = [layer[use].reshape(-1, layer.shape[2]) for layer in survey.power]
    return replace(
        typical,
        level=level,
        sigma=smooth.astype(np.float32),
        spectrum=spectrum_of(power, depth),
        confidence=1.0,
        rician=is_rician(typical.air, level),
        low=level * float(spread.min()) / CHANCE,
        high=level * float(spread.max()) * CHANCE,
        reason="",
        cell=(float(depth), float(_CELL), float(_CELL)),
    )


def _sample(frames: Sequence[Array], tissue: Mask, monitor: Monitor) -> Doubles:
    """Take voxels [T, n] of tissue, spread evenly."""
    places = np.nonzero(tissue)
    every = max(1, places[0].size // _FITTED)
    some = tuple(place[::every] for place in places)
    sample = np.empty((len(frames), some[0].size))
    for values, frame in zip(sample, frames, strict=True):
        monitor.check()
        values[...] = frame[some]
        let_go(frame)
    return sample


def _residuals(sample: Doubles, step: float) -> tuple[list[int], Floats]:
    """Predict each frame from all others; leave out frames that the others yield exactly.

    sample: [T, n], of tissue. step: between rounded values.
    Returns the numbers of the frames that stay, and their residuals as weights of unit norm,
    [residual, frame]; none where fewer than five frames stay.
    """
    products = sample @ sample.T / sample.shape[1]
    kept = [number for number, values in enumerate(sample) if np.ptp(values) > 0]
    while len(kept) >= _FEWEST:
        square = products[np.ix_(kept, kept)]
        size = float(np.trace(square)) / len(kept)
        # Row t of the inverse is residual t, but for its scale: 1 at t, -w elsewhere.
        inverse = np.linalg.inv(square + _RIDGE * size * np.eye(len(kept)))
        norm = np.linalg.norm(inverse, axis=1)
        levels = np.sqrt(np.diag(inverse)) / norm
        exact = _EXACT * float(np.median(levels)), _EXACT_SHARE * math.sqrt(size)
        if levels.min() >= max(*exact, _EXACT_STEPS * step):
            freedom = math.sqrt(1 - (len(kept) - 1) / sample.shape[1])
            return kept, (inverse / (norm[:, None] * freedom)).astype(np.float32)
        del kept[int(np.argmax(np.diag(inverse)))]
    return [], np.zeros((0, 0), np.float32)


def _survey(
    frames: Sequence[Array], weights: Floats, tissue: Mask, depth: int, monitor: Monitor
) -> _Survey:
    """Measure residuals, a layer of `depth` slices at a time; weights: [residual, frame]."""
    layers = [slice(first, first + depth) for first in range(0, len(tissue), depth)]
    rows, columns = (range(0, side, _CELL) for side in tissue.shape[1:])
    grid = len(layers), len(rows), len(columns)
    sigma, mean = np.zeros((2, len(frames), *grid))
    survey = _Survey(sigma, mean, np.zeros(grid), [], [])
    whole = layers[: len(tissue) // depth if min(tissue.shape[1:]) >= BLOCK else 0]
    shares = [blocks_of_layer(tissue[part], 0, depth).mean(axis=1) for part in whole]
    least = min(_INSIDE, float(np.quantile(np.concatenate(shares), 0.98))) if shares else 1.0
    inside = [np.flatnonzero(share >= least) for share in shares]
    every = max(1, len(frames) * sum(map(len, inside)) // _BLOCKS)
    for k, part in enumerate(layers):
        monitor.check()
        values = np.stack([np.asarray(frame[part], np.float32) for frame in frames])
        for frame in frames:
            let_go(frame)
        residuals = np.tensordot(weights, values, 1)
        for j, i in np.ndindex(*grid[1:]):
            box = np.s_[:, rows[j] : rows[j] + _CELL, columns[i] : columns[i] + _CELL]
            within = tissue[part][box]
            survey.count[k, j, i] = within.sum()
            if within.any():
                noise, some = (each[(slice(None), *box)][:, within] for each in (residuals, values))
                sigma[:, k, j, i] = MAD * np.median(np.abs(noise), axis=1)
                mean[:, k, j, i] = some.mean(axis=1)
        if k < len(whole):
            # Outside tissue 0, so that noise there does not count as structure.
            residuals *= tissue[part]
            blocks = np.stack([blocks_of_layer(each, 0, depth) for each in residuals])
            survey.means.append(blocks.mean(axis=2))
            survey.power.append(np.square(blocks[:, inside[k][::every]] @ cosines(depth).T))
    return survey


def _structures(survey: _Survey, shape: Sequence[int]) -> Doubles:
    """Correlate the means of blocks of each residual, [T]; 0 where blocks are too few."""
    if not survey.means or min(shape[1:]) < 3 * BLOCK:
        return np.zeros(len(survey.sigma))
    grid = len(survey.means), shape[1] // BLOCK, shape[2] // BLOCK
    means = np.stack(survey.means, axis=1).reshape(-1, *grid)
    structures = np.array([structure_of_means(each) for each in means])
    return np.where(structures < 1, structures, 0)


def _of_channel(sigma: Doubles, mean: Doubles, shares: Floats) -> Doubles:
    """Return σ of a channel of magnitudes, whose spread is smaller where the signal is weak.

    sigma: [k, j, i], spread of residuals. mean: [T, k, j, i]. shares: [T], of the frames' variances
    in that of the residuals.
    """
    ratios, spreads = rician_table()
    channel = sigma
    for _ in range(_ROUNDS):
        above = mean / np.maximum(channel, TINY)
        squares = np.square(np.interp(above, ratios * spreads, spreads))
        channel = sigma / np.sqrt(np.tensordot(shares / shares.sum(), squares, 1))
    return channel
