"""How near a result comes to the clean scan that nobody has: two volumes made of one scan.

The scan is y = x + n. A field z is drawn with the covariance of the noise n. Then the noises of

    first = y + z / 2    and    second = y − 2 z

are independent, because cov(n + z / 2, n − 2 z) = cov(n) − cov(z) = 0. The first is enhanced, the
second judges it: |result − second|² − |first − second|² has the same mean as the unknown
|result − x|² − |first − x|². This holds as far as z has the level and the spectrum of the noise. A
variance of z that is too large by δ σ² makes the error of a result that passes the share p of the
noise wrong by (2 p − 1) δ σ²: too small, and nearly alike for all that remove most of it.

Source: the coupled bootstrap, Oliveira, Lei & Tibshirani, arXiv 2111.09447, and
Recorrupted-to-Recorrupted, Pang et al., CVPR 2021. The field with a measured spectrum is ours.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt

from MedEnhanceLib.nets.noise import NoiseEstimate

Floats = npt.NDArray[np.float32]
Mask = npt.NDArray[np.bool_]
#: first = y + SHARE z, second = y − z / SHARE.
SHARE = 0.5
_SIDE = 4
_ROUNDS = 12


@dataclass(frozen=True, eq=False)
class Halves:
    """first: what is enhanced. added: z. variance: of the scan's noise, its mean over `tissue`."""

    first: Floats
    added: Floats
    variance: float
    tissue: Mask

    @property
    def error_before(self) -> float:
        """Mean square of the noise of the first half."""
        return (1 + SHARE**2) * self.variance

    def error_of(self, result: npt.NDArray[Any]) -> float:
        """Estimated mean square error against the clean scan; below 0 where σ is overestimated."""
        change = (result.astype(np.float32) - self.first)[self.tissue].astype(np.float64)
        across = float((change * self.added[self.tissue]).mean())
        return self.error_before + float((change**2).mean()) + 2 * (SHARE + 1 / SHARE) * across


def split(
    voxels: npt.NDArray[Any], noise: NoiseEstimate, sigma: Floats, tissue: Mask, seed: int
) -> Halves:
    """Two halves of a scan.

    Seeds 2 n and 2 n + 1 draw the same field with opposite signs: what the noise of the scan and
    the field have in common by chance cancels in their mean.

    Args:
        voxels: [K, J, I].
        noise: measured in it; its spectrum and whether magnitudes are Rician.
        sigma: map of σ at the voxels.
        tissue: where results are judged.
        seed: of the field.
    """
    field = sigma * colored(voxels.shape, noise.spectrum, seed // 2)
    variance = float((sigma[tissue].astype(np.float64) ** 2).mean())
    field *= np.float32(np.sqrt(variance / (field[tissue].astype(np.float64) ** 2).mean()))
    values = voxels.astype(np.float32)
    field *= values > values.min()  # nothing is added where the scan is cut off
    field *= 1 if seed % 2 else -1
    first = values + np.float32(SHARE) * field
    # Magnitudes stay positive; only air is so near to 0.
    return Halves(np.abs(first) if values.min() >= 0 else first, field, variance, tissue)


@lru_cache(maxsize=4)
def _field(shape: tuple[int, ...], spectrum: bytes, seed: int) -> Floats:
    wanted = np.frombuffer(spectrum, np.float32).reshape((_SIDE,) * 3).astype(np.float64)
    white = np.fft.rfftn(np.random.default_rng(seed).standard_normal(shape))
    frequency = [np.abs(np.fft.fftfreq(n)) for n in shape[:2]] + [np.fft.rfftfreq(shape[2])]
    power, found = wanted.copy(), np.ones(shape, np.float32)
    for _ in range(_ROUNDS):
        gain = np.sqrt(_between(power, frequency))
        found = np.fft.irfftn(white * gain, s=shape, axes=(0, 1, 2)).astype(np.float32)
        # The transform of small blocks mixes frequencies: what it makes of the field is compared.
        power *= wanted / np.maximum(spectrum_of(found), 1e-6 * wanted.max())
        power = np.clip(power, 0, 100 * wanted.max())
    return found / np.float32(found.std())


def colored(shape: tuple[int, ...], spectrum: Floats, seed: int) -> Floats:
    """Gaussian noise with σ = 1 and the spectrum of a `NoiseEstimate`, [K, J, I]."""
    return _field(tuple(shape), np.ascontiguousarray(spectrum, np.float32).tobytes(), seed).copy()


def spectrum_of(field: Floats) -> npt.NDArray[np.float64]:
    """Mean squares of the coefficients of blocks of 4 × 4 × 4 voxels, with mean 1."""
    from scipy.fft import dctn

    k, j, i = (side // _SIDE for side in field.shape)
    blocks = field[: _SIDE * k, : _SIDE * j, : _SIDE * i].reshape(k, _SIDE, j, _SIDE, i, _SIDE)
    power = (dctn(blocks, axes=(1, 3, 5), norm="ortho") ** 2).mean(axis=(0, 2, 4))
    mean: npt.NDArray[np.float64] = power / power.mean()
    return mean


def _between(
    power: npt.NDArray[np.float64], frequency: list[npt.NDArray[np.float64]]
) -> npt.NDArray[np.float64]:
    """Power at all frequencies of a volume, linear between the four of each axis."""
    for axis, values in enumerate(frequency):
        places = np.minimum(values * 2 * _SIDE, _SIDE - 1)
        low = np.minimum(places.astype(int), _SIDE - 2)
        share = (places - low).reshape([-1 if other == axis else 1 for other in range(3)])
        power = power.take(low, axis) * (1 - share) + power.take(low + 1, axis) * share
    return power
