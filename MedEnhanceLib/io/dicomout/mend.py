"""Faults of a source that are not passed on: values shortened or left out, with a word of it."""

from __future__ import annotations

from decimal import Decimal
from math import isfinite
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pydicom import DataElement, Dataset

#: The most characters of texts that may lose their end. Identifiers of people may not.
_LENGTHS = {"SH": 16, "LO": 64, "ST": 1024, "LT": 10240}
_KEPT = {
    "PatientID", "PatientName", "StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID",
    "SOPClassUID", "FrameOfReferenceUID",
}  # fmt: skip

#: Texts in the character set of the dataset.
_TEXTS = {"LO", "LT", "PN", "SH", "ST", "UC", "UT"}
_METHODS = ("", "CodeSequence")


def mend(header: Dataset) -> list[str]:
    """Mend the faults of an image's header, in place; returns what was done, a sentence each."""
    done = _mend_values(header)
    removed = str(header.get("PatientIdentityRemoved") or "") == "YES"
    if removed and not any(header.get(f"DeidentificationMethod{kind}") for kind in _METHODS):
        header.DeidentificationMethod = "Not told by the source"
        done.append("PatientIdentityRemoved does not say by which method; this is said now")
    if not header.get("SpecificCharacterSet") and not _is_ascii(header):
        header.SpecificCharacterSet = "ISO_IR 100"
        done.append("SpecificCharacterSet is missing; its letters are taken for Western European")
    if len(str(header.get("PatientID") or "")) > _LENGTHS["LO"]:
        done.append(
            "PatientID is longer than the 64 characters allowed; it stays, as identifiers must, "
            "though a PACS may refuse it"
        )
    return done


def _is_ascii(dataset: Dataset) -> bool:
    return all(
        str(value).isascii()
        for element in dataset.iterall()
        if element.VR in _TEXTS and element.VM
        for value in _values(element)
    )


def _mend_values(header: Dataset) -> list[str]:
    """Shorten or empty values that break the rules of their type; in items of sequences too."""
    done: list[str] = []
    for element in list(header):
        if element.VR == "SQ":
            for item in element.value:
                done += _mend_values(item)
        elif element.keyword not in _KEPT and not _is_valid(element):
            done.append(_mend(element))
    return done


def _is_valid(element: DataElement) -> bool:
    from pydicom.config import RAISE
    from pydicom.valuerep import STR_VR, validate_value

    if element.VR not in STR_VR or element.VM == 0:
        return True
    try:
        for value in _values(element):
            validate_value(element.VR, _as_written(value), RAISE)
    except (ValueError, TypeError):
        return False
    return True


def _mend(element: DataElement) -> str:
    if element.VR == "DS" and (decimals := _shorter(_values(element))):
        element.value = decimals if len(decimals) > 1 else decimals[0]
        return f"{element.keyword} was rounded to the 16 characters allowed"
    length = _LENGTHS.get(element.VR)
    if length is not None and all(isinstance(value, str) for value in _values(element)):
        short = [value[:length].rstrip() for value in _values(element)]
        before, element.value = element.value, short if len(short) > 1 else short[0]
        if _is_valid(element):
            return f"{element.keyword} {before!r} was cut to the {length} characters allowed"
    element.value = None
    return f"{element.keyword} was left empty: its value is none that DICOM allows"


def _shorter(values: list[Any]) -> list[str]:
    """Numbers of too many digits, as scanners write places; none where one is no number."""
    from pydicom.valuerep import format_number_as_ds

    if not all(isinstance(value, (float, Decimal)) and isfinite(value) for value in values):
        return []
    return [
        text if len(text := _as_written(value)) <= 16 else format_number_as_ds(float(value))
        for value in values
    ]


def _values(element: DataElement) -> list[Any]:
    return list(element.value) if element.VM > 1 else [element.value]


def _as_written(value: Any) -> Any:
    """The text in the file: pydicom keeps it with numbers, dates and times."""
    original = getattr(value, "original_string", None)
    if isinstance(original, str):
        return original
    return value if isinstance(value, (str, bytes)) or hasattr(value, "components") else str(value)
