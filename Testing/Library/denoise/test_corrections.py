"""The bias field: corrected on request, and no blur with it."""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest
from Library.denoise.conftest import sample

from MedEnhanceLib.core.arrays import robust_max
from MedEnhanceLib.core.metrics import psnr
from MedEnhanceLib.core.volume import Volume
from MedEnhanceLib.degradation.pipeline import Bias, Blur, Composite, Rician, standard_composite
from MedEnhanceLib.denoise import EnhanceConfig, enhance
from MedEnhanceLib.errors import InputError
from MedEnhanceLib.filters.bias_field import measure_bias_field
from MedEnhanceLib.noise.estimate import measure_noise

pytest.importorskip("SimpleITK")


@cache
def crop() -> Volume:
    """112 × 112 × 8 voxels within the body: no air around it."""
    return sample().crop(k=slice(90, 98), j=slice(60, 172), i=slice(42, 154))


def decibels(result: Volume) -> float:
    truth = crop().voxels
    top = robust_max(truth)
    return psnr(truth, result.voxels, top, mask=truth > 0.1 * top)


def test_a_field_over_a_crop_within_the_body_is_corrected_on_request() -> None:
    damaged = standard_composite(0).apply(crop())
    default = enhance(damaged, EnhanceConfig(device="cpu"))
    corrected = enhance(damaged, EnhanceConfig(device="cpu", correct_bias_field=True))
    assert corrected.measured["bias_field"]["corrected"]
    assert "bias field corrected" in corrected.volume.history[-1]
    assert decibels(corrected.volume) > decibels(default.volume) + 1


def test_by_default_neither_bias_field_nor_blur_is_touched() -> None:
    damaged = Composite((Bias(0.5, 0), Blur(1.5), Rician(0.02, 3))).apply(crop())
    done = enhance(damaged, EnhanceConfig(device="cpu"))
    assert set(done.measured) == {"denoiser", "noise"}
    noise = measure_noise(damaged.voxels, modality="MR")
    change = np.abs(done.volume.voxels - damaged.voxels)
    assert np.quantile(change, 0.99) < 4 * noise.level
    assert abs(float((done.volume.voxels - damaged.voxels).mean())) < 0.5 * noise.level


def test_constant_voxels_have_no_field() -> None:
    flat = crop().with_voxels(np.full(crop().shape, 7, np.float32))
    assert np.array_equal(measure_bias_field(flat)[:], np.ones(flat.shape))


def test_a_ct_has_no_bias_field() -> None:
    ct = Volume(crop().voxels - 900.0, crop().geometry, modality="CT", source="a.nii")
    with pytest.raises(InputError, match=r"a\.nii: a CT has no bias field"):
        enhance(ct, EnhanceConfig(device="cpu", correct_bias_field=True))
