"""Elements of a header as plain values: what is absent is None or "", what is malformed is said."""

from __future__ import annotations

import datetime
import math
from collections.abc import Iterable
from typing import Any, Protocol

from MedEnhanceLib.errors import InputError

_CORRECT = "Correct the header."


class Elements(Protocol):
    """Elements by keyword, those of makers by tag: a pydicom.Dataset, or a dict."""

    def get(self, key: Any, /) -> Any:
        """The value, or None."""

    def __contains__(self, key: Any, /) -> bool: ...


def text(dataset: Elements, field: str | int) -> str:
    """The element as text; empty where it is absent."""
    value = _get(dataset, field)
    return "" if value is None else str(value).strip()


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
    """A number that only orders or names; what is malformed counts as absent."""
    try:
        found = one(header, field)
    except InputError:
        return None
    return None if found is None else int(found)


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
    told = text(header, "AcquisitionDateTime") or (
        text(header, "AcquisitionDate") + text(header, "AcquisitionTime").replace(":", "")
        if text(header, "AcquisitionDate") and text(header, "AcquisitionTime")
        else "20000101" + text(header, "AcquisitionTime").replace(":", "")
    )
    seconds, _, fraction = told.partition("+")[0].partition(".")
    try:
        moment = datetime.datetime.strptime(seconds + "+0000", "%Y%m%d%H%M%S%z")
        return moment.timestamp() + (float(f"0.{fraction}") if fraction else 0.0)
    except (ValueError, OverflowError, OSError):
        return None


def _get(dataset: Elements, field: str | int) -> Any:
    value = dataset.get(field)
    # By its tag, pydicom gives the element instead of its value.
    return getattr(value, "value", value) if isinstance(field, int) else value
