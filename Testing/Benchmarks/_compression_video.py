"""Slices as the frames of a video: HEVC of 12 bit and AV1 of 10 bit, at slow presets.

PyAV's wheels carry x265, which is under the GPL: good for a comparison, never a dependency of the
package. Slices are filled up to an even size with their last row and column.
"""

from __future__ import annotations

import io
import time
from fractions import Fraction

import av
import numpy as np
import numpy.typing as npt

Image = npt.NDArray[np.uint16]
HEVC_BITS, AV1_BITS = 12, 10
HEVC_PRESET, AV1_PRESET = "slow", 2
_RATE = Fraction(25)


def hevc(image: Image, crf: float, threads: int = 1) -> tuple[bytes, float]:
    """x265 with `tune=psnr` at 12 bit, gray; [K, J, I] of at most 12 bit → bytes, CPU seconds.

    The note with its options that the encoder would write into the stream is left out.
    """
    frames = _even(image << _shift(image, HEVC_BITS))
    options = {
        "preset": HEVC_PRESET,
        "tune": "psnr",
        "x265-params": f"crf={crf:g}:info=0:log-level=none:pools={threads}:frame-threads={threads}",
    }
    began = time.process_time()
    buffer = io.BytesIO()
    with av.open(buffer, "w", format="hevc") as container:
        stream = container.add_stream("libx265", rate=_RATE, options=options)
        stream.height, stream.width = frames.shape[1:]
        stream.pix_fmt = "gray12le"
        for frame in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="gray12le")))
        container.mux(stream.encode())
    return buffer.getvalue(), time.process_time() - began


def decode_hevc(data: bytes, image: Image, threads: int = 1) -> Image:
    """The inverse; `image` gives the shape and the scale."""
    with av.open(io.BytesIO(data), format="hevc") as container:
        container.streams.video[0].codec_context.thread_count = threads
        frames = [frame.to_ndarray() for frame in container.decode(video=0)]
    return _scaled(np.stack(frames), image, 2.0 ** _shift(image, HEVC_BITS))


def av1(image: Image, crf: int) -> tuple[bytes, float]:
    """SVT-AV1 at 10 bit, over which the range of a volume is spread."""
    frames = _even(np.rint(image * _av1_scale(image)).astype(np.uint16))
    options = {"preset": str(AV1_PRESET), "crf": str(crf), "svtav1-params": "tune=1:lp=1"}
    began = time.process_time()
    buffer = io.BytesIO()
    with av.open(buffer, "w", format="obu") as container:
        stream = container.add_stream("libsvtav1", rate=_RATE, options=options)
        stream.height, stream.width = frames.shape[1:]
        stream.pix_fmt = "yuv420p10le"
        for frame in frames:
            container.mux(stream.encode(_gray_frame(frame)))
        container.mux(stream.encode())
    return buffer.getvalue(), time.process_time() - began


def decode_av1(data: bytes, image: Image) -> Image:
    """The inverse; `image` gives the shape and the scale."""
    with av.open(io.BytesIO(data), format="obu") as container:
        container.streams.video[0].codec_context.thread_count = 1
        frames = [
            np.frombuffer(frame.planes[0], np.uint16).reshape(frame.height, -1)
            for frame in container.decode(video=0)
        ]
    return _scaled(np.stack(frames), image, _av1_scale(image))


def _av1_scale(image: Image) -> float:
    return (2**AV1_BITS - 1) / float(max(image.max(), 1))


def _gray_frame(plane: Image) -> av.VideoFrame:
    """One slice as luminance; the colors are gray everywhere and cost next to nothing."""
    height, width = plane.shape
    frame = av.VideoFrame(width, height, "yuv420p10le")
    stride = frame.planes[0].line_size // 2
    frame.planes[0].update(np.pad(plane, ((0, 0), (0, stride - width))).tobytes())
    for color in frame.planes[1:]:
        middle = np.full(color.buffer_size // 2, 1 << (AV1_BITS - 1), np.uint16)
        color.update(middle.tobytes())
    return frame


def _shift(image: Image, bits: int) -> int:
    """Bits that the values are moved up to fill `bits`; below 0 where they have more."""
    shift = bits - int(image.max()).bit_length()
    if bits == HEVC_BITS and shift < 0:
        raise ValueError("more than 12 bits")
    return shift


def _even(frames: Image) -> Image:
    rows, columns = (extent % 2 for extent in frames.shape[1:])
    return np.pad(frames, ((0, 0), (0, rows), (0, columns)), mode="edge")


def _scaled(frames: Image, image: Image, scale: float) -> Image:
    _, rows, columns = image.shape
    return np.rint(frames[:, :rows, :columns] / scale).astype(np.uint16)
