"""Every series and file of ../shared/data/dicom, each with the outcome that it must have."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest

from MedEnhanceLib.io import load
from MedEnhanceLib.io.dicom import load_dicom
from MedEnhanceLib.runtime.progress import Monitor

if TYPE_CHECKING:
    from Testing.Library.conftest import WarningRecorder

pytestmark = pytest.mark.shared


@pytest.fixture
def dicom(shared_data: Path) -> Path:
    return shared_data / "dicom"


# ------------------------------------------------------------ series


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
    assert series.origin is not None
    assert [len(frame) for frame in series.origin.instances] == [len(series.voxels)]
    assert recorder.warnings == []


def test_missing_slices_can_be_made_from_their_neighbors(dicom: Path) -> None:
    """Held against the whole series: what was imaged is kept, what was not is near the truth."""
    fixed = load_dicom(dicom / "STS_025_missing", resample=True, monitor=Monitor())
    whole = load(dicom / "STS_025" / "MR_T1_series")
    assert fixed.geometry.is_close(whole.geometry, tolerance=1e-3)
    made = [8, 15]
    kept = [k for k in range(25) if k not in made]
    assert np.array_equal(fixed.voxels[kept], whole.voxels[kept])
    for k in made:
        off = np.abs(fixed.voxels[k].astype(float) - whole.voxels[k]).mean()
        neighbor = np.abs(whole.voxels[k - 1].astype(float) - whole.voxels[k]).mean()
        assert off < neighbor
    assert "6.54 of 78.48 mm were not imaged" in " ".join(fixed.history)
    assert fixed.origin is not None
    assert not fixed.origin.on_grid


def test_frames_of_a_multi_frame_ct_lie_where_itk_puts_them(dicom: Path) -> None:
    """Its frames run against the normal: ours in ascending order, in a right-handed box."""
    pydicom = pytest.importorskip("pydicom")
    file = dicom / "odd" / "eCT_Supplemental.dcm"
    volume, stored = load(file), pydicom.dcmread(file).pixel_array.astype(np.int32)
    assert np.array_equal(volume.voxels, stored[::-1] - 1024)
    assert volume.geometry.is_right_handed
    sitk = pytest.importorskip("SimpleITK")
    image = sitk.ReadImage(str(file))
    for k in (0, len(stored) - 1):
        for j, i in ((0, 0), (stored.shape[1] - 1, 0), (0, stored.shape[2] - 1)):
            theirs = image.TransformIndexToPhysicalPoint((i, j, len(stored) - 1 - k))
            assert np.allclose((volume.geometry.affine_lps @ [i, j, k, 1])[:3], theirs, atol=1e-4)
