"""Elements as pydicom holds them: what they say, and what is put in their place."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pydicom import DataElement, Dataset
    from pydicom.dataelem import RawDataElement

TEXT_VRS = {"AE", "AS", "CS", "LO", "LT", "PN", "SH", "ST", "UC", "UI", "UR", "UT"}
TIME_VRS = {"DA", "DT", "TM"}
#: What these hold by the standard; anything else may be a text that somebody wrote into them.
_FORMS = {
    "DS": re.compile(r"[\d+\-.eE\\ \0]*"),
    "IS": re.compile(r"[\d+\-.eE\\ \0]*"),  # 1.0 is no integer, and common
    "UI": re.compile(r"[\d.\\ \0]*"),
    "AS": re.compile(r"(?:\d{3}[DWMY][ \0]*\\?)*"),
    "CS": re.compile(r"(?:[^\\]{0,16}[ \0]*(?:\\|$))*"),
}
_DUMMIES: dict[str, Any] = {
    "AE": "REMOVED",
    "AS": "000D",
    "CS": "REMOVED",
    "DA": "19000101",
    "DS": "0",
    "DT": "19000101000000",
    "IS": "0",
    "LO": "REMOVED",
    "LT": "REMOVED",
    "PN": "REMOVED",
    "SH": "REMOVED",
    "ST": "REMOVED",
    "TM": "000000",
    "UC": "REMOVED",
    "UR": "http://removed.invalid",
    "UT": "REMOVED",
    "OB": b"\0\0",
    "OW": b"\0\0",
}
_NUMBERS = {"FD", "FL", "SL", "SS", "SV", "UL", "US", "UV"}


def vr_of(element: DataElement | RawDataElement) -> str:
    """The VR that the file claims, the dictionary's where it claims none, "UN" where none does."""
    from pydicom.datadict import dictionary_has_tag, dictionary_VR

    claimed = element.VR
    if claimed in (None, "UN") and dictionary_has_tag(element.tag):
        return dictionary_VR(element.tag)
    return str(claimed or "UN")


def texts(element: DataElement) -> list[str]:
    """The values of an element of text, numbers or dates, as text."""
    if element.value is None:
        return []
    if isinstance(element.value, (bytes, bytearray)):
        return [bytes(element.value).decode("latin-1")]
    many = element.value if element.VM > 1 else [element.value]
    return [str(value) for value in many if str(value)]


def decoded(dataset: Dataset, tag: int) -> DataElement:
    """The element, decoded apart, so that what stays keeps its bytes."""
    from pydicom.dataelem import RawDataElement, convert_raw_data_element

    element: DataElement | RawDataElement = dataset.get_item(tag)
    if isinstance(element, RawDataElement):
        return convert_raw_data_element(element, encoding=dataset._character_set, ds=dataset)
    return element


def stored_bytes(element: DataElement | RawDataElement) -> bytes:
    """The bytes of an element that was not decoded yet, or of one that is bytes; else none."""
    return bytes(element.value) if isinstance(element.value, (bytes, bytearray)) else b""


def dummy(vr: str) -> Any:
    """A value that is valid and says nothing; None where there is none (sequences)."""
    return 0 if vr in _NUMBERS else _DUMMIES.get(vr)


def put(dataset: Dataset, tag: int, vr: str, value: Any) -> None:
    """Replace an element."""
    from pydicom import DataElement

    dataset[tag] = DataElement(tag, vr, value)


def is_malformed(element: DataElement | RawDataElement, vr: str) -> bool:
    """Whether what should be numbers, UIDs, ages or codes is something else."""
    form = _FORMS.get(vr)
    if form is None:
        return False
    stored = stored_bytes(element).decode("latin-1")
    return not form.fullmatch(stored or _joined(element.value))


def _joined(value: Any) -> str:
    is_list = isinstance(value, Iterable) and not isinstance(value, (str, bytes))
    return "\\".join(map(str, value)) if is_list else str(value or "")
