"""Noise of CT at a lower dose, simulated in the projections.

    HU → μ → line integrals p (Joseph) → counts ~ Poisson(I₀ e⁻ᵖ) + electronic noise
       → error of the logarithm → ramp filter → back projection → noise in HU

Filtered back projection is linear, so FBP(noisy) − FBP(noise-free) = FBP(error): only the error is
reconstructed.

All simplifications: parallel beam over 180°, one energy, no scatter, no bowtie filter, no
correlation between neighboring detector elements, air outside the volume. In a cropped volume rays
are therefore shorter than in the patient, and the noise is that of the crop alone.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from MedEnhanceLib.core.arrays import Array, Doubles, Floats, Longs
from MedEnhanceLib.runtime.dependencies import require

if TYPE_CHECKING:
    from torch import Tensor

#: Linear attenuation of water at about 70 keV, the effective energy of a 120 kV spectrum.
MU_WATER_PER_MM = 0.0195
#: Views over 180°. Noise falls with photons × views: both are part of the dose.
VIEWS = 360
#: End of the reconstruction's Hann window, in Nyquist frequencies of the detector. At 2 the noise
#: has the spectrum measured in muscle of real CTs; at 1 it is far too smooth.
CUTOFF = 2.0
#: σ of the electronic noise of a usual detector, in photons.
ELECTRONIC = 5.0
#: Lower bound of the counts, for the logarithm.
_LOWEST_COUNT = 1.0
_SLAB = 32
_INDICES_AT_ONCE = 1 << 21


def low_dose_noise(
    hu: Array,
    spacing_mm: Sequence[float],
    photons: float,
    electronic: float,
    rng: np.random.Generator,
    *,
    cutoff: float = CUTOFF,
    modulation: float = 0.0,
) -> Floats:
    """Simulate the noise that a scan with `photons` per ray would add to a CT.

    Args:
        hu: [K, J, I] in HU; values below −1000 count as air.
        spacing_mm: along i, j (and k, not used), as in `Geometry`.
        photons: per ray before the patient, mean over the views; a ray is as wide as a pixel.
        electronic: σ of the electronic noise, in photons.
        rng: draws a seed for each slice first, so that the noise of a slice does not depend on the
            number of slices.
        cutoff: end of the Hann window on the ramp filter, in Nyquist frequencies: 1 is a soft
            kernel, inf the bare ramp.
        modulation: exponent with which the tube current of a view follows the attenuation of its
            thickest path: 0 constant, 0.5 least noise at the same dose (Gies et al., Med. Phys. 26
            (1999) 2235), 1 equal counts behind the patient.
    Returns noise in HU, float32 [K, J, I].
    """
    noise = np.zeros(hu.shape, dtype=np.float32)
    torch = require("torch", purpose="Simulating low-dose CT")
    scan = _Scan(hu.shape[1], hu.shape[2], float(spacing_mm[0]), float(spacing_mm[1]), VIEWS)
    seeds = rng.integers(2**63, size=(hu.shape[0],))
    with torch.inference_mode():
        for start in range(0, hu.shape[0], _SLAB):
            slab = np.asarray(hu[start : start + _SLAB], dtype=np.float32)
            mu = np.maximum(slab / 1000 + 1, 0) * np.float32(MU_WATER_PER_MM)
            integrals = scan.project(torch.from_numpy(mu))
            current = np.exp(modulation * integrals.amax(2, keepdim=True).double().numpy())
            sent = photons * (current / current.mean(axis=1, keepdims=True))
            error = _log_error(integrals.numpy(), sent, electronic, seeds[start : start + _SLAB])
            filtered = _filter(torch.from_numpy(error), scan.bin_mm, cutoff)
            noise[start : start + _SLAB] = scan.back_project(filtered).numpy()
    noise *= 1000 / MU_WATER_PER_MM
    return noise


def _log_error(integrals: Floats, photons: Array, electronic: float, seeds: Longs) -> Floats:
    """Draw the error of the line integrals: −ln(measured / expected), [K, views, bins]."""
    error = np.empty_like(integrals)
    for index, seed in enumerate(seeds):
        rng = np.random.default_rng(seed)
        expected = photons[index] * np.exp(-integrals[index].astype(np.float64))
        counts = rng.poisson(expected).astype(np.float64)
        if electronic > 0:
            counts += electronic * rng.standard_normal(counts.shape)
        np.maximum(counts, _LOWEST_COUNT, out=counts)
        error[index] = np.log(expected) - np.log(counts)
    return error


def _filter(sinogram: Tensor, bin_mm: float, cutoff: float) -> Tensor:
    """Apply the ramp filter along the detector; returns [K, views, bins], in 1/mm."""
    import torch

    bins = sinogram.shape[-1]
    length = 1 << (2 * bins - 1).bit_length()
    response = torch.from_numpy(ramp_response(length, bin_mm, cutoff))
    spectrum = torch.fft.rfft(sinogram, length)
    filtered: Tensor = torch.fft.irfft(spectrum * response, length)
    return filtered[..., :bins]


def ramp_response(length: int, bin_mm: float, cutoff: float) -> Floats:
    """Return the windowed, band-limited ramp at the frequencies of a real FFT, in 1/mm.

    Args:
        length: number of samples, padding included.
        bin_mm: distance between detector elements.
        cutoff: as in `low_dose_noise`.
    Source: Kak and Slaney, Principles of Computerized Tomographic Imaging (1988), eq. 3.61: the
    transform of the sampled kernel, which unlike |f| is right at frequency zero.
    """
    offset = np.arange(length)
    offset = np.minimum(offset, length - offset)
    kernel = np.zeros(length)
    kernel[0] = 1 / (4 * bin_mm)
    odd = offset % 2 == 1
    kernel[odd] = -1 / (bin_mm * (math.pi * offset[odd]) ** 2)
    response = np.fft.rfft(kernel).real
    share = np.minimum(np.linspace(0, 1 / cutoff, response.size), 1)
    response *= 0.5 + 0.5 * np.cos(math.pi * share)
    return response.astype(np.float32)


@dataclass(frozen=True)
class _Scan:
    """A parallel-beam geometry around an image of rows × columns, di × dj mm.

    Projection and back projection are sparse sums over pixels or detector bins, computed for all
    slices at once by `embedding_bag`: the indices are made once per slab, no matrix is stored.
    """

    rows: int
    columns: int
    di: float
    dj: float
    views: int

    @property
    def bin_mm(self) -> float:
        return min(self.di, self.dj)

    @property
    def bins(self) -> int:
        diagonal = math.hypot(self.rows * self.dj, self.columns * self.di)
        return math.ceil(diagonal / self.bin_mm) + 3

    @property
    def angles(self) -> Doubles:
        return np.linspace(0, math.pi, self.views, endpoint=False)

    def project(self, mu: Tensor) -> Tensor:
        """Compute line integrals [K, views, bins] of mu [K, J, I] in 1/mm.

        Source: Joseph, IEEE Trans. Med. Imaging 1 (1982) 192: one linear interpolation for each
        row that a steep ray crosses, or for each column that a flat one does.
        """
        import torch

        by_row = mu.permute(1, 2, 0).reshape(-1, mu.shape[0]).contiguous()
        by_column = mu.permute(2, 1, 0).reshape(-1, mu.shape[0]).contiguous()
        integrals = torch.empty(self.views, self.bins, mu.shape[0])
        s = (torch.arange(self.bins) - (self.bins - 1) / 2) * self.bin_mm
        for view, angle in enumerate(self.angles):
            cosine, sine = math.cos(angle), math.sin(angle)
            if abs(sine) * self.dj <= abs(cosine) * self.di:
                lines, across, table = (self.rows, self.dj), (self.columns, self.di), by_row
                along, over = cosine, sine
            else:
                lines, across, table = (self.columns, self.di), (self.rows, self.dj), by_column
                along, over = sine, cosine
            index, weight = _joseph(s, lines, across, along, over)
            integrals[view] = torch.nn.functional.embedding_bag(
                index, table, mode="sum", per_sample_weights=weight
            )
        return integrals.permute(2, 0, 1).contiguous()

    def back_project(self, filtered: Tensor) -> Tensor:
        """Sum over views of the filtered projections, times π / views: [K, J, I]."""
        import torch

        slices = filtered.shape[0]
        table = filtered.permute(1, 2, 0).reshape(-1, slices).contiguous()
        angles = torch.from_numpy(self.angles)
        cosine, sine = torch.cos(angles).float(), torch.sin(angles).float()
        first = torch.arange(self.views, dtype=torch.int32) * self.bins
        x = (torch.arange(self.columns) - (self.columns - 1) / 2) * (self.di / self.bin_mm)
        y = (torch.arange(self.rows) - (self.rows - 1) / 2) * (self.dj / self.bin_mm)
        image = torch.empty(self.rows, self.columns, slices)
        step = max(1, _INDICES_AT_ONCE // (2 * self.views * self.columns))
        for row in range(0, self.rows, step):
            over = y[row : row + step, None, None] * sine
            position = over + x[:, None] * cosine + (self.bins - 1) / 2
            low = position.floor()
            share = position.sub_(low)
            index = low.to(torch.int32).add_(first)
            image[row : row + step] = torch.nn.functional.embedding_bag(
                torch.stack((index, index + 1), dim=-1).flatten(0, 1).flatten(1),
                table,
                mode="sum",
                per_sample_weights=torch.stack((1 - share, share), dim=-1).flatten(0, 1).flatten(1),
            ).reshape(-1, self.columns, slices)
        return image.permute(2, 0, 1) * (math.pi / self.views)


def _joseph(
    s: Tensor, lines: tuple[int, float], across: tuple[int, float], along: float, over: float
) -> tuple[Tensor, Tensor]:
    """Find the pixels that rays cross on each line, and the length within them in mm.

    s: [bins], distance of each ray from the center, mm.
    lines, across: number and width (mm) of the lines that rays cross, and of the pixels on a line.
    along, over: cosine and sine of the rays' angle to the normal of the lines.
    Returns indices (int32) and weights (mm), both [bins, 2 × lines].
    """
    import torch

    count, line_mm = lines
    pixels, pixel_mm = across
    center = (torch.arange(count) - (count - 1) / 2) * line_mm
    position = (s[:, None] - center * over) / (along * pixel_mm) + (pixels - 1) / 2
    low = position.floor()
    share = position - low
    both = torch.stack((low, low + 1), dim=-1)
    weight = torch.stack((1 - share, share), dim=-1) * (line_mm / abs(along))
    weight = weight * ((both >= 0) & (both < pixels))
    index = both.clamp_(0, pixels - 1).to(torch.int32)
    index += (torch.arange(count, dtype=torch.int32) * pixels)[:, None]
    return index.flatten(1), weight.flatten(1)
