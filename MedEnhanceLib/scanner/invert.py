"""Inverts a measured scanner: noise → bias field → resolution → contrast, nothing learned.

    x̂ = c⁻¹(W (y / fᵃ))    y: denoised, f: field by N4, W: Wiener filter of each axis, c: curve

The curve takes shares of the 99th percentile of tissue: values are divided by that of the scan, and
multiplied by it afterwards, so that the result keeps the scan's own scale. HU have neither field
nor curve.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np

from MedEnhanceLib.core.arrays import Array, Doubles, Floats, Mask
from MedEnhanceLib.core.volume import Volume
from MedEnhanceLib.filters.bias_field import measure_bias_field
from MedEnhanceLib.runtime.progress import Monitor, attend
from MedEnhanceLib.scanner.measure import PASSES, scale_of, softened, tissue_of
from MedEnhanceLib.scanner.scanner import Curve, Scanner

#: What can be left out, in order.
STEPS = ("noise", "field", "resolution", "curve")
# Tuned on eight scans behind a simulated scanner (decision 0106).
#: Constant of the Wiener filter, over the square of the noise that is left to the contrast of
#: tissue; its limits: the lower one bounds amplification (to 1.9 along an axis), and with it
#: ringing. Half and twice of it lose 0.1 dB.
_CONSTANT, _LIMITS = 12.0, (0.08, 0.5)
#: Noise that is left after its removal is at least this share of σ.
_LEFT = 0.3
#: Tissue of CT, in HU.
_TISSUE_HU = -500.0
#: Voxels that are mirrored at both ends of an axis.
_MARGIN = 16
#: σ beyond which a voxel of the result, seen by the scanner again, contradicts the scan.
_CONTRADICTS = 3.0
#: Steps of correction, and the share of such voxels up to which none is taken.
_CORRECTIONS, _EXPLAINED = 3, 0.01


@dataclass(frozen=True, eq=False, kw_only=True)
class Inversion:
    """The result of an inversion, and what it undid.

    Attributes:
        voxels: float32 [K, J, I], in the units of the scan.
        noisy: the scan with its noise and blur, but without field and with the same contrast.
        scanner: that was inverted.
        steps: that were taken.
        spacing: mm along k, j, i.
        scale: 99th percentile of tissue.
        bias_field: the part of it that was removed.
        facts: as manifests record them.
    """

    voxels: Floats
    noisy: Floats
    scanner: Scanner
    steps: tuple[str, ...]
    spacing: tuple[float, float, float]
    scale: float = 1.0
    bias_field: Floats | float = 1.0
    facts: dict[str, Any] = field(default_factory=dict)

    def seen_again(self) -> Floats:
        """Put the result behind the scanner again, without noise."""
        values, scale = self.voxels, np.float32(self.scale)
        if "curve" in self.steps and self.scanner.contrast:
            values = scale * self.scanner.contrast.at(values / scale)
        values = values * self.bias_field
        if "resolution" in self.steps:
            values = filtered(values, self.scanner.axes, self.spacing, lambda transfer: transfer)
        return values


def invert(
    scanner: Scanner,
    denoised: Floats,
    scan: Volume,
    sigma: float,
    *,
    without: Collection[str] = (),
    monitor: Monitor | None = None,
) -> Inversion:
    """Undo what was measured of a scanner in one of its scans.

    Args:
        scanner: as measured.
        denoised: the scan without noise, float32 [K, J, I] in canonical order.
        scan: with noise, in the same order; MR or CT, as the scanner.
        sigma: of its noise.
        without: steps that are left out, beside those of the scanner.
        monitor: may cancel.
    """
    is_absolute = scan.profile.is_absolute
    left_out = {*without, *scanner.without, *(("field", "curve") if is_absolute else ())}
    steps = tuple(step for step in STEPS if step not in left_out)
    spacing = scan.geometry.spacing[::-1]
    noisy = scan.voxels.astype(np.float32)
    values = denoised if "noise" in steps else noisy
    facts: dict[str, Any] = {"steps": list(steps), "volumes": len(scanner.high_quality.files)}
    removed: Floats | float = 1.0
    if "field" in steps:
        measured = attend(
            partial(measure_bias_field, scan.with_voxels(values), passes=PASSES), monitor
        )[:]
        log_field, tissue = np.log(measured), _tissue_in(values / measured, scan)
        deviation = float(log_field[tissue].std())
        # What N4 finds in the high-quality pool as well is anatomy.
        anatomy = scanner.high_quality.field.value
        share = max(0.0, 1 - (anatomy / deviation) ** 2) if deviation > 0 else 0.0
        removed = np.exp(np.float32(share) * log_field)
        values = values / removed
        facts["field"] = {"deviation": round(deviation, 3), "share": round(share, 2)}
    before = noisy / removed
    tissue = _tissue_in(values, scan)
    noise = _root_mean_square(((values - before) * removed)[tissue])
    facts["noise_changed"] = float(f"{noise:.3g}")
    if "resolution" in steps:
        constant = _constant(values, before, tissue, sigma, steps)
        values = filtered(
            values, scanner.axes, spacing, lambda h: (1 + constant) * h / (h**2 + constant)
        )
        values = _corrected(values, noisy, removed, tissue, scanner, spacing, sigma)
        facts["resolution"] = {"constant": round(constant, 3)}
    values = values if is_absolute else np.maximum(values, 0)
    scale = 1.0
    if "curve" in steps and scanner.contrast:
        scale = scale_of(softened(values, spacing))
        values, before = (
            np.float32(scale) * scanner.contrast.inverse(each / np.float32(scale))
            for each in (values, before)
        )
    result = Inversion(
        voxels=values.astype(np.float32), noisy=before.astype(np.float32), scanner=scanner,
        steps=steps, spacing=spacing, scale=scale, bias_field=removed, facts=facts,
    )  # fmt: skip
    facts["inconsistent"] = round(contradictions(result, scan, sigma)[1], 4)
    return result


def _corrected(
    values: Floats,
    noisy: Floats,
    bias_field: Floats | float,
    tissue: Mask,
    scanner: Scanner,
    spacing: Sequence[float],
    sigma: float,
) -> Floats:
    """Give back what the scan shows beyond its noise, and the Wiener filter left out.

    That happens in scans of little noise, as the constant of the filter is bounded. Landweber's
    steps x ← x + f H r / max f², r: the part beyond σ of y − H f x.
    """
    step = np.float32(1 / np.max(bias_field) ** 2)
    for _ in range(_CORRECTIONS):
        rest = noisy - filtered(values * bias_field, scanner.axes, spacing, lambda h: h)
        contradicting = np.count_nonzero(np.abs(rest[tissue]) > _CONTRADICTS * sigma)
        if contradicting <= _EXPLAINED * np.count_nonzero(tissue):
            break
        rest = np.sign(rest) * np.maximum(np.abs(rest) - np.float32(sigma), 0)
        values = values + step * bias_field * filtered(rest, scanner.axes, spacing, lambda h: h)
    return values


def contradictions(result: Inversion, scan: Volume, sigma: float) -> tuple[Mask, float]:
    """Mark the tissue in which the result contradicts the scan, and return its share.

    That is where the result, put behind the scanner again, is more than 3 σ away from the scan;
    Gaussian noise alone gives .003.

    Args:
        result: of the inversion.
        scan: with noise, in canonical order.
        sigma: of its noise.
    """
    scan_voxels = scan.voxels.astype(np.float32)
    tissue = _tissue_in(scan_voxels, scan)
    away = tissue & (np.abs(result.seen_again() - scan_voxels) > _CONTRADICTS * sigma)
    return away, float(away.sum() / max(int(tissue.sum()), 1))


def _tissue_in(values: Floats, scan: Volume) -> Mask:
    if scan.profile.is_absolute:
        return values > _TISSUE_HU
    return tissue_of(softened(values, scan.geometry.spacing[::-1]))


def _root_mean_square(change: Array) -> float:
    return float(np.sqrt(np.mean(np.square(change), dtype=float)))


def _constant(
    values: Floats, before: Floats, tissue: Mask, sigma: float, steps: Collection[str]
) -> float:
    """Choose the constant of the Wiener filter by the noise that is left."""
    change = _root_mean_square((values - before)[tissue])
    left = max(np.sqrt(max(sigma**2 - change**2, 0.0)), _LEFT * sigma)
    ratio = (left if "noise" in steps else sigma) / max(float(values[tissue].std()), 1e-12)
    return float(np.clip(_CONSTANT * ratio**2, *_LIMITS))


def filtered(
    values: Floats,
    transfers: Sequence[Curve],
    spacing: Sequence[float],
    weight: Callable[[Doubles], Doubles],
) -> Floats:
    """Weight frequencies by the transfer along each axis; ends are mirrored.

    Args:
        values: [K, J, I].
        transfers: along k, j, i.
        spacing: mm along k, j, i.
        weight: transfer → factor.
    """
    for axis, curve in enumerate(transfers):
        side = values.shape[axis]
        margin = min(_MARGIN, side - 1)
        widths = [(margin, margin) if other == axis else (0, 0) for other in range(3)]
        padded = np.moveaxis(np.pad(values, widths, mode="reflect"), axis, -1)
        count = padded.shape[-1]
        places = np.fft.rfftfreq(count, spacing[axis])
        transfer = np.interp(places, (0, *curve.places), (1, *curve.values))
        spectrum = np.fft.rfft(padded) * weight(transfer).astype(np.float32)
        line = np.fft.irfft(spectrum, count)[..., margin : margin + side]
        values = np.moveaxis(line, -1, axis).astype(np.float32)
    return values
