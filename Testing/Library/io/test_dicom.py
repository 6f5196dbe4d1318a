"""Plain series come in right; everything else is refused by name, never a wrong volume."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest

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


def test_user_may_say_the_modality(make_series: Make) -> None:
    volume = load(make_series(STORED), modality="OT")
    assert (volume.modality, volume.units) == ("OT", "")


def test_ct_without_intercept_is_refused_unless_taken_as_other(make_series: Make) -> None:
    folder = make_series(STORED, RescaleIntercept=None)
    with pytest.raises(InputError, match="RescaleIntercept") as caught:
        load(folder)
    assert "OT" in caught.value.hint
    assert np.array_equal(load(folder, modality="OT").voxels, STORED)


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


# ------------------------------------------------------------ places


def test_missing_slices_are_named_by_position(make_series: Make) -> None:
    folder = make_series(STORED)
    (folder / "003.dcm").unlink()
    with pytest.raises(GeometryError, match=r"between 2\.50 and 7\.50 mm \(1 missing\)"):
        load(folder)


# ------------------------------------------------------------ what is not read


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


def test_empty_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="holds no file") as caught:
        load(tmp_path)
    assert caught.value.hint


def test_folder_without_dicom_is_refused(tmp_path: Path) -> None:
    (tmp_path / "scan.nii.gz").write_bytes(b"x" * 500)
    with pytest.raises(InputError, match=r"holds no DICOM file \(1 files were read, scan\.nii"):
        load(tmp_path)


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
