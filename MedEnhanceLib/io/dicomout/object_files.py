"""Writing of DICOM objects into a folder, all or none; each is read back and compared."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from MedEnhanceLib.errors import OutputError
from MedEnhanceLib.io.atomic import atomic_folder, output_error, refuse_no_folder
from MedEnhanceLib.io.dicomout.derivation import IMPLEMENTATION_NAME, IMPLEMENTATION_UID
from MedEnhanceLib.runtime.dependencies import require
from MedEnhanceLib.runtime.progress import Monitor

if TYPE_CHECKING:
    from pydicom import Dataset

_PIXELS = ("PixelData", "FloatPixelData", "DoubleFloatPixelData")
_COMPARED = ("SOPClassUID", "SOPInstanceUID", "SeriesInstanceUID", "StudyInstanceUID",
             "Rows", "Columns", "NumberOfFrames", *_PIXELS)  # fmt: skip


def write_objects(
    datasets: Sequence[Dataset],
    folder: Path,
    *,
    overwrite: bool = False,
    monitor: Monitor | None = None,
) -> list[Path]:
    """Write each dataset as `<modality><series>-<instance>.dcm`; all of them, or none.

    Args:
        datasets: complete except for their file meta information; written as explicit VR little
            endian.
        folder: new or empty; its parent must exist. A derived series never lies among originals.
        overwrite: whether a folder that holds only earlier results of MedEnhance is replaced.
        monitor: notified of progress; may cancel.
    Returns the files in the order of the datasets.
    Raises OutputError: the folder is in use, or cannot be written; everything is as before.
    """
    monitor = monitor or Monitor()
    if not datasets:
        raise OutputError(f"{folder}: nothing to write", "Give at least one object.")
    refuse_used_folder(folder, overwrite)
    try:
        with atomic_folder(folder, replaceable=lambda path: overwrite and is_ours(path)) as new:
            names: list[str] = []
            for number, dataset in enumerate(datasets, 1):
                instance = int(dataset.get("InstanceNumber") or number)
                stem = f"{dataset.Modality}{int(dataset.SeriesNumber)}-{instance:04d}"
                # Two series may have one number.
                names.append(
                    f"{stem}.dcm" if f"{stem}.dcm" not in names else f"{stem}-{number}.dcm"
                )
                monitor.progress(number / (len(datasets) + 1), "writing DICOM")
                try:
                    _write(dataset, new / names[-1])
                except OSError as cause:
                    raise output_error(folder / names[-1], cause) from cause
                _verify(dataset, new / names[-1])
    except OutputError:
        refuse_used_folder(folder, overwrite)  # another run may have filled it meanwhile
        raise
    return [folder / name for name in names]


def refuse_used_folder(folder: Path, overwrite: bool) -> None:
    """Raise OutputError if `write_objects` may not fill a folder; call it before long work."""
    refuse_no_folder(folder)
    try:
        entries = sorted(folder.iterdir()) if folder.is_dir() else []
    except OSError as cause:
        raise output_error(folder, cause) from cause
    foreign = [path for path in entries if not is_ours(path)]
    if foreign:
        raise OutputError(
            f"{folder} holds {foreign[0].name}, which MedEnhance did not write as DICOM",
            "Name a new or empty folder for the derived images.",
        )
    if entries and not overwrite:
        raise OutputError(
            f"{folder} holds an earlier result",
            "Name a new or empty folder, or allow replacing it (--force, overwrite=True).",
        )


def is_ours(path: Path) -> bool:
    """Return whether MedEnhance wrote this file as DICOM; False for anything else."""
    from pydicom.errors import InvalidDicomError
    from pydicom.filereader import read_file_meta_info

    if not path.is_file():  # reading a pipe would block
        return False
    try:
        meta = read_file_meta_info(path)
    except (InvalidDicomError, OSError, ValueError, AttributeError, EOFError):
        return False
    return str(meta.get("ImplementationClassUID")) == IMPLEMENTATION_UID


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
    content = io.BytesIO()  # pydicom would hide the reason of a failing disk
    pydicom.dcmwrite(content, file, enforce_file_format=True)
    with path.open("xb") as stream:
        stream.write(content.getbuffer())


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
