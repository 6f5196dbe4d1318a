"""Plain series come in right; everything else is refused by name, never a wrong volume."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from MedEnhanceLib.core.geometry import Geometry
from MedEnhanceLib.errors import Cancelled, GeometryError, InputError, MedEnhanceError
from MedEnhanceLib.io import load
from MedEnhanceLib.runtime.progress import Monitor

if TYPE_CHECKING:
    from Testing.Library.conftest import Make, WarningRecorder

pytest.importorskip("pydicom")

STORED = np.random.default_rng(5).integers(0, 2000, (5, 4, 6)).astype(np.uint16)
STEP = 2.5


def test_series_is_sorted_by_position_and_rescaled_once(make_series: Make) -> None:
    folder = make_series(STORED)  # the names of the files run against the positions
    volume = load(folder)
    assert np.array_equal(volume.voxels, STORED.astype(np.int16) - 1024)
    assert volume.dtype == np.int16
    assert (volume.modality, volume.units) == ("CT", "HU")
    assert volume.history == ()
    assert "1.2.3.1" in volume.source
    assert volume.geometry == Geometry((0.5, 0.8, STEP), (-10.0, 20.0, 0.0))


def test_oblique_series_lies_where_its_header_says(make_series: Make) -> None:
    row, column = np.array([0.6, 0.8, 0.0]), np.array([0.0, 0.0, -1.0])
    normal = np.cross(row, column)
    positions = [tuple(np.array([7.0, 8.0, 9.0]) + STEP * k * normal) for k in range(5)]
    folder = make_series(STORED, positions=positions, orientation=(*row, *column))
    geometry = load(folder).geometry
    assert np.allclose(geometry.direction, np.column_stack([row, column, normal]), atol=1e-12)
    assert np.allclose(geometry.origin, (7, 8, 9), atol=1e-12)
    assert np.allclose(geometry.spacing, (0.5, 0.8, STEP), atol=1e-12)
    assert geometry.is_right_handed


def test_position_along_the_normal_decides_not_z(make_series: Make) -> None:
    """Sagittal: every slice has the same z."""
    positions = [(3.0 * k, 1.0, 2.0) for k in range(5)]
    folder = make_series(STORED, positions=positions, orientation=(0, 1, 0, 0, 0, -1))
    volume = load(folder)
    assert np.array_equal(volume.voxels, STORED[::-1].astype(np.int16) - 1024)
    assert volume.geometry.origin == (12.0, 1.0, 2.0)
    assert volume.geometry.spacing[2] == 3.0


def test_slope_of_each_slice_is_its_own(make_series: Make) -> None:
    slopes = [0.5, 1.0, 2.0, 0.25, 3.0]
    folder = make_series(
        STORED,
        Modality="PT",
        Units="BQML",
        RescaleIntercept=0,
        slice_elements=lambda index: {"RescaleSlope": slopes[index]},
    )
    volume = load(folder)
    assert volume.dtype == np.float32
    assert np.allclose(volume.voxels, STORED * np.array(slopes)[:, None, None], rtol=1e-6)
    assert (volume.modality, volume.units) == ("PT", "Bq/ml")


def test_series_without_rescaling_keeps_its_type(make_series: Make) -> None:
    folder = make_series(STORED, Modality="MR", RescaleSlope=None, RescaleIntercept=None)
    volume = load(folder)
    assert volume.dtype == np.uint16
    assert np.array_equal(volume.voxels, STORED)
    assert (volume.modality, volume.units) == ("MR", "")


def test_whole_hounsfield_units_beyond_int16_are_kept(make_series: Make) -> None:
    folder = make_series(np.full((5, 4, 6), 65535, np.uint16), RescaleSlope=2)
    volume = load(folder)
    assert volume.dtype == np.int32
    assert volume.voxels.max() == 2 * 65535 - 1024


def test_unknown_modality_is_other(make_series: Make) -> None:
    assert load(make_series(STORED, Modality="XA")).modality == "OT"


def test_user_may_say_the_modality(make_series: Make) -> None:
    volume = load(make_series(STORED), modality="OT")
    assert (volume.modality, volume.units) == ("OT", "")


def test_ct_without_intercept_is_refused_unless_taken_as_other(make_series: Make) -> None:
    folder = make_series(STORED, RescaleIntercept=None)
    with pytest.raises(InputError, match="RescaleIntercept") as caught:
        load(folder)
    assert "OT" in caught.value.hint
    assert np.array_equal(load(folder, modality="OT").voxels, STORED)


def test_one_file_is_one_slice(make_series: Make, tmp_path: Path) -> None:
    file = make_series(STORED) / "003.dcm"
    volume = load(file)
    assert volume.shape == (1, 4, 6)
    assert volume.geometry == Geometry((0.5, 0.8, STEP), (-10.0, 20.0, 5.0))
    nameless = shutil.copy(file, tmp_path / "IM0001")
    assert load(nameless).is_equal(volume)


def test_one_slice_of_unknown_thickness_is_said(
    make_series: Make, recorder: WarningRecorder
) -> None:
    file = make_series(STORED, SliceThickness=None) / "003.dcm"
    assert load(file, monitor=recorder.monitor).geometry.spacing[2] == 1.0
    assert any("thickness" in warning for warning in recorder.warnings)


def test_several_series_are_listed_and_one_can_be_chosen(make_series: Make) -> None:
    make_series(STORED, prefix="a", SeriesDescription="lung")
    folder = make_series(
        STORED[:3] + 1, prefix="b", uid="1.2.3.2", number=7, Modality="MR", SeriesDescription="T1"
    )
    with pytest.raises(InputError, match="holds 2 series") as caught:
        load(folder)
    message = caught.value.message
    for part in ("CT  6×4×5  'lung'  1.2.3.1", "MR  6×4×3  'T1'  1.2.3.2"):
        assert part in message
    assert "series='1'" in caught.value.hint
    assert load(folder, series="2").modality == "MR"
    assert load(folder, series="1.2.3.1").shape == (5, 4, 6)
    for wrong in ("3", "0", "1.2.3"):
        with pytest.raises(InputError, match="no series"):
            load(folder, series=wrong)


def test_series_in_folders_below_are_found(make_series: Make, tmp_path: Path) -> None:
    make_series(STORED)
    assert load(tmp_path).shape == (5, 4, 6)


# ------------------------------------------------------------ places


def test_missing_slices_are_named_by_position(make_series: Make) -> None:
    folder = make_series(STORED)
    (folder / "003.dcm").unlink()
    with pytest.raises(GeometryError, match=r"between 2\.50 and 7\.50 mm \(1 missing\)"):
        load(folder)


def test_many_gaps_are_counted(make_series: Make) -> None:
    stored = np.zeros((40, 2, 2), np.uint16)
    positions = [(0.0, 0.0, float(k + 2 * (k // 4))) for k in range(40)]
    with pytest.raises(GeometryError, match=r"\(2 missing\).* and 3 more"):
        load(make_series(stored, positions=positions))


def test_uneven_spacing_is_refused(make_series: Make) -> None:
    positions = [(0.0, 0.0, z) for z in (0.0, 2.0, 4.5, 6.0, 8.0)]
    with pytest.raises(GeometryError, match=r"uneven spacing.*1\.500 to 2\.500"):
        load(make_series(STORED, positions=positions))


def test_spacing_that_drifts_is_refused(make_series: Make) -> None:
    stored = np.zeros((30, 2, 2), np.uint16)
    positions = [(0.0, 0.0, k + 0.004 * k * k) for k in range(30)]
    with pytest.raises(GeometryError, match="uneven spacing"):
        load(make_series(stored, positions=positions))


def test_rounded_positions_are_accepted(make_series: Make) -> None:
    positions = [(0.0, 0.0, round(0.625 * k, 2)) for k in range(5)]
    geometry = load(make_series(STORED, positions=positions)).geometry
    assert geometry.spacing[2] == pytest.approx(0.625)


def test_two_slices_at_one_place_are_refused(make_series: Make) -> None:
    positions = [(0.0, 0.0, z) for z in (0.0, 2.0, 2.0, 4.0, 6.0)]
    with pytest.raises(GeometryError, match=r"shares? a place.*2\.00 mm.*00[34]\.dcm"):
        load(make_series(STORED, positions=positions))


def test_all_slices_at_one_place_are_refused(make_series: Make) -> None:
    with pytest.raises(GeometryError, match=r"4 slices shares? a place"):
        load(make_series(STORED, positions=[(0.0, 0.0, 0.0)] * 5))


def test_tilted_gantry_is_refused_with_its_angle(make_series: Make) -> None:
    positions = [(0.0, k * 1.0, k * 2.0) for k in range(5)]
    with pytest.raises(GeometryError, match=r"slant of 26\.6°"):
        load(make_series(STORED, positions=positions))


def test_slice_across_the_others_is_no_slice_of_theirs(
    make_series: Make, recorder: WarningRecorder
) -> None:
    folder = make_series(
        STORED,
        slice_elements=lambda index: {
            "ImageOrientationPatient": [0, 1, 0, 0, 0, -1] if index == 2 else [1, 0, 0, 0, 1, 0]
        },
    )
    with pytest.raises(GeometryError, match=r"missing between 2\.50 and 7\.50 mm"):
        load(folder, monitor=recorder.monitor)
    assert any("localizer" in warning and "003.dcm" in warning for warning in recorder.warnings)


def test_orientation_that_is_no_right_angle_is_refused(make_series: Make) -> None:
    with pytest.raises(GeometryError, match="ImageOrientationPatient"):
        load(make_series(STORED, orientation=(1, 0, 0, 0.1, 1, 0)))


@pytest.mark.parametrize(
    "element", ["ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing"]
)
def test_image_without_a_place_is_refused_by_element(make_series: Make, element: str) -> None:
    with pytest.raises(GeometryError, match=element):
        load(make_series(STORED, **{element: None}))
    folder = make_series(STORED, slice_elements=lambda k: {element: None} if k == 3 else {})
    with pytest.raises(GeometryError, match=rf"1 of 5 files \(002\.dcm first\) has no {element}"):
        load(folder)


# ------------------------------------------------------------ what is not read


@pytest.mark.parametrize(
    ("elements", "says"),
    [
        ({"PhotometricInterpretation": "RGB"}, "color"),
        ({"SamplesPerPixel": 3, "PhotometricInterpretation": "YBR_FULL"}, "color"),
        ({"PhotometricInterpretation": "PALETTE COLOR"}, "color"),
        ({"PhotometricInterpretation": None}, "color"),
        ({"NumberOfFrames": 4}, "4 frames"),
        ({"ModalityLUTSequence": []}, "ModalityLUTSequence"),
        ({"RescaleSlope": 0}, "RescaleSlope is 0"),
        ({"Columns": 7}, "pixel data"),
    ],
)
def test_odd_image_is_refused_with_the_reason(
    make_series: Make, elements: dict[str, Any], says: str
) -> None:
    with pytest.raises(InputError, match=says) as caught:
        load(make_series(STORED, **elements))
    assert ".dcm" in caught.value.message
    assert caught.value.hint


def test_slices_of_different_size_are_volumes_of_their_own(make_series: Make) -> None:
    make_series(STORED, prefix="a")
    folder = make_series(
        np.zeros((1, 8, 8), np.uint16), prefix="b", positions=[(0, 0, 99.0)], SOPInstanceUID="1.2.9"
    )
    with pytest.raises(InputError, match="holds 2 series") as caught:
        load(folder)
    assert "6×4×5  'axial'  1.2.3.1/6×4" in caught.value.message
    assert load(folder, series="1.2.3.1/6×4").shape == (5, 4, 6)
    assert load(folder, series="2").shape == (1, 8, 8)


def test_slices_of_different_units_are_refused(make_series: Make) -> None:
    folder = make_series(STORED, slice_elements=lambda k: {"RescaleType": "HU" if k else "MGML"})
    with pytest.raises(InputError, match="differ in units"):
        load(folder)


def test_objects_that_are_no_images_are_left_out_and_named(
    make_series: Make, tmp_path: Path, recorder: WarningRecorder
) -> None:
    from pydicom.uid import RTStructureSetStorage

    make_series(STORED)
    folder = make_series(
        STORED[:1],
        prefix="rt",
        uid="1.2.3.9",
        SOPClassUID=RTStructureSetStorage,
        Rows=None,
        Columns=None,
        PixelData=None,
    )
    assert load(folder, monitor=recorder.monitor).shape == (5, 4, 6)
    assert any("1 × RT Structure Set Storage" in warning for warning in recorder.warnings)
    alone = tmp_path / "alone"
    alone.mkdir()
    shutil.copy(folder / "rt001.dcm", alone)
    with pytest.raises(InputError, match="only 1 × RT Structure Set Storage"):
        load(alone)
    with pytest.raises(InputError, match="an RT structure set: contours"):
        load(alone / "rt001.dcm")


def test_other_files_in_the_folder_do_not_matter(make_series: Make) -> None:
    folder = make_series(STORED)
    (folder / "README.txt").write_text("hello")
    (folder / ".DS_Store").write_bytes(b"\0" * 200)
    assert load(folder).shape == (5, 4, 6)


def test_empty_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="holds no file") as caught:
        load(tmp_path)
    assert caught.value.hint


def test_folder_without_dicom_is_refused(tmp_path: Path) -> None:
    (tmp_path / "scan.nii.gz").write_bytes(b"x" * 500)
    with pytest.raises(InputError, match=r"holds no DICOM file \(1 files were read, scan\.nii"):
        load(tmp_path)


def test_file_without_the_mark_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.dcm").write_bytes(b"x" * 500)
    with pytest.raises(InputError, match="the prefix DICM is missing"):
        load(tmp_path / "a.dcm")


@pytest.mark.parametrize("share", [0.3, 0.6, 0.9, 0.99])
def test_file_cut_short_is_named(make_series: Make, share: float) -> None:
    folder = make_series(np.zeros((3, 40, 40), np.uint16))
    file = folder / "002.dcm"
    data = file.read_bytes()
    file.write_bytes(data[: int(share * len(data))])
    with pytest.raises(MedEnhanceError) as caught:
        load(folder)
    assert "002.dcm" in caught.value.message
    assert caught.value.hint


def test_cancel_stops_a_series(make_series: Make) -> None:
    with pytest.raises(Cancelled):
        load(make_series(STORED), monitor=Monitor(cancel=lambda: True))


@settings(
    max_examples=60,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(
    edits=st.lists(st.tuples(st.integers(132, 1200), st.integers(0, 255)), min_size=1, max_size=4)
)
def test_any_damage_gives_a_volume_or_a_clear_error(
    make_series: Make, edits: list[tuple[int, int]]
) -> None:
    file = make_series(STORED[:1]) / "001.dcm"
    data = bytearray(file.read_bytes())
    for place, value in edits:
        data[place % len(data)] = value
    file.write_bytes(data)
    try:
        assert load(file).voxels.size > 0
    except MedEnhanceError as error:
        assert str(error)
