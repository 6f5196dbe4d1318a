"""Blocks as videos: AV1 in 10 or 12 bits, each slice predicted from the others, then filtered.

AV1's decoding is exact integers: a block is the same on every machine.
One term of a block's filter (wiener.py) is a small network that estimates the code's error, in
integers, by numpy alone. It sees a slice and the two on each side, cut into cells of 2 × 2 voxels,
in units of the code's own noise: each voxel less the mean close around it, each cell less the mean
further around. Weights are 8 bits, activations 0 to 255: every partial sum stays below 2^24, so
float32 holds it exactly, whatever order a machine adds in. Blocks are restored alone.
Source: reconstructed; a residual network after decoding is common practice (arXiv 1608.03981).
"""

from __future__ import annotations

import math
import struct
from collections.abc import Iterable
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt

from MedEnhanceLib.core.volume import Voxels, restore_dtype
from MedEnhanceLib.errors import ModelError
from MedEnhanceLib.unicompress.codecs.lossless import Shape
from MedEnhanceLib.unicompress.codecs.video import av1, wiener
from MedEnhanceLib.unicompress.codecs.video.av1 import LIBAOM, Encoder, Frames
from MedEnhanceLib.unicompress.config import Speed
from MedEnhanceLib.unicompress.models import CodecModel, DecodeContext

Ints = npt.NDArray[np.int32]
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
#: Slices on each side of one that the network sees.
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
#: axis, intensity of the brightest voxel, noise, whether a filter follows, range.
HEAD = struct.Struct("<BHBBdd")
#: Fitting a filter to a large block takes 170 MiB.
MOST_THREADS = 6
#: Frames before the slices: libaom loses four times as much in a stream's first frame as in the
#: others, whatever the quantizer. An empty one takes that: 0.2 dB in 64 slices, 1 dB in 8. Before
#: a single slice it repeats that slice, which libaom takes for a still scene worth more: 0.5 dB.
_BLANK = 1
_LARGEST = 1e30


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
    """The noise as a file holds it: σ = 2^((code − 32) / 8) intensities."""
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


@dataclass(frozen=True)
class Video:
    """A coded block. shape: of its slices, [K, H, W], which lie along `axis`.

    top, low, high: the intensity of the block's largest voxel, its smallest and largest voxel;
    noise: what the code left of it, of which `filter` undoes some.
    """

    axis: int
    top: int
    low: float
    high: float
    stream: bytes
    shape: tuple[int, ...]
    noise: int = 0
    filter: wiener.Filter | None = None

    @cached_property
    def frames(self) -> Frames:
        """The slices as decoded, [K, H, W], 0 to `top` and little more.

        Raises one of FOREIGN_ERRORS for a stream that is not of such slices.
        """
        count, height, width = self.shape
        decoded = av1.frames_of(self.stream, _BLANK + count, height, width)
        return np.minimum(decoded[_BLANK:], av1.HIGHEST)

    @property
    def data(self) -> bytes:
        """Ready to be a chunk."""
        filtered = self.filter is not None
        head = HEAD.pack(self.axis, self.top, self.noise, filtered, self.low, self.high)
        return head + (self.filter.data if self.filter else b"") + self.stream

    @classmethod
    def read(cls, data: bytes, shape: Shape) -> Video:
        """From the chunk of a block of `shape`; one of FOREIGN_ERRORS for bytes that cannot be."""
        axis, top, noise, filtered, low, high = HEAD.unpack_from(data)
        if axis > 2 or not 0 < top <= av1.HIGHEST:
            raise ValueError(f"axis {axis}, intensities up to {top}")
        if not (math.isfinite(low) and math.isfinite(high) and -_LARGEST < low < high < _LARGEST):
            raise ValueError(f"a range of {low} to {high}")
        if noise > MOST_NOISE or filtered > 1:
            raise ValueError(f"noise {noise}, filtered {filtered}")
        found, size = wiener.read(data[HEAD.size :]) if filtered else (None, 0)
        stream = data[HEAD.size + size :]
        slices = (shape[axis], *(extent for other, extent in enumerate(shape) if other != axis))
        return cls(axis, top, low, high, stream, slices, noise, found)


def fits(block: Voxels) -> bool:
    """Whether a block can be a video: finite and not constant."""
    low, high = float(block.min()), float(block.max())
    return bool(-_LARGEST < low < high < _LARGEST)


