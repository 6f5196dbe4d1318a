"""The bias field is found and corrected, also within the body; scans without one are left alone."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import numpy as np
import pytest
from Library.hqg.conftest import sample

from MedEnhanceLib.core.metrics import psnr
from MedEnhanceLib.core.volume import Volume
from MedEnhanceLib.degradation import Bias, Blur, Composite, Rician, robust_max, standard_composite
from MedEnhanceLib.errors import InputError
from MedEnhanceLib.hqg import EnhanceConfig, enhance
from MedEnhanceLib.hqg.bias_field import LIMIT, measure_bias_field
from MedEnhanceLib.io import load

pytest.importorskip("SimpleITK")
REPOSITORY = Path(__file__).parents[3]


@cache
def crop() -> Volume:
    """112 × 112 × 8 voxels within the body: no air around it."""
    return sample().crop(k=slice(90, 98), j=slice(60, 172), i=slice(42, 154))


def decibels(result: Volume) -> float:
    truth = crop().voxels
    top = robust_max(truth)
    return psnr(truth, result.voxels, top, mask=truth > 0.1 * top)


def test_a_field_over_a_crop_within_the_body_is_corrected() -> None:
    damaged = standard_composite(0).apply(crop())
    corrected = enhance(damaged, EnhanceConfig(device="cpu"))
    left = enhance(damaged, EnhanceConfig(device="cpu", bias_correction="none"))
    assert corrected.measured["bias_field"]["corrected"]
    assert decibels(corrected.volume) > decibels(left.volume) + 1


def test_the_field_is_near_the_truth() -> None:
    shaded = Bias(0.3, 0).apply(crop())
    tissue = crop().voxels > 0.15 * robust_max(crop().voxels)
    truth = np.log(shaded.voxels[tissue] / crop().voxels[tissue])
    left = truth - np.log(measure_bias_field(shaded)[:][tissue])
    before, after = truth.std(), left.std()
    assert after < 0.5 * before


@pytest.mark.parametrize(
    "damage", [None, Rician(0.07, 3), Composite((Blur(0.8, 1), Rician(0.1, 2)))], ids=str
)
def test_a_crop_without_a_field_is_left_alone(damage: Rician | Composite | None) -> None:
    volume = crop() if damage is None else damage.apply(crop())
    result = enhance(volume, EnhanceConfig(device="cpu"))
    assert not result.measured["bias_field"]["corrected"]
    without = enhance(volume, EnhanceConfig(device="cpu", bias_correction="none"))
    assert np.array_equal(result.volume.voxels, without.volume.voxels)


def test_a_dark_tumor_is_not_taken_for_a_field() -> None:
    file = REPOSITORY.parent / "shared" / "data" / "mr" / "sts" / "STS_005" / "MR_T1.nii.gz"
    if not file.is_file():
        pytest.skip("the open volumes are not beside the project")
    thigh = load(file, modality="MR").crop(k=slice(36, 44), j=slice(22, 134), i=slice(7, 119))
    found = measure_bias_field(thigh)
    assert found.spread > LIMIT and not found.is_strong
    assert "anatomy" in found.reason


def test_constant_voxels_have_no_field_and_a_ct_is_refused() -> None:
    flat = crop().with_voxels(np.full(crop().shape, 7, np.float32))
    found = measure_bias_field(flat)
    assert "constant" in found.reason
    assert np.array_equal(found[:], np.ones(flat.shape))
    with pytest.raises(InputError, match="CT"):
        measure_bias_field(Volume(crop().voxels, crop().geometry, modality="CT"))
