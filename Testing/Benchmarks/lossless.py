"""Lossless and bounded files beside JPEG XL: bytes, and CPU time with one thread each, in one run.

    python Testing/Benchmarks/lossless.py             writes results
    python Testing/Benchmarks/lossless.py --quick     two small volumes, writes runs/benchmarks

Ours is whole files: encoding reads them back and proves them. JPEG XL (effort 7, one thread) codes
the slices one below the other, of what the bound leaves of the voxels; nothing is proved. Each
volume is coded in a process of its own, so that the first file's costs count: imports do not,
tables and models do. Volumes that were rescaled are made here of one that was not.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
from _common import REPOSITORY, RESULTS, SHARED_DATA, gate, write
from _compression_volumes import large_volume

from MedEnhanceLib import native
from MedEnhanceLib.core.volume import Volume
from MedEnhanceLib.io import load
from MedEnhanceLib.unicompress import CompressConfig, compress, decompress
from MedEnhanceLib.unicompress.codecs import integers

Row = dict[str, Any]
#: Name → file, modality, factor; a factor makes floats, as files with a slope are after loading.
VOLUMES: dict[str, tuple[str, str, float | None]] = {
    "CT 512×512×100": ("", "CT", None),
    "CT STS_013": ("ct/sts/STS_013/CT.nii.gz", "CT", None),
    "MR studyforrest T1": ("mr/studyforrest/T1.nii.gz", "MR", None),
    "MR open_ms L20 T1": ("mr/open_ms/L20/study2_T1W.nii.gz", "MR", None),
    "MR open_ms C19 T1": ("mr/open_ms/C19/T1.nii.gz", "MR", None),
    "EM medulla_v_z0": ("em/medulla_v_z0.nii.gz", "EM", None),
    "MR STS_010 T1, rescaled upstream": ("mr/sts/STS_010/MR_T1.nii.gz", "MR", None),
    "MR open_ms L20 T1 × 0.3713, floats": ("mr/open_ms/L20/study2_T1W.nii.gz", "MR", 0.3713),
}
QUICK = ("MR open_ms L20 T1", "MR STS_010 T1, rescaled upstream")
BOUND = 2
#: Volumes that every path of the code is measured on.
ON_EVERY_PATH = ("CT STS_013", "MR open_ms L20 T1")
#: Volumes of the size of a scan, which the gates of time are for.
_LARGE = ("CT 512×512×100", "CT STS_013", "MR studyforrest T1")
_DECODED = 3


def main() -> None:
    """Measure, then write the results; or, in a child, measure one volume."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--quick", action="store_true", help="into runs/benchmarks")
    parser.add_argument("--case", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.case:
        print(json.dumps(measured(options.case)))
        return
    rows: list[Row] = []
    for name in QUICK if options.quick else VOLUMES:
        print(name, flush=True)
        rows += _in_child(name)
    gates = _gates(rows)
    folder = REPOSITORY / "runs" / "benchmarks" if options.quick else RESULTS
    write("lossless", gates=gates, rows=rows, seeds=[], folder=folder)


def _in_child(name: str) -> list[Row]:
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
    command = [sys.executable, __file__, "--case", name]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(f"{name}: {done.stderr}")
    found: list[Row] = json.loads(done.stdout.splitlines()[-1])
    return found


def measured(name: str) -> list[Row]:
    """All rows of one volume: both modes, ours and JPEG XL; every path where it is wanted."""
    import imagecodecs

    volume = _volume(name)
    facts = {"volume": name, "mvoxels": volume.voxels.size / 1e6}
    modes: dict[str, dict[str, Any]] = {"lossless": {"lossless": True}}
    if volume.voxels.dtype.kind in "iu":
        modes[f"largest error {BOUND}"] = {"max_error": BOUND}
    rows = []
    for mode, config in modes.items():
        rows.append(facts | {"mode": mode, "codec": "ours", "path": ""} | _ours(volume, config))
        if (image := _image(volume, mode)) is not None:
            data: list[bytes] = []

            def encode(image: Any = image, data: list[bytes] = data) -> None:
                data[:] = [imagecodecs.jpegxl_encode(image, lossless=True, effort=7, numthreads=1)]

            encoded = _cpu(encode)
            decoded = min(
                _cpu(lambda d=data: imagecodecs.jpegxl_decode(d[0], numthreads=1))
                for _ in range(_DECODED)
            )
            rows.append(
                facts
                | {"mode": mode, "codec": "JPEG XL", "path": "", "bytes": len(data[0])}
                | {"encode_cpu_s": encoded, "decode_cpu_s": decoded}
            )
    fast = _ours(volume, {"lossless": True, "speed": "fast"})
    rows.append(facts | {"mode": "lossless", "codec": "ours, fast", "path": ""} | fast)
    if "rescaled" in name or "floats" in name:
        with mock.patch.object(integers, "_table", lambda *_, **__: None):
            without = _ours(volume, {"lossless": True})
        rows.append(facts | {"mode": "lossless", "codec": "ours, no table", "path": ""} | without)
    if name in ON_EVERY_PATH:
        rows += [facts | row for row in _paths(volume)]
    return rows


def _paths(volume: Volume) -> list[Row]:
    """Lossless by the compiled library at each vector width: all files are the same."""
    compiled = native.load()
    if compiled is None:
        return []
    libraries = {w: native.Library(compiled.path, w) for w in compiled.widths}
    rows, files = [], set()
    for path, library in libraries.items():
        with mock.patch.object(native, "_found", lambda _, library=library: (library, "")):
            found = _ours(volume, {"lossless": True})
        files.add(found.pop("sha256"))
        rows.append({"mode": "lossless", "codec": "ours", "path": path} | found)
    if len(files) != 1:
        sys.exit("paths that write different files")
    return rows


def _volume(name: str) -> Volume:
    file, modality, factor = VOLUMES[name]
    if not file:
        return large_volume(100)
    volume = load(SHARED_DATA / file, modality=modality)
    if factor is not None:
        volume = volume.with_voxels((volume.voxels * factor).astype(np.float32))
    return volume


def _image(volume: Volume, mode: str) -> Any:
    """What JPEG XL is given; None for floats, which it does not hold without loss."""
    if volume.voxels.dtype.kind == "f":
        return None
    above = volume.voxels.astype(np.int64) - int(volume.voxels.min())
    if mode != "lossless":
        above = (above + BOUND) // (2 * BOUND + 1)
    return above.astype(np.min_scalar_type(int(above.max()))).reshape(-1, above.shape[-1])


def _ours(volume: Volume, config: dict[str, Any]) -> Row:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "a.ucv"
        results: list[Any] = []
        encoded = _cpu(
            lambda: results.append(compress(volume, path, CompressConfig(threads=1, **config)))
        )
        decoded = min(_cpu(lambda: decompress(path, threads=1)) for _ in range(_DECODED))
        return {
            "bytes": results[0].file_bytes,
            "encode_cpu_s": encoded,
            "decode_cpu_s": decoded,
            "block_types": results[0].block_types,
            "sha256": results[0].file_sha256,
        }


def _cpu(work: Callable[[], Any]) -> float:
    began = time.process_time()
    work()
    return time.process_time() - began


def _pairs(rows: list[Row]) -> list[tuple[Row, Row]]:
    """Ours, and JPEG XL of the same volume and mode."""
    theirs = {(row["volume"], row["mode"]): row for row in rows if row["codec"] == "JPEG XL"}
    ours = [row for row in rows if row["codec"] == "ours" and not row["path"]]
    return [(row, theirs[row["volume"], row["mode"]]) for row in ours if _key(row) in theirs]


def _key(row: Row) -> tuple[str, str]:
    return row["volume"], row["mode"]


def _gates(rows: list[Row]) -> list[dict[str, Any]]:
    gates = []
    pairs = [(ours, jxl) for ours, jxl in _pairs(rows) if ours["volume"] in _LARGE]
    for way, bound in (("decode", 1.5), ("encode", 1.0)):
        ratios = [ours[f"{way}_cpu_s"] / jxl[f"{way}_cpu_s"] for ours, jxl in pairs]
        worst = max(ratios, default=None)
        name = f"{way}, CPU time over JPEG XL's, worst of the volumes of 6 million voxels and more"
        gates.append(gate(name, worst, f"≤ {bound}", worst is not None and worst <= bound))
    saved = [1 - ours["bytes"] / jxl["bytes"] for ours, jxl in _pairs(rows)]
    least = min(saved, default=None)
    gates.append(
        gate("bytes below JPEG XL's, least", least, "> 0", least is not None and least > 0)
    )
    return gates


if __name__ == "__main__":
    main()
