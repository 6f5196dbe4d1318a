"""What parity in a `.ucv` takes and what it repairs, on real volumes; and other codes of its size.

    python Testing/Benchmarks/repair.py             writes results
    python Testing/Benchmarks/repair.py --quick     the sample alone, writes runs/benchmarks

Each file is damaged many times, and counts as whole where all of its covered bytes come back as
they were; which voxels are lost without parity follows from the blocks that the damage touches.
"""

from __future__ import annotations

import argparse
import math
import random
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest import mock

from _common import REPOSITORY, RESULTS, SHARED_DATA, gate, write
from _compression_volumes import large_volume

from MedEnhanceLib.core.volume import Volume
from MedEnhanceLib.io import load
from MedEnhanceLib.runtime.resources import resource_folder
from MedEnhanceLib.unicompress import CompressConfig, compress
from MedEnhanceLib.unicompress.container import (
    NO_BLOCK,
    REPAIR_CHUNK,
    Container,
    build_frame,
    with_repair,
)
from MedEnhanceLib.unicompress.header import Header
from MedEnhanceLib.unicompress.repair import Layout, RepairChunk

SEED, TRIALS, PAGE = 20_261_124, 24, 4096
Row = dict[str, Any]
#: Name → damage: runs of bytes (offset, length) of a file of a given size.
Damage = Callable[[random.Random, int], list[tuple[int, int]]]


