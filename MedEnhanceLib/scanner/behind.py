"""Puts a volume behind a measured scanner: contrast → bias field → resolution → noise."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from MedEnhanceLib.core.arrays import Floats
from MedEnhanceLib.core.modality import profile_of
from MedEnhanceLib.degradation.acquisition import bias_field
from MedEnhanceLib.noise.tissue_blocks import BLOCK
from MedEnhanceLib.scanner.invert import filtered
from MedEnhanceLib.scanner.measure import scale_of, softened
from MedEnhanceLib.scanner.scanner import Curve, Measured, Scanner

_HU = 1000.0


def put_behind(
    scanner: Scanner, clean: Floats, spacing: tuple[float, float, float], rng: np.random.Generator
) -> Floats:
    """Simulate the scan of a clean volume by a scanner within the intervals of a measured one.

    Args:
        scanner: as measured.
        clean: [K, J, I], 1 for the 99th percentile of tissue, of CT a thousand HU.
        spacing: mm along i, j, k.
        rng: of all that is drawn.
    Returns float32 [K, J, I] on the same scale.
    """
    low, good, values = scanner.low_quality, scanner.high_quality, clean
    is_absolute, sides = profile_of(scanner.modality).is_absolute, spacing[::-1]
    if scanner.contrast is not None:
        values = _drawn_curve(scanner.contrast, rng).at(np.maximum(values, 0))
    if not is_absolute:
        # High-quality volumes have the field of their anatomy.
        deviation = max(_drawn(low.field, rng) ** 2 - good.field.value**2, 0.0) ** 0.5
        log_field = np.log(bias_field(clean.shape, 0.5, rng, spacing_mm=spacing))
        values = values * np.exp(log_field * np.float32(deviation / log_field.std()))
    transfers = [_drawn_curve(axis, rng) for axis in scanner.axes]
    values = filtered(values, transfers, sides, lambda transfer: transfer)
    unit = 1 / _HU if is_absolute else scale_of(softened(values, sides))
    sigma = np.float32(_drawn(low.noise, rng) * unit)
    noisy = values + sigma * _noise(scanner.spectrum, clean.shape, rng)
    if rng.random() < scanner.rician_share:
        noisy = np.hypot(noisy, sigma * _noise(scanner.spectrum, clean.shape, rng))
    return noisy if is_absolute else np.maximum(noisy, np.float32(0))


def _drawn(figure: Measured, rng: np.random.Generator) -> float:
    return float(rng.uniform(figure.low, figure.high))


def _drawn_curve(curve: Curve, rng: np.random.Generator) -> Curve:
    """Shift a whole curve within its interval, as neighboring values err alike."""
    share, values = float(rng.uniform(-1, 1)), np.array(curve.values)
    end = np.array(curve.high if share > 0 else curve.low)
    return replace(curve, values=tuple((values + abs(share) * (end - values)).tolist()))


def _noise(spectrum: Sequence[float], shape: Sequence[int], rng: np.random.Generator) -> Floats:
    """Draw noise of σ 1 and a spectrum as `NoiseEstimate` states it, [K, J, I]."""
    cosines = [np.abs(np.fft.fftfreq(side)) * 2 * BLOCK for side in shape]
    cosines[-1] = cosines[-1][: shape[-1] // 2 + 1]
    orders, units = np.arange(BLOCK), np.eye(BLOCK)
    weights = [np.stack([np.interp(at, orders, unit) for unit in units], -1) for at in cosines]
    power = np.einsum("ka,jb,ic,abc->kji", *weights, np.reshape(spectrum, (BLOCK,) * 3))
    white = np.fft.rfftn(rng.standard_normal(shape, np.float32))
    noise = np.fft.irfftn(white * np.sqrt(power), tuple(shape), axes=(0, 1, 2))
    return np.asarray(noise / noise.std(), np.float32)
