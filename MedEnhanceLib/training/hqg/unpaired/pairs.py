"""Pairs to learn from: high-quality volumes, and these behind the scanner and inverted as in use.

A pair depends on the seed and its number alone: it is the same in a resumed training.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from MedEnhanceLib.core.arrays import Array, Floats, Mask
from MedEnhanceLib.core.geometry import Geometry
from MedEnhanceLib.core.modality import profile_of
from MedEnhanceLib.core.volume import Volume
from MedEnhanceLib.hqg.config import EnhanceConfig
from MedEnhanceLib.hqg.enhancer import enhance
from MedEnhanceLib.hqg.scanner_network import top_of
from MedEnhanceLib.scanner.invert import Inversion, invert
from MedEnhanceLib.scanner.measure import scale_of, softened, tissue_of
from MedEnhanceLib.scanner.scanner import Scanner
from MedEnhanceLib.training.hqg.unpaired.behind import drawn, put_behind
from MedEnhanceLib.training.hqg.view_slabs import (
    CONTRAST_HU,
    PATCH,
    PLANTED_IN_HU,
    TrainingSlab,
    plant,
)

# Chosen by hand (decision 0109).
#: Most slices, rows and columns of a pair.
_MOST = (24, 192, 192)
#: Values in which lesions are planted, and their contrast; of CT as in low dose.
_PLANTED_IN, _CONTRAST = (0.15, 1.0), (0.03, 0.4)
#: Spread of the logarithm of an exponent that changes the contrast of patients.
_EXPONENT = 0.15
#: Values from here on are tissue of CT, HU.
_TISSUE_HU = -400.0
#: Units of a simulated scan for one of the network's scale, as scans have.
_UNITS = np.float32(1000)


@dataclass(frozen=True, eq=False)
class Pair:
    """A clean volume, and what the inversion made of its scan.

    Attributes:
        clean: [K, J, I] on the network's scale.
        planted: what lesions add to it.
        inversion: of the scan, in the units of the scan.
        sigma: of the scan's noise, in these units.
    """

    clean: Floats
    planted: Floats
    inversion: Inversion
    sigma: float

    @property
    def top(self) -> np.float32:
        """What is 1 on the network's scale."""
        return np.float32(top_of(self.inversion))

    @property
    def tissue(self) -> Mask:
        """Where there is tissue."""
        if profile_of(self.inversion.scanner.modality).is_absolute:
            return np.asarray(self.clean > _TISSUE_HU / _UNITS)
        return tissue_of(softened(self.clean, self.inversion.spacing))

    def slab(self) -> TrainingSlab:
        """Return it for training, at least as large as a patch."""
        top, rim = self.top, [(0, 0), *((0, max(0, PATCH - n)) for n in self.clean.shape[1:])]
        tissue: Array = self.tissue
        weight: Array = np.where(self.planted != 0, 64, np.where(tissue, 16, 4)).astype(np.uint8)
        images = [self.inversion.noisy / top, self.inversion.voxels / top, self.clean]
        noisy, inverted, clean = (
            np.pad(each, rim, mode="edge").astype(np.float16) for each in images
        )
        weight, tissue = (np.pad(each, rim) for each in (weight, tissue))
        sigma = np.full(clean.shape, self.sigma / top, np.float16)
        return TrainingSlab(noisy, inverted, sigma, clean, weight, tissue)


@dataclass(frozen=True)
class PairMaker:
    """Makes pairs by number: the same in another process.

    Attributes:
        volumes: of high quality, in canonical order.
        scanner: as measured.
        model: that removes the noise, by name or folder.
        seed: of all.
    """

    volumes: Sequence[Volume]
    scanner: Scanner
    model: str
    seed: int

    def slabs(self, number: int) -> list[TrainingSlab]:
        """Make the slab of a number, for a pool of crops."""
        return [self.make(number).slab()]

    def make(self, number: int) -> Pair:
        """Make the pair of a number."""
        rng = np.random.default_rng([self.seed, 7, number])
        volume = self.volumes[int(rng.integers(len(self.volumes)))]
        starts = [
            int(rng.integers(max(1, side - most + 1)))
            for side, most in zip(volume.shape, _MOST, strict=True)
        ]
        at = tuple(slice(s, s + most) for s, most in zip(starts, _MOST, strict=True))
        clean: Floats = volume.voxels[at].astype(np.float32)
        sides = volume.geometry.spacing
        spacing = sides[::-1]
        scale, values, contrast = _UNITS, PLANTED_IN_HU, CONTRAST_HU
        if not volume.profile.is_absolute:
            clean = np.maximum(clean, np.float32(0))
            clean /= np.float32(scale_of(softened(clean, spacing)))
            clean **= np.float32(np.exp(rng.uniform(-_EXPONENT, _EXPONENT)))
            values, contrast = _PLANTED_IN, _CONTRAST
        before = clean.copy()
        plant(clean, sides, rng, values, contrast)
        if not volume.profile.is_absolute:
            clean = np.maximum(clean, np.float32(0))
            scale = np.float32(scale_of(softened(clean, spacing)))
        clean, lesions = clean / scale, (clean - before) / scale
        noisy = _UNITS * put_behind(drawn(self.scanner, rng), clean, spacing, rng)
        scan = Volume(noisy, Geometry(spacing=sides), modality=volume.modality)
        result = enhance(scan, EnhanceConfig(model=self.model, device="cpu"))
        sigma = result.noises[0].level
        inversion = invert(self.scanner, result.volume.voxels, scan, sigma)
        return Pair(clean, lesions, inversion, sigma)
