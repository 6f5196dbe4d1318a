"""The private header of Siemens: both versions, and bytes that are none."""

from __future__ import annotations

import struct

import pytest

from MedEnhanceLib.io.dicom.csa import read_csa
from MedEnhanceLib.io.dicom.structure import DamagedError

ELEMENTS = {"B_value": ("1000",), "DiffusionGradientDirection": ("0.5", "-.5", ".7"), "Empty": ()}


def csa(elements: dict[str, tuple[str, ...]], *, version: int = 2) -> bytes:
    """A header as the scanners write it: six items for each element, most of them empty."""
    data = b"SV10\4\3\2\1" if version == 2 else b""
    data += struct.pack("<2I", len(elements), 77)
    for name, values in elements.items():
        data += struct.pack("<64si4s3i", name.encode(), len(values), b"FD", 4, 6, 77)
        for value in (*values, *[""] * (6 - len(values))):
            text = f"{value}\0".encode() if value else b""
            length = len(text) if version == 2 else len(text) + 6
            data += struct.pack("<4i", length, len(text), 77, length)
            data += text.ljust(-(-len(text) // 4) * 4, b"\0")
    return data


@pytest.mark.parametrize("version", [1, 2])
def test_both_versions_give_the_values_of_each_element(version: int) -> None:
    assert read_csa(csa(ELEMENTS, version=version)) == ELEMENTS


@pytest.mark.parametrize("version", [1, 2])
def test_a_header_that_is_cut_anywhere_is_an_error(version: int) -> None:
    whole = csa(ELEMENTS, version=version)
    for length in range(0, len(whole) - 3, 5):
        with pytest.raises(DamagedError, match="CSA header"):
            read_csa(whole[:length])


@pytest.mark.parametrize("items", [-1, 2**31 - 1])
def test_impossible_numbers_end_with_the_data(items: int) -> None:
    element = struct.pack("<64si4s3i", b"Rows", 1, b"IS", 4, items, 77)
    data = b"SV10\4\3\2\1" + struct.pack("<2I", 1, 77) + element
    if items < 0:
        assert read_csa(data) == {"Rows": ()}
    else:
        with pytest.raises(DamagedError):
            read_csa(data + bytes(1000))