def encode(
    block: Voxels,
    step: float,
    *,
    speed: Speed,
    axis: int = 0,
    encoder: Encoder = LIBAOM,
    anchor: float | None = None,
    limits: tuple[float, float] | None = None,
    quickly: bool = False,
) -> Video:
    """Code a block, [K, J, I], that `fits`. step: of the quantizer, in stored units.

    encoder: what it does not take libaom codes. anchor: see Encoder; `step`, if none is given.
    axis: along which slices follow each other. limits: the range that is coded, of the block
    itself if none is given. quickly: see Encoder.
    """
    low, high = limits or (float(block.min()), float(block.max()))
    slices = np.moveaxis(block, axis, 0)
    if not encoder.takes(*slices.shape):
        encoder = LIBAOM
    top, quantizer = encoder.scale(high - low, step, anchor or step)
    scaled = np.empty(slices.shape, np.uint16)
    for k, plane in enumerate(slices):
        scaled[k] = np.rint((plane.astype(np.float64) - low) * (top / (high - low)))
    frames = _filled(scaled, encoder.profile)
    stream = encoder.code(frames, quantizer, speed, quickly)
    return Video(axis, top, low, high, stream, slices.shape)


def decode(data: bytes, shape: Shape, context: DecodeContext) -> Voxels:
    """The block of a chunk, [K, J, I]; raises one of FOREIGN_ERRORS for bytes that cannot be."""
    return voxels_of(Video.read(data, shape), context)


def voxels_of(video: Video, context: DecodeContext) -> Voxels:
    """What a reader makes of a coded block, [K, J, I]."""
    added = None
    if video.filter is not None and video.filter.network:
        added = _added(video.frames, video.noise, context)
    return _voxels(video, video.frames, added, context)


def _voxels(
    video: Video, frames: Frames, added: wiener.Ints | None, context: DecodeContext
) -> Voxels:
    if video.filter is None:
        return _in_units(video, frames, 1, context)
    slices = wiener.apply(frames, video.noise, video.filter, added)
    return _in_units(video, slices, wiener.PARTS, context)


def filtered(data: bytes, block: Voxels, context: DecodeContext, most: int) -> tuple[bytes, Voxels]:
    """The chunk of `block` with the filter that brings it nearest, of `most` bytes; its voxels.

    context: its model of the role `restoration`, if there is one, is a term of the filter where
    it helps; readers take many times as long then.
    """
    coded = Video.read(data, block.shape)
    frames = coded.frames
    error, squared = np.empty(frames.shape, np.float32), 0.0
    for k, plane in enumerate(np.moveaxis(block, coded.axis, 0)):
        exact = np.subtract(plane, coded.low, dtype=np.float64)
        exact *= coded.top / (coded.high - coded.low)
        exact -= frames[k]
        error[k] = exact
        squared += float(np.vdot(exact, exact))
    noise = noise_code(squared / error.size)
    added = None
    if ROLE in context.models.named:
        added = _added(frames, noise, context)
    chosen = wiener.fit(frames, error, noise, added, len(coded.stream), most)
    del error
    best = replace(coded, noise=noise if chosen else 0, filter=chosen)
    return best.data, _voxels(best, frames, added, context)


def needs_model(head: bytes) -> bool:
    """Whether a chunk that begins with `head` needs the restoration's model."""
    return bool(HEAD.unpack_from(head)[3]) and wiener.has_network(head[HEAD.size :])


def _added(frames: Frames, noise: int, context: DecodeContext) -> wiener.Ints:
    network = network_of(context.models.get(ROLE))
    return added(frames, noise, network)


def _in_units(
    video: Video, slices: Iterable[npt.NDArray[Any]], parts: int, context: DecodeContext
) -> Voxels:
    """Intensities in parts of one, a slice [H, W] at a time → stored units, [K, J, I]."""
    scale = (video.high - video.low) / (video.top * parts)
    steps = np.arange(av1.HIGHEST * parts + 1) * scale + video.low
    with np.errstate(over="ignore"):  # beyond the range of float16; clipped below
        values = restore_dtype(steps, context.dtype)
    if context.voxel_range is not None:
        low, high = (context.dtype.type(bound) for bound in context.voxel_range)
        values = np.clip(values, low, high)
    voxels = np.empty(video.shape, context.dtype)
    for k, plane in enumerate(slices):
        voxels[k] = values[np.minimum(plane, av1.HIGHEST * parts)]
    return np.ascontiguousarray(np.moveaxis(voxels, 0, video.axis))


def _filled(frames: Frames, profile: int) -> Frames:
    """Continued by their edge to the size of frames, and with a frame before them."""
    sides = zip(av1.frame_sides(profile, *frames.shape[1:]), frames.shape[1:], strict=True)
    more = [(0, wanted - side) for wanted, side in sides]
    continued = np.pad(frames, [(0, 0), *more], mode="edge")
    before = continued if len(frames) == 1 else np.zeros_like(continued[:_BLANK])
    return np.concatenate([before, continued])


def error_of(block: Voxels, decoded: Voxels) -> float:
    """Sum of squared differences."""
    total = 0.0
    for one, other in zip(block, decoded, strict=True):
        difference: npt.NDArray[Any] = np.subtract(one, other, dtype=np.float64)
        total += float(np.vdot(difference, difference))
    return total
