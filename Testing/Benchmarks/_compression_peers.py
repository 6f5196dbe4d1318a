"""Codecs that a user might take instead, each as its own users would call it, at its best.

Every lossy peer gets the whole volume at once: codecs of images one tall image of all slices, which
pays one header and was better than slice by slice at every rate that was tried.
"""

from __future__ import annotations

import gzip
import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import imagecodecs
import numpy as np
import numpy.typing as npt

Voxels = npt.NDArray[Any]
#: Bytes, and how to get the voxels back.
Coded = tuple[int, Callable[[], Voxels] | None]
QUANTIZED, NEAR, SZ3 = "quantized, JPEG XL effort 7", "JPEG-LS near-lossless", "SZ3"
JPEG2000, HEVC, AV1, SPERR = "JPEG 2000", "HEVC 12 bit, slow", "SVT-AV1 10 bit, slow", "SPERR"
JPEGXL = "JPEG XL effort {}"
#: With slices one below the other: one model for all of them.
STACKED = ", slices stacked"


@dataclass(frozen=True)
class Point:
    """What a peer made of a volume: bytes, the decoded voxels, processor seconds of each way."""

    size: int
    decoded: Voxels | None
    encode_s: float
    decode_s: float | None


@dataclass(frozen=True)
class LossyPeer:
    """A codec and its settings, from fine to coarse; `code` takes voxels that begin at 0."""

    name: str
    settings: tuple[float, ...]
    code: Callable[[Voxels, float], Coded]


def run(code: Callable[[Voxels], Coded], voxels: Voxels) -> Point:
    """One setting of one peer on a volume of integers."""
    low = int(voxels.min())
    image = _unsigned(voxels, low)
    began = time.process_time()
    size, decode = code(image)
    encoded = time.process_time()
    if decode is None:
        return Point(size, None, encoded - began, None)
    decoded = decode().reshape(voxels.shape)
    seconds = time.process_time() - encoded
    top = int(image.max())
    whole = np.clip(np.rint(decoded), 0, top).astype(np.int32) + low
    return Point(size, whole, encoded - began, seconds)


def lossless_peers() -> dict[str, Callable[[Voxels], Coded]]:
    """Slice by slice, as DICOM and image tools do; JPEG XL stacked too; gzip over all."""
    peers: dict[str, Callable[[Voxels], Coded]] = {
        JPEGXL.format(effort): partial(_by_slice, partial(_jpegxl, effort)) for effort in (3, 7, 9)
    }
    for effort in (7, 9):
        name = JPEGXL.format(effort) + STACKED
        peers[name] = lambda image, effort=effort: (len(_jpegxl(effort, _tall(image))), None)
    return peers | {
        "JPEG-LS": partial(_by_slice, imagecodecs.jpegls_encode),
        "JPEG 2000": partial(_by_slice, _jpeg2000_reversible),
        "gzip 9": lambda image: (len(gzip.compress(image.tobytes(), 9)), None),
    }


def bounded_peers(bound: int) -> dict[str, Callable[[Voxels], Coded]]:
    """No voxel off by more than `bound`."""
    return {
        QUANTIZED: lambda image: _by_slice(partial(_jpegxl, 7), quantized(image, bound)),
        NEAR: partial(_by_slice, partial(imagecodecs.jpegls_encode, level=bound)),
        # A little less than the next whole number: rounding gives back what is beyond the bound.
        SZ3: partial(_sz3, bound=bound + 0.499),
    }


def lossy_peers(stored_bits: int) -> list[LossyPeer]:
    """Each from fine to coarse, reaching from below a ratio of 8 to beyond 1024 where it can.

    stored_bits: of a voxel as the volume holds it, which ratios refer to.
    """
    return [
        # Finer does nothing; beyond 36 quality falls in steps.
        LossyPeer(HEVC, (-8, *range(0, 36, 4), *range(36, 52, 2)), _hevc),
        LossyPeer(AV1, (1, 4, 8, 14, 20, 28, 36, 44, 52, 60), _av1),
        LossyPeer(JPEG2000, tuple(range(60, 12, -4)), _jpeg2000),
        LossyPeer(SPERR, tuple(stored_bits / 2.0**n for n in (*range(3, 11), 10.2)), _sperr),
    ]


def _unsigned(voxels: Voxels, low: int) -> Voxels:
    shifted = voxels.astype(np.int64) - low
    return shifted.astype(np.min_scalar_type(int(shifted.max())))


def _tall(image: Voxels) -> Voxels:
    return np.ascontiguousarray(image).reshape(-1, image.shape[-1])


def _by_slice(encode: Callable[[Voxels], Any], image: Voxels) -> Coded:
    return sum(len(encode(np.ascontiguousarray(plane))) for plane in image), None


def _jpegxl(effort: int, image: Voxels) -> bytes:
    return bytes(imagecodecs.jpegxl_encode(image, lossless=True, effort=effort, numthreads=1))


def _jpeg2000_reversible(image: Voxels) -> bytes:
    return bytes(imagecodecs.jpeg2k_encode(image, level=0, reversible=True, codecformat="j2k"))


def quantized(image: Voxels, bound: int) -> Voxels:
    indices = (image.astype(np.int64) + bound) // (2 * bound + 1)
    return indices.astype(np.min_scalar_type(int(indices.max())))


def _sz3(image: Voxels, bound: float) -> Coded:
    floats = image.astype(np.float32)
    code = imagecodecs.sz3_encode(floats, "abs", abs=bound)
    return len(code), lambda: imagecodecs.sz3_decode(code, shape=floats.shape, dtype=floats.dtype)


def _sperr(image: Voxels, bits: float) -> Coded:
    """bits: for each voxel."""
    code = imagecodecs.sperr_encode(image.astype(np.float32), bits, "bpp", numthreads=1)
    return len(code), lambda: imagecodecs.sperr_decode(code, numthreads=1)


def _jpeg2000(image: Voxels, psnr: float) -> Coded:
    """psnr: asked for against the range of the voxels; the codec counts from its type's."""
    peak = float(np.iinfo(image.dtype).max)
    level = psnr + 20 * math.log10(peak / float(image.max()))
    code = imagecodecs.jpeg2k_encode(_tall(image), level=level, codecformat="j2k")
    return len(code), lambda: imagecodecs.jpeg2k_decode(code)


def _hevc(image: Voxels, crf: float) -> Coded:
    from _compression_video import decode_hevc, hevc

    wide = image.astype(np.uint16)
    code, _ = hevc(wide, crf)
    return len(code), lambda: decode_hevc(code, wide)


def _av1(image: Voxels, crf: float) -> Coded:
    from _compression_video import av1, decode_av1

    wide = image.astype(np.uint16)
    code, _ = av1(wide, int(crf))
    return len(code), lambda: decode_av1(code, wide)
