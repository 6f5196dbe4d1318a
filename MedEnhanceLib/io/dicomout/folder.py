"""Objects into a folder: all of them, read back and found equal, or none."""

from __future__ import annotations

import contextlib
import errno
import os
import secrets
import shutil
from collections.abc import Iterable, Iterator, Sized
from pathlib import Path
from typing import TYPE_CHECKING

from MedEnhanceLib.dependencies import require
from MedEnhanceLib.errors import OutputError
from MedEnhanceLib.io.atomic import flush_folder, output_error
from MedEnhanceLib.io.dicomout.derivation import IMPLEMENTATION_NAME, IMPLEMENTATION_UID
from MedEnhanceLib.progress import Monitor

if TYPE_CHECKING:
    from pydicom import Dataset

_PIXELS = ("PixelData", "FloatPixelData", "DoubleFloatPixelData")
_COMPARED = ("SOPClassUID", "SOPInstanceUID", "SeriesInstanceUID", "StudyInstanceUID",
             "Rows", "Columns", "NumberOfFrames", *_PIXELS)  # fmt: skip
_OWN_FOLDER = "Name a folder of its own for what is derived."


def write_objects(
    datasets: Iterable[Dataset],
    folder: Path,
    *,
    overwrite: bool = False,
    monitor: Monitor | None = None,
) -> list[Path]:
    """Write each dataset as a file `<modality><series>-<instance>.dcm`; all of them, or none.

    datasets: complete but for their file meta information, written as explicit VR little endian.
    folder: made where it is not there; its parent must be. One that holds DICOM files of others
        is refused: a derived series never lies among originals.
    overwrite: whether files of these names may be replaced, where MedEnhance wrote them; with
        them goes the rest of their series.
    Returns the files in the order of the datasets. Raises OutputError; then all is as before.
    """
    monitor = monitor or Monitor()
    folder = Path(os.path.abspath(folder))  # noqa: PTH100 - resolve() would follow links
    _refuse_folder(folder)
    with _beside(folder) as staging:
        new = staging / "new"
        names = _write_all(datasets, new, folder, monitor)
        clashing = _clashing(names, folder, overwrite)
        monitor.progress(1.0, "moving files into place")
        try:
            _move_in(names, clashing, staging, folder)
        except OSError as cause:
            raise output_error(folder, cause) from cause
    return [folder / name for name in names]


def is_ours(path: Path) -> bool:
    """Whether MedEnhance wrote this DICOM file."""
    meta = _meta(path)
    return meta is not None and str(meta.get("ImplementationClassUID")) == IMPLEMENTATION_UID


def _refuse_folder(folder: Path) -> None:
    if folder.exists() and not folder.is_dir():
        raise OutputError(f"{folder} is a file", "Name a folder.")
    if not folder.exists():
        if not folder.parent.is_dir():
            raise OutputError(
                f"{folder}: {folder.parent} is not a folder", "Make it, or name another."
            )
        return
    try:
        entries = sorted(folder.iterdir())
    except OSError as cause:
        raise output_error(folder, cause) from cause
    for path in entries:
        if path.is_file() and _meta(path) is not None and not is_ours(path):
            raise OutputError(
                f"{folder} holds DICOM files of another origin ({path.name})", _OWN_FOLDER
            )


def _meta(path: Path) -> Dataset | None:
    """The file meta information, or None where it is no DICOM file."""
    from pydicom.errors import InvalidDicomError
    from pydicom.filereader import read_file_meta_info

    try:
        meta: Dataset = read_file_meta_info(path)
    except (InvalidDicomError, OSError, ValueError, AttributeError, EOFError):
        return None
    return meta


@contextlib.contextmanager
def _beside(folder: Path) -> Iterator[Path]:
    """A temporary folder on the same disk: inside the folder, or beside where it will be."""
    place = folder if folder.is_dir() else folder.parent
    staging = place / f".medenhance-{secrets.token_hex(8)}"
    try:
        (staging / "new").mkdir(parents=True)
    except OSError as cause:
        raise output_error(folder, cause) from cause
    try:
        yield staging
    finally:
        shutil.rmtree(staging, ignore_errors=True)


