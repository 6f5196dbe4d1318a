"""The implicit network at high ratios, against the codec's default at equal bytes.

    OMP_NUM_THREADS=1 python Testing/Benchmarks/high_ratios.py

No goal is set: the network is for study, and never chosen by itself.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

from _common import QUICK, SHARED_DATA, Part, Row, measure, parser_of
from _compression_volumes import SUBJECTS, Subject

from MedEnhanceLib.core import metrics
from MedEnhanceLib.core.volume import Volume
from MedEnhanceLib.errors import ConfigError
from MedEnhanceLib.io import load
from MedEnhanceLib.unicompress import CompressConfig, compress, decompress

ARMS: dict[str, dict[str, Any]] = {"default": {}, "implicit": {"block_type": "implicit"}}
#: The middle of each volume: the network takes some 3 s for a million voxels.
CROPS = {
    "CT STS_013": (96, 160, 160),
    "MR studyforrest T1": (96, 160, 160),
    "EM medulla_v_z0": (32, 336, 336),
}
RATIO = 64 if QUICK else 256


def main() -> None:
    """Measure, then write the results."""
    measure("high_ratios", parser_of(__doc__).parse_args(), parts, lambda _: [])


def parts() -> Iterator[Part]:
    subjects = [subject for subject in SUBJECTS if subject.name in CROPS]
    for subject in subjects[:1] if QUICK else subjects:
        yield subject.name, partial(_rows, subject)


def _rows(subject: Subject) -> Iterator[Row]:
    volume = load(SHARED_DATA / subject.file, modality=subject.modality)
    extents = zip(volume.shape, CROPS[subject.name], strict=True)
    starts = ((max(0, n - m) // 2, m) for n, m in extents)
    volume = volume.crop(*(slice(start, start + size) for start, size in starts))
    for arm, fields in ARMS.items():
        yield {
            "volume": subject.name,
            "ratio": RATIO,
            "arm": arm,
            **_measured(volume, CompressConfig(threads=1, ratio=RATIO, **fields)),
        }


def _measured(volume: Volume, config: CompressConfig) -> Row:
    """Bytes of the file and the PSNR of what it decodes to, in dB."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "a.ucv"
        try:
            compressed = compress(volume, path, config)
        except ConfigError as refusal:
            return {"refused": str(refusal)}
        decoded = decompress(path, threads=1)
    return {"bytes": compressed.file_bytes, "psnr_db": metrics.psnr(volume.voxels, decoded.voxels)}


if __name__ == "__main__":
    main()
