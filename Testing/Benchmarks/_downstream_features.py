"""Radiomic features in a region: intensities, histogram, GLCM, GLRLM and GLSZM, in 3D.

Definitions of the Image Biomarker Standardization Initiative (Zwanenburg et al., Radiology 295
(2020) 328; manual arXiv 1612.07003): matrices over all 13 directions merged, distance 1, zones of
26 neighbors. Held against the initiative's digital phantom in the tests.
"""

from __future__ import annotations

from itertools import product
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.ndimage import label

Array = npt.NDArray[Any]
Doubles = npt.NDArray[np.float64]
Features = dict[str, float]
#: One of each pair of opposite neighbors.
_DIRECTIONS = [step for step in product((-1, 0, 1), repeat=3) if step > (0, 0, 0)]


def all_features(voxels: Array, inside: Array, levels: Array) -> Features:
    """Every feature; voxels and levels (1 and on, whole numbers) are looked at where `inside`.

    Arrays are [K, J, I]. Names begin with the family.
    """
    box = _box(inside)
    voxels, inside = voxels[box], inside[box]
    gray = np.where(inside, levels[box], 0)
    families = {
        "intensity": intensity_features(voxels[inside].astype(np.float64)),
        "histogram": histogram_features(gray[inside]),
        "glcm": cooccurrence_features(cooccurrence(gray)),
        "glrlm": run_features(run_lengths(gray), int(inside.sum()) * len(_DIRECTIONS)),
        "glszm": run_features(zone_sizes(gray), int(inside.sum())),
    }
    return {
        f"{family}, {name}": float(value)
        for family, features in families.items()
        for name, value in features.items()
    }


def bins_of_width(voxels: Array, inside: Array, width: float, low: float) -> Array:
    """Levels of a fixed width that begin at `low`: for calibrated units, as HU are."""
    return np.maximum(np.floor((voxels.astype(np.float64) - low) / width).astype(np.int64), 0) + 1


def bins_by_number(voxels: Array, inside: Array, count: int) -> Array:
    """A fixed number of levels from the least to the largest inside: for arbitrary units."""
    values = voxels[inside].astype(np.float64)
    low, high = values.min(), values.max()
    share = (voxels.astype(np.float64) - low) / max(high - low, np.finfo(float).tiny)
    return np.clip(np.floor(count * share).astype(np.int64) + 1, 1, count)


def intensity_features(x: Doubles) -> Features:
    """Statistics of the voxels as they are."""
    mean, median = x.mean(), np.median(x)
    centered = x - mean
    variance = np.square(centered).mean()
    p10, p25, p75, p90 = np.percentile(x, (10, 25, 75, 90))
    robust = x[(x >= p10) & (x <= p90)]
    spread = np.sqrt(variance) or 1.0
    return {
        "mean": mean,
        "variance": variance,
        "skewness": (centered**3).mean() / spread**3,
        "kurtosis": (centered**4).mean() / spread**4 - 3,
        "median": median,
        "minimum": x.min(),
        "10th percentile": p10,
        "90th percentile": p90,
        "maximum": x.max(),
        "interquartile range": p75 - p25,
        "range": np.ptp(x),
        "mean absolute deviation": np.abs(centered).mean(),
        "robust mean absolute deviation": np.abs(robust - robust.mean()).mean(),
        "median absolute deviation": np.abs(x - median).mean(),
        "coefficient of variation": _ratio(np.sqrt(variance), mean),
        "quartile dispersion": _ratio(p75 - p25, p75 + p25),
        "energy": np.square(x).sum(),
        "root mean square": np.sqrt(np.square(x).mean()),
    }


def histogram_features(levels: Array) -> Features:
    """Of the levels: how many are taken, and how evenly."""
    share = np.bincount(levels) / levels.size
    return {"entropy": _entropy(share), "uniformity": np.square(share).sum()}


def cooccurrence(gray: Array) -> Doubles:
    """Shares of pairs of neighboring levels [N, N], symmetrical; 0 is outside."""
    count = int(gray.max())
    pairs = np.zeros((count + 1) ** 2)
    for step in _DIRECTIONS:
        near, far = _neighbors(gray, step)
        codes = (near.astype(np.int64) * (count + 1) + far).ravel()
        pairs += np.bincount(codes, minlength=pairs.size)
    matrix = pairs.reshape(count + 1, count + 1)[1:, 1:]
    matrix = matrix + matrix.T
    return matrix / max(matrix.sum(), 1)


def run_lengths(gray: Array) -> Doubles:
    """How many runs of each level have each length, [N, L]."""
    padded = np.pad(gray, 1)
    flat = padded.ravel()
    strides = np.array([padded.shape[1] * padded.shape[2], padded.shape[2], 1])
    runs: list[tuple[Array, Array]] = []
    for step in _DIRECTIONS:
        offset = int(np.dot(step, strides))
        places = np.flatnonzero(flat)
        begin = places[flat[places - offset] != flat[places]]
        length, place = np.ones(begin.size, np.int64), begin
        alive = np.arange(begin.size)
        while alive.size:
            place = place + offset
            goes_on = flat[place] == flat[begin[alive]]
            alive, place = alive[goes_on], place[goes_on]
            length[alive] += 1
        runs.append((flat[begin], length))
    return _counted(*(np.concatenate(part) for part in zip(*runs, strict=True)))