def _write_all(datasets: Iterable[Dataset], new: Path, folder: Path, monitor: Monitor) -> list[str]:
    names: list[str] = []
    count = len(datasets) if isinstance(datasets, Sized) else 0
    for dataset in datasets:
        name = _name(dataset, len(names) + 1)
        if name in names:  # two series of one number
            name = f"{name.removesuffix('.dcm')}-{len(names) + 1}.dcm"
        names.append(name)
        monitor.progress(len(names) / (count + 1) if count else 0.5, "writing DICOM")
        try:
            _write(dataset, new / name)
        except OSError as cause:
            raise output_error(folder / name, cause) from cause
        _verify(dataset, new / name)
    if not names:
        raise OutputError(f"{folder}: nothing to write", "Give at least one object.")
    return names


def _name(dataset: Dataset, place: int) -> str:
    modality = "".join(c for c in str(dataset.get("Modality") or "OT") if c.isalnum())[:8]
    series, instance = dataset.get("SeriesNumber"), dataset.get("InstanceNumber")
    return f"{modality}{int(series or 0)}-{int(instance or place):04d}.dcm"


def _write(dataset: Dataset, path: Path) -> None:
    pydicom = require("pydicom", purpose="Writing DICOM")
    from pydicom.uid import ExplicitVRLittleEndian

    meta = pydicom.dataset.FileMetaDataset()
    meta.MediaStorageSOPClassUID = dataset.SOPClassUID
    meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    meta.ImplementationClassUID = IMPLEMENTATION_UID
    meta.ImplementationVersionName = IMPLEMENTATION_NAME
    file = pydicom.dataset.FileDataset(None, dataset, preamble=b"\0" * 128, file_meta=meta)
    with path.open("xb") as stream:
        pydicom.dcmwrite(stream, file, enforce_file_format=True)
        stream.flush()
        os.fsync(stream.fileno())


def _verify(dataset: Dataset, path: Path) -> None:
    """Raise OutputError unless the file gives back the pixels and UIDs of the dataset."""
    from pydicom import dcmread

    read = dcmread(path)
    for keyword in _COMPARED:
        if read.get(keyword) != dataset.get(keyword):
            raise OutputError(
                f"{path.name}: {keyword} came back from the disk changed",
                "Write to another disk; this one, or the memory, may be failing.",
            )


def _clashing(names: list[str], folder: Path, overwrite: bool) -> list[Path]:
    """The files that make room: of the same names, and what else is of their series."""
    taken = [folder / name for name in names if (folder / name).exists()]
    if not taken:
        return []
    foreign = [path for path in taken if not is_ours(path)]
    if foreign:
        raise OutputError(f"{foreign[0]} exists and is not of MedEnhance", _OWN_FOLDER)
    if not overwrite:
        raise OutputError(
            f"{taken[0]} exists already",
            "Choose another folder, or allow that it is replaced (--force, overwrite=True).",
        )
    series = {_series(path) for path in taken}
    ours = [path for path in sorted(folder.glob("*.dcm")) if is_ours(path)]
    return [path for path in ours if _series(path) in series]


def _series(path: Path) -> str:
    from pydicom import dcmread

    return str(dcmread(path, specific_tags=["SeriesInstanceUID"]).get("SeriesInstanceUID"))


def _move_in(names: list[str], clashing: list[Path], staging: Path, folder: Path) -> None:
    """Move old files out and new ones in; where one cannot be moved, all go back."""
    if not folder.exists():
        (staging / "new").rename(folder)
        flush_folder(folder)
        flush_folder(folder.parent)
        return
    old = staging / "old"
    old.mkdir()
    moved: list[tuple[Path, Path]] = []
    try:
        for path in clashing:
            path.rename(old / path.name)
            moved.append((old / path.name, path))
        for name in names:
            if (folder / name).exists():  # somebody wrote it meanwhile
                raise FileExistsError(errno.EEXIST, "exists by now", str(folder / name))
            (staging / "new" / name).rename(folder / name)
            moved.append((folder / name, staging / "new" / name))
    except OSError:
        for now, before in reversed(moved):
            now.rename(before)
        raise
    flush_folder(folder)
