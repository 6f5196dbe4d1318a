"""What the warning of the enhancer is tried on: held-out scans, other scans, phantoms, noise."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
import numpy.typing as npt

from MedEnhanceLib.core.volume import Volume
from MedEnhanceLib.degrade import (
    Blur,
    Degradation,
    LowDose,
    Rician,
    gaussian_blur,
    rician_noise,
    standard_composite,
)
from MedEnhanceLib.io import load
from MedEnhanceLib.runtime.resources import resource_folder

Floats = npt.NDArray[np.float32]

ELECTRONIC_PHOTONS = 5.0
MR_CASES: dict[str, Callable[[int], Degradation]] = {
    "Rician 5 %": partial(Rician, 0.05),
    "Rician 10 %": partial(Rician, 0.10),
    "Rician 15 %": partial(Rician, 0.15),
    "blur σ 1 px": partial(Blur, 1.0),
    "composite": standard_composite,
}
CT_DOSES = {"low dose 2e4": 2e4, "low dose 5e3": 5e3, "low dose 2e3": 2e3}
CT_HELD_OUT = ("STS_013", "STS_025", "STS_037")
_PHANTOM_SHAPE = (32, 160, 160)


@dataclass(frozen=True)
class Case:
    """group: a row of the table. wanted: the codes of which one should come, () for none of the
    warnings of range, None where there is no right answer and the rate alone is reported."""

    group: str
    name: str
    volume: Volume
    wanted: tuple[str, ...] | None


FLAGGED = ("out-of-range", "no-structure")
CLEAN = ("already-clean",)


def mr_cases(data: Path, seeds: list[int]) -> Iterator[Case]:
    """For a model of brain MR."""
    template = load(resource_folder("samples") / "mni152_t1.nii.gz", modality="MR")
    for name, volume in (
        ("C19 T1", _read(data / "mr/open_ms/C19/T1.nii.gz", "MR")),
        ("sample template", template),
        ("C19 FLAIR", _read(data / "mr/open_ms/C19/FLAIR.nii.gz", "MR")),
    ):
        if volume is None:
            continue
        whose = "another sequence: C19 FLAIR" if "FLAIR" in name else "held-out T1"
        volume = volume.with_voxels(volume.voxels.astype(np.float32))
        yield Case(f"{whose}, undamaged", name, volume, CLEAN if "T1" in whose else None)
        for case, make in MR_CASES.items():
            for seed in seeds if case != "blur σ 1 px" else seeds[:1]:
                damaged = make(seed).apply(volume)
                wanted = () if "T1" in whose else None
                yield Case(f"{whose}, damaged", f"{name}, {case}, seed {seed}", damaged, wanted)
    for path in sorted(data.glob("mr/open_ms/L*/*.nii.gz")):
        kind = path.name.removesuffix(".nii.gz").partition("_")[2]
        if kind in ("T1W", "T2W", "FLAIR"):
            trained = " (in the low-quality pool)" if kind == "T1W" else ""
            yield from _raw(path, data, f"raw {kind} of patients{trained}", None, "MR")
    for path in sorted(data.glob("mr/sts/*/MR_T1.nii.gz")):
        yield from _raw(path, data, "another part of the body: limbs", None, "MR")
    for path in sorted([*data.glob("ct/sts/*/CT.nii.gz"), *data.glob("ct/abdomen/CT.nii.gz")]):
        yield from _raw(path, data, "CT read as MR, in HU", FLAGGED, "MR")
        yield from _raw(path, data, "CT read as MR, as stored (HU + 1024)", FLAGGED, "MR", 1024)
    for path in sorted(data.glob("ct/sts/*/PET.nii.gz")):
        yield from _raw(path, data, "PET read as MR", FLAGGED, "MR")
    yield from _microscopy(data, "MR")
    for seed in seeds:
        yield from _phantoms(seed, "MR")
        yield from _noises(seed, "MR")


def ct_cases(data: Path, seeds: list[int]) -> Iterator[Case]:
    """For a model of CT."""
    for name in CT_HELD_OUT:
        volume = _read(data / f"ct/sts/{name}/CT.nii.gz", "CT")
        if volume is None:
            continue
        yield Case("held-out limbs, as scanned", name, volume, ())
        for case, photons in CT_DOSES.items():
            damaged = LowDose(photons, ELECTRONIC_PHOTONS, seeds[0]).apply(volume)
            yield Case("held-out limbs, low dose", f"{name}, {case}", damaged, ())
    abdomen = data / "ct/abdomen/CT.nii.gz"
    yield from _raw(abdomen, data, "abdomen (in the high-quality pool)", None, "CT")
    patterns = ("sts/*/MR_T1", "open_ms/L*/*_T?W", "open_ms/C*/T1", "studyforrest/T1")
    for pattern in patterns:
        for path in sorted(data.glob(f"mr/{pattern}.nii.gz")):
            yield from _raw(path, data, "MR read as CT", FLAGGED, "CT")
    yield from _microscopy(data, "CT")
    for seed in seeds:
        yield from _phantoms(seed, "CT")
        yield from _noises(seed, "CT")


def _read(path: Path, modality: str) -> Volume | None:
    return load(path, modality=modality) if path.is_file() else None


def _raw(
    path: Path,
    data: Path,
    group: str,
    wanted: tuple[str, ...] | None,
    modality: str,
    offset: float = 0.0,
) -> Iterator[Case]:
    volume = _read(path, modality)
    if volume is not None:
        if offset:
            volume = volume.with_voxels(volume.voxels.astype(np.float32) + np.float32(offset))
        yield Case(group, str(path.relative_to(data)), volume, wanted)


def _microscopy(data: Path, modality: str) -> Iterator[Case]:
    for name in ("medulla_t2", "medulla_v_z0"):
        yield from _raw(data / f"em/{name}.nii.gz", data, "electron microscopy", FLAGGED, modality)


def _phantoms(seed: int, modality: str) -> Iterator[Case]:
    """Signal 0 to 1000 in air of 0; for CT in air of −1000 HU, water at 0."""
    rng = np.random.default_rng([seed, 1])
    for name, signal in (
        ("uniform bottle", _bottle()),
        ("spheres", _spheres(rng)),
        ("Shepp-Logan", _shepp_logan()),
    ):
        for percent in (0, 2, 5, 10):
            if modality == "CT":
                noise = rng.normal(0, 10 * percent, signal.shape)
                voxels = (signal - 1000 + noise).astype(np.float32)
            else:
                voxels = rician_noise(signal, 10 * percent, rng)
            volume = Volume(voxels, modality=modality, source=name)
            label = f"{name}, noise {percent} %, seed {seed}"
            yield Case(f"phantom: {name}", label, volume, FLAGGED)


def _grid() -> tuple[npt.NDArray[np.float64], ...]:
    k, j, i = np.mgrid[tuple(slice(-1, 1, n * 1j) for n in _PHANTOM_SHAPE)]
    return k, j, i


def _bottle() -> Floats:
    k, j, i = _grid()
    return np.where((np.hypot(j, i) < 0.75) & (np.abs(k) < 0.9), 1000, 0).astype(np.float32)


def _spheres(rng: np.random.Generator) -> Floats:
    k, j, i = _grid()
    signal = np.zeros(_PHANTOM_SHAPE, np.float32)
    for _ in range(12):
        centre, radius = rng.uniform(-0.7, 0.7, 3), rng.uniform(0.1, 0.35)
        inside = (k - centre[0]) ** 2 + (j - centre[1]) ** 2 + (i - centre[2]) ** 2 < radius**2
        signal[inside] = rng.uniform(300, 1000)
    return signal


def _shepp_logan() -> Floats:
    from skimage.data import shepp_logan_phantom

    plane = shepp_logan_phantom()[::2, ::2].astype(np.float32) * 1000
    return np.repeat(plane[None], _PHANTOM_SHAPE[0], axis=0)


def _noises(seed: int, modality: str) -> Iterator[Case]:
    rng = np.random.default_rng([seed, 2])
    white = rng.normal(0, 100, _PHANTOM_SHAPE).astype(np.float32)
    smooth = gaussian_blur(rng.normal(0, 1000, _PHANTOM_SHAPE), 2.0, sigma_slices=2.0)
    level = 500 if modality == "MR" else 0
    for name, voxels in (
        ("Rayleigh", rician_noise(np.zeros(_PHANTOM_SHAPE), 100, rng)),
        ("Gaussian, positive and negative", white),
        ("constant + 5 %", white * np.float32(0.5) + np.float32(level)),
        ("constant + 20 %", white + np.float32(level)),
        ("blurred noise", smooth + np.float32(level)),
    ):
        volume = Volume(voxels, modality=modality, source=name)
        yield Case("pure noise", f"{name}, seed {seed}", replace(volume), FLAGGED)
