"""AV1 streams: the encoders, what is stored of a video, and the file built around it to decode it.

libaom, as imagecodecs has it, codes 12 bits, one plane. It weighs errors by how busy a place is,
which costs 0.3 to 1.4 dB of PSNR; where intensities use a quarter of the 12 bits, all places look
quiet to it, and errors weigh the same. SVT-AV1 codes 10 bits in several times less time, and
better than libaom on most MR. PyAV's wheels carry x265 too, which is under the GPL: whoever wants
it installs it. Files are read without it; with it dav1d reads them, several times as fast as
imagecodecs: decoding is exact by the specification, so voxels are the same.
An AVIF file spends 800 bytes and more on boxes that follow from the number and size of its
frames. A chunk keeps the stream alone; the boxes are written here, from sizes that the block
gives. The stream itself is looked through first: no size in it is believed.
Source: AV1 Bitstream & Decoding Process Specification, 5.3 to 5.9; ISO/IEC 14496-12 (boxes);
AV1 Image File Format 1.1 (image sequences).
"""

from __future__ import annotations

import contextlib
import io
import math
import os
import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from fractions import Fraction
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from MedEnhanceLib.runtime.dependencies import has
from MedEnhanceLib.unicompress.codecs.lossless import codecs
from MedEnhanceLib.unicompress.config import Speed

_SEQUENCE, _DELIMITER, _FRAME_HEADER, _METADATA, _FRAME, _PADDING = 1, 2, 3, 5, 6, 15
#: The unit that begins each frame that is shown, in streams as decoders get them.
_DELIMITED = b"\x12\0"
#: 10 bits, with colors of half the resolution that say nothing; 12 bits, one plane.
PROFILE_OF_10_BITS, PROFILE_OF_12_BITS = 0, 2
HIGHEST = 4095
#: libaom wants some room; smaller slices are continued to this by their edge.
_LEAST_SIDE = 16
_UNITY = struct.pack(">9i", 1 << 16, 0, 0, 0, 1 << 16, 0, 0, 0, 1 << 30)
_OPACITY = b"urn:mpeg:mpegB:cicp:systems:auxiliary:alpha\0"
_CONTAINERS = (b"moov", b"trak", b"mdia", b"minf", b"stbl")
#: Marker and version; profile and level 0; bits, planes and where colors lie.
_CONFIGURATION = {
    PROFILE_OF_10_BITS: bytes([0x81, PROFILE_OF_10_BITS << 5, 0x4C, 0]),
    PROFILE_OF_12_BITS: bytes([0x81, PROFILE_OF_12_BITS << 5, 0x7C, 0]),
}
Frames = npt.NDArray[np.uint16]
_AOM_SPEED: dict[Speed, int] = {"normal": 4, "fast": 6}
_SVT_PRESET: dict[Speed, int] = {"normal": 2, "fast": 6}
#: In a fraction of that time, to find the step; from 9 on sizes say little.
_SVT_QUICK = 8
_LEAST_QUANTIZER, _MOST_QUANTIZER = 5, 63
#: Where intensities end, at least, in 12 bits; a quarter of that in coarse steps.
_AOM_TOP, _SPREAD = 1023, 4
#: Of quantizers 1 to 8, in quarters of an intensity: every fourth of the format's table.
_FINEST_STEPS = (35, 75, 126, 183, 247, 314, 384, 456)
#: Frames are predicted from others within 4, no source frame is smoothed over time, and levels
#: differ less in their quantizers: slices lie further apart than the frames of films, and noise
#: is no help to their neighbors.
_SVT_SLICES_APART = "hierarchical-levels=2:enable-tf=0:qp-scale-compress-strength=1"
#: SVT-AV1 is for slices of at least this extent, and for at least this number of them.
_SVT_SIDE, _SVT_SLICES = 64, 4
#: Of its 1023 intensities at least this many are used: its quantizers are fine enough.
_SVT_TOP = 900
_GRAY = 512
_RATE = Fraction(25)


def frame_sides(profile: int, height: int, width: int) -> tuple[int, int]:
    """Extents of the frames that slices of height × width are coded as."""
    even = profile == PROFILE_OF_10_BITS
    rows, columns = (max(side, _LEAST_SIDE) for side in (height, width))
    return rows + (rows % 2 if even else 0), columns + (columns % 2 if even else 0)


