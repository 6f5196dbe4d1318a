"""Headers are read with all that is needed later, and what is damaged is named, never dropped."""

from __future__ import annotations

import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from MedEnhanceLib.core.origin import Lossy
from MedEnhanceLib.errors import Cancelled, InputError
from MedEnhanceLib.io.dicom import is_dicom, list_series, listing, load_dicom
from MedEnhanceLib.io.dicom.headers import Header, read_header
from MedEnhanceLib.io.dicom.slices import lossy_steps, plain
from MedEnhanceLib.runtime.progress import Monitor

if TYPE_CHECKING:
    from Testing.Library.conftest import Make, WarningRecorder

pydicom = pytest.importorskip("pydicom")

STORED = np.random.default_rng(5).integers(0, 2000, (5, 4, 6)).astype(np.uint16)


def header_of(path: Path) -> Header:
    found = read_header(path)
    assert found is not None
    return found


def test_characters_that_steer_a_terminal_are_left_out(make_series: Make) -> None:
    folder = make_series(STORED, SeriesDescription="a\x07b\x0cc", StudyDescription="d\x9be")
    found = header_of(folder / "001.dcm")
    assert found.description == "a b c"
    assert found.study_description.isprintable()
    assert plain("\x1b]0;title\x07 \u202ex 山\u3000田") == " ]0;title   x 山\u3000田"


def test_an_image_without_preamble_and_meta_header_is_read(
    make_series: Make, tmp_path: Path
) -> None:
    file = make_series(STORED) / "003.dcm"
    truth = load_dicom(file, monitor=Monitor())
    dataset = pydicom.Dataset(pydicom.dcmread(file))
    for implicit in (True, False):
        bare = tmp_path / f"bare{implicit}.dcm"
        dataset.save_as(bare, implicit_vr=implicit, little_endian=True)
        assert bare.read_bytes()[:2] == b"\x08\x00"
        assert is_dicom(bare)
        assert load_dicom(bare, monitor=Monitor()).is_equal(truth)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\x08\x00\x05\x00CS\x0a\x00ISO_IR 100",  # begins right, and holds nothing
        b"\x08\x00\x00\x00\x04\x00\x00\x00" + b"\xff" * 300,
        b"\x02\x00\x00\x00UL\x04\x00\x00\x00\x00\x00" * 30,
        b"\0" * 500,
        b"x" * 100_000,
        b"\x89PNG\r\n\x1a\n" + b"\0" * 400,
    ],
)
def test_no_file_that_is_no_dicom_hurts(
    make_series: Make, content: bytes, recorder: WarningRecorder
) -> None:
    folder = make_series(STORED)
    (folder / "other").write_bytes(content)
    assert load_dicom(folder, monitor=recorder.monitor).shape == (5, 4, 6)


def damage_header(file: Path) -> None:
    """Its RescaleSlope is no number any more; UIDs and all else remain."""
    data = file.read_bytes()
    place = data.index(b"\x28\x00\x53\x10DS") + 8
    file.write_bytes(data[:place] + b"x?" + data[place + 2 :])


def test_a_damaged_header_makes_its_series_unreadable_and_no_other(
    make_series: Make, recorder: WarningRecorder
) -> None:
    make_series(STORED, prefix="a")
    folder = make_series(STORED, prefix="b", uid="1.2.3.2", number=2, Modality="MR")
    damage_header(folder / "b001.dcm")  # the last by position: no gap would show it
    good, bad = list_series(folder, Monitor())
    assert (good.uid, good.readable) == ("1.2.3.1", True)
    assert (bad.uid, bad.readable) == ("1.2.3.2", False)
    assert "b001.dcm" in bad.reason
    assert load_dicom(folder, series="1.2.3.1", monitor=recorder.monitor).shape == (5, 4, 6)
    with pytest.raises(InputError, match=r"b001\.dcm: .*RescaleSlope") as caught:
        load_dicom(folder, series="1.2.3.2", monitor=Monitor())
    assert "remove it" in caught.value.hint


PLAIN, JPEG, JPEG_2000 = "1.2.840.10008.1.2.1", "1.2.840.10008.1.2.4.50", "1.2.840.10008.1.2.4.91"


@pytest.mark.parametrize(
    ("header", "syntax", "expected"),
    [
        ({}, PLAIN, ()),
        ({"LossyImageCompression": "00"}, JPEG_2000, ()),
        ({}, JPEG, (Lossy("ISO_10918_1", 1.0),)),
        ({"LossyImageCompression": "01"}, JPEG_2000, (Lossy("ISO_15444_1", 1.0),)),
        ({"LossyImageCompression": "01"}, PLAIN, (Lossy("", 1.0),)),
    ],
)
def test_lossy_methods_are_stated_or_come_from_the_encoding(
    header: dict[str, Any], syntax: str, expected: tuple[Lossy, ...]
) -> None:
    assert lossy_steps(header, syntax) == expected


def test_cancel_does_not_wait_for_a_header(
    make_series: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = make_series(np.zeros((3, 4, 5), np.uint16))
    stop, answered = threading.Event(), threading.Event()
    read = listing.read_header

    def stuck(file: Path) -> Header | None:
        stop.set()
        answered.wait(20)  # as a share on the network that does not answer
        return read(file)

    monkeypatch.setattr(listing, "read_header", stuck)
    began = time.monotonic()
    try:
        with pytest.raises(Cancelled):
            load_dicom(folder, monitor=Monitor(cancel=stop))
        assert time.monotonic() - began < 2
    finally:
        answered.set()
