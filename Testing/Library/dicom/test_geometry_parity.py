"""Geometry and voxels as SimpleITK, GDCM and the volumes beside the project have them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gdcm
import numpy as np
import pydicom
import pytest
import SimpleITK as sitk  # noqa: N813 - as everybody calls it
from Library.conftest import Make, WarningRecorder
from Library.dicom.reading import read_with_itk
from Library.dicom.test_stack import turned

from MedEnhanceLib.io import load

STORED = np.random.default_rng(5).integers(0, 2000, (8, 4, 6)).astype(np.uint16)
SERIES = ("CT_series", "MR_T1_series", "PET_series")


def along(orientation: Any, distances: Any) -> list[tuple[float, float, float]]:
    normal = np.cross(orientation[:3], orientation[3:])
    return [tuple((np.array([7, -80, 900]) + mm * normal).tolist()) for mm in distances]


AGREED = {
    "axial": ((1, 0, 0, 0, 1, 0), 2.5 * np.arange(8)),
    "descending": ((1, 0, 0, 0, 1, 0), -2.5 * np.arange(8)),
    "feet first, prone": ((-1, 0, 0, 0, -1, 0), 2.5 * np.arange(8)),
    "coronal": ((1, 0, 0, 0, 0, -1), 3.0 * np.arange(8)),
    "sagittal": ((0, 1, 0, 0, 0, -1), 3.0 * np.arange(8)),
    "oblique": (turned((0.3, 0, 0)), 1.1 * np.arange(8)),
    "double oblique": (turned((0.4, -0.7, 1.9)), 0.7 * np.arange(8)),
    "rounded to hundredths": ((1, 0, 0, 0, 1, 0), np.round(0.625 * np.arange(8), 2)),
}


@pytest.mark.parametrize("name", AGREED)
def test_a_plain_series_is_what_simpleitk_reads(make_series: Make, name: str) -> None:
    orientation, distances = AGREED[name]
    folder = make_series(STORED, positions=along(orientation, distances), orientation=orientation)
    volume, (voxels, geometry) = load(folder), read_with_itk(folder)
    assert volume.geometry.is_close(geometry, tolerance=1e-4)
    assert np.allclose(volume.voxels, voxels, rtol=1e-6, atol=1e-6)


@pytest.mark.shared
@pytest.mark.parametrize("name", SERIES)
def test_real_slices_come_in_the_order_of_gdcm(shared_data: Path, name: str) -> None:
    folder = shared_data / "dicom" / "STS_025" / name
    sorter = gdcm.IPPSorter()
    sorter.SetComputeZSpacing(True)
    sorter.SetZSpacingTolerance(1e-3)
    assert sorter.Sort([str(file) for file in sorted(folder.iterdir())])
    volume = load(folder)
    assert sorter.GetZSpacing() == pytest.approx(volume.geometry.spacing[2], abs=1e-3)
    assert len(sorter.GetFilenames()) == len(volume.voxels)
    for k, file in enumerate(sorter.GetFilenames()):
        position = pydicom.dcmread(file, stop_before_pixels=True).ImagePositionPatient
        assert np.allclose((volume.geometry.affine_lps @ [0, 0, k, 1])[:3], position, atol=1e-3)


@pytest.fixture
def dicom(shared_data: Path) -> Path:
    return shared_data / "dicom"


@pytest.mark.shared
@pytest.mark.parametrize(
    ("folder", "file", "units"),
    [
        ("CT_series", "ct/sts/STS_025/CT", "HU"),
        ("MR_T1_series", "mr/sts/STS_025/MR_T1", ""),
        ("PET_series", "ct/sts/STS_025/PET", "SUV"),
    ],
)
def test_series_is_the_volume_that_was_made_from_it(
    shared_data: Path, recorder: WarningRecorder, folder: str, file: str, units: str
) -> None:
    series = load(shared_data / "dicom" / "STS_025" / folder, monitor=recorder.monitor)
    volume = load(shared_data / f"{file}.nii.gz")
    assert series.geometry.is_close(volume.geometry, tolerance=1e-3)
    assert np.allclose(series.voxels, volume.voxels, rtol=1e-6, atol=1e-6)
    assert series.units == units
    assert series.history == ()
    assert series.lossy == ()
    assert series.dicom_origin is not None
    assert [len(frame) for frame in series.dicom_origin.instances] == [len(series.voxels)]
    assert recorder.warnings == []


@pytest.mark.shared
def test_missing_slices_can_be_made_from_their_neighbors(dicom: Path) -> None:
    """Held against the whole series: what was imaged is kept, what was not is near the truth."""
    fixed = load(dicom / "STS_025_missing", resample=True)
    whole = load(dicom / "STS_025" / "MR_T1_series")
    assert fixed.geometry.is_close(whole.geometry, tolerance=1e-3)
    made = [8, 15]
    kept = [k for k in range(25) if k not in made]
    assert np.array_equal(fixed.voxels[kept], whole.voxels[kept])
    for k in made:
        off = np.abs(fixed.voxels[k].astype(float) - whole.voxels[k]).mean()
        neighbor = np.abs(whole.voxels[k - 1].astype(float) - whole.voxels[k]).mean()
        assert off < neighbor
    words = "2 of 25 slices (gaps: 6.54 of 78.48 mm) were not imaged but interpolated linearly by"
    assert words in " ".join(fixed.history)
    assert fixed.dicom_origin is not None
    assert not fixed.dicom_origin.on_grid


@pytest.mark.shared
def test_frames_of_a_multi_frame_ct_lie_where_itk_puts_them(dicom: Path) -> None:
    """Its frames run against the normal: ours in ascending order, in a right-handed box."""
    file = dicom / "odd" / "eCT_Supplemental.dcm"
    volume, stored = load(file), pydicom.dcmread(file).pixel_array.astype(np.int32)
    assert np.array_equal(volume.voxels, stored[::-1] - 1024)
    assert volume.geometry.is_right_handed
    image = sitk.ReadImage(str(file))
    for k in (0, len(stored) - 1):
        for j, i in ((0, 0), (stored.shape[1] - 1, 0), (0, stored.shape[2] - 1)):
            theirs = image.TransformIndexToPhysicalPoint((i, j, len(stored) - 1 - k))
            assert np.allclose((volume.geometry.affine_lps @ [i, j, k, 1])[:3], theirs, atol=1e-4)
