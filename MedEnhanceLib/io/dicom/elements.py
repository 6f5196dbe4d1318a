"""Elements of a header as plain values.

An absent element is None or ""; a malformed one that matters is an error.
"""

from __future__ import annotations

import datetime
import functools
import math
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

from MedEnhanceLib.core.origin import Lossy
from MedEnhanceLib.errors import InputError

if TYPE_CHECKING:
    from pydicom import Dataset

_CONTROLS = dict.fromkeys(
    [*range(32), *range(127, 160), *range(0x202A, 0x202F), *range(0x2066, 0x206A)], " "
)
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
    "1.2.840.10008.1.2.4.203": "ISO_15444_15",
}
#: Elements by keyword, private ones by tag.
Fields = dict[str | int, Any]


def plain_values(header: Dataset) -> Fields:
    """The elements of a header, without its sequences; what pydicom cannot decode is text."""
    fields: Fields = {}
    for tag in header.keys():  # noqa: SIM118 - iterating over a Dataset decodes its values
        raw = header.get_item(tag)
        if raw.VR == "SQ":
            continue
        try:
            element = header[tag]
        except (ValueError, TypeError, ArithmeticError):
            fields[_keyword(tag)] = f"malformed, {bytes(raw.value or b'')[:40]!r}"
        else:
            fields[_keyword(tag)] = element.value
    return fields


@functools.cache
def _keyword(tag: int) -> str | int:
    from pydicom.datadict import keyword_for_tag

    return keyword_for_tag(tag) or int(tag)


def text(header: Any, field: str | int) -> str:
    """The element of `Fields` or of a Dataset as text; empty where it is absent."""
    value = header.get(field)
    return "" if value is None else plain(str(value)).strip()


def plain(value: str) -> str:
    """Replace characters that control a terminal or the direction of text by spaces."""
    return value if value.isprintable() else value.translate(_CONTROLS)


def texts(header: Any, field: str) -> tuple[str, ...]:
    """All values of an element, in capitals."""
    value = header.get(field)
    if value is None or value == "":
        return ()
    parts = value if isinstance(value, Iterable) and not isinstance(value, str) else [value]
    return tuple(str(part).strip().upper() for part in parts)


def floats(header: Any, field: str, count: int) -> tuple[float, ...] | None:
    """The `count` finite numbers of an element; None where it is absent or empty.

    Raises:
        InputError: there are more or fewer values, or they are no finite numbers.
    """
    value = header.get(field)
    if value is None or value == "":
        return None
    try:
        numbers = tuple(float(part) for part in (value if count > 1 else [value]))
    except (TypeError, ValueError, OverflowError):
        numbers = ()
    if len(numbers) != count or not all(map(math.isfinite, numbers)):
        raise InputError(f"{field} is {str(value)[:100]}", "Correct the header.")
    return numbers


def real(header: Any, field: str) -> float | None:
    """The only number of an element, as `floats` reads it."""
    numbers = floats(header, field, 1)
    return None if numbers is None else numbers[0]


def whole(header: Any, field: str) -> int:
    """A whole number, 0 where it is absent; raises InputError as `floats` does."""
    return int(real(header, field) or 0)


def measured(header: Any, field: str) -> float | None:
    """A number that only sorts or times; a malformed one counts as absent."""
    try:
        return real(header, field)
    except InputError:
        return None


def date(value: str) -> str:
    """A date as YYYY-MM-DD; "" where it is malformed."""
    digits = value.replace(".", "")
    if len(digits) != 8 or not digits.isdigit():
        return ""
    return f"{digits[:4]}-{digits[4:6]}-{digits[6:]}"


def acquisition_time(header: Fields) -> float | None:
    """The time of acquisition in seconds since a fixed day, without its time zone, or None."""
    moment = text(header, "AcquisitionDateTime").partition("+")[0].partition("-")[0]
    day, hour = moment[:8], moment[8:]
    if not moment:
        day = text(header, "AcquisitionDate").replace(".", "") or _SOME_DAY
        hour = text(header, "AcquisitionTime").replace(":", "")
    try:
        stated = datetime.datetime.fromisoformat(f"{day}T{hour}")
    except ValueError:
        return None
    return (stated - datetime.datetime.fromisoformat(_SOME_DAY)).total_seconds()


def lossy_steps(
    header: Fields, syntax: str, raw_bytes: float, stored_bytes: Callable[[], int]
) -> tuple[Lossy, ...]:
    """The lossy compressions that a header or its transfer syntax states.

    Args:
        header: the elements.
        syntax: the transfer syntax UID.
        raw_bytes: size of the decoded pixels.
        stored_bytes: gives the size of the file, 0 where unknown; called only for a lossy image.
    Returns:
        One step for each method, "" where none is named. A missing ratio is that of the file.
    """
    methods = texts(header, "LossyImageCompressionMethod")
    is_lossy = text(header, "LossyImageCompression") == "01"
    implied = LOSSY_SYNTAXES.get(syntax, "")
    if not implied and is_lossy and not methods:
        implied = _METHODS.get(syntax, "")
    if implied and implied not in methods:
        methods = (*methods, implied)
    if not methods and not is_lossy:
        return ()
    of_file = max(1.0, raw_bytes / (stored_bytes() or raw_bytes or 1))
    ratios = [
        measured({"ratio": ratio}, "ratio") or of_file
        for ratio in texts(header, "LossyImageCompressionRatio")
    ]
    methods = methods or ("",)
    ratios += [of_file] * (len(methods) - len(ratios))
    return tuple(map(Lossy, methods, ratios))
