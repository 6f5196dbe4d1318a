"""Elements of a header as plain values.

An absent element is None or ""; a malformed one that matters is an error.
"""

from __future__ import annotations

import contextlib
import datetime
import functools
import math
import re
from collections.abc import Iterable
from itertools import zip_longest
from typing import TYPE_CHECKING, Any, Protocol

from MedEnhanceLib.core.origin import Lossy
from MedEnhanceLib.errors import InputError

if TYPE_CHECKING:
    from pydicom import Dataset

_CONTROLS = dict.fromkeys(
    [*range(32), *range(127, 160), *range(0x202A, 0x202F), *range(0x2066, 0x206A)], " "
)
_CORRECT = "Correct the header."
#: Stands for a missing date.
_SOME_DAY = "20000101"
#: Transfer syntaxes that are always lossy, and what DICOM calls the method.
LOSSY_SYNTAXES = {
    "1.2.840.10008.1.2.4.50": "ISO_10918_1",
    "1.2.840.10008.1.2.4.51": "ISO_10918_1",
    "1.2.840.10008.1.2.4.81": "ISO_14495_1",
}
#: The method of syntaxes that may be lossy, for headers that name none.
_METHODS = {
    **LOSSY_SYNTAXES,
    "1.2.840.10008.1.2.4.91": "ISO_15444_1",
    "1.2.840.10008.1.2.4.93": "ISO_15444_2",
    "1.2.840.10008.1.2.4.203": "ISO_15444_15",
}
#: Where manufacturers keep the b-value: element, its VR, creator's element, creator.
PRIVATE_B_VALUES = (
    (0x0019100C, "IS", 0x00190010, "SIEMENS MR HEADER"),
    (0x00431039, "IS", 0x00430010, "GEMS_PARM_01"),
    (0x20011003, "FL", 0x20010010, "Philips Imaging DD 001"),
)
#: What headers.py and slices.py read of every image: keywords, and tags of private elements.
HEADER_ELEMENTS: tuple[str | int, ...] = (
    "SOPClassUID", "SOPInstanceUID", "StudyInstanceUID", "SeriesInstanceUID", "InstanceNumber",
    "SeriesNumber", "SeriesDescription", "StudyDescription", "StudyDate", "SeriesDate",
    "AcquisitionDate", "AcquisitionTime", "AcquisitionDateTime", "PatientID", "Modality",
    "ImageType", "Rows", "Columns", "NumberOfFrames", "SamplesPerPixel",
    "PhotometricInterpretation", "BitsAllocated", "BitsStored", "PixelRepresentation",
    "PixelPaddingValue", "ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing",
    "SliceThickness", "SpacingBetweenSlices", "FrameOfReferenceUID", "RescaleSlope",
    "RescaleIntercept", "RescaleType", "Units", "ModalityLUTSequence", "AcquisitionNumber",
    "EchoNumbers", "EchoTime", "TemporalPositionIdentifier",
    "TemporalResolution", "TriggerTime", "FrameReferenceTime", "NominalPercentageOfCardiacPhase",
    "NominalPercentageOfRespiratoryPhase", "DiffusionBValue", "KVP", "ConvolutionKernel",
    "InversionTime", "FlipAngle", "WindowCenter", "WindowWidth", "BurnedInAnnotation",
    "BodyPartExamined",
    "LossyImageCompression", "LossyImageCompressionRatio", "LossyImageCompressionMethod",
    *(tag for element, _vr, creator, _name in PRIVATE_B_VALUES for tag in (element, creator)),
)  # fmt: skip
_TEXT = ("CS", "LO", "SH", "UI", "DA", "TM", "DT", "IS", "DS", "ST", "LT")
Fields = dict[str | int, Any]


class Elements(Protocol):
    """Elements by keyword, private ones by tag: a pydicom.Dataset, or a dict."""

    def get(self, key: Any, /) -> Any:
        """The value, or None."""

    def __contains__(self, key: Any, /) -> bool: ...


def text(dataset: Elements, field: str | int) -> str:
    """The element as text; empty where it is absent."""
    value = _get(dataset, field)
    return "" if value is None else plain(str(value)).strip()


def plain(value: str) -> str:
    """Replace characters that control a terminal or the direction of text by spaces."""
    return value if value.isprintable() else value.translate(_CONTROLS)


def first(dataset: Elements, field: str | int) -> Any:
    """The first value of an element; "" where it is absent."""
    value = _get(dataset, field)
    if isinstance(value, Iterable) and not isinstance(value, str):
        return next(iter(value), "")
    return "" if value is None else value


def floats(dataset: Elements, field: str, count: int) -> tuple[float, ...] | None:
    """The `count` finite numbers of an element; None where it is absent or empty.

    Raises:
        InputError: there are more or fewer values, or they are no finite numbers.
    """
    value = dataset.get(field)
    if value is None or value == "":
        return None
    try:
        found = tuple(float(part) for part in (value if count > 1 else [value]))
    except (TypeError, ValueError, OverflowError):
        found = ()
    if len(found) != count or not all(map(math.isfinite, found)):
        raise InputError(f"{field} is {str(value)[:100]}", _CORRECT)
    return found


def one(header: Elements, field: str) -> float | None:
    """The only number of an element, as `floats` reads it."""
    found = floats(header, field, 1)
    return None if found is None else found[0]


def number(header: Elements, field: str) -> int | None:
    """A whole number that only sorts or names; a malformed one counts as absent."""
    found = measured(header, field)
    return None if found is None else int(found)