def zone_sizes(gray: Array) -> Doubles:
    """How many connected zones of each level have each size, [N, S]."""
    everywhere = np.ones((3, 3, 3))
    levels, sizes = [], []
    for level in np.unique(gray[gray > 0]):
        parts, _ = label(gray == level, everywhere)
        zone_sizes = np.bincount(parts.ravel())[1:]
        sizes.append(zone_sizes)
        levels.append(np.full(zone_sizes.size, level))
    return _counted(np.concatenate(levels), np.concatenate(sizes))


def cooccurrence_features(p: Doubles) -> Features:
    """p: what `cooccurrence` gives."""
    levels = np.arange(1, len(p) + 1, dtype=np.float64)
    i, j = np.meshgrid(levels, levels, indexing="ij")
    count = len(p)
    gap, total = np.abs(i - j), i + j
    marginal = p.sum(axis=1)
    mean = float((levels * marginal).sum())
    variance = float((np.square(levels - mean) * marginal).sum())
    differences = np.bincount(gap.astype(int).ravel(), p.ravel())
    sums = np.bincount(total.astype(int).ravel(), p.ravel())
    steps = np.arange(len(differences))
    entropy, entropy_1d = _entropy(p), _entropy(marginal)
    product_ = np.outer(marginal, marginal)
    crossed = -float((p[p > 0] * np.log2(product_[p > 0])).sum())
    independent = _entropy(product_)
    mean_gap = float((steps * differences).sum())
    mean_sum = float((total * p).sum())
    return {
        "joint maximum": p.max(),
        "joint average": mean,
        "joint variance": variance,
        "joint entropy": entropy,
        "difference average": mean_gap,
        "difference variance": (np.square(steps - mean_gap) * differences).sum(),
        "difference entropy": _entropy(differences),
        "sum average": mean_sum,
        "sum variance": (np.square(total - mean_sum) * p).sum(),
        "sum entropy": _entropy(sums),
        "angular second moment": np.square(p).sum(),
        "contrast": (np.square(gap) * p).sum(),
        "dissimilarity": (gap * p).sum(),
        "inverse difference": (p / (1 + gap)).sum(),
        "normalized inverse difference": (p / (1 + gap / count)).sum(),
        "inverse difference moment": (p / (1 + np.square(gap))).sum(),
        "normalized inverse difference moment": (p / (1 + np.square(gap / count))).sum(),
        "inverse variance": (p[gap > 0] / np.square(gap[gap > 0])).sum(),
        "correlation": _ratio(((i - mean) * (j - mean) * p).sum(), variance),
        "autocorrelation": (i * j * p).sum(),
        "cluster tendency": (np.square(total - 2 * mean) * p).sum(),
        "cluster shade": ((total - 2 * mean) ** 3 * p).sum(),
        "cluster prominence": ((total - 2 * mean) ** 4 * p).sum(),
        "information correlation 1": _ratio(entropy - crossed, entropy_1d),
        "information correlation 2": np.sqrt(max(1 - np.exp(-2 * (independent - entropy)), 0)),
    }


def run_features(counts: Doubles, possible: int) -> Features:
    """counts: [N levels, L lengths or sizes]. possible: how many there were if each were 1 long."""
    levels = np.arange(1, counts.shape[0] + 1, dtype=np.float64)[:, None]
    sizes = np.arange(1, counts.shape[1] + 1, dtype=np.float64)[None]
    total = counts.sum()
    p = counts / total
    by_level, by_size = counts.sum(axis=1), counts.sum(axis=0)
    mean_level, mean_size = (levels * p).sum(), (sizes * p).sum()
    return {
        "short emphasis": (p / sizes**2).sum(),
        "long emphasis": (p * sizes**2).sum(),
        "low gray level emphasis": (p / levels**2).sum(),
        "high gray level emphasis": (p * levels**2).sum(),
        "short low gray level emphasis": (p / sizes**2 / levels**2).sum(),
        "short high gray level emphasis": (p / sizes**2 * levels**2).sum(),
        "long low gray level emphasis": (p * sizes**2 / levels**2).sum(),
        "long high gray level emphasis": (p * sizes**2 * levels**2).sum(),
        "gray level non-uniformity": np.square(by_level).sum() / total,
        "normalized gray level non-uniformity": np.square(by_level).sum() / total**2,
        "size non-uniformity": np.square(by_size).sum() / total,
        "normalized size non-uniformity": np.square(by_size).sum() / total**2,
        "percentage": total / possible,
        "gray level variance": (np.square(levels - mean_level) * p).sum(),
        "size variance": (np.square(sizes - mean_size) * p).sum(),
        "entropy": _entropy(p),
    }


def _counted(levels: Array, sizes: Array) -> Doubles:
    width = int(sizes.max()) + 1
    codes = levels.astype(np.int64) * width + sizes
    table = np.bincount(codes, minlength=(int(levels.max()) + 1) * width)
    return table.reshape(-1, width)[1:, 1:].astype(np.float64)


def _neighbors(gray: Array, step: tuple[int, int, int]) -> tuple[Array, Array]:
    near = tuple(slice(max(-d, 0), n - max(d, 0)) for d, n in zip(step, gray.shape, strict=True))
    far = tuple(slice(max(d, 0), n - max(-d, 0)) for d, n in zip(step, gray.shape, strict=True))
    return gray[near], gray[far]


def _entropy(share: Array) -> float:
    taken = share[share > 0]
    return -float((taken * np.log2(taken)).sum())


def _ratio(above: float, below: float) -> float:
    return float(above / below) if below else 0.0


def _box(inside: Array) -> tuple[slice, ...]:
    places = np.argwhere(inside)
    low, high = places.min(axis=0), places.max(axis=0) + 1
    return tuple(slice(int(a), int(b)) for a, b in zip(low, high, strict=True))