def stream_of(file: bytes) -> bytes:
    """The AV1 stream of an image sequence in AVIF, without what can be built anew.

    Raises ValueError for a file whose stream `file_of` could not bring back.
    """
    boxes = dict(_boxes(file, 0, len(file)))
    sizes = _table(file, boxes[b"stsz"], 8)
    places = _table(file, boxes[b"stco"], 4)
    if len(places) != 1:
        raise ValueError("samples in several runs")
    return bare(file[places[0] : places[0] + sum(sizes)])


def bare(samples: bytes) -> bytes:
    """An AV1 stream as it is stored: its sequence headers and its frames."""
    left_out = (_DELIMITER, _METADATA, _PADDING)
    return b"".join(data for kind, data in _units(samples) if kind not in left_out)


@dataclass(frozen=True)
class Rebuilt:
    """An AVIF file of a stream. profile: of AV1; height, width: of its frames."""

    file: bytes
    profile: int
    height: int
    width: int


def file_of(stream: bytes, frames: int, height: int, width: int) -> Rebuilt:
    """An AVIF file of `stream`; raises ValueError unless it shows `count` frames of that size.

    height, width: of the slices that its frames hold.
    """
    sizes, profile = _shown_sizes(stream, height, width, frames)
    sides = frame_sides(profile, height, width)
    brands = b"avis" + bytes(4) + b"avismsf1iso8"
    kind = _box(b"ftyp", brands)
    # The place of the samples takes as many bytes whatever it is.
    size = len(kind) + len(_movie(sizes, *sides, profile, 0)) + 8
    file = kind + _movie(sizes, *sides, profile, size) + _box(b"mdat", stream)
    return Rebuilt(file, profile, *sides)


def frames_of(stream: bytes, count: int, height: int, width: int) -> Frames:
    """The first plane of all frames of a stream, [count, height, width], whole numbers.

    height, width: of the slices that the frames hold. Raises ValueError or RuntimeError for a
    stream that is not of such frames.
    """
    if has_pyav("libdav1d"):
        return _by_dav1d(stream, count, height, width)
    rebuilt = file_of(stream, count, height, width)
    # `out` fixes shape and type: a stream that claims others is refused before it is decoded.
    planes = (4,) if rebuilt.profile == PROFILE_OF_10_BITS else ()
    out = np.empty((count, rebuilt.height, rebuilt.width, *planes), np.uint16)
    codecs().avif_decode(rebuilt.file, numthreads=1, out=out)
    return (out[..., -1] if planes else out)[:, :height, :width]


