"""Undoes some of what a video code did to its slices: a small network in integers, by numpy alone.

It sees the slice before, the slice and the one after, cut into cells of 2 × 2 voxels, in units of
the code's own noise and less their surroundings' mean; five layers of 3 × 3 cells tell the error,
which is one term of a block's filter (wiener.py).
Weights are 8 bits, activations 0 to 255: every partial sum stays below 2^24, so float32 holds it
exactly, whatever order a machine adds in. Blocks are restored alone.
Source: reconstructed; a residual network after decoding is common practice (arXiv 1608.03981).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt

from MedEnhanceLib.errors import ModelError
from MedEnhanceLib.unicompress import wiener
from MedEnhanceLib.unicompress.models import CodecModel

Ints = npt.NDArray[np.int32]
Frames = npt.NDArray[np.uint16]
Floats = npt.NDArray[np.float32]

ROLE, LAYOUT = "restoration", "cells-1"
#: 2^16 · 2^(i/8) and 2^16 · 2^(−i/8): the noise is told in eighths of an octave.
_OCTAVE = (65536, 71468, 77936, 84990, 92682, 101070, 110218, 120194)
_INVERSE = (65536, 60097, 55109, 50535, 46341, 42495, 38968, 35734)
MOST_NOISE = 127
LARGEST_INPUT, LARGEST_ACTIVATION, LARGEST_WEIGHT = 1023, 255, 127
#: Weights count in 128ths, activations in 16ths, so the last layer's sums in 2048ths.
WEIGHT_BITS, ACTIVATION_BITS = 7, 4
SUM_BITS = WEIGHT_BITS + ACTIVATION_BITS
INPUTS, OUTPUTS = 12, 4
_EXACT = 1 << 24
_REACH = 8
#: Rows of cells at a time: what a layer gathers for them stays in a processor's cache.
_STRIP_VALUES = 1 << 19


@dataclass(frozen=True)
class Network:
    """weights: per layer [outputs, 9 · inputs], tap by tap; biases: [outputs]; all integers."""

    weights: tuple[Floats, ...]
    biases: tuple[Floats, ...]


@lru_cache(maxsize=8)
def network_of(model: CodecModel) -> Network:
    """The layers of a model; raises ModelError where they are not what this version knows."""
    tensors = model.tensors()
    layers = len(tensors) // 2
    try:
        if model.facts.get("layout") != LAYOUT:
            raise ValueError(f"layout {model.facts.get('layout')!r}")
        weights = [tensors[f"weight{n}"] for n in range(layers)]
        biases = [tensors[f"bias{n}"] for n in range(layers)]
        _check(weights, biases)
    except (KeyError, ValueError) as cause:
        raise ModelError(
            f"the model {model.id} ({model.role}) cannot be used: {cause}",
            "Install the MedEnhance that the file was written with, or a newer one.",
        ) from cause
    flat = [w.transpose(0, 2, 3, 1).reshape(len(w), -1).astype(np.float32) for w in weights]
    return Network(tuple(flat), tuple(b.astype(np.float32)[:, None] for b in biases))


def _check(weights: list[npt.NDArray[Any]], biases: list[npt.NDArray[Any]]) -> None:
    channels, largest = INPUTS, LARGEST_INPUT
    for weight, bias in zip(weights, biases, strict=True):
        if weight.dtype != np.int8 or bias.dtype != np.int32:
            raise ValueError(f"weights of type {weight.dtype}, biases of {bias.dtype}")
        if weight.ndim != 4 or weight.shape[1:] != (channels, 3, 3) or len(weight) != len(bias):
            raise ValueError(f"a layer of {weight.shape}, {channels} channels expected")
        sums = np.abs(weight.astype(np.int64)).sum(axis=(1, 2, 3)) * largest
        if (sums + np.abs(bias.astype(np.int64)) >= _EXACT).any():
            raise ValueError("sums that float32 does not hold exactly")
        channels, largest = len(weight), LARGEST_ACTIVATION
    if channels != OUTPUTS:
        raise ValueError(f"{channels} outputs")


def noise_code(mean_square: float) -> int:
    """The noise as a file tells it: σ = 2^((code − 32) / 8) intensities."""
    if mean_square <= 0:
        return 0
    return int(np.clip(round(4 * np.log2(mean_square) + 32), 0, MOST_NOISE))


def predict(frames: Frames, noise: int, network: Network) -> Ints:
    """What is to be added to decoded slices [K, H, W], in units of σ / 2048."""
    height, width = frames.shape[1:]
    even = np.pad(frames, ((1, 1), (0, height % 2), (0, width % 2)), mode="edge").astype(np.int32)
    residual = np.empty(frames.shape, np.int32)
    for k in range(len(frames)):
        outputs = _run(inputs_of(even[k : k + 3], noise), network)
        residual[k] = _joined(outputs)[:height, :width]
    return residual


def added(residual: Ints, noise: int) -> Ints:
    """What a residual says is missing, in 16ths of an intensity."""
    octaves, eighth = divmod(noise, 8)
    factor = wiener.PARTS * _OCTAVE[eighth] << octaves
    whole = residual.astype(np.int64) * factor >> (20 + SUM_BITS)
    cut: Ints = np.clip(whole, -wiener.LARGEST_ADDED, wiener.LARGEST_ADDED).astype(np.int32)
    return cut


def inputs_of(three: Ints, noise: int) -> Floats:
    """Three slices of even extents, [3, H, W], → [12, H / 2, W / 2], integers −1023 to 1023.

    In eighths of σ, less the mean of 17 × 17 voxels of the middle slice.
    """
    octaves, eighth = divmod(noise, 8)
    scaled = (three - _surroundings(three[1])).astype(np.int64) * (_INVERSE[eighth] * 128)
    clipped = np.clip(scaled >> (16 + octaves), -LARGEST_INPUT, LARGEST_INPUT)
    height, width = three.shape[1:]
    cells = clipped.reshape(3, height // 2, 2, width // 2, 2).transpose(0, 2, 4, 1, 3)
    return np.ascontiguousarray(cells.reshape(INPUTS, height // 2, width // 2), np.float32)


def _surroundings(image: Ints) -> Ints:
    side = 2 * _REACH + 1
    sums = np.pad(image, _REACH, mode="edge").astype(np.int64)
    for axis in (0, 1):
        running = np.cumsum(sums, axis=axis)
        shifted = np.zeros_like(running)
        before = [slice(None)] * 2
        after = [slice(None)] * 2
        before[axis], after[axis] = slice(None, -side), slice(side, None)
        shifted[tuple(after)] = running[tuple(before)]
        sums = (running - shifted)[(slice(side - 1, None), slice(None))[:: 1 if not axis else -1]]
    mean: Ints = (sums // side**2).astype(np.int32)
    return mean


def _run(cells: Floats, network: Network) -> Floats:
    last = len(network.weights) - 1
    for number, (weight, bias) in enumerate(zip(network.weights, network.biases, strict=True)):
        cells = _layer(cells, weight, bias, rectified=number < last)
    return cells


def _layer(cells: Floats, weight: Floats, bias: Floats, *, rectified: bool) -> Floats:
    channels, height, width = cells.shape
    padded = np.zeros((channels, height + 2, width + 2), np.float32)
    padded[:, 1:-1, 1:-1] = cells
    out = np.empty((len(weight), height, width), np.float32)
    rows = max(1, _STRIP_VALUES // (9 * channels * width))
    gathered = np.empty((9, channels, rows, width), np.float32)
    for top in range(0, height, rows):
        count = min(rows, height - top)
        for tap in range(9):
            y, x = divmod(tap, 3)
            gathered[tap, :, :count] = padded[:, top + y : top + y + count, x : x + width]
        columns = gathered[:, :, :count].reshape(9 * channels, count * width)
        sums = weight @ columns + bias
        if rectified:
            np.floor(sums * np.float32(1 / (1 << WEIGHT_BITS)), out=sums)
            np.clip(sums, 0, LARGEST_ACTIVATION, out=sums)
        out[:, top : top + count] = sums.reshape(-1, count, width)
    return out


def _joined(outputs: Floats) -> Ints:
    """[4, H / 2, W / 2] → [H, W]."""
    _, height, width = outputs.shape
    cells = outputs.reshape(2, 2, height, width).transpose(2, 0, 3, 1)
    return cells.reshape(2 * height, 2 * width).astype(np.int32)
