"""Scanners that no code of the library contains, and the volumes and lesions behind them.

Arrays are [K, J, I] in canonical order: CT in HU, MR in thousandths of the 99th percentile of
tissue.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
from _common import SHARED_DATA
from _enhancement_data import Floats, Mask, Subject
from _enhancement_lesions import Lesion, even_tissue

from MedEnhanceLib.core.volume import Volume
from MedEnhanceLib.io import load
from MedEnhanceLib.noise.rician import rician_noise

Function = Callable[[npt.NDArray[np.float64]], npt.NDArray[np.float64]]
UNIT = 1000.0
#: Most slices, rows and columns around the center.
_SLAB, DRAWN_SLAB = (32, 224, 224), (24, 144, 144)
_TISSUE, _TISSUE_HU, _MARGIN = 0.06, -500.0, 8
#: Of planted lesions: radii and distance in mm, number, and contrast in MR and CT.
_RADII, _APART_MM, _LESIONS = (4.0, 9.0), 24.0, 12
_CONTRAST = {"MR": (80.0, 250.0), "CT": (30.0, 100.0)}


@dataclass(frozen=True, kw_only=True)
class Simulated:
    """A scanner that is not measured but known.

    Attributes:
        transfers: along slices, rows and columns, of cycles per mm.
        noise: σ; of CT in HU with the spectrum of a sharper kernel, of MR Rician.
        curve: of intensities in MR, 0 to 1.
        field: standard deviation of the logarithm of the bias field.
        fault: "varying noise", "alias", "wrap", "warp", or "" for none; its strength depends on
            `number`.
        number: of what is drawn for the fault.
    """

    modality: str
    transfers: tuple[Function, Function, Function]
    noise: float
    curve: Function | None = None
    field: float = 0.0
    fault: str = ""
    number: int = 0

    def on_grid_of_scans(self, volume: Volume) -> Volume:
        """Crop a volume to the field of view of its scan, which is smaller where it wraps."""
        outside = self._outside(volume.shape[1])
        return volume.crop(j=slice(outside, -outside)).compact() if outside else volume

    def _outside(self, rows: int) -> int:
        share = np.random.default_rng((self.number, 4)).uniform(0.05, 0.12)
        return round(share * rows) if self.fault == "wrap" else 0

    def scan(self, volume: Volume, seed: int, added: Floats | float = 0.0) -> Volume:
        """Scan a volume to which lesions were added."""
        rng, spacing = np.random.default_rng(seed), volume.geometry.spacing[::-1]
        fault = np.random.default_rng((self.number, 3))
        values = volume.voxels + np.float32(added)
        if self.fault == "warp":
            values = _warped(values, spacing, fault)
        if self.curve:
            values = self.curve(np.maximum(values, 0) / UNIT)
            values *= _field(values.shape, self.field, rng)
        values = _filtered(values, spacing, self.transfers)
        if self.fault == "alias":
            shift = round(values.shape[1] / fault.integers(2, 4))
            values += np.float32(fault.uniform(0.12, 0.3)) * np.roll(values, shift, axis=1)
        if outside := self._outside(values.shape[1]):
            inner = values[:, outside:-outside].copy()
            inner[:, -outside:] += values[:, :outside]
            inner[:, :outside] += values[:, -outside:]
            values, volume = inner, self.on_grid_of_scans(volume)
        if self.fault == "varying noise":
            rows, columns = (np.linspace(-1, 1, side) for side in values.shape[1:])
            distance = fault.choice([np.hypot(rows[:, None], columns), rows[:, None] + 0 * columns])
            level = self.noise * (1 + fault.uniform(1, 3) * np.clip(1 - distance, 0, 2) / 1.5)
            first, second = rng.standard_normal((2, *values.shape))
            values = UNIT * np.hypot(values + level * first, level * second)
        elif self.curve:
            values = UNIT * rician_noise(values, self.noise, rng)
        else:
            noise = _filtered(rng.standard_normal(values.shape), spacing, _SHARP)
            values += self.noise / noise.std() * noise
        return volume.with_voxels(np.round(values).astype(np.float32))


def _warped(values: Floats, spacing: Sequence[float], rng: np.random.Generator) -> Floats:
    """Shift each slice smoothly within its plane, by 3 to 6 mm at most."""
    from scipy.ndimage import map_coordinates

    rows, columns = (np.linspace(-1, 1, side) for side in values.shape[1:])
    amount, places = rng.uniform(3, 6), np.indices(values.shape[1:])
    shifts = [
        amount / mm * np.sin(np.pi * (rng.uniform(-1, 1) * rows[:, None] + rng.uniform() * columns))
        for mm in spacing[1:]
    ]
    at = [place + shift for place, shift in zip(places, shifts, strict=True)]
    return np.stack([map_coordinates(each, at, order=1, mode="nearest") for each in values])


def _filtered(values: Floats, spacing: Sequence[float], transfers: Sequence[Function]) -> Floats:
    """Weight frequencies along each axis; edges are continued."""
    for axis, (mm, transfer) in enumerate(zip(spacing, transfers, strict=True)):
        moved = np.moveaxis(values, axis, -1)
        padded = np.pad(moved, ((0, 0), (0, 0), (_MARGIN, _MARGIN)), mode="edge")
        count = padded.shape[-1]
        line = np.fft.irfft(np.fft.rfft(padded) * transfer(np.fft.rfftfreq(count, mm)), count)
        values = np.moveaxis(line[..., _MARGIN:-_MARGIN], -1, axis)
    return np.ascontiguousarray(values, np.float32)


def _field(shape: tuple[int, ...], deviation: float, rng: np.random.Generator) -> Floats:
    """Draw a polynomial of second order."""
    k, j, i = np.meshgrid(*(np.linspace(-1, 1, side) for side in shape), indexing="ij")
    terms = (i, j, k, i * j, i * i - 1 / 3, j * j - 1 / 3, k * i)
    field = sum(rng.normal() * term for term in terms)
    field *= deviation / field.std()
    return np.asarray(np.exp(field - field.mean()), np.float32)


def _gaussian(half: float) -> Function:
    return lambda f: 0.5 ** np.square(f / half)


def _cosine(f: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Weight the lines of a truncated k-space: half at 0.16 cycles per mm, none from 0.32 on."""
    return np.cos(np.pi / 2 * np.minimum(f / 0.32, 1)) ** 2


