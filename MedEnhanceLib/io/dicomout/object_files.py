"""DICOM objects into a folder: all of them, read back and compared, or none."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from MedEnhanceLib.errors import OutputError
from MedEnhanceLib.io.atomic import output_error
from MedEnhanceLib.io.dicom.sources import is_dicom
from MedEnhanceLib.io.dicomout.derivation import IMPLEMENTATION_NAME, IMPLEMENTATION_UID
from MedEnhanceLib.io.staging import holds, refuse_no_folder, staging_for
from MedEnhanceLib.runtime.dependencies import require
from MedEnhanceLib.runtime.progress import Monitor

if TYPE_CHECKING:
    from pydicom import Dataset

_PIXELS = ("PixelData", "FloatPixelData", "DoubleFloatPixelData")
_COMPARED = ("SOPClassUID", "SOPInstanceUID", "SeriesInstanceUID", "StudyInstanceUID",
             "Rows", "Columns", "NumberOfFrames", *_PIXELS)  # fmt: skip
_OWN_FOLDER = "Name a separate folder for derived images."


def write_objects(
    datasets: Sequence[Dataset],
    folder: Path,
    *,
    source: str = "",
    overwrite: bool = False,
    monitor: Monitor | None = None,
) -> list[Path]:
    """Write each dataset as `<modality><series>-<code>-<instance>.dcm`; all of them, or none.

    Args:
        datasets: complete but for their file meta information; written as explicit VR little
            endian.
        folder: made if missing; its parent must exist. A folder with DICOM files of other programs
            is refused: a derived series never lies among originals.
        source: the UID of the series that everything was made from. It determines, with the study,
            the code in the names, so that results of different series never have one name.
        overwrite: whether earlier results of MedEnhance with the same names, thus of the same
            source, are replaced, with the rest of their series.
        monitor: notified of progress; may cancel.
    Returns:
        The files in the order of the datasets.
    Raises:
        OutputError: everything is as before; after an error while files move, the next writing
            into the folder moves the rest first.
    """
    monitor = monitor or Monitor()
    folder = Path(os.path.abspath(folder))  # noqa: PTH100 - resolve() would follow links
    _refuse_folder(folder)
    with staging_for(folder, monitor) as staging:
        names = _write_all(datasets, staging.new, folder, source, monitor)
        earlier = _earlier(names, folder, overwrite)
        monitor.progress(1.0, "moving files into place")
        staging.move_in(earlier)
    return [folder / name for name in names]


def is_ours(path: Path) -> bool:
    """Whether MedEnhance wrote this file; False if it is no DICOM."""
    from pydicom.errors import InvalidDicomError
    from pydicom.filereader import read_file_meta_info

    try:
        meta = read_file_meta_info(path)
    except (InvalidDicomError, OSError, ValueError, AttributeError, EOFError):
        return False
    return str(meta.get("ImplementationClassUID")) == IMPLEMENTATION_UID


def _refuse_folder(folder: Path) -> None:
    refuse_no_folder(folder)
    try:
        entries = holds(folder) if folder.exists() else []
    except OSError as cause:
        raise output_error(folder, cause) from cause
    for path in entries:
        if path.is_file() and is_dicom(path) and not is_ours(path):
            raise OutputError(
                f"{folder} holds DICOM files of another origin ({path.name})", _OWN_FOLDER
            )


def _write_all(
    datasets: Sequence[Dataset], new: Path, folder: Path, source: str, monitor: Monitor
) -> list[str]:
    if not datasets:
        raise OutputError(f"{folder}: nothing to write", "Give at least one object.")
    names: list[str] = []
    for number, dataset in enumerate(datasets, 1):
        name = _name(dataset, source, number)
        if name in names:  # two series of one number
            name = f"{name.removesuffix('.dcm')}-{number}.dcm"
        names.append(name)
        monitor.progress(number / (len(datasets) + 1), "writing DICOM")
        try:
            _write(dataset, new / name)
        except OSError as cause:
            raise output_error(folder / name, cause) from cause
        _verify(dataset, new / name)
    return names


def _name(dataset: Dataset, source: str, number: int) -> str:
    """`<modality><series>-<code>-<instance>.dcm`; the code is of the study and the source."""
    of_source = f"{dataset.StudyInstanceUID} {source}".encode()
    code = hashlib.sha256(of_source).hexdigest()[:8]
    instance = dataset.get("InstanceNumber") or number
    return f"{dataset.Modality}{int(dataset.SeriesNumber)}-{code}-{int(instance):04d}.dcm"


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
    """Raise OutputError unless the file holds the pixels and UIDs of the dataset."""
    from pydicom import dcmread

    read = dcmread(path)
    for keyword in _COMPARED:
        if read.get(keyword) != dataset.get(keyword):
            raise OutputError(
                f"{path.name}: {keyword} was changed when it was read back from the disk",
                "Write to another disk; this one, or the memory, may be failing.",
            )


def _earlier(names: Sequence[str], folder: Path, overwrite: bool) -> list[Path]:
    """The files to remove: those of the earlier results that have one of the names."""
    clashing = [name for name in names if os.path.lexists(folder / name)]
    if not clashing:
        return []
    if not overwrite:
        raise OutputError(
            f"{folder / clashing[0]} exists already",
            "Choose another folder, or allow that it is replaced (--force, overwrite=True).",
        )
    results = {name.rpartition("-")[0] for name in clashing}
    earlier = [path for path in holds(folder) if path.name.rpartition("-")[0] in results]
    foreign = [path for path in earlier if not is_ours(path)]
    if foreign:
        raise OutputError(f"{foreign[0]} exists and is not of MedEnhance", _OWN_FOLDER)
    return earlier
