"""The texture of what is left: the noise's power spectrum."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from _enhancement_data import Floats, Mask

Doubles = npt.NDArray[np.float64]
_SIDE = 32
_FLAT_SHARE = 0.85


def noise_spectrum(error: Floats, flat: Mask, pixel_mm: float) -> tuple[Doubles, Doubles] | None:
    """Radial noise power in flat regions: frequencies in 1/mm, mean power per ring.

    Squares of 32 pixels that are flat for the most part, every 16 pixels; each one's mean is
    taken away. None where there is no such square.
    """
    total, count = np.zeros((_SIDE, _SIDE)), 0
    step = _SIDE // 2
    for plane, is_flat in zip(error, flat, strict=True):
        for j in range(0, plane.shape[0] - _SIDE + 1, step):
            for i in range(0, plane.shape[1] - _SIDE + 1, step):
                inside = is_flat[j : j + _SIDE, i : i + _SIDE]
                share = inside.mean()
                if share >= _FLAT_SHARE:
                    square = plane[j : j + _SIDE, i : i + _SIDE].astype(np.float64)
                    square = np.where(inside, square - square[inside].mean(), 0)
                    total += np.abs(np.fft.fft2(square)) ** 2 / share
                    count += 1
    if not count:
        return None
    radius = np.hypot(np.fft.fftfreq(_SIDE)[:, None], np.fft.fftfreq(_SIDE)) * _SIDE
    ring = np.rint(radius).astype(int)
    rings = _SIDE // 2 + 1
    power = np.bincount(ring.ravel(), total.ravel())[1:rings]
    members = np.bincount(ring.ravel())[1:rings]
    frequency = np.arange(1, rings) / (_SIDE * pixel_mm)
    return frequency, power / members / count


def compare_spectra(error: Floats, noise: Floats, flat: Mask, pixel_mm: float) -> dict[str, float]:
    """Of an error against the noise that was added: power left, the peak's and the mean's shift.

    shape: 0 where the error has the noise's texture, 1 where no frequency is shared.
    """
    ours, theirs = (noise_spectrum(image, flat, pixel_mm) for image in (error, noise))
    if ours is None or theirs is None:
        return {}
    frequency, power = ours
    added = theirs[1]
    # Power in a ring grows with its circumference.
    energy_left, energy_added = power * frequency, added * frequency
    share_left, share_added = (e / e.sum() for e in (energy_left, energy_added))
    return {
        "nps_power_left": float(energy_left.sum() / energy_added.sum()),
        "nps_peak_shift_per_mm": float(
            frequency[int(power.argmax())] - frequency[int(added.argmax())]
        ),
        "nps_mean_shift_per_mm": float((frequency * (share_left - share_added)).sum()),
        "nps_shape_distance": float(np.abs(share_left - share_added).sum() / 2),
    }
