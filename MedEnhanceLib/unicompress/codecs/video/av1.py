"""AV1: the encoders, and decoding of their streams to frames.

libaom, as imagecodecs has it, codes 12 bits, one plane. It weighs errors by local activity, which
costs 0.3 to 1.4 dB of PSNR; where intensities use a quarter of the 12 bits, all activity looks low
to it, and errors weigh the same. Its output is stored unchanged: an AVIF image sequence, deflated,
since its boxes repeat themselves.
SVT-AV1 codes 10 bits several times as fast, and better than libaom on most MR. PyAV's wheels also
contain x265 (GPL), so PyAV is optional, for writing and for reading.
Decoding is exact by the specification: voxels are the same whatever decodes them.
"""

from __future__ import annotations

import contextlib
import io
import math
import os
import zlib
from collections.abc import Callable
from dataclasses import dataclass, replace
from fractions import Fraction
from functools import cache, partial
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np

from MedEnhanceLib.core.arrays import Words
from MedEnhanceLib.errors import DependencyError
from MedEnhanceLib.runtime.dependencies import has, require
from MedEnhanceLib.unicompress.codecs.lossless import codecs
from MedEnhanceLib.unicompress.config import Speed
from MedEnhanceLib.unicompress.container import inflate

Frames = Words
HIGHEST = 4095
#: Smallest side that libaom accepts; smaller slices are padded with their edge values.
_LEAST_SIDE = 16
#: A file inflates to at most this many times its frames' bytes, and these bytes of boxes.
_MOST_FILE, _BOX_BYTES = 2, 1 << 16
# Presets tuned at equal bytes (decision 0072). Measured again by Benchmarks/compression.py.
_AOM_SPEED: dict[Speed, int] = {"normal": 4, "fast": 6}
_SVT_PRESET: dict[Speed, int] = {"normal": 2, "fast": 6}
#: For noise: half the time of preset 2, and less than 0.1 dB below it.
_SVT_NOISE_PRESET: dict[Speed, int] = {"normal": 3, "fast": 6}
#: A faster preset, to find the step; from 9 on sizes predict little.
_SVT_QUICK = 8
_LEAST_QUANTIZER, _MOST_QUANTIZER = 5, 63
#: Least value of the top intensity, in 12 bits.
_AOM_TOP = 1023
#: Frames are predicted from others within 4, no source frame is smoothed over time, and levels
#: differ less in their quantizers: slices lie further apart than the frames of films, and noise
#: is no help to their neighbors. Bytes weigh less against errors than in films, by 80 to 128 in all
#: seven kinds of frames: mostly 0.05 dB better.
_SVT_SLICES_APART = (
    "hierarchical-levels=2:enable-tf=0:qp-scale-compress-strength=1:"
    "lambda-scale-factors=80,80,80,80,80,80,80"
)
#: SVT-AV1 is for slices of at least this extent, and for at least this number of them.
_SVT_SIDE, _SVT_SLICES = 64, 4
#: At least this many of its 1023 intensities are used: its quantizers are fine enough.
_SVT_TOP = 900
_GRAY = 512
_RATE = Fraction(25)


def frame_sides(bits: int, height: int, width: int) -> tuple[int, int]:
    """Compute the extents of the frames that slices are coded as.

    Args:
        bits: `Encoder.bits`; the extents are even in 10.
        height: of the slices.
        width: of the slices.
    """
    rows, columns = (max(side, _LEAST_SIDE) for side in (height, width))
    return (rows + rows % 2, columns + columns % 2) if bits == 10 else (rows, columns)


def frames_of(stream: bytes, bits: int, count: int, height: int, width: int) -> Frames:
    """Decode the first plane of all frames, [count, height, width], whole numbers.

    Args:
        stream: from `Encoder.code`.
        bits: `Encoder.bits`.
        count: of frames; no other number in the stream is accepted.
        height: of the slices that the frames hold.
        width: of these slices.
    Raises ValueError or RuntimeError if the data are invalid, DependencyError without PyAV.
    """
    sides = frame_sides(bits, height, width)
    if bits == 10:
        return _by_dav1d(stream, count, sides)[:, :height, :width]
    # `out` fixes shape and type: a file that claims others is refused before it is decoded.
    out = np.empty((count, *sides), np.uint16)
    file = inflate(stream, _MOST_FILE * out.nbytes + _BOX_BYTES)
    codecs().avif_decode(file, numthreads=1, out=out)
    return out[:, :height, :width]