def _by_dav1d(stream: bytes, count: int, height: int, width: int) -> Frames:
    import av

    sizes, profile = _shown_sizes(stream, height, width, count)
    sides = frame_sides(profile, height, width)
    wanted = ("yuv420p10le" if profile == PROFILE_OF_10_BITS else "gray12le", *sides)
    decoder: Any = av.CodecContext.create("libdav1d", "r")
    decoder.thread_count = 1
    out, done, start = np.empty((count, height, width), np.uint16), 0, 0
    try:
        for size in (*sizes, 0):
            packet = av.Packet(_DELIMITED + stream[start : start + size]) if size else None
            start += size
            for frame in decoder.decode(packet):
                if done == count or (frame.format.name, frame.height, frame.width) != wanted:
                    raise ValueError("a video with frames of another kind")
                plane = frame.planes[0]
                rows = np.frombuffer(plane, np.uint16).reshape(-1, plane.line_size // 2)
                out[done] = rows[:height, :width]
                done += 1
    except av.FFmpegError as cause:
        raise ValueError(f"a video that cannot be decoded ({cause})") from cause
    if done < count:
        raise ValueError(f"a video of {done} slices, {count} expected")
    return out


def _units(stream: bytes) -> Iterator[tuple[int, bytes]]:
    """The stream's units (OBUs), each with its kind; raises ValueError where it makes no sense."""
    start = 0
    while start < len(stream):
        head = stream[start]
        if head & 0x85 or not head & 0x02:  # forbidden bit, extension, reserved bit; size field
            raise ValueError(f"a unit begins with {head:#x}")
        size, place = 0, start + 1
        for shift in range(0, 35, 7):
            if place >= len(stream):
                raise ValueError("cut short")
            byte = stream[place]
            size |= (byte & 0x7F) << shift
            place += 1
            if not byte & 0x80:
                break
        else:
            raise ValueError("a size of more than five bytes")
        if size > len(stream) - place:
            raise ValueError("cut short")
        yield head >> 3, stream[start : place + size]
        start = place + size


def _payload(unit: bytes) -> bytes:
    place = 1
    while unit[place] & 0x80:
        place += 1
    return unit[place + 1 :]


def _shown_sizes(stream: bytes, height: int, width: int, count: int) -> tuple[list[int], int]:
    """Bytes up to each shown frame, and the profile; checks every size that the stream states."""
    sizes, open_bytes = [], 0
    profile: int | None = None
    for kind, unit in _units(stream):
        open_bytes += len(unit)
        if kind == _SEQUENCE:
            stated = _check_sequence(_payload(unit), height, width)
            if profile not in (None, stated):
                raise ValueError("a video of two kinds")
            profile = stated
            continue
        if kind not in (_FRAME, _FRAME_HEADER) or profile is None:
            raise ValueError(f"a unit of kind {kind}")
        payload = _payload(unit)
        if not payload:
            raise ValueError("a frame without bytes")
        shows_existing, shows = payload[0] & 0x80, payload[0] & 0x10
        if kind == _FRAME_HEADER and not shows_existing:
            raise ValueError("a frame in several units")
        if shows_existing or shows:
            sizes.append(open_bytes)
            open_bytes = 0
    if open_bytes or profile is None:
        raise ValueError("a frame that is never shown at the end")
    if len(sizes) != count:
        raise ValueError(f"a video of {len(sizes)} slices, {count} expected")
    return sizes, profile


def _check_sequence(payload: bytes, height: int, width: int) -> int:
    """The profile of a sequence header.

    Raises ValueError unless it is of one layer, of frames for height × width, full range, and of
    12 bits in one plane or 10 bits in three.
    """
    bits = _Bits(payload)
    profile, still, reduced = bits(3), bits(1), bits(1)
    timing, delay, points = bits(1), bits(1), bits(5)
    bits(12)
    if bits(5) > 7:
        bits(1)
    stated_width, stated_height = bits(4) + 1, bits(4) + 1
    stated_width, stated_height = bits(stated_width) + 1, bits(stated_height) + 1
    if profile not in _CONFIGURATION or still or reduced or timing or delay or points:
        raise ValueError("a video of another kind")
    if (stated_height, stated_width) != frame_sides(profile, height, width):
        raise ValueError(f"a video of {stated_height} × {stated_width} for {height} × {width}")
    _skip_tools(bits)
    is_high, is_twelve = bits(1), profile == PROFILE_OF_12_BITS and bits(1)
    is_mono = bits(1)
    if bits(1):  # how colors are meant
        bits(24)
    is_full_range = bits(1)
    wanted = profile == PROFILE_OF_12_BITS
    if not (is_high and is_full_range) or (bool(is_twelve), bool(is_mono)) != (wanted, wanted):
        raise ValueError("a video of other bits or planes")
    return profile


def _skip_tools(bits: _Bits) -> None:
    """Go past what a sequence header says between the frames' size and their colors."""
    if bits(1):  # frame numbers
        bits(7)
    bits(7)
    ordered = bits(1)
    if ordered:
        bits(2)
    chosen = bits(1)
    forced = 2 if chosen else bits(1)
    if forced and not bits(1):  # whole motion vectors: chosen by frame, or stated here
        bits(1)
    if ordered:
        bits(3)
    bits(3)


class _Bits:
    """Reads numbers of a given number of bits, the highest first; raises ValueError at the end."""

    def __init__(self, data: bytes) -> None:
        self._value, self._left = int.from_bytes(data, "big"), 8 * len(data)

    def __call__(self, count: int) -> int:
        self._left -= count
        if self._left < 0:
            raise ValueError("a sequence header that is cut short")
        return (self._value >> self._left) & ((1 << count) - 1)


def _boxes(file: bytes, start: int, stop: int) -> Iterator[tuple[bytes, tuple[int, int]]]:
    """Kind, and where its content lies, of each box down to the sample tables."""
    while start + 8 <= stop:
        size = int.from_bytes(file[start : start + 4], "big")
        kind = file[start + 4 : start + 8]
        if not 8 <= size <= stop - start:
            raise ValueError("a box of AVIF beyond its end")
        yield kind, (start + 8, start + size)
        if kind in _CONTAINERS:
            yield from _boxes(file, start + 8, start + size)
        start += size


def _table(file: bytes, place: tuple[int, int], skipped: int) -> list[int]:
    content = file[place[0] : place[1]]
    count = int.from_bytes(content[skipped : skipped + 4], "big")
    return list(struct.unpack_from(f">{count}I", content, skipped + 4))


def _box(kind: bytes, *parts: bytes) -> bytes:
    content = b"".join(parts)
    return struct.pack(">I4s", 8 + len(content), kind) + content


def _full(kind: bytes, *parts: bytes, flags: int = 0) -> bytes:
    return _box(kind, struct.pack(">I", flags), *parts)


def _movie(sizes: list[int], height: int, width: int, profile: int, place: int) -> bytes:
    count = len(sizes)
    movie = _full(
        b"mvhd",
        struct.pack(">IIIIIH10x", 0, 0, 1, count, 1 << 16, 1 << 8) + _UNITY + bytes(24),
        struct.pack(">I", 3),
    )
    tracks = [_track(1, b"pict", sizes, height, width, profile, place)]
    if profile == PROFILE_OF_10_BITS:
        # Decoders turn three planes into colors, and round. Of a video that is a track of
        # opacities they give the first plane as it is.
        tracks.append(_track(2, b"auxv", sizes, height, width, profile, place))
    return _box(b"moov", movie, *tracks)


def _track(
    number: int, handler: bytes, sizes: list[int], height: int, width: int, profile: int, place: int
) -> bytes:
    count, is_opacity = len(sizes), handler == b"auxv"
    head = _full(
        b"tkhd",
        struct.pack(">IIIIIQhhhH", 0, 0, number, 0, count, 0, 0, 0, 0, 0) + _UNITY,
        struct.pack(">II", width << 16, height << 16),
        flags=1,
    )
    belongs = _box(b"tref", _box(b"auxl", struct.pack(">I", 1))) if is_opacity else b""
    media = _full(b"mdhd", struct.pack(">IIIIHH", 0, 0, 1, count, 0x55C4, 0))
    handled = _full(b"hdlr", struct.pack(">I4s12xB", 0, handler, 0))
    data = _box(b"dinf", _full(b"dref", struct.pack(">I", 1), _full(b"url ", flags=1)))
    entry = _box(
        b"av01",
        struct.pack(">6xH16xHHIIIH32xHH", 1, width, height, 72 << 16, 72 << 16, 0, 1, 24, 0xFFFF),
        _box(b"av1C", _CONFIGURATION[profile]),
        _full(b"auxi", _OPACITY) if is_opacity else b"",
    )
    samples = _box(
        b"stbl",
        _full(b"stsd", struct.pack(">I", 1), entry),
        _full(b"stts", struct.pack(">III", 1, count, 1)),
        _full(b"stsc", struct.pack(">IIII", 1, 1, count, 1)),
        _full(b"stsz", struct.pack(f">II{count}I", 0, count, *sizes)),
        _full(b"stco", struct.pack(">II", 1, place)),
        _full(b"stss", struct.pack(">II", 1, 1)),
    )
    minf = _box(b"minf", _full(b"vmhd", bytes(8), flags=1), data, samples)
    return _box(b"trak", head, belongs, _box(b"mdia", media, handled, minf))


@dataclass(frozen=True)
class Encoder:
    """A coder of frames.

    scale: (span, step, anchor) → where intensities end, and the quantizer, that together give
    `step` in the units of `span`; codings with one anchor, another step, differ so little that a
    size can be sought. code: (frames [K, H, W], quantizer, speed, whether quickly) →
    an AV1 stream as `av1.stream_of` gives it. takes: whether it codes a number of slices of H × W.
    profile: of its streams. most_threads: that may code at once; a large block takes 170 MiB
    with libaom, 380 with SVT-AV1. finest: of the range, the error (RMS) below which it has not
    bits enough. guides: whether its quick codings tell the size of the others.
    """

    name: str
    scale: Callable[[float, float, float], tuple[int, float]]
    code: Callable[[Frames, float, Speed, bool], bytes]
    takes: Callable[[int, int, int], bool]
    profile: int
    most_threads: int
    finest: float = 0.0
    guides: bool = False


def encoders() -> tuple[Encoder, ...]:
    """Those that there are here; the first is always there."""
    return (LIBAOM, SVT) if has_pyav("libsvtav1") else (LIBAOM,)


def quantizer_step(quantizer: float) -> float:
    """About the step of AV1's quantizer 1 to 63 at 12 bits: linear, then exponential."""
    index = 4 * quantizer
    return 2.1 * index if index <= 96 else 2.1 * 96 * math.exp(0.0182 * (index - 96))


def _aom_scale(span: float, step: float, anchor: float) -> tuple[int, float]:
    """The finest quantizer from `_LEAST_QUANTIZER` on that leaves `_AOM_TOP` at `anchor`.

    Steps near that other step then differ in nothing but where intensities end: a finer step of
    the file's size than the 63 quantizers. Where 12 bits end, a finer quantizer takes over.
    """
    finest = range(_LEAST_QUANTIZER, _MOST_QUANTIZER)
    usual = (q for q in finest if quantizer_step(q) * span / anchor >= _AOM_TOP)
    quantizer = next(usual, _MOST_QUANTIZER)
    unit = span / step
    while quantizer < _MOST_QUANTIZER and quantizer_step(quantizer) * unit < _AOM_TOP / _SPREAD:
        quantizer += 1
    top = quantizer_step(quantizer) * unit
    while quantizer > 1 and top > HIGHEST:
        top *= _finer(quantizer)
        quantizer -= 1
    return max(1, min(round(top), HIGHEST)), quantizer


def _finer(quantizer: int) -> float:
    """The step of the next finer quantizer, as a share of this one's.

    `quantizer_step` alone would let a file's size jump by a seventh between the finest ones.
    """
    if quantizer <= len(_FINEST_STEPS):
        return _FINEST_STEPS[quantizer - 2] / _FINEST_STEPS[quantizer - 1]
    return quantizer_step(quantizer - 1) / quantizer_step(quantizer)


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
    return stream_of(bytes(file))


@cache
def _level(quantizer: int) -> int:
    """Imagecodecs' level, 0 to 100, for libaom's quantizer."""
    return next(level for level in range(100) if ((100 - level) * 63 + 50) // 100 == quantizer)


def _svt_scale(span: float, step: float, _: float) -> tuple[int, float]:
    """The finest quarter of a quantizer that leaves `_SVT_TOP` intensities."""
    unit = span / step / 4  # its 10 bits are steps of four of those 12
    quarters = np.arange(4, 4 * _MOST_QUANTIZER + 1) / 4
    enough = (q for q in quarters if quantizer_step(q) * unit >= _SVT_TOP)
    quantizer = float(next(enough, quarters[-1]))
    return max(1, min(round(quantizer_step(quantizer) * unit), HIGHEST >> 2)), quantizer


def _svt_code(frames: Frames, quantizer: float, speed: Speed, quickly: bool) -> bytes:
    import av

    os.environ.setdefault("SVT_LOG", "1")  # it prints its settings at length otherwise
    buffer = io.BytesIO()
    # Full range; one thread: blocks run side by side.
    preset = _SVT_QUICK if quickly else _SVT_PRESET[speed]
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
    return bare(buffer.getvalue())


def _gray_frame(av: Any, plane: Frames) -> Any:
    """One slice as luminance; the colors are gray everywhere and cost next to nothing."""
    height, width = plane.shape
    frame = av.VideoFrame(width, height, "yuv420p10le")
    stride = frame.planes[0].line_size // 2
    frame.planes[0].update(np.pad(plane, ((0, 0), (0, stride - width))).tobytes())
    for color in frame.planes[1:]:
        color.update(np.full(color.buffer_size // 2, _GRAY, np.uint16).tobytes())
    return frame


def _lower_priority() -> None:
    """SVT-AV1 that is run by root gives its threads real-time priority; nobody else may do that."""
    if not hasattr(os, "sched_setscheduler") or os.geteuid() != 0:
        return
    for task in Path("/proc/self/task").iterdir():
        with contextlib.suppress(OSError):  # a thread that is gone
            if os.sched_getscheduler(int(task.name)) == os.SCHED_FIFO:
                os.sched_setscheduler(int(task.name), os.SCHED_OTHER, os.sched_param(0))


@cache
def has_pyav(codec: str) -> bool:
    """Whether PyAV is installed and has that codec."""
    if not has("av"):
        return False
    try:
        return codec in import_module("av").codecs_available
    except ImportError:  # a system's library that it needs
        return False


LIBAOM = Encoder(
    name="libaom",
    scale=_aom_scale,
    code=_aom_code,
    takes=lambda *_: True,
    profile=PROFILE_OF_12_BITS,
    most_threads=6,
)
SVT = Encoder(
    name="SVT-AV1",
    scale=_svt_scale,
    code=_svt_code,
    takes=lambda slices, height, width: min(height, width) >= _SVT_SIDE and slices >= _SVT_SLICES,
    profile=PROFILE_OF_10_BITS,
    most_threads=3,
    finest=0.0025,
    guides=True,
)
