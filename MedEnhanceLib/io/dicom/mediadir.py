"""What a DICOMDIR says should be there: it is compared with what is, and never followed."""

from __future__ import annotations

import warnings
from collections.abc import Iterable
from typing import BinaryIO

from MedEnhanceLib.io.dicom.bounded import read_elements
from MedEnhanceLib.io.dicom.marks import pydicom_failures
from MedEnhanceLib.io.dicom.samples import DamagedError
from MedEnhanceLib.io.dicom.structure import behind_meta
from MedEnhanceLib.runtime.dependencies import require

MEDIA_DIRECTORY = "1.2.840.10008.1.3.10"


def is_named_directory(name: str) -> bool:
    """Whether a file has the name that DICOM prescribes for a directory of a medium."""
    return name.upper() == "DICOMDIR"


def is_directory(stream: BinaryIO) -> bool:
    """Whether a DICOM file is the directory of a medium."""
    try:
        return behind_meta(stream)[2] == MEDIA_DIRECTORY
    except DamagedError:
        return False


def referenced(stream: BinaryIO) -> list[str]:
    """The files that the directory names, as `folder/file`; raises ValueError where damaged."""
    require("pydicom", purpose="Reading DICOM")
    if not is_directory(stream):
        raise ValueError("it is no directory of a medium")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            directory = read_elements(stream, ["DirectoryRecordSequence"])
            return [
                "/".join(_parts(record.ReferencedFileID))
                for record in directory.get("DirectoryRecordSequence") or []
                if record.get("ReferencedFileID") and record.get("RecordInUseFlag") != 0
            ]
    except pydicom_failures() as cause:
        raise ValueError(" ".join(str(cause).split()) or type(cause).__name__) from cause


def missing(names: Iterable[str], found: Iterable[str]) -> list[str]:
    """Those `names` that are not among the `found` paths below the directory's folder.

    A disc may show its names in small letters, or with a version behind them. As names are only
    compared, one that leads out of the folder is simply missing.
    """
    there = {_plain(path) for path in found}
    return [name for name in names if _plain(name) not in there]


def _parts(value: str | Iterable[str]) -> list[str]:
    return [value] if isinstance(value, str) else [str(part) for part in value]


def _plain(name: str) -> str:
    return name.replace("\\", "/").lower().removesuffix(";1").rstrip(".")
