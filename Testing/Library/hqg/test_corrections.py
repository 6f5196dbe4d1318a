"""Blur and bias field: found and corrected; scans without them are left alone."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from Library.hqg.conftest import sample

from MedEnhanceLib.core.metrics import psnr
from MedEnhanceLib.core.volume import Volume
from MedEnhanceLib.degradation import (
    Blur,
    Composite,
    Rician,
    gaussian_blur,
    rician_noise,
    robust_max,
    standard_composite,
)
from MedEnhanceLib.errors import InputError
from MedEnhanceLib.hqg import EnhanceConfig, enhance
from MedEnhanceLib.hqg.bias_field import LIMIT, measure_bias_field
from MedEnhanceLib.hqg.sharpness import measure_blur, undo_blur
from MedEnhanceLib.io import load
from MedEnhanceLib.nets.noise import measure_noise, noise_to_contrast
from MedEnhanceLib.runtime.progress import Monitor

pytest.importorskip("SimpleITK")
Floats = npt.NDArray[np.float32]
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
    for level in (0.1, 0.15):
        noisy = Rician(level, 0).apply(sample())
        noise = measure_noise(noisy.voxels, modality="MR")
        known = {"noise": noise.level, "noise_to_contrast": noise_to_contrast(noise)}
        assert not measure_blur(noisy.voxels, **known).is_blurred
        blurred = Rician(level, 0).apply(Blur(1.0).apply(sample()))
        assert measure_blur(blurred.voxels, **known).is_blurred
