"""Memory that the command line takes for a volume larger than it: 512 × 512 × 2000 int16, 1.05 GB.

    python Testing/Benchmarks/streaming.py             writes results
    python Testing/Benchmarks/streaming.py --quick     300 slices, writes runs/benchmarks

A real CT is tiled with noise, which no codec can predict, into an uncompressed NRRD. Each command
runs in its own process. Its peak is read from the system twice: the resident set (getrusage), in
which pages of the mapped source count although the system can take them back at any time, and
what belongs to the process alone (anonymous pages, looked at every 50 ms). What was measured before
with the same codec is read from runs/streaming-rows.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from _common import REPOSITORY, RESULTS, SHARED_DATA, gate, write
from _compression_ours import codec_key
from _enhancement_cache import RowStore, key_of

from MedEnhanceLib.core.slabs import blank
from MedEnhanceLib.core.volume import Volume, Voxels
from MedEnhanceLib.io import load
from MedEnhanceLib.io.volume_files import save_slabs

SOURCE = "ct/abdomen/CT.nii.gz"
SLICES, QUICK_SLICES, SIDE = 2000, 300, 512
NOISE_HU, SEED = 8.0, 0
LIMIT_MIB = 1229  # 1.2 GiB
_LOOK_SECONDS = 0.05
_STEPS = ("compress", "decompress")
#: Options, and the share of the slices: what takes an hour is looked at on fewer, with more blocks
#: than are in memory at a time.
RUNS: dict[str, tuple[list[str], float]] = {
    "lossless": (["--lossless"], 1),
    "lossless, fast": (["--lossless", "--speed", "fast"], 1),
    "ratio 64": (["--ratio", "64"], 1),
    "ratio 64, fast": (["--ratio", "64", "--speed", "fast"], 1),
}
Row = dict[str, Any]


def main() -> None:
    """Measure, then write what was found."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--quick", action="store_true", help="300 slices, into runs/benchmarks")
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    slices = QUICK_SLICES if options.quick else SLICES
    folder = REPOSITORY / "runs" / "benchmarks" if options.quick else RESULTS
    with tempfile.TemporaryDirectory(dir=REPOSITORY.parent) as place:
        rows = list(_measure(Path(place), slices, options.threads))
    peak = max(row["peak_mib"] for row in rows)
    wrong = sum(row.get("wrong", 0) for row in rows)
    gates = [
        gate(
            f"peak of any process (MiB), up to {slices} slices",
            peak,
            f"< {LIMIT_MIB}",
            peak < LIMIT_MIB,
        ),
        gate("wrong voxels, lossless", wrong, "0", wrong == 0),
    ]
    write("streaming", gates=gates, rows=rows, seeds=[SEED], folder=folder)


def _measure(place: Path, slices: int, threads: int) -> Iterator[Row]:
    packed, back = place / "big.ucv", place / "back.nrrd"
    store = RowStore("streaming", REPOSITORY / "runs" / "streaming-rows")
    for name, (mode, share) in RUNS.items():
        count = round(share * slices)
        keys = [key_of(codec_key(), f"{step}, {name}", count, threads) for step in _STEPS]
        known = [store.find(key) for key in keys]
        if all(row is not None for row in known):
            yield from (row for row in known if row is not None)
            continue
        source = place / f"{count}.nrrd"
        if not source.exists():
            _tile(source, count)
        packing = [
            "compress",
            str(source),
            str(packed),
            *mode,
            "--threads",
            str(threads),
            "--force",
        ]
        packing_row = _watched(f"compress, {name}", packing) | {
            "bytes": packed.stat().st_size,
            "ratio": count * SIDE * SIDE * 2 / packed.stat().st_size,
            "slices": count,
        }
        yield store.add(keys[0], packing_row)
        unpacking = ["decompress", str(packed), str(back), "--force"]
        wrong = {}
        row = _watched(f"decompress, {name}", unpacking)
        if "lossless" in name:
            wrong = {"wrong": int(_voxels_hash(source) != _voxels_hash(back))}
        yield store.add(keys[1], row | {"slices": count} | wrong)


def _tile(path: Path, slices: int) -> None:
    """The CT, cropped or repeated to 512 × 512, with noise of its own each time."""
    volume = load(SHARED_DATA / SOURCE, modality="CT")
    rows, columns = (-(-SIDE // extent) for extent in volume.shape[1:])
    tiled = np.tile(volume.voxels, (1, rows, columns))[:, :SIDE, :SIDE]
    rng = np.random.default_rng(SEED)

    def parts() -> Iterator[Voxels]:
        for first in range(0, slices, len(tiled)):
            part = tiled[: slices - first]
            noise = rng.normal(0, NOISE_HU, part.shape).astype(np.float32)
            yield np.clip(part + np.rint(noise), -1024, 3071).astype(np.int16)

    outline = Volume(
        blank((slices, SIDE, SIDE), np.dtype(np.int16)), volume.geometry, modality="CT"
    )
    save_slabs(outline, parts(), path)


def _watched(name: str, command: Sequence[str]) -> Row:
    """Run a command of medenhance; seconds, and the most memory that it held, in MiB."""
    print(name, file=sys.stderr)
    began = time.monotonic()
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY)}
    child = subprocess.Popen(
        [sys.executable, "-m", "MedEnhanceLib", *command],
        env=environment,
        stdout=subprocess.DEVNULL,
    )
    own = 0
    while True:
        done, status, usage = os.wait4(child.pid, os.WNOHANG)
        if done:
            break
        own = max(own, _anonymous_kib(child.pid))
        time.sleep(_LOOK_SECONDS)
    if status:
        raise SystemExit(f"{name} failed")
    return {
        "step": name,
        "seconds": time.monotonic() - began,
        "cpu_seconds": usage.ru_utime + usage.ru_stime,
        "peak_mib": usage.ru_maxrss / 1024,
        "anonymous_mib": own / 1024,
    }


def _anonymous_kib(process: int) -> int:
    try:
        status = Path(f"/proc/{process}/status").read_text()
    except OSError:
        return 0
    found = status.partition("RssAnon:")[2].split()
    return int(found[0]) if found else 0


def _voxels_hash(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as stream:
        stream.seek(-(path.stat().st_size - stream.read(1 << 16).index(b"\n\n") - 2), os.SEEK_END)
        while piece := stream.read(1 << 20):
            digest.update(piece)
    return digest.hexdigest()


if __name__ == "__main__":
    main()
