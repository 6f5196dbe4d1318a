"""Scanners of CT drawn at random: dose, kernel, tube current, slices, iterative reconstruction.

The noise of `lowdose` is that of one kernel and of filtered back projection. Real scanners differ
in the kernel, in how far slices share their data, and in the texture of iterative reconstruction,
which smooths fine noise more than coarse noise.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from MedEnhanceLib.core.arrays import Array, Floats
from MedEnhanceLib.core.imaging import gaussian_blur
from MedEnhanceLib.degradation.lowdose import ELECTRONIC, low_dose_noise

if TYPE_CHECKING:
    from numpy.random import Generator

# Ranges chosen by hand (decision 0068); no table isolates them.
#: Photons of a ray, ends of the Hann window in Nyquist frequencies; drawn by their logarithms.
_PHOTONS, _CUTOFF = (1.5e3, 3e5), (0.6, 4.0)
#: σ of the electronic noise in photons, exponent of the tube current.
_ELECTRONIC, _MODULATION = (0.0, 8.0), (0.0, 0.6)
#: Shares of scanners whose slices share data, and that reconstruct iteratively.
_SHARING, _ITERATIVE = 0.6, 0.3
#: Largest share of each neighbor in a slice; of noise that is smoothed; its σ in pixels.
_MOST_OF_NEIGHBOR, _SMOOTHED, _SMOOTHED_PX = 0.25, (0.2, 0.75), (0.6, 1.5)
#: σ of the Gaussian that falls to one half where a Hann window does, in pixels, times its end; and
#: the end whose blur clean volumes have already.
_BLUR_PX, _SHOWN_ALREADY = 0.75, 2.0


@dataclass(frozen=True)
class CtScanner:
    """A scanner and its dose.

    Attributes:
        photons, electronic, cutoff, modulation: as in `low_dose_noise`.
        neighbor: share of each neighboring slice in a slice's data.
        smoothed: share of the noise that iterative reconstruction replaces by a smooth copy.
        smoothed_px: σ of that copy's Gaussian, in pixels.
    """

    photons: float
    electronic: float = ELECTRONIC
    cutoff: float = 2.0
    modulation: float = 0.0
    neighbor: float = 0.0
    smoothed: float = 0.0
    smoothed_px: float = 1.0

    @classmethod
    def draw(cls, rng: Generator, photons: tuple[float, float] = _PHOTONS) -> CtScanner:
        """Draw a scanner; photons: least and most of a ray."""
        shares, is_iterative = rng.random() < _SHARING, rng.random() < _ITERATIVE
        return cls(
            photons=float(np.exp(rng.uniform(*np.log(photons)))),
            electronic=float(rng.uniform(*_ELECTRONIC)),
            cutoff=float(np.exp(rng.uniform(*np.log(_CUTOFF)))),
            modulation=float(rng.uniform(*_MODULATION)),
            neighbor=float(rng.uniform(0, _MOST_OF_NEIGHBOR)) if shares else 0.0,
            smoothed=float(rng.uniform(*_SMOOTHED)) if is_iterative else 0.0,
            smoothed_px=float(rng.uniform(*_SMOOTHED_PX)),
        )

    def shown(self, hu: Array) -> Floats:
        """Return a clean volume [K, J, I] as the kernel shows it without noise."""
        blur = _BLUR_PX * math.sqrt(max(0.0, self.cutoff**-2 - _SHOWN_ALREADY**-2))
        values = np.asarray(hu, np.float32)
        return gaussian_blur(values, blur) if blur > 0 else values

    def noise(self, hu: Array, spacing: Sequence[float], rng: Generator) -> Floats:
        """Draw the noise of a scan.

        Args:
            hu: [K, J, I], whole slices.
            spacing: (i, j, k) in mm.
            rng: draws the noise.
        Returns noise in HU, float32 [K, J, I].
        """
        noise = low_dose_noise(
            hu, spacing, self.photons, self.electronic, rng,
            cutoff=self.cutoff, modulation=self.modulation,
        )  # fmt: skip
        if self.neighbor > 0 and len(noise) > 1:
            padded = np.pad(noise, ((1, 1), (0, 0), (0, 0)), mode="reflect")
            around = padded[:-2] + padded[2:]
            noise = (1 - 2 * self.neighbor) * noise + self.neighbor * around
        if self.smoothed > 0:
            smooth = gaussian_blur(noise, self.smoothed_px)
            noise = (1 - self.smoothed) * noise + self.smoothed * smooth
        return np.asarray(noise, np.float32)
