"""Undoes some of what a video code did to its slices: a small network in integers, by numpy alone.

It sees a slice and the two on each side, cut into cells of 2 × 2 voxels, in units of the code's own
noise: each voxel less the mean close around it, each cell less the mean further around. Layers of
3 × 3 cells tell the error, which is one term of a block's filter (wiener.py).
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

ROLE, LAYOUT = "restoration", "cells-2"
#: 2^16 · 2^(−i/8), as wiener.OCTAVE.
_INVERSE = (65536, 60097, 55109, 50535, 46341, 42495, 38968, 35734)
MOST_NOISE = 127
LARGEST_ACTIVATION, LARGEST_WEIGHT = 255, 127
#: Inputs and activations count in 32nds, residuals in 2048ths.
ACTIVATION_BITS, RESIDUAL_BITS = 5, 11
MOST_SHIFT = 14
LARGEST_RESIDUAL = 65535
#: A slice, and so many on each side.
AROUND = 2
SLICES = 2 * AROUND + 1
INPUTS, OUTPUTS = 5 * SLICES, 4
#: Voxels on each side whose mean is taken off: of a voxel, and, of a cell, in 8ths.
NEAR, FAR = 2, 8
#: 2^10 · 16 · 32 / 25 and 2^20 · 16 · 4 / (4 · 289): from sums of differences to inputs.
_NEAR_UNIT, _FAR_UNIT = 20972, 58053
_EXACT = 1 << 24
#: Rows of cells at a time: what a layer gathers for them stays in a processor's cache.
_STRIP_VALUES = 1 << 19


@dataclass(frozen=True)
class Network:
    """weights: per layer [outputs, 9 · inputs], tap by tap; biases: [outputs, 1]; all integers.

    units: [outputs, 1], of what a sum counts in, a power of two, per unit of what it makes.
    """

    weights: tuple[Floats, ...]
    biases: tuple[Floats, ...]
    units: tuple[Floats, ...]


@lru_cache(maxsize=8)
def network_of(model: CodecModel) -> Network:
    """The layers of a model; raises ModelError where they are not what this version knows."""
    tensors = model.tensors()
    layers = range(len(tensors) // 3)
    try:
        if model.facts.get("layout") != LAYOUT:
            raise ValueError(f"layout {model.facts.get('layout')!r}")
        weights, biases, shifts = (
            [tensors[f"{name}{n}"] for n in layers] for name in ("weight", "bias", "shift")
        )
        _check(weights, biases, shifts)
    except (KeyError, ValueError) as cause:
        raise ModelError(
            f"the model {model.id} ({model.role}) cannot be used: {cause}",
            "Install the MedEnhance that the file was written with, or a newer one.",
        ) from cause
    bits = [0] * (len(layers) - 1) + [RESIDUAL_BITS - ACTIVATION_BITS]
    return Network(
        tuple(w.transpose(0, 2, 3, 1).reshape(len(w), -1).astype(np.float32) for w in weights),
        tuple(b.astype(np.float32)[:, None] for b in biases),
        tuple(
            np.exp2(more - s.astype(np.float32))[:, None]
            for more, s in zip(bits, shifts, strict=True)
        ),
    )


def _check(*tensors: list[npt.NDArray[Any]]) -> None:
    channels = INPUTS
    for weight, bias, shift in zip(*tensors, strict=True):
        kinds = (weight.dtype.name, bias.dtype.name, shift.dtype.name)
        if kinds != ("int8", "int32", "int8"):
            raise ValueError(f"weights, biases and shifts of types {kinds}")
        if weight.ndim != 4 or weight.shape[1:] != (channels, 3, 3):
            raise ValueError(f"a layer of {weight.shape}, {channels} channels expected")
        if bias.shape != weight.shape[:1] or shift.shape != weight.shape[:1]:
            raise ValueError(f"biases of {bias.shape}, shifts of {shift.shape}")
        if ((shift < 0) | (shift > MOST_SHIFT)).any():
            raise ValueError(f"shifts that are not 0 to {MOST_SHIFT}")
        sums = np.abs(weight.astype(np.int64)).sum(axis=(1, 2, 3)) * LARGEST_ACTIVATION
        if (sums + np.abs(bias.astype(np.int64)) >= _EXACT).any():
            raise ValueError("sums that float32 does not hold exactly")
        channels = len(weight)
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
    even = np.pad(frames, ((AROUND,) * 2, (0, height % 2), (0, width % 2)), mode="edge")
    residual = np.empty(frames.shape, np.int32)
    for k in range(len(frames)):
        stack = even[k : k + SLICES].astype(np.int32)
        outputs = _run(inputs_of(stack, noise), network)
        residual[k] = _joined(outputs)[:height, :width]
    return residual


def added(frames: Frames, noise: int, network: Network) -> Ints:
    """What the network says is missing of decoded slices, [K, H, W], in 16ths of an intensity."""
    octaves, eighth = divmod(noise, 8)
    factor = wiener.PARTS * wiener.OCTAVE[eighth] << octaves
    whole = predict(frames, noise, network)
    for residual in whole:
        product = residual.astype(np.int64) * factor >> (20 + RESIDUAL_BITS)
        np.clip(product, -wiener.LARGEST_ADDED, wiener.LARGEST_ADDED, out=product)
        residual[:] = product
    return whole


def inputs_of(stack: Ints, noise: int) -> Floats:
    """Five slices of even extents, [5, H, W], → [25, H / 2, W / 2], integers −255 to 255.

    Of each slice a cell's four voxels less the mean of 5 × 5 around each in the middle slice, in
    32nds of σ; then, of each slice, its mean less that of 17 × 17 around each, in 4ths of σ.
    """
    octaves, eighth = divmod(noise, 8)
    height, width = stack.shape[1:]
    near = (2 * NEAR + 1) ** 2 * stack.astype(np.int64) - wiener.box_sums(stack[AROUND], NEAR)
    near = near * (_INVERSE[eighth] * _NEAR_UNIT) >> (26 + octaves)
    cells = near.reshape(SLICES, height // 2, 2, width // 2, 2).transpose(0, 2, 4, 1, 3)
    far = (2 * FAR + 1) ** 2 * stack.astype(np.int64) - wiener.box_sums(stack[AROUND], FAR)
    far = far.reshape(SLICES, height // 2, 2, width // 2, 2).sum(axis=(2, 4))
    far = far * (_INVERSE[eighth] * _FAR_UNIT) >> (36 + octaves)
    both = np.concatenate([cells.reshape(4 * SLICES, height // 2, width // 2), far])
    inputs: Floats = np.clip(both, -LARGEST_ACTIVATION, LARGEST_ACTIVATION).astype(np.float32)
    return inputs


def _run(cells: Floats, network: Network) -> Floats:
    last = len(network.weights) - 1
    layers = zip(network.weights, network.biases, network.units, strict=True)
    for number, (weight, bias, unit) in enumerate(layers):
        cells = _layer(cells, weight, bias, unit, rectified=number < last)
    return cells


def _layer(cells: Floats, weight: Floats, bias: Floats, unit: Floats, *, rectified: bool) -> Floats:
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
        sums = weight @ columns
        sums += bias
        sums *= unit
        np.floor(sums, out=sums)
        if rectified:
            np.clip(sums, 0, LARGEST_ACTIVATION, out=sums)
        out[:, top : top + count] = sums.reshape(-1, count, width)
    return out


def _joined(outputs: Floats) -> Ints:
    """[4, H / 2, W / 2] → [H, W]."""
    _, height, width = outputs.shape
    limited = np.clip(outputs, -LARGEST_RESIDUAL, LARGEST_RESIDUAL)
    cells = limited.reshape(2, 2, height, width).transpose(2, 0, 3, 1)
    return cells.reshape(2 * height, 2 * width).astype(np.int32)
