"""Lossy compression that a header or an encoding tells of."""

from __future__ import annotations

from typing import Any

import pytest

from MedEnhanceLib.core.origin import Lossy
from MedEnhanceLib.io.dicom.elements import lossy_steps

PLAIN, JPEG, JPEG_2000 = "1.2.840.10008.1.2.1", "1.2.840.10008.1.2.4.50", "1.2.840.10008.1.2.4.91"


@pytest.mark.parametrize(
    ("header", "syntax", "size", "expected"),
    [
        ({}, PLAIN, 1100, ()),
        ({"LossyImageCompression": "00"}, JPEG_2000, 100, ()),
        ({}, JPEG, 100, (Lossy("ISO_10918_1", 10.0),)),
        ({"LossyImageCompression": "01"}, JPEG_2000, 100, (Lossy("ISO_15444_1", 10.0),)),
        # It lies uncompressed by now, behind a header: nobody knows what the ratio was.
        ({"LossyImageCompression": "01"}, PLAIN, 2300, (Lossy("", 1.0),)),
        (
            {
                "LossyImageCompression": "01",
                "LossyImageCompressionMethod": "ISO_10918_1",
                "LossyImageCompressionRatio": 8,
            },
            JPEG_2000,
            100,
            (Lossy("ISO_10918_1", 8.0),),
        ),
    ],
)
def test_ratio_and_method_are_told_or_come_from_the_encoding(
    header: dict[str, Any], syntax: str, size: int, expected: tuple[Lossy, ...]
) -> None:
    assert lossy_steps(header, syntax, 1000.0, size) == expected
