"""How well the noise of a volume is measured in the volume itself, against noise that is known.

    python Testing/Benchmarks/noise.py

References are volumes whose own noise was lowered: averaged over 2 × 2 (× 2) voxels where the table
says so, and filtered (block_matching.py), except the brain template. CT noise comes from one
simulated scan per kernel (degradation/lowdose.py) and is scaled to the wanted level; overlapping
slices are neighbors averaged with weights 1, 2, 1. The interval is judged on synthetic volumes of
scanners that are drawn at random (degradation/ct_scanner.py), every third one with weak noise.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from _common import QUICK, SHARED_DATA, Gate, Part, Row, at_most, gate, run

from MedEnhanceLib.core.arrays import robust_max
from MedEnhanceLib.degradation.ct_scanner import CtScanner
from MedEnhanceLib.degradation.lowdose import low_dose_noise
from MedEnhanceLib.filters.block_matching import BlockMatchingFilter
from MedEnhanceLib.io import load
from MedEnhanceLib.noise.estimate import NoiseEstimate, measure_noise
from MedEnhanceLib.synthetic import synthetic_volume

Floats = npt.NDArray[np.float32]

#: Cutoff of the Hann window in Nyquist frequencies, and whether slices overlap.
KERNELS = {
    "soft": (0.7, False),
    "standard": (1.2, False),
    "sharp": (2.0, False),
    "bone": (math.inf, False),
    "standard, overlap": (1.2, True),
    "sharp, overlap": (2.0, True),
}
LEVELS_HU = (6, 12, 25, 50)
LEVELS_PERCENT = (1, 2, 3, 5, 10, 15)
PHOTONS = 3e4
#: Share of k-space along rows and columns that zero filling leaves.
KEPT = 0.65
CT = ("ct/sts/STS_001/CT", "ct/sts/STS_005/CT", "ct/sts/STS_037/CT", "ct/abdomen/CT")
#: Volume, and how many voxels along k, j, i are averaged.
MR = (
    ("sample/mni152_t1", (1, 1, 1)),
    ("sample/mni152_t1", (2, 2, 2)),
    ("mr/studyforrest/T1", (1, 1, 1)),
    ("mr/studyforrest/T1", (2, 2, 2)),
    ("mr/open_ms/C19/T1", (1, 1, 1)),
    ("mr/open_ms/C07/T1", (2, 2, 2)),
    ("mr/open_ms/C19/FLAIR", (1, 1, 1)),
    ("mr/sts/STS_001/MR_T1", (1, 1, 1)),
    ("mr/sts/STS_005/MR_T1", (1, 2, 2)),
    ("mr/open_ms/L01/study2_T2W", (1, 2, 2)),
    ("mr/open_ms/L01/study1_FLAIR", (1, 1, 1)),
)
#: Scanners that are drawn, volumes of a part, and the noise of every third one.
SCANNERS, _AT_ONCE, WEAK_HU = 150, 25, (3.0, 8.0)
SCANNER = "scanner drawn at random"
#: mm of a pixel in wide bodies, and voxels of the volumes; those of the others follow the seed.
WIDE_MM, SHAPES = 1.4, ((8, 192, 256), (12, 128, 160), (16, 112, 112), (32, 112, 112))
#: σ in HU from which an interval has to be narrow, and the square of a Gaussian's median.
JUDGED_HU, _MEDIAN_SQUARE = 8.0, 0.455
_LOWEST_HU = -300.0
_MOST_SLICES = 40
_AMOUNT = 1.4


@dataclass(frozen=True, eq=False)
class Case:
    """clean: without noise; noise: its Gaussian part alone; tissue: what is judged; [K, J, I]."""

    kind: str
    name: str
    level: str
    modality: str
    voxels: Floats
    noise: Floats
    tissue: npt.NDArray[np.bool_]
    spacing: tuple[float, float, float]
    clean: Floats


def parts() -> Iterator[Part]:
    for name in CT[2:3] if QUICK else CT:
        yield name, lambda name=name: map(judge, ct_cases(name))
    for name, by in MR[4:5] if QUICK else MR:
        yield f"{name} {by}", lambda case=(name, by): map(judge, mr_cases(*case))
    count = 3 if QUICK else SCANNERS
    for first in range(0, count, _AT_ONCE):
        seeds = range(first, min(first + _AT_ONCE, count))
        yield f"CT scanners from {first}", lambda seeds=seeds: map(judge, scanner_cases(seeds))


# --- cases ----------------------------------------------------------------------------------------


def read(name: str) -> tuple[Floats, tuple[float, float, float]]:
    volume = load(SHARED_DATA / f"{name}.nii.gz", modality="CT" if name.startswith("ct/") else "MR")
    return volume.voxels.astype(np.float32), volume.geometry.spacing


def averaged(voxels: Floats, by: tuple[int, int, int]) -> Floats:
    for axis, count in enumerate(by):
        whole = voxels.shape[axis] // count * count
        parts = np.moveaxis(voxels, axis, 0)[:whole]
        parts = parts.reshape(-1, count, *parts.shape[1:]).mean(axis=1)
        voxels = np.moveaxis(parts, 0, axis)
    rows, columns = (side // 2 * 2 for side in voxels.shape[1:])
    return np.ascontiguousarray(voxels[:, :rows, :columns], dtype=np.float32)


def shrunk(voxels: Floats, modality: str, amount: float) -> Floats:
    """The reference with less noise: the block-matching filter at `amount` × its noise.

    That is at least what its quietest blocks show, though an enhancement would remove less.
    """
    estimate = measure_noise(voxels, modality=modality)
    estimate = estimate.at_level(max(estimate.level, estimate.apparent))
    level = estimate[:] * np.float32(amount)
    return BlockMatchingFilter(voxels, level, estimate.spectrum.reshape(-1)).denoised()


def ct_cases(name: str) -> Iterator[Case]:
    whole, spacing = read(name)
    reference = averaged(whole[:20], (1, 2, 2))
    if "abdomen" in name:
        reference = reference[:, 40:220, 20:236]
    reference = shrunk(reference, "CT", _AMOUNT)
    tissue = reference > _LOWEST_HU
    for kernel, (cutoff, overlap) in KERNELS.items():
        noise = low_dose_noise(
            reference, spacing, PHOTONS, 5, np.random.default_rng(1), cutoff=cutoff
        )
        base, inside = reference, tissue
        if overlap:
            noise = (noise[:-2] / 2 + noise[1:-1] + noise[2:] / 2) / np.float32(math.sqrt(1.5))
            base, inside = reference[1:-1], tissue[1:-1]
        unit = noise / np.float32(np.sqrt(np.square(noise[inside]).mean()))
        for level in LEVELS_HU:
            added = unit * np.float32(level)
            kind, strength = f"CT {kernel}", f"{level} HU"
            yield Case(kind, name, strength, "CT", base + added, added, inside, spacing, base)


def scanner_cases(seeds: range) -> Iterator[Case]:
    """Synthetic volumes as scanners of CT show them, in HU without fractions."""
    for seed in seeds:
        rng = np.random.default_rng([68, seed])
        shape = SHAPES[rng.integers(len(SHAPES))]
        is_wide = shape[2] > shape[1]
        spacing = (float(rng.uniform(1, 5)), WIDE_MM, WIDE_MM) if is_wide else None
        volume = synthetic_volume("CT", 680_000 + seed, shape=shape, spacing=spacing)
        scanner = CtScanner.draw(rng)
        noise = scanner.noise(volume.voxels, volume.geometry.spacing, rng)
        shown = scanner.shown(volume.voxels)
        tissue = shown > _LOWEST_HU
        if seed % 3 == 0:
            sigma = np.sqrt(np.median(np.square(noise[tissue])) / _MEDIAN_SQUARE)
            noise *= np.float32(rng.uniform(*WEAK_HU) / sigma)
        voxels = np.round(shown + noise)
        level, spacing = f"{scanner.photons:.0f} photons", volume.geometry.spacing
        name = f"synthetic {seed}"
        yield Case(SCANNER, name, level, "CT", voxels, noise, tissue, spacing, shown)


def mr_cases(name: str, by: tuple[int, int, int]) -> Iterator[Case]:
    reference, spacing = read(name)
    if reference.shape[0] > 2 * _MOST_SLICES:
        middle = reference.shape[0] // 2
        reference = reference[middle - _MOST_SLICES : middle + _MOST_SLICES]
    reference = averaged(reference, by)
    if "mni152" not in name:
        reference = shrunk(reference, "MR", 1.0)
    reference = np.maximum(reference, 0)[:_MOST_SLICES]
    top = robust_max(reference)
    tissue = reference > 0.1 * top
    title = name + (f" ÷ {by[0]}×{by[1]}×{by[2]}" if max(by) > 1 else "")
    rng = np.random.default_rng(3)
    for percent in LEVELS_PERCENT:
        sigma = np.float32(percent / 100 * top)
        first, other = sigma * rng.standard_normal((2, *reference.shape), dtype=np.float32)
        gain = g_factor(reference.shape)
        pairs = {"MR Rician": (np.hypot(reference + first, other), first)}
        if "mni152" in name:
            pairs["MR Rician"] = np.where(reference > 0, pairs["MR Rician"][0], 0), first
        if percent in (3, 10):
            soft, across = (zero_filled(part) / np.float32(KEPT) for part in (first, other))
            base = np.maximum(zero_filled(reference), 0)
            pairs["MR Gaussian"] = reference + first, first
            pairs["MR g-factor"] = np.hypot(reference + gain * first, gain * other), gain * first
            pairs["MR zero-filled"] = np.hypot(base + soft, across), soft
        for kind, (voxels, noise) in pairs.items():
            clean = base if kind == "MR zero-filled" else reference
            yield Case(kind, title, f"{percent} %", "MR", voxels, noise, tissue, spacing, clean)


def g_factor(shape: tuple[int, ...]) -> Floats:
    """Noise 2.5 times as strong in the middle of the slices as far from it."""
    rows, columns = (np.linspace(-1, 1, side, dtype=np.float32) for side in shape[1:])
    distance = np.hypot(rows[:, None], columns)
    return np.broadcast_to(1 + 1.5 * np.exp(-2 * distance**2), shape).astype(np.float32)


def zero_filled(voxels: Floats) -> Floats:
    """Without the outer part of k-space along rows and columns."""
    spectrum = np.fft.fft2(voxels)
    for axis in (1, 2):
        frequency = np.abs(np.fft.fftfreq(voxels.shape[axis]))
        outside = np.flatnonzero(frequency > KEPT / 2)
        spectrum[(slice(None),) * axis + (outside,)] = 0
    return np.fft.ifft2(spectrum).real.astype(np.float32)


# --- judging --------------------------------------------------------------------------------------


def in_blocks(volume: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """[K, J, I] → [k, j, i, 64]."""
    k, j, i = (side // 4 for side in volume.shape)
    split = volume[: 4 * k, : 4 * j, : 4 * i].reshape(k, 4, j, 4, i, 4)
    return split.transpose(0, 2, 4, 1, 3, 5).reshape(k, j, i, 64)


def judge(case: Case) -> Row:
    estimate = measure_noise(case.voxels, modality=case.modality, spacing=case.spacing)
    level = known_level(case, estimate)
    return {
        "kind": case.kind,
        "volume": case.name,
        "noise": case.level,
        "true": round(level, 3),
        "ratio": round(estimate.level / level, 3),
        "low": round(estimate.low / level, 3),
        "high": round(estimate.high / level, 3),
    }


def known_level(case: Case, estimate: NoiseEstimate) -> float:
    """The median of σ as it is known, in the cells of the blocks of tissue."""
    inside = in_blocks(case.tissue).all(axis=-1)
    square = np.square(in_blocks(case.noise)).mean(axis=-1)
    place = np.stack(np.nonzero(inside))
    wide = np.array([max(1, round(side / 4)) for side in estimate.cell])[:, None]
    cell = np.ravel_multi_index(tuple(place // wide), estimate.sigma.shape)
    count = np.bincount(cell, minlength=estimate.sigma.size)
    total = np.bincount(cell, weights=square[inside], minlength=estimate.sigma.size)
    true = np.sqrt(total / np.maximum(count, 1))
    many = count[cell] >= 8
    return float(np.median(true[cell][many if many.any() else slice(None)]))


# --- results


def gates_of(rows: list[Row]) -> Iterator[Gate]:
    """The level, of the modality in which it is measured less well, and the interval in CT."""
    errors = [
        float(np.mean([abs(row["ratio"] - 1) for row in rows if row["kind"].startswith(modality)]))
        for modality in ("CT", "MR")
    ]
    why = "where the noise is weak against the structure, the level is not certain; references are "
    why += "made with the measurement itself and change with it"
    yield at_most("error of the level, mean of the worse modality", max(errors), 0.1, why)
    drawn = [row for row in rows if row["kind"] == SCANNER]
    wide = [row["high"] / row["low"] for row in drawn if row["true"] >= JUDGED_HU]
    holds = [row["low"] <= 1 <= row["high"] for row in drawn]
    kept = float(np.mean(holds)) if holds else None
    is_narrow = bool(wide) and max(wide) <= 2.5
    yield gate(
        "scanners of CT: intervals that hold σ, none wider than a factor of 2.5 from 8 HU",
        kept, "≥ 0.85", kept is not None and kept >= 0.85 and is_narrow, "an interval is wider",
    )  # fmt: skip


if __name__ == "__main__":
    run("noise", __doc__, parts, gates_of, seeds=[1, 3])
