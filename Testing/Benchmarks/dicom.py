"""DICOM in: finding series among many files, and reading one.

    python Testing/Benchmarks/dicom.py     10,000 files, 512×512×300

Each measurement has a process of its own. The files were just written, so the disk takes no part.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from _common import QUICK, REPOSITORY, Part, Row, in_child, run, timed
from _speed_volumes import tiled_ct

_FILES, _SERIES, _SLICES = (40, 4, 4) if QUICK else (10_000, 20, 300)
_TRIES = 1 if QUICK else 3
_SIDE = 64 if QUICK else 512
_STEP_MM = 1.25
_PIXEL_MM = 0.75


def parts() -> Iterator[Part]:
    yield "scan", partial(_rows, ("scan, ours", "scan, SimpleITK"), _write_many)
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
    """A CT of 512 × 512 in one file a slice, uncompressed."""
    from pydicom import dcmread
    from pydicom.data import get_testdata_file

    folder.mkdir()
    image = dcmread(get_testdata_file("CT_small.dcm"))
    image.Rows = image.Columns = _SIDE
    image.PixelSpacing = [_PIXEL_MM, _PIXEL_MM]
    image.SliceThickness = _STEP_MM
    image.RescaleIntercept, image.RescaleSlope = -1024, 1
    image.SeriesInstanceUID = "1.2.826.0.1.99"
    for index, plane in enumerate(tiled_ct(_SLICES).voxels):
        image.SOPInstanceUID = f"1.2.826.0.1.99.{index + 1}"
        image.file_meta.MediaStorageSOPInstanceUID = image.SOPInstanceUID
        image.InstanceNumber = index + 1
        image.ImagePositionPatient = [-192.0, -192.0, _STEP_MM * index]
        image.PixelData = (plane + 1024).astype("<i2").tobytes()
        image.save_as(folder / f"{index:04d}.dcm")


# ------------------------------------------------------------ one measurement, in its own process


def _scan_ours(folder: Path) -> Row:
    from MedEnhanceLib.io.dicom.listing import list_series
    from MedEnhanceLib.runtime.progress import Monitor

    series, seconds, _ = timed(lambda: list_series(folder, Monitor()))
    return {"seconds": seconds, "series": len(series), "files": sum(each.files for each in series)}


def _scan_sitk(folder: Path) -> Row:
    """Series and the sorted files of the first of them: each further one is another pass."""
    import SimpleITK

    reader = SimpleITK.ImageSeriesReader

    def scan() -> tuple[int, int]:
        uids = reader.GetGDCMSeriesIDs(str(folder))
        return len(uids), len(reader.GetGDCMSeriesFileNames(str(folder), uids[0]))

    (series, files), seconds, _ = timed(scan)
    return {"seconds": seconds, "series": series, "files": files}


def _read_ours(folder: Path) -> Row:
    from MedEnhanceLib.io import load

    load(REPOSITORY / "Resources" / "samples" / "mni152_t1.nii.gz")  # imports are over
    volume, seconds, _ = timed(lambda: load(folder))
    return _row(seconds, volume.voxels)


def _read_sitk(folder: Path) -> Row:
    import SimpleITK

    def read() -> Any:
        files = SimpleITK.ImageSeriesReader.GetGDCMSeriesFileNames(str(folder))
        return SimpleITK.ReadImage(files)

    image, seconds, _ = timed(read)
    # No copy, as long as the image lives.
    return _row(seconds, SimpleITK.GetArrayViewFromImage(image))


def _row(seconds: float, voxels: np.ndarray) -> Row:
    return {"seconds": seconds, "bytes": voxels.nbytes, "sum": int(voxels.sum(dtype=np.int64))}


_MEASURES: dict[str, Callable[[Path], Row]] = {
    "scan, ours": _scan_ours,
    "scan, SimpleITK": _scan_sitk,
    "read, ours": _read_ours,
    "read, SimpleITK": _read_sitk,
}


def child(name: str, folder: str) -> Row:
    """What a process of its own measures."""
    return _MEASURES[name](Path(folder))


def _rows(names: Sequence[str], write: Callable[[Path], None]) -> Iterator[Row]:
    """Each measurement _TRIES times, in turn with the others, so that all see the same machine."""
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary) / "files"
        write(folder)
        tries = [{name: in_child(child, name, str(folder)) for name in names}
                 for _ in range(_TRIES)]  # fmt: skip
    for name in names:
        yield {"what": name} | min((each[name] for each in tries), key=lambda row: row["seconds"])


if __name__ == "__main__":
    run("dicom", __doc__, parts, child=child)
