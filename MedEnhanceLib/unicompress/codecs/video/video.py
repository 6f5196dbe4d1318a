"""Blocks as videos: AV1 in 10 or 12 bits, each slice predicted from the others, then filtered.

AV1's decoding is exact integers, and so is the filter (wiener.py): a block is the same on every
machine.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Iterable
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np

from MedEnhanceLib.core.arrays import Array, Shape, Voxels
from MedEnhanceLib.core.volume import restore_dtype
from MedEnhanceLib.unicompress.codec_models import DecodeContext
from MedEnhanceLib.unicompress.codecs.video import av1, wiener
from MedEnhanceLib.unicompress.codecs.video.av1 import LIBAOM, Encoder, Frames
from MedEnhanceLib.unicompress.config import Speed

#: Id of the block type.
VIDEO = 7
MOST_NOISE = 127
#: bits, intensity of the brightest voxel, noise, whether a filter follows, range.
HEAD = struct.Struct("<BHBBdd")
#: Fitting a filter to a large block takes 170 MiB.
MOST_THREADS = 6
#: Frames before the slices: libaom's error in a stream's first frame is four times that of the
#: others, at any quantizer. A blank one takes it: 0.2 dB in 64 slices, 1 dB in 8. Before a single
#: slice it repeats that slice, which libaom codes better as a still scene: 0.5 dB.
_BLANK = 1
_LARGEST = 1e30


def noise_code(mean_square: float) -> int:
    """Convert a mean squared error to its code in a file: σ = 2^((code − 32) / 8) intensities."""
    if mean_square <= 0:
        return 0
    return int(np.clip(round(4 * np.log2(mean_square) + 32), 0, MOST_NOISE))


@dataclass(frozen=True)
class Video:
    """A coded block.

    Attributes:
        bits: of an intensity, 10 or 12.
        top: the intensity of the largest voxel.
        low, high: smallest and largest voxel.
        shape: [K, J, I].
        noise: mean square of what the coding lost, as `noise_code` gives it; `filter` undoes some
            of it.
    """

    bits: int
    top: int
    low: float
    high: float
    stream: bytes
    shape: Shape
    noise: int = 0
    filter: wiener.Filter | None = None

    @cached_property
    def frames(self) -> Frames:
        """The slices as decoded, [K, J, I], 0 to `top` and little more.

        Raises one of FOREIGN_ERRORS for a stream that is not of such slices.
        """
        count, height, width = self.shape
        decoded = av1.frames_of(self.stream, self.bits, _BLANK + count, height, width)
        return np.minimum(decoded[_BLANK:], av1.HIGHEST)

    @property
    def data(self) -> bytes:
        """The bytes of its chunk."""
        filtered = self.filter is not None
        head = HEAD.pack(self.bits, self.top, self.noise, filtered, self.low, self.high)
        return head + (self.filter.data if self.filter else b"") + self.stream

    @classmethod
    def read(cls, data: bytes, shape: Shape) -> Video:
        """Read the chunk of a block of `shape`; raises one of FOREIGN_ERRORS for invalid data."""
        bits, top, noise, filtered, low, high = HEAD.unpack_from(data)
        if bits not in (10, 12) or not 0 < top <= av1.HIGHEST:
            raise ValueError(f"{bits} bits, intensities up to {top}")
        if not (math.isfinite(low) and math.isfinite(high) and -_LARGEST < low < high < _LARGEST):
            raise ValueError(f"invalid range {low} to {high}")
        if noise > MOST_NOISE or filtered > 1:
            raise ValueError(f"invalid noise {noise} or filter flag {filtered}")
        filter_, size = wiener.read(data[HEAD.size :]) if filtered else (None, 0)
        stream = data[HEAD.size + size :]
        return cls(bits, top, low, high, stream, shape, noise, filter_)


def fits(block: Voxels) -> bool:
    """Return whether a block can be a video: finite and not constant."""
    low, high = float(block.min()), float(block.max())
    return bool(-_LARGEST < low < high < _LARGEST)


def encode(
    block: Voxels,
    step: float,
    *,
    speed: Speed,
    encoder: Encoder = LIBAOM,
    quickly: bool = False,
) -> Video:
    """Code a block as a video, without a filter.

    Args:
        block: [K, J, I], one that `fits`.
        step: of the quantizer, in stored units.
        speed: "fast" takes less time and more bytes.
        encoder: replaced by libaom for blocks that it does not take.
        quickly: see Encoder.
    """
    low, high = float(block.min()), float(block.max())
    if not encoder.takes(*block.shape):
        encoder = LIBAOM
    top, quantizer = encoder.scale(high - low, step)
    scaled = np.empty(block.shape, np.uint16)
    for k, plane in enumerate(block):
        scaled[k] = np.rint((plane.astype(np.float64) - low) * (top / (high - low)))
    frames = _filled(scaled, encoder.bits)
    stream = encoder.code(frames, quantizer, speed, quickly)
    return Video(encoder.bits, top, low, high, stream, block.shape)


def decode(data: bytes, shape: Shape, context: DecodeContext) -> Voxels:
    """Decode the block of a chunk, [K, J, I]; raises one of FOREIGN_ERRORS for invalid data.

    Args:
        data: of the chunk.
        shape: that the block has in the header's grid.
        context: the voxels are of its dtype.
    """
    return voxels_of(Video.read(data, shape), context)


def voxels_of(video: Video, context: DecodeContext) -> Voxels:
    """Convert a coded block to voxels as a reader does, [K, J, I]."""
    if video.filter is None:
        return _in_units(video, video.frames, 1, context)
    slices = wiener.apply(video.frames, video.noise, video.filter)
    return _in_units(video, slices, wiener.PARTS, context)


def filtered(data: bytes, block: Voxels, context: DecodeContext, most: int) -> tuple[bytes, Voxels]:
    """Add the filter that brings a coded block nearest to its source.

    Args:
        data: of the chunk, without a filter.
        block: the source, [K, J, I].
        context: what a reader has.
        most: bytes that the filter may take.
    Returns the bytes of the chunk, and the voxels that a reader gets.
    """
    coded = Video.read(data, block.shape)
    frames = coded.frames
    error, squared = np.empty(frames.shape, np.float32), 0.0
    for k, plane in enumerate(block):
        exact = np.subtract(plane, coded.low, dtype=np.float64)
        exact *= coded.top / (coded.high - coded.low)
        exact -= frames[k]
        error[k] = exact
        squared += float(np.vdot(exact, exact))
    noise = noise_code(squared / error.size)
    fitted = wiener.fit(frames, error, noise, len(coded.stream), most)
    del error
    best = replace(coded, noise=noise if fitted else 0, filter=fitted)
    return best.data, voxels_of(best, context)


def _in_units(video: Video, slices: Iterable[Array], parts: int, context: DecodeContext) -> Voxels:
    """Convert intensities in parts of one, slice by slice [H, W], to stored units, [K, J, I]."""
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
    return voxels


def _filled(frames: Frames, bits: int) -> Frames:
    """Pad slices with their edge values to the size of frames, and put a frame before them."""
    sides = zip(av1.frame_sides(bits, *frames.shape[1:]), frames.shape[1:], strict=True)
    more = [(0, padded - side) for padded, side in sides]
    continued = np.pad(frames, [(0, 0), *more], mode="edge")
    before = continued if len(frames) == 1 else np.zeros_like(continued[:_BLANK])
    return np.concatenate([before, continued])
