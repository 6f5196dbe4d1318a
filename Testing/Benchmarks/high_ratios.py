"""Where the implicit network might lead: very high ratios, sequences.

    OMP_NUM_THREADS=1 python Testing/Benchmarks/high_ratios.py

At equal bytes of the file, against the codec's default and against a plain way: the volume shrunk
by averaging, coded by the codec, enlarged by cubic splines.
"""

from __future__ import annotations

import math
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from _common import SHARED_DATA, gate, write
from _compression_volumes import SUBJECTS
from _high_ratios_arms import cubic, like, resized, shrunk
from scipy import ndimage

from MedEnhanceLib.core import metrics
from MedEnhanceLib.core.volume import Volume, Voxels
from MedEnhanceLib.errors import ConfigError
from MedEnhanceLib.io import load
from MedEnhanceLib.unicompress import CompressConfig, compress, decompress

Row = dict[str, Any]
DEFAULT, IMPLICIT, SHRUNK = "default", "implicit", "shrunk"
TIME_AS_SLICES = "default, times as slices"
NETWORK: dict[str, Any] = {"block_type": "implicit"}
#: The middle of each volume: the network takes some 3 s for a million voxels.
CROPS = {
    "CT STS_013": (96, 160, 160),
    "MR studyforrest T1": (96, 160, 160),
    "EM medulla_v_z0": (32, 336, 336),
}
RATIOS, SEQUENCE_RATIOS = (256, 512, 1024, 2048, 4096), (64, 512)
FACTORS, CLEAR_DB = (2, 3, 4, 6, 8), 0.5
#: Standard deviations of each frame's step, in voxels, and of noise, of the range.
FRAMES, STEP, NOISE, SEED = 8, 0.15, 0.02, 0
#: What a shrunk file would have to name besides: the extents.
_EXTENTS_BYTES = 8


def main() -> None:
    """Measure, then write the results."""
    rows: list[Row] = []
    with tempfile.TemporaryDirectory() as place:
        path = Path(place) / "a.ucv"
        for subject in (one for one in SUBJECTS if one.name in CROPS):
            volume = _cropped(subject.file, subject.modality, CROPS[subject.name])
            rows += [{"volume": subject.name, **row} for row in _ratio_rows(volume, path)]
        rows += [{"volume": "MR sequence", **row} for row in _sequence_rows(path)]
    gates = list(_gates(rows))
    write("high_ratios", gates=gates, rows=rows, seeds=[SEED])


