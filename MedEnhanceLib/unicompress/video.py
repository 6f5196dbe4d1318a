"""Blocks as videos: AV1 in 12 bits, each slice predicted from the others.

libaom, as imagecodecs has it, weighs errors by how busy a place is, which costs 0.3 to 1.4 dB
of PSNR. Where intensities use a quarter of the 12 bits, all places look quiet to it, and errors
weigh the same; but its finest quantisers are its worst. Which of `TOPS` intensities should end at
is found by trial. A finer step of the file's size than the 63 of its quantiser comes from the
same scale.
AV1's decoding is exact integers: a block is the same on every machine.
"""

from __future__ import annotations

import math
import struct
from dataclasses import dataclass, replace
from functools import cache
from typing import Any

import numpy as np
import numpy.typing as npt

from MedEnhanceLib.unicompress import av1, restoration, wiener
from MedEnhanceLib.unicompress.coders import Shape, codecs
from MedEnhanceLib.unicompress.config import Speed
from MedEnhanceLib.unicompress.context import DecodeContext
from MedEnhanceLib.volume import Voxels, restore_dtype

Frames = npt.NDArray[np.uint16]

#: axis, intensity of the brightest voxel, noise, whether a filter follows, range.
HEAD = struct.Struct("<BHBBdd")
#: Of libaom.
_SPEED: dict[Speed, int] = {"normal": 4, "fast": 6}
_HIGHEST = 4095
#: Where intensities end, at least: a quarter of 12 bits, a half, and most of them.
TOPS = (1023, 2047, 2800)
_SPREAD = 4
_LEAST_QUANTISER, _MOST_QUANTISER = 5, 63
#: libaom wants some room; smaller slices are continued to this by their edge.
_LEAST_SIDE = 16
#: A coder of AV1 holds some forty slices.
MOST_THREADS = 8
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
        if axis > 2 or not 0 < top <= _HIGHEST:
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
    least_top: int = TOPS[0],
    anchor: float | None = None,
) -> Video:
    """Code a block, [K, J, I], that `fits`. step: of the quantiser, in stored units.

    least_top: where intensities end, at least, in steps of `anchor` (of `step`, if none is
    given): codings with one anchor differ so little that a size can be sought. axis: along
    which slices follow each other. Raises ValueError or RuntimeError for a stream that the
    encoder gave and that cannot be read.
    """
    low, high = float(block.min()), float(block.max())
    top, quantiser = _scale(high - low, step, least_top, anchor or step)
    scaled = np.multiply(np.subtract(block, low, dtype=np.float64), top / (high - low))
    frames = _filled(np.moveaxis(np.rint(scaled).astype(np.uint16), axis, 0))
    file = codecs().avif_encode(
        # One channel would be coded without loss, whatever level is asked for.
        np.repeat(frames[..., None], 3, axis=-1),
        level=_level(quantiser),
        speed=_SPEED[speed],
        bitspersample=12,
        pixelformat="400",
        numthreads=1,
    )
    stream = av1.stream_of(bytes(file))
    slices = np.moveaxis(block, axis, 0).shape
    return Video(axis, top, low, high, stream, _decoded(stream, slices))


def decode(data: bytes, shape: Shape, context: DecodeContext) -> Voxels:
    """The block of a chunk, [K, J, I]; raises one of FOREIGN_ERRORS for bytes that cannot be."""
    return voxels_of(Video.read(data, shape), context)


def voxels_of(video: Video, context: DecodeContext) -> Voxels:
    """What a reader makes of a coded block, [K, J, I]."""
    if video.filter is None:
        return _in_units(video, video.frames, 1, context)
    added = _added(video.frames, video.noise, context) if video.filter.network else None
    filtered = wiener.apply(video.frames, video.noise, video.filter, added)
    return _in_units(video, filtered, wiener.PARTS, context)


def filtered(data: bytes, block: Voxels, context: DecodeContext, most: int) -> bytes:
    """The chunk of `block` with the filter that brings it nearest, of `most` bytes.

    context: its model of the role `restoration`, if there is one, is a term of the filter.
    """
    coded = Video.read(data, block.shape)
    error = np.subtract(np.moveaxis(block, coded.axis, 0), coded.low, dtype=np.float64)
    error *= coded.top / (coded.high - coded.low)
    error -= coded.frames
    noise = restoration.noise_code(float(np.vdot(error, error)) / error.size)
    added = None
    if restoration.ROLE in context.models.named:
        added = _added(coded.frames, noise, context)
    chosen = wiener.fit(
        coded.frames, error.astype(np.float32), noise, added, len(coded.stream), most
    )
    return replace(coded, noise=noise if chosen else 0, filter=chosen).data