def _pages(count: int) -> Damage:
    def places(dice: random.Random, size: int) -> list[tuple[int, int]]:
        return [(page * PAGE, PAGE) for page in dice.sample(range(size // PAGE), count)]

    return places


def _run(length: int, step: int = 1) -> Damage:
    def places(dice: random.Random, size: int) -> list[tuple[int, int]]:
        return [(dice.randrange(max(1, (size - length) // step)) * step, length)]

    return places


DAMAGES: dict[str, Damage] = {
    "50 bytes": _run(50),
    "a page": _pages(1),
    "4096 bytes anywhere": _run(PAGE),
    "2 pages": _pages(2),
    "64 KiB": _run(1 << 16, PAGE),
    "10 pages": _pages(10),
}
MODES: dict[str, dict[str, Any]] = {
    "lossless": {"lossless": True},
    "ratio 32": {"ratio": 32.0, "speed": "fast"},
}


def main() -> None:
    """Measure, then write what was found."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--quick", action="store_true", help="the sample, into runs/benchmarks")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as place:
        rows = [row for case in _cases(options.quick) for row in _measure(*case, Path(place))]
    codes = list(_codes())
    gates = _gates(rows)
    folder = REPOSITORY / "runs" / "benchmarks" if options.quick else RESULTS
    write("repair", gates=gates, rows=[*rows, *codes], seeds=[SEED], folder=folder)


def _cases(quick: bool) -> Iterator[tuple[str, Volume, str, dict[str, Any]]]:
    sample = load(resource_folder("samples") / "mni152_t1.nii.gz", modality="MR")
    volumes = {"MR, the sample": sample}
    if not quick:
        volumes["CT STS_013"] = load(SHARED_DATA / "ct/sts/STS_013/CT.nii.gz", modality="CT")
    for name, volume in volumes.items():
        for mode, fields in MODES.items():
            yield name, volume, mode, fields
    if not quick:
        yield "CT 512×512×100", large_volume(100), "lossless, fast", {"lossless": True, "speed": "fast"}  # fmt: skip  # noqa: E501


def _measure(
    name: str, volume: Volume, mode: str, fields: dict[str, Any], place: Path
) -> Iterator[Row]:
    path = place / "a.ucv"
    config = CompressConfig(threads=1, **fields)
    done = compress(volume, path, config, overwrite=True)
    sizes = dict(_sizes(path))
    lost, worth = None, None
    if config.ratio is not None:
        with mock.patch.object(Layout, "of_size", lambda *_: None):
            without = compress(volume, place / "b.ucv", config, overwrite=True)
        sizes["off"] = without.file_bytes
        lost, worth = (without.psnr or 0.0) - (done.psnr or 0.0), _worth(volume, config, place)
    raw = path.read_bytes()
    with Container(path) as opened:
        header = Header.from_json(opened.header, name)
        blocks = [c for c in opened.chunks if c.block != NO_BLOCK]
        row = next(c for c in opened.chunks if c.kind == REPAIR_CHUNK)
    chunk = RepairChunk.at(_reader(raw), row.offset, row.length)
    assert chunk is not None
    layout, covered = chunk.layout, raw[: row.offset]
    began = time.process_time()
    layout.chunk([covered], len(covered))
    made = time.process_time() - began
    shared = {
        "volume": name, "mode": mode, "off": sizes["off"],
        "parity": sizes["parity"], "db": lost, "worth": worth, "rows": layout.rows,
        "columns": layout.stripe // layout.unit, "page": layout.page, "seconds": made,
    }  # fmt: skip
    for damage, draw in DAMAGES.items():
        dice, whole, lost, spent = random.Random(SEED), 0, 0.0, 0.0
        for _ in range(TRIALS):
            runs = draw(dice, len(covered))
            began = time.process_time()
            whole += _comes_back(chunk, covered, raw, runs)
            spent += time.process_time() - began
            touched = {c.block for c in blocks if any(_meets(c, run) for run in runs)}
            lost += sum(math.prod(header.grid.box(n).shape) for n in touched)
        yield shared | {
            "damage": damage,
            "whole": whole / TRIALS,
            "lost_without": lost / TRIALS / math.prod(header.shape),
            "repair_seconds": spent / TRIALS,
        }


def _sizes(path: Path) -> Iterator[tuple[str, int]]:
    """What the same chunks take with each kind of repair."""
    with Container(path) as opened:
        header, chunks = opened.header, opened.sound_chunks()
    yield "parity", with_repair(header, chunks)[0].file_bytes
    yield "off", build_frame(header, chunks).file_bytes


def _worth(volume: Volume, config: CompressConfig, place: Path) -> float:
    """What a hundredth of the bytes is worth, in dB, from two ratios around the one that is asked.

    A single pair of files with and without parity differs by where their searches end.
    """
    psnr, size = [], []
    for ratio in (24.0, 40.0):
        one = replace(config, ratio=ratio)
        with mock.patch.object(Layout, "of_size", lambda *_: None):
            done = compress(volume, place / "b.ucv", one, overwrite=True)
        psnr.append(done.psnr or math.nan)
        size.append(done.file_bytes)
    return 0.01 * (psnr[0] - psnr[1]) / math.log(size[0] / size[1])


def _reader(raw: bytes | bytearray) -> Callable[[int, int], bytes]:
    return lambda offset, length: bytes(raw[offset : offset + length]).ljust(length, b"\0")


def _comes_back(
    chunk: RepairChunk, covered: bytes, raw: bytes, runs: list[tuple[int, int]]
) -> bool:
    damaged = bytearray(raw)
    for offset, length in runs:
        stop = min(offset + length, len(covered))
        damaged[offset:stop] = bytes(stop - offset)
    found = chunk.find(_reader(damaged))
    for one in found:
        if one.repaired is None:
            return False
        damaged[one.offset : one.offset + one.length] = one.repaired
    return bytes(damaged[: len(covered)]) == covered


def _meets(chunk: Any, run: tuple[int, int]) -> bool:
    return bool(run[0] < chunk.offset + chunk.length and chunk.offset < run[0] + run[1])


def _codes() -> Iterator[Row]:
    """Codes that take as many pages of parity: how many lost pages they give back, by counting."""
    for size in (1_000_000, 5_000_000, 20_000_000):
        layout = Layout.of_size(size)
        assert layout is not None
        parity = layout.rows * layout.stripe // PAGE
        shapes = {
            "XOR, interleaved": (1, parity),
            "Reed–Solomon in bytes, 255 pages": (2, parity // 2),
            "Reed–Solomon in words, as here": (layout.rows, layout.stripe // PAGE),
        }
        pages = -(-size // PAGE)
        for code, (rows, columns) in shapes.items():
            dice = random.Random(SEED)
            shares = {}
            for damage in ("a page", "2 pages", "64 KiB", "10 pages"):
                good = 0
                for _ in range(2000):
                    runs = DAMAGES[damage](dice, pages * PAGE)
                    lost = [
                        n for at, length in runs for n in range(at // PAGE, (at + length) // PAGE)
                    ]
                    good += max(Counter(n % columns for n in lost).values()) <= rows
                shares[damage] = good / 2000
            yield {"code": code, "size": size, "parity_pages": parity, **shares}


def _gates(rows: list[Row]) -> list[dict[str, Any]]:
    share = max(row["parity"] / row["off"] - 1 for row in rows if row["mode"] != "ratio 32")
    fifty = min(row["whole"] for row in rows if row["damage"] == "50 bytes")
    pages = [r["whole"] for r in rows if r["damage"] == "a page" and r["parity"] > 420_000]
    decibels = max((row["worth"] for row in rows if row["worth"] is not None), default=0.0)
    return [
        gate("bytes of parity, of a file without it (%)", 100 * share, "≤ 1", share <= 0.01),
        gate("50 zeroed bytes that come back, worst file (%)", 100 * fifty, "100", fifty == 1),
        gate(
            "a page that comes back, worst file from 420 kB on (%)",
            100 * min(pages),
            "100",
            min(pages) == 1,
        ),
        gate("PSNR for a hundredth of the bytes (dB)", decibels, "≤ 0.1", decibels <= 0.1),
    ]


if __name__ == "__main__":
    main()
