"""DICOM in: finding series among many files, and reading one.

    python Testing/Benchmarks/dicom.py     10,000 files, 512×512×300

Each measurement has a process of its own. The files were just written, so the disk takes no part.
Memory is the proportional set size of the process and all that it started, above what it was
after its imports, in a further run: looking at it takes time.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from _common import (
    QUICK,
    REPOSITORY,
    SHARED_DATA,
    Gate,
    Part,
    Row,
    at_most,
    measure,
    parser_of,
)

_FILES, _SERIES, _SLICES = (40, 4, 4) if QUICK else (10_000, 20, 300)
_TRIES = 1 if QUICK else 3
_SOURCE = "ct/abdomen/CT.nii.gz"
_SIDE = 64 if QUICK else 512
_STEP_MM = 1.25
_PIXEL_MM = 0.75
_LOOK_SECONDS = 0.01
_WHY_SLOWER = "every header is read and checked in Python, one after another"


def main() -> None:
    """Measure, then write what was found; or, in a child, measure one thing."""
    parser = parser_of(__doc__)
    parser.add_argument("--measure", choices=_MEASURES, help=argparse.SUPPRESS)
    parser.add_argument("--folder", help=argparse.SUPPRESS)
    parser.add_argument("--memory", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.measure:
        print(json.dumps(_MEASURES[options.measure](Path(options.folder))))
    else:
        measure("dicom", options, parts, gates_of)


def parts() -> Iterator[Part]:
    yield "scan", partial(_rows, ("scan, ours", "scan, pydicom", "scan, SimpleITK"), _write_many)
    yield "read", partial(_rows, ("read, ours", "read, SimpleITK"), _write_one)


# ------------------------------------------------------------ files to read


def _write_many(folder: Path) -> None:
    """Copies of pydicom's small CT in _SERIES series, each slice in its own place."""
    from pydicom import dcmread
    from pydicom.data import get_testdata_file

    folder.mkdir()
    image = dcmread(get_testdata_file("CT_small.dcm"))
    for index in range(_FILES):
        series, place = index % _SERIES, index // _SERIES
        image.SeriesInstanceUID = f"1.2.826.0.1.{series + 1}"
        image.SeriesNumber = series + 1
        image.InstanceNumber = place + 1
        image.SOPInstanceUID = f"1.2.826.0.1.{series + 1}.{place + 1}"
        image.file_meta.MediaStorageSOPInstanceUID = image.SOPInstanceUID
        image.ImagePositionPatient = [-158.1, -179.0, -75.7 + 5 * place]
        image.save_as(folder / f"{index:05d}.dcm")


def _write_one(folder: Path) -> None:
    """A CT of 512 × 512 in one file a slice, uncompressed, tiled from a real one."""
    from pydicom import dcmread
    from pydicom.data import get_testdata_file

    folder.mkdir()
    image = dcmread(get_testdata_file("CT_small.dcm"))
    image.Rows = image.Columns = _SIDE
    image.PixelSpacing = [_PIXEL_MM, _PIXEL_MM]
    image.SliceThickness = _STEP_MM
    image.RescaleIntercept, image.RescaleSlope = -1024, 1
    image.SeriesInstanceUID = "1.2.826.0.1.99"
    for index, plane in enumerate(_voxels(_SLICES)):
        image.SOPInstanceUID = f"1.2.826.0.1.99.{index + 1}"
        image.file_meta.MediaStorageSOPInstanceUID = image.SOPInstanceUID
        image.InstanceNumber = index + 1
        image.ImagePositionPatient = [-192.0, -192.0, _STEP_MM * index]
        image.PixelData = (plane + 1024).astype("<i2").tobytes()
        image.save_as(folder / f"{index:04d}.dcm")


