"""The open volumes kept beside the project, against nibabel and against each other."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from MedEnhanceLib.io import WRITABLE, load, save

pytestmark = pytest.mark.shared


@pytest.mark.parametrize(
    ("name", "modality"),
    [
        ("ct/sts/STS_002/CT", "CT"),
        ("ct/sts/STS_002/CT_gtv", "OT"),
        ("ct/sts/STS_010/PET", "OT"),
        ("ct/abdomen/CT", "CT"),
        ("mr/sts/STS_002/MR_T1", "MR"),
        ("mr/open_ms/C19/FLAIR", "MR"),
        ("mr/open_ms/L09/study2_FLAIR", "MR"),
        ("em/medulla_t2", "EM"),
        ("sample/mni152_tissue", "OT"),
    ],
)
def test_nifti_is_what_nibabel_reads(shared_data: Path, name: str, modality: str) -> None:
    import nibabel

    path = shared_data / f"{name}.nii.gz"
    volume, image = load(path), nibabel.load(path)
    affine = image.affine.copy()
    if image.header.get_xyzt_units()[0] == "micron":
        affine[:3] *= 1e-3
    assert np.allclose(volume.geometry.affine_ras, affine, rtol=1e-15, atol=1e-15)
    assert np.array_equal(volume.voxels, np.asarray(image.dataobj).T)
    assert volume.dtype == image.get_data_dtype()
    assert volume.modality == modality


@pytest.mark.parametrize("ending", WRITABLE)
@pytest.mark.parametrize(
    "name", ["ct/sts/STS_025/CT", "mr/open_ms/L09/study2_FLAIR", "em/medulla_v_z0"]
)
def test_real_volume_comes_back_bit_for_bit(
    shared_data: Path, tmp_path: Path, name: str, ending: str
) -> None:
    volume = load(shared_data / f"{name}.nii.gz")
    save(volume, tmp_path / f"a{ending}")
    assert load(tmp_path / f"a{ending}").is_equal(volume)


def test_microscopy_is_ten_nanometres(shared_data: Path) -> None:
    volume = load(shared_data / "em" / "medulla_v_z0.nii.gz")
    assert volume.modality == "EM"
    assert np.allclose(volume.geometry.spacing, 1e-5, rtol=1e-6)
