"""Rows of the comparison: a codec, a setting and a volume each."""

from __future__ import annotations

import math
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from _common import QUICK, Row
from _compression_peers import (
    Coded,
    LossyPeer,
    Voxels,
    bounded_peers,
    lossless_peers,
    lossy_peers,
    run,
)
from _compression_volumes import Subject

from MedEnhanceLib.core import metrics
from MedEnhanceLib.core.volume import Volume
from MedEnhanceLib.errors import ConfigError
from MedEnhanceLib.unicompress import CompressConfig, compress, decompress, estimate

OURS, OURS_FAST = "ours", "ours, fast"
LOSSLESS, BOUNDED, RATIO, ESTIMATE = "lossless", "max_error", "ratio", "estimate"
THREADS = 2
BOUNDS = {"CT": (1, 2, 8), "MR": (2,), "EM": (2,)}
RATIOS = (32, 64, 128, 256, 512)
#: What is asked for where the size is estimated before it is known.
ESTIMATED: tuple[dict[str, Any], ...] = (
    {"lossless": True},
    {"max_error": 2},
    {"ratio": 64},
    {"psnr": 40.0},
)
#: Points of a peer further out than these are not measured: no ratio of the page is near them.
_FINEST, _COARSEST = 5, 1100


def our_rows(subject: Subject, volume: Volume) -> Iterator[Row]:
    """All modes, two of them at both speeds, and what is estimated beforehand."""
    rows = list(_coded_rows(subject, volume))
    yield from rows
    coded_bytes = {
        (row["mode"], row["setting"]): row["bytes"]
        for row in rows
        if row["codec"] == OURS and "bytes" in row
    }
    for config in ESTIMATED:
        ((mode, value),) = config.items()
        setting = None if mode == LOSSLESS else value
        size = coded_bytes.get((mode, setting)) or coded(volume, config)[0]["bytes"]
        estimated = estimate(volume, CompressConfig(threads=THREADS, **config)).file_bytes
        yield {
            "volume": subject.name,
            "mode": ESTIMATE,
            "setting": mode if mode == LOSSLESS else f"{mode} {value:g}",
            "codec": OURS,
            "bytes": size,
            "estimated_bytes": estimated,
            "size_error": estimated / size - 1,
        }


def _coded_rows(subject: Subject, volume: Volume) -> Iterator[Row]:
    for codec, speed in ((OURS, "normal"), (OURS_FAST, "fast")):
        yield _our_row(subject, volume, LOSSLESS, None, codec, {"lossless": True, "speed": speed})
        for bound in BOUNDS[subject.modality]:
            config = {"max_error": bound, "speed": speed}
            yield _our_row(subject, volume, BOUNDED, bound, codec, config)
    for ratio in RATIOS[: 1 if QUICK else None]:
        yield _our_row(subject, volume, RATIO, ratio, OURS, {"ratio": ratio})


def peer_rows(subject: Subject, volume: Volume) -> Iterator[Row]:
    """All peers; lossy ones from fine to coarse, until no ratio of the page is left."""
    for name, code in lossless_peers().items():
        yield _peer_row(subject, volume, LOSSLESS, None, name, code)
    for bound in BOUNDS[subject.modality]:
        for name, code in bounded_peers(bound).items():
            yield _peer_row(subject, volume, BOUNDED, bound, name, code)
    for peer in lossy_peers(8 * volume.dtype.itemsize):
        for quality in peer.settings[:: 9 if QUICK else 1]:
            row = _peer_row(subject, volume, RATIO, None, peer.name, _at(peer, quality))
            yield row | {"quality": quality}
            if row["ratio"] > _COARSEST:
                break


def coded(volume: Volume, config: dict[str, Any]) -> tuple[Row, Voxels]:
    """Compress to a file and read it back: the row of its size, and the voxels."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "a.ucv"
        began = time.process_time()
        compressed = compress(volume, path, CompressConfig(threads=THREADS, **config))
        written = time.process_time()
        decoded = decompress(path).voxels
        read = time.process_time()
    row = _size_row(volume, compressed.file_bytes)
    row |= {"encode_cpu_s": written - began, "decode_cpu_s": read - written}
    return row | {"psnr_db": compressed.psnr}, decoded


def _our_row(
    subject: Subject,
    volume: Volume,
    mode: str,
    setting: float | None,
    codec: str,
    config: dict[str, Any],
) -> Row:
    row: Row = {"volume": subject.name, "mode": mode, "setting": setting, "codec": codec}
    try:
        sizes, decoded = coded(volume, config)
    except ConfigError as refusal:  # a ratio that this volume cannot reach
        return row | {"refused": str(refusal)}
    return row | sizes | _quality_row(volume, decoded)


def _at(peer: LossyPeer, quality: float) -> Callable[[Voxels], Coded]:
    return lambda image: peer.code(image, quality)


def _peer_row(
    subject: Subject,
    volume: Volume,
    mode: str,
    setting: float | None,
    name: str,
    code: Callable[[Voxels], Coded],
) -> Row:
    point = run(code, volume.voxels)
    row = {"volume": subject.name, "mode": mode, "setting": setting, "codec": name}
    row |= _size_row(volume, point.size)
    row |= {"encode_cpu_s": point.encode_s, "decode_cpu_s": point.decode_s}
    if point.decoded is not None and row["ratio"] >= _FINEST:
        row |= _quality_row(volume, point.decoded)
    return row


def _size_row(volume: Volume, size: int) -> Row:
    """Bytes, and the ratio to the bytes of the voxels as they are stored."""
    return {"bytes": size, "ratio": volume.nbytes / size}


def _quality_row(volume: Volume, decoded: Voxels) -> Row:
    """PSNR against the full range, None without any error; the largest error."""
    psnr = metrics.psnr(volume.voxels, decoded)
    slabs = zip(volume.voxels, decoded, strict=True)
    largest = max(float(np.abs(after - before.astype(np.float64)).max()) for before, after in slabs)
    return {"psnr_db": psnr if math.isfinite(psnr) else None, "max_error": largest}
