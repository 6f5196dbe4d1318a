"""Scanners that no code of the library contains, the volumes behind them, and lesions in these.

Intensities are shares of the 99th percentile of tissue, of CT HU; all arrays are [K, J, I] in
canonical order.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
import numpy.typing as npt
from _common import QUICK, SHARED_DATA
from _enhancement_data import Floats, Mask, Subject
from _enhancement_lesions import Lesion, even_tissue

from MedEnhanceLib.core.volume import Volume
from MedEnhanceLib.io import load
from MedEnhanceLib.noise.rician import rician_noise

Doubles = npt.NDArray[np.float64]
Transfer = Callable[[Doubles], Doubles]
#: Most slices, rows and columns around the center; the stored unit of MR.
SLAB, UNIT = (32, 224, 224), 1000.0
TISSUE, TISSUE_HU = 0.06, -500.0
_MARGIN = 8
#: Radii of planted lesions in mm, their distance, number, and contrast in MR and CT.
_RADII, _APART_MM, _LESIONS = (4.0, 9.0), 24.0, 12
_CONTRAST = {"MR": (0.08, 0.25), "CT": (30.0, 100.0)}


def _even(_cycles: Doubles) -> Doubles:
    return np.ones_like(_cycles)


def _raised_cosine(end: float, cycles: Doubles) -> Doubles:
    return np.where(cycles < end, np.cos(np.pi * np.minimum(cycles / end, 1) / 2) ** 2, 0.0)


def _gaussian(half: float, cycles: Doubles) -> Doubles:
    return np.asarray(0.5 ** np.square(cycles / half))


def _decay(half: float, cycles: Doubles) -> Doubles:
    return np.asarray(0.5 ** (cycles / half))


@dataclass(frozen=True, kw_only=True)
class Simulated:
    """A scanner that is not measured but known.

    Attributes:
        transfers: along slices, rows and columns, of cycles per mm.
        curve: of intensity; of CT none.
        field: standard deviation of the logarithm of its bias field.
        noise: σ, of CT in HU and with the spectrum of a sharper kernel; of MR it is Rician.
    """

    modality: str
    transfers: tuple[Transfer, Transfer, Transfer]
    noise: float
    curve: Callable[[Doubles], Doubles] | None = None
    field: float = 0.0

    def scan(self, volume: Volume, seed: int, added: Floats | float = 0.0) -> Volume:
        """Scan a volume, to which lesions may be added."""
        rng = np.random.default_rng(seed)
        values = volume.voxels + np.float32(added)
        spacing = volume.geometry.spacing[::-1]
        if self.curve:
            values = self.curve(np.maximum(values, 0) / UNIT) * _field(
                values.shape, self.field, rng
            )
        values = filtered(values, spacing, self.transfers)
        if self.modality == "MR":
            values = UNIT * rician_noise(values, self.noise, rng)
        else:
            noise = rng.standard_normal(values.shape)
            ramp = (_even, *[lambda f: (0.1 + f) * _gaussian(0.3, f)] * 2)
            noise = filtered(noise, spacing, ramp)
            values = values + self.noise / noise.std() * noise
        return volume.with_voxels(np.round(values).astype(np.float32))


def filtered(values: Floats, spacing: Sequence[float], transfers: Sequence[Transfer]) -> Floats:
    """Weight frequencies along each axis; edges are continued."""
    for axis, (mm, transfer) in enumerate(zip(spacing, transfers, strict=True)):
        moved = np.moveaxis(values, axis, -1)
        padded = np.pad(moved, ((0, 0), (0, 0), (_MARGIN, _MARGIN)), mode="edge")
        weights = transfer(np.fft.rfftfreq(padded.shape[-1], mm))
        line = np.fft.irfft(np.fft.rfft(padded) * weights, padded.shape[-1])
        values = np.moveaxis(line[..., _MARGIN:-_MARGIN], -1, axis)
    return np.ascontiguousarray(values, np.float32)


def _field(shape: tuple[int, ...], deviation: float, rng: np.random.Generator) -> Floats:
    """Draw a polynomial of second order."""
    k, j, i = np.meshgrid(*(np.linspace(-1, 1, side) for side in shape), indexing="ij")
    terms = (i, j, k, i * j, i * i - 1 / 3, j * j - 1 / 3, k * i)
    field = sum(rng.normal() * term for term in terms)
    field *= deviation / field.std()
    return np.asarray(np.exp(field - field.mean()), np.float32)


def _saturating(x: Doubles) -> Doubles:
    return 2 * x / (1 + x)


def _convex(x: Doubles) -> Doubles:
    return 0.5 * x + 0.5 * x**2


_IN_PLANE = partial(_raised_cosine, 0.32)
SCANNERS = {
    "low field": Simulated(
        modality="MR", transfers=(_even, _IN_PLANE, _IN_PLANE), noise=0.045, curve=_saturating,
        field=0.2,
    ),
    "old spin echo": Simulated(
        modality="MR", transfers=(partial(_gaussian, 0.088), partial(_decay, 0.18), _even),
        noise=0.02, curve=_convex, field=0.1,
    ),
    "CT kernel": Simulated(
        modality="CT", transfers=(_even, partial(_gaussian, 0.22), partial(_gaussian, 0.22)),
        noise=40.0,
    ),
}  # fmt: skip
SCANNERS["low field, brains"] = SCANNERS["low field"]


@dataclass(frozen=True)
class Pools:
    """Paths below the shared data: the scanner's patients, and others; no patient is in both."""

    low: list[str]
    good: list[str]

    @property
    def held_out(self) -> list[str]:
        """Whose scans, with other noise and other fields, are judged."""
        return self.low[: 1 if QUICK else 8]


