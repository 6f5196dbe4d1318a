"""What lies at a path: rows of volumes, then what is none, with the reason.

Headers are read with all that is needed later; copies are counted, contradictions refused.
"""

from __future__ import annotations

import re
import shutil
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
from Library.conftest import Make, WarningRecorder
from Library.dicom.reading import edited, refused

from MedEnhanceLib import list_series
from MedEnhanceLib.core.origin import Lossy
from MedEnhanceLib.errors import Cancelled, GeometryError, InputError
from MedEnhanceLib.io import load
from MedEnhanceLib.io.dicom import listing
from MedEnhanceLib.io.dicom.decoders import PixelFile
from MedEnhanceLib.io.dicom.headers import read_header
from MedEnhanceLib.io.dicom.listing import SeriesRow
from MedEnhanceLib.io.dicom.slices import lossy_steps, plain
from MedEnhanceLib.io.dicom.sources import is_dicom
from MedEnhanceLib.runtime.progress import Monitor

STORED = np.random.default_rng(5).integers(0, 2000, (5, 4, 6)).astype(np.uint16)
CLASSES = "1.2.840.10008.5.1.4.1.1."
NO_PIXELS = {"Rows": None, "Columns": None, "PixelData": None, "ImagePositionPatient": None}


def test_rows_say_what_a_user_chooses_by(make_series: Make) -> None:
    more = {"PatientID": "p1", "StudyDescription": "thorax", "SeriesDate": "20200304"}
    make_series(STORED, prefix="a", number=3, **more)
    make_series(STORED[:2], prefix="b", uid="1.2.3.2", number=1, Modality="MR")
    contours = {"SOPClassUID": f"{CLASSES}481.3", "Modality": "RTSTRUCT", **NO_PIXELS}
    folder = make_series(STORED[:1], prefix="c", uid="1.2.3.3", number=2, **contours)
    first, second, third = list_series(folder)
    about = (1, "1.2.3.2", "", "MR", "axial", "6×4×2", 2, "", "", "", True, "")
    assert first == SeriesRow(*about, series_number="1")
    assert (second.uid, second.size, second.files) == ("1.2.3.1", "6×4×5", 5)
    assert (second.date, second.patient, second.study) == ("2020-03-04", "p1", "thorax")
    assert (third.uid, third.modality, third.size, third.readable) == (
        "1.2.3.3", "RTSTRUCT", "", False,
    )  # fmt: skip
    assert third.reason == "an RT structure set: contours drawn on images, not the images"


@pytest.mark.parametrize(
    ("sop_class", "says"),
    [
        (f"{CLASSES}66.4", "a segmentation"),
        (f"{CLASSES}88.33", "Comprehensive SR Storage: it holds no image"),
        (f"{CLASSES}481.2", "an RT dose"),
        (f"{CLASSES}481.3", "contours drawn on images"),
        (f"{CLASSES}30", "parametric map"),
        ("1.2.276.1.2.3", "OT: it holds no image"),
    ],
)
def test_an_object_that_is_no_image_says_what_it_is(
    make_series: Make, sop_class: str, says: str
) -> None:
    folder = make_series(STORED[:1], SOPClassUID=sop_class, Modality="OT", **NO_PIXELS)
    for path in (folder, folder / "001.dcm"):
        refused(path, says)


def test_a_color_picture_beside_a_volume_does_not_ask(
    make_series: Make, recorder: WarningRecorder
) -> None:
    make_series(STORED, prefix="a")
    color = {"SamplesPerPixel": 3, "PhotometricInterpretation": "RGB"}
    folder = make_series(STORED[:1], prefix="b", uid="1.2.3.2", **color)
    assert load(folder, monitor=recorder.monitor).shape == (5, 4, 6)
    assert any("are not image volumes: 1 × CT Image Storage" in one for one in recorder.warnings)


