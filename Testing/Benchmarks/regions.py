"""What reading a part of a `.ucv` reads: bytes, blocks and seconds.

    python Testing/Benchmarks/regions.py

Volumes are compressed in each mode, then parts of them are decompressed; bytes are counted where
the container reads them. Each part is compared with the same part of the whole.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
from _common import SHARED_DATA, gate, write

from MedEnhanceLib.core.volume import Volume
from MedEnhanceLib.io import load
from MedEnhanceLib.runtime.resources import resource_folder
from MedEnhanceLib.unicompress import CompressConfig, compress, decode, decompress
from MedEnhanceLib.unicompress.container import ChunkInfo, Container
from MedEnhanceLib.unicompress.header import Header

SAMPLE = "mni152_t1.nii.gz"
OPEN = {
    "CT STS_013": ("ct/sts/STS_013/CT.nii.gz", "CT"),
    "CT abdomen": ("ct/abdomen/CT.nii.gz", "CT"),
}
MODES: dict[str, dict[str, Any]] = {
    "lossless": {"lossless": True},
    "lossless, fast": {"lossless": True, "speed": "fast"},
    "max error 2, fast": {"max_error": 2.0, "speed": "fast"},
    "ratio 32, fast": {"ratio": 32.0, "speed": "fast"},
}
#: Of which a slice is to be a tenth of the file at most.
_BY_SLICES = ("lossless",)
SIDE = 64
Row = dict[str, Any]


def main() -> None:
    """Measure, then write what was found."""
    volumes = {"MR, the sample": load(resource_folder("samples") / SAMPLE, modality="MR")}
    for name, (file, modality) in OPEN.items():
        volumes[name] = load(SHARED_DATA / file, modality=modality)
    with tempfile.TemporaryDirectory() as place:
        rows = [
            {"volume": name, "shape": volume.shape} | row
            for name, volume in volumes.items()
            for row in _measure(volume, Path(place))
        ]
    wrong = sum(not row["equal"] for row in rows)
    slices = [row for row in rows if row["part"] == "1 slice"]
    gates = [gate("parts that differ from the whole", wrong, "0", wrong == 0)]
    for mode in _BY_SLICES:
        share = max(r["bytes"] / r["file_bytes"] for r in slices if r["mode"] == mode)
        gates.append(
            gate(f"of the file for a slice, {mode} (%)", 100 * share, "≤ 10", share <= 0.1)
        )
    write("regions", gates=gates, rows=rows, seeds=[])


def _measure(volume: Volume, place: Path) -> Iterator[Row]:
    for mode, fields in MODES.items():
        path = place / "a.ucv"
        config = CompressConfig(threads=1, **fields)
        done = compress(volume, path, config, overwrite=True)
        whole = decompress(path, threads=1).voxels
        for part, region in _regions(volume.shape).items():
            yield {"mode": mode, "part": part, "psnr": done.psnr, **_read(path, region, whole)}


def _regions(shape: tuple[int, ...]) -> dict[str, tuple[slice, ...]]:
    """The whole, ten slices, one slice, and a cube, all in the middle."""
    k = shape[0] // 2
    cube = tuple(slice(max(0, (n - SIDE) // 2), min(n, (n + SIDE) // 2)) for n in shape)
    return {
        "whole": (slice(None),),
        "10 slices": (slice(k - 5, k + 5),),
        "1 slice": (slice(k, k + 1),),
        f"{SIDE}³ voxels": cube,
    }


def _read(path: Path, region: tuple[slice, ...], whole: np.ndarray) -> Row:
    bytes_read: list[int] = []
    blocks: set[int] = set()

    class Counting(Container):
        def read(self, chunk: ChunkInfo) -> bytes:
            blocks.add(chunk.block)
            return super().read(chunk)

        def __exit__(self, *rest: object) -> None:
            bytes_read.append(self.bytes_read)
            super().__exit__(*rest)

    began = time.monotonic()
    with mock.patch.object(decode, "Container", Counting):
        part = decompress(path, region=region, threads=1)
    with Container(path) as opened:
        grid = Header.from_json(opened.header, path.name).grid
    return {
        "bytes": bytes_read[0],
        "file_bytes": path.stat().st_size,
        "blocks": len(blocks & set(range(len(grid)))),
        "of_blocks": len(grid),
        "block_shape": grid.box(0).shape,
        "seconds": time.monotonic() - began,
        "equal": bool(np.array_equal(part.voxels, whole[region])),
    }


if __name__ == "__main__":
    main()