_SHARP: tuple[Function, Function, Function] = (
    np.ones_like, *[lambda f: (0.1 + f) * _gaussian(0.3)(f)] * 2,
)  # fmt: skip
_LOW_FIELD = Simulated(
    modality="MR", transfers=(np.ones_like, _cosine, _cosine), noise=0.045, field=0.2,
    curve=lambda x: 2 * x / (1 + x),
)  # fmt: skip
SCANNERS = {
    "low field": _LOW_FIELD,
    "old spin echo": Simulated(
        modality="MR", noise=0.02, field=0.1, curve=lambda x: (x + x**2) / 2,
        transfers=(_gaussian(0.088), lambda f: 0.5 ** (f / 0.18), np.ones_like),
    ),
    "CT kernel": Simulated(
        modality="CT", noise=40.0, transfers=(np.ones_like, _gaussian(0.22), _gaussian(0.22))
    ),
    "low field, brains": _LOW_FIELD,
}  # fmt: skip


def pools_of(name: str) -> tuple[list[str], list[str]]:
    """Divide what there is of a kind: behind the scanner, and of high quality; no patient in both.

    Limbs and trunks in turn; brains by patient.
    """
    if name == "low field, brains":
        names = found("mr/open_ms/L*/study*_FLAIR.nii.gz")
        low = [each for each in names if each.split("/")[2] in ("L01", "L03")]
        return low, [each for each in names if each not in low]
    names = found("ct/sts/*/CT.nii.gz" if name == "CT kernel" else "mr/sts/*/MR_T1.nii.gz")[:24]
    return names[1::2], names[::2]


#: What is drawn: a fault or "none", the anatomy, how many, and whether a result is judged.
_DRAWN = (
    ("none", "limbs and trunks", 20, False), ("none", "brains", 3, False),
    ("not monotone", "limbs and trunks", 6, False), ("not monotone", "brains", 4, False),
    ("varying noise", "limbs and trunks", 3, True), ("alias", "limbs and trunks", 2, True),
    ("wrap", "limbs and trunks", 2, True), ("warp", "limbs and trunks", 3, True),
)  # fmt: skip
#: Contrasts that are not monotone: as T2 beside T1, a fold in the middle, a tent, a dark fold.
_NOT_MONOTONE = (
    ((0, 0.12, 0.5, 1, 2), (0, 1, 0.6, 0.2, 0.1)),
    ((0, 0.3, 0.5, 0.75, 1, 2), (0, 0.35, 0.85, 0.4, 1, 2)),
    ((0, 0.5, 1, 2), (0, 1, 0.25, 0.1)), ((0, 0.25, 0.6, 1, 2), (0, 0.8, 0.3, 1, 2)),
)  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Draw:
    """A scanner that is drawn, and the patients of its pools, of whom none is in two.

    Attributes:
        rest: patients of neither pool, whose scans are judged.
    """

    name: str
    kind: str
    anatomy: str
    scanner: Simulated
    low: list[str]
    good: list[str]
    rest: list[str]
    is_judged: bool


def draws(is_quick: bool) -> list[Draw]:
    """Draw scanners; of a quick run one of each kind."""
    return [
        _draw(kind, anatomy, number, is_judged)
        for kind, anatomy, count, is_judged in _DRAWN
        for number in range(1 if is_quick else count)
    ]


