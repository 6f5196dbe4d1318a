"""Regression of the noise of a single volume, trained on simulated scans: σ and its interval.

Where anatomy fills every block, no single statistic depends on the noise alone. So 283 are
measured: energies of coefficients in all blocks of tissue, in the quietest ones, in the air of MR;
eigenvalues; differences of neighbors. All are logarithms relative to the volume's finest
frequencies, so that they do not depend on its unit. (In CT, 282: one is the level of these in HU.)

Three small networks, whose outputs are averaged, predict quantiles of σ. Their weights, and how far
the interval is widened to contain the σ of scans that they did not learn from, are in
regressor_mr.npz and regressor_ct.npz beside this module (docs/decisions/0047 and 0068); evaluating
them takes milliseconds.
"""

from __future__ import annotations

from functools import lru_cache
from importlib.resources import files
from itertools import product

import numpy as np

from MedEnhanceLib.core.arrays import Array, Doubles, Floats, Mask, Numbers
from MedEnhanceLib.core.modality import profile_of
from MedEnhanceLib.noise.tissue_blocks import (
    BLOCK,
    CT_AIR,
    CT_TISSUE,
    blocks_of_layer,
    cosines,
    quantum,
)

# The weights learned with these (decisions 0047, 0068). Measured as a whole by Benchmarks/noise.py.
#: Limits of the networks' inputs: in standard deviations of the training data, and in logarithms.
_MOST, _MOST_LOG = 3.0, 12.0
_CELLS = BLOCK**3
#: Median of the square of a Gaussian, rounded as in the training of the networks.
_MEDIAN_SQUARE = 0.455
#: Most blocks and voxels that are measured, in MR and in CT; few blocks are cut at several offsets.
_LIMITS, _LIMITS_CT, _ENOUGH = (40_000, 4_000_000), (8_000, 2_000_000), 6000
#: Tissue is above these shares of the bright end (the second if the first leaves few blocks), and
#: air below the third. Least blocks: of tissue above the first, of any tissue, of air.
_TISSUE, _DARK_TISSUE, _AIR = 0.35, 0.15, 0.12
_FEW, _FEWEST, _FEW_OF_AIR = 40, 20, 30
#: What is added to HU: air is 0, as in MR.
_AIR_TO_ZERO = 1000.0
_EIGENVALUES = slice(0, 64, 8)


def estimate_sigma(
    voxels: Array,
    modality: str,
    *,
    level: float,
    confidence: float,
    air: float | None,
    contrast: float,
) -> tuple[float, float, float] | None:
    """Estimate σ of the noise of a volume and its interval, in the unit of the volume.

    Args:
        voxels: [K, J, I], finite; of CT in HU.
        modality: "CT", or "MR" for all others.
        level: σ measured in its quietest blocks.
        confidence: of `level`, 0 to 1.
        air: σ as the background shows it, None where it shows nothing.
        contrast: of the tissue, in the unit of the volume.
    Returns σ, lower and upper end; None for too little tissue or fewer than four slices.
    """
    measured = statistics(voxels, modality)
    if measured is None:
        return None
    scale, numbers = measured

    def relative(value: float, most: float = 5.0) -> float:
        return float(np.clip(np.log(max(value, 1e-9)) - scale, -5.0, most))

    background = [relative(air) if air else 0.0, float(bool(air))]
    others = [scale] if profile_of(modality).is_absolute else background
    others = [relative(level), confidence, *others, relative(contrast, 9.0)]
    features = np.concatenate([numbers, others]).astype(np.float64)
    low, middle, high = quantiles(features, modality) + scale
    return float(np.exp(middle)), float(np.exp(low)), float(np.exp(high))


def quantiles(features: Doubles, modality: str) -> Doubles:
    """Predict lower end, median and upper end of log σ, relative to the scale; features: [n]."""
    weights = _weights(profile_of(modality).like.lower())
    cut = np.clip(np.nan_to_num(features), -_MOST_LOG, _MOST_LOG)
    inputs = np.clip((cut - weights["center"]) / weights["spread"], -_MOST, _MOST)
    results = []
    for member in range(len(weights["first"])):
        hidden = inputs
        for layer in ("first", "second"):
            hidden = weights[layer][member] @ hidden + weights[f"{layer}_bias"][member]
            hidden = hidden / (1 + np.exp(-hidden))
        output = weights["last"][member] @ hidden + weights["last_bias"][member]
        # Distances between quantiles are made positive, so that quantiles do not cross.
        far_below, below, middle, above, far_above = output
        steps = np.logaddexp(0, [far_below, below, above, far_above])
        results.append([middle - steps[:2].sum(), middle, middle + steps[2:].sum()])
    wider_below, wider_above = weights["widened"]
    wider = np.array([-wider_below, 0.0, wider_above])
    return np.asarray(np.mean(results, axis=0) + wider)