def _voxels(slices: int) -> np.ndarray:
    """HU of [slices, 512, 512], tiled from a real CT; from noise where that is not there."""
    if (SHARED_DATA / _SOURCE).is_file():
        from MedEnhanceLib.io import load

        part = load(SHARED_DATA / _SOURCE).voxels
    else:
        part = np.random.default_rng(0).normal(0, 40, (32, 256, 256)).astype(np.int16)
    repeats = [
        -(-size // have) for size, have in zip((slices, _SIDE, _SIDE), part.shape, strict=True)
    ]
    return np.tile(part, repeats)[:slices, :_SIDE, :_SIDE].astype(np.int16)


# ------------------------------------------------------------ one measurement, in its own process


def _timed(work: Callable[[], Any]) -> tuple[Any, Row]:
    """What `work` gives, and its seconds or the memory that it took beyond what was there."""
    if "--memory" in sys.argv:
        result, peak = _watched(work)
        return result, {"peak_bytes": peak}
    began, busy = time.perf_counter(), _processor_seconds()
    result = work()
    seconds = time.perf_counter() - began
    return result, {"seconds": seconds, "processor_seconds": _processor_seconds() - busy}


def _processor_seconds() -> float:
    """Of this process and of those that it started and saw end."""
    return sum(os.times()[:4])


def _watched(work: Callable[[], Any]) -> tuple[Any, int]:
    before = _tree_bytes(os.getpid())
    peak, stopped = before, threading.Event()

    def look() -> None:
        nonlocal peak
        while not stopped.wait(_LOOK_SECONDS):
            peak = max(peak, _tree_bytes(os.getpid()))

    watcher = threading.Thread(target=look)
    watcher.start()
    result = work()
    stopped.set()
    watcher.join()
    return result, max(peak, _tree_bytes(os.getpid())) - before


def _tree_bytes(process: int) -> int:
    """Proportional set size of a process and its descendants; what ends meanwhile counts as 0."""
    total = 0
    try:
        for line in Path(f"/proc/{process}/smaps_rollup").read_text().splitlines():
            if line.startswith("Pss:"):
                total += 1024 * int(line.split()[1])
        for thread in Path(f"/proc/{process}/task").iterdir():
            for child in (thread / "children").read_text().split():
                total += _tree_bytes(int(child))
    except OSError:
        pass
    return total


def _scan_ours(folder: Path) -> Row:
    from MedEnhanceLib.io.dicom.listing import list_series
    from MedEnhanceLib.runtime.progress import Monitor

    series, row = _timed(lambda: list_series(folder, Monitor()))
    return row | {"series": len(series), "files": sum(each.files for each in series)}


def _scan_pydicom(folder: Path) -> Row:
    """What a script would do: every header, one after another, for the elements that sort."""
    from pydicom import dcmread

    def scan() -> dict[str, list[Any]]:
        series: dict[str, list[Any]] = {}
        for path in sorted(folder.iterdir()):
            header = dcmread(path, stop_before_pixels=True)
            entry = (header.ImagePositionPatient, header.ImageOrientationPatient, path)
            series.setdefault(header.SeriesInstanceUID, []).append(entry)
        return series

    headers, row = _timed(scan)
    return row | {"series": len(headers), "files": sum(map(len, headers.values()))}


def _scan_sitk(folder: Path) -> Row:
    """Series and the sorted files of the first of them: each further one is another pass."""
    import SimpleITK

    reader = SimpleITK.ImageSeriesReader

    def scan() -> tuple[int, int]:
        uids = reader.GetGDCMSeriesIDs(str(folder))
        return len(uids), len(reader.GetGDCMSeriesFileNames(str(folder), uids[0]))

    (series, files), row = _timed(scan)
    return row | {"series": series, "files": files}


def _read_ours(folder: Path) -> Row:
    from MedEnhanceLib.io import load

    load(REPOSITORY / "Resources" / "samples" / "mni152_t1.nii.gz")  # imports are over
    volume, row = _timed(lambda: load(folder))
    return row | {"bytes": volume.nbytes, "sum": int(volume.voxels.sum(dtype=np.int64))}


def _read_sitk(folder: Path) -> Row:
    import SimpleITK

    def read() -> Any:
        files = SimpleITK.ImageSeriesReader.GetGDCMSeriesFileNames(str(folder))
        return SimpleITK.ReadImage(files)

    image, row = _timed(read)
    voxels = SimpleITK.GetArrayViewFromImage(image)  # no copy, as long as the image lives
    return row | {"bytes": voxels.nbytes, "sum": int(voxels.sum(dtype=np.int64))}


_MEASURES: dict[str, Callable[[Path], Row]] = {
    "scan, ours": _scan_ours,
    "scan, pydicom": _scan_pydicom,
    "scan, SimpleITK": _scan_sitk,
    "read, ours": _read_ours,
    "read, SimpleITK": _read_sitk,
}


def _rows(names: Sequence[str], write: Callable[[Path], None]) -> Iterator[Row]:
    """Each measurement _TRIES times, in turn with the others, so that all see the same machine."""
    tries: dict[str, list[Row]] = {name: [] for name in names}
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary) / "files"
        write(folder)
        for name in [*names] * _TRIES:
            tries[name].append(_measured(name, folder))
        for name, rows in tries.items():
            seconds = [row["seconds"] for row in rows]
            yield rows[0] | {
                "what": name,
                "seconds": min(seconds),
                "slowest": max(seconds),
                "processor_seconds": min(row.get("processor_seconds", 0.0) for row in rows),
                "peak_bytes": _measured(name, folder, "--memory").get("peak_bytes", 0),
            }


def _measured(name: str, folder: Path, *more: str) -> Row:
    if QUICK:
        return _MEASURES[name](folder)
    command = [sys.executable, __file__, "--measure", name, "--folder", str(folder), *more]
    process = subprocess.run(command, capture_output=True, text=True, check=False)
    if process.returncode:
        sys.exit(f"{name}: {process.stderr}")
    row: Row = json.loads(process.stdout.splitlines()[-1])
    return row


# ---------------------------------------------------------------- goals


def gates_of(rows: list[Row]) -> Iterator[Gate]:
    """What is found and read, and how long it takes beside what a script would use."""
    by = {row["what"]: row for row in rows}

    def times(ours: str, theirs: str) -> float:
        return float(by[ours]["seconds"] / by[theirs]["seconds"])

    scan, read, other = by["scan, ours"], by["read, ours"], by["read, SimpleITK"]
    differs = abs(scan["files"] - _FILES) + abs(scan["series"] - _SERIES)
    name = "files and series missed, and difference of the sums of voxels to SimpleITK's"
    yield at_most(name, differs + abs(read["sum"] - other["sum"]), 0)
    name = "scan / headers one by one with pydicom"
    yield at_most(name, times("scan, ours", "scan, pydicom"), 0.5, _WHY_SLOWER)
    name = "reading 512×512×300 / SimpleITK"
    yield at_most(name, times("read, ours", "read, SimpleITK"), 1.5, _WHY_SLOWER)


if __name__ == "__main__":
    main()
