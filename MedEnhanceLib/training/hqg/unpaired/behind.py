"""Puts clean volumes behind a measured scanner: contrast → field → resolution → noise."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np

from MedEnhanceLib.core.arrays import Doubles, Floats
from MedEnhanceLib.core.modality import profile_of
from MedEnhanceLib.degradation.acquisition import bias_field
from MedEnhanceLib.noise.tissue_blocks import BLOCK
from MedEnhanceLib.scanner.invert import filtered
from MedEnhanceLib.scanner.measure import scale_of, softened
from MedEnhanceLib.scanner.scanner import AXES, Curve, Measured, Scanner

_HU = 1000.0
#: Least step of a drawn curve of contrast, which has to ascend.
_LEAST_STEP = 1e-5


def drawn(scanner: Scanner, rng: np.random.Generator) -> Scanner:
    """Draw a scanner within the intervals of a measured one."""
    changes: dict[str, Any] = {
        name: _drawn_curve(axis, rng, np.minimum.accumulate)
        for name, axis in zip(AXES, scanner.axes, strict=True)
    }
    if scanner.contrast is not None:
        curve = _drawn_curve(scanner.contrast, rng, np.maximum.accumulate)
        ramp = _LEAST_STEP * np.arange(len(curve.values))
        values = tuple((np.array(curve.values) + ramp).tolist())
        changes["contrast"] = replace(curve, values=values)
    for name in ("low_quality", "high_quality"):
        pool = getattr(scanner, name)
        figures = {each: _drawn_figure(getattr(pool, each), rng) for each in ("noise", "field")}
        changes[name] = replace(pool, **figures)
    return replace(scanner, **changes)


def _drawn_figure(figure: Measured, rng: np.random.Generator) -> Measured:
    return replace(figure, value=float(rng.uniform(figure.low, figure.high)))


def _drawn_curve(
    curve: Curve, rng: np.random.Generator, in_order: Callable[[Doubles], Doubles]
) -> Curve:
    """Shift a whole curve within its interval, as neighboring values err alike."""
    share = float(rng.uniform(-1, 1))
    end = np.array(curve.high if share > 0 else curve.low)
    values = np.array(curve.values)
    return replace(curve, values=tuple(in_order(values + abs(share) * (end - values)).tolist()))


def put_behind(
    scanner: Scanner, clean: Floats, spacing: Sequence[float], rng: np.random.Generator
) -> Floats:
    """Simulate the scan of a clean volume.

    Args:
        scanner: as measured, or drawn.
        clean: [K, J, I], without noise; 1 is the 99th percentile of tissue, of CT a thousand HU.
        spacing: mm along k, j, i.
        rng: of the field and the noise.
    Returns float32 [K, J, I] on the same scale.
    """
    values, low, good = clean, scanner.low_quality, scanner.high_quality
    is_absolute = profile_of(scanner.modality).is_absolute
    if scanner.contrast is not None:
        values = scanner.contrast.at(np.maximum(values, 0))
    if not is_absolute:
        # The high-quality volumes have the field of their anatomy.
        deviation = np.sqrt(max(low.field.value**2 - good.field.value**2, 0.0))
        log_field = np.log(bias_field(clean.shape, 0.5, rng, spacing_mm=spacing[::-1]))
        values = values * np.exp(log_field * np.float32(deviation / log_field.std()))
    values = filtered(values, scanner, spacing, lambda transfer: transfer)
    unit = 1 / _HU if is_absolute else scale_of(softened(values, spacing))
    sigma = np.float32(low.noise.value * unit)
    noise = partial(_noise, scanner.spectrum, clean.shape, rng)
    noisy: Floats = values + sigma * noise()
    if rng.random() < scanner.rician_share:
        noisy = np.hypot(noisy, sigma * noise())
    return noisy if is_absolute else np.maximum(noisy, np.float32(0))


def _noise(spectrum: Sequence[float], shape: Sequence[int], rng: np.random.Generator) -> Floats:
    """Draw noise of σ 1 and a spectrum as `NoiseEstimate` states it, [K, J, I]."""
    white = rng.standard_normal(shape, np.float32)
    known = np.reshape(spectrum, (BLOCK,) * 3)
    cosines = [np.abs(np.fft.fftfreq(side)) * 2 * BLOCK for side in shape]
    cosines[-1] = cosines[-1][: shape[-1] // 2 + 1]
    orders, units = np.arange(BLOCK), np.eye(BLOCK)
    weights = [np.stack([np.interp(at, orders, unit) for unit in units], -1) for at in cosines]
    power = np.einsum("ka,jb,ic,abc->kji", *weights, known, optimize=True)
    noise = np.fft.irfftn(np.fft.rfftn(white) * np.sqrt(power), tuple(shape))
    scaled: Floats = (noise / noise.std()).astype(np.float32)
    return scaled
