"""The b-value and direction of a diffusion image, from the elements that its manufacturer fills.

Standard elements come first. Private ones are read only if their block has the creator that is
known for them, or has lost it (`is_of`). Coordinates of directions: the standard,
Siemens and Philips use those of the patient, UIH the axes of the image, GE and Canon those of their
gradients.
"""

from __future__ import annotations

import functools
import math
import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import numpy as np

from MedEnhanceLib.core.geometry import Vector
from MedEnhanceLib.io.dicom.csa import read_csa
from MedEnhanceLib.io.dicom.structure import DamagedError

Header = Mapping[str | int, Any]
#: GE adds multiples of this to a b-value.
_GE_OFFSET = 1e9
#: GE scales directions for lower b-values: shorter ones than this are scaled.
_FULL_LENGTH = 0.97
_CANON = re.compile(r"b=\d+\((-?\d\.\d+),(-?\d\.\d+),(-?\d\.\d+)\)")
_CSA, _CSA_CREATOR = 0x00291010, "SIEMENS CSA HEADER"


def _in_patient(vector: Vector, _header: Header) -> Vector | None:
    return vector


def _in_image(vector: Vector, header: Header) -> Vector | None:
    """Convert a direction along (row, column, normal) to LPS; None without an orientation."""
    cosines = _numbers(header.get("ImageOrientationPatient"))
    if len(cosines) != 6:
        return None
    row, column = np.array(cosines[:3]), np.array(cosines[3:])
    return tuple((np.column_stack([row, column, np.cross(row, column)]) @ vector).tolist())


def _in_gradients(vector: Vector, header: Header) -> Vector | None:
    """Convert GE's axes to LPS; None except for axial slices of a patient supine, head first."""
    cosines = _numbers(header.get("ImageOrientationPatient"))
    is_axial = len(cosines) == 6 and abs(np.cross(cosines[:3], cosines[3:])[2]) > math.sqrt(0.5)
    stated = header.get("InPlanePhaseEncodingDirection"), header.get("PatientPosition")
    if not is_axial or stated != ("COL", "HFS"):
        return None
    return _in_image((-vector[0], -vector[1], vector[2]), header)


#: Where manufacturers keep the b-value: element, creator of its block.
_B_VALUES = (
    (0x0019100C, "SIEMENS MR HEADER"),
    (0x00431039, "GEMS_PARM_01"),
    (0x20011003, "Philips Imaging DD 001"),
    (0x00651009, "Image Private Header"),
)
#: Where they keep the direction: elements, creator, and the function that converts it to LPS.
_DIRECTIONS: tuple[tuple[tuple[int, ...], str, Callable[[Vector, Header], Vector | None]], ...] = (
    ((0x0019100E,), "SIEMENS MR HEADER", _in_patient),
    ((0x001910BB, 0x001910BC, 0x001910BD), "GEMS_ACQU_01", _in_gradients),
    ((0x200510B0, 0x200510B1, 0x200510B2), "Philips MR Imaging DD 001", _in_patient),
    ((0x00651037,), "Image Private Header", _in_image),
)
_PRIVATE = (
    *(tag for tag, _ in _B_VALUES), *(tag for tags, *_ in _DIRECTIONS for tag in tags), _CSA,
)  # fmt: skip


def _creator(tag: int) -> int:
    """Return the element that names the creator of the first private block of a group."""
    return tag & 0xFFFF0000 | 0x10


#: What is read of a header besides the standard's elements.
ELEMENTS: tuple[str | int, ...] = (
    *_PRIVATE, *{_creator(tag) for tag in _PRIVATE}, "InPlanePhaseEncodingDirection",
    "PatientPosition", "Manufacturer", "ImageComments",
)  # fmt: skip


def b_value(header: Header, keyword: str) -> str:
    """Return the b-value in s/mm² as text; "" where there is none."""
    value = _numbers(header.get(keyword)) or _private_b_value(header)
    return f"{value[0]:g}" if value else ""