@lru_cache(maxsize=2)
def _weights(name: str) -> dict[str, Doubles]:
    with (
        (files("MedEnhanceLib.noise") / f"regressor_{name}.npz").open("rb") as stream,
        np.load(stream, allow_pickle=False) as arrays,
    ):
        return {name: arrays[name].astype(np.float64) for name in arrays.files}


# --- statistics -----------------------------------------------------------------------------------


def statistics(voxels: Array, modality: str) -> tuple[float, Floats] | None:
    """Compute the statistics of a volume, and the scale that they are relative to.

    Args:
        voxels: [K, J, I], finite; of CT in HU.
        modality: "CT", whose tissue is known by its HU, or "MR".
    Returns the scale's logarithm and [n] statistics; None without enough tissue or four slices.
    """
    is_ct = profile_of(modality).is_absolute
    most_blocks, most_voxels = _LIMITS_CT if is_ct else _LIMITS
    slices = max(2 * BLOCK, most_voxels // max(1, voxels[0].size))
    first = max(0, (len(voxels) - slices) // 2)
    values = np.asarray(voxels[first : first + slices], np.float32)
    if is_ct:
        values = values + np.float32(_AIR_TO_ZERO)
    blocks = _blocks(values, most_blocks) if len(values) >= BLOCK else values[:0]
    if not len(blocks):
        return None
    mean, varies = blocks.mean(axis=1), blocks.min(axis=1) < blocks.max(axis=1)
    top = float(np.quantile(mean, 0.98))
    least = CT_TISSUE + _AIR_TO_ZERO if is_ct else _TISSUE * top
    use = varies & _is_tissue(blocks, mean, least, is_ct=is_ct)
    if not is_ct and use.sum() < _FEW:
        use = varies & (mean > _DARK_TISSUE * top)
    if use.sum() < _FEWEST:
        return None
    means, tissue = mean[use], blocks[use]
    power = np.square(tissue @ cosines(BLOCK).T)
    power[:, 0] = 0
    index, groups = _frequencies()
    finest = power[:, (index[1] >= 2) & (index[2] >= 2)]
    scale = float(np.median(finest)) / _MEDIAN_SQUARE or float(finest.mean())
    if not scale > 0:
        return None
    energies = np.quantile(power @ groups, (0.05, 0.25, 0.6), axis=0)
    is_air = _is_air(blocks, mean, top) & varies & (not is_ct)
    marks = np.quantile(means, (0.16, 0.84))
    step = quantum(values)
    figures = [
        np.log(means.mean() ** 2 / scale),
        np.log(((marks[1] - marks[0]) / 2) ** 2 / scale + 1e-3),
        np.log1p(len(tissue)),
        np.log(len(values)),
        use.mean(),
        float((blocks == 0).mean()),
        is_air.mean(),
        np.log(step**2 / scale + 1e-4),
    ]
    parts = [
        np.log(energies / scale + 1e-4).ravel(),
        *_quiet(power, tissue - means[:, None], scale),
        _air(blocks[is_air], mean[is_air], scale),
        _neighbors(values, least, scale),
        np.array(figures),
    ]
    return 0.5 * float(np.log(scale)), np.concatenate(parts).astype(np.float32)


def _is_tissue(blocks: Floats, mean: Floats, least: float, *, is_ct: bool) -> Mask:
    """Test blocks by their mean; those of CT must have no voxel of air."""
    is_bright = mean > least
    return is_bright & (blocks.min(axis=1) > CT_AIR + _AIR_TO_ZERO) if is_ct else is_bright


@lru_cache(maxsize=1)
def _frequencies() -> tuple[Numbers, Floats]:
    """Return the orders of the coefficients along k, j, i [3, 64], and weights of groups [64, g].

    A group has one order in plane, either constant across slices or varying; or one across slices.
    """
    index = np.stack(np.unravel_index(np.arange(_CELLS), (BLOCK,) * 3))
    groups = []
    for across in (index[0] == 0, index[0] > 0):
        for j, i in np.ndindex(BLOCK, BLOCK):
            groups.append(across & (index[1] == j) & (index[2] == i))
    del groups[0]  # the mean of the block
    groups += [(index[0] == k) & (index[1] + index[2] > 0) for k in range(1, BLOCK)]
    members = np.stack(groups).astype(np.float32)
    return index, np.ascontiguousarray((members / members.sum(axis=1, keepdims=True)).T)


def _blocks(values: Floats, most: int) -> Floats:
    """Cut blocks [n, 64], at most `most` of them; small volumes at several offsets."""
    few = np.prod([side // BLOCK for side in values.shape]) < _ENOUGH
    half = BLOCK // 2
    slices = (0, half) if few and len(values) > BLOCK + 1 else (0,)
    starts = (0, half) if few else (0,)
    parts = []
    for k, j, i in product(slices, starts, starts):
        part = values[k:, j:, i:]
        whole = range(0, len(part) // BLOCK * BLOCK, BLOCK)
        parts += [blocks_of_layer(part, layer, BLOCK) for layer in whole]
    blocks = np.concatenate(parts)
    return blocks[:: max(1, -(-len(blocks) // most))]


def _quiet(power: Floats, around: Floats, scale: float) -> list[Doubles]:
    """Measure energies in the quietest blocks, each half of the coefficients in those of the other.

    Eigenvalues of all blocks and of quiet ones follow.
    """
    index, groups = _frequencies()
    odd = index.sum(axis=0) % 2 == 1
    even = ~odd
    even[0] = False
    weight = 1 / np.maximum(np.quantile(power, 0.1, axis=0), 1e-6 * scale)
    energies = [power[:, half] @ weight[half] for half in (even, odd)]
    parts = []
    for share in (0.1, 0.3, 0.6):
        by_even, by_odd = (energy <= np.quantile(energy, share) for energy in energies)
        means = np.where(odd, power[by_even].mean(axis=0), power[by_odd].mean(axis=0))
        means[0] = means[[1, BLOCK, BLOCK**2]].min()
        parts.append(np.log((means @ groups) / scale + 1e-4))
        parts.append(np.log(means[1:].mean() / scale + 1e-4)[None])
    total = energies[0] + energies[1]
    quiet = around[total <= np.quantile(total, 0.4)]
    for some in (around, quiet if len(quiet) > 80 else around):
        values = np.full(_CELLS - 1, scale)
        if len(some) > 70:
            values = np.sort(np.linalg.eigvalsh(np.cov(some.T.astype(np.float64))))[1:]
        parts.append(np.log(np.maximum(values[_EIGENVALUES], 0) / scale + 1e-5))
    return parts


def _is_air(blocks: Floats, mean: Floats, top: float) -> Mask:
    """Select blocks of the background of MR; that of CT is often clipped, with noise of its own."""
    few_zeros = (blocks == 0).mean(axis=1) < 0.25
    return np.asarray((mean < _AIR * top) & (blocks.min(axis=1) >= 0) & few_zeros)


def _air(blocks: Floats, mean: Floats, scale: float) -> Doubles:
    """Measure level and spectrum of the darker half of the air; zeros where there is little."""
    _, groups = _frequencies()
    if len(blocks) < _FEW_OF_AIR:
        return np.zeros(4 + groups.shape[1])
    low = mean <= np.quantile(mean, 0.5)
    variance = np.median(np.square(blocks[low] @ cosines(BLOCK).T), axis=0) / _MEDIAN_SQUARE
    variance[0] = variance[[1, BLOCK, BLOCK**2]].min()
    spread, middle = float(np.sqrt(variance[1:].mean())), float(np.median(mean[low]))
    level = np.array([spread**2 / scale + 1e-6, middle**2 / scale + 1e-6])
    ratio = np.log(middle / max(spread, 1e-9) + 1e-3)
    spectrum = np.log((variance @ groups) / max(spread**2, 1e-12) + 1e-3)
    return np.concatenate([[1.0], np.log(level), [ratio], spectrum])


def _neighbors(values: Floats, least: float, scale: float) -> Doubles:
    """Measure the median difference of tissue voxels 1 to 3 voxels apart, along each axis."""
    result = np.zeros((3, BLOCK - 1))
    for axis in range(3):
        lines = np.moveaxis(values, axis, 0)
        for lag in range(1, min(BLOCK, len(lines))):
            later, earlier = lines[lag:], lines[:-lag]
            inside = (later > least) & (earlier > least)
            if inside.sum() > _FEWEST:
                typical = float(np.median(np.abs((later - earlier)[inside])))
                result[axis, lag - 1] = np.log(typical**2 / scale + 1e-3)
    return result.ravel()
