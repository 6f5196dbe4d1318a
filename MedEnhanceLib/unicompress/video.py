"""Blocks as videos: AV1 in 10 or 12 bits, each slice predicted from the others.

What codes them: videoencoders.py. AV1's decoding is exact integers: a block is the same on every
machine.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from MedEnhanceLib.core.volume import Voxels, restore_dtype
from MedEnhanceLib.unicompress import av1, restoration, wiener
from MedEnhanceLib.unicompress.coders import Shape, codecs
from MedEnhanceLib.unicompress.config import Speed
from MedEnhanceLib.unicompress.context import DecodeContext
from MedEnhanceLib.unicompress.videoencoders import LIBAOM, Encoder, Frames

#: axis, intensity of the brightest voxel, noise, whether a filter follows, range.
HEAD = struct.Struct("<BHBBdd")
#: Fitting a filter to a large block takes 170 MiB.
MOST_THREADS = 6
#: Frames before the slices: libaom loses four times as much in a stream's first frame as in the
#: others, whatever the quantiser. An empty one takes that: 0.2 dB in 64 slices, 1 dB in 8. Before
#: a single slice it repeats that slice, which libaom takes for a still scene worth more: 0.5 dB.
_BLANK = 1
_LARGEST = 1e30


@dataclass(frozen=True)
class Video:
    """A coded block. frames: its slices as decoded, [K, H, W], 0 to `top` and little more.

    low, high: the block's smallest and largest voxel; noise: what the code left of it, of which
    `filter` undoes some.
    """

    axis: int
    top: int
    low: float
    high: float
    stream: bytes
    frames: Frames
    noise: int = 0
    filter: wiener.Filter | None = None

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
        if noise > restoration.MOST_NOISE or filtered > 1:
            raise ValueError(f"noise {noise}, filtered {filtered}")
        found, size = wiener.read(data[HEAD.size :]) if filtered else (None, 0)
        stream = data[HEAD.size + size :]
        slices = (shape[axis], *(extent for other, extent in enumerate(shape) if other != axis))
        return cls(axis, top, low, high, stream, _decoded(stream, slices), noise, found)


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
) -> Video:
    """Code a block, [K, J, I], that `fits`. step: of the quantiser, in stored units.

    encoder: what it does not take libaom codes. anchor: see Encoder; `step`, if none is given.
    axis: along which slices follow each other. limits: the range that is coded, of the block
    itself if none is given. Raises ValueError or RuntimeError for a
    stream that the encoder gave and that cannot be read.
    """
    low, high = limits or (float(block.min()), float(block.max()))
    slices = np.moveaxis(block, axis, 0)
    if not encoder.takes(*slices.shape):
        encoder = LIBAOM
    top, quantiser = encoder.scale(high - low, step, anchor or step)
    scaled = np.empty(slices.shape, np.uint16)
    for k, plane in enumerate(slices):
        scaled[k] = np.rint((plane.astype(np.float64) - low) * (top / (high - low)))
    frames = _filled(scaled, encoder.profile)
    stream = encoder.code(frames, quantiser, speed)
    return Video(axis, top, low, high, stream, _decoded(stream, slices.shape))


def decode(data: bytes, shape: Shape, context: DecodeContext) -> Voxels:
    """The block of a chunk, [K, J, I]; raises one of FOREIGN_ERRORS for bytes that cannot be."""
    return voxels_of(Video.read(data, shape), context)


def voxels_of(video: Video, context: DecodeContext, added: wiener.Ints | None = None) -> Voxels:
    """What a reader makes of a coded block, [K, J, I]. added: by the network, where it is known."""
    if video.filter is None:
        return _in_units(video, video.frames, 1, context)
    if video.filter.network and added is None:
        added = _added(video.frames, video.noise, context)
    slices = wiener.apply(video.frames, video.noise, video.filter, added)
    return _in_units(video, slices, wiener.PARTS, context)


def filtered(
    data: bytes, block: Voxels, context: DecodeContext, most: int, *, speed: Speed = "normal"
) -> tuple[bytes, Voxels]:
    """The chunk of `block` with the filter that brings it nearest, of `most` bytes; its voxels.

    context: its model of the role `restoration`, if there is one, is a term of the filter where
    it is worth the time that it takes a reader; at the speed `slow` wherever it helps.
    """
    coded = Video.read(data, block.shape)
    error, squared = np.empty(coded.frames.shape, np.float32), 0.0
    for k, plane in enumerate(np.moveaxis(block, coded.axis, 0)):
        exact = np.subtract(plane, coded.low, dtype=np.float64)
        exact *= coded.top / (coded.high - coded.low)
        exact -= coded.frames[k]
        error[k] = exact
        squared += float(np.vdot(exact, exact))
    noise = restoration.noise_code(squared / error.size)
    added = None
    if restoration.ROLE in context.models.named:
        added = _added(coded.frames, noise, context)
    price = 0.0 if speed == "slow" else wiener.NETWORK_PRICE_DB
    chosen = wiener.fit(coded.frames, error, noise, added, len(coded.stream), most, price)
    del error
    best = replace(coded, noise=noise if chosen else 0, filter=chosen)
    return best.data, voxels_of(best, context, added)


def needs_model(head: bytes) -> bool:
    """Whether a chunk that begins with `head` needs the restoration's model."""
    return bool(HEAD.unpack_from(head)[3]) and wiener.has_network(head[HEAD.size :])


def _added(frames: Frames, noise: int, context: DecodeContext) -> wiener.Ints:
    network = restoration.network_of(context.models.get(restoration.ROLE))
    return restoration.added(frames, noise, network)


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
    voxels = np.empty(video.frames.shape, context.dtype)
    for k, plane in enumerate(slices):
        voxels[k] = values[np.minimum(plane, av1.HIGHEST * parts)]
    return np.ascontiguousarray(np.moveaxis(voxels, 0, video.axis))


def _decoded(stream: bytes, slices: tuple[int, ...]) -> Frames:
    count, height, width = _BLANK + slices[0], *slices[1:]
    rebuilt = av1.file_of(stream, count, height, width)
    # `out` fixes shape and type: a stream that claims others is refused before it is decoded.
    planes = (4,) if rebuilt.profile == av1.PROFILE_OF_10_BITS else ()
    out = np.empty((count, rebuilt.height, rebuilt.width, *planes), np.uint16)
    codecs().avif_decode(rebuilt.file, numthreads=1, out=out)
    if planes:
        out = out[..., -1]
    return np.minimum(out[_BLANK:, :height, :width], av1.HIGHEST)


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
