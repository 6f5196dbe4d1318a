"""The implicit network at high ratios, against the codec's default at equal bytes.

OMP_NUM_THREADS=1 python Testing/Benchmarks/high_ratios.py
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from _common import SHARED_DATA, gate, write
from _compression_volumes import SUBJECTS, Subject

from MedEnhanceLib.core import metrics
from MedEnhanceLib.core.volume import Volume
from MedEnhanceLib.errors import ConfigError
from MedEnhanceLib.io import load
from MedEnhanceLib.unicompress import CompressConfig, compress, decompress

Row = dict[str, Any]
ARMS: dict[str, dict[str, Any]] = {"default": {}, "implicit": {"block_type": "implicit"}}
#: The middle of each volume: the network takes some 3 s for a million voxels.
CROPS = {
    "CT STS_013": (96, 160, 160),
    "MR studyforrest T1": (96, 160, 160),
    "EM medulla_v_z0": (32, 336, 336),
}
#: The network's files do not reach a ratio of 1024.
RATIOS = (256, 512)


def main() -> None:
    """Measure, then write the results."""
    subjects = [subject for subject in SUBJECTS if subject.name in CROPS]
    rows = [row for subject in subjects for row in _rows(subject)]
    write("high_ratios", gates=list(_gates(rows)), rows=rows, seeds=[])


def _rows(subject: Subject) -> Iterator[Row]:
    volume = load(SHARED_DATA / subject.file, modality=subject.modality)
    extents = zip(volume.shape, CROPS[subject.name], strict=True)
    volume = volume.crop(
        *(slice((n - m) // 2, (n - m) // 2 + m) for n, m in extents),
    )
    for ratio in RATIOS:
        for arm, fields in ARMS.items():
            yield {
                "volume": subject.name,
                "ratio": ratio,
                "arm": arm,
                **_measured(volume, CompressConfig(threads=1, ratio=ratio, **fields)),
            }


def _measured(volume: Volume, config: CompressConfig) -> Row:
    """Bytes of the file and the PSNR of what it decodes to, in dB."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "a.ucv"
        try:
            done = compress(volume, path, config)
        except ConfigError as refusal:
            return {"refused": str(refusal)}
        decoded = decompress(path, threads=1)
    return {"bytes": done.file_bytes, "psnr_db": metrics.psnr(volume.voxels, decoded.voxels)}


def _gates(rows: Sequence[Row]) -> Iterator[dict[str, Any]]:
    """The mean difference over the volumes in which both reach a ratio."""
    for ratio in RATIOS:
        psnr = {(row["volume"], row["arm"]): row.get("psnr_db") for row in rows
                if row["ratio"] == ratio}  # fmt: skip
        gains = [
            psnr[name, "implicit"] - psnr[name, "default"]
            for name in CROPS
            if psnr.get((name, "implicit")) and psnr.get((name, "default"))
        ]
        value = float(np.mean(gains)) if gains else None
        name = f"ratio {ratio}: implicit over the default (dB)"
        yield gate(name, value, "> 0", value is not None and value > 0)


if __name__ == "__main__":
    main()
