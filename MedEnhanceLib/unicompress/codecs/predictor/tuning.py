"""Training samples of the predictor, and training of its network on the coded volume (numpy).

The trained network is rounded to integers and stored in the file, so that decoding does not depend
on how it was trained.
Source: gradients of a discretized logistic mixture by hand; Adam, Kingma and Ba, arXiv 1412.6980;
along main axes, which stay as they are here: Vyas and others, arXiv 2409.11321.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from MedEnhanceLib.core.arrays import Floats, Mask, Voxels
from MedEnhanceLib.errors import InputError
from MedEnhanceLib.runtime.progress import Monitor
from MedEnhanceLib.unicompress.codecs.integers import Indices
from MedEnhanceLib.unicompress.codecs.predictor.coder import codable, network_input
from MedEnhanceLib.unicompress.codecs.predictor.features import (
    COUNT,
    FEATURE,
    FINE,
    LOG_STEPS,
    Linear,
    scale_of,
)
from MedEnhanceLib.unicompress.codecs.predictor.integer_network import (
    ACTIVATION,
    LARGEST_ACTIVATION,
    SHAPE,
    SHIFT,
    Network,
    quantize,
)
from MedEnhanceLib.unicompress.codecs.predictor.tables import WIDER

# Tuned on open CT, MR and EM (decision 0071). Measured as a whole by Benchmarks/compression.py.
# Halved or doubled, _RATE changes files of a CT and two MR by −.2 to +.6 %, _BATCH by −.5 to +.7 %.
#: Quantization steps of training samples, for error bounds; 1: lossless.
_STEPS = (1, 1, 1, 1, 3, 5, 9, 17)
_CROP = (24, 96, 96)
#: Most parts that are drawn to find a usable one; volumes that are mostly air need many.
_MOST_DRAWN = 2000
_BATCH = 1024
_RATE = 0.016
#: Samples that the axes of training come from.
_AXES_FROM = 8192
_DECAY = (0.9, 0.98)
_LOG2 = math.log(2)
#: Probabilities are mixed with a small constant, so that no voxel costs too much.
_KEPT, _SPREAD = 0.998, 2e-6
_SMALLEST_SCALE = 1 / 16
#: Logit of the wide component's share: start, and step per shape; see `tables.SHARES`.
_SHARE_START, _SHARE_STEP = -4.0, 0.75
_SHAPE_RANGE = (-0.5, 7.5)


#: n voxels. features: whole numbers; linear: the linear prediction, index: the voxel, scale: the
#: local scale, all in indices.
SAMPLE = np.dtype(
    [("features", "i1", (COUNT,)), ("linear", "f4"), ("scale", "f4"), ("index", "f4")]
)
Samples = npt.NDArray[np.void]


def samples_of(
    indices: Indices,
    count: int,
    generator: np.random.Generator,
    *,
    first: int = 0,
    linear: Linear | None = None,
) -> Samples:
    """Draw voxels of a block.

    Args:
        indices: [K, J, I], `codable`.
        count: how many at most; a voxel that is drawn twice is there once.
        generator: draws them.
        first: slices before this one serve as context only.
        linear: the prediction; None fits it to the block.
    """
    begin = first * indices[0].size
    numbers = np.unique(generator.integers(begin, indices.size, min(count, indices.size - begin)))
    features, predicted, logs = network_input(indices, numbers, linear)
    samples = np.empty(len(numbers), SAMPLE)
    samples["features"] = features
    samples["linear"] = predicted * np.float32(1 / FINE)
    samples["scale"] = scale_of(logs) * np.float32(1 / FINE)
    samples["index"] = indices.reshape(-1)[numbers]
    return samples


def draw_samples(volumes: Sequence[Voxels], count: int, generator: np.random.Generator) -> Samples:
    """Draw voxels of a random part of a random volume, with random augmentation.

    Flips, steps of a bounded error, intensity scaling and noise stand for other scanners.

    Args:
        volumes: each [K, J, I], whole numbers; parts that are not `codable` are drawn again.
        count: how many; fewer if the part has fewer.
        generator: of all random numbers.
    Raises InputError if no `codable` part is found.
    """
    for _ in range(_MOST_DRAWN):
        volume = volumes[int(generator.integers(len(volumes)))]
        indices = _changed(_crop(volume, generator), generator)
        if indices.any() and codable(indices):
            return samples_of(indices, count, generator)
    raise InputError(
        "the predictor cannot learn from the volumes: their values differ by more than it codes",
        "Use volumes of a scanner, with at most 16 bits a voxel.",
    )


def _crop(volume: Voxels, generator: np.random.Generator) -> Voxels:
    parts = []
    for extent, most in zip(volume.shape, _CROP, strict=True):
        start = generator.integers(0, max(extent - most, 0) + 1)
        parts.append(slice(start, start + most))
    return volume[tuple(parts)]


def _changed(voxels: Voxels, generator: np.random.Generator) -> Indices:
    flips = tuple(slice(None, None, -1 if turn else 1) for turn in generator.integers(0, 2, 3))
    wide = voxels[flips].astype(np.int64)
    if generator.random() < 0.15:
        lowest = wide.min()
        noisy = wide * generator.uniform(0.5, 2) + generator.normal(0, 1, wide.shape)
        wide = np.maximum(np.rint(noisy).astype(np.int64), lowest)
    wide = wide - wide.min()
    step = _STEPS[generator.integers(len(_STEPS))]
    return np.ascontiguousarray((wide + step // 2) // step).astype(np.uint32)


def floats_of(network: Network) -> list[Floats]:
    """Convert to the matrices that `quantize` rounds, [out, in + 1]; last in a row is its bias."""
    matrices = []
    unit = FEATURE
    for number, layer in enumerate(network.layers):
        last = number == len(network.layers) - 1
        rows = np.array([[SHIFT], [LOG_STEPS], [SHAPE]] if last else [[ACTIVATION]], np.float32)
        down = np.float32(2.0**-layer.bits)
        bias = layer.bias[:, None] * down - 0.5
        matrices.append(np.hstack([layer.weights * down * unit, bias]) / rows)
        unit = ACTIVATION
    return [matrix.astype(np.float32) for matrix in matrices]


def tune(
    network: Network, samples: Samples, *, steps: int, monitor: Monitor | None = None
) -> Network:
    """Train the network further, the same for the same samples.

    Args:
        network: to begin with; it stays as it is.
        samples: from `samples_of`, in random order.
        steps: of the optimizer.
        monitor: may cancel.
    """
    monitor = monitor or Monitor()
    learner = PredictorLearner(floats_of(network), samples)
    for step in range(steps):
        monitor.check()
        start = step * _BATCH % max(1, len(samples) - _BATCH + 1)
        batch = samples[start : start + _BATCH]
        learner.step(batch, _RATE * min(1.0, (step + 1) / 20) * (1 - step / steps))
    return learner.network()


class PredictorLearner:
    """Training of weights by Adam along the main axes of each layer's inputs and gradients.

    Neighbors are alike, so their weights are too: along the axes a third of the steps suffice.
    """

    def __init__(self, matrices: list[Floats], samples: Samples) -> None:
        """Take the weights to begin with, and samples whose first ones give the axes."""
        self.matrices = matrices
        _, inputs, backs = _passes(matrices, samples[:_AXES_FROM])
        pairs = zip(backs, inputs, strict=True)
        self._axes = [(_main_axes(back), _main_axes(x)) for back, x in pairs]
        self._mean = np.zeros(sum(matrix.size for matrix in matrices), np.float32)
        self._square, self._steps = np.zeros_like(self._mean), 0

    def step(self, samples: Samples, rate: float) -> float:
        """Take a step on samples; returns their mean bits before it."""
        self._steps += 1
        bits, inputs, backs = _passes(self.matrices, samples)
        layers = zip(backs, inputs, self._axes, strict=True)
        turned = [(rows.T @ (back.T @ x) @ columns).ravel() for back, x, (rows, columns) in layers]
        gradient = np.concatenate(turned)
        self._mean += (1 - _DECAY[0]) * (gradient - self._mean)
        self._square += (1 - _DECAY[1]) * (gradient * gradient - self._square)
        spread = np.sqrt(self._square / np.float32(1 - _DECAY[1] ** self._steps)) + 1e-8
        change = self._mean / spread * np.float32(rate / (1 - _DECAY[0] ** self._steps))
        parts = np.split(change, np.cumsum([part.size for part in turned])[:-1])
        changed = zip(self.matrices, parts, self._axes, strict=True)
        for matrix, part, (rows, columns) in changed:
            matrix -= rows @ part.reshape(matrix.shape) @ columns.T
        return bits

    def network(self) -> Network:
        """Round to whole numbers."""
        return quantize([m[:, :-1] for m in self.matrices], [m[:, -1] for m in self.matrices])


def ideal_bits(network: Network, samples: Samples) -> float:
    """Compute the mean bits of a voxel."""
    return _passes(floats_of(network), samples)[0]


def _passes(matrices: list[Floats], samples: Samples) -> tuple[float, list[Floats], list[Floats]]:
    """Compute mean bits, inputs of layers with ones, [n, in + 1], derivatives by outputs, [n, out].

    The gradient by a matrix is the product of the two.
    """
    ones = np.ones(len(samples), np.float32)
    inputs = [np.column_stack([samples["features"] * np.float32(1 / FEATURE), ones])]
    for matrix in matrices[:-1]:
        sums = inputs[-1] @ matrix.T
        inputs.append(np.column_stack([np.clip(sums, 0, LARGEST_ACTIVATION, out=sums), ones]))
    bits, back = _loss((inputs[-1] @ matrices[-1].T).astype(np.float32, copy=False), samples)
    backs = [back / np.float32(len(samples))]
    for matrix, x in zip(matrices[:0:-1], inputs[:0:-1], strict=True):
        acts = (x > 0) & (x < LARGEST_ACTIVATION)
        backs.insert(0, ((backs[0] @ matrix) * acts)[:, :-1])
    return float(bits.mean()), inputs, backs


def _main_axes(rows: Floats) -> Floats:
    """Compute the axes, one a column, along which rows [n, m] do not vary together."""
    wide = rows.astype(np.float64)
    axes: Floats = np.linalg.eigh(wide.T @ wide)[1].astype(np.float32)
    return axes


def _loss(outputs: Floats, samples: Samples) -> tuple[Floats, Floats]:
    """Compute the bits of each voxel, and their derivatives by the three outputs, [n, 3]."""
    shift, log, shape = np.ascontiguousarray(outputs.T)
    index, scale = samples["index"], samples["scale"]
    off = index - samples["linear"] - scale * shift
    scales = scale * np.exp2(np.clip(log, -30, 30))
    width = np.maximum(scales, np.float32(_SMALLEST_SCALE))
    share = _logistic(_SHARE_START + _SHARE_STEP * np.clip(shape, *_SHAPE_RANGE))
    widths = np.stack([width, width * np.float32(WIDER)])
    (near, far), by_off, by_log = _mass(off, widths, index <= 0)
    mass = near + share * (far - near)
    mixed = np.float32(_KEPT) * mass + np.float32(_SPREAD)
    by_mass = -_KEPT / (_LOG2 * mixed)
    gradient = np.empty_like(outputs)
    gradient[:, 0] = by_mass * -scale * (by_off[0] + share * (by_off[1] - by_off[0]))
    by_scale = by_log[0] + share * (by_log[1] - by_log[0])
    gradient[:, 1] = by_mass * _LOG2 * by_scale * (scales >= _SMALLEST_SCALE)
    inside = (shape > _SHAPE_RANGE[0]) & (shape < _SHAPE_RANGE[1])
    gradient[:, 2] = by_mass * _SHARE_STEP * share * (1 - share) * (far - near) * inside
    np.clip(gradient, -8, 8, out=gradient)
    return -np.log2(mixed), gradient


def _mass(off: Floats, widths: Floats, lowest: Mask) -> tuple[Floats, Floats, Floats]:
    """Compute an index's probability, `off` from the center, and its derivatives, each [2, n].

    They are by `off` and by log(width), at both of the widths [2, n]. The lowest index includes all
    probability below it.
    """
    sign = np.where(off > 0, np.float32(-1), np.float32(1))
    upper: Floats = (off + np.float32(0.5)) / widths
    lower: Floats = (off - np.float32(0.5)) / widths
    # In the lower tail differences of small numbers are exact; both tails are alike.
    above, below = _logistic(sign * upper), _logistic(sign * lower)
    slope_above, slope_below = above * (1 - above), below * (1 - below)
    below = np.where(lowest, np.where(sign > 0, np.float32(0), np.float32(1)), below)
    slope_below = np.where(lowest, np.float32(0), slope_below)
    by_off = (slope_above - slope_below) / widths
    by_log: Floats = lower * slope_below - upper * slope_above
    return sign * (above - below), by_off.astype(np.float32, copy=False), by_log


def _logistic(x: Floats) -> Floats:
    logistic: Floats = np.float32(1) / (np.float32(1) + np.exp(-np.clip(x, -60, 60)))
    return logistic
