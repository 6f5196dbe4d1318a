"""Time and memory of a large volume, each mode and each named peer in a process of its own.

Both threads of two cores are given to everyone. Peers are measured in the same run: on a machine
that others use, seconds tell little and ratios of processor seconds much.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from _common import QUICK, Row, timed
from _compression_rows import THREADS
from _compression_volumes import large_volume

LARGE = "large"
JPEGXL, JPEGXL_FAST, HEVC = "JPEG XL effort 7", "JPEG XL effort 3", "HEVC 12 bit, slow"
MODES: dict[str, dict[str, Any]] = {
    "lossless": {"lossless": True},
    "lossless, fast": {"lossless": True, "speed": "fast"},
    "largest error 2": {"max_error": 2},
    "ratio 64": {"ratio": 64},
    "ratio 64, fast": {"ratio": 64, "speed": "fast"},
}
#: Mode → the peer that it is held against.
NAMED_PEER = {
    "lossless": JPEGXL,
    "lossless, fast": JPEGXL_FAST,
    "largest error 2": JPEGXL,
    "ratio 64": HEVC,
    "ratio 64, fast": HEVC,
}
MODES_AND_PEERS = (JPEGXL, HEVC, JPEGXL_FAST, *MODES)
LARGE_RATIO = 64
_SLICES, _TRIED_SLICES = (4, 4) if QUICK else (100, 20)
#: Decoding takes seconds, of which other people's work on the machine can double one.
_DECODED = 3


def measure_large(mode: str) -> Row:
    """One row: wall and processor seconds each way, and the memory beyond the volume's own."""
    volume = large_volume(_SLICES)
    image = (volume.voxels.astype(np.int32) - int(volume.voxels.min())).astype(np.uint16)
    runs: dict[str, Callable[[Any], Steps]] = {
        JPEGXL: partial(_run_jpegxl, effort=7),
        JPEGXL_FAST: partial(_run_jpegxl, effort=3),
        HEVC: _run_hevc,
    }
    job = runs[mode](image) if mode in runs else _run_ours(volume, MODES[mode])
    if mode not in runs:
        del image
    encode, decode = job
    before = _forget_peak_mb()
    size, encode_s, encode_cpu_s = timed(encode)
    decodings = [timed(decode) for _ in range(_DECODED)]
    return {
        "volume": f"CT 512×512×{_SLICES}",
        "mode": LARGE,
        "setting": mode,
        "codec": mode if mode in runs else "ours",
        "bytes": size,
        "ratio": volume.nbytes / size,
        "encode_s": encode_s,
        "encode_cpu_s": encode_cpu_s,
        "decode_s": min(wall for _, wall, _ in decodings),
        "decode_cpu_s": min(cpu for _, _, cpu in decodings),
        "extra_peak_mb": _peak_mb() - before,
    }


Steps = tuple[Callable[[], int], Callable[[], int]]


def _run_ours(volume: Any, config: dict[str, Any]) -> Steps:
    from MedEnhanceLib.unicompress import CompressConfig, compress, decompress

    folder = tempfile.TemporaryDirectory()  # there as long as one of the two is

    def path() -> Path:
        return Path(folder.name) / "a.ucv"

    def encode() -> int:
        compressed = compress(volume, path(), CompressConfig(threads=THREADS, **config))
        return compressed.file_bytes

    def decode() -> int:
        decompress(path())
        return path().stat().st_size

    return encode, decode


def _run_jpegxl(image: Any, effort: int) -> Steps:
    import imagecodecs

    codes: list[bytes] = []

    def one(plane: Any) -> bytes:
        return bytes(imagecodecs.jpegxl_encode(plane, lossless=True, effort=effort, numthreads=1))

    def encode() -> int:
        with ThreadPoolExecutor(THREADS) as pool:
            codes.extend(pool.map(one, image))
        return sum(map(len, codes))

    def decode() -> int:
        out = np.empty_like(image)
        with ThreadPoolExecutor(THREADS) as pool:
            list(
                pool.map(lambda k: imagecodecs.jpegxl_decode(codes[k], out=out[k]), range(len(out)))
            )
        return sum(map(len, codes))

    return encode, decode


def _run_hevc(image: Any) -> Steps:
    """At the quality that comes next to the ratio, found on the first slices."""
    from _compression_video import decode_hevc, hevc

    crf = 0.0
    for step in (16.0, 8.0, 4.0, 2.0, 1.0):
        part = image[:_TRIED_SLICES]
        if part.nbytes / len(hevc(part, crf + step)[0]) < LARGE_RATIO:
            crf += step
    crf += 1  # the first whole one that reaches it
    codes: list[bytes] = []

    def encode() -> int:
        codes.append(hevc(image, crf, THREADS)[0])
        return len(codes[0])

    def decode() -> int:
        decode_hevc(codes[0], image, THREADS)
        return len(codes[0])

    return encode, decode


def _peak_mb() -> float:
    """The most memory that this process held so far (getrusage would count its parent's)."""
    status = Path("/proc/self/status").read_text()
    return int(status.partition("VmHWM:")[2].split()[0]) / 1024


def _forget_peak_mb() -> float:
    """Begin the peak anew, at what is held now, which is returned (Linux)."""
    Path("/proc/self/clear_refs").write_text("5")
    return _peak_mb()
