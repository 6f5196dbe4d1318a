"""Blur and bias field: corrected on request; scans that are not blurred are left alone."""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
import pytest
from Library.hqg.conftest import sample

from MedEnhanceLib.core.arrays import Floats, robust_max
from MedEnhanceLib.core.imaging import gaussian_blur
from MedEnhanceLib.core.metrics import psnr
from MedEnhanceLib.core.volume import Volume
from MedEnhanceLib.degradation.pipeline import Bias, Blur, Composite, Rician, standard_composite
from MedEnhanceLib.errors import InputError
from MedEnhanceLib.filters.bias_field import measure_bias_field
from MedEnhanceLib.filters.blur import measure_blur, undo_blur
from MedEnhanceLib.hqg import EnhanceConfig, enhance
from MedEnhanceLib.noise.estimate import measure_noise, noise_to_contrast
from MedEnhanceLib.noise.rician import rician_noise
from MedEnhanceLib.runtime.progress import Monitor

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


def test_a_ct_has_no_bias_field_and_its_blur_is_not_measured(recorder: Any) -> None:
    ct = Volume(crop().voxels - 900.0, crop().geometry, modality="CT", source="a.nii")
    with pytest.raises(InputError, match=r"a\.nii: a CT has no bias field"):
        enhance(ct, EnhanceConfig(device="cpu", correct_bias_field=True))
    done = enhance(ct, EnhanceConfig(device="cpu", task="sharpness"), monitor=recorder.monitor)
    assert "blur" not in done.measured
    assert any("only noise is removed" in text for text in recorder.warnings)


@cache
def slab() -> Floats:
    voxels = sample().voxels[80:86].astype(np.float32)
    return voxels / voxels.max()


@pytest.mark.parametrize("sigma", [0.8, 1.0, 1.5])
def test_the_width_of_a_blur_is_measured_under_noise_and_undone(sigma: float) -> None:
    blurred = gaussian_blur(slab(), sigma)
    assert not measure_blur(slab()).is_blurred
    estimate = measure_blur(blurred)
    sharp = blurred.copy()
    undo_blur(blurred, estimate, noise=0.0, denoised=sharp, monitor=Monitor())
    assert psnr(slab(), sharp, 1.0) > psnr(slab(), blurred, 1.0) + 3
    noisy = rician_noise(blurred, 0.02, np.random.default_rng(1))
    estimate = measure_blur(noisy, noise=0.02)
    assert estimate.is_blurred
    # The volume's own width is 0.7 to 0.8 px.
    assert estimate.sigma_px == pytest.approx([np.hypot(sigma, 0.75)] * 2, abs=0.2)


def test_a_low_resolution_along_one_axis_is_no_blur() -> None:
    one_axis = slab().copy()
    for index, plane in enumerate(slab()):
        spectrum = np.fft.rfft(np.concatenate([plane, plane[::-1]]), axis=0)
        frequency = np.fft.rfftfreq(2 * len(plane))[:, None]
        soft = np.fft.irfft(spectrum * np.exp(-2 * (np.pi * 1.5 * frequency) ** 2), axis=0)
        one_axis[index] = soft[: len(plane)]
    assert not measure_blur(one_axis).is_blurred


def test_an_image_enlarged_from_a_smaller_matrix_is_no_blur() -> None:
    planes = slab()
    rows, columns = planes.shape[1:]
    spectrum = np.fft.fftshift(np.fft.fft2(planes), axes=(1, 2))
    inside = np.abs(np.linspace(-1, 1, rows))[:, None] < 0.45
    inside = inside & (np.abs(np.linspace(-1, 1, columns)) < 0.45)
    enlarged = np.abs(np.fft.ifft2(np.fft.ifftshift(spectrum * inside, axes=(1, 2))))
    estimate = measure_blur(enlarged.astype(np.float32))
    assert not estimate.is_blurred and "smaller matrix" in estimate.reason


def test_what_cannot_be_measured_is_not_blurred() -> None:
    for voxels in (np.zeros((4, 64, 64)), slab()[:, :12, :12]):
        estimate = measure_blur(voxels)
        assert not estimate.is_blurred and "not measured" in estimate.reason


@pytest.mark.slow
def test_strong_noise_is_not_taken_for_blur() -> None:
    part = sample().crop(k=slice(60, 130))
    for level in (0.1, 0.15):
        noisy = Rician(level, 0).apply(part)
        noise = measure_noise(noisy.voxels, modality="MR")
        known = {"noise": noise.level, "noise_to_contrast": noise_to_contrast(noise)}
        assert not measure_blur(noisy.voxels, **known).is_blurred
        blurred = Rician(level, 0).apply(Blur(1.0).apply(part))
        assert measure_blur(blurred.voxels, **known).is_blurred
