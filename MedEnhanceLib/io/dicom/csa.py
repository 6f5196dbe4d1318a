"""Siemens' CSA header in a private element: (0029,1010) of an image, (0029,1020) of a series.

Two versions, little endian. Version 2 begins with `SV10` and four bytes; then both have the number
of elements and a check value. An element has a name (64 bytes), the number of its values, a VR, a
type, the number of items and a check value; an item has four numbers, which state its length, and
text, padded to four bytes.
"""

from __future__ import annotations

import struct

from MedEnhanceLib.io.dicom.structure import DamagedError

_COUNT, _ELEMENT, _ITEM = struct.Struct("<2I"), struct.Struct("<64si4s3i"), struct.Struct("<4i")
#: A header has about 100 elements; data with more than this are not one.
_MOST_ELEMENTS = 1000


def read_csa(data: bytes) -> dict[str, tuple[str, ...]]:
    """Read the elements of a CSA header.

    data: the private element as it is stored.
    Returns the values of each element by name, stripped of blanks; () for an empty element.
    Raises DamagedError if it is not a CSA header, or is cut short.
    """
    is_second = data[:4] == b"SV10"
    at = 8 if is_second else 0
    try:
        count, _ = _COUNT.unpack_from(data, at)
        if not 1 <= count <= _MOST_ELEMENTS:
            raise DamagedError(f"its CSA header states {count} elements")
        at += _COUNT.size
        elements: dict[str, tuple[str, ...]] = {}
        base = None
        for _ in range(count):
            name, multiplicity, _, _, items, _ = _ELEMENT.unpack_from(data, at)
            at += _ELEMENT.size
            base = items if base is None else base
            values = []
            for _ in range(items):
                numbers = _ITEM.unpack_from(data, at)
                at += _ITEM.size
                # In version 1 the first number is the length plus the items of the first element.
                length = numbers[1] if is_second else numbers[0] - base
                if not 0 <= length <= len(data) - at:
                    raise DamagedError("its CSA header is cut short")
                values.append(_text(data[at : at + length]))
                at += -(-length // 4) * 4
            kept = values[: multiplicity or None] if multiplicity >= 0 else []
            elements[_text(name)] = tuple(filter(None, kept))
    except struct.error as cause:
        raise DamagedError("its CSA header is cut short") from cause
    return elements


def _text(data: bytes) -> str:
    return data.partition(b"\0")[0].decode("latin-1").strip()
