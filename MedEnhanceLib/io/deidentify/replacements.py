"""Values of elements, and what replaces them: dummies, new UIDs, moved dates, fixed words."""

from __future__ import annotations

import hashlib
import hmac
import re
from collections.abc import Iterable
from datetime import date, timedelta
from typing import TYPE_CHECKING, Any

from MedEnhanceLib.io.dicomout.derivation import NOTICE

if TYPE_CHECKING:
    from pydicom import DataElement, Dataset
    from pydicom.dataelem import RawDataElement


TEXT_VRS = {"AE", "AS", "CS", "LO", "LT", "PN", "SH", "ST", "UC", "UI", "UR", "UT"}
TIME_VRS = {"DA", "DT", "TM"}
#: What these VRs hold by the standard; anything else may be free text.
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
    """The VR that the file states, else the dictionary's, else "UN"."""
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


def text_of(dataset: Dataset, keyword: str) -> str:
    """The value of an attribute as text without padding; "" if it is missing or empty."""
    value = dataset.get(keyword)
    return "" if value is None else str(value).strip(" \0")


def decoded(dataset: Dataset, tag: int) -> DataElement:
    """A decoded copy of the element; the dataset keeps its bytes."""
    from pydicom.dataelem import RawDataElement, convert_raw_data_element

    element: DataElement | RawDataElement = dataset.get_item(tag)
    if isinstance(element, RawDataElement):
        return convert_raw_data_element(element, encoding=dataset._character_set, ds=dataset)
    return element


def stored_bytes(element: DataElement | RawDataElement) -> bytes:
    """The bytes of an element that is not decoded yet or consists of bytes; else b""."""
    return bytes(element.value) if isinstance(element.value, (bytes, bytearray)) else b""


def dummy(vr: str) -> Any:
    """A valid value without a meaning; None for sequences, which have none."""
    return 0 if vr in _NUMBERS else _DUMMIES.get(vr)


def put(dataset: Dataset, tag: int, vr: str, value: Any) -> None:
    """Replace an element."""
    from pydicom import DataElement

    dataset[tag] = DataElement(tag, vr, value)


def is_malformed(element: DataElement | RawDataElement, vr: str) -> bool:
    """Whether numbers, UIDs, ages or codes do not have the form of their VR."""
    form = _FORMS.get(vr)
    if form is None:
        return False
    stored = stored_bytes(element).decode("latin-1")
    return not form.fullmatch(stored or _joined(element.value))


def _joined(value: Any) -> str:
    is_list = isinstance(value, Iterable) and not isinstance(value, (str, bytes))
    return "\\".join(map(str, value)) if is_list else str(value or "")


#: Dates move into the past, by up to ten years.
_DAYS = 3650
_DATE = re.compile(r"(\d{4})(\d{2})(\d{2})")
_OLD_DATE = re.compile(r"(\d{4})\.(\d{2})\.(\d{2})")
_DATE_TIME = re.compile(r"(\d{8})(\d{0,6}(?:\.\d{1,6})?(?:[+-]\d{4})?)")


def new_uid(secret: bytes, uid: str) -> str:
    """The UID that replaces `uid`: `2.25.` and 128 bits of a keyed hash."""
    return f"2.25.{int.from_bytes(_digest(secret, 'uid', uid)[:16], 'big')}"


def shift_days(secret: bytes, patient: str) -> int:
    """The days by which all dates of a patient move, −3650 to −1."""
    return -1 - int.from_bytes(_digest(secret, "days", patient)[:8], "big") % _DAYS


def shifted(value: str, vr: str, days: int) -> str | None:
    """A DA or DT moved by `days`; None if it is no full date or leaves the calendar."""
    if vr == "DT":
        match = _DATE_TIME.fullmatch(value)
        moved = match and shifted(match[1], "DA", days)
        return moved + match[2] if match and moved else None
    match = _DATE.fullmatch(value) or _OLD_DATE.fullmatch(value)
    if match is None:
        return None
    try:
        moved_day = date(int(match[1]), int(match[2]), int(match[3])) + timedelta(days=days)
    except (ValueError, OverflowError):
        return None
    return f"{moved_day.year:04}{moved_day.month:02}{moved_day.day:02}"


def _digest(secret: bytes, purpose: str, text: str) -> bytes:
    return hmac.new(
        secret, f"{purpose}\0{text}".encode("utf-8", "replace"), hashlib.sha256
    ).digest()


_ACTIONS = (
    "enhanced", "segmented", "compressed", "decompressed", "converted", "recovered", "exported",
    "resampled", "measured", "uncertainty of the enhancement",
)  # fmt: skip
_ACTION = re.compile("|".join(sorted(_ACTIONS, key=len, reverse=True)), re.IGNORECASE)
_BY_US = re.compile(r"by MedEnhance (\d{1,4}(?:\.\d{1,4}){0,3})")
_HASH = re.compile(r"\bsha256 ([0-9a-f]{64})\b")
_OUR_SERIES = re.compile(rf"MedEnhance ({_ACTION.pattern})$")


def fixed_text(keyword: str, text: str) -> str | None:
    """A text of MedEnhance, reduced: that the image is derived, how, by which model, its use.

    Example: DerivationDescription "Enhanced by MedEnhance 1.2; model A sha256 …; for Mr. X" →
    "Enhanced by MedEnhance 1.2; model sha256 …. Research use only; not for diagnosis."

    Args:
        keyword: of the element.
        text: its value.
    Returns:
        Words of this file, a version and a model's hash, nothing else; None for other texts.
    """
    if keyword == "SeriesDescription":
        ours = _OUR_SERIES.search(text)
        return ours and f"MedEnhance {ours[1]}"
    if NOTICE not in text:
        return None
    model = _HASH.search(text)
    by = f"; model sha256 {model[1]}" if model else ""
    action = _ACTION.match(text)
    done = action[0] if action else "derived"
    if keyword == "DerivationDescription":
        version = _BY_US.search(text)
        us = f"by MedEnhance {version[1]}" if version else "by MedEnhance"
        return f"{done.capitalize()} {us}{by}. {NOTICE}"
    if keyword == "ContributionDescription":
        return f"{done.lower()}{by}. {NOTICE}"
    return NOTICE if keyword in ("ImageComments", "ContentDescription") else None