def _cropped(file: str, modality: str, box: Sequence[int]) -> Volume:
    volume = load(SHARED_DATA / file, modality=modality)
    starts = [(n - m) // 2 for n, m in zip(volume.shape, box, strict=True)]
    parts = tuple(slice(start, start + m) for start, m in zip(starts, box, strict=True))
    return like(volume, volume.voxels[parts])


def _ratio_rows(volume: Volume, path: Path) -> Iterator[Row]:
    spacing = np.array(volume.geometry.spacing[::-1])
    steps = [np.maximum(f * spacing.min() / spacing, 1) for f in FACTORS]
    shapes = [tuple(np.rint(volume.shape / step).astype(int).tolist()) for step in steps]
    for ratio in RATIOS:
        yield _row(volume, path, ratio, DEFAULT)
        yield _row(volume, path, ratio, IMPLICIT, **NETWORK)
        yield _shrunk_row(volume, path, ratio, shapes)


def _sequence_rows(path: Path) -> Iterator[Row]:
    """Of one volume, moved a little from frame to frame, with noise: no real one is at hand."""
    whole = _cropped("mr/open_ms/C19/FLAIR.nii.gz", "MR", (180, 216, 180))
    rng = np.random.default_rng(SEED)
    still = shrunk(whole, [n // 3 for n in whole.shape]).voxels.astype(np.float64)
    moves = np.cumsum(rng.normal(0, STEP, (FRAMES, 3)), axis=0)
    frames = np.stack([ndimage.shift(still, move, mode="nearest") for move in moves])
    frames += rng.normal(0, NOISE * np.ptp(still), frames.shape)
    volume = like(whole, np.rint(frames).astype(np.int16))
    slices = like(whole, volume.voxels.swapaxes(0, 1).reshape(-1, *still.shape[1:]))
    times, factors = (FRAMES, FRAMES // 4, 1), (1, 2, 3)
    shapes = [(t, *(n // f for n in still.shape)) for t in times for f in factors]
    for ratio in SEQUENCE_RATIOS:
        yield _row(volume, path, ratio, DEFAULT)
        yield _row(slices, path, ratio, TIME_AS_SLICES)
        yield _row(volume, path, ratio, IMPLICIT, **NETWORK)
        yield _shrunk_row(volume, path, ratio, shapes[1:])


def _row(volume: Volume, path: Path, ratio: float, arm: str, **fields: Any) -> Row:
    try:
        size, decoded, seconds = _coded(volume, path, ratio=ratio, **fields)
    except ConfigError as refusal:
        return {"ratio": ratio, "arm": arm, "refused": str(refusal)}
    return {"ratio": ratio, **_facts(arm, size, seconds, volume.voxels, decoded)}


def _coded(volume: Volume, path: Path, **fields: Any) -> tuple[int, Voxels, float]:
    """Bytes of the file, what it decodes to, and the processor seconds of that."""
    config = CompressConfig(threads=1, **fields)
    done = compress(volume, path, config, overwrite=True)
    began = time.process_time()
    voxels = decompress(path, threads=1).voxels
    return done.file_bytes, voxels, time.process_time() - began


def _facts(arm: str, size: int, seconds: float, voxels: Voxels, decoded: Voxels) -> Row:
    """SSIM is of every fourth slice."""
    span, fourth = float(np.ptp(voxels)), (..., slice(None, None, 4), slice(None), slice(None))
    psnr = metrics.psnr(voxels, decoded, span)
    ssim = metrics.ssim(voxels[fourth], decoded[fourth], span)
    found = {"psnr_db": psnr if math.isfinite(psnr) else None, "ssim": ssim}
    return {"arm": arm, "bytes": size, "decode_s": seconds, **found}


def _shrunk_row(volume: Volume, path: Path, ratio: float, shapes: list[tuple[int, ...]]) -> Row:
    """The best of the shapes."""
    best: Row = {"ratio": ratio, "arm": SHRUNK, "refused": "no shape fits"}
    for shape in shapes:
        small = shrunk(volume, shape)
        room = volume.nbytes / ratio - _EXTENTS_BYTES
        try:
            size, decoded, seconds = _coded(small, path, ratio=max(1.0, small.nbytes / room))
        except ConfigError:  # even this small copy does not fit
            continue
        began = time.process_time()
        enlarged = resized(decoded, volume.voxels, volume.shape, cubic)
        seconds += time.process_time() - began
        row = _facts(SHRUNK, size + _EXTENTS_BYTES, seconds, volume.voxels, enlarged)
        if row["bytes"] <= volume.nbytes / ratio and row["psnr_db"] > best.get("psnr_db", 0.0):
            best = {"ratio": ratio, "shape": shape, **row}
    return best


def _lead(rows: Sequence[Row], arms: Sequence[str]) -> list[float]:
    """Of the best of `arms` over the best of all others, in dB, of each volume that has both."""
    leads = []
    for volume in dict.fromkeys(row["volume"] for row in rows):
        of_volume = [row for row in rows if row["volume"] == volume and row.get("psnr_db")]
        ours, others = (
            [r["psnr_db"] for r in of_volume if (r["arm"] in arms) == own] for own in (True, False)
        )
        if ours and others:
            leads.append(max(ours) - max(others))
    return leads


def _gates(rows: Sequence[Row]) -> Iterator[dict[str, Any]]:
    """Means over volumes. Where the network reaches a ratio in none, nothing was measured."""
    volumes = [row for row in rows if row["volume"] in CROPS]
    sequence = [row for row in rows if row["volume"] not in CROPS]
    parts = [
        (f"ratio {ratio}", [r for r in volumes if r.get("ratio") == ratio]) for ratio in RATIOS
    ]
    parts += [
        (f"sequence at {ratio}", [row for row in sequence if row["ratio"] == ratio])
        for ratio in SEQUENCE_RATIOS
    ]
    network = [arm for arm in dict.fromkeys(row["arm"] for row in rows) if IMPLICIT in arm]
    for name, some in parts:
        leads = _lead(some, network)
        value = float(np.mean(leads)) if leads else None
        name = f"{name}: implicit over the best other arm (dB)"
        yield gate(name, value, "> 0", value is not None and value > 0)
    for name, some in parts[: len(RATIOS)] + parts[-2:]:
        both = [row for row in some if row["arm"] in (DEFAULT, SHRUNK)]
        value = float(np.mean(_lead(both, [DEFAULT])))
        name = f"{name}: default over shrunk (dB)"
        yield gate(name, value, f"≥ −{CLEAR_DB}", value >= -CLEAR_DB)


if __name__ == "__main__":
    main()