def needs_model(head: bytes) -> bool:
    """Whether a chunk that begins with `head` needs the restoration's model."""
    return bool(HEAD.unpack_from(head)[3]) and wiener.has_network(head[HEAD.size :])


def _added(frames: Frames, noise: int, context: DecodeContext) -> wiener.Ints:
    network = restoration.network_of(context.models.get(restoration.ROLE))
    return restoration.added(restoration.predict(frames, noise, network), noise)


def _in_units(video: Video, slices: npt.NDArray[Any], parts: int, context: DecodeContext) -> Voxels:
    """Intensities in parts of one, [K, H, W] → stored units, [K, J, I]."""
    scale = (video.high - video.low) / (video.top * parts)
    steps = np.arange(_HIGHEST * parts + 1) * scale + video.low
    with np.errstate(over="ignore"):  # beyond the range of float16; clipped below
        values = restore_dtype(steps, context.dtype)
    if context.voxel_range is not None:
        low, high = (context.dtype.type(bound) for bound in context.voxel_range)
        values = np.clip(values, low, high)
    voxels = values[np.minimum(slices, _HIGHEST * parts)]
    return np.ascontiguousarray(np.moveaxis(voxels, 0, video.axis))


def _decoded(stream: bytes, slices: tuple[int, ...]) -> Frames:
    filled = (_BLANK + slices[0], *(max(side, _LEAST_SIDE) for side in slices[1:]))
    file = av1.file_of(stream, *filled)
    # `out` fixes shape and type: a stream that claims others is refused before it is decoded.
    out = np.empty(filled, np.uint16)
    codecs().avif_decode(file, numthreads=1, out=out)
    return np.minimum(out[_BLANK:, : slices[1], : slices[2]], _HIGHEST)


def _filled(frames: Frames) -> Frames:
    """Continued by their edge to the least size, and with a frame before them."""
    more = [(0, max(0, _LEAST_SIDE - side)) for side in frames.shape[1:]]
    continued = np.pad(frames, [(0, 0), *more], mode="edge")
    before = continued if len(frames) == 1 else np.zeros_like(continued[:_BLANK])
    return np.concatenate([before, continued])


def _scale(span: float, step: float, least_top: int, anchor: float) -> tuple[int, int]:
    """Where intensities end, and the quantiser, that together give `step` in stored units.

    The finest quantiser from `_LEAST_QUANTISER` on that leaves `least_top` intensities at
    `anchor`, another step: steps near it then differ in nothing but where intensities end.
    """
    finest = range(_LEAST_QUANTISER, _MOST_QUANTISER)
    usual = (q for q in finest if quantiser_step(q) * span / anchor >= least_top)
    quantiser = next(usual, _MOST_QUANTISER)
    unit = span / step
    while quantiser > 1 and quantiser_step(quantiser) * unit > _HIGHEST:
        quantiser -= 1
    while quantiser < _MOST_QUANTISER and quantiser_step(quantiser) * unit < least_top / _SPREAD:
        quantiser += 1
    return max(1, min(round(quantiser_step(quantiser) * unit), _HIGHEST)), quantiser


def quantiser_step(quantiser: int) -> float:
    """About the step of libaom's quantiser 1 to 63 at 12 bits: linear, then exponential."""
    index = 4 * quantiser
    return 2.1 * index if index <= 96 else 2.1 * 96 * math.exp(0.0182 * (index - 96))


@cache
def _level(quantiser: int) -> int:
    """Imagecodecs' level, 0 to 100, for libaom's quantiser."""
    return next(level for level in range(100) if ((100 - level) * 63 + 50) // 100 == quantiser)


def error_of(block: Voxels, decoded: Voxels) -> float:
    """Sum of squared differences."""
    total = 0.0
    for one, other in zip(block, decoded, strict=True):
        difference: npt.NDArray[Any] = np.subtract(one, other, dtype=np.float64)
        total += float(np.vdot(difference, difference))
    return total
