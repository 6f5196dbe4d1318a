"""High-quality volumes behind a measured scanner, inverted as in use: what a network learns from.

contrast → bias field → resolution → noise → enhanced and inverted
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from MedEnhanceLib.core.arrays import Array, Floats
from MedEnhanceLib.core.geometry import Geometry
from MedEnhanceLib.core.imaging import gaussian_blur
from MedEnhanceLib.core.modality import profile_of
from MedEnhanceLib.core.volume import Volume
from MedEnhanceLib.degradation.acquisition import bias_field
from MedEnhanceLib.hqg.config import EnhanceConfig
from MedEnhanceLib.hqg.enhancer import enhance
from MedEnhanceLib.hqg.scanner_network import top_of
from MedEnhanceLib.noise.tissue_blocks import BLOCK
from MedEnhanceLib.scanner.invert import filtered, invert
from MedEnhanceLib.scanner.measure import scale_of, softened, tissue_of
from MedEnhanceLib.scanner.scanner import Curve, Measured, Scanner
from MedEnhanceLib.training.hqg.view_slabs import PATCH, TrainingSlab, plant, weight_of

# Chosen by hand (decision 0109).
#: Most slices, rows and columns of a slab.
_MOST = (24, 192, 192)
#: Spread of the logarithm of an exponent that changes the contrast of patients.
_EXPONENT = 0.15
#: Value of MR that lesions are planted around as around 0 HU, and HU for one of the scale.
_PLANTED_AT, _PLANTED_HU = np.float32(0.6), np.float32(500)
#: Units of a simulated scan for one of the scale; tissue of CT on the scale.
_UNITS, _TISSUE = np.float32(1000), np.float32(-0.4)
#: σ in mm of a blur that leaves slow changes.
_SLOW_MM = 8.0


@dataclass(frozen=True)
class ScannedSlabMaker:
    """Makes slabs by number: the same in another process.

    Attributes:
        volumes: of high quality, in canonical order.
        scanner: as measured.
        model: that removes the noise, by name or folder.
        seed: of all.
        slow_changes: whether the target differs from the inversion in slow changes, too: rests of
            field and curve, which no patch shows, and which a network would learn by heart.
    """

    volumes: Sequence[Volume]
    scanner: Scanner
    model: str
    seed: int
    slow_changes: bool = False

    def make(self, number: int) -> list[TrainingSlab]:
        """Make the slab of this number."""
        rng = np.random.default_rng([self.seed, 7, number])
        volume = self.volumes[int(rng.integers(len(self.volumes)))]
        starts = [
            int(rng.integers(max(1, side - most + 1)))
            for side, most in zip(volume.shape, _MOST, strict=True)
        ]
        at = tuple(slice(s, s + most) for s, most in zip(starts, _MOST, strict=True))
        clean, filled = _with_lesions(volume.crop(*at), rng)
        noisy = _UNITS * put_behind(self.scanner, clean, volume.geometry.spacing, rng)
        scan = Volume(noisy, Geometry(spacing=volume.geometry.spacing), modality=volume.modality)
        result = enhance(scan, EnhanceConfig(model=self.model, device="cpu"))
        sigma = result.noises[0].level
        inversion = invert(self.scanner, result.volume.voxels, scan, sigma)
        top, tissue = np.float32(top_of(inversion)), clean > _TISSUE
        if not volume.profile.is_absolute:
            tissue = tissue_of(softened(clean, inversion.spacing))
        noisy, inverted = inversion.noisy / top, inversion.voxels / top
        if not self.slow_changes:
            k, j, i = (_SLOW_MM / mm for mm in inversion.spacing)
            clean = clean + gaussian_blur(inverted - clean, (j, i), sigma_slices=k)
        # As large as a patch at least; what is added counts for nothing.
        rim = [(0, 0), *((0, max(0, PATCH - side)) for side in clean.shape[1:])]
        images = noisy, inverted, clean
        noisy, inverted, target = (
            np.pad(each, rim, mode="edge").astype(np.float16) for each in images
        )
        weight, is_tissue = (np.pad(each, rim) for each in (weight_of(filled), tissue))
        level: Array = np.full(target.shape, sigma / top, np.float16)
        return [TrainingSlab(noisy, inverted, level, target, weight, is_tissue)]


def _with_lesions(volume: Volume, rng: np.random.Generator) -> tuple[Floats, Floats]:
    """Bring a volume to the scale, change its contrast, and plant lesions.

    Returns it, 1 for the 99th percentile of tissue, of CT a thousand HU, and how much of each
    voxel lesions fill.
    """
    spacing = volume.geometry.spacing
    clean: Floats = volume.voxels.astype(np.float32)
    if volume.profile.is_absolute:
        filled = plant(clean, spacing, rng)
        return clean / _UNITS, filled
    clean = _to_scale(clean, spacing)
    clean = clean ** np.float32(np.exp(rng.uniform(-_EXPONENT, _EXPONENT)))
    hu = _PLANTED_HU * (clean - _PLANTED_AT)
    filled = plant(hu, spacing, rng)
    return _to_scale(hu / _PLANTED_HU + _PLANTED_AT, spacing), filled


def _to_scale(voxels: Floats, spacing: tuple[float, float, float]) -> Floats:
    values: Floats = np.maximum(voxels, 0)
    values /= np.float32(scale_of(softened(values, spacing[::-1])))
    return values


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
    unit = 1 / _UNITS if is_absolute else scale_of(softened(values, sides))
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
