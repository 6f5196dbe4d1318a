"""The table of what lies at a path: volumes first, then what is none, with the reason."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest

from MedEnhanceLib.errors import InputError, MedEnhanceError
from MedEnhanceLib.io.dicom import SeriesRow, list_series, load_dicom
from MedEnhanceLib.runtime.progress import Monitor

if TYPE_CHECKING:
    from Testing.Library.conftest import Make, WarningRecorder

pytest.importorskip("pydicom")

STORED = np.random.default_rng(5).integers(0, 2000, (5, 4, 6)).astype(np.uint16)
CLASSES = "1.2.840.10008.5.1.4.1.1."
NO_PIXELS = {"Rows": None, "Columns": None, "PixelData": None, "ImagePositionPatient": None}


def test_rows_say_what_a_user_chooses_by(make_series: Make) -> None:
    make_series(
        STORED,
        prefix="a",
        number=3,
        PatientID="p1",
        StudyDescription="thorax",
        SeriesDate="20200304",
    )
    make_series(STORED[:2], prefix="b", uid="1.2.3.2", number=1, Modality="MR")
    folder = make_series(
        STORED[:1],
        prefix="c",
        uid="1.2.3.3",
        number=2,
        SOPClassUID=f"{CLASSES}481.3",
        Modality="RTSTRUCT",
        **NO_PIXELS,
    )
    assert list_series(folder, Monitor()) == [
        SeriesRow(1, "1.2.3.2", "", "MR", "axial", "6×4×2", 2, "", "", "", True, ""),
        SeriesRow(
            2, "1.2.3.1", "", "CT", "axial", "6×4×5", 5, "2020-03-04", "p1", "thorax", True, ""
        ),
        SeriesRow(
            3,
            "1.2.3.3",
            "",
            "RTSTRUCT",
            "axial",
            "",
            1,
            "",
            "",
            "",
            False,
            "an RT structure set (RTSTRUCT): contours drawn on images, not the images",
        ),
    ]


def test_numbers_of_the_table_are_those_that_load_takes(make_series: Make) -> None:
    make_series(STORED, prefix="a", number=2)
    folder = make_series(STORED[:3], prefix="b", uid="1.2.3.2", number=1)
    for row in list_series(folder, Monitor()):
        for series in (str(row.number), row.uid, row.key):
            volume = load_dicom(folder, series=series, monitor=Monitor())
            assert f"6×4×{volume.shape[0]}" == row.size


@pytest.mark.parametrize(
    ("sop_class", "says"),
    [
        (f"{CLASSES}66.4", "a segmentation"),
        (f"{CLASSES}66.7", "a label map segmentation"),
        (f"{CLASSES}88.33", "structured report"),
        (f"{CLASSES}88.59", "key object"),
        (f"{CLASSES}481.3", "RTSTRUCT"),
        (f"{CLASSES}481.5", "RT plan"),
        (f"{CLASSES}9.1.1", "waveform"),
        (f"{CLASSES}11.1", "presentation state"),
        (f"{CLASSES}104.1", "encapsulated document"),
        (f"{CLASSES}66", "raw data"),
        (f"{CLASSES}66.1", "registration"),
        (f"{CLASSES}66.5", "surface"),
        (f"{CLASSES}30", "parametric map"),
        (f"{CLASSES}4.2", "spectroscopy"),
        (f"{CLASSES}67", "real-world value"),
        (f"{CLASSES}77.1.6", "whole-slide"),
        ("1.2.840.10008.5.1.4.38.1", "administration"),
        ("1.2.840.10008.1.99", "administration"),
        ("1.2.276.1.2.3", "without pixels"),
    ],
)
def test_an_object_that_is_no_image_says_what_it_is(
    make_series: Make, sop_class: str, says: str
) -> None:
    folder = make_series(STORED[:1], SOPClassUID=sop_class, Modality="OT", **NO_PIXELS)
    (row,) = list_series(folder, Monitor())
    assert not row.readable
    assert says in row.reason
    for path in (folder, folder / "001.dcm"):
        with pytest.raises(InputError, match=says) as caught:
            load_dicom(path, monitor=Monitor())
        assert caught.value.hint


@pytest.mark.parametrize(
    ("sop_class", "says"),
    [
        (f"{CLASSES}1", "computed radiograph"),
        (f"{CLASSES}1.1", "digital X-ray"),
        (f"{CLASSES}1.2.1", "mammogram"),
        (f"{CLASSES}12.1", "angiography"),
        (f"{CLASSES}6.1", "ultrasound"),
        (f"{CLASSES}7", "secondary capture"),
        (f"{CLASSES}481.1", "RT image"),
    ],
)
def test_a_picture_without_a_place_is_no_volume(
    make_series: Make, sop_class: str, says: str
) -> None:
    folder = make_series(STORED[:1], SOPClassUID=sop_class, ImagePositionPatient=None)
    with pytest.raises(InputError, match=says) as caught:
        load_dicom(folder, monitor=Monitor())
    assert "ImagePositionPatient" in caught.value.message
    placed = make_series(STORED, SOPClassUID=sop_class)
    assert load_dicom(placed, monitor=Monitor()).shape == (5, 4, 6)


def test_a_mosaic_is_never_taken_for_a_slice(make_series: Make) -> None:
    folder = make_series(STORED, ImageType=["ORIGINAL", "PRIMARY", "M", "ND", "MOSAIC"])
    with pytest.raises(InputError, match="mosaic") as caught:
        load_dicom(folder, monitor=Monitor())
    assert "dcm2niix" in caught.value.hint


def test_geometry_that_cannot_be_loaded_is_reported_in_the_table(make_series: Make) -> None:
    folder = make_series(STORED)
    (folder / "003.dcm").unlink()
    (row,) = list_series(folder, Monitor())
    assert not row.readable
    assert "between 2.50 and 7.50 mm" in row.reason


def test_a_color_picture_beside_a_volume_does_not_ask(
    make_series: Make, recorder: WarningRecorder
) -> None:
    make_series(STORED, prefix="a")
    folder = make_series(
        STORED[:1],
        prefix="b",
        uid="1.2.3.2",
        SamplesPerPixel=3,
        PhotometricInterpretation="RGB",
    )
    assert load_dicom(folder, monitor=recorder.monitor).shape == (5, 4, 6)
    assert any("give no volume: 1 × CT Image Storage" in one for one in recorder.warnings)


def test_a_report_within_a_series_does_not_hide_its_images(make_series: Make) -> None:
    make_series(STORED, prefix="a")
    folder = make_series(
        STORED[:1],
        prefix="b",
        SOPClassUID=f"{CLASSES}88.33",
        SOPInstanceUID="1.2.9",
        **NO_PIXELS,
    )
    assert load_dicom(folder, series="1.2.3.1", monitor=Monitor()).shape == (5, 4, 6)
    with pytest.raises(InputError, match="structured report"):
        load_dicom(folder, series="2", monitor=Monitor())


def test_one_series_in_two_studies_is_two(make_series: Make) -> None:
    make_series(STORED, prefix="a")
    folder = make_series(STORED, prefix="b", StudyInstanceUID="1.2.4")
    with pytest.raises(InputError, match="holds 2 series"):
        load_dicom(folder, monitor=Monitor())


def test_nothing_that_is_dicom_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "a.txt.gz").write_bytes(b"x")
    with pytest.raises(InputError, match="holds no DICOM file"):
        list_series(tmp_path, Monitor())


# ------------------------------------------------------------ real files


@pytest.mark.shared
def test_the_study_beside_the_project_is_listed(shared_data: Path) -> None:
    rows = list_series(shared_data / "dicom" / "STS_025", Monitor())
    assert [(row.modality, row.size, row.files, row.readable) for row in rows] == [
        ("PT", "37×34×47", 47, True),
        ("CT", "149×138×47", 47, True),
        ("MR", "75×55×25", 25, True),
        ("RTSTRUCT", "", 1, False),
    ]
    assert {row.patient for row in rows} == {"STS_025"}


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_every_row_of_pydicoms_discs_loads_or_says_why() -> None:
    """CT, MR, CR and scouts as a hospital's disc mixes them; CT without pixels."""
    from pydicom.data import get_testdata_file

    root = Path(str(get_testdata_file("DICOMDIR"))).parent
    rows = list_series(root, Monitor())
    assert len(rows) > 20
    assert {row.modality for row in rows} >= {"CT", "MR", "CR"}
    for row in rows:
        try:
            volume = load_dicom(root, series=str(row.number), monitor=Monitor())
        except MedEnhanceError as error:
            assert not row.readable, row
            assert row.reason in error.message
        else:
            assert row.readable, row
            assert row.size == "×".join(map(str, volume.shape[::-1]))