def _draw(kind: str, anatomy: str, number: int, is_judged: bool) -> Draw:
    names = found("mr/sts/*/MR_T1.nii.gz")[:24]
    if anatomy == "brains":
        names = found("mr/open_ms/L*/study*_FLAIR_brain.nii.gz") + found(
            "mr/open_ms/C*/FLAIR.nii.gz"
        )
    rng = np.random.default_rng([number, *kind.encode(), len(anatomy)])
    people = rng.permutation(sorted({name.split("/")[-2] for name in names}))
    first, second = (3, 6) if anatomy == "brains" else (8, 20)
    low, good, rest = (
        [name for name in names if name.split("/")[-2] in group]
        for group in (people[:first], people[first:second], people[second : second + 1])
    )
    per_mm = 1 / slab(low[0], "MR").geometry.spacing[0] if low else 1.0
    transfers = [_drawn_transfer(float(rng.uniform(0.15, 0.5)) * per_mm, rng) for _ in range(2)]
    transfers = transfers if rng.random() < 0.6 else transfers[:1] * 2
    exponent, places = np.exp(rng.uniform(-0.5, 0.5)), _NOT_MONOTONE[number % 4]
    curve: Function = lambda x: x**exponent  # noqa: E731
    if kind == "not monotone":
        curve = lambda x: np.interp(x, *places)  # noqa: E731
    scanner = Simulated(
        modality="MR", transfers=(np.ones_like, *transfers), noise=float(rng.uniform(0.01, 0.06)),
        curve=curve, field=float(rng.uniform(0, 0.25)), number=number,
        fault="" if kind in ("none", "not monotone") else kind,
    )  # fmt: skip
    return Draw(
        name=f"drawn, {kind}, {anatomy}, {number}", kind=kind, anatomy=anatomy, scanner=scanner,
        low=low, good=good, rest=rest, is_judged=is_judged,
    )  # fmt: skip


def _drawn_transfer(half: float, rng: np.random.Generator) -> Function:
    """Draw the form of a transfer; half: MTF50."""
    forms: list[Function] = [
        _gaussian(half),
        lambda f: np.cos(np.pi / 2 * np.minimum(f / (2 * half), 1)) ** 2,
        lambda f: 1 / (1 + np.exp(np.minimum((f - half) / (0.08 * half), 50))),
        lambda f: 0.5 ** (f / half),
    ]
    return forms[rng.integers(4)]


def found(pattern: str) -> list[str]:
    return sorted(path.relative_to(SHARED_DATA).as_posix() for path in SHARED_DATA.glob(pattern))


def slab(path: str, modality: str, most: Sequence[int] = _SLAB) -> Volume:
    """Load the middle of a volume; most: slices, rows and columns."""
    volume = load(SHARED_DATA / path, modality=modality).canonical()
    middle = (
        slice((side - min(side, part)) // 2, (side + min(side, part)) // 2)
        for side, part in zip(volume.shape, most, strict=True)
    )
    return replace(volume.crop(**dict(zip("kji", middle, strict=True))).compact(), history=())


def truth_of(path: str, modality: str, most: Sequence[int] = _SLAB) -> Volume:
    """Load the middle of a volume as float32, on the scale of these arrays; most: as `slab`."""
    volume = slab(path, modality, most)
    voxels = volume.voxels.astype(np.float32)
    if modality == "MR":
        voxels *= UNIT / np.percentile(voxels[voxels > voxels.mean() / 2], 99)
        voxels = np.clip(voxels, 0, 3 * UNIT)
    return volume.with_voxels(voxels)


def tissue_of(truth: Volume) -> Mask:
    return np.asarray(truth.voxels > (_TISSUE_HU if truth.modality == "CT" else _TISSUE * UNIT))


def lesions_in(truth: Volume, seed: int) -> tuple[Floats, list[Lesion]]:
    """Draw ellipsoids in even tissue: what they add to a volume, and each."""
    rng, spacing = np.random.default_rng((seed, 7)), np.array(truth.geometry.spacing[::-1])
    candidates = np.argwhere(even_tissue(Subject("", truth, 1.0, tissue_of(truth))))
    centers: list[npt.NDArray[np.int64]] = []
    for center in rng.permutation(candidates)[:2000]:
        if all(np.linalg.norm((center - other) * spacing) > _APART_MM for other in centers):
            centers.append(center)
    added, lesions = np.zeros(truth.shape, np.float32), []
    places = np.indices(truth.shape).transpose(1, 2, 3, 0)
    for center in centers[:_LESIONS]:
        contrast = float(rng.choice((-1, 1)) * rng.uniform(*_CONTRAST[truth.modality]))
        radii = rng.uniform(*_RADII, 3)
        first = np.maximum(center - np.ceil(radii / spacing + 1).astype(int), 0)
        k, j, i = (slice(a, 2 * b - a + 1) for a, b in zip(first, center, strict=True))
        distance = np.linalg.norm((places[k, j, i] - center) * spacing / radii, axis=-1)
        share = np.clip((1 - distance) * radii.mean() / spacing[1] + 0.5, 0, 1).astype(np.float32)
        added[k, j, i] += contrast * share
        lesions.append(Lesion((k, j, i), share, contrast))
    return added, lesions
