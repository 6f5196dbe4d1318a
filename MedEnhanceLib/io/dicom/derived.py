"""What MedEnhance did to images before they were stored, as they say themselves."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING

from MedEnhanceLib.errors import InputError
from MedEnhanceLib.io.dicom.bounded import read_elements
from MedEnhanceLib.io.dicom.elements import text
from MedEnhanceLib.io.dicom.marks import pydicom_failures
from MedEnhanceLib.io.dicom.sources import FileRef
from MedEnhanceLib.runtime.dependencies import require

if TYPE_CHECKING:
    from pydicom import Dataset

_US = "MedEnhance"
_EQUIPMENT = "ContributingEquipmentSequence"


def earlier_steps(file: FileRef) -> tuple[str, ...]:
    """A line of history for each time that MedEnhance contributed to an image, oldest first.

    Derivations of others are no lines: scanners call much of what they make derived.
    Raises InputError where the header cannot be read.
    """
    require("pydicom", purpose="Reading DICOM")
    try:
        with warnings.catch_warnings(), file.peek() as stream:
            warnings.simplefilter("ignore")  # told of when the header was read before
            equipment = read_elements(stream, [_EQUIPMENT]).get(_EQUIPMENT) or []
            return tuple(_step(item) for item in equipment if text(item, "Manufacturer") == _US)
    except pydicom_failures() as cause:
        raise InputError(
            f"{file.name}: {_EQUIPMENT} cannot be read: {cause}", "Copy or export the file again."
        ) from cause


def _step(item: Dataset) -> str:
    version = text(item, "SoftwareVersions") or "of unknown version"
    what = text(item, "ContributionDescription").partition(". ")[0] or "made"
    return f"DERIVED: {what} by {_US} {version}, stored as DICOM; research use only"
