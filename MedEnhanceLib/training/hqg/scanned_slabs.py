"""High-quality volumes behind a measured scanner, inverted as in use: what a network learns from.

contrast → bias field → resolution → noise → enhanced and inverted
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from MedEnhanceLib.core.arrays import Array, Floats, Mask
from MedEnhanceLib.core.geometry import Geometry, Triple
from MedEnhanceLib.core.imaging import gaussian_blur
from MedEnhanceLib.core.volume import Volume
from MedEnhanceLib.denoise.config import EnhanceConfig
from MedEnhanceLib.denoise.enhancer import enhance
from MedEnhanceLib.scanner.behind import put_behind
from MedEnhanceLib.scanner.corrector.scanner_network import top_of
from MedEnhanceLib.scanner.invert import invert
from MedEnhanceLib.scanner.measure import scale_of, softened, tissue_of
from MedEnhanceLib.scanner.scanner import Scanner
from MedEnhanceLib.training.hqg.patches import PATCH, TrainingSlab, draw_slab, plant, weight_of

# Chosen by hand (decision 0109).
#: Most slices, rows and columns of a slab.
MOST = (24, 192, 192)
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
        seed: of all.
        slow_changes: whether the target differs from the inversion in slow changes, too: rests of
            field and curve, which no patch shows, and which a network would learn by heart.
    """

    volumes: Sequence[Volume]
    scanner: Scanner
    seed: int
    slow_changes: bool = False

    def make(self, number: int) -> TrainingSlab:
        """Make the slab of this number."""
        rng = np.random.default_rng([self.seed, 7, number])
        volume = draw_slab(self.volumes, MOST, rng)
        clean, filled = _with_lesions(volume, rng)
        images, sigma, spacing = scanned(self.scanner, clean, volume, rng)
        tissue = _tissue_in(clean, volume)
        if not self.slow_changes:
            k, j, i = (_SLOW_MM / mm for mm in spacing)
            clean = clean + gaussian_blur(images[1] - clean, (j, i), sigma_slices=k)
        return _slab(*images, clean, sigma, weight_of(filled), tissue)


class LowQualitySlabMaker(ScannedSlabMaker):
    """Makes slabs of volumes that are scans of the scanner; their target is the inversion."""

    def make(self, number: int) -> TrainingSlab:
        """Make the slab of this number."""
        scan = draw_slab(self.volumes, MOST, np.random.default_rng([self.seed, 12, number]))
        (noisy, inverted), sigma, _ = _inverted(self.scanner, scan)
        nothing = np.zeros(scan.shape, np.uint8)
        return _slab(noisy, inverted, inverted, sigma, nothing, _tissue_in(inverted, scan))


def high_quality_slab(volumes: Sequence[Volume], rng: np.random.Generator) -> TrainingSlab:
    """Draw a slab of a volume of high quality as it is, on the scale."""
    volume = draw_slab(volumes, MOST, rng)
    values = on_scale(volume)
    nothing, tissue = np.zeros(values.shape, np.uint8), _tissue_in(values, volume)
    return _slab(values, values, values, 0.0, nothing, tissue)


def scanned(
    scanner: Scanner, clean: Floats, volume: Volume, rng: np.random.Generator
) -> tuple[tuple[Floats, Floats], float, Triple]:
    """Put a clean volume behind the scanner, and invert that; returns what `_inverted` does.

    Args:
        scanner: as measured.
        clean: [K, J, I], on the scale.
        volume: whose spacing and modality it has.
        rng: draws the scan.
    """
    return _inverted(scanner, _scan_of(scanner, clean, volume, rng))


def simulated_scan(scanner: Scanner, volume: Volume, rng: np.random.Generator) -> Volume:
    """Simulate the scan of a volume.

    Args:
        scanner: as measured.
        volume: of high quality.
        rng: of all that is drawn.
    """
    return _scan_of(scanner, on_scale(volume), volume, rng)


def _scan_of(scanner: Scanner, clean: Floats, volume: Volume, rng: np.random.Generator) -> Volume:
    spacing = volume.geometry.spacing
    noisy = _UNITS * put_behind(scanner, clean, spacing, rng)
    return Volume(noisy, Geometry(spacing=spacing), modality=volume.modality)


def _inverted(scanner: Scanner, scan: Volume) -> tuple[tuple[Floats, Floats], float, Triple]:
    """Enhance and invert a scan as in use.

    Returns it before and after, without field and with the same contrast, on the scale; σ of its
    noise on the scale; mm along k, j, i.
    """
    result = enhance(scan, EnhanceConfig(device="cpu"))
    sigma = result.noises[0].level
    inversion = invert(scanner, result.volume.voxels, scan, sigma)
    top = np.float32(top_of(inversion))
    images = inversion.noisy / top, inversion.voxels / top
    return images, float(sigma / top), inversion.spacing


def _tissue_in(values: Floats, volume: Volume) -> Mask:
    """Mark the tissue in values on the scale."""
    if volume.profile.is_absolute:
        return values > _TISSUE
    return tissue_of(softened(values, volume.geometry.spacing[::-1]))


def _slab(
    noisy: Floats, inverted: Floats, target: Floats, sigma: float, weight: Array, tissue: Mask
) -> TrainingSlab:
    """Make a slab as large as a patch at least; what is added counts for nothing."""
    rim = [(0, 0), *((0, max(0, PATCH - side)) for side in target.shape[1:])]
    images = [
        np.pad(each, rim, mode="edge").astype(np.float16) for each in (noisy, inverted, target)
    ]
    level: Array = np.full(images[0].shape, sigma, np.float16)
    return TrainingSlab(
        images[0], images[1], level, images[2], np.pad(weight, rim), np.pad(tissue, rim)
    )


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


def on_scale(volume: Volume) -> Floats:
    """Bring a volume to the scale: 1 for the 99th percentile of tissue, of CT a thousand HU."""
    values: Floats = volume.voxels.astype(np.float32)
    if volume.profile.is_absolute:
        return values / _UNITS
    return _to_scale(values, volume.geometry.spacing)


def _to_scale(voxels: Floats, spacing: tuple[float, float, float]) -> Floats:
    values: Floats = np.maximum(voxels, 0)
    values /= np.float32(scale_of(softened(values, spacing[::-1])))
    return values
