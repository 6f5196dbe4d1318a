"""Training samples of the predictor, and training of its network on the coded volume (numpy).

The trained network is rounded to integers and stored in the file, so that decoding does not depend
on how it was trained.
Source: gradients of a discretized logistic mixture by hand; Adam, Kingma and Ba, arXiv 1412.6980.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

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

#: Quantization steps of training samples, for error bounds; 1: lossless.
_STEPS = (1, 1, 1, 1, 3, 5, 9, 17)
_CROP = (24, 96, 96)
#: Most parts that are drawn to find a usable one; volumes that are mostly air need many.
_MOST_DRAWN = 2000
_BATCH = 1024
_RATE = 8e-3
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
    indices: Indices, count: int, generator: np.random.Generator, *, first: int = 0
) -> Samples:
    """Draw voxels of a block.

    Args:
        indices: [K, J, I], `codable`.
        count: how many; fewer if the block has fewer.
        generator: draws with replacement.
        first: slices before this one serve as context only.
    """
    begin = first * indices[0].size
    drawn = generator.integers(begin, indices.size, min(count, indices.size - begin))
    numbers, places = np.unique(drawn, return_inverse=True)
    features, predicted, logs = network_input(indices, numbers)
    samples = np.empty(len(numbers), SAMPLE)
    samples["features"] = features
    samples["linear"] = predicted * np.float32(1 / FINE)
    samples["scale"] = scale_of(logs) * np.float32(1 / FINE)
    samples["index"] = indices.reshape(-1)[numbers]
    return samples[places]


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


@dataclass
class Weights:
    """Weights of a network in floating point.

    Attributes:
        matrices, biases: [out, in] and [out] of each layer.
    """

    matrices: list[Floats]
    biases: list[Floats]

    @classmethod
    def of(cls, network: Network) -> Weights:
        """Convert a network to floating point: the inverse of `quantize`."""
        matrices, biases = [], []
        unit = FEATURE
        for number, layer in enumerate(network.layers):
            last = number == len(network.layers) - 1
            rows = np.array([SHIFT, LOG_STEPS, SHAPE] if last else [ACTIVATION], np.float32)
            down = np.float32(2.0**-layer.bits)
            matrices.append(layer.weights * down * unit / rows[:, None])
            biases.append((layer.bias * down - 0.5) / rows)
            unit = ACTIVATION
        return cls([m.astype(np.float32) for m in matrices], [b.astype(np.float32) for b in biases])

    def network(self) -> Network:
        """Round to whole numbers."""
        return quantize(list(self.matrices), list(self.biases))

    @property
    def arrays(self) -> list[Floats]:
        """All matrices, then all biases, to be changed in place."""
        return [*self.matrices, *self.biases]


def tune(
    network: Network, samples: Samples, *, steps: int, monitor: Monitor | None = None
) -> Network:
    """Train the network further, the same for the same samples.

    Args:
        network: to begin with; it stays as it is.
        samples: from `samples_of`.
        steps: of the optimizer.
        monitor: may cancel.
    """
    monitor = monitor or Monitor()
    learner = PredictorLearner(Weights.of(network))
    generator = np.random.default_rng(0)
    for step in range(steps):
        monitor.check()
        batch = samples[generator.integers(0, len(samples), _BATCH)]
        learner.step(batch, _RATE * min(1.0, (step + 1) / 20) * (1 - step / steps))
    return learner.weights.network()


class PredictorLearner:
    """Training of weights by Adam."""

    def __init__(self, weights: Weights) -> None:
        self.weights = weights
        self._means = [np.zeros_like(array) for array in weights.arrays]
        self._squares = [np.zeros_like(array) for array in weights.arrays]
        self._steps = 0

    def step(self, samples: Samples, rate: float) -> float:
        """Take a step on samples; returns their mean bits before it."""
        self._steps += 1
        bits, gradients = bits_and_gradients(self.weights, samples)
        state = zip(self.weights.arrays, gradients, self._means, self._squares, strict=True)
        for array, gradient, mean, square in state:
            mean += (1 - _DECAY[0]) * (gradient - mean)
            square += (1 - _DECAY[1]) * (gradient * gradient - square)
            unbiased = mean / (1 - _DECAY[0] ** self._steps)
            spread = np.sqrt(square / (1 - _DECAY[1] ** self._steps)) + 1e-8
            array -= np.float32(rate) * unbiased / spread
        return bits


def ideal_bits(network: Network, samples: Samples) -> float:
    """Compute the mean bits of a voxel."""
    return bits_and_gradients(Weights.of(network), samples)[0]


def bits_and_gradients(weights: Weights, samples: Samples) -> tuple[float, list[Floats]]:
    """Compute the mean bits of samples, and its gradient by matrices, then biases."""
    inputs = [samples["features"].astype(np.float32) * np.float32(1 / FEATURE)]
    for matrix, bias in zip(weights.matrices[:-1], weights.biases[:-1], strict=True):
        sums = (inputs[-1] @ matrix.T + bias).astype(np.float32, copy=False)
        inputs.append(np.clip(sums, 0, LARGEST_ACTIVATION, out=sums))
    outputs = inputs[-1] @ weights.matrices[-1].T + weights.biases[-1]
    bits, back = _loss(outputs.astype(np.float32, copy=False), samples)
    back /= np.float32(len(samples))
    by_matrix, by_bias = [], []
    for layer in range(len(weights.matrices) - 1, -1, -1):
        by_matrix.append(back.T @ inputs[layer])
        by_bias.append(back.sum(axis=0))
        if layer:
            acts = (inputs[layer] > 0) & (inputs[layer] < LARGEST_ACTIVATION)
            back = (back @ weights.matrices[layer]) * acts
    return float(bits.mean()), by_matrix[::-1] + by_bias[::-1]


def _loss(outputs: Floats, samples: Samples) -> tuple[Floats, Floats]:
    """Compute the bits of each voxel, and their derivatives by the three outputs, [n, 3]."""
    index, scale = samples["index"], samples["scale"]
    off = index - samples["linear"] - scale * outputs[:, 0]
    scales = scale * np.exp2(np.clip(outputs[:, 1], -30, 30))
    width = np.maximum(scales, np.float32(_SMALLEST_SCALE))
    share = _logistic(_SHARE_START + _SHARE_STEP * np.clip(outputs[:, 2], *_SHAPE_RANGE))
    lowest = index <= 0
    near, near_by_off, near_by_log = _mass(off, width, lowest)
    far, far_by_off, far_by_log = _mass(off, width * np.float32(WIDER), lowest)
    mass = near + share * (far - near)
    mixed = np.float32(_KEPT) * mass + np.float32(_SPREAD)
    by_mass = -_KEPT / (_LOG2 * mixed)
    gradient = np.empty_like(outputs)
    gradient[:, 0] = by_mass * -scale * (near_by_off + share * (far_by_off - near_by_off))
    by_log = near_by_log + share * (far_by_log - near_by_log)
    gradient[:, 1] = by_mass * _LOG2 * by_log * (scales >= _SMALLEST_SCALE)
    inside = (outputs[:, 2] > _SHAPE_RANGE[0]) & (outputs[:, 2] < _SHAPE_RANGE[1])
    gradient[:, 2] = by_mass * _SHARE_STEP * share * (1 - share) * (far - near) * inside
    np.clip(gradient, -8, 8, out=gradient)
    return -np.log2(mixed), gradient


def _mass(off: Floats, width: Floats, lowest: Mask) -> tuple[Floats, Floats, Floats]:
    """Compute an index's probability, `off` from the center, and its derivatives.

    They are by `off` and by log(width). The lowest index includes all probability below it.
    """
    sign = np.where(off > 0, np.float32(-1), np.float32(1))
    upper: Floats = (off + np.float32(0.5)) / width
    lower: Floats = (off - np.float32(0.5)) / width
    # In the lower tail differences of small numbers are exact; both tails are alike.
    above, below = _logistic(sign * upper), _logistic(sign * lower)
    slope_above, slope_below = above * (1 - above), below * (1 - below)
    below = np.where(lowest, np.where(sign > 0, np.float32(0), np.float32(1)), below)
    slope_below = np.where(lowest, np.float32(0), slope_below)
    lower = np.where(lowest, np.float32(0), lower)
    by_off = (slope_above - slope_below) / width
    by_log = lower * slope_below - upper * slope_above
    return sign * (above - below), by_off.astype(np.float32), by_log.astype(np.float32)


def _logistic(x: Floats) -> Floats:
    logistic: Floats = np.float32(1) / (np.float32(1) + np.exp(-np.clip(x, -60, 60)))
    return logistic
