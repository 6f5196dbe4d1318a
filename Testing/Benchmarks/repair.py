"""How often the parity in a `.ucv` brings back damaged bytes, on real volumes.

    python Testing/Benchmarks/repair.py

Each file is damaged many times, and counts as whole where all of its voxels come back as they were.
"""

from __future__ import annotations

import random
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from _common import SHARED_DATA, gate, write
from _compression_volumes import large_volume

from MedEnhanceLib.core.volume import Volume
from MedEnhanceLib.errors import CodecError
from MedEnhanceLib.io import load
from MedEnhanceLib.runtime.resources import resource_folder
from MedEnhanceLib.unicompress import CompressConfig, compress, decompress

SEED, TRIALS, PAGE = 20_261_124, 24, 4096
#: From this size on a file of parity should bring back a page.
_A_PAGE_FROM = 420_000
Row = dict[str, Any]
#: Draws runs of bytes (offset, length) of a file of a given size.
Damage = Callable[[random.Random, int], list[tuple[int, int]]]


def _pages(count: int) -> Damage:
    return lambda dice, size: [
        (page * PAGE, PAGE) for page in dice.sample(range(size // PAGE), count)
    ]


def _run(length: int, step: int = 1) -> Damage:
    return lambda dice, size: [(dice.randrange(max(1, (size - length) // step)) * step, length)]


DAMAGES: dict[str, Damage] = {
    "50 bytes": _run(50),
    "a page": _pages(1),
    "4096 bytes anywhere": _run(PAGE),
    "2 pages": _pages(2),
    "64 KiB": _run(1 << 16, PAGE),
    "10 pages": _pages(10),
}


def main() -> None:
    """Measure, then write what was found."""
    with tempfile.TemporaryDirectory() as folder:
        rows = [row for case in _cases() for row in _rows(*case, Path(folder) / "a.ucv")]
    write("repair", gates=list(_gates(rows)), rows=rows, seeds=[SEED])


def _cases() -> Iterator[tuple[str, Volume, str, dict[str, Any]]]:
    volumes = {
        "MR, the sample": load(resource_folder("samples") / "mni152_t1.nii.gz", modality="MR"),
        "CT STS_013": load(SHARED_DATA / "ct/sts/STS_013/CT.nii.gz", modality="CT"),
    }
    for name, volume in volumes.items():
        yield name, volume, "lossless", {"lossless": True}
        yield name, volume, "ratio 32", {"ratio": 32.0, "speed": "fast"}
    fast = {"lossless": True, "speed": "fast"}
    yield "CT 512×512×100", large_volume(100), "lossless, fast", fast


def _rows(
    name: str, volume: Volume, mode: str, fields: dict[str, Any], path: Path
) -> Iterator[Row]:
    """parity: bytes of the file; whole: share of the trials after which it was whole."""
    compress(volume, path, CompressConfig(threads=1, **fields), overwrite=True)
    raw, decoded = path.read_bytes(), decompress(path)
    for damage, draw in DAMAGES.items():
        dice = random.Random(SEED)
        whole = 0
        for _ in range(TRIALS):
            damaged = bytearray(raw)
            for offset, length in draw(dice, len(raw)):
                damaged[offset : offset + length] = bytes(len(damaged[offset : offset + length]))
            path.write_bytes(damaged)
            whole += _is_whole(path, decoded)
        row = {"volume": name, "mode": mode, "parity": len(raw), "damage": damage}
        yield row | {"whole": whole / TRIALS}


def _is_whole(path: Path, decoded: Volume) -> bool:
    try:
        return decompress(path).is_equal(decoded)
    except CodecError:
        return False


def _gates(rows: list[Row]) -> Iterator[dict[str, Any]]:
    fifty = min(row["whole"] for row in rows if row["damage"] == "50 bytes")
    yield gate("50 zeroed bytes that come back, worst file (%)", 100 * fifty, "100", fifty == 1)
    large = [r for r in rows if r["damage"] == "a page" and r["parity"] > _A_PAGE_FROM]
    page = min(row["whole"] for row in large)
    name = "a page that comes back, worst file from 420 kB on (%)"
    yield gate(name, 100 * page, "100", page == 1)


if __name__ == "__main__":
    main()
