"""The network, in integers: features → shift, scale and shape of a voxel's distribution.

    features [F, n] → ReLU layer → ReLU layer → 3 numbers

Weights, biases and activations are integers in float32; every sum stays below 2²⁴, so that it is
exact in whatever order it is summed. Layers end with a power of two and floor.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from MedEnhanceLib.core.arrays import Doubles, Floats, Ints
from MedEnhanceLib.unicompress.codecs.predictor.features import COUNT, FEATURE, LOG_STEPS

#: Activations are in 1/32 and end at 8.
ACTIVATION = 32
LARGEST_ACTIVATION = 8.0
_LARGEST = 255.0
_LARGEST_WEIGHT = 2047
#: Outputs: shift in 1/64 of the local scale, scale in 1/16 octave of it, shape in whole steps.
SHIFT, SHAPE = 64, 1
_LAYERS = 3
#: Nodes of a layer for which the compiled coder has room; every model that ships has 32.
MOST_WIDTH = 64
#: Classes of scale: four an octave, from 1/16 of an index; see `tables`.
SCALE_CLASSES = 80
SHAPES = 8


@dataclass(frozen=True)
class IntegerLayer:
    """A layer of whole numbers.

    Attributes:
        weights, bias: [out, in] and [out].
        bits: the sum is divided by 2 ** bits.
    """

    weights: Floats
    bias: Floats
    bits: int


class Network:
    """Three layers of integers, checked to be exact."""

    def __init__(self, layers: tuple[IntegerLayer, ...]) -> None:
        """Raise ValueError unless the layers fit each other and every sum is exact."""
        self.layers = layers
        if len(layers) != _LAYERS:
            raise ValueError(f"{len(layers)} layers instead of {_LAYERS}")
        width, largest = COUNT, 127.0
        for layer in layers:
            whole = np.isfinite(layer.weights).all() and np.isfinite(layer.bias).all()
            if layer.weights.ndim != 2 or layer.weights.shape[1] != width or not whole:
                raise ValueError("layers that do not fit each other")
            if layer.bias.shape != layer.weights.shape[:1] or not 0 <= layer.bits <= 20:
                raise ValueError("a bias that does not fit its layer")
            sums = np.abs(layer.weights).sum(axis=1) * largest + np.abs(layer.bias)
            wide = (np.abs(layer.weights) >= 1 << 15).any()
            if len(layer.weights) > MOST_WIDTH or wide or not (sums < 1 << 24).all():
                raise ValueError("weights whose sums would not be exact, or too many of them")
            width, largest = len(layer.weights), _LARGEST
        if width != 3:
            raise ValueError(f"{width} outputs instead of 3")
        #: Weights and bias side by side, divided by 2 ** bits: as exact as whole numbers.
        self.matrices = [
            np.concatenate([layer.weights, layer.bias[:, None]], axis=1)
            * np.float32(2.0**-layer.bits)
            for layer in layers
        ]

        #: For the compiled coder, rows of 32 bits: the bias, then pairs of weights in 16 bits each.
        self.packed = [
            np.concatenate([layer.bias.astype("<i4")[:, None], _pairs(layer.weights)], axis=1)
            for layer in layers
        ]

    @classmethod
    def from_tensors(cls, tensors: Mapping[str, npt.NDArray[np.generic]]) -> Network:
        """Read a model's arrays; raises ValueError if they are invalid."""
        layers = []
        for number in range(_LAYERS):
            try:
                weights, bias = tensors[f"weights{number}"], tensors[f"bias{number}"]
                bits = int(tensors["bits"][number])
            except (KeyError, IndexError) as cause:
                raise ValueError(f"layer {number} is missing") from cause
            if weights.dtype.kind != "i" or bias.dtype.kind != "i":
                raise ValueError("weights that are not whole numbers")
            layers.append(IntegerLayer(weights.astype(np.float32), bias.astype(np.float32), bits))
        return cls(tuple(layers))

    def tensors(self) -> dict[str, npt.NDArray[np.generic]]:
        """Convert to arrays as `from_tensors` takes them."""
        arrays: dict[str, npt.NDArray[np.generic]] = {
            "bits": np.array([layer.bits for layer in self.layers], np.int8)
        }
        for number, layer in enumerate(self.layers):
            narrow = np.abs(layer.weights).max(initial=0) < 128
            arrays[f"weights{number}"] = layer.weights.astype(np.int8 if narrow else np.int16)
            arrays[f"bias{number}"] = layer.bias.astype(np.int32)
        return arrays


def _pairs(weights: Floats) -> Ints:
    """Lay two weights side by side in 32 bits, the first in the lower ones; an odd one gets a 0."""
    even = np.pad(weights, ((0, 0), (0, weights.shape[1] % 2)))
    return even.astype("<i2").view("<i4")


def quantize(
    weights: list[npt.NDArray[np.floating]], biases: list[npt.NDArray[np.floating]]
) -> Network:
    """Round a trained network to integers.

    weights [out, in] and biases act on features in units of the local scale (FEATURE steps each),
    activations of ACTIVATION steps, and give shift in local scales, log2 of the scale in local
    scales, and shape in whole steps.
    """
    layers = []
    unit = float(FEATURE)
    for number, (matrix, bias) in enumerate(zip(weights, biases, strict=True)):
        last = number == len(weights) - 1
        per_row = np.array([SHIFT, LOG_STEPS, SHAPE], np.float64) if last else ACTIVATION
        # To integers: out · per_row = (W / unit · in_int) · per_row
        scaled = np.asarray(matrix, np.float64) * (np.reshape(per_row, (-1, 1)) / unit)
        # Rounding to the nearest: floor of the sum and a half.
        offset = np.asarray(bias, np.float64) * per_row + 0.5
        bits = _bits_for(scaled, offset, 127.0 if number == 0 else _LARGEST)
        layers.append(
            IntegerLayer(
                np.rint(scaled * 2.0**bits).astype(np.float32),
                np.rint(offset * 2.0**bits).astype(np.float32),
                bits,
            )
        )
        unit = float(ACTIVATION)
    return Network(tuple(layers))


def _bits_for(scaled: Doubles, offset: Doubles, largest: float) -> int:
    """Find the most fractional bits that keep weights narrow and all sums exact."""
    for bits in range(12, 0, -1):
        weights = np.abs(np.rint(scaled * 2.0**bits))
        sums = weights.sum(axis=1) * largest + np.abs(offset) * 2.0**bits
        if weights.max() <= _LARGEST_WEIGHT and sums.max() < (1 << 24) - 64:
            return bits
    return 0
