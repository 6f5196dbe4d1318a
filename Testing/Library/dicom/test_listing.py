"""The table of what lies at a path: volumes first, then what is none, with the reason."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest

from MedEnhanceLib.errors import InputError
from MedEnhanceLib.io.dicom import SeriesRow, list_series, load_dicom
from MedEnhanceLib.runtime.progress import Monitor

if TYPE_CHECKING:
    from Testing.Library.conftest import Make, WarningRecorder

pytest.importorskip("pydicom")

STORED = np.random.default_rng(5).integers(0, 2000, (5, 4, 6)).astype(np.uint16)
CLASSES = "1.2.840.10008.5.1.4.1.1."
NO_PIXELS = {"Rows": None, "Columns": None, "PixelData": None, "ImagePositionPatient": None}


def test_rows_say_what_a_user_chooses_by(make_series: Make) -> None:
    more = {"PatientID": "p1", "StudyDescription": "thorax", "SeriesDate": "20200304"}
    make_series(STORED, prefix="a", number=3, **more)
    make_series(STORED[:2], prefix="b", uid="1.2.3.2", number=1, Modality="MR")
    contours = {"SOPClassUID": f"{CLASSES}481.3", "Modality": "RTSTRUCT", **NO_PIXELS}
    folder = make_series(STORED[:1], prefix="c", uid="1.2.3.3", number=2, **contours)
    first, second, third = list_series(folder, Monitor())
    assert first == SeriesRow(1, "1.2.3.2", "", "MR", "axial", "6×4×2", 2, "", "", "", True, "")
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
    (row,) = list_series(folder, Monitor())
    assert not row.readable
    assert says in row.reason
    for path in (folder, folder / "001.dcm"):
        with pytest.raises(InputError, match=says) as caught:
            load_dicom(path, monitor=Monitor())
        assert caught.value.hint


def test_a_mosaic_is_never_taken_for_a_slice(make_series: Make) -> None:
    folder = make_series(STORED, ImageType=["ORIGINAL", "PRIMARY", "M", "ND", "MOSAIC"])
    with pytest.raises(InputError, match="mosaic") as caught:
        load_dicom(folder, monitor=Monitor())
    assert "dcm2niix" in caught.value.hint


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
