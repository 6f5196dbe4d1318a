"""Missing lines of k-space are found and completed; intact volumes are left alone."""

from __future__ import annotations

from functools import cache

import numpy as np
import numpy.typing as npt
import pytest

from MedEnhanceLib.core.metrics import psnr
from MedEnhanceLib.core.volume import Volume
from MedEnhanceLib.degrade import gaussian_blur, rician_noise
from MedEnhanceLib.errors import InputError
from MedEnhanceLib.hqg.artifacts import ArtifactEstimate, measure_artifacts, repair
from MedEnhanceLib.io import load
from MedEnhanceLib.nets.grouped import denoised
from MedEnhanceLib.runtime.resources import resource_folder

Floats = npt.NDArray[np.float32]


@cache
def slab() -> Floats:
    volume = load(resource_folder("samples") / "mni152_t1.nii.gz", modality="MR")
    voxels = np.maximum(volume.voxels[80:86, 20:212, 20:180].astype(np.float32), 0)
    return voxels / voxels.max()


def undersampled(
    center: float, share: float, *, axis: int = 1, seed: int = 0
) -> tuple[Floats, npt.NDArray[np.float64]]:
    """The magnitude image, and the lines as in `ArtifactEstimate`."""
    size = slab().shape[axis]
    frequency = np.abs(np.fft.fftfreq(size))
    kept = (frequency < center) | (np.random.default_rng(seed).random(size) < share)
    shape = [1, 1, 1]
    shape[axis] = size
    spectrum = np.fft.fft(slab(), axis=axis) * kept.reshape(shape)
    pairs = (kept.astype(float) + kept[-np.arange(size)]) / 2
    return np.abs(np.fft.ifft(spectrum, axis=axis)).astype(np.float32), pairs[: size // 2 + 1]


def shrink(voxels: Floats, sigma: float) -> Floats:
    """The grouped filter at this level."""
    return np.asarray(denoised(voxels, np.full(voxels.shape, sigma, np.float32)))


def moved(voxels: Floats, sigma_px: float, seed: int = 0) -> Floats:
    """Lines of k-space from four poses in each slice; the center of k-space is in place."""
    rng = np.random.default_rng(seed)
    ky, kx = (np.fft.fftfreq(side) for side in voxels.shape[1:])
    result = np.empty_like(voxels)
    for index, plane in enumerate(voxels):
        pose = np.searchsorted(np.sort(rng.uniform(-0.5, 0.5, 3)), ky)
        shift = rng.normal(0, sigma_px, (4, 2))[pose]
        shift = shift - shift[0]
        angle = -2 * np.pi * (ky[:, None] * shift[:, :1] + kx * shift[:, 1:])
        result[index] = np.abs(np.fft.ifft2(np.fft.fft2(plane) * np.exp(1j * angle)))
    return result


def smooth(voxels: Floats, sigma: float) -> Floats:
    """A denoiser for tests: shrinks what differs from a local mean by less than 2 σ."""
    mean = gaussian_blur(voxels, 1.0, sigma_slices=0.5)
    detail = voxels - mean
    kept: Floats = mean + detail * detail**2 / (detail**2 + (2 * sigma) ** 2)
    return kept


def measured(voxels: Floats) -> ArtifactEstimate:
    return measure_artifacts(Volume(voxels, modality="MR"))


def test_an_intact_volume_is_left_alone() -> None:
    noisy = rician_noise(slab(), 0.03, np.random.default_rng(0))
    for voxels in (slab(), noisy, gaussian_blur(slab(), 1.0)):
        found = measured(voxels)
        assert found.kind == "none" and not found.is_repairable
        assert np.array_equal(repair(voxels, found, noise=0.01, denoise=smooth), voxels)


@pytest.mark.parametrize("axis", [1, 2])
def test_missing_lines_are_found(axis: int) -> None:
    damaged, truth = undersampled(0.08, 0.5, axis=axis)
    found = measured(damaged)
    assert (found.kind, found.axis, found.is_repairable) == ("undersampling", axis, True)
    seen = np.isfinite(found.lines)
    assert (found.lines == truth)[seen].mean() > 0.9


@pytest.mark.slow
def test_completing_gains() -> None:
    damaged, _ = undersampled(0.08, 0.5)
    better = repair(damaged, measured(damaged), noise=0.01, denoise=shrink)
    plain = shrink(damaged, 0.01)
    assert psnr(slab(), better, 1.0) > psnr(slab(), plain, 1.0) + 1


def test_measured_lines_are_kept() -> None:
    damaged, _ = undersampled(0.08, 0.5)
    found = measured(damaged)
    last: list[Floats] = []

    def remembering(voxels: Floats, sigma: float) -> Floats:
        last.append(voxels)
        return smooth(voxels, sigma)

    repair(damaged, found, noise=0.005, denoise=remembering)
    whole = found.lines == 1
    before = np.fft.rfft(damaged, axis=1)[:, whole]
    after = np.fft.rfft(last[1], axis=1)[:, whole]
    assert np.linalg.norm(after - before) < 0.02 * np.linalg.norm(before)


def test_what_is_too_strong_is_not_repaired() -> None:
    damaged, _ = undersampled(0.03, 0.12)
    found = measured(damaged)
    assert found.kind == "undersampling" and not found.is_repairable
    assert "cannot be repaired" in found.reason
    assert np.array_equal(repair(damaged, found, noise=0.01, denoise=smooth), damaged)


@pytest.mark.parametrize("axis", [1, 2])
def test_motion_is_found_and_undone(axis: int) -> None:
    order = (0, 1, 2) if axis == 1 else (0, 2, 1)
    truth = slab().transpose(order)
    damaged = rician_noise(moved(slab(), 1.5), 0.03, np.random.default_rng(0)).transpose(order)
    found = measured(damaged)
    assert (found.kind, found.axis, found.is_repairable) == ("motion", axis, True)
    better = repair(damaged, found, noise=0.03, denoise=shrink)
    assert psnr(truth, better, 1.0) > psnr(truth, shrink(damaged, 0.03), 1.0) + 0.5


def test_zero_filling_is_no_artifact() -> None:
    spectrum = np.fft.fft(slab(), axis=1)
    spectrum[:, np.abs(np.fft.fftfreq(slab().shape[1])) > 0.3] = 0
    filled = np.abs(np.fft.ifft(spectrum, axis=1)).astype(np.float32)
    assert measured(filled).kind == "none"


def test_unusable_input_is_named() -> None:
    damaged, _ = undersampled(0.08, 0.5)
    found = measured(damaged)
    with pytest.raises(InputError, match="another grid"):
        repair(damaged[:, 2:], found, noise=0.01, denoise=smooth)
    with pytest.raises(InputError, match="noise is -1"):
        repair(damaged, found, noise=-1, denoise=smooth)
    with pytest.raises(InputError, match="sequence"):
        measure_artifacts(Volume(damaged[None], modality="MR"))
    assert measure_artifacts(Volume(damaged, modality="CT")).kind == "none"
