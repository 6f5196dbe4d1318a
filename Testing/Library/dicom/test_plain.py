"""Headers read without pydicom are those that pydicom reads, in good files and in odd ones."""

from __future__ import annotations

import random
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pydicom
import pydicom.data
import pytest
from Library.dicom.damage import damaged
from pydicom import Dataset
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ImplicitVRLittleEndian,
)

from MedEnhanceLib.io.dicom import headers, structure
from MedEnhanceLib.io.dicom.headers import read_header

_PACKAGED = Path(pydicom.data.__file__).parent / "test_files"
_SMALL = _PACKAGED / "CT_small.dcm"
_FILES = ("CT_small.dcm", "MR_small.dcm", "MR_small_RLE.dcm", "693_J2KI.dcm")


@pytest.fixture
def both(monkeypatch: pytest.MonkeyPatch) -> Callable[[Path], tuple[bool, list[Any]]]:
    """Whether a header was read without pydicom; and what was read, and what pydicom reads."""
    read = structure.read_plain

    def compare(file: Path) -> tuple[bool, list[Any]]:
        is_plain: list[bool] = []

        def noted(*given: Any) -> Any:
            answer = read(*given)
            is_plain.append(answer is not None)
            return answer

        results: list[Any] = []
        for reader in (noted, lambda *_: None):
            monkeypatch.setattr(structure, "read_plain", reader)
            results.append(repr(read_header(file)))  # in which nan equals nan
        return any(is_plain), results

    return compare


def _save(change: Callable[[Dataset], object], file: Path) -> Path:
    dataset = pydicom.dcmread(_SMALL)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        change(dataset)
        syntax = dataset.file_meta.TransferSyntaxUID
        pydicom.dcmwrite(
            file,
            dataset,
            implicit_vr=syntax.is_implicit_VR,
            little_endian=syntax.is_little_endian,
            force_encoding=True,
        )
    return file


def _encoded(syntax: str) -> Callable[[Dataset], None]:
    def change(dataset: Dataset) -> None:
        dataset.file_meta.TransferSyntaxUID = syntax

    return change


def _set(**elements: Any) -> Callable[[Dataset], None]:
    return lambda dataset: [setattr(dataset, *each) for each in elements.items()]  # type: ignore


def _endless(*, charset: str = "", inner: bool = False) -> Callable[[Dataset], None]:
    """A sequence of undefined length, with items of which one has a defined length."""

    def change(dataset: Dataset) -> None:
        items = [Dataset(), Dataset(), Dataset()]
        for number, item in enumerate(items):
            item.ReferencedSOPInstanceUID = f"1.2.{number}"
            item.is_undefined_length_sequence_item = number != 1
            if charset:
                item.SpecificCharacterSet = charset
            if inner:
                item.PurposeOfReferenceCodeSequence = [Dataset()]
                item["PurposeOfReferenceCodeSequence"].is_undefined_length = True
        dataset.ReferencedImageSequence = items
        dataset["ReferencedImageSequence"].is_undefined_length = True

    return change


#: What is odd → whether its header is plain all the same.
_ODD: dict[str, tuple[Callable[[Dataset], Any], bool]] = {
    "nothing": (_set(), True),
    "values are empty": (_set(SliceThickness=None, SeriesDescription="", KVP=None), True),
    "values repeat": (_set(EchoTime=["1", "2"], ImageType=["DERIVED", "", " A"]), True),
    "Latin": (_set(SpecificCharacterSet="ISO_IR 100", StudyDescription="Schädel"), True),
    "Unicode": (_set(SpecificCharacterSet="ISO_IR 192", StudyDescription="頭部"), True),
    "a character set that switches": (
        _set(SpecificCharacterSet=["", "ISO 2022 IR 87"], StudyDescription="頭部"),
        False,
    ),
    "an unknown character set": (_set(SpecificCharacterSet="ISO_IR 999"), False),
    "implicit": (_encoded(ImplicitVRLittleEndian), False),
    "big endian": (_encoded(ExplicitVRBigEndian), False),
    "deflated": (_encoded(DeflatedExplicitVRLittleEndian), False),
    "a sequence without length": (_endless(), True),
    "sequences without length in it": (_endless(inner=True), True),
    "another character set in a sequence": (_endless(charset="ISO_IR 192"), False),
    "a lookup table": (_set(ModalityLUTSequence=[Dataset()]), False),
    "made by MedEnhance": (_set(ContributingEquipmentSequence=[Dataset()]), False),
    "many frames": (_set(NumberOfFrames=2), True),
    "one frame": (_set(NumberOfFrames=1), True),
    "another class in the file meta": (
        lambda dataset: setattr(dataset.file_meta, "MediaStorageSOPClassUID", "1.2.3"),
        True,
    ),
    "a media directory": (
        lambda dataset: setattr(
            dataset.file_meta, "MediaStorageSOPClassUID", headers._MEDIA_DIRECTORY
        ),
        True,
    ),
    "no rows": (lambda dataset: delattr(dataset, "Rows"), True),
    "rows that are no number": (lambda dataset: dataset.add_new("Rows", "LO", "many"), True),
    "a long value": (_set(ContrastBolusAgent="x" * 400), True),
    "a private element of unknown kind": (
        lambda dataset: dataset.add_new(0x0019100A, "UN", b"\x04\0"),
        True,
    ),
    "a header of more than a buffer": (
        lambda dataset: dataset.add_new(0x00291010, "OB", bytes(100_000)),
        True,
    ),
    "no pixels": (lambda dataset: delattr(dataset, "PixelData"), True),  # trailing padding follows
}


@pytest.mark.parametrize("odd", _ODD)
def test_an_odd_header_is_read_as_pydicom_reads_it(
    odd: str, both: Callable[[Path], tuple[bool, list[Any]]], tmp_path: Path
) -> None:
    change, expected = _ODD[odd]
    is_plain, (ours, theirs) = both(_save(change, tmp_path / "odd.dcm"))
    assert ours == theirs
    assert is_plain is expected


@pytest.mark.parametrize("count", [150, pytest.param(600, marks=pytest.mark.slow)])
def test_a_damaged_header_is_read_as_pydicom_reads_it(
    count: int, both: Callable[[Path], tuple[bool, list[Any]]], tmp_path: Path
) -> None:
    draw, file, plain = random.Random(0), tmp_path / "a.dcm", 0
    contents = [(_PACKAGED / name).read_bytes()[:9000] for name in _FILES]
    for number in range(count):
        content = damaged(draw.choice(contents), draw.choice(contents), draw)
        file.write_bytes(content)
        is_plain, (ours, theirs) = both(file)
        assert ours == theirs, number
        plain += is_plain
    assert count // 5 < plain < count


def test_all_files_that_come_with_pydicom_are_read_as_it_reads_them(
    both: Callable[[Path], tuple[bool, list[Any]]],
) -> None:
    files = [file for file in _PACKAGED.rglob("*") if file.is_file()]
    compared = {file: both(file) for file in files}
    assert [file for file, (_plain, (ours, theirs)) in compared.items() if ours != theirs] == []
    assert sum(is_plain for is_plain, _results in compared.values()) > 30