def test_origin_names_the_images_in_the_order_of_the_slices(make_series: Make) -> None:
    folder = make_series(STORED)
    origin = load(folder).dicom_origin
    assert origin is not None
    assert (origin.study, origin.series, origin.on_grid) == ("1.2.3", "1.2.3.1", True)
    (slices,) = origin.instances
    assert [one.sop_instance for one in slices] == [f"1.2.3.1.{k}" for k in range(1, 6)]
    assert [one.file for one in slices] == [str(folder / f"00{k}.dcm") for k in (5, 4, 3, 2, 1)]
    assert {one.sop_class for one in slices} == {"1.2.840.10008.5.1.4.1.1.2"}
    assert {one.frame for one in slices} == {None}


def test_origin_of_a_repaired_series_is_off_its_grid(make_series: Make) -> None:
    folder = make_series(STORED)
    (folder / "003.dcm").unlink()
    with pytest.raises(GeometryError):
        load(folder)
    volume = load(folder, resample=True)
    assert volume.shape == (5, 4, 6)
    assert volume.dtype == np.int16
    assert np.array_equal(volume.voxels[[0, 1, 3, 4]], STORED[[0, 1, 3, 4]].astype(np.int16) - 1024)
    assert volume.dicom_origin is not None
    assert not volume.dicom_origin.on_grid
    assert len(volume.dicom_origin.instances[0]) == 4
    assert volume.history


def test_lossy_steps_are_remembered_with_the_worst_ratio(make_series: Make) -> None:
    folder = make_series(
        STORED,
        LossyImageCompression="01",
        LossyImageCompressionMethod=["ISO_10918_1"],
        slice_elements=lambda k: {"LossyImageCompressionRatio": [5.0 + k]},
    )
    assert load(folder).lossy == (Lossy("ISO_10918_1", 9.0),)
    assert load(make_series(STORED, folder=folder / "b")).lossy == ()


def test_copies_below_are_left_out_and_counted(
    make_series: Make, tmp_path: Path, recorder: WarningRecorder
) -> None:
    folder = make_series(STORED)
    truth = load(folder)
    shutil.copytree(folder, tmp_path / "copy")
    assert load(tmp_path, monitor=recorder.monitor).is_equal(truth)
    (warning,) = recorder.warnings
    assert "5 files are copies" in warning
    assert "001.dcm" in warning
    (row,) = list_series(tmp_path)
    assert row.readable and row.files == 10


@pytest.mark.parametrize(
    ("element", "value"), [("PixelData", bytes(48)), ("ImagePositionPatient", [0, 0, 99])]
)
def test_a_copy_that_differs_is_refused_by_name(
    make_series: Make, element: str, value: object
) -> None:
    folder = make_series(STORED)
    dataset = pydicom.dcmread(folder / "002.dcm")
    setattr(dataset, element, value)
    dataset.save_as(folder / "z.dcm")
    says = r"002\.dcm.*z\.dcm.*have the same SOPInstanceUID, but differ"
    with pytest.raises(InputError, match=says):
        load(folder)
    (row,) = [row for row in list_series(folder) if re.search(says, row.reason)]
    assert not row.readable and row.files == 6


def test_uids_that_a_deidentifier_made_equal_are_named_with_the_remedy(make_series: Make) -> None:
    folder = make_series(STORED, slice_elements=lambda index: {"SOPInstanceUID": "1.2.3.4"})
    (row,) = list_series(folder)
    assert row.size == "6×4×5"
    remedy = refused(folder, "5 different images share 1 SOPInstanceUID")
    assert "De-identify the originals again" in remedy