def _private_b_value(header: Header) -> Vector:
    for tag, creator in _B_VALUES:
        if value := _private(header, (tag,), creator)[:1]:
            ge_tag, ge_creator, _ = _DIRECTIONS[1]
            vector = _private(header, ge_tag, ge_creator) if creator == "GEMS_PARM_01" else ()
            length = math.hypot(*vector)
            scale = length**2 if 0.03 < length < _FULL_LENGTH else 1.0
            return (round(value[0] % _GE_OFFSET * scale, 3),)
    return _csa_numbers(header, "B_value")[:1]


def direction(header: Header, keyword: str) -> Vector | None:
    """Read the direction of the gradient, a unit vector in LPS.

    Returns None if there is none, or if the coordinates of a private one are unknown.
    """
    vector: Vector | None = _numbers(header.get(keyword)) or _csa_numbers(
        header, "DiffusionGradientDirection"
    )
    for tags, creator, to_patient in _DIRECTIONS:
        if not vector:
            private = _private(header, tags, creator)
            vector = to_patient(private, header) if len(private) == 3 else None
    vector = vector or _comment_direction(header)
    length = math.hypot(*vector) if vector and len(vector) == 3 else 0.0
    return tuple(part / length for part in vector) if vector and length > 0.03 else None


def _comment_direction(header: Header) -> Vector | None:
    """Read Canon's "b=1500(0.895,0.000,0.445)", along phase, frequency and slice."""
    comment = _CANON.fullmatch(str(header.get("ImageComments") or "").strip())
    if comment is None or not str(header.get("Manufacturer")).upper().startswith("CANON"):
        return None
    phase, frequency, normal = map(float, comment.groups())
    in_image = {"COL": (-frequency, -phase, normal), "ROW": (phase, -frequency, -normal)}
    vector = in_image.get(str(header.get("InPlanePhaseEncodingDirection")))
    return _in_image(vector, header) if vector else None


def _private(header: Header, tags: tuple[int, ...], creator: str) -> Vector:
    """Return the numbers of private elements of a block; () if it has another creator."""
    if not is_of(creator, header, tags[0]):
        return ()
    return sum((_numbers(header.get(tag)) for tag in tags), ())


def is_of(creator: str, header: Header, tag: int) -> bool:
    """Return whether a private block has a creator, or lost one of the scanner's manufacturer.

    Programs that remove patient data leave such blocks of Siemens and Philips.

    Args:
        creator: its name.
        header: with the element of the creator, and Manufacturer.
        tag: of an element of the block.
    """
    stated = str(header.get(_creator(tag)) or "").strip()
    maker = str(header.get("Manufacturer")).upper().partition(" ")[0]
    return stated == creator or (not stated and creator.upper().startswith(f"{maker} "))


def _csa_numbers(header: Header, name: str) -> Vector:
    data = header.get(_CSA)
    is_stated = is_of(_CSA_CREATOR, header, _CSA)
    return _numbers(_csa(data).get(name)) if is_stated and isinstance(data, bytes) else ()


@functools.lru_cache(maxsize=1)
def _csa(data: bytes) -> dict[str, tuple[str, ...]]:
    try:
        return read_csa(data)
    except DamagedError:  # of another program, or cut: the image itself is as it was
        return {}


def _numbers(value: Any) -> Vector:
    """Return the finite numbers of an element; () if it is absent or holds anything else.

    Bytes are read as text or as binary numbers: the file does not state the type of the element.
    """
    if value is None or value == "":
        return ()
    if isinstance(value, bytes):
        text = value.strip(b"\0 ")
        if text.translate(None, b"0123456789.+-eE\\ "):
            size = 8 if len(value) % 8 == 0 else 4
            value = np.frombuffer(value, f"<f{size}").tolist() if len(value) % size == 0 else ()
        else:
            value = text.decode("ascii").split("\\")
    parts = value if isinstance(value, Iterable) and not isinstance(value, str) else (value,)
    try:
        numbers = tuple(float(part) for part in parts)
    except (TypeError, ValueError, OverflowError):
        return ()
    return numbers if all(map(math.isfinite, numbers)) else ()
