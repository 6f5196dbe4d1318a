"""Codecs that a user might take instead, each as its own users would call it."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import imagecodecs
import numpy as np
import numpy.typing as npt
import zstandard

Voxels = npt.NDArray[Any]
Codec = Callable[[Voxels], tuple[int, Voxels | None]]


@dataclass(frozen=True)
class Point:
    """What a peer made of a volume: bytes, the decoded voxels, processor seconds."""

    codec: str
    size: int
    decoded: Voxels | None
    seconds: float


def lossless_peers() -> dict[str, Codec]:
    """Slice by slice, as DICOM and image tools do; zstd over the whole volume."""
    return {
        "JPEG XL effort 7": lambda v: _slices(v, _jpegxl(7)),
        "JPEG XL effort 9": lambda v: _slices(v, _jpegxl(9)),
        "JPEG-LS": lambda v: _slices(v, imagecodecs.jpegls_encode),
        "JPEG 2000": lambda v: _slices(v, _jpeg2000_reversible),
        "zstd 19, bytes shuffled": lambda v: (_zstd(v), None),
    }


def bounded_peers(bound: int) -> dict[str, Codec]:
    """No voxel off by more than `bound`."""
    return {
        "quantised, JPEG XL effort 7": lambda v: _slices(_quantised(v, bound), _jpegxl(7)),
        "JPEG-LS near-lossless": lambda v: _slices(
            v, lambda image: imagecodecs.jpegls_encode(image, level=bound)
        ),
        "SZ3": lambda v: _sz3(v, bound),
    }


def lossy_curves(voxels: Voxels) -> Iterator[Point]:
    """JPEG 2000 and JPEG XL slice by slice, over their qualities."""
    image, low, top = _unsigned(voxels)
    wide = np.round(image.astype(np.float64) * (65535 / top)).astype(np.uint16)
    for level in (26, 32, 38, 44, 50, 57, 65):
        yield _timed("JPEG 2000", voxels, lambda _, q=level: _jpeg2000(image, q, low))
    for distance in (0.05, 0.25, 0.8, 2.0, 5.0, 12.0, 25.0):
        yield _timed(
            "JPEG XL lossy", voxels, lambda _, d=distance: _jpegxl_lossy(wide, d, low, top)
        )


def sperr_whole(voxels: Voxels, ratio: float) -> Point:
    """SPERR on the whole volume at once: what the blocks of a container give away."""

    def code(v: Voxels) -> tuple[int, Voxels]:
        bits = 8 * v.dtype.itemsize / ratio
        raw = imagecodecs.sperr_encode(v.astype(np.float32), bits, "bpp", numthreads=1)
        decoded = imagecodecs.sperr_decode(raw, numthreads=1)
        return len(raw), np.clip(np.rint(decoded), v.min(), v.max()).astype(v.dtype)

    return _timed("SPERR, whole volume", voxels, code)


def run(name: str, codec: Codec, voxels: Voxels) -> Point:
    """One peer on one volume."""
    return _timed(name, voxels, codec)


def _timed(name: str, voxels: Voxels, codec: Codec) -> Point:
    began = time.process_time()
    size, decoded = codec(voxels)
    return Point(name, size, decoded, time.process_time() - began)


def _unsigned(voxels: Voxels) -> tuple[Voxels, int, int]:
    low, high = int(voxels.min()), int(voxels.max())
    shifted = voxels.astype(np.int64) - low
    return shifted.astype(np.min_scalar_type(high - low)), low, high - low


def _slices(voxels: Voxels, encode: Callable[[Voxels], bytes]) -> tuple[int, None]:
    image, _, _ = _unsigned(voxels)
    return sum(len(encode(np.ascontiguousarray(one))) for one in image), None


def _jpegxl(effort: int) -> Callable[[Voxels], bytes]:
    return lambda image: bytes(
        imagecodecs.jpegxl_encode(image, lossless=True, effort=effort, numthreads=1)
    )


def _jpeg2000_reversible(image: Voxels) -> bytes:
    return bytes(imagecodecs.jpeg2k_encode(image, level=0, reversible=True, codecformat="j2k"))


def _zstd(voxels: Voxels) -> int:
    image, _, _ = _unsigned(voxels)
    shuffled = image.view(np.uint8).reshape(-1, image.dtype.itemsize).T.tobytes()
    return len(zstandard.ZstdCompressor(level=19).compress(shuffled))


def _quantised(voxels: Voxels, bound: int) -> Voxels:
    above = voxels.astype(np.int64) - int(voxels.min())
    indices: Voxels = (above + bound) // (2 * bound + 1)
    return indices


def _sz3(voxels: Voxels, bound: int) -> tuple[int, None]:
    # A little less than the bound: rounding to whole numbers adds to the error.
    raw = imagecodecs.sz3_encode(voxels.astype(np.float32), "abs", abs=bound + 0.499)
    return len(raw), None


def _jpeg2000(image: Voxels, level: int, low: int) -> tuple[int, Voxels]:
    codes = [imagecodecs.jpeg2k_encode(one, level=level, codecformat="j2k") for one in image]
    decoded = np.stack([imagecodecs.jpeg2k_decode(code) for code in codes])
    return sum(map(len, codes)), decoded.astype(np.int64) + low


def _jpegxl_lossy(wide: Voxels, distance: float, low: int, top: int) -> tuple[int, Voxels]:
    codes = [
        imagecodecs.jpegxl_encode(one, distance=distance, effort=5, numthreads=1) for one in wide
    ]
    decoded = np.stack([imagecodecs.jpegxl_decode(code, numthreads=1) for code in codes])
    return sum(map(len, codes)), np.rint(decoded * (top / 65535)).astype(np.int64) + low
