"""Classical denoisers at settings a careful user would choose, with σ estimated from the input."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.ndimage import distance_transform_edt, gaussian_filter

from MedEnhanceLib.core.arrays import robust_max
from MedEnhanceLib.core.imaging import gaussian_blur
from MedEnhanceLib.core.volume import Volume
from MedEnhanceLib.degradation.lowdose import low_dose_noise

Floats = npt.NDArray[np.float32]
_MAD_TO_SIGMA = 1 / 0.6745
#: CT noise is correlated, so that diagonal differences see less of it; measured on STS_012.
_CT_DIAGONAL_SHARE = 0.65
#: Slices between which noise is independent, and pixels over which a window rises.
_APART, _RISE = 3, 12.0


def nlm_mr(volume: Volume, *, rician: bool = True) -> Volume:
    """3D non-local means, then the Rician bias of the mean undone, if there is one."""
    noisy = volume.voxels.astype(np.float32)
    sigma = noise_in_tissue(noisy)
    smooth = _non_local_means(noisy, 0.4 * sigma, sigma)
    return volume.with_voxels(undo_rician_bias(smooth, sigma) if rician else smooth)


def nlm_ct(volume: Volume) -> Volume:
    """3D non-local means; σ is the noise between slices, or, of a single slice, within it."""
    noisy = volume.voxels.astype(np.float32)
    sigma = _ct_noise(noisy)
    return volume.with_voxels(_non_local_means(noisy, 0.3 * sigma, sigma))


def bm4d_mr(volume: Volume, sigma: float | None = None, *, rician: bool = True) -> Volume:
    """BM4D of a copy scaled to 1, then the Rician bias undone, if any; σ, or an estimate."""
    noisy = volume.voxels.astype(np.float32)
    sigma, top = sigma or noise_in_tissue(noisy), robust_max(noisy)
    if sigma < 1e-4 * top:
        return volume
    smooth = _bm4d(noisy / top, sigma / top) * np.float32(top)
    return volume.with_voxels(undo_rician_bias(smooth, sigma) if rician else smooth)


def bm4d_ct(volume: Volume) -> Volume:
    """BM4D with the spectrum of CT noise, on a copy in which the noise is equally strong.

    Noise is stronger where rays are longer: voxels are divided by a smooth map of σ before, and
    multiplied by it afterwards.
    """
    noisy = volume.voxels.astype(np.float32)
    sigma = ct_noise_map(noisy)
    psd = ct_spectrum(noisy.shape[1:], volume.geometry.spacing)
    psd = np.broadcast_to(psd / psd.mean() * noisy.size, noisy.shape)
    return volume.with_voxels(_bm4d(noisy / sigma, psd) * sigma)


def bm4d_measured(volume: Volume, where: npt.NDArray[np.bool_]) -> Volume:
    """BM4D of CT with the spectrum of the noise measured in even tissue of the scan itself.

    Slices `_APART` apart share the phantom and no noise: their differences have its spectrum in
    plane; those of nearer ones say how much noise neighbors share.

    Args:
        volume: CT.
        where: [J, I], one material in every slice.
    """
    noisy = volume.voxels.astype(np.float32)
    power = [np.square(noisy[n:] - noisy[:-n])[:, where].mean() for n in range(1, _APART + 1)]
    shared = [1 - float(each) / float(power[-1]) for each in power[:-1]]
    # Differences of neighbors have less power than the noise.
    sigma = ct_noise_map(noisy) / np.float32(max(0.1, 1 - shared[0]) ** 0.5)
    turns = 2 * np.pi * np.fft.fftfreq(len(noisy))
    along = 1 + sum(2 * each * np.cos(n * turns) for n, each in enumerate(shared, 1))
    plane = spectrum_between_slices(noisy / sigma, where)
    psd = np.maximum(along, 0.05)[:, None, None] * gaussian_filter(plane, 2.0, mode="wrap")
    return volume.with_voxels(_bm4d(noisy / sigma, psd / psd.mean() * noisy.size) * sigma)


def spectrum_between_slices(
    voxels: Floats, where: npt.NDArray[np.bool_]
) -> npt.NDArray[np.float64]:
    """Power of the noise in a material at the frequencies of a slice, [J, I]; where: [J, I]."""
    depth = distance_transform_edt(np.pad(where, 1))[1:-1, 1:-1]
    rise = np.clip(depth / _RISE, 0, 1)
    noise = voxels[_APART:] - voxels[:-_APART]
    noise = (noise - noise[:, where].mean(1)[:, None, None]) * rise**2 * (3 - 2 * rise)
    power: npt.NDArray[np.float64] = np.square(np.abs(np.fft.fft2(noise))).mean(axis=0)
    return power


def _bm4d(voxels: Floats, noise: float | npt.NDArray[np.float64]) -> Floats:
    import bm4d

    if not hasattr(np, "trapz"):
        # bm4d 4.2.5 calls it by the name that numpy 2 dropped.
        vars(np)["trapz"] = np.trapezoid
    profile = bm4d.BM4DProfile()
    profile.num_threads = 1  # with several the output varies, and waiting threads burn time
    return np.asarray(bm4d.bm4d(voxels, noise, profile), dtype=np.float32)


@lru_cache(maxsize=8)
def ct_spectrum(shape: tuple[int, int], spacing: tuple[float, ...]) -> npt.NDArray[np.float64]:
    """Power of simulated low-dose noise at the frequencies of an image of `shape`.

    From an ellipse of water that fills four fifths of the image, with a seed of its own: not the
    noise of any test. Periodograms of its middle, interpolated to the image's frequencies.
    """
    from scipy.ndimage import map_coordinates

    rows, columns = shape
    y, x = (np.linspace(-1, 1, size) for size in shape)
    water = np.where(y[:, None] ** 2 + x**2 < 0.8**2, 0.0, -1000.0)
    phantom = np.broadcast_to(water, (24, rows, columns))
    noise = low_dose_noise(phantom, spacing, 5e3, 5.0, np.random.default_rng(987654321))
    side = min(64, rows // 2, columns // 2)
    j, i = (rows - side) // 2, (columns - side) // 2
    middle = noise[:, j : j + side, i : i + side]
    middle = middle - middle.mean(axis=(1, 2), keepdims=True)
    window = np.hanning(side)[:, None] * np.hanning(side)
    power = (np.abs(np.fft.fft2(middle * window)) ** 2).mean(axis=0)
    places = np.meshgrid(np.fft.fftfreq(rows) * side, np.fft.fftfreq(columns) * side, indexing="ij")
    return np.asarray(map_coordinates(power, places, order=1, mode="grid-wrap"))


def ct_noise_map(voxels: Floats) -> Floats:
    """σ of the noise between slices around each voxel, smooth over 12 pixels and 4 slices."""
    sigma = _ct_noise(voxels)
    if len(voxels) < 2:
        return np.full(voxels.shape, sigma, np.float32)
    # Anatomy that changes from slice to slice is no noise: it is cut off.
    square = np.minimum((voxels[1:] - voxels[:-1]) ** 2 / 2, (3 * sigma) ** 2)
    square = np.concatenate((square, square[-1:]))
    return np.sqrt(np.maximum(gaussian_filter(square, (4, 12, 12)), (0.3 * sigma) ** 2))


def _ct_noise(noisy: Floats) -> float:
    """σ between slices, or, of a single slice, within it; in the body."""
    body = gaussian_blur(noisy, 2.0) > -300
    if len(noisy) > 1:
        return noise_between_slices(noisy, body)
    return _diagonal_noise(noisy, body) / _CT_DIAGONAL_SHARE


def noise_in_tissue(voxels: Floats) -> float:
    """σ from diagonal differences of 2 × 2 pixels in the foreground, where noise is Gaussian."""
    smooth = gaussian_blur(voxels, 1.0)
    return _diagonal_noise(voxels, smooth > 0.25 * robust_max(smooth))


def _diagonal_noise(voxels: Floats, where: npt.NDArray[np.bool_]) -> float:
    rows, columns = (size // 2 * 2 for size in voxels.shape[1:])
    corner = [voxels[:, j:rows:2, i:columns:2] for j in (0, 1) for i in (0, 1)]
    detail = (corner[0] - corner[1] - corner[2] + corner[3]) / 2
    return float(np.median(np.abs(detail[where[:, :rows:2, :columns:2]]))) * _MAD_TO_SIGMA


def noise_between_slices(voxels: npt.NDArray[Any], where: npt.NDArray[np.bool_]) -> float:
    """σ from differences of neighboring slices, which share anatomy but no noise."""
    difference = voxels[1:].astype(np.float32) - voxels[:-1]
    both = where[1:] & where[:-1]
    return float(np.median(np.abs(difference[both]))) * _MAD_TO_SIGMA / 2**0.5


def undo_rician_bias(mean: Floats, sigma: float) -> Floats:
    """The amplitude whose Rician mean is `mean`; what lies at or below the floor becomes 0.

    Source: Koay and Basser, J. Magn. Reson. 179 (2006) 317, by a table of the mean.
    """
    from scipy.special import ive

    amplitude = np.linspace(0, 60, 6001)
    x = amplitude**2 / 2
    expected = np.sqrt(np.pi / 2) * ((1 + x) * ive(0, x / 2) + x * ive(1, x / 2))
    corrected = np.interp(mean / sigma, expected, amplitude) * sigma
    return np.where(mean > expected[-1] * sigma, mean, corrected).astype(np.float32)


def _non_local_means(voxels: Floats, h: float, sigma: float) -> Floats:
    from skimage.restoration import denoise_nl_means

    result = denoise_nl_means(
        voxels, patch_size=5, patch_distance=5, h=h, sigma=sigma, fast_mode=True
    )
    return np.asarray(result, dtype=np.float32).reshape(voxels.shape)  # it drops an axis of one
