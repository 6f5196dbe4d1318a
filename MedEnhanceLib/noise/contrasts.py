"""Measures the noise of a sequence whose frames differ in contrast, in what no frame predicts.

Each frame is approximated by the weighted sum of the others that fits best over all tissue.
Directions of diffusion, echoes and inversion times mix few contrasts, so the residual has hardly
any signal; with weights w its noise is that of a frame times √(1 + |w|²). Gradients and echo times
need not be known, and repeated frames predict each other. Movement only increases residuals.
Frames that the others yield exactly are left out: copies, averages, trace images. Where the signal
is weak, magnitudes spread by less than σ; this is corrected, so noise alone needs no exception.

Source: prediction of each band from all others, Bioucas-Dias & Nascimento, IEEE Trans. Geosci.
Remote Sens. 46 (2008) 2435. Weights of unit norm, exact frames, map and spectrum are ours.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from MedEnhanceLib.core.arrays import Array, Doubles, Floats, let_go
from MedEnhanceLib.core.modality import profile_of
from MedEnhanceLib.core.volume import Volume
from MedEnhanceLib.noise.estimate import NoiseEstimate, is_rician, rician_table, smooth_map
from MedEnhanceLib.noise.sequence import (
    CHANCE,
    MAD,
    MOVING,
    STILL,
    common_level,
    least_of_tissue,
    sample_of_frame,
    spectrum_of,
)
from MedEnhanceLib.noise.tissue_blocks import BLOCK, TINY, blocks_of_layer, cosines, quantum
from MedEnhanceLib.runtime.progress import Monitor

# Tuned on series that the lines name, or by hand (decision 0065): Benchmarks/sequences.py.
#: Fewest frames that predict each other, most that are measured, and voxels for each, at least.
_FEWEST, _MOST, _FOR_EACH = 5, 64, 10
#: Share of the mean square of values that keeps the weights finite where frames are equal.
_RIDGE = 1e-10
#: A residual is exact below one of these: over the median of all, over the values, in steps.
_EXACT, _EXACT_SHARE, _EXACT_STEPS = 0.5, 1e-4, 0.5
#: Rows and columns of a cell of the map: the noise of parallel imaging changes within 2 cm.
_CELL = 2 * BLOCK
#: Share of tissue in a block, and approximate number of blocks in which the spectrum is measured.
_INSIDE, _BLOCKS = 0.9, 100_000
#: Shares of the levels of residuals below the ends of the interval; few frames predict each other
#: less well: T frames of simulated diffusion show up to this number / T too much.
_ENDS, _EXCESS = (0.16, 0.84), 2.0


def measure_contrasts(
    sequence: Sequence[Volume], typical: NoiseEstimate, monitor: Monitor
) -> NoiseEstimate | None:
    """Measure the noise that all frames of a sequence have in common, whatever their contrasts.

    Args:
        sequence: frames [K, J, I] of one scan; a few slices of each are in memory at a time.
        typical: noise measured in one frame alone; its contrast and air are kept.
        monitor: progress and cancellation.
    Returns the noise of every frame; None without five different frames, tissue, or still edges.
    """
    modality, last = sequence[0].modality, len(sequence) - 1
    numbers = np.linspace(0, last, min(len(sequence), _MOST)).round().astype(int)
    frames = [sequence[number].voxels for number in numbers]
    sample = np.stack([sample_of_frame(frame) for frame in frames]).astype(np.float64)
    mean, step = sample.mean(axis=0), quantum(frames[len(frames) // 2])
    kept, weights = _residuals(sample[:, mean > least_of_tissue(mean, modality)], step)
    if not kept:
        return None
    frames, depth = [frames[number] for number in kept], BLOCK if len(frames[0]) >= BLOCK else 1
    least = least_of_tissue(sample[kept].mean(axis=0), modality)
    (sigma, flat, steep, means), count, power = _survey(frames, weights, least, depth, monitor)
    if profile_of(modality).is_magnitude and sample.min() >= 0:
        sigma /= np.interp(means / np.maximum(sigma, TINY), *rician_table())
    levels = np.median(sigma[:, count > 0], axis=1)
    use = levels <= STILL * common_level(levels)
    if (steep[use] * count).sum() > MOVING * (flat[use] * count).sum():
        return None
    smooth = smooth_map(np.maximum(np.median(sigma[use], axis=0), step / math.sqrt(12)), count)
    level = float(np.median(np.repeat(smooth, count.astype(np.intp).reshape(-1))))
    low, high = level * np.quantile(levels[use], _ENDS) / np.median(levels[use])
    return replace(
        typical,
        level=level,
        sigma=smooth.astype(np.float32),
        spectrum=spectrum_of([layer[use].reshape(-1, layer.shape[2]) for layer in power], depth),
        confidence=1.0,
        rician=is_rician(typical.air, level),
        low=float(low) / (1 + _EXCESS / len(kept)),
        high=float(high) * CHANCE,
        reason=None,
        cell=(float(depth), float(_CELL), float(_CELL)),
    )


def _residuals(sample: Doubles, step: float) -> tuple[list[int], Floats]:
    """Predict each frame from all others; leave out frames that the others yield exactly.

    sample: [T, n], of tissue. step: between rounded values.
    Returns the frames that stay, none if few, and residuals as unit weights [residual, frame].
    """
    products = sample @ sample.T / max(sample.shape[1], 1)
    kept = list(range(len(sample)))
    while _FEWEST <= len(kept) <= sample.shape[1] / _FOR_EACH:
        square = products[np.ix_(kept, kept)]
        size = float(np.trace(square)) / len(kept)
        # Row t of the inverse is residual t, but for its scale: 1 at t, -w elsewhere.
        inverse = np.linalg.inv(square + _RIDGE * size * np.eye(len(kept)))
        norm = np.linalg.norm(inverse, axis=1)
        levels = np.sqrt(np.diag(inverse)) / norm
        exact = _EXACT * float(np.median(levels)), _EXACT_SHARE * math.sqrt(size)
        if levels.min() >= max(*exact, _EXACT_STEPS * step):
            return kept, (inverse / norm[:, None]).astype(np.float32)
        del kept[int(np.argmax(np.diag(inverse)))]
    return [], np.zeros((0, 0), np.float32)


def _survey(
    frames: Sequence[Array], weights: Floats, least: float, depth: int, monitor: Monitor
) -> tuple[Doubles, Doubles, list[Floats]]:
    """Measure residuals in layers of `depth` slices; weights: [residual, frame], least: of tissue.

    Returns for each cell of the map [4, T, k, j, i]: σ of residuals in all of it, in the flattest
    and in the steepest quarter of the mean frame, and the mean of frames; its voxels of tissue
    [k, j, i]; and for each layer squared cosine coefficients [T, n, f].
    """
    slices, *plane = frames[0].shape
    grid = -(-slices // depth), *(-(-side // _CELL) for side in plane)
    cells, count, power = np.zeros((4, len(frames), *grid)), np.zeros(grid), []
    every = max(1, len(frames) * frames[0].size // (depth * BLOCK**2 * _BLOCKS))
    for k in range(grid[0]):
        monitor.check()
        part = slice(k * depth, (k + 1) * depth)
        values = np.stack([np.asarray(frame[part], np.float32) for frame in frames])
        for frame in frames:
            let_go(frame)
        residuals = np.tensordot(weights, values, 1)
        layer = values.mean(axis=0)
        tissue = layer > least
        steps = sum(np.abs(layer - np.roll(layer, 1, axis)) for axis in (1, 2))
        for j, i in np.ndindex(*grid[1:]):
            box = np.s_[:, j * _CELL : (j + 1) * _CELL, i * _CELL : (i + 1) * _CELL]
            inside = tissue[box]
            if inside.any():
                some, noise = (each[(slice(None), *box)][:, inside] for each in (values, residuals))
                edge = steps[box][inside]
                flat, steep = np.quantile(edge, (0.25, 0.75))
                parts = (noise, noise[:, edge <= flat], noise[:, edge >= steep])
                spreads = [MAD * np.median(np.abs(part), axis=1) for part in parts]
                cells[:, :, k, j, i] = *spreads, some.mean(axis=1)
                count[k, j, i] = inside.sum()
        if len(tissue) == depth and min(plane) >= BLOCK:
            whole = np.flatnonzero(blocks_of_layer(tissue, 0, depth).mean(axis=1) >= _INSIDE)
            blocks = [blocks_of_layer(each, 0, depth)[whole[::every]] for each in residuals]
            power.append(np.square(np.stack(blocks) @ cosines(depth).T))
    return cells, count, power