def pools_of(name: str) -> Pools:
    """Divide the volumes that there are: patients of extremities in turn, brains by patient."""
    if name == "low field, brains":
        names = _found("mr/open_ms/L*/study*_FLAIR.nii.gz")
        low = [each for each in names if each.split("/")[2] in ("L01", "L03")]
        return Pools(low, [each for each in names if each not in low])
    names = _found("ct/sts/*/CT.nii.gz" if name == "CT kernel" else "mr/sts/*/MR_T1.nii.gz")
    return Pools(names[1:24:2], names[0:24:2])


def _found(pattern: str) -> list[str]:
    return sorted(path.relative_to(SHARED_DATA).as_posix() for path in SHARED_DATA.glob(pattern))


def central(name: str, modality: str) -> Volume:
    """Load the middle of a volume, in canonical order."""
    volume = load(SHARED_DATA / name, modality=modality).canonical()
    return volume.crop(
        **{
            axis: slice((side - min(side, most)) // 2, (side + min(side, most)) // 2)
            for axis, side, most in zip("kji", volume.shape, SLAB, strict=True)
        }
    ).compact()


def truth_of(name: str, modality: str) -> Volume:
    """Load a volume as float32: CT in HU, MR in thousandths of its 99th percentile of tissue."""
    volume = central(name, modality)
    voxels = volume.voxels.astype(np.float32)
    if modality == "MR":
        voxels = np.clip(voxels * (UNIT / np.percentile(voxels[voxels > voxels.mean() / 2], 99)),
                         0, 3 * UNIT)  # fmt: skip
    return replace(volume.with_voxels(voxels), history=())


def tissue_of(truth: Volume) -> Mask:
    bound = TISSUE_HU if truth.modality == "CT" else TISSUE * UNIT
    return np.asarray(truth.voxels > bound)


def lesions_in(truth: Volume, seed: int) -> tuple[Floats, list[Lesion]]:
    """Draw ellipsoids in even tissue: what they add to a volume, and the lesions."""
    rng = np.random.default_rng((seed, 7))
    spacing = np.array(truth.geometry.spacing[::-1])
    candidates = np.argwhere(even_tissue(Subject("", truth, 1.0, tissue_of(truth))))
    centers: list[npt.NDArray[np.int64]] = []
    for center in rng.permutation(candidates)[:2000]:
        if all(np.linalg.norm((center - other) * spacing) > _APART_MM for other in centers):
            centers.append(center)
    added, lesions = np.zeros(truth.shape, np.float32), []
    places = np.indices(truth.shape).transpose(1, 2, 3, 0)
    for center in centers[:_LESIONS]:
        contrast = float(rng.choice((-1, 1)) * rng.uniform(*_CONTRAST[truth.modality]))
        contrast *= UNIT if truth.modality == "MR" else 1.0
        radii = rng.uniform(*_RADII, 3)
        reach = np.ceil(radii / spacing + 1).astype(int)
        where = tuple(
            slice(max(0, at - far), at + far + 1) for at, far in zip(center, reach, strict=True)
        )
        distance = np.linalg.norm((places[where] - center) * spacing / radii, axis=-1)
        share = np.clip((1 - distance) * radii.mean() / spacing[1] + 0.5, 0, 1).astype(np.float32)
        added[where] += contrast * share
        lesions.append(Lesion((where[0], where[1], where[2]), share, contrast))
    return added, lesions