@pytest.mark.parametrize(
    ("last", "sizes"),
    [
        ({}, ["6×4×5×3 frames"]),
        ({"SeriesTime": "1301"}, ["6×4×5×2 frames", "6×4×5"]),
        ({"SeriesDescription": "again"}, ["6×4×5×2 frames", "6×4×5"]),
        ({"NumberOfTemporalPositions": 1}, ["6×4×5×2 frames", "6×4×5"]),
        ({"ImageType": ["ORIGINAL", "PRIMARY", "P"]}, ["6×4×5×2 frames", "6×4×5"]),
        ({"AcquisitionNumber": 1}, ["6×4×5"] * 3),
    ],
)
@pytest.mark.parametrize("step", [0, 1])
def test_frames_with_a_series_uid_each_are_offered_as_one_scan(
    make_series: Make, recorder: WarningRecorder, last: dict[str, Any], sizes: list[str], step: int
) -> None:
    scan: dict[str, Any] = {
        "Modality": "MR", "SeriesTime": "1300", "NumberOfTemporalPositions": 3,
        "ImageType": ["ORIGINAL", "PRIMARY", "M"],
    }  # fmt: skip
    for t in range(3):
        own = {"number": 5001 + step * t, "AcquisitionNumber": t + 1, "prefix": f"{t}-"}
        own |= scan | (last if t == 2 else {})
        folder = make_series(STORED + 100 * t, uid=f"1.2.3.{t}", **own)
    rows = list_series(folder)
    assert [row.size for row in rows] == sizes
    if not last:
        assert rows[0].part == "3 series"
        volume = load(folder, monitor=recorder.monitor)
        later = (volume.voxels - volume.voxels[0]).reshape(3, -1)
        assert later.min(axis=1).tolist() == later.max(axis=1).tolist() == [0, 100, 200]
        assert any("3 series of one scan" in warning for warning in recorder.warnings)


