"""What tells a DICOM file from any other, before pydicom is asked."""

from __future__ import annotations

import struct
import zlib
from pathlib import Path
from typing import Literal

from MedEnhanceLib.io.dicom import archives

#: How many bytes `mark_of` looks at.
HEAD = 140
Mark = Literal["whole", "bare", "damaged", ""]
_FIRST_VRS = (b"UL", b"CS", b"DA", b"TM", b"UI", b"OB", b"LO", b"SH")
#: What a data set begins with: its group's length, character set, image type, times, class, UID.
_FIRST_ELEMENTS = {
    0x0002: (0x0000, 0x0001, 0x0002),
    0x0008: (0x0000, 0x0001, 0x0005, 0x0008, 0x0012, 0x0013, 0x0014, 0x0016, 0x0018),
}
_LONGEST_FIRST_VALUE = 64


def mark_of(head: bytes) -> Mark:
    """What the first HEAD bytes of a file tell.

    "whole": DICOM's mark is there. "bare": no mark, but they begin as a data set does; the rest
    must show that it is one. "damaged": the mark is overwritten, and what follows it is there.
    """
    if head[128:132] == b"DICM":
        return "whole"
    if _begins_data_set(head[:8]):
        return "bare"
    return "damaged" if head[132:138] == b"\x02\x00\x00\x00UL" else ""


def is_dicom(path: Path) -> bool:
    """Whether the file carries DICOM's mark, or begins as DICOM without the mark does."""
    try:
        with path.open("rb") as stream:
            return mark_of(stream.read(HEAD)) in ("whole", "bare")
    except OSError:
        return False


def pydicom_failures() -> tuple[type[Exception], ...]:
    """What a damaged file, or the zip that it lies in, makes pydicom raise."""
    from pydicom.errors import BytesLengthException, InvalidDicomError

    return (
        ArithmeticError, AssertionError, AttributeError, EOFError, LookupError, MemoryError,
        NotImplementedError, OSError, RecursionError, RuntimeError, TypeError, ValueError,
        struct.error, zlib.error, BytesLengthException, InvalidDicomError, *archives.FAILURES,
    )  # fmt: skip


def _begins_data_set(head: bytes) -> bool:
    if len(head) < 8:
        return False
    for order in "<", ">":
        group, element = struct.unpack(f"{order}HH", head[:4])
        if element in _FIRST_ELEMENTS.get(group, ()):
            if head[4:6] in _FIRST_VRS:
                return True
            (length,) = struct.unpack("<I", head[4:8])
            return order == "<" and length % 2 == 0 and length <= _LONGEST_FIRST_VALUE
    return False
