"""Elements of a header as plain values: what is absent is None or "", what is malformed is said."""

from __future__ import annotations

import datetime
import math
import re
from collections.abc import Iterable
from typing import Any, Protocol

from MedEnhanceLib.errors import InputError

_STEERING = dict.fromkeys(
    [*range(32), *range(127, 160), *range(0x202A, 0x202F), *range(0x2066, 0x206A)], " "
)
_CORRECT = "Correct the header."
#: Stands for a date that is not told.
_SOME_DAY = "20000101"


class Elements(Protocol):
    """Elements by keyword, those of makers by tag: a pydicom.Dataset, or a dict."""

    def get(self, key: Any, /) -> Any:
        """The value, or None."""

    def __contains__(self, key: Any, /) -> bool: ...


def text(dataset: Elements, field: str | int) -> str:
    """The element as text; empty where it is absent."""
    value = _get(dataset, field)
    return "" if value is None else plain(str(value)).strip()


def plain(told: str) -> str:
    """Without characters that steer a terminal, or that turn the direction of what follows."""
    return told if told.isprintable() else told.translate(_STEERING)


def first(dataset: Elements, field: str | int) -> Any:
    """The first value of an element; "" where it is absent."""
    value = _get(dataset, field)
    if isinstance(value, Iterable) and not isinstance(value, str):
        return next(iter(value), "")
    return "" if value is None else value


def floats(dataset: Elements, field: str, count: int) -> tuple[float, ...] | None:
    """The `count` finite numbers of an element; None where it is absent or empty.

    Raises InputError where they are others.
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
    """The one number of an element; see `floats`."""
    found = floats(header, field, 1)
    return None if found is None else found[0]


def number(header: Elements, field: str) -> int | None:
    """A whole number that only orders or names; what is malformed counts as absent."""
    found = measured(header, field)
    return None if found is None else int(found)


def measured(header: Elements, field: str) -> float | None:
    """A number that only orders or times; what is malformed counts as absent."""
    try:
        return one(header, field)
    except InputError:
        return None


def whole(header: Elements, field: str) -> int:
    """A whole number; 0 where it is absent. Raises InputError as `floats` does."""
    return int(one(header, field) or 0)


def texts(header: Elements, field: str) -> tuple[str, ...]:
    """All values of an element, in capitals."""
    value = header.get(field)
    if value is None or value == "":
        return ()
    parts = value if isinstance(value, Iterable) and not isinstance(value, str) else [value]
    return tuple(str(part).strip().upper() for part in parts)


def date(told: str) -> str:
    """A date as YYYY-MM-DD; empty where it is none."""
    digits = told.replace(".", "")
    if len(digits) != 8 or not digits.isdigit():
        return ""
    return f"{digits[:4]}-{digits[4:6]}-{digits[6:]}"


def acquisition_time(header: Elements) -> float | None:
    """When the acquisition began, seconds since a fixed day; None where that is not told."""
    whole_moment = text(header, "AcquisitionDateTime")
    if whole_moment:
        return moment(whole_moment)
    day = text(header, "AcquisitionDate").replace(".", "") or _SOME_DAY
    hour = text(header, "AcquisitionTime").replace(":", "")
    return moment(day + hour) if hour else None


def moment(told: str) -> float | None:
    """Seconds since a fixed day of YYYYMMDDHH[MM[SS[.F]]], any zone left out; None for others.

    A time may end with its hours or its minutes: then the rest is 0.
    """
    found = re.fullmatch(r"(\d{8})(\d\d)(\d\d)?(\d\d)?(\.\d{1,6})?(?:[+-]\d{4})?", told)
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
