"""What codes slices as AV1 streams: libaom, and SVT-AV1 where PyAV is installed.

libaom, as imagecodecs has it, codes 12 bits, one plane. It weighs errors by how busy a place is,
which costs 0.3 to 1.4 dB of PSNR; where intensities use a quarter of the 12 bits, all places look
quiet to it, and errors weigh the same.
SVT-AV1 codes 10 bits in several times less time, and better than libaom on most MR. PyAV's wheels
carry x265 too, which is under the GPL: whoever wants it installs it. Files are read without it.
"""

from __future__ import annotations

import contextlib
import io
import math
import os
from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from MedEnhanceLib.runtime.dependencies import has
from MedEnhanceLib.unicompress import av1
from MedEnhanceLib.unicompress.coders import codecs
from MedEnhanceLib.unicompress.config import Speed

Frames = npt.NDArray[np.uint16]

_AOM_SPEED: dict[Speed, int] = {"normal": 4, "fast": 6, "slow": 2}
_SVT_PRESET: dict[Speed, int] = {"normal": 2, "fast": 4, "slow": 1}
_LEAST_QUANTISER, _MOST_QUANTISER = 5, 63
#: Where intensities end, at least, in 12 bits; a quarter of that in coarse steps.
_AOM_TOP, _SPREAD = 1023, 4
#: SVT-AV1 is for slices of at least this extent, and for at least so many of them.
_SVT_SIDE, _SVT_SLICES = 64, 4
#: Of its 1023 intensities at least so many are used: its quantisers are fine enough.
_SVT_TOP = 900
_GREY = 512
_RATE = Fraction(25)


@dataclass(frozen=True)
class Encoder:
    """A coder of frames.

    scale: (span, step, anchor) → where intensities end, and the quantiser, that together give
    `step` in the units of `span`; codings with one anchor, another step, differ so little that a
    size can be sought. code: (frames [K, H, W], quantiser, speed) →
    an AV1 stream as `av1.stream_of` gives it. takes: whether it codes so many slices of H × W.
    profile: of its streams. most_threads: that may code at once; a large block takes 170 MiB
    with libaom, 380 with SVT-AV1. finest: of the range, the error (RMS) below which it has not
    bits enough.
    """

    name: str
    scale: Callable[[float, float, float], tuple[int, float]]
    code: Callable[[Frames, float, Speed], bytes]
    takes: Callable[[int, int, int], bool]
    profile: int
    most_threads: int
    finest: float = 0.0


def encoders() -> tuple[Encoder, ...]:
    """Those that there are here; the first is always there."""
    return (LIBAOM, SVT) if _has_svt() else (LIBAOM,)


def quantiser_step(quantiser: float) -> float:
    """About the step of AV1's quantiser 1 to 63 at 12 bits: linear, then exponential."""
    index = 4 * quantiser
    return 2.1 * index if index <= 96 else 2.1 * 96 * math.exp(0.0182 * (index - 96))


def _aom_scale(span: float, step: float, anchor: float) -> tuple[int, float]:
    """The finest quantiser from `_LEAST_QUANTISER` on that leaves `_AOM_TOP` at `anchor`.

    Steps near that other step then differ in nothing but where intensities end: a finer step of
    the file's size than the 63 quantisers.
    """
    finest = range(_LEAST_QUANTISER, _MOST_QUANTISER)
    usual = (q for q in finest if quantiser_step(q) * span / anchor >= _AOM_TOP)
    quantiser = next(usual, _MOST_QUANTISER)
    unit = span / step
    while quantiser > 1 and quantiser_step(quantiser) * unit > av1.HIGHEST:
        quantiser -= 1
    while quantiser < _MOST_QUANTISER and quantiser_step(quantiser) * unit < _AOM_TOP / _SPREAD:
        quantiser += 1
    return max(1, min(round(quantiser_step(quantiser) * unit), av1.HIGHEST)), quantiser


def _aom_code(frames: Frames, quantiser: float, speed: Speed) -> bytes:
    file = codecs().avif_encode(
        # One channel would be coded without loss, whatever level is asked for.
        np.repeat(frames[..., None], 3, axis=-1),
        level=_level(round(quantiser)),
        speed=_AOM_SPEED[speed],
        bitspersample=12,
        pixelformat="400",
        numthreads=1,
    )
    return av1.stream_of(bytes(file))


@cache
def _level(quantiser: int) -> int:
    """Imagecodecs' level, 0 to 100, for libaom's quantiser."""
    return next(level for level in range(100) if ((100 - level) * 63 + 50) // 100 == quantiser)


def _svt_scale(span: float, step: float, _: float) -> tuple[int, float]:
    """The finest quarter of a quantiser that leaves `_SVT_TOP` intensities."""
    unit = span / step / 4  # its 10 bits are steps of four of those 12
    quarters = np.arange(4, 4 * _MOST_QUANTISER + 1) / 4
    enough = (q for q in quarters if quantiser_step(q) * unit >= _SVT_TOP)
    quantiser = float(next(enough, quarters[-1]))
    return max(1, min(round(quantiser_step(quantiser) * unit), av1.HIGHEST >> 2)), quantiser


def _svt_code(frames: Frames, quantiser: float, speed: Speed) -> bytes:
    import av

    os.environ.setdefault("SVT_LOG", "1")  # it tells its settings at length otherwise
    buffer = io.BytesIO()
    # Full range; one thread: blocks run side by side.
    parameters = f"tune=1:lp=1:color-range=1:crf={quantiser:g}"
    with av.open(buffer, "w", format="obu") as container:
        stream = container.add_stream(
            "libsvtav1",
            rate=_RATE,
            options={"preset": str(_SVT_PRESET[speed]), "svtav1-params": parameters},
        )
        stream.height, stream.width = frames.shape[1:]
        stream.pix_fmt = "yuv420p10le"
        stream.color_range = 2
        stream.codec_context.open()
        _lower_priority()
        for frame in frames:
            container.mux(stream.encode(_grey_frame(av, frame)))
        container.mux(stream.encode())
    return av1.bare(buffer.getvalue())


def _grey_frame(av: Any, plane: Frames) -> Any:
    """One slice as luminance; the colours are grey everywhere and cost next to nothing."""
    height, width = plane.shape
    frame = av.VideoFrame(width, height, "yuv420p10le")
    stride = frame.planes[0].line_size // 2
    frame.planes[0].update(np.pad(plane, ((0, 0), (0, stride - width))).tobytes())
    for colour in frame.planes[1:]:
        colour.update(np.full(colour.buffer_size // 2, _GREY, np.uint16).tobytes())
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
def _has_svt() -> bool:
    if not has("av"):
        return False
    try:
        return "libsvtav1" in import_module("av").codecs_available
    except ImportError:  # a system's library that it needs
        return False


LIBAOM = Encoder(
    name="libaom",
    scale=_aom_scale,
    code=_aom_code,
    takes=lambda *_: True,
    profile=av1.PROFILE_OF_12_BITS,
    most_threads=6,
)
SVT = Encoder(
    name="SVT-AV1",
    scale=_svt_scale,
    code=_svt_code,
    takes=lambda slices, height, width: min(height, width) >= _SVT_SIDE and slices >= _SVT_SLICES,
    profile=av1.PROFILE_OF_10_BITS,
    most_threads=3,
    finest=0.002,
)