def test_every_frame_of_a_sequence_is_repaired(make_series: Make) -> None:
    folder = make_series(
        np.repeat(np.arange(8, dtype=np.uint16), 6).reshape(8, 2, 3),
        positions=[(0.0, 0.0, z) for z in [0.0, 2.0, 6.0, 8.0] * 2],
        slice_elements=lambda index: {"EchoNumbers": index // 4},
        RescaleIntercept=0,
    )
    volume = load(folder, resample=True)
    assert volume.shape == (2, 5, 2, 3)
    assert volume.voxels[:, [0, 1, 3, 4], 0, 0].tolist() == [[0, 1, 2, 3], [4, 5, 6, 7]]


def test_characters_that_steer_a_terminal_are_left_out(make_series: Make) -> None:
    folder = make_series(STORED, SeriesDescription="a\x07b\x0cc", StudyDescription="d\x9be")
    (row,) = list_series(folder)
    assert row.description == "a b c"
    assert row.study.isprintable()
    assert plain("\x1b]0;title\x07 \u202ex 山\u3000田") == " ]0;title   x 山\u3000田"


def test_an_image_without_preamble_and_meta_header_is_read(
    make_series: Make, tmp_path: Path
) -> None:
    file = make_series(STORED) / "003.dcm"
    truth = load(file)
    dataset = pydicom.Dataset(pydicom.dcmread(file))
    for implicit in (True, False):
        bare = tmp_path / f"bare{implicit}.dcm"
        dataset.save_as(bare, implicit_vr=implicit, little_endian=True)
        assert bare.read_bytes()[:2] == b"\x08\x00"
        assert is_dicom(bare)
        assert load(bare).is_equal(truth)


@pytest.mark.parametrize(
    ("vr", "value", "is_odd"),
    [
        ("DS", "0.8\\0.5", False),
        ("FD", [0.8, 0.5], False),
        ("LO", "0.8\\0.5", False),
        ("SH", "0.8\\0.5", False),
        ("LT", "0.8\\0.5", True),
        ("UT", "0.8\\0.5", True),
        ("ST", "0.8 \\ 0.5 ", True),
        ("DS", "0.5", True),
        ("UT", "0.5", True),
    ],
)
def test_pixel_spacing_is_read_in_other_forms(
    make_series: Make, recorder: WarningRecorder, vr: str, value: Any, is_odd: bool
) -> None:
    folder = make_series(STORED)
    for dataset in edited(folder):
        del dataset.PixelSpacing
        dataset.add_new("PixelSpacing", vr, value)
    expected = (0.5, 0.8 if "8" in str(value) else 0.5)
    assert load(folder, monitor=recorder.monitor).spacing[:2] == expected
    assert any("PixelSpacing" in text for text in recorder.warnings) == is_odd


@pytest.mark.parametrize("value", ["0,5\\0,5", "0.5\\0.5\\0.5", "0.5\\", "a"])
def test_pixel_spacing_that_is_no_two_numbers_is_refused(make_series: Make, value: str) -> None:
    folder = make_series(STORED)
    for dataset in edited(folder):
        del dataset.PixelSpacing
        dataset.add_new("PixelSpacing", "UT", value)
    refused(folder, "PixelSpacing is")


@pytest.mark.parametrize("implicit", [True, False])
def test_equal_bytes_are_read_as_each_file_means_them(
    make_series: Make, tmp_path: Path, implicit: bool
) -> None:
    dataset = pydicom.Dataset(pydicom.dcmread(make_series(STORED) / "001.dcm"))
    for name, charset, description, vr, padding in (
        ("a", "ISO_IR 100", "\u00c3\u00a9", "US", 64536),
        ("b", "ISO_IR 192", "\u00e9", "SS", -1000),
        ("c", "ISO_IR 100", "\u00c3\u00a9", "US", 64536),
    ):
        dataset.SpecificCharacterSet, dataset.SeriesDescription = charset, description
        dataset.PixelRepresentation = int(vr == "SS")
        dataset.add_new("PixelPaddingValue", vr, padding)
        dataset.save_as(tmp_path / name, implicit_vr=implicit, little_endian=True)
        header = read_header(tmp_path / name)
        assert header is not None
        assert (header.description, header.slices[0].padding) == (description, padding)


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
    assert load(folder, monitor=recorder.monitor).shape == (5, 4, 6)


def test_a_damaged_header_makes_its_series_unreadable_and_no_other(
    make_series: Make, recorder: WarningRecorder
) -> None:
    make_series(STORED, prefix="a")
    folder = make_series(STORED, prefix="b", uid="1.2.3.2", number=2, Modality="MR")
    file = folder / "b001.dcm"  # the last by position: no gap would show it
    data = file.read_bytes()
    place = data.index(b"\x28\x00\x53\x10DS") + 8  # RescaleSlope is no number any more
    file.write_bytes(data[:place] + b"x?" + data[place + 2 :])
    good, bad = list_series(folder)
    assert (good.uid, good.readable) == ("1.2.3.1", True)
    assert (bad.uid, bad.readable) == ("1.2.3.2", False)
    assert "b001.dcm" in bad.reason
    assert load(folder, series="1.2.3.1", monitor=recorder.monitor).shape == (5, 4, 6)
    with pytest.raises(InputError, match=r"b001\.dcm: .*RescaleSlope") as caught:
        load(folder, series="1.2.3.2")
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


@pytest.mark.parametrize(
    ("owner", "step", "slices"),
    [(listing, "read_header", 3), (PixelFile, "frame", 1), (PixelFile, "frame", 40)],
)
def test_cancel_does_not_wait_for_a_header_or_a_slice(
    make_series: Make, monkeypatch: pytest.MonkeyPatch, owner: Any, step: str, slices: int
) -> None:
    folder = make_series(np.zeros((slices, 4, 5), np.uint16))
    stop, answered, ended = threading.Event(), threading.Event(), threading.Event()
    read = getattr(owner, step)

    def stuck(*given: Any) -> Any:
        stop.set()
        answered.wait(30)  # as a share on the network that does not answer
        ended.set()
        return read(*given)

    monkeypatch.setattr(owner, step, stuck)
    try:
        with pytest.raises(Cancelled):
            load(folder, monitor=Monitor(cancel=stop))
        assert not ended.is_set()
    finally:
        answered.set()
