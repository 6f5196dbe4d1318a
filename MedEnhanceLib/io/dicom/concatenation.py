"""Frames that are spread over several files: all of the files must be there.

Source: DICOM PS3.3 C.7.6.16.2.2.4 (concatenations).
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

from MedEnhanceLib.errors import InputError
from MedEnhanceLib.io.dicom.elements import Elements, number, text
from MedEnhanceLib.io.dicom.slices import Slice

ELEMENTS = ("ConcatenationUID", "InConcatenationNumber", "InConcatenationTotalNumber")
_MOST_NAMED = 6

Place = tuple[str, int, int]


def place_in(header: Elements) -> Place | None:
    """(UID, number of this file from 1, how many there are; 0 where not told); None for others."""
    uid, *counts = ELEMENTS
    if not text(header, uid):
        return None
    own, total = (number(header, field) or 0 for field in counts)
    return text(header, uid), own, total


def fault_of(slices: Sequence[Slice], name: str) -> InputError | None:
    """What is wrong with the concatenations among slices of one series; None where all are whole.

    name: of the series, for the message.
    """
    files: dict[str, dict[str, tuple[int, int]]] = defaultdict(dict)
    for one in slices:
        if one.concatenation is not None:
            uid, own, total = one.concatenation
            files[uid][str(one.file)] = (own, total)
    for found in files.values():
        fault = _fault([own for own, _ in found.values()], {total for _, total in found.values()})
        if fault:
            return InputError(
                f"{name}: its frames are spread over several files (a concatenation): {fault}",
                "Copy or export the series again, complete.",
            )
    return None


def _fault(numbers: Sequence[int], totals: set[int]) -> str:
    """Numbers and totals as the files tell them; without a total, the highest number counts."""
    told = totals - {0}
    if len(told) > 1:
        return f"they disagree on how many: {' or '.join(map(str, sorted(told)))}"
    total = max(*told, *numbers, 1)
    if min(numbers) < 1 or (told and total > max(told)) or len(set(numbers)) < len(numbers):
        return f"their numbers are {', '.join(map(str, sorted(numbers)[:_MOST_NAMED]))}"
    if total > len(numbers):
        lacking = [str(k) for k in _few(set(numbers), total)]
        more = total - len(numbers) - len(lacking)
        rest = f" and {more} more" if more else ""
        return f"of {total} these are missing: {', '.join(lacking)}{rest}"
    return ""


def _few(there: set[int], total: int) -> list[int]:
    """The first numbers that are missing; a total may be any number, and is not counted to."""
    last = min(total, len(there) + _MOST_NAMED)
    return [k for k in range(1, last + 1) if k not in there][:_MOST_NAMED]