def _by_dav1d(stream: bytes, count: int, sides: tuple[int, int]) -> Frames:
    """Decode frame by frame: a stream may show far more of them than there should be."""
    av = require("av", purpose="Reading videos of 10 bits")
    limits = {"max_pixels": str(math.prod(sides))}
    out, count_read = np.empty((count, *sides), np.uint16), 0
    try:
        with av.open(io.BytesIO(stream), format="obu", stream_options=[limits]) as source:
            decoder: Any = av.CodecContext.create("libdav1d", "r")
            decoder.thread_count, decoder.options = 1, limits
            split = av.bitstream.BitStreamFilterContext("av1_frame_split", source.streams.video[0])
            packets = chain.from_iterable(map(split.filter, source.demux(video=0)))
            for frame in chain.from_iterable(map(decoder.decode, chain(packets, [None]))):
                kind = (frame.format.name, frame.height, frame.width)
                if count_read == count or kind != ("yuv420p10le", *sides):
                    raise ValueError(f"a video of more than {count} slices, or of another kind")
                plane = frame.planes[0]
                rows = np.frombuffer(plane, np.uint16).reshape(-1, plane.line_size // 2)
                out[count_read] = rows[: sides[0], : sides[1]]
                count_read += 1
    except av.FFmpegError as cause:
        raise ValueError(f"a video that cannot be decoded ({cause})") from cause
    if count_read < count:
        raise ValueError(f"a video of {count_read} slices, {count} expected")
    return out


@dataclass(frozen=True)
class Encoder:
    """A coder of frames.

    Attributes:
        scale: (span, step) → where intensities end, and the quantizer, that together give `step` in
            the units of `span`.
        code: (frames [K, H, W], quantizer, speed, whether quickly) → what `frames_of` reads.
        takes: whether it codes a number of slices of H × W.
        bits: of its intensities.
        most_threads: that may code at once; a large block takes 170 MiB with libaom, 380 with
            SVT-AV1.
        most_psnr: against the range, in dB, beyond which it has too few bits.
        guides: whether the size of its quick codings predicts that of the others.
    """

    scale: Callable[[float, float], tuple[int, float]]
    code: Callable[[Frames, float, Speed, bool], bytes]
    takes: Callable[[int, int, int], bool]
    bits: int
    most_threads: int
    most_psnr: float = math.inf
    guides: bool = False


@cache
def encoders() -> tuple[Encoder, ...]:
    """List the installed encoders: libaom, and SVT-AV1 if PyAV is installed and has it."""
    if has("av"):
        with contextlib.suppress(DependencyError):  # a missing system library
            if "libsvtav1" in require("av", purpose="SVT-AV1").codecs_available:
                return LIBAOM, SVT
    return (LIBAOM,)


def quantizer_step(quantizer: float) -> float:
    """Approximate the step of AV1's quantizer 1 to 63 at 12 bits: a power, linear, exponential.

    The power is fitted to AV1's own table (ac_qlookup, 12 bits), up to the quantizer 5.
    """
    index = 4 * quantizer
    if index <= 20:
        return float(42 * (index / 20) ** 1.2)
    return 2.1 * index if index <= 96 else 2.1 * 96 * math.exp(0.0182 * (index - 96))


def _aom_scale(span: float, step: float) -> tuple[int, float]:
    """Find top intensity and quantizer: the finest from `_LEAST_QUANTIZER` on with top `_AOM_TOP`.

    The top sets the step more finely than the 63 quantizers. If it exceeds 12 bits, a finer
    quantizer is taken.
    """
    unit = span / step
    finest = range(_LEAST_QUANTIZER, _MOST_QUANTIZER)
    usual = (q for q in finest if quantizer_step(q) * unit >= _AOM_TOP)
    quantizer = next(usual, _MOST_QUANTIZER)
    top = quantizer_step(quantizer) * unit
    while quantizer > 1 and top > HIGHEST:
        top *= quantizer_step(quantizer - 1) / quantizer_step(quantizer)
        quantizer -= 1
    return max(1, min(round(top), HIGHEST)), quantizer


def _aom_code(frames: Frames, quantizer: float, speed: Speed, _quickly: bool) -> bytes:
    file = codecs().avif_encode(
        # One channel would be coded without loss, whatever level is asked for.
        np.repeat(frames[..., None], 3, axis=-1),
        level=_level(round(quantizer)),
        speed=_AOM_SPEED[speed],
        bitspersample=12,
        pixelformat="400",
        numthreads=1,
    )
    return zlib.compress(_without_times(file), 9)


def _without_times(file: bytes) -> bytes:
    """Remove the times of writing from the file: equal volumes make equal files.

    The times stand behind version and flags of three boxes, in front of the frames. Source:
    ISO/IEC 14496-12, 8.2.2, 8.3.2 and 8.4.2.
    """
    data = bytearray(file)
    for name in (b"mvhd", b"tkhd", b"mdhd"):
        at = data.find(name)
        if at >= 0:
            size = 16 if data[at + 4] == 1 else 8
            data[at + 8 : at + 8 + size] = bytes(size)
    return bytes(data)


@cache
def _level(quantizer: int) -> int:
    """Convert libaom's quantizer to imagecodecs' level, 0 to 100."""
    return next(level for level in range(100) if ((100 - level) * 63 + 50) // 100 == quantizer)


def _svt_scale(span: float, step: float) -> tuple[int, float]:
    """Find top intensity and quantizer: the finest, in quarters, with a top of `_SVT_TOP`."""
    unit = span / step / 4  # its 10 bits are steps of four of those 12
    quarters = np.arange(4, 4 * _MOST_QUANTIZER + 1) / 4
    enough = (q for q in quarters if quantizer_step(q) * unit >= _SVT_TOP)
    quantizer = float(next(enough, quarters[-1]))
    return max(1, min(round(quantizer_step(quantizer) * unit), HIGHEST >> 2)), quantizer


def _svt_code(
    frames: Frames,
    quantizer: float,
    speed: Speed,
    quickly: bool,
    presets: dict[Speed, int] = _SVT_PRESET,
) -> bytes:
    import av

    os.environ.setdefault("SVT_LOG", "1")  # it prints its settings at length otherwise
    buffer = io.BytesIO()
    # Full range; one thread: blocks run side by side.
    preset = _SVT_QUICK if quickly else presets[speed]
    parameters = f"tune=1:lp=1:color-range=1:crf={quantizer:g}:{_SVT_SLICES_APART}"
    with av.open(buffer, "w", format="obu") as container:
        stream = container.add_stream(
            "libsvtav1",
            rate=_RATE,
            options={"preset": str(preset), "svtav1-params": parameters},
        )
        stream.height, stream.width = frames.shape[1:]
        stream.pix_fmt = "yuv420p10le"
        stream.color_range = 2
        stream.codec_context.open()
        _lower_priority()
        for frame in frames:
            container.mux(stream.encode(_gray_frame(av, frame)))
        container.mux(stream.encode())
    return buffer.getvalue()


def _gray_frame(av: Any, plane: Frames) -> Any:
    """Make a frame of a slice as luminance; constant chroma costs almost nothing."""
    height, width = plane.shape
    frame = av.VideoFrame(width, height, "yuv420p10le")
    stride = frame.planes[0].line_size // 2
    frame.planes[0].update(np.pad(plane, ((0, 0), (0, stride - width))).tobytes())
    for color in frame.planes[1:]:
        color.update(np.full(color.buffer_size // 2, _GRAY, np.uint16).tobytes())
    return frame


def _lower_priority() -> None:
    """Take back the real-time priority that SVT-AV1, if root runs it, gives to its threads."""
    if not hasattr(os, "sched_setscheduler") or os.geteuid() != 0:
        return
    for task in Path("/proc/self/task").iterdir():
        with contextlib.suppress(OSError):  # a thread that is gone
            if os.sched_getscheduler(int(task.name)) == os.SCHED_FIFO:
                os.sched_setscheduler(int(task.name), os.SCHED_OTHER, os.sched_param(0))


LIBAOM = Encoder(
    scale=_aom_scale,
    code=_aom_code,
    takes=lambda *_: True,
    bits=12,
    most_threads=6,
)
SVT = Encoder(
    scale=_svt_scale,
    code=_svt_code,
    takes=lambda slices, height, width: min(height, width) >= _SVT_SIDE and slices >= _SVT_SLICES,
    bits=10,
    most_threads=3,
    most_psnr=52.0,
    guides=True,
)
SVT_NOISE = replace(SVT, code=partial(_svt_code, presets=_SVT_NOISE_PRESET))
