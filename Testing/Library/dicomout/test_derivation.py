"""What a derived object says of itself, within the lengths and characters of DICOM."""

from __future__ import annotations

import pytest
from pydicom import Dataset

from MedEnhanceLib.core.origin import Lossy
from MedEnhanceLib.io.dicomout import Derivation
from MedEnhanceLib.io.dicomout.derivation import NOTICE

MODEL = {"name": "mr", "version": "0.2", "sha256": "ab" * 32}


def applied(derivation: Derivation, **elements: object) -> Dataset:
    dataset = Dataset()
    for keyword, value in elements.items():
        setattr(dataset, keyword, value)
    derivation.apply(dataset)
    return dataset


def test_a_long_text_is_cut_before_the_notice() -> None:
    text = Derivation("enhanced", "x" * 3000, MODEL).text()
    assert len(text) <= 1024
    assert text.endswith(NOTICE)
    assert "mr" in text


@pytest.mark.parametrize(
    ("earlier", "expected"),
    [
        ("T1 axial", "T1 axial MedEnhance enhanced"),
        ("", "MedEnhance enhanced"),
        ("x" * 64, "x" * 44 + " MedEnhance enhanced"),
        ("T1 MedEnhance enhanced", "T1 MedEnhance enhanced"),
        ("T1 MedEnhance decompressed MedEnhance converted", "T1 MedEnhance enhanced"),
        ("ä" * 64, "ä" * 22 + " MedEnhance enhanced"),  # some readers count bytes
    ],
)
def test_a_series_description_keeps_64_characters(earlier: str, expected: str) -> None:
    assert Derivation("enhanced").series_text(earlier) == expected
    assert len(expected.encode()) <= 64


def test_a_requested_series_description_wins() -> None:
    assert Derivation("enhanced", series_description="mine").series_text("T1") == "mine"
    odd = Derivation("enhanced", series_description="a\\b\nc\x01 ")
    assert odd.series_text("T1") == "a b c"
    assert Derivation("enhanced", series_description=" ").series_text("T1").startswith("T1 ")


@pytest.mark.parametrize(
    "step",
    [
        "a gap was filled [Doe_Jane_002.dcm → Doe_Jane_003.dcm]",
        "enhanced with Doe_Jane.nii.gz",
        "resampled from /data/Doe_Jane/ct.nii",
        "resampled from C:\\data\\Doe_Jane\\ct",
        "resampled, as one slice (Doe_Jane_003.dcm) is off",
    ],
)
def test_names_of_files_are_left_out(step: str) -> None:
    derivation = Derivation("enhanced", step, history=(step, "3 tiles at 0.5 Bq/ml"))
    assert "Jane" not in derivation.text()
    assert "?" not in derivation.text()
    assert "3 tiles at 0.5 Bq/ml" in derivation.text()


@pytest.mark.parametrize(
    ("derivation", "expected"),
    [
        (Derivation("enhanced"), ["110001"]),
        (Derivation("enhanced", lossy=(Lossy("ucv", 2),)), ["110001", "113040"]),
        (Derivation("segmented"), ["113076"]),
        (Derivation("decompressed", lossy=(Lossy("ucv", 2),)), ["113040"]),
        (Derivation("enhanced", history=("resampled to 1 mm",)), ["110001", "113085"]),
        (Derivation("converted"), []),
        (Derivation("converted", history=("DERIVED: resampled within the slices",)), ["113085"]),
    ],
)
def test_codes_state_the_kind_of_derivation(derivation: Derivation, expected: list[str]) -> None:
    found = applied(derivation).get("DerivationCodeSequence") or []
    assert [item.CodeValue for item in found] == expected


def test_lossy_steps_are_added_to_the_sources_own_once() -> None:
    source = {
        "LossyImageCompression": "01",
        "LossyImageCompressionRatio": 8,
        "LossyImageCompressionMethod": "ISO_10918_1",
    }
    steps = (Lossy("ISO_10918_1", 8.0), Lossy("ucv-fixed-ratio-64", 64.0))
    dataset = applied(Derivation("enhanced", lossy=steps), **source)
    assert list(dataset.LossyImageCompressionMethod) == ["ISO_10918_1", "UCV_FIXED_RATIO_"]
    assert list(dataset.LossyImageCompressionRatio) == [8, 64]
    dataset = applied(Derivation("enhanced"), LossyImageCompression="01")
    assert dataset.LossyImageCompression == "01"
    assert "LossyImageCompression" not in applied(Derivation("enhanced"))
    unknown = applied(Derivation("enhanced", lossy=(Lossy("", 1.0),)))
    assert unknown.LossyImageCompression == "01"
    assert "LossyImageCompressionMethod" not in unknown
    assert "LossyImageCompressionRatio" not in unknown
    steps = (Lossy("", 1.0), Lossy("ucv", 20.0))
    derivation = Derivation("enhanced", lossy=steps)
    assert applied(derivation).LossyImageCompressionMethod == "UCV"
    assert "ucv 20:1" in derivation.text()