def measured(header: Elements, field: str) -> float | None:
    """A number that only sorts or times; a malformed one counts as absent."""
    try:
        return one(header, field)
    except InputError:
        return None


def whole(header: Elements, field: str) -> int:
    """A whole number, 0 where it is absent; raises InputError as `floats` does."""
    return int(one(header, field) or 0)


def texts(header: Elements, field: str) -> tuple[str, ...]:
    """All values of an element, in capitals."""
    value = header.get(field)
    if value is None or value == "":
        return ()
    parts = value if isinstance(value, Iterable) and not isinstance(value, str) else [value]
    return tuple(str(part).strip().upper() for part in parts)


def window(header: Elements) -> tuple[float, float] | None:
    """The first window, center and width; None where there is none, or an impossible one."""
    try:
        center, width = (float(first(header, field)) for field in ("WindowCenter", "WindowWidth"))
    except (TypeError, ValueError):
        return None
    is_valid = math.isfinite(center) and math.isfinite(width) and width > 0
    return (center, width) if is_valid else None


def date(value: str) -> str:
    """A date as YYYY-MM-DD; "" where it is malformed."""
    digits = value.replace(".", "")
    if len(digits) != 8 or not digits.isdigit():
        return ""
    return f"{digits[:4]}-{digits[4:6]}-{digits[6:]}"


def acquisition_time(header: Elements) -> float | None:
    """The time of acquisition in seconds since a fixed day; None where it is missing."""
    whole_moment = text(header, "AcquisitionDateTime")
    if whole_moment:
        return moment(whole_moment)
    day = text(header, "AcquisitionDate").replace(".", "") or _SOME_DAY
    hour = text(header, "AcquisitionTime").replace(":", "")
    return moment(day + hour) if hour else None


def moment(value: str) -> float | None:
    """Seconds since a fixed day of YYYYMMDDHH[MM[SS[.F]]], without its time zone; None for others.

    Missing minutes and seconds are 0.
    """
    found = re.fullmatch(r"(\d{8})(\d\d)(\d\d)?(\d\d)?(\.\d{1,6})?(?:[+-]\d{4})?", value)
    if not found or (found[5] and not found[4]):
        return None
    try:
        day = datetime.datetime.strptime(found[1] + "+0000", "%Y%m%d%z").timestamp()
    except (ValueError, OverflowError, OSError):
        return None
    hours, minutes, seconds = (int(part or 0) for part in found.group(2, 3, 4))
    if hours > 23 or minutes > 59 or seconds > 60:
        return None
    return day + 3600 * hours + 60 * minutes + seconds + float(found[5] or 0)


def _get(dataset: Elements, field: str | int) -> Any:
    value = dataset.get(field)
    # By its tag, pydicom gives the element instead of its value.
    return getattr(value, "value", value) if isinstance(field, int) else value


def lossy_steps(header: Elements, syntax: str, raw_bytes: float, size: int) -> tuple[Lossy, ...]:
    """The lossy compressions that a header or its transfer syntax states.

    Args:
        header: the elements.
        syntax: the transfer syntax UID.
        raw_bytes: size of the decoded pixels.
        size: size of the file, 0 where unknown.
    Returns:
        One step for each method. A missing ratio becomes that of the file, or 1 where the pixels
        are uncompressed by now; a missing method becomes "".
    """
    about = max(1.0, raw_bytes / size) if size else 1.0
    methods = texts(header, "LossyImageCompressionMethod")
    is_lossy = text(header, "LossyImageCompression") == "01"
    implied = LOSSY_SYNTAXES.get(syntax, "")
    if not implied and is_lossy and not methods:
        implied = _METHODS.get(syntax, "")
    if implied and implied not in methods:
        methods = (*methods, implied)
    if not methods and not is_lossy:
        return ()
    ratios = []
    for ratio in texts(header, "LossyImageCompressionRatio"):
        with contextlib.suppress(ValueError):
            ratios.append(float(ratio))
    pairs = zip_longest(methods or ("",), ratios[: max(len(methods), 1)])
    return tuple(
        Lossy(method or "", ratio if ratio and ratio > 0 else about) for method, ratio in pairs
    )


def plain_values(header: Dataset) -> Fields:
    """The elements of a header by keyword, private ones by tag: text, numbers, or lists of them.

    Plain ASCII text is decoded here, which takes a third of pydicom's time; pydicom decodes the
    rest. Of a sequence it only says that it is there.
    """
    fields: Fields = {}
    for tag in header.keys():  # noqa: SIM118 - iterating over a Dataset decodes its values
        raw = header.get_item(tag)
        vr = raw.VR or _dictionary_vr(tag)
        value = raw.value
        if vr == "SQ":
            found: Any = True
        elif vr in _TEXT and isinstance(value, bytes) and value.isascii() and b"\x1b" not in value:
            found = value.rstrip(b"\0 ").decode("ascii")
            found = found.split("\\") if "\\" in found else found
        else:
            found = header[tag].value
        fields[_keyword(tag) or tag] = found
    return fields


@functools.cache
def _dictionary_vr(tag: int) -> str:
    from pydicom.datadict import dictionary_has_tag, dictionary_VR

    return dictionary_VR(tag) if dictionary_has_tag(tag) else ""


@functools.cache
def _keyword(tag: int) -> str:
    from pydicom.datadict import keyword_for_tag

    return keyword_for_tag(tag)
